"""Values of a normal law of which only bounds are known, drawn given all others.

A value that was seen has equal bounds, one that is missing none, and the latent of an
ordered code lies between two thresholds: the data of a Gaussian copula with gaps
[hoff2007]. Gibbs sampling takes the values of a patient in turn, each from its normal
law given the rest, cut at its bounds. That alone would take hundreds of sweeps where
little is known: so the first pass, and what lies behind all that is known of a patient,
goes forward in time, each value given the earlier ones only, which is exact there.
Which numbers a patient gets depends on the law and on the patient, not on who else is
drawn.
N patients, C classes, G blocks of n values each, in the order of `gaussian`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxehr.core.blocks import block_rows, blocks_of
from jaxehr.diffusion import gaussian, pairs

FAR = 6.0  # no value lies beyond; bounds of what is not known
DRAW = 32  # sweeps
# Sweeps of learning by what pairs say, and by the law after it; on Challenge 2012 100
# and more made no better law.
FIRST, SECOND = 48, 16
OWN = 0.05  # of what pairs say of different columns is left out
IMAGINED = 20.0  # patients with N(0, 1) of whom each value of the first law is told
LEAST = 1e-4  # variance, or values that never differ would have no law


class Law(NamedTuple):
    """A normal law by what a value is given all others, arrays."""

    mean: Any  # [C, G, n]
    weight: Any  # [G, n, n]: regression of each value on the others, 0 on the diagonal
    spread: Any  # [G, n]: standard deviation of each value given the others
    ahead: Any  # [G, n, n]: regression of each value on the earlier ones, else 0
    narrow: Any  # [G, n]: standard deviation of each value given the earlier ones


class Known(NamedTuple):
    """What is known of patients: [N, T, D]."""

    low: Any
    high: Any


def law_of(found: gaussian.Moments, steps: int = 1) -> Law:
    """The law with these moments, of so many steps, around the means of the classes."""
    blocks, width = found.square.shape[:2]
    mean = gaussian.means(found).reshape(-1, blocks, width)
    return law_with(mean, gaussian.covariance(found, steps), steps)


def law_with(mean: np.ndarray, covariance: np.ndarray, steps: int) -> Law:
    """The law with means [C, G, n] and covariances [G, n, n]."""
    width = covariance.shape[-1]
    covariance = covariance + LEAST * np.eye(width)
    inverse = np.linalg.inv(covariance)
    own = np.diagonal(inverse, axis1=1, axis2=2)  # [G, n]
    weight = -inverse / own[..., None] * (1.0 - np.eye(width))
    leaves = mean, weight, 1.0 / np.sqrt(own), *forward(covariance, steps)
    return Law(*(leaf.astype(np.float32) for leaf in leaves))


def forward(covariance: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """`Law.ahead` and `Law.narrow` of covariances [G, n, n].

    In order of time C = L L^T; x = L e is x_i = sum_j<i (1 - l L^-1)_ij x_j + l_i e_i
    with the diagonal l of L.
    """
    width = covariance.shape[-1]
    order = in_time(np.arange(width), width, steps)
    root = np.linalg.cholesky(covariance[:, order][:, :, order])
    narrow = np.diagonal(root, axis1=1, axis2=2)
    ahead = np.eye(width) - narrow[..., None] * np.linalg.inv(root)
    back = np.argsort(order)
    return np.tril(ahead, -1)[:, back][:, :, back], narrow[:, back]


def in_time(i: Any, width: int, steps: int) -> Any:
    """The place in a block of value i in order of time; a block has D T values, T of
    one column, or one."""
    columns = max(width // steps, 1)
    return (i % columns) * (width // columns) + i // columns


def learn(
    known: Known, label: np.ndarray, classes: int, seeds: np.ndarray, latent: int = 0
) -> Law:
    """The law of patients.

    Pairs of values say what the law is like, and values drawn by it what pairs leave
    out: what many patients lack, and the classes. These are two steps of expectation
    and maximisation. Many, from independent values on, do not find that latents hardly
    move in time: their draws change as little as the law of the moment lets them.
    The scale of a latent is free but for its thresholds, which are those of N(0, 1):
    it is brought back to it each time.

    Args:
      label: Int [N]. classes: 0 = one mean for all. seeds: uint32 [N].
      latent: the number of columns, from the last one, that are latents.
    """
    steps = known.low.shape[1]
    if not (known.low < known.high).any():
        return law_of(gaussian.moments(known.low, label, classes), steps)
    law, x = first_law(known, classes), None
    for sweeps in (FIRST, SECOND):
        x = draw(law, known, label, seeds, sweeps=sweeps, start=x)
        law = law_of(gaussian.moments(scaled(x, latent), label, classes), steps)
        seeds = seeds + np.uint32(1)
    return law


def first_law(known: Known, classes: int) -> Law:
    """What pairs of values and of thresholds say (`pairs`), one mean for all classes.

    Pairs of few patients contradict each other, and what makes a law of them weakens
    all; so a share of what connects columns is left out.
    """
    steps, columns = known.low.shape[1:]
    blocks, width = gaussian.blocks_of(steps, columns)
    low, high = (np.asarray(leaf, float) for leaf in known)
    told, exact = (low > -FAR) | (high < FAR), low == high
    scores = np.where(told, pairs.means_between(low, high), 0.0)
    # What lies between thresholds is N(0, 1) as it stands.
    count = (told & exact).sum(0)  # [T, D]
    mean = np.where(told & exact, scores, 0.0).sum(0) / (count + IMAGINED)
    square = np.where(told & exact, (scores - mean) ** 2, 0.0).sum(0)
    spread = np.sqrt((square + IMAGINED) / (count + IMAGINED))
    standard = np.where(told, (scores - mean) / spread, 0.0)
    inwards = lambda leaf: leaf.swapaxes(-1, -2).reshape(-1, blocks, width)
    leaves = [inwards(leaf) for leaf in (standard, told, low, high)]
    own = np.arange(width) // steps
    scale = inwards(spread)[0]
    found = np.empty((blocks, width, width))
    for i in range(blocks):
        block, shown, *bounds = (leaf[:, i] for leaf in leaves)
        expansion = np.stack(
            [expanded(*each) for each in zip(shown.T, *map(np.transpose, bounds))]
        )
        each = pairs.correlation(block, shown, expansion)
        for first in range(0, width, steps):  # no noise of other columns shrinks it
            at = slice(first, first + steps)
            each[at, at] = pairs.correlation(block[:, at], shown[:, at], expansion[at])
        each = pairs.nearest(each)
        kept = np.where(own[:, None] == own, 1.0, 1.0 - OWN)
        found[i] = each * kept * np.outer(scale[i], scale[i])
    return law_with(np.repeat(inwards(mean), max(classes, 1), 0), found, steps)


def expanded(told: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Mehler's coefficients of one value, of which patients [N] know bounds."""
    low, high = low[told], high[told]
    if (low == high).all():
        return np.eye(1, pairs.TERMS)[0]
    low, first = np.unique(low, return_index=True)
    high = high[first]
    return pairs.step_expansion(low, high, pairs.means_between(low, high))


