"""Training stopped anywhere and resumed equals training in one go, bit for bit."""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import (
    CENTRED,
    EXACT,
    NOISY,
    compilations,
    config,
    linear_data,
    same_bits,
)

from jaxehr.core.checks import InputError
from jaxehr.core.contracts import Objective
from jaxehr.training import loop, sharding
from jaxehr.training.loop import Stopped, train
from jaxehr.training.sharding import make_mesh
from jaxehr.training.steps import mean_loss
from jaxehr.training.turns import Layout

KEY = jax.random.key(2)
DATA, VALID = linear_data(0), linear_data(1, count=6)


def run(objective=NOISY, **options):
    fields = {"config": config(), "valid": VALID} | options
    return train(KEY, objective, DATA, **fields)


@functools.cache
def uninterrupted():
    return run()


@pytest.fixture
def one_step_a_dispatch(monkeypatch):
    monkeypatch.setattr(loop, "DISPATCH_SECONDS", 0.0)


def stop_at(step, number=signal.SIGTERM):
    def callback(now, metrics):
        if now == step:
            os.kill(os.getpid(), number)

    return callback


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 8, 10, 11, 12])
def test_stopped_and_resumed(tmp_path, one_step_a_dispatch, stop):
    folder = str(tmp_path / "checkpoints")
    with pytest.raises(Stopped, match=f"stopped at step {stop}") as caught:
        run(callbacks=[stop_at(stop)], checkpoint=folder)
    assert caught.value.signum == signal.SIGTERM
    assert caught.value.step == stop
    steps = []
    done = run(callbacks=[lambda step, _: steps.append(step)], checkpoint=folder)
    assert steps == list(range(stop + 1, 13))
    same_bits(done.state, uninterrupted().state)
    same_bits(done.params, uninterrupted().params)


def test_a_signal_during_the_last_save_stops_too(tmp_path, monkeypatch):
    """Further stages may follow."""
    folder, save = str(tmp_path / "checkpoints"), loop.Checkpoints.save

    def interrupted(self, step, *rest):
        save(self, step, *rest)
        if step == 12:
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.Checkpoints, "save", interrupted)
    with pytest.raises(Stopped, match="stopped at step 12"):
        run(config=config(checkpoint_every=4), checkpoint=folder)
    same_bits(run(checkpoint=folder).state, uninterrupted().state)


def test_stopped_after_every_step(tmp_path, one_step_a_dispatch):
    folder = str(tmp_path / "checkpoints")
    for stop in range(1, 6):
        with pytest.raises(Stopped):
            run(callbacks=[stop_at(stop, signal.SIGINT)], checkpoint=folder)
    same_bits(run(checkpoint=folder).state, uninterrupted().state)


def test_a_crash_goes_back_to_the_last_checkpoint(tmp_path, one_step_a_dispatch):
    folder, steps = str(tmp_path / "checkpoints"), []

    def crash(step, metrics):
        if step == 8:
            raise RuntimeError("the cable")

    with pytest.raises(RuntimeError, match="the cable"):
        run(callbacks=[crash], checkpoint=folder)
    done = run(callbacks=[lambda step, _: steps.append(step)], checkpoint=folder)
    assert steps[0] == 6
    same_bits(done.state, uninterrupted().state)


def test_a_finished_run_does_nothing_more(tmp_path):
    folder = str(tmp_path / "checkpoints")
    run(checkpoint=folder)
    done = run(checkpoint=folder, callbacks=[lambda *_: pytest.fail("a step")])
    same_bits(done.state, uninterrupted().state)


def test_signal_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped):
        run(callbacks=[stop_at(1)])
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_steps_a_dispatch_do_not_change_a_bit(one_step_a_dispatch):
    steps = []
    single = run(callbacks=[lambda step, _: steps.append(step)])
    assert steps == list(range(1, 13))
    same_bits(single.state, uninterrupted().state)


def test_dispatches_end_at_events(monkeypatch):
    """Validation every 4 steps, checkpoints every 5; the first dispatch is one step."""
    monkeypatch.setattr(loop, "DISPATCH_SECONDS", 1e6)  # on however slow a machine
    steps = []
    run(callbacks=[lambda step, _: steps.append(step)])
    assert steps == [1, 4, 5, 8, 10, 12]


