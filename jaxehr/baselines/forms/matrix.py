"""A batch as one matrix of numbers, and back: what networks without codes take.

Columns, side by side: P numbers (normal scores, or with `unit` their quantile level in
[0, 1]), S shares of steps at 1, one column a binary code, K columns a code of K > 2
categories, codes of one K together. Outputs of a network have the same columns, with a
logit where the matrix has a share or a probability. Leading axes are free.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.nn.likelihoods import bernoulli, categorical, normal

EDGE = 1e-6  # a quantile level stays this far from 0 and 1


class Blocks(NamedTuple):
    """The columns by kind."""

    numeric: Any  # [.., P]
    sums: Any  # [.., S]
    binary: Any  # [.., columns]
    groups: tuple[Any, ...]  # [.., columns, K] for each K


def at(places: tuple[int, ...]) -> np.ndarray:
    """Places as an index, also of no column."""
    return np.asarray(places, np.int32)


def split(layout: Layout, matrix: jax.Array) -> Blocks:
    """The columns [.., width] by kind."""
    sizes = [layout.numbers, layout.sums, len(layout.binary)]
    sizes += [k * len(places) for k, places in layout.groups]
    numeric, sums, binary, *hot = jnp.split(matrix, np.cumsum(sizes)[:-1], axis=-1)
    groups = tuple(
        leaf.reshape(*leaf.shape[:-1], len(places), k)
        for leaf, (k, places) in zip(hot, layout.groups, strict=True)
    )
    return Blocks(numeric, sums, binary, groups)


def join(blocks: Blocks) -> jax.Array:
    """The inverse of `split`."""
    hot = [leaf.reshape(*leaf.shape[:-2], -1) for leaf in blocks.groups]
    return jnp.concatenate([blocks.numeric, blocks.sums, blocks.binary, *hot], -1)


def blocks_of(layout: Layout, batch: Batch, *, unit: bool = False) -> Blocks:
    """Numbers, shares, binary codes and one-hot codes of a batch, float32."""
    codes = jnp.asarray(batch.codes)
    pick = lambda places: codes[..., at(places)]
    numeric = jnp.asarray(batch.numeric)
    return Blocks(
        ndtr(numeric) if unit else numeric,
        jnp.asarray(batch.sums),
        pick(layout.binary).astype(jnp.float32),
        tuple(jax.nn.one_hot(pick(places), k) for k, places in layout.groups),
    )


def matrix_of(layout: Layout, batch: Batch, *, unit: bool = False) -> jax.Array:
    """A batch as [.., width]."""
    return join(blocks_of(layout, batch, unit=unit))


def probabilities(layout: Layout, outputs: jax.Array, *, unit: bool = False) -> Any:
    """Outputs of a network as a matrix: the logits become shares or probabilities."""
    blocks = split(layout, outputs)
    return join(
        Blocks(
            jax.nn.sigmoid(blocks.numeric) if unit else blocks.numeric,
            jax.nn.sigmoid(blocks.sums),
            jax.nn.sigmoid(blocks.binary),
            tuple(jax.nn.softmax(leaf, -1) for leaf in blocks.groups),
        )
    )


def batch_of(
    layout: Layout,
    keys: jax.Array,
    matrix: jax.Array,
    label: jax.Array,
    *,
    mode: bool,
    unit: bool = False,
) -> Batch:
    """Patients of a drawn matrix [N, .., width]; patient i depends on keys[i].

    A binary code is drawn with its value as the chance of 1, a category with its values
    as chances, cut to [0, 1]; with `mode` by the threshold 0.5, and the largest value,
    wherever it lies. Shares are cut to [0, 1].
    """

    def one(key: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        blocks, keys = split(layout, row), jax.random.split(key)
        numeric = blocks.numeric
        if unit:
            numeric = ndtri(jnp.clip(numeric, EDGE, 1.0 - EDGE))
        level = 0.5 if mode else jax.random.uniform(keys[0], blocks.binary.shape)
        shape = (*row.shape[:-1], len(layout.cardinalities))
        codes = jnp.zeros(shape, jnp.int32)
        codes = codes.at[..., at(layout.binary)].set(blocks.binary > level)
        for i, (leaf, (_, places)) in enumerate(zip(blocks.groups, layout.groups)):
            if not mode:
                noise = jax.random.gumbel(jax.random.fold_in(keys[1], i), leaf.shape)
                leaf = noise + jnp.log(jnp.clip(leaf, 1e-12, 1.0))
            codes = codes.at[..., at(places)].set(jnp.argmax(leaf, -1))
        return numeric, codes, jnp.clip(blocks.sums, 0.0, 1.0)

    numeric, codes, sums = jax.vmap(one)(keys, matrix)
    label = jnp.asarray(label, jnp.int32)
    return Batch(label, jnp.zeros_like(label), numeric, codes, sums)


def log_likelihood(
    layout: Layout, outputs: jax.Array, sigma: jax.Array, batch: Batch
) -> jax.Array:
    """log p [..] of a batch: the sum over its columns.

    Normal numbers with mean `outputs` and deviation `sigma` [P], Bernoulli and
    categorical codes, and of each sum over time L Bernoulli steps with one chance: the
    binomial likelihood of the count, less the constant log of the ways to place it.
    """
    heads, codes = split(layout, outputs), jnp.asarray(batch.codes)
    total = normal(heads.numeric, sigma, batch.numeric).sum(-1)
    total += bernoulli(heads.binary, codes[..., at(layout.binary)] == 1).sum(-1)
    for logits, (_, places) in zip(heads.groups, layout.groups, strict=True):
        total += categorical(logits, codes[..., at(places)]).sum(-1)
    if layout.sums:
        share = jnp.asarray(batch.sums)
        each = share * jax.nn.log_sigmoid(heads.sums)
        each += (1.0 - share) * jax.nn.log_sigmoid(-heads.sums)
        total += jnp.asarray(batch.length) * each.sum(-1)
    return total


def start_bias(layout: Layout, fitted: dict[str, Any]) -> np.ndarray:
    """Outputs [width] that say the marginals of training; numbers 0."""
    chance = np.asarray(fitted["frequency"], np.float64)
    sums = np.clip(np.asarray(fitted["sums"], np.float64), 1e-4, 1.0 - 1e-4)
    binary = chance[at(layout.binary)]
    pieces = [
        np.zeros(layout.numbers),
        np.log(sums / (1.0 - sums)),
        np.log(binary[:, 1] / binary[:, 0]) if layout.binary else np.zeros(0),
        *(np.log(chance[at(places), :k]).ravel() for k, places in layout.groups),
    ]
    return np.concatenate(pieces).astype(np.float32)