def scaled(x: np.ndarray, latent: int) -> np.ndarray:
    """[N, T, D] with mean 0 and variance 1 in its last columns at every step."""
    if not latent or len(x) < 2:
        return x
    x, own = x.copy(), x[..., -latent:].astype(np.float64)
    spread = np.maximum(own.std(0), LEAST)
    x[..., -latent:] = (own - own.mean(0)) / spread
    return x


def draw(
    law: Law,
    known: Known,
    label: np.ndarray,
    seeds: np.ndarray,
    *,
    sweeps: int = DRAW,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """All values given what is known of a patient: float32 [N, T, D].

    Args:
      start: [N, T, D], where the sweeps begin; None = the first one makes a start.
    """
    count, steps, columns = known.low.shape
    fresh = start is None
    start = np.zeros(known.low.shape, np.float32) if start is None else start
    code = np.zeros_like(label) if len(law.mean) == 1 else label
    device, found = jax.device_put(law), []
    for rows, kept in blocks_of(count, block_rows()):
        part = (np.asarray(leaf[rows], np.float32) for leaf in (start, *known))
        asked = code[rows], seeds[rows], np.int32(sweeps), np.bool_(fresh)
        x = draw_block(device, *part, *asked)
        found.append(np.asarray(x)[kept])
    if not found:
        return np.zeros((0, steps, columns), np.float32)
    return np.concatenate(found)


@jax.jit
def draw_block(
    law: Law,
    start: jax.Array,
    low: jax.Array,
    high: jax.Array,
    label: jax.Array,
    seeds: jax.Array,
    sweeps: jax.Array,
    fresh: jax.Array,
) -> jax.Array:
    """`draw` of the patients of one block [B, T, D]."""
    rows, steps, columns = start.shape
    blocks, width = law.spread.shape
    behind = last_ones((low <= -FAR) & (high >= FAR), blocks == 1)
    keys = jax.vmap(jax.random.key)(seeds)

    def inwards(leaf: jax.Array) -> jax.Array:
        """[B, T, D] as [G, n, B], so that one value of all patients lies together."""
        leaf = leaf.swapaxes(1, 2).reshape(rows, blocks, width)
        return jnp.moveaxis(leaf, 0, -1)

    mean = jnp.moveaxis(law.mean[label], 0, -1)
    x, low, high = (inwards(leaf) - mean for leaf in (start, low, high))
    behind = inwards(behind)

    def sweep(number: jax.Array, x: jax.Array) -> jax.Array:
        one = lambda key: jax.random.uniform(
            jax.random.fold_in(key, number), (blocks, width)
        )
        chance = jnp.moveaxis(jax.vmap(one)(keys), 0, -1)
        onward = behind | (fresh & (number == 0))
        return in_turn(law, x, low, high, onward, chance, steps)

    x = jax.lax.fori_loop(0, sweeps, sweep, x) + mean
    return jnp.moveaxis(x, -1, 0).reshape(rows, columns, steps).swapaxes(1, 2)


def in_turn(
    law: Law,
    x: jax.Array,
    low: jax.Array,
    high: jax.Array,
    onward: jax.Array,
    chance: jax.Array,
    steps: int,
) -> jax.Array:
    """All values x [G, n, B], around their means, drawn in order of time: given the
    earlier ones where `onward`, else given all others."""
    width = x.shape[1]

    def value(i: jax.Array, x: jax.Array) -> jax.Array:
        place = in_time(i, width, steps)
        at = functools.partial(jax.lax.dynamic_index_in_dim, index=place, axis=1)

        # Both by one product: a choice of what to compute would be a question to the
        # host for each value where the device is a GPU.
        rows = jnp.concatenate([at(law.ahead), at(law.weight)], 1)
        exact = jax.lax.Precision.HIGHEST
        pulls = jnp.einsum("gkn,gnb->gkb", rows, x, precision=exact)
        early, bounds = at(onward), (at(low), at(high))
        mean = jnp.where(early, pulls[:, :1], pulls[:, 1:])
        spread = jnp.where(early, at(law.narrow)[..., None], at(law.spread)[..., None])
        drawn = cut_normal(at(chance), mean, spread, *bounds)
        new = jnp.where(bounds[0] < bounds[1], drawn, bounds[0])
        return jax.lax.dynamic_update_slice_in_dim(x, new, place, 1)

    return jax.lax.fori_loop(0, width, value, x)


def last_ones(free: jax.Array, together: bool) -> jax.Array:
    """Bool [B, T, D]: nothing is known at this step and at all later ones, of any
    column or, where columns are apart, of its own."""
    if together:
        free = jnp.broadcast_to(free.all(-1, keepdims=True), free.shape)
    return jax.lax.cummin(free.astype(jnp.int32), 1, reverse=True) > 0


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
