"""Pure training steps: K optimiser steps in one `fori_loop`, without a host round trip.

Notation: N training patients, B batch, c rows of a chunk. Every function here can be
jitted, vmapped over seeds, or run under `shard_map` with patients split over devices.
The root key is split once into a key for the order of patients and one for the noise;
both are only folded into after that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxehr.core.contracts import Objective, Params
from jaxehr.training.config import TrainConfig


class TrainState(NamedTuple):
    """Everything that a resumed run needs, bit for bit."""

    step: jax.Array  # int32: optimiser steps done
    params: Params
    ema_params: Params
    opt_state: Any
    best_params: Params  # the average with the lowest validation loss
    best_loss: jax.Array
    best_step: jax.Array
    bad_step: jax.Array  # first step whose loss was not finite, or -1


class Layout(NamedTuple):
    """How a batch is cut: `devices` x `chunks` x `rows` patients a step."""

    rows: int
    chunks: int
    devices: int

    @property
    def batch(self) -> int:
        return self.rows * self.chunks * self.devices


def layout(config: TrainConfig, num: int, devices: int = 1) -> Layout:
    """The cut of a batch nearest to `config.batch_size`, at most `num` patients."""
    batch = max(min(config.batch_size, num), 1)
    while devices > 1 and batch < devices:
        devices //= 2
    per_device = batch // devices
    chunks = max(1, round(per_device / config.chunk_rows))
    return Layout(per_device // chunks, chunks, devices)


def optimiser(config: TrainConfig) -> optax.GradientTransformation:
    """Adam with the schedule, clipping and decay of `config`."""
    rate: Any = config.learning_rate
    warmup = min(config.warmup_steps, config.steps // 2)
    if config.lr_schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(
            0.0 if warmup else rate, rate, warmup, config.steps
        )
    elif warmup:
        rate = optax.linear_schedule(0.0, rate, warmup)
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.weight_decay:
        parts.append(optax.adamw(rate, weight_decay=config.weight_decay))
    else:
        parts.append(optax.adam(rate))
    return optax.chain(*parts)


def init_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step; a donated state may not share buffers."""
    copy = lambda tree: jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)
    return TrainState(
        jnp.int32(0),
        copy(params),
        copy(params),
        tx.init(params),
        copy(params),
        jnp.float32(jnp.inf),
        jnp.int32(0),
        jnp.int32(-1),
    )


def restart(state: TrainState) -> TrainState:
    """A copy that begins at step 0 with the parameters, average and optimiser reached.

    The best average is forgotten: another stage has another loss.
    """
    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
    fresh = {"step": 0, "best_step": 0, "bad_step": -1}
    return state._replace(
        best_loss=jnp.float32(jnp.inf),
        best_params=jax.tree.map(
            lambda leaf: jnp.array(leaf, copy=True), state.ema_params
        ),
        **{name: jnp.int32(value) for name, value in fresh.items()},
    )


def accumulate(
    objective: Objective, cut: Layout, axis: str | None
) -> Callable[[Params, jax.Array, Any, jax.Array], tuple[Any, Any, Params]]:
    """Mean loss, metrics and gradient of one batch, summed chunk after chunk."""
    grad = jax.value_and_grad(objective.loss, has_aux=True)

    def run(params: Params, key: jax.Array, data: Any, rows: jax.Array) -> Any:
        # rows: [batch] patient indices of the whole batch, on every device
        device = jax.lax.axis_index(axis) if axis else 0
        first = jnp.int32(device * cut.chunks)

        def one(chunk: jax.Array) -> Any:
            start = chunk * cut.rows
            index = jax.lax.dynamic_slice_in_dim(rows, start, cut.rows)
            batch = objective.take(data, index)
            return grad(params, jax.random.fold_in(key, chunk), batch)

        # Starting from zeros, not from the first chunk, traces the network once.
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, first)
        )
        body = lambda i, total: jax.tree.map(jnp.add, total, one(first + i))
        total = jax.lax.fori_loop(0, cut.chunks, body, zeros)
        if axis:
            total = jax.lax.psum(total, axis)
        scale = 1.0 / (cut.chunks * cut.devices)
        (loss, metrics), grads = jax.tree.map(lambda leaf: leaf * scale, total)
        return loss, metrics, grads

    return run


