"""Membership inference by the nearest synthetic patient [flexgen2024, Table 4].

The attacker holds a record and the synthetic data, and calls the record a training
patient when a synthetic one lies near. As many training as held-out records are asked;
0.5 means that the attack learns nothing.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy import stats

from jaxehr.core.checks import InputError
from jaxehr.metrics.ranking import counts_of, roc_area

BLOCK = 512  # records whose distances to a table of synthetic ones are held at once
TABLE = 20_000  # synthetic records in a table


class Attack(NamedTuple):
    """What an attack achieves on as many members as others."""

    accuracy: float  # as half is called, also the precision and the recall
    low: float  # Clopper-Pearson interval of the accuracy, 95 %
    high: float
    auroc: float  # of the distance itself, without a threshold
    records: int  # members; as many others


def nearest_hamming(records: Any, synthetic: Any) -> np.ndarray:
    """Hamming distance of each record [n, D] to the nearest synthetic one [m, D].

    |a| + |b| - 2 a.b for binary rows, CSR or dense; Int [n].
    """
    rows: Any = scipy.sparse.csr_array(records, dtype=np.float32)
    others: Any = scipy.sparse.csr_array(synthetic, dtype=np.float32)
    found = np.full(rows.shape[0], np.inf)
    own = np.asarray(rows.sum(1)).reshape(-1, 1)
    for start in range(0, others.shape[0], TABLE):
        part = others[start : start + TABLE]
        sizes = np.asarray(part.sum(1)).reshape(-1)
        # Sparse times dense: the synthetic side is made dense, in single precision. In
        # the order that SciPy wants, or it copies the table for every block.
        table = np.ascontiguousarray(part.toarray().T)
        for first in range(0, len(found), BLOCK):
            here = slice(first, first + BLOCK)
            near = (own[here] + sizes - 2.0 * (rows[here] @ table)).min(1)
            found[here] = np.minimum(found[here], near)
    return found.round().astype(np.int64)


def median_rule(
    generator: np.random.Generator, members: np.ndarray, others: np.ndarray
) -> Attack:
    """The nearest half of all records is called members.

    Distances are small integers with many ties; these are broken at random, so that
    exactly half is called. (A strict "below the median" calls fewer.)

    Args:
      members, others: distances [n] to the nearest synthetic record; equally many.

    Raises:
      InputError: unequal or no records.
    """
    count = len(members)
    if count != len(others) or not count:
        raise InputError(
            f"membership: as many members as others are compared, at least one; got "
            f"{count} and {len(others)}."
        )
    distance = np.concatenate([members, others]).astype(float)
    is_member = np.arange(2 * count) < count
    order = np.lexsort((generator.random(2 * count), distance))
    hits = int(is_member[order[:count]].sum())
    right = 2 * hits  # each hit leaves one other record on the right side too
    low, high = clopper_pearson(right, 2 * count)
    auroc = float(roc_area(*counts_of(is_member, -distance)))
    return Attack(right / (2 * count), low, high, auroc, count)


def clopper_pearson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion."""
    found = stats.binomtest(hits, count).proportion_ci(level, "exact")
    return float(found.low), float(found.high)
