"""Bits, each from the bits before it: HALO's masked linear layers, and exact draws.

u = [history; bits] goes through two layers in which output i sees inputs up to i,

    a = relu(tril(W_1) u + b_1),    o = tril(W_2) a + b_2,    logit_v = o_{E-1+v}

so that logit_v sees the history and the bits before v [halo2023].

Notation: E history, V bits, N = E + V, B rows. Kernels are [inputs, outputs] here, and
tril becomes triu.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

CHUNK = 64  # bits drawn one by one between two products of matrices


class MaskedLayers(nn.Module):
    """history [.., E], bits [.., V] -> logits [.., V]."""

    @nn.compact
    def __call__(self, history: jax.Array, bits: jax.Array) -> jax.Array:
        width, size = history.shape[-1], history.shape[-1] + bits.shape[-1]
        bound = size**-0.5  # torch's for a dense layer

        def init(key: jax.Array, shape: Any) -> jax.Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        weight = lambda name: jnp.triu(self.param(name, init, (size, size)))
        bias = lambda name: self.param(name, init, (size,))
        u = jnp.concatenate([history, bits], -1)
        a = nn.relu(u @ weight("kernel_1") + bias("bias_1"))
        o = a @ weight("kernel_2") + bias("bias_2")
        return o[..., width - 1 : -1]


class Rules(NamedTuple):
    """Which values the bits of a range may take; each Bool [bits].

    Of the bits of one column at most one is 1.
    """

    first: Any  # the first bit of its column
    allowed: Any  # may be 1
    must: Any  # is 1 unless an earlier bit of its column is


class Products(NamedTuple):
    """The weights of a range of R bits, with the bits before it 0, ready for draws."""

    history_1: jax.Array  # [E, R] to the hidden units of the range
    bits_1: jax.Array  # [R, R], from bit w to hidden unit v > w
    hidden_2: jax.Array  # [R, R], from hidden unit w to logit v >= w
    own: tuple[jax.Array, jax.Array]  # [E, F], [F]: history to earlier hidden units
    own_2: jax.Array  # [F, R], from those to the logits
    bias_1: jax.Array  # [R]
    bias_2: jax.Array  # [R]


def products(params: Any, width: int, low: int, high: int) -> Products:
    """The weights that draw bits low ... high - 1, after a history [E = width]."""
    first, second = jnp.triu(params["kernel_1"]), jnp.triu(params["kernel_2"])
    before, here = slice(0, width - 1 + low), slice(width - 1 + low, width - 1 + high)
    return Products(
        first[:width, here],
        first[width + low : width + high, here],
        second[here, here],
        (first[:width, before], params["bias_1"][before]),
        second[before, here],
        params["bias_1"][here],
        params["bias_2"][here],
    )


def draw_bits(
    weights: Products, history: jax.Array, level: jax.Array, rules: Rules
) -> tuple[jax.Array, jax.Array]:
    """Bits [B, R], float32, drawn one after the other, and their logits [B, R].

    Bit v is 1 if level_v < sigmoid(logit_v), where the rules leave a choice. The bits
    are exact draws of `MaskedLayers`: hidden unit v takes in bits before v, and logit v
    hidden units up to v. Both sums over earlier chunks are products of matrices, made
    once a chunk; those inside a chunk grow bit by bit. The work is that of two passes
    through the layers, where a pass for every bit that is 1 is the published way.

    Args:
      level: [B, R] in [0, 1).
    """
    kernel, bias = weights.own
    earlier = nn.relu(history @ kernel + bias)
    pre = history @ weights.history_1 + weights.bias_1  # [B, R] of hidden units
    out = earlier @ weights.own_2 + weights.bias_2
    rows, size = pre.shape
    if not size:
        return out, out
    pad = -size % CHUNK
    wide = lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)])
    square = lambda x: jnp.pad(x, [(0, pad), (0, pad)])
    bits_1, hidden_2 = square(weights.bits_1), square(weights.hidden_2)
    pre, out, level = wide(pre), wide(out), wide(level)
    flags = [wide(jnp.asarray(flag, bool)) for flag in rules]
    zeros, free = jnp.zeros((rows, size + pad)), jnp.zeros(rows, bool)

    def chunk(carry: Any, start: jax.Array) -> tuple[Any, None]:
        bits, hidden, logits, taken = carry
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, CHUNK, axis=-1)
        put = lambda x, part: jax.lax.dynamic_update_slice_in_dim(x, part, start, -1)
        column_1, column_2 = cut(bits_1), cut(hidden_2)
        square_1, square_2 = (
            jax.lax.dynamic_slice_in_dim(x, start, CHUNK) for x in (column_1, column_2)
        )
        state = (cut(pre) + bits @ column_1, cut(out) + hidden @ column_2, taken)
        inside = (square_1, square_2, cut(level).T, *map(cut, flags), jnp.arange(CHUNK))
        (_, _, taken), found = jax.lax.scan(one_bit, state, inside)
        new = [put(x, part.T) for x, part in zip((bits, hidden, logits), found)]
        return (*new, taken), None

    starts = jnp.arange(0, size + pad, CHUNK)
    (bits, _, logits, _), _ = jax.lax.scan(chunk, (zeros, zeros, zeros, free), starts)
    return bits[:, :size], logits[:, :size]


def one_bit(state: Any, ahead: Any) -> tuple[Any, Any]:
    """Draws one bit of a chunk; adds what it and its hidden unit say to the later ones.

    Returns:
      The state, and bit, hidden unit and logit, each [B].
    """
    pre, out, taken = state
    row_1, row_2, level, first, allowed, must, place = ahead
    pick = lambda x: jax.lax.dynamic_index_in_dim(x, place, axis=1, keepdims=False)
    hidden = nn.relu(pick(pre))
    out = out + hidden[:, None] * row_2
    logit = pick(out)
    taken = taken & ~first
    bit = ~taken & (must | (allowed & (level < nn.sigmoid(logit))))
    pre = pre + bit[:, None] * row_1
    return (pre, out, taken | bit), (bit.astype(out.dtype), hidden, logit)


def open_bits(codes: Any, owner: np.ndarray, state: np.ndarray, must: Any) -> Any:
    """Bool [.., V]: bits that are a choice, given the codes [.., D] of their columns.

    A bit is none once an earlier state of its column is active, nor where one of the
    states has to be and this is the last.

    Args:
      owner, state: Int [V], column and state (1, 2, ...) of a bit; code 0 = no state.
      must: Bool [V], see `Rules`.
    """
    code = jnp.asarray(codes)[..., owner]
    return ((code == 0) | (jnp.asarray(state) <= code)) & ~jnp.asarray(must, bool)
