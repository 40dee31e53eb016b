"""Pure training steps: K optimiser steps in one `fori_loop`, without a host round trip.

Notation: N training patients, B batch, c rows of a chunk. Every function here can be
jitted, vmapped over seeds, or run under `shard_map` with patients split over devices.
The root key is split once into a key for the order of patients and one for the noise;
both are only folded into after that.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.contracts import Objective, Params
from jaxehr.training.config import TrainConfig
from jaxehr.training.turns import (
    Fed,
    Layout,
    Turn,
    alike,
    batches,
    chunk_of,
    count_of,
    moved,
    optimisers,
    order_of,
    players_of,
    turn_of,
)


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


def init_state(objective: Objective, config: TrainConfig, params: Params) -> TrainState:
    """The state before the first step; a donated state may not share buffers."""
    pairs = zip(optimisers(objective, config), players_of(objective), strict=True)
    copy = lambda tree: jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)
    return TrainState(
        jnp.int32(0),
        copy(params),
        copy(params),
        tuple(tx.init(moved(params, player)) for tx, player in pairs),
        copy(params),
        jnp.float32(jnp.inf),
        jnp.int32(0),
        jnp.int32(-1),
    )


def restart(state: TrainState) -> TrainState:
    """A copy that begins at step 0 with the parameters and optimiser reached.

    The average begins with the one reached, but its warm-up begins anew (see `close`),
    and after a few steps little is left of that. The best average is forgotten: another
    stage has another loss.
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

    Args:
      data: all training patients, or `Fed` that holds the batches of these steps.

    Returns:
      The new state, the mean loss (of several players the sum) and the mean metrics
      over these steps.
    """
    keys = jax.random.split(key)
    players, count = players_of(objective), count_of(cut, data)
    each = [
        turn_of(objective, config, cut, place, axis) for place in range(len(players))
    ]
    ends = np.cumsum([player.updates for player in players])
    per_epoch = batches(cut, count)
    ema_every = max(per_epoch // ends[-1], 1) if config.ema_unit == "epoch" else 1

    def step(state: TrainState, order: jax.Array) -> Any:
        turn = Turn(state.params, state.opt_state, order)
        first, total, metrics = state.step * ends[-1], jnp.float32(0.0), {}
        for play, before in zip(each, [0, *ends[:-1]]):
            turn, loss, told = play(turn, data, keys, first + before)
            total, metrics = total + loss, metrics | told
        state = close(config, state, turn, total, ema_every)
        return state, turn.order, (total, metrics)

    def body(_: int, carry: Any) -> Any:
        state, order, totals = carry
        state, order, told = step(state, order)
        return state, order, jax.tree.map(jnp.add, totals, told)

    order = jnp.zeros(0, jnp.int32)
    if not isinstance(data, Fed):
        order = order_of(keys[0], state.step * ends[-1] // per_epoch, count)
    shapes = jax.eval_shape(step, state, order)[2]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state, _, totals = jax.lax.fori_loop(0, num, body, (state, order, zeros))
    loss, metrics = jax.tree.map(lambda leaf: leaf / jnp.maximum(num, 1), totals)
    return state, loss, metrics


def close(
    config: TrainConfig,
    state: TrainState,
    turn: Turn,
    loss: jax.Array,
    ema_every: int,
) -> TrainState:
    """The state after all turns of a step: counts it and moves the average."""
    step = state.step + 1
    moves = step // ema_every
    # The average starts at the initial weights; without this warm-up a short run would
    # mostly keep them.
    decay = jnp.minimum(config.ema_decay, (1.0 + moves) / (10.0 + moves))
    decay = jnp.where(step % ema_every == 0, decay, 1.0)
    ema = jax.tree.map(
        lambda e, p: decay * e + (1.0 - decay) * p, state.ema_params, turn.params
    )
    bad = ~jnp.isfinite(loss) & (state.bad_step < 0)
    return state._replace(
        step=step,
        params=turn.params,
        ema_params=ema,
        opt_state=turn.opt_state,
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

    Rows are taken in chunks of `chunk_of(config)`; the last draw wraps around to the
    first rows, so every chunk is full and the set of draws is fixed, for any number of
    devices.
    """
    count = jax.tree.leaves(data)[0].shape[0]
    rows = min(chunk_of(config), count)
    per_pass = -(-count // rows)
    wanted = per_pass * config.valid_draws
    total = -(-wanted // devices)  # chunks on each device
    device = jax.lax.axis_index(axis) if axis else 0
    places = jnp.arange(wanted * rows) % count
    if objective.lengths:
        places = places[alike(objective.lengths(data)[places], rows)]
    places = places.reshape(wanted, rows)

    def one(i: jax.Array) -> jax.Array:
        chunk = i * devices + device
        index = places[jnp.minimum(chunk, wanted - 1)]
        batch = objective.take(data, index)
        loss = objective.loss(params, jax.random.fold_in(key, chunk), batch)[0]
        return jnp.where(chunk < wanted, loss, 0.0)  # the last device may have none

    body = lambda i, sum_: sum_ + one(i)
    sum_ = jax.lax.fori_loop(0, total, body, jnp.float32(0.0))
    if axis:
        sum_ = jax.lax.psum(sum_, axis)
    return sum_ / wanted


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
