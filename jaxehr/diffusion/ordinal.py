"""Ordered codes as intervals of a normal latent, and a denoiser that tells codes.

A code k of a column is a latent z between its ends a_k and a_k+1. If z given all that
is noisy is about N(m, s^2), a code has the probability P_k = Phi((a_k+1 - m) / s) -
Phi((a_k - m) / s), and z inside its interval a known mean. A network only has to
correct the logits log P_k, so its loss is the cross-entropy of the code, and

    E[z | x] = sum_k p_k E[z | a_k < z < a_k+1],   p = softmax(log P_k + network)

as score interpolation does it with embeddings. Columns have different numbers of codes:
those of all columns lie side by side, S of them, as `embeddings.pad_logits` takes them.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc

SMALL = 1e-12  # probability of an interval
LEAST = 80.0  # logits lie at most this much below the largest one; e^-80 is a float32
BEYOND = 30.0  # spreads from the mean, where no mass is


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


def at(places: np.ndarray, leaf: jax.Array) -> jax.Array:
    """`leaf[..., places]` of fixed places, with a product as its gradient.

    That of indexing is a scatter, which on a GPU adds up in any order, so that the same
    seed would not give the same bits; on CPU it takes longer too.
    """
    hot = (places[:, None] == np.arange(leaf.shape[-1])).astype(np.float32)

    @jax.custom_vjp
    def read(leaf: jax.Array) -> jax.Array:
        return leaf[..., places]

    def back(_: None, gradient: jax.Array) -> tuple[jax.Array]:
        return (jnp.matmul(gradient, hot, precision=jax.lax.Precision.HIGHEST),)

    read.defvjp(lambda leaf: (read(leaf), None), back)
    return read(leaf)


def spread_out(leaf: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """[.., P] -> [.., S]: the value of a column at each of its codes."""
    return at(np.repeat(np.arange(len(sizes)), sizes), leaf)


class Cuts(NamedTuple):
    """What a normal law says of the intervals of a column: [B, T, S] each."""

    share: jax.Array  # P_k
    slope: jax.Array  # density at the lower end minus that at the upper one


def cuts_of(
    ends: Ends, mean: jax.Array, spread: jax.Array, sizes: tuple[int, ...]
) -> Cuts:
    """Of N(mean, spread^2), both [B, T, P]; nothing lies beyond the outer ends.

    Each of the S - P inner ends is looked at once; its tail away from the mean keeps
    the digits of small probabilities.
    """
    places = np.concatenate([np.zeros(0, int), *map(np.arange, sizes)])
    (kept,) = np.nonzero(np.roll(places, -1))  # codes with an inner upper end
    owner = np.repeat(np.arange(len(sizes)), sizes)[kept]
    inner = (ends.high[..., kept] - at(owner, mean)) / at(owner, spread)
    tail = 0.5 * erfc(jnp.abs(inner) * np.sqrt(0.5))
    density = jnp.exp(-0.5 * inner**2) / np.sqrt(2.0 * np.pi)
    # Behind the inner ends lie the left and the right outer one.
    outer = len(kept)
    high = np.full(len(places), outer + 1)
    high[kept] = np.arange(outer)
    low = np.where(places == 0, outer, np.roll(high, 1))
    edges = (*inner.shape[:-1], 1)
    both = lambda leaf, left, right: jnp.concatenate(
        [leaf, jnp.full(edges, left), jnp.full(edges, right)], -1
    )
    z, tail = both(inner, -BEYOND, BEYOND), both(tail, 0.0, 0.0)
    density = both(density, 0.0, 0.0)
    tails = at(low, tail), at(high, tail)
    across = jnp.where(z[..., high] < 0, tails[1] - tails[0], 1.0 - tails[0] - tails[1])
    share = jnp.where(z[..., low] > 0, tails[0] - tails[1], across)
    # Or XLA would find the shares anew wherever they are used: twice the time.
    return jax.lax.optimization_barrier(
        Cuts(share, at(low, density) - at(high, density))
    )


def logits_of(cuts: Cuts, correction: jax.Array) -> jax.Array:
    """Logits of all codes; the correction of a network and they are [B, T, S]."""
    return jnp.log(jnp.maximum(cuts.share, SMALL)) + correction


def expected(
    ends: Ends,
    mean: jax.Array,
    spread: jax.Array,
    cuts: Cuts,
    logits: jax.Array,
    sizes: tuple[int, ...],
) -> jax.Array:
    """E[z | x] [B, T, P] from the logits of `logits_of`."""
    mean, spread = spread_out(mean, sizes), spread_out(spread, sizes)
    inside = mean + spread * cuts.slope / jnp.maximum(cuts.share, SMALL)
    # Far from all that is likely: the nearer end.
    inside = jnp.clip(inside, ends.low, ends.high)
    # The largest logit of a step serves all its columns, and one product adds up the
    # codes of each: reductions over a few codes take most of the time otherwise.
    below = jnp.maximum(logits - logits.max(-1, keepdims=True, initial=-LEAST), -LEAST)
    owner = np.repeat(np.arange(len(sizes)), sizes)[:, None] == np.arange(len(sizes))
    add = functools.partial(
        jnp.matmul, b=owner.astype(np.float32), precision=jax.lax.Precision.HIGHEST
    )
    weight = jnp.exp(below)
    return add(weight * inside) / add(weight)


def codes_of(ends: jax.Array, z: jax.Array) -> jax.Array:
    """Int [.., T, P]: the interval of each latent; ends as in `side_by_side`."""
    return jnp.sum(z[..., None] > ends[..., 1:-1], -1)
