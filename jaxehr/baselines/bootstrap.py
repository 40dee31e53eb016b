"""The ceiling of fidelity, without any privacy: copies of training patients.

A synthetic patient is one of them, drawn with replacement; with a label, one of that
class. It takes patients as they are.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.blocks import blocks_of
from jaxehr.core.checks import positive
from jaxehr.core.cohort import Cohort, Schema, Table, num_patients, rows_of
from jaxehr.core.contracts import Callback, GenerativeModel, Params
from jaxehr.core.keys import draw_cells, patient_keys
from jaxehr.core.labels import label_codes
from jaxehr.core.sparse import SparseTable
from jaxehr.data.encoding import host

ROWS = 4096  # patients who are drawn at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """There is nothing to choose."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BootstrapSampling:
    """There is nothing to choose."""


PRESETS: dict[str, dict[str, Any]] = {}


def bootstrap(schema: Schema, config: BootstrapConfig | None = None) -> GenerativeModel:
    """Training patients drawn with replacement."""
    del config
    bound = functools.partial
    return GenerativeModel(bound(fit, schema), bound(sample, schema))


def fit(
    schema: Schema,
    key: jax.Array,
    cohort: Cohort,
    *,
    valid: Cohort | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> Params:
    """Keeps the patients, ordered by label."""
    del key, valid, callbacks, checkpoint, announce
    cohort = host(cohort)
    counts = np.bincount(cohort.label, minlength=max(schema.num_classes, 1))
    cohort = rows_of(cohort, np.argsort(cohort.label, kind="stable"))
    kept = cohort._asdict()
    for part in ("static", "temporal"):
        kept[part] = getattr(cohort, part)._asdict()
    text = f"{num_patients(cohort)} training patients as they are"
    return {"fitted": {"counts": counts}, "weights": kept, "input": np.array(text)}


def sample(
    schema: Schema,
    key: jax.Array,
    params: Params,
    label: Any | None,
    num: int,
    *,
    options: BootstrapSampling | None = None,
    index: Any | None = None,
    progress: Callable[[int], None] | None = None,
) -> Cohort:
    """Draws patients; patient i depends on key, params, label and i only."""
    del options
    counts = np.asarray(params["fitted"]["counts"])
    numbers = np.arange(num) if index is None else np.asarray(index)
    positive(num=len(numbers))
    codes = label_codes(schema, counts, label, len(numbers))
    numbers, chosen = numbers.astype(np.int32), []
    for rows, kept in blocks_of(len(numbers), ROWS):
        found = choose(key, counts, numbers[rows], codes[rows])
        chosen.append(np.asarray(found)[kept])
    if progress:
        progress(len(numbers))
    return rows_of(cohort_of(params["weights"]), np.concatenate(chosen))


@jax.jit
def choose(key: jax.Array, counts: Any, index: Any, label: Any) -> jax.Array:
    """Int [rows]: a training patient of its class for each synthetic one."""
    keys = jax.vmap(jax.random.split)(patient_keys(key, index))
    counts = jnp.asarray(counts, jnp.int32)
    code, _ = draw_cells(keys[:, 0], counts[:, None], label)
    inside = lambda key, most: jax.random.randint(key, (), 0, most)
    return (jnp.cumsum(counts) - counts)[code] + jax.vmap(inside)(
        keys[:, 1], counts[code]
    )


def cohort_of(kept: Params) -> Cohort:
    """The training patients that `fit` kept."""
    temporal = kept["temporal"]
    if "cells" in temporal:
        sizes = {name: int(temporal[name]) for name in ("steps", "features")}
        table: Any = SparseTable(**{**temporal, **sizes})
    else:
        table = Table(**temporal)
    return Cohort(**{**kept, "static": Table(**kept["static"]), "temporal": table})
