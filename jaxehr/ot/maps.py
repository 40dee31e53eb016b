"""Linear maps between latent spaces, from sums that are gathered block by block.

A map is z_target = z_source W + bias; noise is added so that imputed latents have the
target's covariance [flexgen2024, Eq. 7, read as in the README].
"""

from typing import NamedTuple

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.ot.costs import covariance

WEIGHTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # of a transported row against a pair
GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)  # times the penalty of the configuration
FOLDS = 5
FLOOR = 1e-6  # of the mean eigenvalue: a covariance is inverted above it
BLOCK = 8192


class Linear(NamedTuple):
    """weight [l, l'], bias [l']."""

    weight: np.ndarray
    bias: np.ndarray


class Moments(NamedTuple):
    """Weighted sums over rows (x, y): 1, x, y, x x', x y'."""

    total: float
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray


def add(one: Moments, other: Moments, factor: float = 1.0) -> Moments:
    """one + factor other."""
    return Moments(
        one.total + factor * other.total,
        one.x + factor * other.x,
        one.y + factor * other.y,
        one.xx + factor * other.xx,
        one.xy + factor * other.xy,
    )


class Choice(NamedTuple):
    """What cross-validation chose: weight of transported rows, penalty, NRMSE of each.

    errors: mean, ridge (the best penalty), map (the best of all), by held-out pairs.
    """

    weight: float
    penalty: float
    errors: dict[str, float]


def empty(source: int, target: int) -> Moments:
    zeros = np.zeros
    return Moments(
        0.0,
        zeros(source),
        zeros(target),
        zeros((source, source)),
        zeros((source, target)),
    )


