"""Trainings of one objective with many seeds in one compiled program.

Seeds are independent, so they are spread over the devices and nothing is exchanged. On
one device they run one after the other on CPU, where a batch of one seed already fills
the caches (all of them at once by `vmap` was slower), and side by side elsewhere.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxehr.core.contracts import Objective, Params
from jaxehr.training.config import TrainConfig
from jaxehr.training.sharding import at_home, compiled_rows
from jaxehr.training.steps import (
    init_state,
    keep_best,
    mean_loss,
    run_steps,
)
from jaxehr.training.turns import layout


class Indexed(NamedTuple):
    """Some rows of a table, as numbers: no patient is copied for any seed."""

    rows: Any  # Int [n]
    table: Any  # pytree of arrays [N, ...]


def indexed(objective: Objective) -> Objective:
    """`objective` on `Indexed` data."""
    take = lambda data, index: objective.take(data.table, data.rows[index])
    count = objective.lengths
    lengths = (lambda data: count(data.table)[data.rows]) if count else None
    return objective._replace(take=take, lengths=lengths)


def fit_many(
    keys: jax.Array,
    objective: Objective,
    data: Any,
    *,
    config: TrainConfig,
    valid: Any | None = None,
    rows: tuple[Any, Any | None] | None = None,
    shared: bool = True,
) -> Params:
    """Trains S times and keeps for each seed the average with the best validation loss.

    Args:
      keys: [S] one key a seed.
      objective: its identity is the key of the compilation cache: build it once.
      data: pytree of arrays [N, ...]; with `shared=False` [S, N, ...].
      config: `steps` are made; every `eval_every` steps `valid` is looked at.
      valid: like `data`; None = the last average is returned.
      rows: (training rows [S, n], validation rows [S, m] or None) of `data`, instead
        of `valid`: each seed trains on its own part of one table.

    Returns:
      The parameters with a leading seed axis, equal to S separate trainings; NaN of a
      seed that diverged before its first judgement.
    """
    if rows is not None and (valid is not None or not shared):
        raise ValueError("`rows` names rows of one shared table; leave `valid` out.")
    each = (keys, rows) if shared else (keys, rows, data, valid)
    common = (data, valid) if shared else ()
    width = width_of(keys.shape[0])
    program = fitting(objective, config, shared, width)
    return spread(program, each, common, keys.shape[0], width)


def apply_many(
    params: Params,
    function: Callable[[Params, Any], Any],
    data: Any,
    *,
    rows: Any | None = None,
    chunk_rows: int = 256,
) -> Any:
    """`function(params of one seed, batch)` for every seed and patient: [S, N, ...].

    Args:
      params: with a leading seed axis.
      function: its identity is the key of the compilation cache.
      data: pytree of arrays [N, ...], taken in chunks of `chunk_rows`.
      rows: Int [S, n]: the rows of `data` that each seed looks at; None = all.
    """
    count = jax.tree.leaves(params)[0].shape[0]
    width = width_of(count)
    program = applying(function, chunk_rows, width)
    return spread(program, (params, rows), data, count, width)


def width_of(seeds: int) -> int:
    """Devices that work: in a job all, since no process may be without one."""
    every = len(jax.devices())
    return every if jax.process_count() > 1 else min(every, seeds)


def spread(program: Any, each: Any, common: Any, count: int, width: int) -> Any:
    """Pads the seeds to a multiple of the devices by repeating the first ones."""
    index = jnp.arange(-(-count // width) * width) % count
    padded = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], each)
    found = program(common, padded)
    if jax.process_count() > 1:  # every process goes on with all of them
        found = at_home(found)
    return jax.tree.map(lambda leaf: leaf[:count], found)


@functools.lru_cache(maxsize=64)
def fitting(objective: Objective, config: TrainConfig, shared: bool, width: int) -> Any:
    """The compiled program of `fit_many`."""

    def one(each: Any, common: Any) -> Params:
        key, rows = each[:2]
        data, valid = common if shared else each[2:]
        if rows is None:
            return fit_one(key, objective, config, data, valid)
        data, valid = (None if r is None else Indexed(r, data) for r in rows)
        return fit_one(key, indexed(objective), config, data, valid)

    return over_seeds(one, width)


@functools.lru_cache(maxsize=64)
def applying(function: Callable[[Params, Any], Any], rows: int, width: int) -> Any:
    """The compiled program of `apply_many`."""

    def one(each: Any, data: Any) -> Any:
        params, chosen = each
        if chosen is None:
            chosen = jnp.arange(jax.tree.leaves(data)[0].shape[0])
        count = chosen.shape[0]
        size = min(rows, count)
        index = chosen[jnp.arange(-(-count // size) * size) % count].reshape(-1, size)
        take = lambda i: jax.tree.map(lambda leaf: leaf[i], data)
        out = jax.lax.map(lambda i: function(params, take(i)), index)
        join = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count]
        return jax.tree.map(join, out)

    return over_seeds(one, width)


def over_seeds(one: Callable[[Any, Any], Any], width: int) -> Any:
    """jit of `one(of a seed, common)` over the leading axis of its first argument."""
    side_by_side = jax.default_backend() != "cpu"

    def local(common: Any, each: Any) -> Any:
        if side_by_side:
            return jax.vmap(one, in_axes=(0, None))(each, common)
        return jax.lax.map(lambda item: one(item, common), each)

    return compiled_rows(local, width)


def fit_one(
    key: jax.Array,
    objective: Objective,
    config: TrainConfig,
    data: Any,
    valid: Any | None,
) -> Params:
    """One whole training, pure: rounds of steps, each followed by a judgement.

    Where no judgement was finite, the parameters are NaN: the initial ones, which were
    never judged, would pass for trained ones.
    """
    cut = layout(config, jax.tree.leaves(data)[0].shape[0])
    init_key, run_key, valid_key = jax.random.split(key, 3)
    sample = objective.take(data, jnp.arange(cut.rows))
    state = init_state(objective, config, objective.init(init_key, sample))

    def advance(_: Any, state: Any) -> Any:
        num = jnp.minimum(config.eval_every, config.steps - state.step)
        state, _, _ = run_steps(objective, config, cut, run_key, state, data, num)
        if valid is None:
            return state
        loss = mean_loss(objective, config, valid_key, state.ema_params, valid)
        return keep_best(state, loss)

    rounds = -(-config.steps // config.eval_every)
    state = jax.lax.fori_loop(0, rounds, advance, state)
    if valid is None:
        return state.ema_params
    judged = jnp.isfinite(state.best_loss)
    return jax.tree.map(lambda p: jnp.where(judged, p, jnp.nan), state.best_params)
