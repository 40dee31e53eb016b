"""The bidirectional GRU of the denoiser [cdmt2026, Sec. 4.4], fast on CPU.

Gates follow torch and cuDNN: with r = sigmoid(W_ir x + b_r + W_hr h), z likewise,

    n = tanh(W_in x + b_in + r * (W_hn h + b_hn)),    h' = (1 - z) n + z h.

Axis letters: B rows, T steps, C channels, H hidden. Inside, arrays are time-major.
Columns of the weights are ordered r, z, n. From torch (`weight_ih` [3H, C], ...):

    w_input  = weight_ih.T                        w_hidden    = weight_hh.T
    b_input  = bias_ih + [bias_hh r, z, zero]     b_candidate = bias_hh n

for torch's two biases of r and z only ever occur as their sum.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxehr.core.checks import known, positive
from jaxehr.nn.gru_kernel import has_kernel, kernel_states

Form = Literal["auto", "blocked", "recomputed", "plain", "kernel"]
Products = Literal["float32", "bfloat16"]


class Weights(NamedTuple):
    """One direction of one layer."""

    w_input: jax.Array  # [C, 3H]
    b_input: jax.Array  # [3H]
    w_hidden: jax.Array  # [H, 3H]
    b_candidate: jax.Array  # [H]


class How(NamedTuple):
    """How a direction is computed.

    Attributes:
      dtype: of the factors of the products; sums and states are float32.
      unroll: steps in one turn of the loop.
      recompute: the backward pass makes the gates again instead of keeping them.
    """

    dtype: Any = jnp.float32
    unroll: int = 1
    recompute: bool = False


USUAL = How()


def gates(from_input: Any, from_hidden: Any, b_candidate: Any) -> tuple[Any, ...]:
    """r, z, n and the candidate's hidden part, from [B, 3H] pre-activations."""
    input_r, input_z, input_n = jnp.split(from_input, 3, axis=-1)
    hidden_r, hidden_z, hidden_n = jnp.split(from_hidden, 3, axis=-1)
    r = nn.sigmoid(input_r + hidden_r)
    z = nn.sigmoid(input_z + hidden_z)
    hidden_n = hidden_n + b_candidate
    return r, z, jnp.tanh(input_n + r * hidden_n), hidden_n


def _dot(left: jax.Array, right: jax.Array, dtype: Any) -> jax.Array:
    """A product whose factors are rounded to `dtype`, summed in float32."""
    if dtype == jnp.float32:
        return left @ right
    factors = left.astype(dtype), right.astype(dtype)
    return jnp.dot(*factors, preferred_element_type=jnp.float32)


def _step(
    weights: Weights, h: Any, x: Any, valid: Any, dtype: Any
) -> tuple[Any, tuple[Any, ...]]:
    """h' [B, H] of one step, and the r, z, n, hidden part of n behind it."""
    # The projection stays in the loop: hoisted to one product over all steps, it
    # writes T x B x 3H floats and reads them back, and the loop is bound by memory.
    from_input = _dot(x, weights.w_input, dtype) + weights.b_input
    from_hidden = _dot(h, weights.w_hidden, dtype)
    r, z, n, hidden_n = gates(from_input, from_hidden, weights.b_candidate)
    h = n + z * (h - n)
    if valid is not None:
        h = jnp.where(valid[:, None], h, 0.0)
    return h, (r, z, n, hidden_n)


def _start(weights: Weights, x: jax.Array) -> jax.Array:
    """h = 0 [B, H]."""
    return jnp.zeros((x.shape[1], weights.w_hidden.shape[0]), x.dtype)


