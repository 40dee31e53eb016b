"""Which training patients stand out most to the attacks on membership.

For an attack a and a training patient i let p_ai be the share of hold-out patients who
are at least as exposed, (1 + #{others >= score_i}) / (1 + others): about even for a
model that learned of the population only. The most exposed patient is the one with the
smallest p over attacks; equal ones are in the order of their mean.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxehr.core.contracts import Comparison, Scored
from jaxehr.metrics.attacks import records
from jaxehr.metrics.neighbours import nearest


class Exposure(NamedTuple):
    """Training patients by rows of the comparison, [N] each."""

    attacks: list[str]  # [A]
    share: np.ndarray  # [A, N]: p; 1 for a patient that an attack leaves out

    @property
    def smallest(self) -> np.ndarray:
        """p of the attack that exposes a patient most."""
        return self.share.min(0)

    @property
    def order(self) -> np.ndarray:
        """Rows, the most exposed patient first."""
        return np.lexsort((self.share.mean(0), self.smallest))


def exposure_of(scored: Mapping[str, Scored], count: int) -> Exposure:
    """The exposure of `count` training patients from the scores of some attacks."""
    shares = np.ones((len(scored), count))
    for share, found in zip(shares, scored.values(), strict=True):
        share[found.rows] = share_above(found.members, found.others)
    return Exposure(list(scored), shares)


def share_above(members: np.ndarray, others: np.ndarray) -> np.ndarray:
    """p of each member."""
    ordered = np.sort(others)
    above = len(others) - np.searchsorted(ordered, members, "left")
    return (1.0 + above) / (1.0 + len(others))


def beyond(scored: Mapping[str, Scored]) -> dict[str, tuple[int, float]]:
    """For each attack the training patients who stand out more than every hold-out
    patient, and how many would do so by chance."""
    return {
        name: (
            int((found.members > found.others.max()).sum()),
            len(found.members) / (1.0 + len(found.others)),
        )
        for name, found in scored.items()
    }


class Neighbour(NamedTuple):
    """The synthetic patient nearest to each of some training patients, [n] each."""

    row: np.ndarray
    distance: np.ndarray  # of standardised values and means over time, Euclidean


def neighbours(real: Comparison, rows: np.ndarray) -> Neighbour:
    """The synthetic patients next to the training patients `rows`."""
    train, _, synthetic = records(real)
    found = nearest(train[rows], synthetic)
    return Neighbour(found.row[:, 0], found.distance[:, 0])
