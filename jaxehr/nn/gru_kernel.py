"""The recurrence of a GRU as one GPU kernel: the loop over time runs inside it.

A program of the kernel keeps the state of some rows and all recurrent weights on chip
from the first step to the last (64 hidden units: 48 KB in float32), so that the device's
memory is touched only for the projected inputs and the states. Backwards the gates are
computed again from the states: one more product a step is cheaper than four arrays
written and read. Gradients of the weights are large products over all steps, outside.

Written in Pallas for its Triton backend, which wants powers of two: H and B are padded,
and the three gates are three products of H x H. Elsewhere than on a GPU the kernel is
interpreted, which is slow and meant for tests.

Axis letters: B rows, T steps, H hidden; time-major; gates are ordered r, z, n.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

ROWS = 32  # of one program
LEAST = 16  # sides of a product on the tensor cores


def interpreted() -> bool:
    """Whether there is no GPU to compile for."""
    return jax.default_backend() != "gpu"


def kernel_states(
    from_input: jax.Array,
    w_hidden: jax.Array,
    b_candidate: jax.Array,
    valid: jax.Array | None,
    *,
    reverse: bool,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """States [T, B, H] of one direction from h = 0.

    Args:
      from_input: [T, B, 3H] float32, the projected inputs with their bias.
      w_hidden: [H, 3H].
      b_candidate: [H].
      valid: Bool [T, B]; the state stays 0 where False; None = all True.
      reverse: from the last step to the first.
      dtype: of the factors of the products; sums and states are float32.
    """
    steps, rows, width = from_input.shape
    hidden = width // 3
    wide = max(pl.next_power_of_2(hidden), LEAST)
    more = -rows % ROWS
    gates = from_input.reshape(steps, rows, 3, hidden).transpose(2, 0, 1, 3)
    gates = jnp.pad(gates, ((0, 0), (0, 0), (0, more), (0, wide - hidden)))
    weights = w_hidden.reshape(hidden, 3, hidden).swapaxes(0, 1)
    weights = jnp.pad(weights, ((0, 0), (0, wide - hidden), (0, wide - hidden)))
    bias = jnp.pad(b_candidate, (0, wide - hidden))
    if valid is None:
        valid = jnp.ones((steps, rows), bool)
    kept = jnp.pad(valid, ((0, 0), (0, more))).astype(jnp.float32)
    states = recurrence(gates, weights, bias, kept, reverse, dtype)
    return states[:, :rows, :hidden]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def recurrence(
    gates: jax.Array,
    weights: jax.Array,
    bias: jax.Array,
    kept: jax.Array,
    reverse: bool,
    dtype: Any,
) -> jax.Array:
    """States [T, B, H] of gates [3, T, B, H], weights [3, H, H], kept [T, B] 0 or 1."""
    _, steps, rows, hidden = gates.shape
    return pl.pallas_call(
        functools.partial(_forward_kernel, reverse=reverse, dtype=dtype),
        out_shape=jax.ShapeDtypeStruct((steps, rows, hidden), jnp.float32),
        grid=(rows // ROWS,),
        in_specs=_specs(steps, hidden),
        out_specs=_rows(steps, hidden),
        name="gru_forward",
        **_target(),
    )(gates, weights, bias, kept)


def _target() -> dict[str, Any]:
    """Who runs the kernel: Triton on a GPU, else the interpreter."""
    if interpreted():
        return {"interpret": True}
    from jax.experimental.pallas import triton

    return {"compiler_params": triton.CompilerParams(num_warps=4, num_stages=2)}


def _rows(steps: int, hidden: int) -> pl.BlockSpec:
    """The rows of one program of an array [T, B, H]."""
    return pl.BlockSpec((steps, ROWS, hidden), lambda i: (0, i, 0))


def _specs(steps: int, hidden: int) -> list[pl.BlockSpec]:
    """What one program sees of gates, weights, bias, kept."""
    return [
        pl.BlockSpec((3, steps, ROWS, hidden), lambda i: (0, 0, i, 0)),
        pl.BlockSpec((3, hidden, hidden), lambda i: (0, 0, 0)),
        pl.BlockSpec((hidden,), lambda i: (0,)),
        pl.BlockSpec((steps, ROWS), lambda i: (0, i)),
    ]


def _dot(left: jax.Array, right: jax.Array, dtype: Any) -> jax.Array:
    """A product of `dtype`, summed in float32; of float32 not in TF32."""
    precision = lax.Precision.HIGHEST if dtype == jnp.float32 else None
    return jnp.dot(
        left.astype(dtype),
        right.astype(dtype),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def _cell(h: Any, gates: Any, weights: Any, bias: Any, dtype: Any) -> tuple[Any, ...]:
    """r, z, n and the candidate's hidden part; see `gru.gates`."""
    r = jax.nn.sigmoid(gates[0] + _dot(h, weights[0], dtype))
    z = jax.nn.sigmoid(gates[1] + _dot(h, weights[1], dtype))
    hidden_n = _dot(h, weights[2], dtype) + bias
    return r, z, jnp.tanh(gates[2] + r * hidden_n), hidden_n


