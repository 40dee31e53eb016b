"""Areas under curves from counts by score, so that resampling patients is cheap.

Scores are ranked once; what remains are counts [..., R] of positives and negatives at
each of R distinct scores, in ascending order. NaN where one class has no weight.
"""

import numpy as np


def ranks(score: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of each score among the R distinct ones, ascending, and R."""
    distinct, place = np.unique(np.asarray(score, float), return_inverse=True)
    return place.reshape(-1), len(distinct)


def counts_of(
    label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at each distinct score.

    Args:
      label: Bool [N]; score: [N].
      weight: [N], or [W, N] for W resamples at once; None = 1 each.
    """
    place, size = ranks(score)
    label = np.asarray(label, bool)
    if weight is None:
        weight = np.ones(len(label))
    several = np.atleast_2d(weight)
    sides = []
    for chosen in (label, ~label):
        rows = [np.bincount(place[chosen], w[chosen], size) for w in several]
        sides.append(np.stack(rows).reshape(*weight.shape[:-1], size))
    return sides[0], sides[1]


def roc_area(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """P(score of a positive > of a negative) + 1/2 P(equal), [...]."""
    below = np.cumsum(negative, -1) - negative
    won = (positive * (below + 0.5 * negative)).sum(-1)
    return divide(won, positive.sum(-1) * negative.sum(-1))


def average_precision(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Sum over falling thresholds of precision x gain in recall, [...]."""
    hits = np.cumsum(positive[..., ::-1], -1)
    called = hits + np.cumsum(negative[..., ::-1], -1)
    precision = hits / np.maximum(called, 1e-300)
    area = (precision * positive[..., ::-1]).sum(-1)
    return np.where(negative.sum(-1) > 0, divide(area, positive.sum(-1)), np.nan)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is 0."""
    return np.where(b > 0, a / np.where(b > 0, b, 1.0), np.nan)