def test_the_estimate_changes_nothing():
    lines = []
    done = run(announce=lines.append)
    same_bits(done.state, uninterrupted().state)
    assert len(lines) == 1
    assert lines[0].startswith("estimate: 12 steps of ")
    assert "MiB of work space on each device" in lines[0]


@pytest.mark.parametrize("at_once", [True, False])
def test_nan_stops_with_the_step(monkeypatch, tmp_path, at_once):
    """w grows by 0.3 a step, and the loss is NaN from w >= 1 on: at step 5."""
    if not at_once:
        monkeypatch.setattr(loop, "DISPATCH_SECONDS", 0.0)
    objective = Objective(
        lambda key, batch: {"w": jnp.zeros(1)},
        lambda params, key, batch: (
            jnp.where(params["w"][0] >= 1, jnp.nan, -params["w"][0]),
            {},
        ),
    )
    settings = config(learning_rate=0.3, eval_every=100, checkpoint_every=100)
    folder = str(tmp_path / "checkpoints")
    with pytest.raises(FloatingPointError, match="loss is nan at step 5;"):
        run(objective, config=settings, valid=None, checkpoint=folder)


def test_nan_in_validation_stops():
    bad = (VALID[0], VALID[1] * jnp.nan)
    with pytest.raises(FloatingPointError, match="validation loss is nan at step 4"):
        run(valid=bad)


def test_the_best_average_is_returned():
    """Validation targets of other weights: the loss falls first and rises again."""
    x = VALID[0]
    wanted = (x, x @ jnp.array([0.2, -0.4, 0.1]))
    settings = config(steps=60, eval_every=3, learning_rate=0.1)
    losses = {}
    done = run(
        EXACT,
        config=settings,
        valid=wanted,
        callbacks=[lambda step, m: losses.setdefault(step, m.get("valid_loss"))],
    )
    judged = {step: loss for step, loss in losses.items() if loss is not None}
    assert list(judged) == list(range(3, 61, 3))
    best = min(judged, key=judged.__getitem__)
    assert best < 60
    assert int(done.state.best_step) == best
    same_bits(done.params, done.state.best_params)
    again = mean_loss(EXACT, settings, KEY, done.params, wanted)
    np.testing.assert_allclose(again, judged[best], rtol=1e-6)


def test_without_validation_the_last_average_is_returned():
    done = run(valid=None)
    same_bits(done.params, done.state.ema_params)
    assert int(done.state.best_step) == 0


def test_the_last_average_is_judged():
    done = run(EXACT, config=config(steps=5, eval_every=4))
    assert int(done.state.best_step) == 5


def test_callbacks_hear_of_time_and_steps():
    heard = []
    run(callbacks=[lambda step, metrics: heard.append((step, metrics))])
    assert all(metrics["steps_left"] == 12 - step for step, metrics in heard)
    seconds = [metrics["seconds"] for _, metrics in heard]
    assert seconds == sorted(seconds)
    assert all({"loss", "size"} <= set(metrics) for _, metrics in heard)


def test_time_is_up(tmp_path):
    folder = str(tmp_path / "checkpoints")
    done = run(
        config=config(steps=10**9, max_minutes=0.3 / 60), valid=None, checkpoint=folder
    )
    step = int(done.state.step)
    assert 0 < step < 10**9
    assert done.seconds < 10
    # Seconds before a stop count: the same time does not begin again.
    again = run(
        config=config(steps=10**9, max_minutes=0.3 / 60), valid=None, checkpoint=folder
    )
    assert int(again.state.step) == step


def test_nothing_compiles_after_the_first_validation():
    counts = {}
    done = run(
        EXACT,
        config=config(steps=20),
        announce=lambda _: counts.setdefault(0, compilations[0]),
        callbacks=[lambda step, _: counts.setdefault(step, compilations[0])],
    )
    assert int(done.state.step) == 20
    # The estimate compiled the step; the first validation compiles its program.
    assert counts[4] - counts[0] <= 1
    assert counts[5] == counts[20] == counts[4]


