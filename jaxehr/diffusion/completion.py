"""Values of a normal law of which only bounds are known, drawn given all others.

A value that was seen has equal bounds, one that is missing none, and the latent of an
ordered code lies between two thresholds: the data of a Gaussian copula with gaps
[hoff2007]. Gibbs sampling takes the values of a patient in turn, each from its normal
law given the rest, cut at its bounds. Which numbers a patient gets depends on the law
and on the patient, not on who else is drawn.
N patients, C classes, G blocks of n values each, in the order of `gaussian`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxehr.core.blocks import blocks_of
from jaxehr.diffusion import gaussian

FAR = 6.0  # no value lies beyond; bounds of what is not known
ROWS = 128  # patients drawn at once
LEARN, DRAW = 24, 16  # sweeps
LEAST = 1e-4  # variance, or values that never differ would have no law


class Law(NamedTuple):
    """A normal law by what a value is given all others, arrays."""

    mean: Any  # [C, G, n]
    weight: Any  # [G, n, n]: regression of each value on the others, 0 on the diagonal
    spread: Any  # [G, n]: standard deviation of each value given the others


class Known(NamedTuple):
    """What is known of patients, and where their draws start: [N, T, D]."""

    start: Any
    low: Any
    high: Any


def law_of(found: gaussian.Moments) -> Law:
    """The law with these moments around the means of the classes."""
    blocks, width = found.square.shape[:2]
    covariance = gaussian.covariance(found, within=True)
    inverse = np.linalg.inv(covariance + LEAST * np.eye(width))
    own = np.diagonal(inverse, axis1=1, axis2=2)  # [G, n]
    weight = -inverse / own[..., None] * (1.0 - np.eye(width))
    mean = gaussian.means(found).reshape(-1, blocks, width)
    leaves = mean, weight, 1.0 / np.sqrt(own)
    return Law(*(leaf.astype(np.float32) for leaf in leaves))


def learn(known: Known, label: np.ndarray, classes: int, seeds: np.ndarray) -> Law:
    """The law of patients, by a stochastic form of expectation and maximisation: draw
    all values by the law of the last draws, a few times.

    Args:
      label: Int [N]. classes: 0 = one mean for all. seeds: uint32 [N].
    """
    x = np.asarray(known.start)
    for sweep in range(LEARN):
        law = law_of(gaussian.moments(x, label, classes))
        now = known._replace(start=x)
        x = draw(law, now, label, seeds + np.uint32(sweep), sweeps=1)
    return law_of(gaussian.moments(x, label, classes))


def draw(
    law: Law,
    known: Known,
    label: np.ndarray,
    seeds: np.ndarray,
    *,
    sweeps: int = DRAW,
) -> np.ndarray:
    """All values given what is known of a patient: float32 [N, T, D]."""
    count, steps, columns = known.start.shape
    code = np.zeros_like(label) if len(law.mean) == 1 else label
    device, found = jax.device_put(law), []
    for rows, kept in blocks_of(count, ROWS):
        part = Known(*(np.asarray(leaf[rows], np.float32) for leaf in known))
        x = draw_block(device, part, code[rows], seeds[rows], np.int32(sweeps))
        found.append(np.asarray(x)[kept])
    if not found:
        return np.zeros((0, steps, columns), np.float32)
    return np.concatenate(found)


@jax.jit
def draw_block(
    law: Law, known: Known, label: jax.Array, seeds: jax.Array, sweeps: jax.Array
) -> jax.Array:
    """`draw` of the patients of one block [B, T, D]."""
    rows, steps, columns = known.start.shape
    blocks, width = law.spread.shape
    keys = jax.vmap(jax.random.key)(seeds)

    def inwards(leaf: jax.Array) -> jax.Array:
        """[B, T, D] as [G, n, B], so that one value of all patients lies together."""
        leaf = leaf.swapaxes(1, 2).reshape(rows, blocks, width)
        return jnp.moveaxis(leaf, 0, -1)

    mean = jnp.moveaxis(law.mean[label], 0, -1)
    x, low, high = (inwards(leaf) - mean for leaf in known)

    def sweep(number: jax.Array, x: jax.Array) -> jax.Array:
        one = lambda key: jax.random.uniform(
            jax.random.fold_in(key, number), (blocks, width)
        )
        chance = jnp.moveaxis(jax.vmap(one)(keys), 0, -1)

        def value(i: jax.Array, x: jax.Array) -> jax.Array:
            at = functools.partial(jax.lax.dynamic_index_in_dim, index=i, axis=1)
            pull = jnp.einsum(
                "gn,gnb->gb",
                at(law.weight, keepdims=False),
                x,
                precision=jax.lax.Precision.HIGHEST,
            )[:, None]
            bounds = at(low), at(high)
            drawn = cut_normal(at(chance), pull, at(law.spread)[..., None], *bounds)
            new = jnp.where(bounds[0] < bounds[1], drawn, bounds[0])
            return jax.lax.dynamic_update_slice_in_dim(x, new, i, 1)

        return jax.lax.fori_loop(0, width, value, x)

    x = jax.lax.fori_loop(0, sweeps, sweep, x) + mean
    return jnp.moveaxis(x, -1, 0).reshape(rows, columns, steps).swapaxes(1, 2)


def cut_normal(
    chance: jax.Array, mean: jax.Array, spread: jax.Array, low: jax.Array, high: Any
) -> jax.Array:
    """The normal law between bounds, at a chance that is uniform in [0, 1)."""
    a, b = (low - mean) / spread, (high - mean) / spread
    over = a > 0  # the left tail, where small probabilities keep their digits
    a, b = jnp.where(over, -b, a), jnp.where(over, -a, b)
    least, most = ndtr(a), ndtr(b)
    z = ndtri(jnp.clip(least + chance * (most - least), 1e-30, 1.0 - 1e-7))
    z = jnp.clip(z, a, b)
    return mean + spread * jnp.where(over, -z, z)
