"""The bidirectional GRU of the denoiser [cdmt2026, Sec. 4.4], fast on CPU.

Gates follow torch and cuDNN: with r = sigmoid(W_ir x + b_r + W_hr h), z likewise,

    n = tanh(W_in x + b_in + r * (W_hn h + b_hn)),    h' = (1 - z) n + z h.

Axis letters: B rows, T steps, C channels, H hidden. Inside, arrays are time-major.
Columns of the weights are ordered r, z, n. From torch (`weight_ih` [3H, C], ...):

    w_input  = weight_ih.T                        w_hidden    = weight_hh.T
    b_input  = bias_ih + [bias_hh r, z, zero]     b_candidate = bias_hh n

for torch's two biases of r and z only ever occur as their sum.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxehr.core.checks import known

Form = Literal["blocked", "plain"]


class Weights(NamedTuple):
    """One direction of one layer."""

    w_input: jax.Array  # [C, 3H]
    b_input: jax.Array  # [3H]
    w_hidden: jax.Array  # [H, 3H]
    b_candidate: jax.Array  # [H]


def gates(from_input: Any, from_hidden: Any, b_candidate: Any) -> tuple[Any, ...]:
    """r, z, n and the candidate's hidden part, from [B, 3H] pre-activations."""
    input_r, input_z, input_n = jnp.split(from_input, 3, axis=-1)
    hidden_r, hidden_z, hidden_n = jnp.split(from_hidden, 3, axis=-1)
    r = nn.sigmoid(input_r + hidden_r)
    z = nn.sigmoid(input_z + hidden_z)
    hidden_n = hidden_n + b_candidate
    return r, z, jnp.tanh(input_n + r * hidden_n), hidden_n


def cell(from_input: Any, from_hidden: Any, b_candidate: Any, h: Any) -> Any:
    """The element-wise part of one step: h' [B, H]."""
    _, z, n, _ = gates(from_input, from_hidden, b_candidate)
    return n + z * (h - n)


@jax.custom_vjp
def fast_cell(from_input: Any, from_hidden: Any, b_candidate: Any, h: Any) -> Any:
    """`cell` with its backward pass by hand, which saves 5 arrays [B, H] a step."""
    return cell(from_input, from_hidden, b_candidate, h)


def _fast_cell_forward(
    from_input: Any, from_hidden: Any, b_candidate: Any, h: Any
) -> tuple[Any, tuple[Any, ...]]:
    r, z, n, hidden_n = gates(from_input, from_hidden, b_candidate)
    return n + z * (h - n), (r, z, n, hidden_n, h)


def _fast_cell_backward(saved: tuple[Any, ...], d_next: Any) -> tuple[Any, ...]:
    r, z, n, hidden_n, h = saved
    d_n = d_next * (1 - z) * (1 - n * n)
    d_z = d_next * (h - n) * z * (1 - z)
    d_r = d_n * hidden_n * r * (1 - r)
    d_hidden_n = d_n * r
    d_input = jnp.concatenate([d_r, d_z, d_n], axis=-1)
    d_hidden = jnp.concatenate([d_r, d_z, d_hidden_n], axis=-1)
    return d_input, d_hidden, d_hidden_n.sum(0), d_next * z


fast_cell.defvjp(_fast_cell_forward, _fast_cell_backward)


def run_direction(
    weights: Weights,
    x: jax.Array,
    valid: jax.Array | None,
    *,
    reverse: bool,
    form: Form = "blocked",
) -> jax.Array:
    """States [T, B, H] of one direction from h = 0.

    Args:
      x: [T, B, C], finite everywhere.
      valid: Bool [T, B]; the state stays 0 where False; None = all True.
      reverse: from the last step to the first.
      form: `blocked` or `plain`; same values, different cost.
    """
    step_cell = fast_cell if form == "blocked" else cell

    def step(h: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
        x_t, valid_t = inputs
        # The projection stays in the loop: hoisted to one product over all steps, it
        # writes T x B x 3H floats and reads them back, and the loop is bound by memory.
        from_input = x_t @ weights.w_input + weights.b_input
        from_hidden = h @ weights.w_hidden
        h = step_cell(from_input, from_hidden, weights.b_candidate, h)
        if valid_t is not None:
            h = jnp.where(valid_t[:, None], h, 0.0)
        return h, h

    start = jnp.zeros((x.shape[1], weights.w_hidden.shape[0]), x.dtype)
    return lax.scan(step, start, (x, valid), reverse=reverse)[1]


def _uniform(hidden: int) -> nn.initializers.Initializer:
    """torch's U(-1/sqrt(H), 1/sqrt(H)), for weights and biases alike."""
    bound = hidden**-0.5

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Direction(nn.Module):
    """The weights of one direction."""

    hidden: int

    @nn.compact
    def __call__(self, channels: int) -> Weights:
        init, hidden = _uniform(self.hidden), self.hidden
        return Weights(
            self.param("w_input", init, (channels, 3 * hidden)),
            self.param("b_input", init, (3 * hidden,)),
            self.param("w_hidden", init, (hidden, 3 * hidden)),
            self.param("b_candidate", init, (hidden,)),
        )


class BiLayer(nn.Module):
    """Both directions side by side: [T, B, C] -> [T, B, 2H]."""

    hidden: int
    form: Form = "blocked"

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        ahead = Direction(self.hidden, name="forward")(x.shape[-1])
        back = Direction(self.hidden, name="backward")(x.shape[-1])
        # Forward in time, padding comes after every valid step: it needs no mask.
        states = [
            run_direction(ahead, x, None, reverse=False, form=self.form),
            run_direction(back, x, valid, reverse=True, form=self.form),
        ]
        return jnp.concatenate(states, axis=-1)


class BiGru(nn.Module):
    """A stack of bidirectional GRU layers: x [B, T, C] -> h [B, T, 2H], float32.

    Layer k > 0 takes both directions of layer k - 1. The backward direction of a row
    starts at its last valid step with h = 0; outputs at padding are exactly 0, and what
    `x` holds there, NaN included, reaches neither a valid step nor a gradient.

    Attributes:
      hidden: H, the width of one direction.
      form: `blocked` is the fast form (its backward pass is written by hand; call it
        with at most about 128 rows on CPU, so that a whole chunk stays in the cache);
        `plain` is the reference by automatic differentiation. The results agree within
        float32 rounding.
    """

    hidden: int = 64
    num_layers: int = 3
    form: Form = "blocked"

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Runs the stack; `length` Int [B] counts valid steps, None = all are full."""
        known("form of the GRU", self.form, ("blocked", "plain"))
        h = jnp.swapaxes(x, 0, 1).astype(jnp.float32)  # [T, B, C]
        valid = None
        if length is not None:
            valid = jnp.arange(h.shape[0])[:, None] < length[None, :]  # [T, B]
            h = jnp.where(valid[..., None], h, 0.0)
        for layer in range(self.num_layers):
            h = BiLayer(self.hidden, self.form, name=f"layer_{layer}")(h, valid)
        if valid is not None:
            h = jnp.where(valid[..., None], h, 0.0)
        return jnp.swapaxes(h, 0, 1)
