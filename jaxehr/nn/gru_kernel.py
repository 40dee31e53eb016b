"""A bidirectional GRU layer as one GPU kernel: the loops over time run inside it.

A program of the kernel keeps the state of some rows and the recurrent weights of one
direction on chip from the first step to the last (64 hidden units: 48 KB in float32),
so that the memory of the device is touched only for projected inputs and states; those
of the next step are fetched while this one is computed, for a step is far shorter than
the way to memory. Both directions are programs of one launch: either alone leaves half
of the chip idle. Backwards the gates are computed again from the states: one more
product a step is cheaper than four arrays written and read. Gradients of the weights
are large products over all steps, outside.

Written in Pallas for its Triton backend, which wants powers of two: H and B are padded.
Elsewhere than on a GPU the kernel is interpreted, which is slow and meant for tests.

Axis letters: B rows, T steps, C channels, H hidden, D = 2 directions, forward first;
time-major; gates are ordered r, z, n.
"""

import functools
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

ROWS = 16  # of one program
WARPS = 4  # that work on them
LEAST = 16  # sides of a product on the tensor cores
WIDEST = 64  # hidden units whose weights fit on chip; wider was not tried on a GPU
OLDEST = 8.0  # compute capability: XLA refuses Triton for NVIDIA GPUs before Ampere


def interpreted() -> bool:
    """Whether there is no GPU to compile for."""
    return jax.default_backend() != "gpu"


def has_kernel(hidden: int) -> bool:
    """Whether there is a GPU, of NVIDIA one of compute capability 8.0 or later (so no
    T4, V100, TITAN RTX), this JAX can compile the kernel for it, and its weights fit on
    chip.

    JAX announces since 0.11 that it will give up the Triton backend some day.
    """
    triton = "jax.experimental.pallas.triton"
    if interpreted() or hidden > WIDEST or any(map(too_old, jax.devices())):
        return False
    return importlib.util.find_spec(triton) is not None


def too_old(device: Any) -> bool:
    """Whether XLA has no Triton for a GPU; only CUDA numbers them (ROCm: gfx90a)."""
    number = str(getattr(device, "compute_capability", ""))
    return number[:1].isdigit() and float(number) < OLDEST


def kernel_states(
    x: jax.Array,
    w_input: jax.Array,
    b_input: jax.Array,
    w_hidden: jax.Array,
    b_candidate: jax.Array,
    length: jax.Array | None,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """States [T, B, 2H] of both directions from h = 0.

    Args:
      x: [T, B, C], finite everywhere.
      w_input: [D, C, 3H].
      b_input: [D, 3H].
      w_hidden: [D, H, 3H].
      b_candidate: [D, H].
      length: Int [B]; states are 0 from this step on; None = all T.
      dtype: of the factors of the products; sums and states are float32. Products of
        float32 have JAX's default precision, on a GPU TF32.
    """
    steps, rows, _ = x.shape
    hidden = w_hidden.shape[1]
    wide = max(pl.next_power_of_2(hidden), LEAST)
    padded = functools.partial(_padded_gates, hidden=hidden, wide=wide)
    if length is None:
        length = jnp.full(rows, steps)
    more = -rows % ROWS
    x = jnp.pad(x, ((0, 0), (0, more), (0, 0)))
    length = jnp.pad(length.astype(jnp.int32), (0, more))
    # One product for both directions and all steps; its columns are as the kernel
    # reads them, so that nothing is turned in memory.
    into = padded(w_input).transpose(1, 0, 2, 3).reshape(x.shape[-1], -1)
    inputs: Any = projected(x, into, dtype)
    gates = inputs + padded(b_input).reshape(-1)
    weights = jnp.pad(padded(w_hidden), ((0, 0), (0, wide - hidden), (0, 0), (0, 0)))
    bias = jnp.pad(b_candidate, ((0, 0), (0, wide - hidden)))
    states: Any = recurrence(gates, weights.swapaxes(1, 2), bias, length, dtype)
    states = states.reshape(steps, rows + more, 2, wide)[:, :rows, :, :hidden]
    return states.reshape(steps, rows, 2 * hidden)


def _padded_gates(array: jax.Array, hidden: int, wide: int) -> jax.Array:
    """[..., 3H] as [..., 3, wide], zero where it is wider."""
    array = array.reshape(*array.shape[:-1], 3, hidden)
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, wide - hidden)])


