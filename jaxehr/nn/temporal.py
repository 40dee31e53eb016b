"""Sequence layers of the classifiers: LSTM and one-dimensional convolution.

The LSTM has torch's gates, in the order i, f, g, o:

    c' = sigmoid(f) c + sigmoid(i) tanh(g),    h' = sigmoid(o) tanh(c'),

each a column block of x W_input + h W_hidden + b. torch's two biases occur only as
their sum. Axis letters: B rows, T steps, C channels, H hidden; inside, time-major.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


class LstmWeights(NamedTuple):
    """One direction."""

    w_input: jax.Array  # [C, 4H]
    w_hidden: jax.Array  # [H, 4H]
    bias: jax.Array  # [4H]


def _step(
    weights: LstmWeights, carry: tuple, x: Any, valid: Any
) -> tuple[tuple, tuple[Any, ...]]:
    """(h', c') [B, H] of one step; i, f, g, o, tanh(c') behind them."""
    h, c = carry
    parts = x @ weights.w_input + h @ weights.w_hidden + weights.bias
    i, f, g, o = jnp.split(parts, 4, axis=-1)
    i, f, g, o = nn.sigmoid(i), nn.sigmoid(f), jnp.tanh(g), nn.sigmoid(o)
    c = f * c + i * g
    tanh_c = jnp.tanh(c)
    h = o * tanh_c
    if valid is not None:
        h = jnp.where(valid[:, None], h, 0.0)
        c = jnp.where(valid[:, None], c, 0.0)
    return (h, c), (i, f, g, o, tanh_c)


def _start(weights: LstmWeights, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """h = c = 0 [B, H]."""
    zero = jnp.zeros((x.shape[1], weights.w_hidden.shape[0]), x.dtype)
    return zero, zero


def plain_lstm(
    weights: LstmWeights, x: jax.Array, valid: jax.Array | None, reverse: bool
) -> jax.Array:
    """States h [T, B, H] of one direction from zero; the readable reference.

    Args:
      x: [T, B, C], finite everywhere.
      valid: Bool [T, B]; the state stays 0 where False; None = all True.
      reverse: from the last step to the first.
    """

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        carry, _ = _step(weights, carry, *inputs)
        return carry, carry[0]

    return lax.scan(step, _start(weights, x), (x, valid), reverse=reverse)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def blocked_lstm(
    weights: LstmWeights, x: jax.Array, valid: jax.Array | None, reverse: bool
) -> jax.Array:
    """`plain_lstm` with its backward pass by hand, in one loop like that of the GRU."""
    return plain_lstm(weights, x, valid, reverse)


def _blocked_forward(
    weights: LstmWeights, x: jax.Array, valid: jax.Array | None, reverse: bool
) -> tuple[jax.Array, tuple]:
    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        after, parts = _step(weights, carry, *inputs)
        return after, (after[0], (*parts, *carry))

    states, parts = lax.scan(step, _start(weights, x), (x, valid), reverse=reverse)[1]
    return states, (weights, x, valid, parts)


def _blocked_backward(
    reverse: bool, saved: tuple, d_states: jax.Array
) -> tuple[LstmWeights, jax.Array, None]:
    weights, x, valid, parts = saved

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        d_h, d_c, total = carry
        d_state, x_t, valid_t, (i, f, g, o, tanh_c, h, c) = inputs
        d_h = d_h + d_state
        if valid_t is not None:
            d_h = jnp.where(valid_t[:, None], d_h, 0.0)
            d_c = jnp.where(valid_t[:, None], d_c, 0.0)
        d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
        d_parts = jnp.concatenate(
            [
                d_c * g * i * (1 - i),
                d_c * c * f * (1 - f),
                d_c * i * (1 - g * g),
                d_h * tanh_c * o * (1 - o),
            ],
            axis=-1,
        )
        total = LstmWeights(
            total.w_input + x_t.T @ d_parts,
            total.w_hidden + h.T @ d_parts,
            total.bias + d_parts.sum(0),
        )
        after = (d_parts @ weights.w_hidden.T, d_c * f, total)
        return after, d_parts @ weights.w_input.T

    start = (*_start(weights, x), jax.tree.map(jnp.zeros_like, weights))
    inputs = (d_states, x, valid, parts)
    (_, _, d_weights), d_x = lax.scan(step, start, inputs, reverse=not reverse)
    return d_weights, d_x, None


blocked_lstm.defvjp(_blocked_forward, _blocked_backward)


class LstmDirection(nn.Module):
    """The weights of one direction, U(-1/sqrt(H), 1/sqrt(H)) as in torch."""

    hidden: int

    @nn.compact
    def __call__(self, channels: int) -> LstmWeights:
        bound, wide = self.hidden**-0.5, 4 * self.hidden
        init = lambda key, shape: jax.random.uniform(
            key, shape, jnp.float32, -bound, bound
        )
        return LstmWeights(
            self.param("w_input", init, (channels, wide)),
            self.param("w_hidden", init, (self.hidden, wide)),
            self.param("bias", init, (wide,)),
        )


class Lstm(nn.Module):
    """One LSTM layer; two directions side by side with `bidirectional`.

    What `x` holds at padding, NaN included, reaches no valid step and no gradient.
    """

    hidden: int = 64
    bidirectional: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, length: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """x [B, T, C] -> all states [B, T, W], and the state each direction ends in.

        W is H, or 2H with both directions. `length` Int [B] counts the valid steps,
        None = all. States at padding are 0; a row of length 0 ends in 0. The second
        result [B, W] holds the forward state at the last valid step and the backward
        state at the first step.
        """
        h = jnp.swapaxes(x, 0, 1).astype(jnp.float32)  # [T, B, C]
        valid, last = None, jnp.full(h.shape[1], h.shape[0] - 1)
        if length is not None:
            valid = jnp.arange(h.shape[0])[:, None] < length[None, :]  # [T, B]
            last = jnp.maximum(length - 1, 0)
            h = jnp.where(valid[..., None], h, 0.0)
        ahead = LstmDirection(self.hidden, name="forward")(h.shape[-1])
        states: Any = blocked_lstm(ahead, h, valid, False)
        ends = [jnp.take_along_axis(states, last[None, :, None], axis=0)[0]]
        if self.bidirectional:
            back = LstmDirection(self.hidden, name="backward")(h.shape[-1])
            states_back: Any = blocked_lstm(back, h, valid, True)
            ends.append(states_back[0])
            states = jnp.concatenate([states, states_back], axis=-1)
        return jnp.swapaxes(states, 0, 1), jnp.concatenate(ends, axis=-1)


class Conv1d(nn.Module):
    """Convolution over time with zeros beyond the ends: [B, T, C] -> [B, T, F].

    Written as one matrix product over stacked shifts: under `vmap` over weights, a
    convolution turns into a grouped one, for which XLA has no fast CPU code.
    """

    features: int
    kernel_size: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        before = (self.kernel_size - 1) // 2
        after = self.kernel_size - 1 - before
        wide = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
        shifts = [wide[:, k : k + x.shape[1]] for k in range(self.kernel_size)]
        return nn.Dense(self.features, name="kernel")(jnp.concatenate(shifts, axis=-1))


class ConvStack(nn.Module):
    """Convolutions with ReLU: [B, T, C] -> [B, T, widths[-1]], zeros at padding."""

    widths: tuple[int, ...] = (64,)
    kernel_size: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None = None) -> jax.Array:
        valid = True
        if length is not None:
            valid = (jnp.arange(x.shape[1])[None, :] < length[:, None])[..., None]
        h = jnp.where(valid, x, 0.0)
        for layer, width in enumerate(self.widths):
            h = nn.relu(Conv1d(width, self.kernel_size, name=f"layer_{layer}")(h))
            h = jnp.where(valid, h, 0.0)
        return h
