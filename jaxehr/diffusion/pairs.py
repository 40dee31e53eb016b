"""Correlations of normal values of which each patient shows some, and some coarsely.

What a patient shows of a value x_j ~ N(0, 1) has the score s_j = E[x_j | shown]; with
v_j = E[s_j^2], 1 where the value itself is shown,

    R_jk = E[s_j s_k] / (v_j v_k),  shrunk to I [ledoit2004], made a correlation,

which is exact for small correlations; plain correlations of codes would be too small.
Both means are over the patients who show the values, and the fewer patients show both
of a pair, the more it is shrunk.
"""

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

SMALLEST = 1e-4  # eigenvalue of a correlation
ROUNDS = 20  # of projections
QUICK = 1024  # columns up to which they take seconds


def correlation(scores: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """R [D, D] of the module docstring, before it is made a correlation.

    Args:
      scores: [N, D]; 0 where not `seen`.
    """
    s, there = scores.astype(np.float32), seen.astype(np.float32)
    pairs = there.T @ there
    variance = (s**2).sum(0) / np.maximum(there.sum(0), 1.0)
    varies = variance > 1e-6
    scale = np.where(varies, variance, 1.0)
    found = (s / scale).T @ (s / scale) / np.maximum(pairs, 1.0)
    # A gap has the mean score 0: this is what the typical number of pairs needs. The
    # odds of what is shrunk away are as one over the number of pairs.
    lost = ledoit_wolf_shrinkage(s / np.sqrt(scale), assume_centered=True)
    kept = (1.0 - lost) * pairs / max((pairs**2).sum() / max(pairs.sum(), 1.0), 1.0)
    kept /= np.maximum(kept + lost, 1e-9)
    found = kept * np.clip(found, -1.0, 1.0) * np.outer(varies, varies)
    np.fill_diagonal(found, 1.0)
    return found


def nearest(matrix: np.ndarray) -> np.ndarray:
    """The correlation next to `matrix` [higham2002], nearly.

    Pairs that few patients have make eigenvalues negative. They are cut once, which
    weakens all correlations, or, of up to `QUICK` columns, in alternation with a
    diagonal of ones.
    """
    near, moved = matrix.astype(np.float64), np.zeros(matrix.shape)
    for _ in range(ROUNDS if len(matrix) <= QUICK else 1):
        given = near - moved
        values, axes = np.linalg.eigh(given)
        cut = (axes * np.maximum(values, SMALLEST)) @ axes.T
        if values[0] >= SMALLEST:
            break
        near, moved = cut.copy(), cut - given
        np.fill_diagonal(near, 1.0)
    scale = 1.0 / np.sqrt(np.diag(cut))
    return cut * np.outer(scale, scale)
