"""The cost of coupling two latent clouds, in factored form.

Cosine similarities are inner products of unit rows, C = U U', signed by the label where
asked [flexgen2024, Eq. 6]. Up to constants of balanced marginals the entropic
Gromov-Wasserstein problem with L = (a - b)^2 / 2 is then

    max over G of |U' G V|_F^2 + sum_ij G_ij x_i . y_j - epsilon KL(G | a b'),

and its linearised similarity is S_ij = 2 u_i M v_j + x_i . y_j with M = U' G V. The
rows x, y hold the label term and the anchor term.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ZERO_NORM = 1e-6  # of the mean norm: a direction below is rounding


class Side(NamedTuple):
    """How the latents z [n, l] of one cloud enter the cost.

    centre: [l] subtracted before the direction is taken. scale: mean norm around it.
    codes: [C, c] factor of the direction by label (ones: plain cosine).
    table: [C, t] label term. linear, offset: [l, k], [k] anchor term z linear + offset.
    """

    centre: Any
    scale: Any
    codes: Any
    table: Any
    linear: Any
    offset: Any


class Problem(NamedTuple):
    """Unit rows u [n, r], v [m, r']; weights a [n], b [m]; linear terms x, y [., k]."""

    u: Any
    v: Any
    a: Any
    b: Any
    x: Any
    y: Any


def simplex(num_classes: int) -> np.ndarray:
    """Codes [C, C - 1] of unit length whose inner products are -1 / (C - 1).

    For two classes -1 and +1; for one class a single 1. The vertices of a regular
    simplex are the centred unit vectors of R^C, expressed in their own span.
    """
    if num_classes < 2:
        return np.ones((1, 1))
    if num_classes == 2:
        return np.array([[-1.0], [1.0]])
    centred = np.eye(num_classes) - 1.0 / num_classes
    basis = np.linalg.eigh(centred)[1][:, 1:]  # the first spans the ones, value 0
    codes = centred @ basis
    return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def side(z: np.ndarray, num_classes: int, *, signed: bool, penalty: float) -> Side:
    """A cloud without anchor term.

    Args:
      signed: multiply directions by the code of the label [flexgen2024, Eq. 6].
      penalty: cost of coupling two classes; 0 = none.
    """
    classes, centre = max(num_classes, 1), z.mean(0)
    codes = simplex(classes) if signed else np.ones((classes, 1))
    table = np.sqrt(penalty) * np.eye(classes) if penalty else np.zeros((classes, 0))
    scale = np.linalg.norm(z - centre, axis=1).mean()
    return Side(centre, scale, codes, table, np.zeros((len(centre), 0)), np.zeros(0))


def embed(side: Side, z: Any, label: Any) -> tuple[jax.Array, jax.Array]:
    """Unit rows [B, c l] (Khatri-Rao product, code and direction), linear rows [B, k].

    A row without a direction (|z - centre| of rounding size) becomes zero, never NaN.
    """
    z = jnp.asarray(z, float)
    moved = z - side.centre
    norm = jnp.linalg.norm(moved, axis=1, keepdims=True)
    usable = norm > ZERO_NORM * side.scale
    unit = jnp.where(usable, moved / jnp.where(usable, norm, 1.0), 0.0)
    codes = jnp.asarray(side.codes, float)[label]
    signed = (codes[:, :, None] * unit[:, None, :]).reshape(len(z), -1)
    table = jnp.asarray(side.table, float)[label]
    return signed, jnp.concatenate([table, z @ side.linear + side.offset], 1)


def class_weights(
    source_label: np.ndarray, target_label: np.ndarray, num_classes: int, matched: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Marginals a [n], b [m], each of sum 1.

    Matched: every class has the source's share in both clouds, or else a label-faithful
    coupling is infeasible; rows of a class that one cloud lacks weigh 0.
    """
    n, m = len(source_label), len(target_label)
    if not matched:
        return np.full(n, 1.0 / n), np.full(m, 1.0 / m)
    classes = max(num_classes, 1)
    source = np.bincount(source_label, minlength=classes)
    target = np.bincount(target_label, minlength=classes)
    both = (source > 0) & (target > 0)
    if not both.any():
        return np.zeros(n), np.zeros(m)
    share = np.where(both, source, 0) / source[both].sum()
    each = lambda count: share / np.maximum(count, 1)
    return each(source)[source_label], each(target)[target_label]


def sigma_ref(u: np.ndarray, v: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Spread of the linearised similarity at an alignment that matches spectra.

    sigma_ref = 2 sqrt(sum_k (s_k t_k)^2) with s, t the sorted eigenvalues of the
    centred covariances of u and v. The product plan is stable for any epsilon above
    about it.
    """
    pairs = zip(_spectrum(u, a), _spectrum(v, b), strict=False)
    return float(2.0 * np.sqrt(sum((s * t) ** 2 for s, t in pairs)))


def _spectrum(u: np.ndarray, weights: np.ndarray) -> np.ndarray:
    values = np.linalg.eigvalsh(covariance(u, weights))
    return np.maximum(values[::-1], 0.0)


def covariance(z: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Covariance [l, l] of the rows of z [n, l], divided by the sum of weights."""
    z = np.asarray(z, np.float64)
    share = np.ones(len(z)) if weights is None else weights
    share = share / share.sum()
    moved = z - share @ z
    return moved.T @ (share[:, None] * moved)


def take(problem: Problem, source: np.ndarray, target: np.ndarray) -> Problem:
    """The rows `source` and `target` of the two clouds; weights sum to 1."""
    a, b = problem.a[source], problem.b[target]
    return Problem(
        problem.u[source],
        problem.v[target],
        a / a.sum(),
        b / b.sum(),
        problem.x[source],
        problem.y[target],
    )