TWO_DEVICES = """
    import sys
    import jax
    import numpy as np
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    import objectives
    from objectives import config, linear_data
    from jaxehr.training.loop import train

    assert jax.device_count() == int(sys.argv[1])
    rows = {"batch_size": 16, "chunk_rows": int(sys.argv[6])}
    settings = config(**rows, eval_every=3, steps=int(sys.argv[4]))
    # Three chunks of four: the last one of the second device is none.
    data, valid = linear_data(0), linear_data(1, count=10)
    kept = {"checkpoint": sys.argv[3]} if sys.argv[3] else {}
    objective = getattr(objectives, sys.argv[5])
    key = jax.random.key(2)
    done = train(key, objective, data, config=settings, valid=valid, **kept)
    np.savez(sys.argv[2], *map(np.asarray, jax.tree.leaves(done.state)))
"""


@pytest.fixture
def leaves(tmp_path):
    """(devices, ...) -> the state that training on so many devices ends in."""
    here = pathlib.Path(__file__).parent
    root = str(here.parent.parent)
    folders = os.pathsep.join([str(here), root, os.environ.get("PYTHONPATH", "")])

    def run(devices, steps=12, checkpoint="", objective="NOISY", chunk=4):
        path = tmp_path / "leaves.npz"
        words = [devices, path, checkpoint, steps, objective, chunk]
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(TWO_DEVICES), *map(str, words)],
            check=True,
            env=os.environ | {"PYTHONPATH": folders, "JAX_PLATFORMS": "cpu"},
        )
        with np.load(path) as archive:
            return list(archive.values())

    return run


def test_two_devices_give_what_one_gives_also_after_a_change(tmp_path, leaves):
    """The same chunks with the same keys, summed in another order: rounding only."""
    checkpoint = str(tmp_path / "checkpoints")
    leaves(2, 6, checkpoint)  # two devices begin, one goes on
    found = [leaves(1), leaves(2), leaves(1, 12, checkpoint)]
    for one, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_batch_that_stays_whole_is_the_same_on_two_devices(leaves):
    """Half of it would be normalised by other moments."""
    one, two = (leaves(devices, 12, "", "CENTRED", 16) for devices in (1, 2))
    same_bits(one, two)


def test_a_job_whose_processes_hold_other_patients_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    mesh, data = make_mesh(1), (np.ones((3, 2)), np.zeros((3, 0)), np.int32(4))
    monkeypatch.setattr(sharding, "agreed", lambda mine: np.stack([mine, mine]))
    for one, other in zip(sharding.replicate_checked(data, mesh), data, strict=True):
        np.testing.assert_array_equal(one, other)
    moved = lambda mine: np.stack([mine, mine + np.uint32([0, 0, 1])])
    monkeypatch.setattr(sharding, "agreed", moved)
    with pytest.raises(InputError, match="do not hold the same patients or parameters"):
        sharding.replicate_checked(data, mesh)


def test_a_job_whose_batch_leaves_devices_idle_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(loop, "make_mesh", lambda *_: types.SimpleNamespace(size=4))
    assert loop.plan(NOISY, config(batch_size=4), linear_data(0))[1].devices == 4
    with pytest.raises(InputError, match="a batch of 3 patients leaves some of the 4"):
        loop.plan(NOISY, config(batch_size=3), linear_data(0))
    mesh, cut = loop.plan(CENTRED, config(batch_size=3), linear_data(0))
    assert (mesh.size, cut.devices) == (4, 1)  # each does the same


def test_stages_of_other_lengths_share_their_programs_at_a_constant_rate():
    layout, mesh = Layout(2, 1, 1), make_mesh(1)
    share = lambda **fields: loop.shared(NOISY, config(**fields), layout, mesh)
    assert share(steps=10) is share(steps=11, max_minutes=1.0)
    for moving in ({"lr_schedule": "cosine"}, {"warmup_steps": 100}):
        assert share(steps=10, **moving) is not share(steps=11, **moving)
