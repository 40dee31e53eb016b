"""Who lacks what: checks of a cohort, its pairs, and the frames of synthetic patients.

A frame is a patient's label and the modalities that the patient has.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Schema
from jaxehr.core.keys import patient_keys
from jaxehr.models.labels import BALANCED

FEWEST_PAIRS = 5  # complete records below which nothing is learned from pairs
NEEDS_PAIRS = ("ridge", "procrustes", "knn", "complete")


class Frames(NamedTuple):
    """Label [N], and whether the static and the temporal part exist, Bool [N]."""

    label: Any
    has_static: Any
    has_temporal: Any


def check_cohort(schema: Schema, cohort: Cohort, method: str) -> None:
    """Raises unless both modalities can be learned and aligned.

    Raises:
      InputError: no patient has one of the modalities; a class of the label lacks one;
        too few complete records for `method`.
    """
    static, temporal = np.asarray(cohort.has_static), np.asarray(cohort.has_temporal)
    for name, has in (("static", static), ("temporal", temporal)):
        if not has.any():
            raise InputError(
                f"none of {len(has)} patients to learn from has a {name} part; flexgen "
                "needs patients of both kinds. Keep more of them, or use cdmt."
            )
        if schema.label is None:
            continue
        label = np.asarray(cohort.label)
        for code in np.unique(label):
            if not has[label == code].any():
                value = schema.label.classes[code]
                raise InputError(
                    f"label {schema.label.name!r}: none of the {(label == code).sum()} "
                    f"patients of class {value!r} has a {name} part, so nothing can be "
                    "learned of it; leave the class out or bring such patients."
                )
    pairs = int((static & temporal).sum())
    if method in NEEDS_PAIRS and pairs < FEWEST_PAIRS:
        raise InputError(
            f"method {method} learns from patients with both parts; there are {pairs}, "
            f"at least {FEWEST_PAIRS} are needed. Use --method gromov."
        )


def joint(presence: np.ndarray) -> np.ndarray:
    """Patients by label, static and temporal presence [C, 2, 2] who have something."""
    counts = np.array(presence)
    counts[:, 0, 0] = 0.0  # a patient of whom nothing is known teaches nothing
    return counts


def draw_frames(
    key: jax.Array, counts: np.ndarray, index: np.ndarray, label: np.ndarray, how: str
) -> Frames:
    """Frames of the patients `index` [N], each from its own key.

    Args:
      counts: [C, 2, 2] of training. label: Int [N]; -1 = by frequency, -2 = balanced.
      how: which modality is missing, see `FlexgenSampling.missing`.
    """
    share = jnp.asarray(counts.sum((1, 2)))
    cells = jnp.asarray(counts.reshape(len(counts), -1))
    log = lambda p: jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), -jnp.inf)

    def one(key: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_label, key_cell = jax.random.split(key)
        weights = jnp.where(label == BALANCED, (share > 0).astype(share.dtype), share)
        drawn = jax.random.categorical(key_label, log(weights))
        code = jnp.where(label < 0, drawn, label)
        return code, jax.random.categorical(key_cell, log(cells[code]))

    keys = patient_keys(key, jnp.asarray(index))
    code, cell = map(np.asarray, jax.vmap(one)(keys, jnp.asarray(label)))
    if how == "as-training":
        return Frames(code, cell // 2 == 1, cell % 2 == 1)
    everyone, no_one = np.ones(len(index), bool), np.zeros(len(index), bool)
    return Frames(
        code,
        no_one if how == "static" else everyone,
        no_one if how == "temporal" else everyone,
    )
