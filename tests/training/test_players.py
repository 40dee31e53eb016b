"""Players in turns: one step by hand, batches, chunks, resume, NaN, a toy GAN."""

import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from objectives import compilations, config, same_bits

from jaxehr.core.contracts import Objective, Player
from jaxehr.training import loop
from jaxehr.training.loop import Stopped, train
from jaxehr.training.steps import init_state
from jaxehr.training.turns import layout, optimisers

KEY = jax.random.key(4)
RATE, PULL = 0.1, 0.5


def plain(settings):
    return optax.sgd(settings.learning_rate)


def duel(updates=(1, 1), optimiser=plain):
    """Critic c and generator g of mean m = E[x]: c climbs c (m - g), g climbs c g.

    Both losses are linear in the batch, so every move is known by hand.
    """

    def critic(params, key, batch):
        gap = jnp.mean(batch) - params["generator"]
        return -params["critic"] * gap + PULL * params["critic"] ** 2, {"gap": gap}

    def generator(params, key, batch):
        return -params["critic"] * params["generator"], {}

    start = lambda key, batch: {"critic": jnp.ones(()), "generator": jnp.zeros(())}
    watched = lambda params, key, batch: (
        (jnp.mean(batch) - params["generator"]) ** 2,
        {},
    )
    return Objective(
        start,
        watched,
        players=(
            Player("critic", critic, ("critic",), updates[0], optimiser),
            Player("generator", generator, ("generator",), updates[1], optimiser),
        ),
    )


SMALL = config(steps=12, learning_rate=RATE, batch_size=4, chunk_rows=2)
DATA = jnp.asarray(np.random.default_rng(0).normal(3.0, 1.0, 8), jnp.float32)


def steps_by_hand(batches, updates):
    """(c, g) after each step; `batches` yields the mean of the next batch."""
    c, g, states = 1.0, 0.0, []
    for _ in range(SMALL.steps):
        for _ in range(updates[0]):
            c += RATE * (next(batches) - g - 2 * PULL * c)
        for _ in range(updates[1]):
            next(batches)
            g += RATE * c  # the critic that has just moved
        states.append((c, g))
    return states


def means_of_batches(total):
    """Means of the batches in the order in which training takes them."""
    order_key = jax.random.split(jax.random.split(KEY, 3)[1])[0]
    per_epoch = len(DATA) // SMALL.batch_size
    for number in range(total):
        key = jax.random.fold_in(order_key, number // per_epoch)
        order = np.asarray(jax.random.permutation(key, len(DATA)))
        start = number % per_epoch * SMALL.batch_size
        yield float(DATA[order[start : start + SMALL.batch_size]].mean())


@pytest.mark.parametrize("updates", [(1, 1), (3, 1), (2, 2)])
def test_steps_by_hand(updates):
    """The generator sees the critic that has moved; every update has its own batch."""
    done = train(KEY, duel(updates), DATA, config=SMALL)
    c, g = steps_by_hand(means_of_batches(SMALL.steps * sum(updates)), updates)[-1]
    np.testing.assert_allclose(done.state.params["critic"], c, rtol=1e-5)
    np.testing.assert_allclose(done.state.params["generator"], g, rtol=1e-5)
    assert int(done.state.step) == SMALL.steps


def test_metrics_carry_the_name_of_the_player():
    heard = []
    train(
        KEY, duel((2, 1)), DATA, config=SMALL, callbacks=[lambda _, m: heard.append(m)]
    )
    assert {"critic_loss", "critic_gap", "generator_loss"} <= set(heard[0])
    for told in heard:
        total = told["critic_loss"] + told["generator_loss"]
        np.testing.assert_allclose(told["loss"], total, rtol=1e-5)


def test_validation_measures_the_loss_of_the_objective():
    heard = []
    tell = lambda _, m: heard.append(m.get("valid_loss"))
    done = train(KEY, duel(), DATA, config=SMALL, valid=DATA[:2], callbacks=[tell])
    best = min(loss for loss in heard if loss is not None)
    gap = float(DATA[:2].mean() - done.params["generator"]) ** 2
    np.testing.assert_allclose(gap, best, rtol=1e-5)


def test_each_player_has_an_optimiser_of_its_own():
    objective = duel(optimiser=None)
    state = init_state(objective, SMALL, objective.init(KEY, DATA))
    assert len(state.opt_state) == 2
    shapes = [len(jax.tree.leaves(one)) for one in state.opt_state]
    assert shapes == [3, 3]  # count and two moments of one number each
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(places)) == len(places)


