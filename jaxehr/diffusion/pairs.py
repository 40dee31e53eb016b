"""Correlations of normal values of which each patient shows some, and some coarsely.

What a patient shows of a value x_j ~ N(0, 1) has the score s_j = E[x_j | shown]; with
v_j = E[s_j^2], 1 where the value itself is shown,

    R_jk = E[s_j s_k] / (v_j v_k),  shrunk to I [ledoit2004], made a correlation,

which is exact for small correlations; plain correlations of codes would be too small.
Exact for all is the R_jk that solves Mehler's expansion

    E[s_j s_k] = sum_m a_jm a_km R_jk^m,  a_jm = E[s_j h_m(x_j)],

with the Hermite polynomials h_m of unit variance; a_j1 = v_j. Both means are over the
patients who show the values, and the fewer patients show both of a pair, the more it
is shrunk.
"""

import numpy as np
from scipy.special import ndtr
from sklearn.covariance import ledoit_wolf_shrinkage

TERMS = 60  # of an expansion: a sign's is exact to 1e-4 up to a correlation of 0.8
HALVINGS = 24  # of the interval in which a correlation lies
SMALLEST = 1e-4  # eigenvalue of a correlation
ROUNDS = 20  # of projections
QUICK = 1024  # columns up to which they take seconds


def correlation(
    scores: np.ndarray, seen: np.ndarray, expansion: np.ndarray | None = None
) -> np.ndarray:
    """R [D, D] of the module docstring, before it is made a correlation.

    Args:
      scores: [N, D]; 0 where not `seen`.
      expansion: [D, M], a_jm for m = 1 .. M; None = the first one of each alone.
    """
    s, there = scores.astype(np.float32), seen.astype(np.float32)
    pairs = there.T @ there
    variance = (s**2).sum(0) / np.maximum(there.sum(0), 1.0)
    varies = variance > 1e-6
    scale = np.where(varies, variance, 1.0)
    product = s.T @ s / np.maximum(pairs, 1.0)
    found = product / np.outer(scale, scale)
    if expansion is not None:
        coarse = np.flatnonzero(expansion[:, 1:].any(1) & varies)
        both = np.ix_(coarse, coarse)
        found[both] = solved(product[both], expansion[coarse])
    # A gap has the mean score 0: this is what the typical number of pairs needs. The
    # odds of what is shrunk away are as one over the number of pairs.
    lost = ledoit_wolf_shrinkage(s / np.sqrt(scale), assume_centered=True)
    kept = (1.0 - lost) * pairs / max((pairs**2).sum() / max(pairs.sum(), 1.0), 1.0)
    kept /= np.maximum(kept + lost, 1e-9)
    found = kept * np.clip(found, -1.0, 1.0) * np.outer(varies, varies)
    np.fill_diagonal(found, 1.0)
    return found


def solved(product: np.ndarray, expansion: np.ndarray) -> np.ndarray:
    """R_jk for which the expansion gives `product` [D, D]; it grows with R_jk, as
    scores grow with their values."""
    low, high = np.full(product.shape, -1.0), np.full(product.shape, 1.0)
    for _ in range(HALVINGS):
        middle, total = (low + high) / 2, np.zeros(product.shape)
        for a in expansion.T[::-1]:
            total = (total + np.outer(a, a)) * middle
        low = np.where(total < product, middle, low)
        high = np.where(total < product, high, middle)
    return (low + high) / 2


def step_expansion(low: np.ndarray, high: np.ndarray, score: np.ndarray) -> np.ndarray:
    """a_m [TERMS] of the function that is `score` [K] between `low` and `high` [K].

    sqrt(m) times the integral of h_m phi from l to u is h_m-1(l) phi(l) less the same
    of u.
    """
    edges = np.stack([low, high])
    density = np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi)
    last, here = np.zeros_like(edges), np.ones_like(edges)
    found = np.empty(TERMS)
    for m in range(1, TERMS + 1):
        below, above = here * density
        found[m - 1] = (below - above) @ score / np.sqrt(m)
        last, here = here, (edges * here - np.sqrt(m - 1) * last) / np.sqrt(m)
    return found


def means_between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Of N(0, 1) cut at both ends; where they are equal, that value."""
    density = lambda x: np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    # The left tail, where small probabilities keep their digits.
    over = low > 0
    a, b = np.where(over, -high, low), np.where(over, -low, high)
    mean = (density(a) - density(b)) / np.maximum(ndtr(b) - ndtr(a), 1e-30)
    return np.clip(np.where(over, -mean, mean), low, high)


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
