"""Data that are fed chunk by chunk train the same bits as data in memory."""

import functools
import importlib.util
import os
import signal
import time

import jax
import numpy as np
import pytest
from objectives import NOISY, config, linear_data, noisy_loss, same_bits

from jaxehr.core.checks import InputError
from jaxehr.core.contracts import Player
from jaxehr.training import feed, loop
from jaxehr.training.feed import Feed, load_grain
from jaxehr.training.loop import Stopped, train

KEY = jax.random.key(2)
COUNT = 20  # 2 batches an epoch: 12 steps are 6 epochs
DATA, VALID = linear_data(0, COUNT), linear_data(1, count=6)
HOST = tuple(np.asarray(leaf) for leaf in DATA)
needs_grain = pytest.mark.skipif(
    importlib.util.find_spec("grain") is None, reason="Grain is needed (extra `shards`)"
)
PLAYERS = NOISY._replace(
    players=(
        Player("one", noisy_loss, moves=("w",), updates=2),
        Player("two", noisy_loss, moves=("w",)),
    )
)


@pytest.fixture
def chunks(monkeypatch):
    """Sets how many steps a chunk holds."""
    return lambda steps: monkeypatch.setattr(
        feed, "CHUNK_BYTES", steps * 8 * sum(leaf[0].nbytes for leaf in HOST)
    )


def read(rows):
    return tuple(leaf[rows] for leaf in HOST)


def run(data, objective=NOISY, **options):
    fields = {"config": config(), "valid": VALID} | options
    return train(KEY, objective, data, **fields)


@functools.cache
def in_memory(objective=NOISY):
    return run(DATA, objective)


@needs_grain
@pytest.mark.parametrize("steps", [1, 3, 5, 64])
def test_fed_is_in_memory(chunks, steps):
    chunks(steps)
    done = run(Feed(COUNT, read))
    same_bits(done.state, in_memory().state)
    same_bits(done.params, in_memory().params)


@needs_grain
def test_players_take_their_batches_in_turn(chunks):
    chunks(6)  # batches of 3 a step: 2 steps a chunk
    same_bits(run(Feed(COUNT, read), PLAYERS).state, in_memory(PLAYERS).state)


@needs_grain
def test_dispatches_end_with_the_chunk(chunks, monkeypatch):
    monkeypatch.setattr(loop, "DISPATCH_SECONDS", 1e9)  # however slow the first one is
    chunks(3)
    steps = []
    run(Feed(COUNT, read), callbacks=[lambda step, _: steps.append(step)])
    assert steps == [1, 3, 4, 5, 6, 8, 9, 10, 12]


@needs_grain
@pytest.mark.parametrize("stop", [1, 3, 4, 7, 11])
def test_stopped_in_a_chunk_and_resumed(chunks, monkeypatch, tmp_path, stop):
    monkeypatch.setattr(loop, "DISPATCH_SECONDS", 0.0)
    chunks(3)
    seen = []

    def counted(rows):
        seen.append(len(rows))
        return read(rows)

    def callback(now, _):
        if now == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    folder = str(tmp_path / "checkpoints")
    with pytest.raises(Stopped):
        run(Feed(COUNT, read), callbacks=[callback], checkpoint=folder)
    chunks(4)  # the size of a chunk is not part of the run
    done = run(Feed(COUNT, counted), checkpoint=folder)
    same_bits(done.state, in_memory().state)
    assert seen.count(32) <= 3 - stop // 4  # it does not read from the start


@needs_grain
def test_patients_are_read_in_every_epoch_once(chunks):
    """Of each epoch 16 of 20 people are taken, others each time."""
    chunks(2)
    seen = []

    def told(rows):
        seen.append(rows)
        return read(rows)

    run(Feed(COUNT, told), config=config(steps=12))
    epochs = {tuple(rows) for rows in seen if len(rows) == 16}
    assert len(epochs) == 6
    assert all(len(set(rows)) == 16 for rows in epochs)


@needs_grain
@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_the_share_of_waiting_is_told(chunks, pause):
    chunks(2)
    heard = []

    def slow(rows):
        time.sleep(pause)
        return read(rows)

    run(Feed(COUNT, slow), callbacks=[lambda _, told: heard.append(told["waiting"])])
    assert all(0.0 <= share <= 1.0 for share in heard)
    assert not pause or heard[-1] > 0.0


def test_data_in_memory_are_not_waited_for():
    heard = []
    run(DATA, callbacks=[lambda _, told: heard.append(told)])
    assert not any("waiting" in told for told in heard)


def test_without_grain_one_clear_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "grain", None)
    with pytest.raises(InputError, match=r'pip install "jaxehr\[shards\]", or raise'):
        load_grain()
