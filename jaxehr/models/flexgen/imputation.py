"""The modality that a real patient lacks, drawn from the one that is known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Table, concatenate, make_cohort
from jaxehr.core.contracts import Params
from jaxehr.core.keys import patient_keys
from jaxehr.core.sparse import SparseTable, from_dense
from jaxehr.models.flexgen.alignment import Posterior
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.decoding import decode_patients
from jaxehr.models.flexgen.layout import Layout
from jaxehr.models.flexgen.outcome import draw_outcome
from jaxehr.models.flexgen.records import Frames
from jaxehr.models.flexgen.stages import rows_of
from jaxehr.ot import imputers


def check(config: FlexgenConfig, cohort: Cohort) -> None:
    """Raises where there is nothing to impute from, or no way to do so."""
    if config.alignment.method == "complete":
        raise InputError(
            "this run left out the patients who lack a modality (--method complete) "
            "and cannot impute one; train with another --method."
        )
    nothing = ~np.asarray(cohort.has_static) & ~np.asarray(cohort.has_temporal)
    if nothing.any():
        first = int(np.argmax(nothing)) + 1
        raise InputError(
            f"{int(nothing.sum())} of {len(nothing)} patients have neither a static "
            f"nor a temporal part, the first in row {first}; leave them out."
        )


def impute_missing(
    layout: Layout,
    config: FlexgenConfig,
    key: jax.Array,
    params: Params,
    cohort: Cohort,
    found: Posterior,
    numbers: np.ndarray,
) -> Cohort:
    """One draw of every missing modality; observed ones come back untouched.

    The patient's own label is not read: see `outcome`.

    Args:
      found: what the encoders say of `cohort`. numbers: Int [N], which give each
        patient a key of their own.
    """
    lacking = np.flatnonzero(~(found.has_static & found.has_temporal))
    if not len(lacking):
        return cohort
    keys = jax.random.split(key, 4)
    numbered = jnp.asarray(numbers[lacking])
    part: Any = Posterior(*(leaf[lacking] for leaf in found))
    label, guess = (
        likely_labels(params["alignment"]["outcome"], keys[3], numbered, part),
        {},
    )
    directions = (("forward", part.temporal_mean), ("backward", part.static_mean))
    for (name, known), subkey in zip(directions, keys[:2], strict=True):
        each = patient_keys(subkey, numbered)
        guess[name] = imputers.draw(
            params["alignment"][name],
            config.alignment,
            each,
            jnp.asarray(known),
            jnp.asarray(label),
        )
    z = np.concatenate([guess["backward"], guess["forward"]], -1)
    everyone = np.ones(len(lacking), bool)
    drawn = decode_patients(
        layout,
        config,
        params,
        patient_keys(keys[2], numbered),
        z,
        Frames(label, everyone, everyone),
    )
    return merge(cohort, drawn, lacking)


def likely_labels(
    outcome: Params, key: jax.Array, numbers: jax.Array, part: Posterior
) -> np.ndarray:
    """A class for each patient [N], drawn from what the known modality says of it."""
    keys = patient_keys(key, numbers)
    by = {
        which: np.asarray(draw_outcome(outcome[which], keys, known))
        for which, known in (
            ("temporal", part.temporal_mean),
            ("static", part.static_mean),
        )
    }
    return np.where(part.has_temporal, by["temporal"], by["static"]).astype(np.int32)


def merge(cohort: Cohort, drawn: Cohort, rows: np.ndarray) -> Cohort:
    """`cohort` with the modalities that its patients `rows` lack taken from `drawn`."""
    count = len(cohort.label)
    other = np.arange(count)
    other[rows] = count + np.arange(len(rows))
    both = concatenate([cohort, drawn._replace(temporal=alike(cohort, drawn))])
    choose = lambda has: np.where(np.asarray(has), np.arange(count), other)
    static = rows_of(both, choose(cohort.has_static))
    temporal = rows_of(both, choose(cohort.has_temporal))
    return make_cohort(static.static, temporal.temporal, temporal.length, cohort.label)


def alike(cohort: Cohort, drawn: Cohort) -> Table | SparseTable:
    """The temporal table of `drawn`, sparse or dense as that of `cohort`.

    They differ where a model was trained on the other form of the same columns.

    Raises:
      InputError: the cohort is sparse, but the model draws missing values.
    """
    made, wanted = drawn.temporal, cohort.temporal
    if isinstance(wanted, Table) and isinstance(made, SparseTable):
        return Table(made.numeric, made.codes, made.observed)
    if isinstance(wanted, SparseTable) and isinstance(made, Table):
        valid = np.arange(wanted.steps) < drawn.length[:, None]
        gaps = int(np.count_nonzero(~made.observed[valid]))
        if gaps:
            raise InputError(
                f"the temporal table of this cohort is sparse, where every value is "
                f"known, but the run learned from missing values and drew {gaps}; "
                "impute a cohort in the form that it was trained on."
            )
        return from_dense(made.codes, drawn.length)
    return made
