"""Scores of predictions, with intervals over tested patients and over trainings.

A score is taken on resampled persons for every training; the trainings are resampled
too. Scores that are compared see the same draws, so that what both share cancels.
W draws (the first is the data as they are), S trainings, M patients, K classes.
Of a class with fewer than `MIN_PERSONS` persons every draw holds the same few, so that
intervals are too narrow; there are none then.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.cohort import Dataset
from jaxehr.core.contracts import Value
from jaxehr.metrics.ranking import average_precision, counts_of, roc_area

# (is of the class [M], chance [M], weight [W, M]) -> [W]
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
# How often a 95 % interval of a loss of AUROC misses a true 0, 400 simulations of 300
# persons: 80 % with one of a class, 37 % with two, 21 % with three, 9 % with ten.
MIN_PERSONS = 10
FEW_PERSONS = f"fewer than {MIN_PERSONS} tested patients of a class"


class Trial(NamedTuple):
    """Patients that are tested, and the draws of them and of the trainings."""

    label: np.ndarray  # Int [M]
    groups: np.ndarray  # [M], whose stay each is
    patients: np.ndarray  # [W, M], how often each counts; W = 1: too few persons
    trainings: np.ndarray  # [W, S], shares that add up to 1

    @property
    def drawn(self) -> bool:
        """Whether there are draws beside the data as they are."""
        return len(self.patients) > 1

    def of(self, chosen: np.ndarray) -> "Trial":
        """The same draws of some of the patients."""
        label, groups = self.label[chosen], self.groups[chosen]
        return self._replace(
            label=label, groups=groups, patients=self.patients[:, chosen]
        )


def trial(
    rng: np.random.Generator, data: Dataset, trainings: int, resamples: int
) -> Trial:
    """Draws for tests on `data`.

    Of S trainings S - 1 are drawn: their mean then varies as that of S does, where S
    draws would vary too little [raowu1988]. A single training is always the one.
    """
    label = np.asarray(data.cohort.label)
    if fewest(label, data.groups) < MIN_PERSONS:
        resamples = 0
    patients = draw_persons(rng, data, resamples)
    drawn = max(trainings - 1, 1)
    chance = np.full(trainings, 1 / trainings)
    shares = rng.multinomial(drawn, chance, resamples) / drawn
    shares = np.concatenate([chance[None], shares])
    return Trial(label, np.asarray(data.groups), patients, shares)


def fewest(label: np.ndarray, groups: np.ndarray) -> int:
    """Persons of the rarest class that occurs, of stays [M]."""
    return min(len(np.unique(groups[label == k])) for k in np.unique(label))


def draw_persons(rng: np.random.Generator, data: Dataset, resamples: int) -> np.ndarray:
    """How often each stay counts, [1 + resamples, M]; persons keep their stays.

    Persons are numbered by their first stay, so that their names play no part.
    """
    _, first, person = np.unique(data.groups, return_index=True, return_inverse=True)
    person = np.argsort(np.argsort(first))[person.reshape(-1)]
    count = len(first)
    drawn = rng.multinomial(count, np.full(count, 1 / count), resamples)
    return np.concatenate([np.ones((1, count)), drawn])[:, person]


def auroc(label: np.ndarray, chance: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, [W]."""
    return roc_area(*counts_of(label, chance, weight))


def aupr(label: np.ndarray, chance: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Average precision, [W]."""
    return average_precision(*counts_of(label, chance, weight))


def one_vs_rest(
    measure: Measure, label: np.ndarray, chance: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """The measure of class 1; of more classes the mean of each against the rest.

    Classes that `label` or a draw lacks are left out; NaN where none is left.

    Args:
      label: Int [M]; chance: [M, K]; weight: [W, M].

    Returns:
      [W].
    """
    chosen = [1] if chance.shape[1] == 2 else np.unique(label)
    each = np.stack([measure(label == k, chance[:, k], weight) for k in chosen])
    seen = np.isfinite(each)
    total = np.where(seen, each, 0.0).sum(0)
    return np.where(seen.any(0), total / np.maximum(seen.sum(0), 1), np.nan)


def scores(measure: Measure, tested: Trial, chance: np.ndarray) -> np.ndarray:
    """The measure for every training and draw: [C, S, M, K] -> [C, S, W]."""
    one = lambda p: one_vs_rest(measure, tested.label, p, tested.patients)
    return np.stack([[one(p) for p in trainings] for trainings in chance])


def mean_training(tested: Trial, found: np.ndarray) -> np.ndarray:
    """Mean over classifiers and drawn trainings: [C, S, W] -> [W]."""
    return np.einsum("sw,ws->w", found.mean(0), tested.trainings)


def measured(
    draws: np.ndarray,
    reference: np.ndarray | float,
    reason: str,
    detail: dict[str, Any] | None = None,
) -> Value:
    """A value and its 95 % interval from draws [W]; `reason` if it is not a number.

    Args:
      reference: its draws [W], of the same patients and trainings where both share
        them: the detail then says how far the value lies above it, with an interval
        in which cancels what both share. Or a number.
      detail: gets `no_interval`, the reason, where nothing was drawn.
    """
    if not np.isfinite(draws[0]):
        return Value(None, reason=reason)
    more, floor = {}, float(np.ravel(reference)[0])
    if np.ndim(reference) and np.isfinite(floor):
        gap = draws - reference
        more["above_reference"] = float(gap[0])
        more["above_reference_interval"] = list(ends(gap[1:]))
    if len(draws) == 1:
        more["no_interval"] = FEW_PERSONS
    floor = floor if np.isfinite(floor) else None
    detail = (detail or {}) | more or None
    return Value(float(draws[0]), floor, *ends(draws[1:]), "", detail)


def ends(draws: np.ndarray) -> tuple[float | None, float | None]:
    """The 2.5 % and 97.5 % quantiles of defined draws; none without any."""
    draws = draws[np.isfinite(draws)]
    if not draws.size:
        return None, None
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
