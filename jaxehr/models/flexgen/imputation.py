"""The modality that a real patient lacks, drawn from the one that is known."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.blocks import blocks_of
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Table, concatenate, make_cohort, rows_of
from jaxehr.core.contracts import Params
from jaxehr.core.keys import patient_keys
from jaxehr.core.sparse import SparseTable, from_dense
from jaxehr.models.flexgen.alignment import Posterior
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.decoding import ROWS, decode_patients
from jaxehr.models.flexgen.layout import Layout
from jaxehr.models.flexgen.outcome import draw_outcome
from jaxehr.models.flexgen.records import Frames
from jaxehr.ot import imputers
from jaxehr.ot.config import AlignmentConfig
from jaxehr.training.sharding import compiled_rows


def check(config: FlexgenConfig, cohort: Cohort) -> None:
    """Raises where there is nothing to impute from, or no way to do so."""
    if config.alignment.method == "complete":
        raise InputError(
            "this run left out the patients who lack a modality (--method complete) "
            "and cannot impute one; train with another --method."
        )
    if config.label_in_encoder:
        # The latent of the known part would hold the label, and so what follows of it.
        raise InputError(
            "the encoders of this run are told the label (--label-in-encoder), so that "
            "what it imputes would give the outcome away; train without that option."
        )
    nothing = ~np.asarray(cohort.has_static) & ~np.asarray(cohort.has_temporal)
    if nothing.any():
        first = int(np.argmax(nothing)) + 1
        raise InputError(
            f"{int(nothing.sum())} of {len(nothing)} patients have neither a static "
            f"nor a temporal part, the first in row {first}; leave them out."
        )


def draw_missing(
    layout: Layout,
    config: FlexgenConfig,
    key: jax.Array,
    params: Params,
    found: Posterior,
    numbers: np.ndarray,
) -> Cohort:
    """Patients [N] with both modalities, each from the one that is known.

    The patient's own label is not read: see `outcome`.

    Args:
      found: what the encoders say of patients who lack one modality. numbers: Int [N],
        which give each patient a key of its own.
    """
    keys = jax.random.split(key, 4)
    devices = jax.device_count()
    run = latent_program(config.alignment, devices)
    arrays = jax.device_put(params["alignment"])
    blocks = []
    for rows, kept in blocks_of(len(numbers), ROWS * devices):
        part = Posterior(*(leaf[rows] for leaf in found))
        out = run(arrays, keys[:3], numbers[rows], part)
        blocks.append([np.asarray(leaf)[kept] for leaf in out])
    z, label = (np.concatenate(leaves) for leaves in zip(*blocks, strict=True))
    everyone = np.ones(len(numbers), bool)
    return decode_patients(
        layout,
        config,
        params,
        keys[3],
        numbers,
        z,
        Frames(label, everyone, everyone),
    )


@functools.lru_cache(maxsize=16)
def latent_program(config: AlignmentConfig, devices: int) -> Any:
    """(alignment, three keys, numbers [B], Posterior) -> z [B, 2l], temporal first,
    and the classes [B] that the known modality speaks for; compiled, on
    each device one block."""

    def run(arrays: Params, each: jax.Array, index: Any, part: Posterior) -> Any:
        keys = [patient_keys(key, index) for key in each]
        spoken = {
            which: draw_outcome(arrays["outcome"][which], keys[0], known)
            for which, known in (
                ("temporal", part.temporal_mean),
                ("static", part.static_mean),
            )
        }
        label = jnp.where(part.has_temporal, spoken["temporal"], spoken["static"])
        guess = functools.partial(imputers.draw, config=config, label=label)
        static = guess(arrays["forward"], keys=keys[1], z=part.temporal_mean)
        temporal = guess(arrays["backward"], keys=keys[2], z=part.static_mean)
        return jnp.concatenate([temporal, static], -1), label

    return compiled_rows(run, devices, copied=2)


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