def moments(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> Moments:
    """Sums over the rows x [n, l], y [n, l'], a block at a time in float64."""
    total = empty(x.shape[1], y.shape[1])
    for start in range(0, len(x), BLOCK):
        here = slice(start, start + BLOCK)
        xs, ys = x[here].astype(np.float64), y[here].astype(np.float64)
        w = np.ones(len(xs)) if weights is None else weights[here]
        xw = xs * w[:, None]
        here_sums = Moments(float(w.sum()), xw.sum(0), w @ ys, xw.T @ xs, xw.T @ ys)
        total = add(total, here_sums)
    return total


def ridge(sums: Moments, penalty: float) -> Linear:
    """argmin sum w |x W + bias - y|^2 + penalty count v |W|^2, v = mean variance of x.

    The bias is free. Without rows, or without spread of x, the map is constant.
    """
    if sums.total <= 0:
        return Linear(np.zeros_like(sums.xy), np.zeros_like(sums.y))
    x, y = sums.x / sums.total, sums.y / sums.total
    xx = sums.xx / sums.total - np.outer(x, x)
    xy = sums.xy / sums.total - np.outer(x, y)
    variance = np.trace(xx) / len(xx)
    if variance <= 1e-12 * (1.0 + x @ x):
        return Linear(np.zeros_like(sums.xy), y)
    weight = np.linalg.solve(xx + penalty * variance * np.eye(len(xx)), xy)
    return Linear(weight, y - x @ weight)


def apply(linear: Linear, z: np.ndarray) -> np.ndarray:
    return z @ linear.weight + linear.bias


def nrmse(linear: Linear, x: np.ndarray, y: np.ndarray) -> float:
    """RMSE of the map on the rows x, y over that of the mean of y."""
    error = np.sum((apply(linear, x) - y) ** 2)
    return float(np.sqrt(error / max(np.sum((y - y.mean(0)) ** 2), 1e-30)))


def procrustes(sums: Moments) -> Linear:
    """Rotation and shift of least squares, W W' = I [flexgen2024, Eq. 5].

    W = P Q' with P D Q' the singular value decomposition of the cross-covariance.
    """
    same_size(len(sums.x), len(sums.y), "procrustes")
    x, y = sums.x / sums.total, sums.y / sums.total
    left, _, right = np.linalg.svd(sums.xy / sums.total - np.outer(x, y))
    weight = left @ right
    return Linear(weight, y - x @ weight)


def bures(source: np.ndarray, target: np.ndarray) -> Linear:
    """Optimal transport between the Gaussians of two clouds; no pairs are used.

    W = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2 with covariances A, B [olkin1982].
    """
    same_size(source.shape[1], target.shape[1], "bures")
    weight = transport(covariance(source), covariance(target))
    return Linear(weight, target.mean(0) - source.mean(0) @ weight)


def transport(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The symmetric map [l, l] from N(0, source) to N(0, target) [olkin1982]."""
    root, inverse = _roots(source)
    return inverse @ _roots(root @ target @ root)[0] @ inverse


def same_size(source: int, target: int, method: str) -> None:
    """Raises unless both latent spaces have one dimension."""
    if source != target:
        raise InputError(
            f"method {method} needs latents of one size, got {source} and {target}; "
            "use ridge or fused."
        )


def _roots(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric square root and its inverse, small eigenvalues floored."""
    values, vectors = np.linalg.eigh(matrix)
    floor = max(FLOOR * float(np.mean(np.maximum(values, 0.0))), 1e-30)
    values = np.maximum(values, floor)
    return (vectors * np.sqrt(values)) @ vectors.T, (
        vectors / np.sqrt(values)
    ) @ vectors.T


def factor(matrix: np.ndarray) -> np.ndarray:
    """F with F F' = the positive semidefinite part of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def residual_factor(
    linear: Linear, source: np.ndarray, target: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Factor of Cov(target) + diag(noise) - W' Cov(source) W (total covariance)."""
    explained = linear.weight.T @ covariance(source) @ linear.weight
    return factor(covariance(target) + np.diag(noise) - explained)


def folds(generator: np.random.Generator, count: int) -> np.ndarray:
    """The fold [count] of each pair, `FOLDS` of about one size."""
    return generator.permutation(np.arange(count) % FOLDS)


def choose(
    x: np.ndarray,
    y: np.ndarray,
    fold: np.ndarray,
    transported: list[Moments] | None,
    penalty: float,
) -> Choice:
    """Weight of transported rows and penalty by cross-validation on the pairs x, y.

    Args:
      transported: sums of the transported rows of each fold, found without the fold's
        pairs; None = pairs only.
      penalty: the middle of the grid.

    A weight above 0 must beat the best ridge by a standard error of the difference, so
    that chance alone does not replace it.
    """
    weights = WEIGHTS if transported is not None else WEIGHTS[:1]
    grid = [penalty * factor for factor in GRID]
    parts = [moments(x[fold == i], y[fold == i]) for i in range(FOLDS)]
    errors = np.zeros((len(weights), len(grid), len(x)))
    baseline = np.zeros(len(x))
    for i in range(FOLDS):
        held, rest = fold == i, empty(x.shape[1], y.shape[1])
        for j in range(FOLDS):
            rest = add(rest, parts[j]) if j != i else rest
        baseline[held] = np.sum((y[held] - rest.y / rest.total) ** 2, 1)
        for w, weight in enumerate(weights):
            total = add(rest, transported[i], weight) if transported else rest
            for p, chosen in enumerate(grid):
                guess = apply(ridge(total, chosen), x[held])
                errors[w, p, held] = np.sum((y[held] - guess) ** 2, 1)
    mean = errors.mean(2)
    plain = int(np.argmin(mean[0]))
    w, p = np.unravel_index(np.argmin(mean), mean.shape)
    gain = errors[0, plain] - errors[w, p]
    if gain.mean() <= gain.std() / np.sqrt(len(gain)):
        w, p = 0, plain
    scale = max(float(baseline.mean()), 1e-30)
    nrmse = lambda value: float(np.sqrt(value / scale))
    return Choice(
        weights[w],
        grid[p],
        {"mean": 1.0, "ridge": nrmse(mean[0, plain]), "map": nrmse(mean[w, p])},
    )
