"""Ordered codes as intervals of a normal latent, and a denoiser that tells codes.

A code k of a column is a latent z between its ends a_k and a_k+1. If z given all that
is noisy is about N(m, s^2), a code has the probability P_k = Phi((a_k+1 - m) / s) -
Phi((a_k - m) / s), and z inside its interval a known mean. A network only has to
correct the logits log P_k, so its loss is the cross-entropy of the code, and

    E[z | x] = sum_k p_k E[z | a_k < z < a_k+1],   p = softmax(log P_k + network)

as score interpolation does it with embeddings. Columns have different numbers of codes:
those of all columns lie side by side, S of them, in the order of
`embeddings.pad_logits`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from jaxehr.diffusion.embeddings import pad_logits

SMALL = 1e-12  # probability of an interval


class Ends(NamedTuple):
    """Both ends of every code, side by side: [T, S]."""

    low: jax.Array
    high: jax.Array


def side_by_side(ends: jax.Array, sizes: tuple[int, ...]) -> Ends:
    """From ends [T, P, K + 1], of which a column uses the first size + 1."""
    each = [ends[:, i, : size + 1] for i, size in enumerate(sizes)]
    nothing = [jnp.zeros((ends.shape[0], 0))]
    join = lambda leaves: jnp.concatenate(nothing + leaves, -1)
    return Ends(join([e[:, :-1] for e in each]), join([e[:, 1:] for e in each]))


def spread_out(leaf: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """[.., P] -> [.., S]: the value of a column at each of its codes."""
    return leaf[..., np.repeat(np.arange(len(sizes)), sizes)]


def log_shares(ends: Ends, mean: jax.Array, spread: jax.Array) -> jax.Array:
    """log P_k [B, T, S] of N(mean, spread^2), both [B, T, S]."""
    return jnp.log(jnp.maximum(between(ends, mean, spread)[0], SMALL))


def between(
    ends: Ends, mean: jax.Array, spread: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """P_k, and both ends in units of the spread, mirrored to the left tail."""
    a, b = (ends.low - mean) / spread, (ends.high - mean) / spread
    over = a > 0  # there small probabilities keep their digits
    low, high = jnp.where(over, -b, a), jnp.where(over, -a, b)
    return ndtr(high) - ndtr(low), a, b


def logits_of(
    ends: Ends,
    mean: jax.Array,
    spread: jax.Array,
    correction: jax.Array,
    sizes: tuple[int, ...],
) -> jax.Array:
    """Padded logits [B, T, P, K].

    Args:
      mean, spread: [B, T, P] of the latents. correction: [B, T, S] of a network.
    """
    mean, spread = spread_out(mean, sizes), spread_out(spread, sizes)
    return pad_logits(log_shares(ends, mean, spread) + correction, sizes)


def expected(
    ends: Ends,
    mean: jax.Array,
    spread: jax.Array,
    logits: jax.Array,
    sizes: tuple[int, ...],
) -> jax.Array:
    """E[z | x] [B, T, P] from the logits of `logits_of`."""
    mean, spread = spread_out(mean, sizes), spread_out(spread, sizes)
    share, a, b = between(ends, mean, spread)
    density = lambda z: jnp.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    inside = mean + spread * (density(a) - density(b)) / jnp.maximum(share, SMALL)
    # Far from all that is likely: the nearer end.
    inside = jnp.clip(inside, ends.low, ends.high)
    padded = pad_logits(inside, sizes)
    chance = jax.nn.softmax(logits, -1)
    return jnp.sum(jnp.where(padded > -1e8, chance * padded, 0.0), -1)


def codes_of(ends: jax.Array, z: jax.Array) -> jax.Array:
    """Int [.., T, P]: the interval of each latent; ends as in `side_by_side`."""
    return jnp.sum(z[..., None] > ends[..., 1:-1], -1)
