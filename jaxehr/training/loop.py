"""The training loop: dispatches many steps at once, validates, saves, resumes, stops.

The result depends on the key, the data, the config and the cut of a batch over devices
only, never on how many steps a dispatch holds or on where a run was interrupted.
"""

import dataclasses
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.contracts import Callback, Objective, Params
from jaxehr.training.checkpoint import Checkpoints
from jaxehr.training.config import TrainConfig
from jaxehr.training.feed import Chunks, Feed, Whole
from jaxehr.training.sharding import (
    AXIS,
    agreed,
    at_home,
    computed_once,
    make_mesh,
    per_device,
    replicate_checked,
)
from jaxehr.training.steps import (
    TrainState,
    init_state,
    keep_best,
    mean_loss,
    restart,
    run_steps,
)
from jaxehr.training.turns import Layout, layout, players_of

ADVICE = "lower --learning-rate and train into another folder."
DISPATCH_SECONDS = 2.0  # so that a signal is answered and the progress bar moves


class Stopped(Exception):
    """Training was asked to stop; what was done is in the checkpoint."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.signum, self.step = signum, step

    def __reduce__(self) -> tuple[type, tuple[int, int]]:
        return type(self), (self.signum, self.step)  # from one process to another


class Trained(NamedTuple):
    """What training leaves: the best average, and the state it ended in."""

    params: Params
    state: TrainState
    seconds: float


class Programs(NamedTuple):
    """The two compiled programs of a run."""

    step: Callable[..., Any]  # (key, state, data, num) -> state, loss, metrics
    judge: Callable[..., Any]  # (key, state, valid) -> state, loss


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying; a second SIGINT kills as usual."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(signum: int, frame: Any) -> None:
        caught.append(signum)
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@functools.lru_cache(maxsize=8)
def programs(
    objective: Objective, config: TrainConfig, cut: Layout, mesh: Any
) -> Programs:
    """Compiles lazily, once for equal arguments; the state is donated, `num` is traced.

    Stages of one objective, such as the turns of FLEXGEN-EHR, share them.
    """
    axis = AXIS if cut.devices > 1 else None

    def step(key: Any, state: Any, data: Any, num: Any) -> Any:
        return run_steps(objective, config, cut, key, state, data, num, axis)

    def judge(key: Any, state: TrainState, data: Any) -> Any:
        loss = mean_loss(
            objective, config, key, state.ema_params, data, cut.devices, axis
        )
        return keep_best(state, loss), loss

    if mesh.size > 1:
        step, judge = per_device(step, mesh), per_device(judge, mesh)
    return Programs(jax.jit(step, donate_argnums=1), jax.jit(judge, donate_argnums=1))


def shared(objective: Objective, config: TrainConfig, cut: Layout, mesh: Any) -> Any:
    """`programs`, the same for stages that differ in the time they may take, and in
    their steps where no rate depends on them."""
    config = dataclasses.replace(config, max_minutes=0.0)
    constant = config.lr_schedule == "constant" and not config.warmup_steps
    if constant and not objective.players:  # a player's optimiser is its own
        config = dataclasses.replace(config, steps=0)
    return programs(objective, config, cut, mesh)


def train(
    key: jax.Array,
    objective: Objective,
    data: Any,
    *,
    config: TrainConfig,
    valid: Any | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | None = None,
    announce: Callable[[str], None] | None = None,
    start: TrainState | None = None,
) -> Trained:
    """Fits one stage.

    Args:
      data: pytree of arrays with patients in front, put on the devices whole; or a
        `Feed` of such arrays, which is read as training goes.
      valid: the same for validation; without it the last average is returned.
      callbacks: called with (step, metrics) after every dispatch.
      checkpoint: folder; if it holds a checkpoint, training goes on from there.
      announce: receives the estimate of memory and time before training starts.
      start: the state another stage ended in, for its parameters and optimiser; see
        `restart`.

    Raises:
      FloatingPointError: the loss is not finite.
      Stopped: SIGINT or SIGTERM came; the state is saved if `checkpoint` is given.
    """
    mesh, cut = plan(objective, config, data)
    init_key, run_key, valid_key = jax.random.split(key, 3)
    if start is None:
        params = first_params(objective, init_key, data, cut)
        state = init_state(objective, config, params)
    else:
        state = restart(start)
    store = Checkpoints(checkpoint, config.keep) if checkpoint else None
    supply: Whole | Chunks | None = None
    try:
        state, valid = replicate_checked((state, valid), mesh)
        supply = supply_of(data, objective, run_key, config, cut, mesh)
        found = store.restore(state) if store else None
        state, seconds = (found[0], found[1]["seconds"]) if found else (state, 0.0)
        run = Run(config, shared(objective, config, cut, mesh), store, callbacks)
        speed = run.estimate(run_key, state, supply, announce) if announce else 0.0
        return run.loop(run_key, valid_key, state, supply, valid, seconds, speed)
    finally:
        if supply:
            supply.close()
        if store:
            store.close()


def plan(objective: Objective, config: TrainConfig, data: Any) -> tuple[Any, Layout]:
    """The devices that work, and how a batch is cut over them.

    A batch that stays whole is one device's work: in a job each device does the same.

    Raises:
      InputError: a job has more devices than a batch has patients.
    """
    fed = data.count if isinstance(data, Feed) else 0
    count = fed or jax.tree.leaves(data)[0].shape[0]
    every, job = make_mesh().size, jax.process_count() > 1
    cut = layout(config, count, 1 if objective.whole else every)
    if job and not objective.whole and cut.devices < every:
        batch = min(config.batch_size, count)
        more = "raise --batch-size, or " if config.batch_size < count else ""
        raise InputError(
            f"a batch of {batch} patients leaves some of the {every} devices of this "
            f"job without any; {more}start fewer processes."
        )
    return make_mesh(every if job else cut.devices), cut._replace(people=fed)


@computed_once
def first_params(
    objective: Objective, key: jax.Array, data: Any, cut: Layout
) -> Params:
    """The parameters to begin with; the values of the patients do not matter."""
    rows = jnp.arange(cut.rows)
    table = data.take(np.arange(cut.rows)) if isinstance(data, Feed) else data
    return jax.jit(objective.init)(key, objective.take(table, rows))


def supply_of(
    data: Any,
    objective: Objective,
    key: jax.Array,
    config: TrainConfig,
    cut: Layout,
    mesh: Any,
) -> Whole | Chunks:
    """Where each step finds its data: all of them, or chunk after chunk."""
    if not isinstance(data, Feed):
        return Whole(replicate_checked(data, mesh))
    updates = sum(player.updates for player in players_of(objective))
    return Chunks(data, key, cut, updates, config.steps, mesh)


def refuse_broken(loss: float, step: int, name: str) -> None:
    """Raises when a loss was not finite at `step`; -1 = it always was."""
    if step >= 0:
        raise FloatingPointError(f"{name} is {loss} at step {step}; {ADVICE}")


def decided(
    seconds: float, speed: float, caught: list[int]
) -> tuple[float, float, int]:
    """The clocks of process 0, and the signal that any process caught, or 0.

    Processes that did not make the same steps would wait for each other forever.
    """
    told = agreed(np.array([seconds, speed, caught[0] if caught else 0], float))
    return float(told[0, 0]), float(told[0, 1]), int(told[:, 2].max())


class Run:
    """The host side of one training run."""

    def __init__(
        self,
        config: TrainConfig,
        compiled: Programs,
        store: Checkpoints | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.config, self.compiled, self.store = config, compiled, store
        self.callbacks = callbacks

    def estimate(
        self,
        key: Any,
        state: TrainState,
        supply: Whole | Chunks,
        announce: Callable[[str], None],
    ) -> float:
        """Times a step on a copy of the state; returns seconds per step."""
        left = self.config.steps - int(state.step)
        if left <= 0:
            return 0.0
        data, most = supply.at(int(state.step))
        num = min(2, most)
        lowered = self.compiled.step.lower(key, state, data, jnp.int32(1))
        memory = lowered.compile().memory_analysis()
        copy = lambda: jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
        jax.block_until_ready(self.compiled.step(key, copy(), data, jnp.int32(1)))
        start = time.perf_counter()
        jax.block_until_ready(self.compiled.step(key, copy(), data, jnp.int32(num)))
        speed = (time.perf_counter() - start) / num
        held = sum(leaf.nbytes for leaf in jax.tree.leaves((state, data)))
        work = memory.temp_size_in_bytes if memory is not None else 0
        limit = self.config.max_minutes
        minutes = min(left * speed / 60, limit) if limit else left * speed / 60
        announce(
            f"estimate: {left} steps of {speed * 1e3:.0f} ms = {minutes:.1f} min; "
            f"{held / 2**20:.0f} MiB of data and state and {work / 2**20:.0f} MiB of "
            "work space on each device"
        )
        return speed

    def loop(
        self,
        key: Any,
        valid_key: Any,
        state: TrainState,
        supply: Whole | Chunks,
        valid: Any | None,
        seconds: float,
        speed: float,
    ) -> Trained:
        """Dispatches until the steps, the time, or the user's patience are over."""
        config, begun = self.config, time.perf_counter() - seconds
        step = int(state.step)
        elapsed = lambda: time.perf_counter() - begun
        with signals() as caught:
            # One reading of the clock per dispatch decides and is saved, so that a run
            # whose time was up does not go on when it is started again.
            seconds, speed, _ = decided(seconds, speed, [])
            while step < config.steps and not config.over(seconds):
                start = time.perf_counter()
                data, most = supply.at(step)
                num = min(self.next_steps(step, speed), most)
                state, loss, metrics = self.compiled.step(
                    key, state, data, jnp.int32(num)
                )
                supply.ahead(loss)
                # In one transfer: each by itself would keep the devices waiting.
                told = jax.device_get((loss, metrics, state.bad_step))
                report = {"loss": float(told[0])}
                report |= {k: float(v) for k, v in told[1].items()}
                speed = (time.perf_counter() - start) / num
                step += num
                refuse_broken(report["loss"], int(told[2]), "loss")
                if valid is not None and step % config.eval_every == 0:
                    state, judged = self.compiled.judge(valid_key, state, valid)
                    report |= {"valid_loss": float(judged)}
                    bad = -1 if math.isfinite(report["valid_loss"]) else step
                    refuse_broken(report["valid_loss"], bad, "validation loss")
                seconds = elapsed()
                report |= {"seconds": seconds, "steps_left": config.steps - step}
                report |= supply.told()
                for callback in self.callbacks:
                    callback(step, report)
                seconds, speed, stop = decided(seconds, speed, caught)
                self.keep(step, state, seconds, stop)
            # A signal may have come during the last save, and other stages may follow.
            *_, stop = decided(seconds, speed, caught)
            if stop:
                self.keep(step, state, seconds, stop)
        return self.finish(valid_key, state, valid, seconds)

    def keep(self, step: int, state: TrainState, seconds: float, stop: int) -> None:
        """Saves if that is due, or if the signal `stop` came, which is then obeyed."""
        if self.store and (step % self.config.checkpoint_every == 0 or stop):
            self.store.save(step, state, {"seconds": seconds})
        if stop:
            raise Stopped(stop, step)

    def next_steps(self, step: int, speed: float) -> int:
        """Steps up to the next event, at most those that fit one dispatch."""
        config = self.config
        ahead = [
            period - step % period
            for period in (config.eval_every, config.checkpoint_every)
        ]
        fitting = max(1, math.floor(DISPATCH_SECONDS / speed)) if speed else 1
        return min(*ahead, fitting, config.steps - step)

    def finish(
        self, valid_key: Any, state: TrainState, valid: Any | None, seconds: float
    ) -> Trained:
        """Saves, judges the last average too, and returns the best one."""
        if self.store:
            # Before the judgement: a run that goes on later, after `max_minutes`, has
            # judged at the same steps as one that never stopped.
            self.store.save(int(state.step), state, {"seconds": seconds})
        if valid is not None:
            state, _ = self.compiled.judge(valid_key, state, valid)
        params = state.ema_params if valid is None else state.best_params
        # On the host: a program for each shape of a leaf would have to be compiled.
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
            raise FloatingPointError(
                f"parameters are not finite at step {int(state.step)}; {ADVICE}"
            )
        return Trained(at_home(params), at_home(state), seconds)
