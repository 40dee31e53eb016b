"""Likelihoods by column kind, from one flat vector of decoder outputs a row.

A row is a patient (static part) or a time step. Its vector holds, in this order,
    normal columns    the mean of N(mean, sigma^2), sigma learned per column,
    counts            the log mean of NB(mean, r), r learned per column,
    binary columns    the logit of code 1,
    masks             the logit of "observed", one a feature (`Block.observed`),
    categorical ones  K logits a column, columns of one cardinality side by side,
and every missing value is left out of the sum. Notation: B patients, T steps, D
features, K categories.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.models.flexgen.layout import Part
from jaxehr.models.flexgen.preprocessing import Block
from jaxehr.nn.likelihoods import (
    bernoulli,
    categorical,
    negative_binomial,
    normal,
    sigma_of,
)

NEVER = -1e4  # logit of what training never saw
TINY = 1e-30  # no logarithm of less


class Outputs(NamedTuple):
    """What a decoder says of B patients."""

    heads: Any  # [B, outputs], or [B, T, outputs]
    spread: Any  # [B, normal + counts]: sigma, and r
    length: Any  # [B, T] logits of the lengths 1 .. T; [B, 0] of a static part


class Drawn(NamedTuple):
    """Values drawn for B patients."""

    block: Block
    length: Any  # int32 [B]; 0 of a static part


class Heads(NamedTuple):
    """The pieces of a vector of outputs."""

    normal: Any
    counts: Any
    binary: Any
    masks: Any
    categorical: tuple[Any, ...]  # [.., D, K] for each cardinality


def split(part: Part, heads: jax.Array) -> Heads:
    """Slices of the flat outputs [.., outputs]."""
    sizes = (part.num_normal, part.num_counts, part.num_binary, part.num_masks)
    ends = np.cumsum(sizes)
    normal, counts, binary, masks, _ = jnp.split(heads, ends, axis=-1)
    place = int(ends[-1])
    groups: list[jax.Array] = []
    for width, count in part.categorical:
        logits = heads[..., place : place + width * count]
        groups.append(logits.reshape(*heads.shape[:-1], count, width))
        place += width * count
    return Heads(normal, counts, binary, masks, tuple(groups))


def spread_of(part: Part, raw: jax.Array) -> jax.Array:
    """Positive sigma and r [normal + counts] of unbounded parameters, 1 at 0."""
    sigma = sigma_of(raw[: part.num_normal])
    r = jnp.exp(jnp.clip(raw[part.num_normal :], -7.0, 12.0))
    return jnp.concatenate([sigma, r])


def valid_rows(part: Part, block: Block, length: jax.Array) -> jax.Array:
    """Bool [B, T]: steps before `length`; [B] of a static part: anything observed."""
    if part.steps:
        return jnp.arange(part.steps) < length[:, None]
    return block.observed.any(-1)


def log_likelihood(
    part: Part, outputs: Outputs, block: Block, length: jax.Array
) -> jax.Array:
    """Log-likelihood [B] of what is observed, masks included; 0 without any row.

    The length is left to `length_likelihood`.
    """
    valid = valid_rows(part, block, length)
    heads = split(part, outputs.heads)
    spread = outputs.spread[:, None] if part.steps else outputs.spread
    cells = [
        normal(
            heads.normal,
            spread[..., : part.num_normal],
            block.numeric[..., : part.num_normal],
        ),
        negative_binomial(heads.counts, spread[..., part.num_normal :], block.counts),
        bernoulli(heads.binary, block.codes[..., : part.num_binary].astype(bool)),
    ]
    place = part.num_binary
    for logits in heads.categorical:
        after = place + logits.shape[-2]
        cells.append(categorical(logits, block.codes[..., place:after]))
        place = after
    total = jnp.zeros(valid.shape)
    place = 0
    for cell in cells:
        after = place + cell.shape[-1]
        if part.num_flags:
            cell = jnp.where(block.observed[..., place:after], cell, 0.0)
        total, place = total + cell.sum(-1), after
    if part.num_masks:
        total = total + bernoulli(heads.masks, block.observed).sum(-1)
    total = jnp.where(valid, total, 0.0)
    return total.sum(-1) if part.steps else total


def length_likelihood(outputs: Outputs, length: jax.Array) -> jax.Array:
    """Log-probability [B] of the lengths; 0 of a static part."""
    if not outputs.length.shape[-1]:
        return jnp.zeros(length.shape)
    return jnp.where(length > 0, categorical(outputs.length, length - 1), 0.0)


def start_bias(part: Part, fitted: dict[str, Any]) -> np.ndarray:
    """Outputs [outputs] that say the marginals of training, with half a count more."""
    codes = np.asarray(fitted["codes"], np.float64) + 0.5
    observed = 1.0 - np.asarray(fitted["missing"])[list(part.observed_order)]
    seen = observed * float(fitted["rows"]) + 0.5
    unseen = (1.0 - observed) * float(fitted["rows"]) + 0.5
    binary = codes[: part.num_binary]
    pieces = [
        np.zeros(part.num_normal),
        np.log(np.asarray(fitted["count_mean"]) + 0.01),
        np.log(binary[:, 1] / binary[:, 0]) if part.num_binary else np.zeros(0),
        np.log(seen / unseen)[: part.num_masks],
    ]
    place = part.num_binary
    for width, count in part.categorical:
        rows = codes[place : place + count, :width]
        pieces.append(np.log(rows / rows.sum(-1, keepdims=True)).ravel())
        place += count
    return np.concatenate(pieces).astype(np.float32)


def start_length(fitted: dict[str, Any]) -> np.ndarray:
    """Logits [T] of the lengths 1 .. T in training; one length only stays alone."""
    counts = np.asarray(fitted["lengths"], np.float64)[1:]
    if not varies(fitted):
        return np.where(counts > 0, 0.0, NEVER).astype(np.float32)
    return np.log((counts + 0.5) / (counts + 0.5).sum()).astype(np.float32)


def varies(fitted: dict[str, Any]) -> bool:
    """Whether training had series of different lengths (an empty one is no series)."""
    return int(np.count_nonzero(np.asarray(fitted["lengths"])[1:])) > 1


def mask_bounds(part: Part, fitted: dict[str, Any]) -> np.ndarray:
    """Lowest and highest logits [2, masks] that training allows.

    A column that it never saw missing (observed) is sure to be observed (missing).
    """
    share = np.asarray(fitted["missing"])[list(part.observed_order)][: part.num_masks]
    lowest = np.where(share <= 0.0, -NEVER, -np.inf)
    return np.stack([lowest, np.where(share >= 1.0, NEVER, np.inf)]).astype(np.float32)


def bound_masks(part: Part, outputs: Outputs, bounds: jax.Array) -> Outputs:
    """`outputs` with the logits of the masks inside of `mask_bounds`."""
    first = part.num_normal + part.num_counts + part.num_binary
    place = (..., slice(first, first + part.num_masks))
    logits = jnp.clip(outputs.heads[place], bounds[0], bounds[1])
    return outputs._replace(heads=outputs.heads.at[place].set(logits))


def draw(part: Part, keys: jax.Array, outputs: Outputs) -> Drawn:
    """Values drawn from the likelihoods; row i depends on keys[i] and its outputs."""
    return jax.vmap(lambda key, row: _draw_row(part, key, row))(keys, outputs)


def _draw_row(part: Part, key: jax.Array, outputs: Outputs) -> Drawn:
    """One patient: heads [outputs] or [T, outputs]."""
    heads = split(part, outputs.heads)
    keys = jax.random.split(key, 7)
    noise = jax.random.normal(keys[0], heads.normal.shape)
    z = heads.normal + outputs.spread[: part.num_normal] * noise
    counts = heads.counts
    if part.num_counts:
        r = outputs.spread[part.num_normal :]
        mean = jnp.exp(jnp.clip(heads.counts, -20.0, 20.0))
        rate = jax.random.loggamma(keys[1], jnp.broadcast_to(r, mean.shape))
        rate = jnp.exp(rate + jnp.log(mean / r))
        counts = jax.random.poisson(keys[2], jnp.minimum(rate, 2.0**30))
    toss = lambda key, x: jax.random.uniform(key, x.shape) < jax.nn.sigmoid(x)
    codes = [
        jax.random.categorical(jax.random.fold_in(keys[5], i), logits)
        for i, logits in enumerate(heads.categorical)
    ]
    length = jnp.int32(0)
    if part.steps:
        length = 1 + jax.random.categorical(keys[6], outputs.length)
    binary = toss(keys[3], heads.binary)
    level = jax.random.uniform(keys[4], heads.masks.shape)
    masks = level < jax.nn.sigmoid(heads.masks)
    # Above sigmoid(x), -log(1 - level) less its lowest value is exponential: the first
    # of a race at the odds, as if exactly one value were observed.
    wait = jnp.maximum(-jax.nn.softplus(heads.masks) - jnp.log1p(-level), TINY)
    masks = _any_observed(part, masks, heads.masks - jnp.log(wait), length)
    return _assemble(part, z, counts, binary, masks, codes, length)


def mode(part: Part, outputs: Outputs) -> Drawn:
    """The most probable value of every column; the length likewise."""
    heads = split(part, outputs.heads)
    counts = heads.counts
    if part.num_counts:
        r = outputs.spread[:, part.num_normal :]
        r = r[:, None] if part.steps else r
        mean = jnp.exp(jnp.clip(heads.counts, -20.0, 20.0))
        counts = jnp.floor(mean * jnp.maximum(1.0 - 1.0 / r, 0.0))
    codes = [jnp.argmax(logits, -1) for logits in heads.categorical]
    length = jnp.zeros(outputs.spread.shape[0], jnp.int32)
    if part.steps:
        length = 1 + jnp.argmax(outputs.length, -1)
    masks = _any_observed(part, heads.masks > 0, heads.masks, length)
    return _assemble(part, heads.normal, counts, heads.binary > 0, masks, codes, length)


def _any_observed(
    part: Part, masks: jax.Array, nearness: jax.Array, length: jax.Array
) -> jax.Array:
    """`masks`, with the value nearest to being observed where none would be.

    Masks are independent given z, so that all can be False; a part of which nothing is
    observed is none, though the patient's frame says that it is there.
    """
    if not part.num_masks:
        return masks
    valid, axes = jnp.ones_like(masks), (-1,)
    if part.steps:
        valid, axes = jnp.arange(part.steps) < length[..., None], (-2, -1)
        valid = jnp.broadcast_to(valid[..., None], masks.shape)
    nearness = jnp.where(valid, nearness, -jnp.inf)
    nearest = valid & (nearness == nearness.max(axes, keepdims=True))
    return masks | (nearest & ~(masks & valid).any(axes, keepdims=True))


def _assemble(
    part: Part,
    z: jax.Array,
    counts: jax.Array,
    binary: jax.Array,
    masks: jax.Array,
    codes: list[jax.Array],
    length: jax.Array,
) -> Drawn:
    """Puts drawn pieces into a `Block`; binary codes alone stay Bool."""
    # The score of a count is not read when it is decoded.
    score = jnp.zeros((*z.shape[:-1], part.num_counts), z.dtype)
    if codes:
        merged = [binary.astype(jnp.int32), *(c.astype(jnp.int32) for c in codes)]
        binary = jnp.concatenate(merged, -1)
    if part.num_flags and not part.num_masks:
        masks = jnp.ones((*z.shape[:-1], part.num_flags), bool)
    block = Block(
        jnp.concatenate([z, score], -1), counts.astype(jnp.float32), binary, masks
    )
    return Drawn(block, length.astype(jnp.int32))
