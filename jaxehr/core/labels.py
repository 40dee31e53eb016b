"""Which class and which parts each synthetic patient has: what a user asks for.

Free of JAX so that the command line starts fast; `keys.draw_cells` draws.
"""

from typing import Any, Literal, get_args

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Schema

Missing = Literal["as-training", "none", "static", "temporal"]
PATTERNS: tuple[str, ...] = get_args(Missing)
BY_FREQUENCY, BALANCED = -1, -2  # drawn as often as in training; each class alike


def label_codes(
    schema: Schema, counts: np.ndarray, label: Any | None, num: int
) -> np.ndarray:
    """Int [num]: a code a patient, or how it is drawn.

    Args:
      counts: [C] training patients of each class.
      label: None = by frequency, "balanced", one code, or an array of codes.

    Raises:
      InputError: a label without classes, no code or an unknown one, another number of
        codes, a class without patients.
    """
    if label is None:
        return np.full(num, BY_FREQUENCY, np.int32)
    if schema.label is None:
        raise InputError("the cohort of this model has no label; leave it out.")
    if isinstance(label, str) and label == "balanced":
        return np.full(num, BALANCED, np.int32)
    given = np.asarray(label)
    if given.dtype.kind not in "iu" or given.shape not in ((), (num,)):
        raise InputError(
            f"label: must be one code or an array of {num} codes, integers from 0, got "
            f"{given.dtype} {list(given.shape)}; the classes are "
            f"{list(schema.label.classes)}."
        )
    codes = np.broadcast_to(given, (num,)).astype(np.int32)
    if num and (codes.min() < 0 or codes.max() >= schema.num_classes):
        raise InputError(
            f"label codes must lie in [0, {schema.num_classes}), got {codes.min()} to "
            f"{codes.max()}; the classes are {list(schema.label.classes)}."
        )
    # Nothing is known of a class without training patients.
    unseen = [int(code) for code in np.unique(codes) if not counts[code]]
    if unseen:
        raise InputError(
            f"no training patient has {schema.label.name!r} = "
            f"{schema.label.classes[unseen[0]]!r}; ask for another class."
        )
    return codes


def count_patterns(schema: Schema, cohort: Cohort) -> np.ndarray:
    """Patients by label, static and temporal presence, Float64 [C, 2, 2]."""
    counts = np.zeros((max(schema.num_classes, 1), 2, 2))
    has = (np.asarray(cohort.has_static), np.asarray(cohort.has_temporal))
    where = (np.asarray(cohort.label), *(part.astype(int) for part in has))
    np.add.at(counts, where, 1)
    return counts


def parts_of(cell: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Who has the static and who the temporal part, Bool [N] each.

    Args:
      cell: Int [N] of patterns [2, 2], drawn as often as in training. how: `Missing`:
        that, or nobody lacks a part, or all lack the static, or the temporal one.
    """
    if how == "as-training":
        return cell // 2 == 1, cell % 2 == 1
    everyone = np.ones(len(cell), bool)
    return everyone & (how != "static"), everyone & (how != "temporal")