def _forward_kernel(
    gates: Any,
    weights: Any,
    bias: Any,
    kept: Any,
    out: Any,
    *,
    reverse: bool,
    dtype: Any,
) -> None:
    steps, rows, hidden = out.shape
    held, candidate = [weights[gate] for gate in range(3)], bias[...]

    def body(i: Any, h: Any) -> Any:
        t = steps - 1 - i if reverse else i
        inputs = [gates[gate, t] for gate in range(3)]
        _, z, n, _ = _cell(h, inputs, held, candidate, dtype)
        h = (n + z * (h - n)) * kept[t][:, None]
        out[t] = h
        return h

    lax.fori_loop(0, steps, body, jnp.zeros((rows, hidden), jnp.float32))


def _backward_kernel(
    gates: Any,
    weights: Any,
    bias: Any,
    kept: Any,
    states: Any,
    d_states: Any,
    d_gates: Any,
    d_candidate: Any,
    *,
    reverse: bool,
    dtype: Any,
) -> None:
    steps, rows, hidden = states.shape
    held, candidate = [weights[gate] for gate in range(3)], bias[...]

    def body(i: Any, d_h: Any) -> Any:
        t = i if reverse else steps - 1 - i
        before = jnp.clip(t + 1 if reverse else t - 1, 0, steps - 1)
        # The state before the first step is 0.
        h = jnp.where(i == steps - 1, jnp.zeros((rows, hidden)), states[before])
        inputs = [gates[gate, t] for gate in range(3)]
        r, z, n, hidden_n = _cell(h, inputs, held, candidate, dtype)
        d_h = (d_h + d_states[t]) * kept[t][:, None]
        d_n = d_h * (1 - z) * (1 - n * n)
        d_hidden = [
            d_n * hidden_n * r * (1 - r),
            d_h * (h - n) * z * (1 - z),
            d_n * r,
        ]
        d_gates[0, t], d_gates[1, t], d_gates[2, t] = d_hidden[0], d_hidden[1], d_n
        d_candidate[t] = d_hidden[2]
        back = [_dot(d, w.T, dtype) for d, w in zip(d_hidden, held, strict=True)]
        return d_h * z + back[0] + back[1] + back[2]

    lax.fori_loop(0, steps, body, jnp.zeros((rows, hidden), jnp.float32))


def _forward(
    gates: Any, weights: Any, bias: Any, kept: Any, reverse: bool, dtype: Any
) -> tuple[jax.Array, tuple[Any, ...]]:
    states = recurrence(gates, weights, bias, kept, reverse, dtype)
    return states, (gates, weights, bias, kept, states)


def _backward(
    reverse: bool, dtype: Any, saved: tuple[Any, ...], d_states: jax.Array
) -> tuple[Any, ...]:
    gates, weights, bias, kept, states = saved
    steps, rows, hidden = states.shape
    d_gates, d_candidate = pl.pallas_call(
        functools.partial(_backward_kernel, reverse=reverse, dtype=dtype),
        out_shape=[
            jax.ShapeDtypeStruct(gates.shape, jnp.float32),
            jax.ShapeDtypeStruct(states.shape, jnp.float32),
        ],
        grid=(rows // ROWS,),
        in_specs=[*_specs(steps, hidden), _rows(steps, hidden), _rows(steps, hidden)],
        out_specs=[_specs(steps, hidden)[0], _rows(steps, hidden)],
        name="gru_backward",
        **_target(),
    )(gates, weights, bias, kept, states, d_states)
    zero = jnp.zeros_like(states[:1])
    before = [states[1:], zero] if reverse else [zero, states[:-1]]
    d_hidden = jnp.stack([d_gates[0], d_gates[1], d_candidate])
    d_weights = jnp.einsum("tbh,gtbk->ghk", jnp.concatenate(before), d_hidden)
    return d_gates, d_weights, d_candidate.sum((0, 1)), jnp.zeros_like(kept)


recurrence.defvjp(_forward, _backward)