def plain_direction(
    weights: Weights,
    x: jax.Array,
    length: jax.Array | None,
    reverse: bool,
    how: How = USUAL,
) -> jax.Array:
    """States [T, B, H] of one direction from h = 0; the readable reference.

    Args:
      x: [T, B, C], finite everywhere.
      length: Int [B], None = all are full. Backwards the state is 0 behind it; ahead
        padding comes after every valid step and needs no mask.
      reverse: from the last step to the first.
    """

    def step(h: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
        x, valid = inputs
        h, _ = _step(weights, h, x, valid, how.dtype)
        return h, h

    options = {"reverse": reverse, "unroll": how.unroll}
    inputs = x, _valid(len(x), length, reverse)
    return lax.scan(step, _start(weights, x), inputs, **options)[1]


def _valid(steps: int, length: jax.Array | None, reverse: bool) -> jax.Array | None:
    """Bool [T, B]: the steps before the end, where a direction has to know them."""
    if length is None or not reverse:
        return None
    return jnp.arange(steps)[:, None] < length


def _over_time(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    inputs: Any,
    length: jax.Array | None,
    reverse: bool,
    unroll: int,
) -> tuple[Any, Any]:
    """`lax.scan` that skips the steps behind the longest record, on a CPU, and keeps
    zeros there.

    A condition inside, not a loop that ends: of several trainings side by side (`vmap`)
    a loop of their own lengths would choose between whole arrays at every step.
    """
    options = {"reverse": reverse, "unroll": unroll}
    # An accelerator takes thousands of records at once, one of which is long, and its
    # host would have to be asked at every step.
    if length is None or jax.default_backend() != "cpu":
        return lax.scan(step, carry, inputs, **options)
    longest = length.max()

    def skip(carry: Any, inputs: Any) -> tuple[Any, Any]:
        kept = jax.eval_shape(step, carry, inputs)[1]
        return carry, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), kept)

    def body(carry: Any, now: tuple[jax.Array, Any]) -> tuple[Any, Any]:
        t, inputs = now
        return lax.cond(t < longest, step, skip, carry, inputs)

    steps = jnp.arange(len(jax.tree.leaves(inputs)[0]))
    return lax.scan(body, carry, (steps, inputs), **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def blocked_direction(
    weights: Weights,
    x: jax.Array,
    length: jax.Array | None,
    reverse: bool,
    how: How = USUAL,
) -> jax.Array:
    """`plain_direction` with its backward pass by hand.

    The forward pass keeps the states and, unless they are made again, four arrays
    [B, H] a step; the backward pass adds up the weights' gradients inside one loop, so
    that everything it touches stays in cache. On a CPU both end with the longest
    record, and states behind it are 0.
    """
    how = how._replace(recompute=True)  # nothing but the states
    return _blocked_forward(weights, x, length, reverse, how)[0]


def _blocked_forward(
    weights: Weights,
    x: jax.Array,
    length: jax.Array | None,
    reverse: bool,
    how: How,
) -> tuple[jax.Array, tuple]:
    def step(h: jax.Array, inputs: tuple) -> tuple[jax.Array, tuple]:
        x, valid = inputs
        h, parts = _step(weights, h, x, valid, how.dtype)
        return h, (h, () if how.recompute else parts)

    inputs = x, _valid(len(x), length, reverse)
    start = _start(weights, x)
    states, kept = _over_time(step, start, inputs, length, reverse, how.unroll)[1]
    return states, (weights, x, length, states, kept)


def _blocked_backward(
    reverse: bool, how: How, saved: tuple, d_states: jax.Array
) -> tuple[Weights, jax.Array, None]:
    (weights, x, length, states, parts), dtype = saved, how.dtype
    zero = jnp.zeros_like(states[:1])
    before = [states[1:], zero] if reverse else [zero, states[:-1]]
    # Turned once; without the barrier XLA turns them again at every step, which costs
    # bfloat16 more than the product. Gradients of weights sum over rows, so that their
    # left factor would be turned at every step: these products stay float32.
    turned = weights.w_input.T, weights.w_hidden.T
    back_input, back_hidden = lax.optimization_barrier(
        tuple(w.astype(dtype) for w in turned)
    )

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        d_h, total = carry
        d_state, x_t, valid_t, (*kept, h) = inputs
        r, z, n, hidden_n = kept or _step(weights, h, x_t, None, dtype)[1]
        d_h = d_h + d_state
        if valid_t is not None:
            d_h = jnp.where(valid_t[:, None], d_h, 0.0)
        d_n = d_h * (1 - z) * (1 - n * n)
        d_z = d_h * (h - n) * z * (1 - z)
        d_r = d_n * hidden_n * r * (1 - r)
        d_hidden_n = d_n * r
        d_input = jnp.concatenate([d_r, d_z, d_n], axis=-1)
        d_hidden = jnp.concatenate([d_r, d_z, d_hidden_n], axis=-1)
        total = Weights(
            total.w_input + x_t.T @ d_input,
            total.b_input + d_input.sum(0),
            total.w_hidden + h.T @ d_hidden,
            total.b_candidate + d_hidden_n.sum(0),
        )
        d_h = d_h * z + _dot(d_hidden, back_hidden, dtype)
        return (d_h, total), _dot(d_input, back_input, dtype)

    start = (_start(weights, x), jax.tree.map(jnp.zeros_like, weights))
    valid = _valid(len(x), length, reverse)
    inputs = (d_states, x, valid, (*parts, jnp.concatenate(before)))
    (_, d_weights), d_x = _over_time(
        step, start, inputs, length, not reverse, how.unroll
    )
    return d_weights, d_x, None


blocked_direction.defvjp(_blocked_forward, _blocked_backward)


def layer(
    pair: tuple[Weights, Weights],
    x: jax.Array,
    length: jax.Array | None,
    form: Form = "auto",
    how: How = USUAL,
) -> jax.Array:
    """States [T, B, 2H] of both directions, forward first; zero beyond `length` [B].

    Of the other forms than `kernel` that is so backwards only, see `plain_direction`.
    """
    if form == "auto":
        form = "kernel" if has_kernel(pair[0].w_hidden.shape[0]) else "blocked"
    if form == "kernel":
        both: Weights = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
        return kernel_states(x, *both, length, how.dtype)
    run: Any = plain_direction if form == "plain" else blocked_direction
    how, (ahead, back) = how._replace(recompute=form == "recomputed"), pair
    states = [run(ahead, x, length, False, how), run(back, x, length, True, how)]
    return jnp.concatenate(states, axis=-1)


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
    form: Form = "auto"
    how: How = How()

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None) -> jax.Array:
        ahead = Direction(self.hidden, name="forward")(x.shape[-1])
        back = Direction(self.hidden, name="backward")(x.shape[-1])
        return layer((ahead, back), x, length, self.form, self.how)


