"""Are predicted chances right? Brier score and logistic recalibration.

W draws, M patients.
"""

import numpy as np
from scipy.special import expit, logit

CUT = 1e-3  # forests give chances of 0 and 1, whose logits are infinite
MOST_ROUNDS = 30
DRAWS = 32  # draws that are fitted at once


def brier(label: np.ndarray, chance: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean squared error of chances [M] of the class `label` marks, [W] [brier1950]."""
    error = (np.asarray(label, float) - chance) ** 2
    return weight @ error / weight.sum(1)


def recalibration(
    label: np.ndarray, chance: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Intercept and slope, each [W], of logit P(label) = a + b logit(p) [cox1958].

    Fitted by Newton's method for all draws at once; chances are cut to [CUT, 1 - CUT].
    NaN where there is no finite solution: one class only, all chances equal, or classes
    that a threshold separates.
    """
    x = logit(np.clip(chance, CUT, 1 - CUT))
    centre, scale = x.mean(), x.std()
    if scale < 1e-12:
        nothing = np.full(len(weight), np.nan)
        return nothing, nothing
    basis = np.stack([np.ones_like(x), (x - centre) / scale], -1)
    parts = np.array_split(weight, -(-len(weight) // DRAWS))
    label = np.asarray(label, float)
    start = np.nan_to_num(newton(basis, label, weight[:1], np.zeros((1, 2))))
    found = np.concatenate([newton(basis, label, part, start) for part in parts])
    slope = found[:, 1] / scale
    return found[:, 0] - slope * centre, slope


def newton(
    basis: np.ndarray, label: np.ndarray, weight: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Logistic regressions on two columns [M, 2], one for each row of weights: [W, 2].

    Steps are at most 1 long. Where classes are separated the steps never end: NaN.
    """
    square = basis[:, :, None] * basis[:, None, :]  # [M, 2, 2]
    found, settled = np.tile(start, (len(weight), 1)), np.zeros((len(weight), 1), bool)
    for _ in range(MOST_ROUNDS):
        chance = expit(found @ basis.T)
        slope = (weight * (label - chance)) @ basis
        curve = np.tensordot(weight * chance * (1 - chance), square, 1)
        curve[:, [0, 1], [0, 1]] += 1e-9  # separated classes leave no curvature
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        step /= np.maximum(np.abs(step).max(1, keepdims=True), 1.0)
        found = found + step
        settled = np.abs(step).max(1, keepdims=True) < 1e-7
        if settled.all():
            break
    return np.where(settled, found, np.nan)
