"""A training that is killed, stopped or interrupted goes on to the same bits."""

import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxehr.cli import Terminated, ended_by_signals, main

STEPS = 60
OPTIONS = ["--hidden", "4", "--num-layers", "1", "--steps", str(STEPS)]
OPTIONS += ["--checkpoint-every", "10", "--eval-every", "10", "--batch-size", "32"]
# One step a dispatch, each slowed down: a signal falls into the middle for certain.
SLOW = """
import sys, time
import jaxehr.training.loop as loop
loop.DISPATCH_SECONDS = 0.0
from jaxehr.runs import training
plain = training.json_lines
def slow(path):
    write = plain(path)
    def then_wait(step, metrics):
        write(step, metrics)
        time.sleep(0.05)
    return then_wait
training.json_lines = slow
from jaxehr.cli import Terminated, ended_by_signals, main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A cohort."""
    folder = tmp_path_factory.mktemp("resume")
    words = ["prepare", "simulate", "--n", "120", "--steps", "4", "--no-static"]
    assert main([*words, "--numeric", "1", "--out", str(folder / "cohort")]) == 0
    return folder


def start(folder: pathlib.Path, out: str) -> subprocess.Popen:
    words = ["train", "cdmt", str(folder / "cohort"), "--out", str(folder / out)]
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, *words, *OPTIONS],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return errors


def wait_for_step(process: subprocess.Popen, path: pathlib.Path, step: int) -> None:
    """Returns once the metrics of `step` are on disk."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        if path.is_file() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"no step {step} within two minutes")


def steps_of(path: pathlib.Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(folder) -> bytes:
    """The parameters of a run that nothing disturbed."""
    finish(start(folder, "whole"))
    assert steps_of(folder / "whole" / "metrics.jsonl") == list(range(1, STEPS + 1))
    return (folder / "whole" / "params.npz").read_bytes()


def test_kill_9_and_the_same_command_end_in_the_same_bits(folder, whole):
    run = folder / "killed"
    for step in (5, 25):  # before and after the first checkpoint
        process = start(folder, "killed")
        wait_for_step(process, run / "metrics.jsonl", step)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert not (run / "params.npz").exists()
    finish(start(folder, "killed"))
    assert (run / "params.npz").read_bytes() == whole
    assert steps_of(run / "metrics.jsonl") == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_saves_and_the_same_command_goes_on(folder, whole, number, code):
    name = f"stopped-{code}"
    run = folder / name
    process = start(folder, name)
    wait_for_step(process, run / "metrics.jsonl", 13)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    lines = [line for line in errors.splitlines() if line.startswith("jaxehr:")]
    done = steps_of(run / "metrics.jsonl")[-1]
    assert lines == [
        f"jaxehr: stopped at step {done}, saved; the same command goes on."
    ]
    assert "Traceback" not in errors
    assert (run / "checkpoints" / str(done)).is_dir()
    if number == signal.SIGINT:
        return  # the rest is the same, and takes time
    finish(start(folder, name))
    assert (run / "params.npz").read_bytes() == whole
    assert steps_of(run / "metrics.jsonl") == list(range(1, STEPS + 1))


def test_a_signal_before_the_first_step_is_one_line_too(folder):
    process = start(folder, "early")
    end = time.monotonic() + 60
    while not (folder / "early" / "run.json").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("jaxehr:")


class Finalized:
    """Gets the signal when it is thrown away."""

    def __init__(self, times):
        self.times = times

    def __del__(self):
        if self.times:
            Finalized(self.times - 1)
            signal.raise_signal(signal.SIGTERM)


def collected(phase, info):
    """Gets the signal in each phase of a collection."""
    signal.raise_signal(signal.SIGTERM)


def in_a_finalizer():
    Finalized(3)


def in_a_collection():
    gc.callbacks.append(collected)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(collected)


@pytest.mark.parametrize("swallowing", [in_a_finalizer, in_a_collection])
def test_a_signal_that_the_interpreter_swallows_is_not_lost(swallowing):
    """What is raised in finalizers and in collections is ignored: JAX has both."""

    def work():
        swallowing()
        time.sleep(5.0)

    with pytest.raises(Terminated), ended_by_signals():
        work()
