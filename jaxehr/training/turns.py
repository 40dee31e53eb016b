"""Gradients of one batch, and the turns of those who are trained on them.

An objective without players has one, who moves all parameters by its loss. Notation: N
training patients, B batch, c rows of a chunk.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxehr.core.contracts import Objective, Params, Player
from jaxehr.training.config import TrainConfig

ACCELERATOR_TIMES = 64  # the chunk that stays in the cache of a CPU


class Layout(NamedTuple):
    """How a batch is cut: `devices` x `chunks` x `rows` patients a step.

    Of data that come as `Fed`, `people` is the number of training patients.
    """

    rows: int
    chunks: int
    devices: int
    people: int = 0

    @property
    def batch(self) -> int:
        return self.rows * self.chunks * self.devices


def layout(config: TrainConfig, num: int, devices: int = 1) -> Layout:
    """The cut of a batch nearest to `config.batch_size`, at most `num` patients."""
    batch = max(min(config.batch_size, num), 1)
    while devices > 1 and batch < devices:
        devices //= 2
    per_device = batch // devices
    chunks = max(1, round(per_device / chunk_of(config)))
    return Layout(per_device // chunks, chunks, devices)


def chunk_of(config: TrainConfig) -> int:
    """Patients whose gradient is computed at once on this machine."""
    times = 1 if jax.default_backend() == "cpu" else ACCELERATOR_TIMES
    return config.chunk_rows * times


class Fed(NamedTuple):
    """Patients of some batches in a row, where the data are not there as a whole."""

    first: Any  # int32: number of the first batch
    rows: Any  # pytree of arrays [batches * batch, ...]


def optimiser(
    config: TrainConfig, *, b2: float = 0.999, undecayed: tuple[str, ...] = ()
) -> optax.GradientTransformation:
    """Adam with the schedule, clipping and decay of `config`; b2 of second moments.

    Args:
      undecayed: see `Objective`.
    """
    rate: Any = config.learning_rate
    warmup = min(config.warmup_steps, config.steps // 2)
    if config.lr_schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(
            0.0 if warmup else rate, rate, warmup, config.steps
        )
    elif config.lr_schedule == "linear":
        fall = optax.linear_schedule(rate, 0.0, config.steps - warmup)
        rise = optax.linear_schedule(0.0, rate, warmup)
        rate = optax.join_schedules([rise, fall], [warmup]) if warmup else fall
    elif warmup:
        rate = optax.linear_schedule(0.0, rate, warmup)
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.weight_decay:
        decayed = lambda params: {name: name not in undecayed for name in params}
        mask = decayed if undecayed else None
        parts.append(
            optax.adamw(rate, b2=b2, weight_decay=config.weight_decay, mask=mask)
        )
    else:
        parts.append(optax.adam(rate, b2=b2))
    return optax.chain(*parts)


def players_of(objective: Objective) -> tuple[Player, ...]:
    """Who takes turns; without players one who moves everything by `loss`."""
    return objective.players or (Player("", objective.loss),)


def optimisers(
    objective: Objective, config: TrainConfig
) -> list[optax.GradientTransformation]:
    """One for each player."""

    def one(player: Player) -> optax.GradientTransformation:
        # Rates fall and rise with a player's own updates.
        sizes = config.steps * player.updates, config.warmup_steps * player.updates
        own = dataclasses.replace(config, steps=sizes[0], warmup_steps=sizes[1])
        if player.optimiser:
            return player.optimiser(own)
        return optimiser(own, undecayed=objective.undecayed)

    return [one(player) for player in players_of(objective)]


def moved(params: Params, player: Player) -> Params:
    """The parameters that a player moves."""
    return {name: params[name] for name in player.moves} if player.moves else params


def replaced(params: Params, player: Player, part: Params) -> Params:
    """The parameters after a move."""
    return {**params, **part} if player.moves else part


def accumulate(
    objective: Objective, player: Player, cut: Layout, axis: str | None
) -> Callable[[Params, jax.Array, Any, jax.Array], tuple[Any, Any, Params]]:
    """Mean loss, metrics and gradient of one batch, summed chunk after chunk.

    The gradient is that of the player's loss by the parameters that it moves.
    """

    def loss(part: Params, params: Params, key: jax.Array, batch: Any) -> Any:
        return player.loss(replaced(params, player, part), key, batch)

    grad = jax.value_and_grad(loss, has_aux=True)

    def run(params: Params, key: jax.Array, data: Any, rows: jax.Array) -> Any:
        # rows: [batch] patient indices of the whole batch, on every device
        device = jnp.int32(jax.lax.axis_index(axis) if axis else 0)
        part = moved(params, player)
        if objective.lengths:
            rows = rows[alike(objective.lengths(data)[rows], cut.rows)].ravel()

        def one(chunk: jax.Array) -> Any:
            start = chunk * cut.rows
            index = jax.lax.dynamic_slice_in_dim(rows, start, cut.rows)
            batch = objective.take(data, index)
            return grad(part, params, jax.random.fold_in(key, chunk), batch)

        # Starting from zeros, not from the first chunk, traces the network once.
        total = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, device)
        )
        # Neighbours, which are of like length, go to different devices.
        chunk = lambda i: i * cut.devices + device
        body = lambda i, total: jax.tree.map(jnp.add, total, one(chunk(i)))
        total = jax.lax.fori_loop(0, cut.chunks, body, total)
        if axis:
            total = jax.lax.psum(total, axis)
        scale = 1.0 / (cut.chunks * cut.devices)
        (loss, metrics), grads = jax.tree.map(lambda leaf: leaf * scale, total)
        return loss, metrics, grads

    return run


def alike(lengths: jax.Array, rows: int) -> jax.Array:
    """Int [N / rows, rows]: places of N patients, those of like length together.

    Within a chunk they keep their order: diffusion times are dealt out by it, and not
    by length.
    """
    return jnp.sort(jnp.argsort(lengths).reshape(-1, rows), axis=1)


def count_of(cut: Layout, data: Any) -> int:
    """The number of training patients."""
    return cut.people or jax.tree.leaves(data)[0].shape[0]


class Turn(NamedTuple):
    """What the players hand on within a step."""

    params: Params
    opt_state: tuple[Any, ...]
    order: jax.Array  # of the patients of this epoch


def batches(cut: Layout, count: int) -> int:
    """Batches of an epoch.

    Deviation: the paper's last batch of an epoch is smaller. Here the rest of an epoch,
    other patients each time, is left out, so that every batch has one shape.
    """
    return max(count // cut.batch, 1)


def update_of(
    objective: Objective, config: TrainConfig, cut: Layout, place: int, axis: str | None
) -> Callable[..., tuple[Turn, tuple[Any, Any]]]:
    """One optimiser step of the player at `place`.

    (turn, data, rows [batch], key) -> turn, (mean loss, metrics).
    """
    player = players_of(objective)[place]
    tx = optimisers(objective, config)[place]
    gradient = accumulate(objective, player, cut, axis)

    def update(turn: Turn, data: Any, rows: jax.Array, key: jax.Array) -> Any:
        loss, metrics, grads = gradient(turn.params, key, data, rows)
        part, states = moved(turn.params, player), list(turn.opt_state)
        found, states[place] = tx.update(grads, states[place], part)
        params = replaced(turn.params, player, optax.apply_updates(part, found))
        return turn._replace(params=params, opt_state=tuple(states)), (loss, metrics)

    return update


def turn_of(
    objective: Objective,
    config: TrainConfig,
    cut: Layout,
    place: int,
    axis: str | None,
) -> Callable[..., tuple[Turn, Any, dict[str, jax.Array]]]:
    """All updates of the player at `place` in one step.

    (turn, data, keys of order and noise, number of its first batch) -> turn, mean loss
    and metrics. Batches are numbered through all turns of all steps; patients are put
    into another order at the start of every epoch.
    """
    player = players_of(objective)[place]
    update = update_of(objective, config, cut, place, axis)

    def run(turn: Turn, data: Any, keys: Any, first: jax.Array) -> Any:
        order_key, noise_key = keys

        def one(turn: Turn, number: jax.Array) -> Any:
            key = jax.random.fold_in(noise_key, number)
            if isinstance(data, Fed):
                rows = (number - data.first) * cut.batch + jnp.arange(cut.batch)
                return update(turn, data.rows, rows, key)
            rows, order = ordered(cut, order_key, number, turn.order, data)
            return update(turn._replace(order=order), data, rows, key)

        if player.updates == 1:
            turn, (loss, metrics) = one(turn, first)
        else:
            turn, told = jax.lax.scan(one, turn, first + jnp.arange(player.updates))
            loss, metrics = jax.tree.map(lambda leaf: leaf.mean(0), told)
        if player.name:
            named = {f"{player.name}_{k}": v for k, v in metrics.items()}
            metrics = {f"{player.name}_loss": loss} | named
        return turn, loss, metrics

    return run


def ordered(
    cut: Layout, key: jax.Array, number: jax.Array, kept: jax.Array, data: Any
) -> tuple[jax.Array, jax.Array]:
    """The patients of the batch `number`, and the order of its epoch.

    Args:
      kept: the order of the epoch of the batch before.
    """
    count = count_of(cut, data)
    per_epoch = batches(cut, count)
    fresh = lambda number: order_of(key, number // per_epoch, count)
    begins = number % per_epoch == 0
    order = jax.lax.cond(begins, fresh, lambda _: kept, number)
    start = (number % per_epoch) * cut.batch
    return jax.lax.dynamic_slice_in_dim(order, start, cut.batch), order


def order_of(key: jax.Array, epoch: jax.Array, count: int) -> jax.Array:
    """Int [N]: the order of the patients in an epoch."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), count)