def _dot(left: jax.Array, right: jax.Array, dtype: Any) -> jax.Array:
    """A product whose factors are rounded to `dtype`, summed in float32."""
    factors = left.astype(dtype), right.astype(dtype)
    return jnp.dot(*factors, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def projected(x: jax.Array, weights: jax.Array, dtype: Any) -> jax.Array:
    """x [T, B, C] times weights [C, K], whose gradient stays float32 as that of the
    recurrent ones does."""
    return _dot(x, weights, dtype)


def _projected_forward(x: Any, weights: Any, dtype: Any) -> tuple[Any, Any]:
    return _dot(x, weights, dtype), (x, weights)


def _projected_backward(dtype: Any, saved: Any, slope: jax.Array) -> tuple[Any, Any]:
    x, weights = saved
    return _dot(slope, weights.T, dtype), jnp.einsum("tbc,tbk->ck", x, slope)


projected.defvjp(_projected_forward, _projected_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def recurrence(
    gates: jax.Array,
    weights: jax.Array,
    bias: jax.Array,
    length: jax.Array,
    dtype: Any,
) -> jax.Array:
    """States [T, B, D H] of gates [T, B, D 3 H], weights [D, 3, H, H], bias [D, H]."""
    steps, rows, _ = gates.shape
    hidden = weights.shape[-1]
    return pl.pallas_call(
        functools.partial(_forward_kernel, dtype=dtype),
        out_shape=jax.ShapeDtypeStruct((steps, rows, 2 * hidden), jnp.float32),
        grid=(2, rows // ROWS),
        in_specs=_specs(steps, hidden),
        out_specs=_part(steps, hidden),
        name="gru_forward",
        **_target(),
    )(gates, weights, bias, length)


def _target() -> dict[str, Any]:
    """Who runs the kernel: Triton on a GPU, else the interpreter."""
    if interpreted():
        return {"interpret": True}
    from jax.experimental.pallas import triton

    return {"compiler_params": triton.CompilerParams(num_warps=WARPS, num_stages=2)}


def _part(steps: int, width: int) -> pl.BlockSpec:
    """Rows and direction of one program in an array [T, B, D width]."""
    return pl.BlockSpec((steps, ROWS, width), lambda d, i: (0, i, d))


def _specs(steps: int, hidden: int) -> list[pl.BlockSpec]:
    """What one program sees of gates, weights, bias, length."""
    return [
        _part(steps, 3 * hidden),
        pl.BlockSpec((1, 3, hidden, hidden), lambda d, i: (d, 0, 0, 0)),
        pl.BlockSpec((1, hidden), lambda d, i: (d, 0)),
        pl.BlockSpec((ROWS,), lambda d, i: (i,)),
    ]


def _gates_at(gates: Any, t: Any, hidden: int) -> tuple[Any, ...]:
    """The projected inputs [rows, H] of r, z, n at step t."""
    return tuple(gates[t, :, pl.ds(gate * hidden, hidden)] for gate in range(3))


def _time(turned: Any, steps: int, i: Any) -> Any:
    """The step of turn i: i, or counted from the end where `turned` is 1.

    Not `jnp.where`: of two numbers known at compile time, as in turn 0, it becomes a
    choice between two Booleans in Triton (jax 0.10 and 0.11).
    """
    return i + turned * (steps - 1 - 2 * i)


def _cell(h: Any, inputs: Any, weights: Any, bias: Any, dtype: Any) -> tuple[Any, ...]:
    """r, z, n and the candidate's hidden part; see `gru.gates`."""
    r = jax.nn.sigmoid(inputs[0] + _dot(h, weights[0], dtype))
    z = jax.nn.sigmoid(inputs[1] + _dot(h, weights[1], dtype))
    hidden_n = _dot(h, weights[2], dtype) + bias
    return r, z, jnp.tanh(inputs[2] + r * hidden_n), hidden_n


def _forward_kernel(
    gates: Any, weights: Any, bias: Any, length: Any, out: Any, *, dtype: Any
) -> None:
    steps, rows, hidden = out.shape
    held, candidate = [weights[0, gate] for gate in range(3)], bias[0]
    valid, time = length[...], functools.partial(_time, pl.program_id(0), steps)

    def body(i: Any, carry: Any) -> Any:
        (h, inputs), t = carry, time(i)
        ahead = _gates_at(gates, time(jnp.minimum(i + 1, steps - 1)), hidden)
        _, z, n, _ = _cell(h, inputs, held, candidate, dtype)
        h = jnp.where((t < valid)[:, None], n + z * (h - n), 0.0)
        out[t] = h
        return h, ahead

    start = jnp.zeros((rows, hidden), jnp.float32)
    lax.fori_loop(0, steps, body, (start, _gates_at(gates, time(0), hidden)))


def _backward_kernel(
    gates: Any,
    weights: Any,
    bias: Any,
    length: Any,
    states: Any,
    d_states: Any,
    d_gates: Any,
    d_candidate: Any,
    *,
    dtype: Any,
) -> None:
    steps, rows, hidden = states.shape
    held, candidate = [weights[0, gate] for gate in range(3)], bias[0]
    valid, time = length[...], functools.partial(_time, 1 - pl.program_id(0), steps)

    def load(i: Any) -> Any:
        """Inputs, the state before, and the state's gradient, of turn i."""
        t, before = time(i), time(jnp.minimum(i + 1, steps - 1))
        return _gates_at(gates, t, hidden), states[before], d_states[t]

    def body(i: Any, carry: Any) -> Any:
        d_h, (inputs, h, d_state) = carry
        t, ahead = time(i), load(jnp.minimum(i + 1, steps - 1))
        h = jnp.where(i == steps - 1, 0.0, h)  # before the first step it is 0
        r, z, n, hidden_n = _cell(h, inputs, held, candidate, dtype)
        d_h = jnp.where((t < valid)[:, None], d_h + d_state, 0.0)
        d_n = d_h * (1 - z) * (1 - n * n)
        d_hidden = [
            d_n * hidden_n * r * (1 - r),
            d_h * (h - n) * z * (1 - z),
            d_n * r,
        ]
        for gate, d in enumerate([*d_hidden[:2], d_n]):
            d_gates[t, :, pl.ds(gate * hidden, hidden)] = d
        d_candidate[t] = d_hidden[2]
        back = [_dot(d, w.T, dtype) for d, w in zip(d_hidden, held, strict=True)]
        return d_h * z + back[0] + back[1] + back[2], ahead

    start = jnp.zeros((rows, hidden), jnp.float32)
    lax.fori_loop(0, steps, body, (start, load(0)))


def _forward(
    gates: Any, weights: Any, bias: Any, length: Any, dtype: Any
) -> tuple[jax.Array, tuple[Any, ...]]:
    states: Any = recurrence(gates, weights, bias, length, dtype)
    return states, (gates, weights, bias, length, states)


def _backward(
    dtype: Any, saved: tuple[Any, ...], d_states: jax.Array
) -> tuple[Any, ...]:
    gates, weights, bias, length, states = saved
    steps, rows, width = states.shape
    hidden = width // 2
    d_gates, d_candidate = pl.pallas_call(
        functools.partial(_backward_kernel, dtype=dtype),
        out_shape=[
            jax.ShapeDtypeStruct(gates.shape, jnp.float32),
            jax.ShapeDtypeStruct(states.shape, jnp.float32),
        ],
        grid=(2, rows // ROWS),
        in_specs=[*_specs(steps, hidden), *[_part(steps, hidden)] * 2],
        out_specs=[_part(steps, 3 * hidden), _part(steps, hidden)],
        name="gru_backward",
        **_target(),
    )(gates, weights, bias, length, states, d_states)
    d_weights = [
        _weights_gradient(d, states, d_gates, d_candidate, hidden) for d in range(2)
    ]
    d_bias = d_candidate.sum((0, 1)).reshape(2, hidden)
    return d_gates, jnp.stack(d_weights), d_bias, None


def _weights_gradient(
    direction: int, states: Any, d_gates: Any, d_candidate: Any, hidden: int
) -> jax.Array:
    """[3, H, H] of one direction: the state before each step times the gradient."""
    later, sooner = slice(1, None), slice(None, -1)
    of, at = (later, sooner) if direction else (sooner, later)
    own = slice(direction * hidden, (direction + 1) * hidden)
    h = states[of, :, own].reshape(-1, hidden)
    first = 3 * direction * hidden
    gated = d_gates[at, :, first : first + 2 * hidden].reshape(-1, 2 * hidden)
    by_gate = (h.T @ gated).reshape(hidden, 2, hidden).swapaxes(0, 1)
    candidate = h.T @ d_candidate[at, :, own].reshape(-1, hidden)
    return jnp.concatenate([by_gate, candidate[None]])


recurrence.defvjp(_forward, _backward)
