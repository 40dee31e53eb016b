"""Codes as points on a sphere: embedding, score interpolation, decoding.

D features, K the largest cardinality, d the embedding size. Tables are padded: entry
[j, k] exists where k < cardinalities[j] (`valid_codes`), and padded logits are -1e9
elsewhere, so that their probability is exactly 0. Sources: [cdmt2026, Eq. 5, 9, 10],
[mueller2025].

Looking a code up is a gather, nearly free on CPU; its gradient is written as a product
with one-hot codes, since a scatter sums in another order on every run of a GPU. The
products state their precision, or a GPU or TPU would round embeddings to 10 or 8 bits.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_PAD = -1e9
_EXACT = jax.lax.Precision.HIGHEST


def valid_codes(cardinalities: tuple[int, ...]) -> np.ndarray:
    """Bool [D, K]: True where feature j has a code k."""
    widest = max(cardinalities, default=0)
    return np.arange(widest) < np.asarray(cardinalities, int)[:, None]


def init_table(
    key: jax.Array, cardinalities: tuple[int, ...], dim: int, *, scale: float = 0.001
) -> jax.Array:
    """Normal(0, scale^2) table [D, K, d], 0 at padding; a random direction per code."""
    valid = valid_codes(cardinalities)
    noise = jax.random.normal(key, (*valid.shape, dim))
    return jnp.where(jnp.asarray(valid)[..., None], scale * noise, 0.0)


def normalise(table: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Embeddings e = sqrt(d) v / |v| [D, K, d], RMS 1 a coordinate [cdmt2026, Eq. 5].

    A row v = 0 (padding) gives 0 with gradient 0.

    Args:
      table: [D, K, d].
      bias: [D, d], added to every row of its feature first [mueller2025].
    """
    rows = table if bias is None else table + bias[:, None, :]
    square = jnp.sum(rows**2, axis=-1, keepdims=True)
    # The inner `where` keeps 1 / 0 out of the gradient.
    inverse = jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
    return math.sqrt(table.shape[-1]) * jnp.where(square > 0, rows * inverse, 0.0)


@jax.custom_vjp
def embed(e: jax.Array, codes: jax.Array) -> jax.Array:
    """The embeddings [..., D, d] of `codes` [..., D], from `e` [D, K, d]."""
    return e[jnp.arange(e.shape[0]), codes]


def _embed_forward(e: jax.Array, codes: jax.Array) -> Any:
    return embed(e, codes), (e, codes)


def _embed_backward(saved: Any, cotangent: jax.Array) -> Any:
    e, codes = saved
    chosen = jax.nn.one_hot(codes, e.shape[1], dtype=e.dtype)
    return jnp.einsum("...dk,...dh->dkh", chosen, cotangent, precision=_EXACT), None


embed.defvjp(_embed_forward, _embed_backward)


def expected(e: jax.Array, logits: jax.Array) -> jax.Array:
    """Score interpolation: sum_k p_k e_k [..., D, d], p = softmax [cdmt2026, Eq. 10].

    Args:
      e: [D, K, d]; logits: padded [..., D, K].
    """
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.einsum("...dk,dkh->...dh", weights, e, precision=_EXACT)


def nearest(e: jax.Array, valid: jax.Array | np.ndarray, z: jax.Array) -> jax.Array:
    """Codes [..., D] whose embeddings are nearest to z [..., D, d].

    Args:
      e: [D, K, d]; valid: Bool [D, K] from `valid_codes`.
    """
    # |z - e|^2 without |z|^2, which is the same for every code.
    products = jnp.einsum("...dh,dkh->...dk", z, e, precision=_EXACT)
    distances = jnp.sum(e**2, axis=-1) - 2.0 * products
    return jnp.argmin(jnp.where(jnp.asarray(valid), distances, jnp.inf), axis=-1)


def pad_logits(flat: jax.Array, cardinalities: tuple[int, ...]) -> jax.Array:
    """Logits side by side [..., sum K_j] as [..., D, K], -1e9 at padding.

    Runs of features with one cardinality are reshaped together: only slices and
    concatenations, whose gradients are cheap.

    Raises:
      ValueError: the width of `flat` is not the sum of the cardinalities.
    """
    if flat.shape[-1] != sum(cardinalities):
        raise ValueError(
            f"logits have width {flat.shape[-1]}, the cardinalities sum to "
            f"{sum(cardinalities)}."
        )
    widest, lead = max(cardinalities, default=0), flat.shape[:-1]
    blocks, place = [jnp.zeros((*lead, 0, widest), flat.dtype)], 0
    for width, group in itertools.groupby(cardinalities):
        count = len(list(group))
        block = flat[..., place : place + count * width]
        block = block.reshape(*lead, count, width)
        unused = [(0, 0)] * (len(lead) + 1) + [(0, widest - width)]
        blocks.append(jnp.pad(block, unused, constant_values=_PAD))
        place += count * width
    return jnp.concatenate(blocks, axis=-2)


def cross_entropy(logits: jax.Array, codes: jax.Array) -> jax.Array:
    """-log p_code [..., D] in nats; padded logits [..., D, K] [cdmt2026, Eq. 9]."""
    chosen = jax.nn.one_hot(codes, logits.shape[-1], dtype=bool)
    logs = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.where(chosen, logs, 0.0), axis=-1)
