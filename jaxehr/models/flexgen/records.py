"""Who lacks what: checks of a cohort, its pairs, and the frames of synthetic patients.

A frame is a patient's label and the modalities that the patient has.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.blocks import blocks_of
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Schema
from jaxehr.core.keys import draw_cells, patient_keys
from jaxehr.core.labels import parts_of

ROWS = 4096  # patients of a block of frames
MODALITIES = ("static", "temporal")
# Of the time that is allowed; an alternating training has many stages turn-k.
SHARES = {"temporal": 6.0, "latent": 3.0, "turn": 3.0}
FEWEST_PAIRS = 5  # complete records below which nothing is learned from pairs
NEEDS_PAIRS = ("ridge", "procrustes", "knn", "complete")


class Frames(NamedTuple):
    """Label [N], and whether the static and the temporal part exist, Bool [N]."""

    label: Any
    has_static: Any
    has_temporal: Any


def presence(cohort: Cohort, which: str) -> np.ndarray:
    """Bool [N]: who has the modality."""
    return np.asarray(getattr(cohort, f"has_{which}"))


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
      counts: [C, 2, 2] of training. label: Int [N], see `label_codes`.
      how: which modality is missing, see `FlexgenSampling.missing`.
    """
    cells, blocks = counts.reshape(len(counts), -1), []
    for rows, kept in blocks_of(len(index), ROWS):
        drawn = cells_of(key, cells, index[rows], label[rows])
        blocks.append([np.asarray(leaf)[kept] for leaf in drawn])
    code, cell = (np.concatenate(leaves) for leaves in zip(*blocks, strict=True))
    return Frames(code, *parts_of(cell, how))


@jax.jit
def cells_of(key: jax.Array, cells: Any, index: Any, label: Any) -> Any:
    """Label and cell of the patients of one block; see `draw_cells`."""
    return draw_cells(patient_keys(key, index), cells, label)