def run_steps(
    objective: Objective,
    config: TrainConfig,
    cut: Layout,
    key: jax.Array,
    state: TrainState,
    data: Any,
    num: jax.Array,
    axis: str | None = None,
) -> tuple[TrainState, jax.Array, dict[str, jax.Array]]:
    """`num` optimiser steps (a traced number: any `num`, one compilation).

    Returns:
      The new state, the mean loss and the mean metrics over these steps.
    """
    tx = optimiser(config)
    count = jax.tree.leaves(data)[0].shape[0]
    # Deviation: the paper's last batch of an epoch is smaller. Here the rest of an
    # epoch, other patients each time, is left out, so that every batch has one shape.
    per_epoch = max(count // cut.batch, 1)
    order_key, noise_key = jax.random.split(key)
    gradient = accumulate(objective, cut, axis)
    ema_every = per_epoch if config.ema_unit == "epoch" else 1

    def shuffled(step: jax.Array) -> jax.Array:
        epoch = step // per_epoch
        return jax.random.permutation(jax.random.fold_in(order_key, epoch), count)

    def body(_: int, carry: Any) -> Any:
        state, order, totals = carry
        step = state.step
        order = jax.lax.cond(step % per_epoch == 0, shuffled, lambda _: order, step)
        start = (step % per_epoch) * cut.batch
        rows = jax.lax.dynamic_slice_in_dim(order, start, cut.batch)
        loss, metrics, grads = gradient(
            state.params, jax.random.fold_in(noise_key, step), data, rows
        )
        state = apply(tx, config, state, loss, grads, ema_every)
        return state, order, jax.tree.map(jnp.add, totals, (loss, metrics))

    first = lambda data: objective.take(data, jnp.arange(cut.rows))
    sample = jax.eval_shape(first, data)
    shapes = jax.eval_shape(objective.loss, state.params, noise_key, sample)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    carry = (state, shuffled(state.step), zeros)
    state, _, totals = jax.lax.fori_loop(0, num, body, carry)
    loss, metrics = jax.tree.map(lambda leaf: leaf / jnp.maximum(num, 1), totals)
    return state, loss, metrics


def apply(
    tx: optax.GradientTransformation,
    config: TrainConfig,
    state: TrainState,
    loss: jax.Array,
    grads: Params,
    ema_every: int,
) -> TrainState:
    """One optimiser step and one step of the moving average."""
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    step = state.step + 1
    moves = step // ema_every
    # The average starts at the initial weights; without this warm-up a short run would
    # mostly keep them.
    decay = jnp.minimum(config.ema_decay, (1.0 + moves) / (10.0 + moves))
    decay = jnp.where(step % ema_every == 0, decay, 1.0)
    ema = jax.tree.map(
        lambda e, p: decay * e + (1.0 - decay) * p, state.ema_params, params
    )
    bad = ~jnp.isfinite(loss) & (state.bad_step < 0)
    return state._replace(
        step=step,
        params=params,
        ema_params=ema,
        opt_state=opt_state,
        bad_step=jnp.where(bad, step, state.bad_step),
    )


def mean_loss(
    objective: Objective,
    config: TrainConfig,
    key: jax.Array,
    params: Params,
    data: Any,
    devices: int = 1,
    axis: str | None = None,
) -> jax.Array:
    """Mean loss over `data` with the same noise at every call.

    Rows are taken in chunks of `config.chunk_rows`; the last chunk wraps around to the
    first rows, so every chunk is full and the set of draws is fixed.
    """
    count = jax.tree.leaves(data)[0].shape[0]
    rows = min(config.chunk_rows, count)
    per_pass = -(-count // rows)
    total = -(-(per_pass * config.valid_draws) // devices)  # chunks on each device
    device = jax.lax.axis_index(axis) if axis else 0

    def one(i: jax.Array) -> jax.Array:
        chunk = device * total + i
        index = (chunk * rows + jnp.arange(rows)) % count
        batch = objective.take(data, index)
        return objective.loss(params, jax.random.fold_in(key, chunk), batch)[0]

    body = lambda i, sum_: sum_ + one(i)
    sum_ = jax.lax.fori_loop(0, total, body, jnp.float32(0.0))
    if axis:
        sum_ = jax.lax.psum(sum_, axis)
    return sum_ / (total * devices)


def keep_best(state: TrainState, loss: jax.Array) -> TrainState:
    """Takes the current average as best if its validation loss is the lowest."""
    better = loss < state.best_loss
    choose = lambda new, old: jax.tree.map(
        lambda a, b: jnp.where(better, a, b), new, old
    )
    return state._replace(
        best_params=choose(state.ema_params, state.best_params),
        best_loss=jnp.where(better, loss, state.best_loss),
        best_step=jnp.where(better, state.step, state.best_step),
    )