class BiGru(nn.Module):
    """A stack of bidirectional GRU layers: x [B, T, C] -> h [B, T, 2H], float32.

    Layer k > 0 takes both directions of layer k - 1. The backward direction of a row
    starts at its last valid step with h = 0; outputs at padding are exactly 0, and what
    `x` holds there, NaN included, reaches neither a valid step nor a gradient.

    Attributes:
      hidden: H, the width of one direction.
      form: `auto` is `kernel` on a GPU (with a JAX whose Pallas has Triton, at most 64
        units, of NVIDIA since Ampere) and `blocked` elsewhere. `kernel` runs the loop
        over time inside one GPU kernel (elsewhere it is interpreted, slowly);
        `blocked` has a backward pass written by hand (call it with at most about 128
        rows on CPU, so that a whole chunk stays in the cache); `recomputed` is the same
        with gates that are made again in the backward pass: a fifth of the memory
        between both passes for a third more work, where a wide network or a long record
        does not fit; `plain` is the reference by automatic differentiation. The results
        agree within rounding.
      products: `bfloat16` rounds the factors of every product (not sums, states and
        gates): values within 1e-2, and faster where the processor multiplies them
        itself (AMX, GPUs, TPUs; README, "Speed"); slower elsewhere.
      unroll: steps in one turn of the loop over time, of all forms but `kernel`.
    """

    hidden: int = 64
    num_layers: int = 3
    form: Form = "auto"
    products: Products = "float32"
    unroll: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Runs the stack; `length` Int [B] counts valid steps, None = all are full."""
        known("form of the GRU", self.form, get_args(Form))
        known("products of the GRU", self.products, get_args(Products))
        positive(unroll=self.unroll)
        how = How(jnp.dtype(self.products), self.unroll)
        h = jnp.swapaxes(x, 0, 1).astype(jnp.float32)  # [T, B, C]
        valid = None
        if length is not None:
            valid = jnp.arange(h.shape[0])[:, None] < length[None, :]  # [T, B]
            h = jnp.where(valid[..., None], h, 0.0)
        for depth in range(self.num_layers):
            name = f"layer_{depth}"
            h = BiLayer(self.hidden, self.form, how, name=name)(h, length)
        if valid is not None:
            h = jnp.where(valid[..., None], h, 0.0)
        return jnp.swapaxes(h, 0, 1)