# ---- a toy GAN: N(2, 0.5^2) by an affine generator and a quadratic critic


def scores(params, x):
    return params[0] * x + params[1] * x**2


def noisy_gan():
    def draw(params, key, rows):
        z = jax.random.normal(key, (rows,))
        return params["generator"][0] + params["generator"][1] * z

    def critic(params, key, batch):
        made = scores(params["critic"], draw(params, key, len(batch)))
        real = scores(params["critic"], batch)
        return jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(made)), {}

    def generator(params, key, batch):
        made = scores(params["critic"], draw(params, key, len(batch)))
        return jnp.mean(jax.nn.softplus(-made)), {}

    start = lambda key, batch: {
        "critic": jnp.zeros(2),
        "generator": jnp.array([0.0, 1.0]),
    }
    decayed = lambda settings: optax.adamw(
        settings.learning_rate, b1=0.5, weight_decay=0.5
    )
    return Objective(
        start,
        generator,
        players=(
            Player("critic", critic, ("critic",), 2, decayed),
            Player("generator", generator, ("generator",)),
        ),
    )


GAN = noisy_gan()
REAL = jnp.asarray(np.random.default_rng(1).normal(2.0, 0.5, 2048), jnp.float32)
LONG = config(
    steps=600, learning_rate=0.02, batch_size=256, chunk_rows=128, ema_decay=0.98
)


@functools.cache
def uninterrupted():
    return train(KEY, GAN, REAL, config=LONG)


def test_a_toy_gan_finds_mean_and_deviation():
    """Of 2,048 values; the average of the generator circles the solution closely."""
    mean, std = uninterrupted().params["generator"]
    assert abs(float(mean) - 2.0) < 0.15
    assert abs(abs(float(std)) - 0.5) < 0.15


def test_stopped_and_resumed_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "DISPATCH_SECONDS", 1e-9)
    short = config(steps=12, batch_size=256, chunk_rows=128)
    wanted = train(KEY, GAN, REAL, config=short)
    folder = str(tmp_path / "checkpoints")

    def stop(step, metrics):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="stopped at step 7"):
        train(KEY, GAN, REAL, config=short, callbacks=[stop], checkpoint=folder)
    done = train(KEY, GAN, REAL, config=short, checkpoint=folder)
    same_bits(done.state, wanted.state)


def test_nan_of_any_player_stops_with_the_step():
    """The generator's loss is NaN once it has passed a point: after step 2."""
    (_, before), (_, after) = steps_by_hand(means_of_batches(24), (1, 1))[:2]

    def broken(params, key, batch):
        loss = -params["critic"] * params["generator"]
        passed = params["generator"] > (before + after) / 2
        return jnp.where(passed, jnp.nan, loss), {}

    whole = duel()
    first, second = whole.players
    bad = whole._replace(players=(first, second._replace(loss=broken)))
    with pytest.raises(FloatingPointError, match="loss is nan at step 3;"):
        train(KEY, bad, DATA, config=SMALL)


def test_nothing_compiles_after_the_first_step():
    counts = {}
    settings = config(steps=8, eval_every=100, checkpoint_every=100)
    tell = lambda step, _: counts.setdefault(step, compilations[0])
    train(KEY, duel((2, 1)), DATA, config=settings, callbacks=[tell])
    assert counts[8] == counts[1]


@pytest.mark.parametrize("chunk_rows", [8, 2])
def test_chunks_add_up_for_every_player(chunk_rows):
    settings = config(steps=5, batch_size=8, chunk_rows=chunk_rows)
    done = train(KEY, duel((2, 1)), DATA, config=settings)
    whole = train(KEY, duel((2, 1)), DATA, config=config(steps=5, chunk_rows=4))
    assert layout(settings, 8).chunks == 8 // chunk_rows
    for one, two in zip(jax.tree.leaves(done.params), jax.tree.leaves(whole.params)):
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_a_rate_that_falls_does_so_over_a_player_s_own_updates():
    """Four updates in each of three steps: the last one still moves."""
    settings = config(steps=3, lr_schedule="linear", learning_rate=0.1)
    objective = duel((4, 1), None)
    tx = optimisers(objective, settings)[0]
    weight = {"critic": jnp.zeros(())}
    state, moves = tx.init(weight), []
    for _ in range(12):
        move, state = tx.update({"critic": jnp.ones(())}, state, weight)
        moves.append(-float(move["critic"]))
    np.testing.assert_allclose(moves, 0.1 * (1 - np.arange(12) / 12), rtol=1e-4)
