"""The denoiser of a normal law, around which a network learns the rest.

x0 ~ N(m, C) and x = x0 + sigma eps give E[x0 | x] = m + C (C + sigma^2 I)^-1 (x - m).
The skip connection of [karras2022] is this for C = s^2 I: independent values. With the
covariance of all columns at all steps the untrained model is a Gaussian copula already.

Series are [.., T, D], in the order [D, T] wherever they are flat; n = D T of them are
one block if that is at most `MOST`, else each column is a block of its T steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST = 2048  # values of a block: its eigenvectors take minutes and hundreds of MB above
UNITS = 256.0  # values are whole multiples of 1 / UNITS in the sums
ROWS = 1024  # patients added at once
# Of the variance, in directions that count as equally wide: at 0.05 differences in
# time of what hardly moves are among them.
REST = 0.002


class Moments(NamedTuple):
    """Sums over patients in units of 1 / UNITS: whole numbers, so exact in any order
    for up to 10^8 patients; they add up over parts of a cohort."""

    count: np.ndarray  # [C]
    total: np.ndarray  # [C, D T]
    square: np.ndarray  # [blocks, n, n]


class Normal(NamedTuple):
    """A normal law: means, and covariance by its r first eigenvectors.

    The covariance is that around the means of the classes. Where the class is not told,
    what lies between the means is left to the network.
    """

    mean: Any  # [C + 1, D T] of each class, and of all
    basis: Any  # [blocks, n, r], eigenvectors in columns
    variance: Any  # [blocks, r], of each eigenvector
    rest: Any  # [blocks], of all other directions


def blocks_of(steps: int, columns: int) -> tuple[int, int]:
    """How many blocks there are, and n."""
    values = steps * columns
    if values <= MOST:
        return 1, values
    return (columns, steps) if steps <= MOST else (values, 1)


def moments(x: np.ndarray, label: np.ndarray, classes: int) -> Moments:
    """Of series [N, T, D], finite at padding too; without classes there is one."""
    count, steps, columns = x.shape
    blocks, width = blocks_of(steps, columns)
    label = label if classes else np.zeros(count, int)
    chosen = np.arange(max(classes, 1))[:, None] == label  # [C, N]
    total = np.zeros((len(chosen), columns * steps))
    square = np.zeros((blocks, width, width))
    for first in range(0, count, ROWS):
        part = np.asarray(x[first : first + ROWS], np.float64)
        part = np.rint(part * UNITS).swapaxes(1, 2).reshape(len(part), -1)
        total += chosen[:, first : first + ROWS].astype(float) @ part
        each = part.reshape(len(part), blocks, width).transpose(1, 2, 0)
        square += each @ each.swapaxes(1, 2)
    return Moments(chosen.sum(1).astype(float), total, square)


def add(one: Moments, other: Moments) -> Moments:
    """Both parts together."""
    return Moments(*(a + b for a, b in zip(one, other, strict=True)))


def means(found: Moments) -> np.ndarray:
    """Of each class [C, D T]."""
    return found.total / np.maximum(found.count, 1.0)[:, None] / UNITS


def covariance(found: Moments, steps: int) -> np.ndarray:
    """[blocks, n, n] around the means of the classes, shrunk so that none is singular.

    The T values of a column are shrunk to a multiple of the unit matrix by the oracle
    approximation [chen2010]. Where columns lie together, what connects them is shrunk
    to 0 [schafer2005], and their own part not: whether a patient is ever measured is
    one thing for all steps, which a multiple of the unit matrix would tear apart.
    """
    people = found.count.sum()
    blocks, width = found.square.shape[:2]
    each = means(found).reshape(-1, blocks, width).swapaxes(0, 1)  # [blocks, C, n]
    moved = (each * found.count[:, None]).swapaxes(1, 2) @ each
    cov = (found.square / UNITS**2 - moved) / people
    own = np.arange(width) // steps
    if blocks > 1 or own[-1] == 0:
        return oracle(cov, people)
    same = own[:, None] == own
    one = cov[0]
    # The variance of each under a normal law, over what there is to lose.
    error = (np.outer(np.diag(one), np.diag(one)) + one**2) / people
    there = (one**2)[~same].sum()
    share = min(error[~same].sum() / there, 1.0) if there > 0 else 1.0
    columns = one.reshape(-1, steps, len(own) // steps, steps)
    alone = oracle(np.einsum("cicj->cij", columns), people)
    target = np.zeros_like(one)
    target[same] = alone.ravel()
    return ((1 - share) * one + share * target)[None]


def oracle(cov: np.ndarray, people: float) -> np.ndarray:
    """Covariances [.., n, n] shrunk to a multiple of the unit matrix [chen2010]."""
    width = cov.shape[-1]
    level = np.trace(cov, axis1=1, axis2=2) / width
    square = np.mean(cov**2, axis=(1, 2))
    below = (people + 1.0) * (square - level**2 / width)
    ratio = (square + level**2) / np.where(below > 0, below, 1.0)
    share = np.where(below > 0, np.minimum(ratio, 1.0), 1.0)[:, None, None]
    return (1 - share) * cov + share * level[:, None, None] * np.eye(width)


def fit(found: Moments, steps: int) -> Normal:
    """The law with these moments of so many steps, its covariance, that within classes,
    shrunk."""
    mean = found.total.sum(0) / found.count.sum() / UNITS
    # From the smallest one.
    variance, basis = np.linalg.eigh(covariance(found, steps))
    variance = np.maximum(variance, 1e-4)
    part = np.cumsum(variance, 1) / variance.sum(1, keepdims=True)
    cut = int((part <= REST).sum(1).min())
    rest = variance[:, :cut].mean(1) if cut else variance[:, 0]
    law = np.vstack([means(found), mean]), basis[..., cut:], variance[:, cut:], rest
    return Normal(*(leaf.astype(np.float32) for leaf in law))


def mean_level(sigma: jax.Array) -> jax.Array:
    """Geometric mean of squared noise levels [B, T, D] or [T, D]: [B or 1, 1, 1]."""
    level = jnp.exp(2.0 * jnp.mean(jnp.log(sigma), (-2, -1)))
    return level[..., None, None].reshape(-1, 1, 1)


def spread(law: Normal, sigma: jax.Array) -> jax.Array:
    """Standard deviation of every value given the noisy ones: [B or 1, T, D]."""
    steps, columns = sigma.shape[-2:]
    level = mean_level(sigma)
    left = lambda variance, level: variance * level / (variance + level)
    square = law.basis**2
    kept = left(law.variance, level) - left(law.rest, level[..., 0])[..., None]
    found = jnp.einsum(
        "bgr,gnr->bgn", kept, square, precision=jax.lax.Precision.HIGHEST
    )
    found = found + left(law.rest, level[..., 0])[..., None]
    return jnp.sqrt(found.reshape(-1, columns, steps).swapaxes(1, 2))


def denoise(
    law: Normal,
    x: jax.Array,
    sigma: jax.Array,
    condition: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """E[x0 | x] [B, T, D], and the mean variance that is left, [B] or a number.

    Levels that differ between values count as their geometric mean: what this misses is
    left to the network.

    Args:
      x: noisy series [B, T, D]. sigma: [B, T, D] or [T, D].
      condition: [B, C] one-hot class; zeros, or no column, where it is not told.
    """
    exact = jax.lax.Precision.HIGHEST
    rows, steps, columns = x.shape
    level = mean_level(sigma)
    told = jnp.concatenate([condition, 1.0 - condition.sum(-1, keepdims=True)], -1)
    mean = jnp.matmul(told, law.mean[-told.shape[-1] :], precision=exact)
    flat = x.swapaxes(1, 2) - mean.reshape(-1, columns, steps)
    flat = flat.reshape(rows, law.rest.shape[0], -1)
    kept = law.variance / (law.variance + level)  # [B or 1, blocks, r]
    rest = (law.rest / (law.rest + level[..., 0]))[..., None]  # [B or 1, blocks, 1]
    parts = jnp.einsum("bgi,gir->bgr", flat, law.basis, precision=exact)
    parts = jnp.einsum(
        "bgr,gir->bgi", (kept - rest) * parts, law.basis, precision=exact
    )
    guess = (parts + rest * flat).reshape(rows, -1) + mean
    count = flat.shape[-1] - law.variance.shape[-1]
    left = (kept.sum(-1) + count * rest[..., 0]).mean(-1) / flat.shape[-1]
    left = (left * level[..., 0, 0]).reshape(sigma.shape[:-2])
    return guess.reshape(rows, columns, steps).swapaxes(1, 2), left
