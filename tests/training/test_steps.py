"""Optimiser steps against NumPy: Adam, average, chunks, order of patients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import (
    EXACT,
    NOISY,
    compilations,
    config,
    linear_data,
    same_bits,
    start,
)

from jaxehr.core.contracts import Objective
from jaxehr.training.loop import programs
from jaxehr.training.sharding import make_mesh
from jaxehr.training.steps import init_state, keep_best, mean_loss
from jaxehr.training.turns import (
    Layout,
    accumulate,
    alike,
    layout,
    optimiser,
    optimisers,
    players_of,
)

KEY = jax.random.key(5)
(ALONE,) = players_of(EXACT)


@functools.cache
def compiled(objective, settings, count):
    cut = layout(settings, count)
    return programs(objective, settings, cut, make_mesh(1))


def begin(settings, data, objective=EXACT):
    params = objective.init(jax.random.key(1), data)
    return init_state(objective, settings, params)


def advance(objective, settings, data, numbers):
    """The states after each dispatch of so many steps."""
    step = compiled(objective, settings, data[0].shape[0]).step
    state, states = begin(settings, data, objective), []
    for num in numbers:
        state, loss, metrics = step(KEY, state, data, jnp.int32(num))
        kept = jax.tree.map(lambda leaf: np.array(leaf), state)
        states.append((kept, float(loss), metrics))
    return states


@pytest.mark.parametrize(
    ("batch", "chunk", "num", "devices", "wanted"),
    [
        (256, 128, 1000, 1, (128, 2, 1)),
        (200, 128, 1000, 1, (100, 2, 1)),
        (129, 128, 1000, 1, (129, 1, 1)),
        (4096, 128, 100, 1, (100, 1, 1)),
        (4096, 128, 1, 1, (1, 1, 1)),
        (4096, 128, 1, 4, (1, 1, 1)),
        (4096, 128, 3, 4, (1, 1, 2)),
        (4096, 128, 10_000, 2, (128, 16, 2)),
        (9, 4, 1000, 2, (4, 1, 2)),
        (8, 1, 1000, 2, (1, 4, 2)),
    ],
)
def test_layout(batch, chunk, num, devices, wanted):
    cut = layout(config(batch_size=batch, chunk_rows=chunk), num, devices)
    assert (cut.rows, cut.chunks, cut.devices) == wanted
    assert cut.batch == cut.rows * cut.chunks * cut.devices <= min(batch, num)


def test_adam_by_hand():
    settings = config(batch_size=8, chunk_rows=8, learning_rate=0.1)
    x, y = linear_data(count=8)
    w = np.array(begin(settings, (x, y)).params["w"], np.float64)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    m = v = 0.0
    states = advance(EXACT, settings, linear_data(count=8), [1] * 6)
    for n, (state, loss, _) in enumerate(states, 1):
        np.testing.assert_allclose(loss, np.mean((x @ w - y) ** 2), rtol=1e-5)
        grad = 2 * x.T @ (x @ w - y) / 8
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        step = 0.1 * (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
        w = w - step
        # optax takes 1 - 0.999^n in float32: 3e-5 of a step of 0.1, six times.
        np.testing.assert_allclose(state.params["w"], w, atol=2e-5)
        assert state.step == n


@pytest.mark.parametrize(("unit", "every"), [("step", 1), ("epoch", 2)])
def test_average_in_closed_form(unit, every):
    """e <- d e + (1 - d) p at each move m, with d = min(.5, (1 + m) / (10 + m))."""
    settings = config(ema_unit=unit)  # 20 // 8 = 2 steps an epoch
    data = linear_data()
    average = np.array(begin(settings, data).params["w"], np.float64)
    for n, (state, *_) in enumerate(advance(EXACT, settings, data, [1] * 12), 1):
        if n % every == 0:
            moves = n // every
            decay = min(0.5, (1 + moves) / (10 + moves))
            average = decay * average + (1 - decay) * state.params["w"]
        np.testing.assert_allclose(state.ema_params["w"], average, rtol=2e-6)


@pytest.mark.parametrize("cut", [(2, 4, 1), (4, 2, 1), (1, 8, 1)])
def test_chunks_add_up_to_the_batch(cut):
    data = linear_data()
    params = EXACT.init(KEY, data)
    rows = jnp.arange(8)
    whole = accumulate(EXACT, ALONE, Layout(8, 1, 1), None)(params, KEY, data, rows)
    parts = accumulate(EXACT, ALONE, Layout(*cut), None)(params, KEY, data, rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), parts, whole)


def test_every_chunk_has_its_own_noise():
    data = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 8, 0), linear_data())
    loss = lambda params, key, batch: (jax.random.normal(key), {})
    noisy = Objective(start, loss)
    run = accumulate(noisy, players_of(noisy)[0], Layout(2, 4, 1), None)
    params = start(KEY, data)
    wanted = np.mean([jax.random.normal(jax.random.fold_in(KEY, i)) for i in range(4)])
    found = run(params, KEY, data, jnp.arange(8))[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(("count", "seen"), [(16, 16), (20, 16)])
def test_rows_of_an_epoch(count, seen):
    """Each row at most once an epoch, and every one when the batch divides them."""
    data = (jnp.ones((count, 3)), jnp.arange(count))

    def loss(params, key, batch):
        rows = jax.nn.one_hot(batch[1], count).sum(0)
        return jnp.sum(params["w"]), {"rows": rows}

    settings = config()
    states = advance(Objective(start, loss), settings, data, [1] * 4)
    rows = np.array([np.asarray(metrics["rows"]) * 2 for *_, metrics in states])
    epochs = rows.reshape(2, 2, count).sum(1)  # 2 chunks a step, 2 steps an epoch
    assert epochs.max() == 1
    np.testing.assert_array_equal(epochs.sum(1), [seen, seen])
    assert (rows[0] != rows[2]).any()  # another order in the next epoch


def test_steps_a_dispatch_do_not_change_a_bit():
    data, settings = linear_data(), config()
    wanted = advance(NOISY, settings, data, [12])[-1][0]
    for numbers in ([1] * 12, [5, 7], [3, 3, 1, 5]):
        same_bits(advance(NOISY, settings, data, numbers)[-1][0], wanted)


def test_losses_and_metrics_are_means_over_the_steps():
    data, settings = linear_data(), config()
    single = advance(NOISY, settings, data, [1] * 6)
    *_, (_, loss, metrics) = advance(NOISY, settings, data, [2, 4])
    np.testing.assert_allclose(loss, np.mean([s[1] for s in single[2:]]), rtol=1e-6)
    sizes = np.mean([float(s[2]["size"]) for s in single[2:]])
    np.testing.assert_allclose(metrics["size"], sizes, rtol=1e-6)


def test_another_number_of_steps_compiles_nothing():
    data, settings = linear_data(), config()
    advance(NOISY, settings, data, [3])
    before = compilations[0]
    advance(NOISY, settings, data, [5])
    step = compiled(NOISY, settings, 20).step
    assert step._cache_size() == 1
    assert compilations[0] == before


def test_the_host_is_not_asked_during_a_dispatch():
    data, settings = linear_data(), config()
    advance(NOISY, settings, data, [1])
    step, state, num = (
        compiled(NOISY, settings, 20).step,
        begin(settings, data, NOISY),
        jnp.int32(6),
    )
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(step(KEY, state, data, num))
    text = step.lower(KEY, begin(settings, data, NOISY), data, num).as_text()
    for word in ("callback", "infeed", "outfeed", "send", "recv"):
        assert word not in text


def test_the_donated_state_shares_no_buffer():
    for fields in ({}, {"weight_decay": 0.1, "clip_norm": 1.0, "warmup_steps": 3}):
        state = begin(config(**fields), linear_data())
        places = [
            leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state) if leaf.size
        ]
        assert len(set(places)) == len(places)


def test_the_average_with_the_lowest_loss_is_kept():
    state = begin(config(), linear_data())
    losses = [3.0, 2.0, float("nan"), 2.0, 5.0, 1.5]
    kept = []
    for n, loss in enumerate(losses, 1):
        params = {"w": jnp.full(3, float(n)), "empty": jnp.zeros((0, 2))}
        state = state._replace(step=jnp.int32(n), ema_params=params)
        state = keep_best(state, jnp.float32(loss))
        kept.append((int(state.best_step), float(state.best_params["w"][0])))
    assert kept == [(1, 1), (2, 2), (2, 2), (2, 2), (2, 2), (6, 6)]
    assert float(state.best_loss) == 1.5


def test_validation_covers_the_rows_in_turn():
    """5 rows, chunks of 2, two draws: rows 0 1 | 2 3 | 4 0 | 1 2 | 3 4 | 0 1."""
    x, y = linear_data(count=5)
    params = EXACT.init(KEY, (x, y))
    settings = config(chunk_rows=2, valid_draws=2)
    square = np.asarray(x @ params["w"] - y) ** 2
    rows = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    found = mean_loss(EXACT, settings, KEY, params, (x, y))
    np.testing.assert_allclose(found, square[rows].mean(), rtol=1e-6)
    noisy = [mean_loss(NOISY, settings, KEY, params, (x, y)) for _ in range(2)]
    same_bits(*noisy)


def test_weight_decay_leaves_alone_what_the_objective_names():
    """Without a gradient decay alone moves: by the rate times the decay."""
    params = {"net": {"w": jnp.ones(2)}, "shape": jnp.ones(2), "none": {}}
    still = jax.tree.map(jnp.zeros_like, params)
    objective = EXACT._replace(undecayed=("shape", "none"))
    (tx,) = optimisers(objective, config(weight_decay=0.1))
    found, _ = tx.update(still, tx.init(params), params)
    np.testing.assert_allclose(found["net"]["w"], -0.05 * 0.1, rtol=1e-6)
    np.testing.assert_array_equal(found["shape"], 0.0)


def moves(settings, steps):
    """Updates of one weight of 1 under the constant gradient 1.

    Adam divides its first moment by the root of the second, both corrected: the update
    is minus the step size at every step.
    """
    tx, weight = optimiser(settings), {"w": jnp.ones(1)}
    state, found = tx.init(weight), []
    for _ in range(steps):
        update, state = tx.update({"w": jnp.ones(1)}, state, weight)
        found.append(-float(update["w"][0]))
    return np.array(found)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, np.full(8, 0.05)),
        ({"clip_norm": 0.1}, np.full(8, 0.05)),
        ({"warmup_steps": 4}, 0.05 * np.minimum(np.arange(8) / 4, 1)),
        ({"weight_decay": 0.1}, np.full(8, 0.05 * 1.1)),
        (
            {"lr_schedule": "cosine", "steps": 8},
            0.05 * (1 + np.cos(np.pi * np.arange(8) / 8)) / 2,
        ),
        (
            {"lr_schedule": "cosine", "steps": 8, "warmup_steps": 2},
            0.05 * np.array([0, 0.5, *(1 + np.cos(np.pi * np.arange(6) / 6)) / 2]),
        ),
        (
            {"lr_schedule": "linear", "steps": 8},
            0.05 * (1 - np.arange(8) / 8),
        ),
        (
            {"lr_schedule": "linear", "steps": 8, "warmup_steps": 2},
            0.05 * np.array([0, 0.5, *(1 - np.arange(6) / 6)]),
        ),
        # A warm-up is at most half of the steps.
        ({"warmup_steps": 100, "steps": 8}, 0.05 * np.minimum(np.arange(8) / 4, 1)),
    ],
)
def test_step_sizes(fields, wanted):
    np.testing.assert_allclose(moves(config(**fields), 8), wanted, rtol=2e-5, atol=1e-8)


def test_clipping_shrinks_the_gradient_to_its_norm():
    tx = optimiser(config(clip_norm=1.0))
    weight = {"w": jnp.zeros(2)}
    state = tx.update({"w": jnp.array([30.0, 40.0])}, tx.init(weight), weight)[1]
    first_moment = next(leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2,))
    np.testing.assert_allclose(first_moment, [0.06, 0.08], rtol=1e-6)


def test_the_first_bad_step_is_remembered():
    """w grows by 0.3 a step, and the loss is NaN from w >= 1 on: at step 5."""
    loss = lambda params, key, batch: (
        jnp.where(params["w"][0] >= 1, jnp.nan, -params["w"][0]),
        {},
    )
    init = lambda key, batch: {"w": jnp.zeros(1)}
    settings = config(learning_rate=0.3)
    for numbers in ([12], [2, 2, 1, 7]):
        states = advance(Objective(init, loss), settings, linear_data(), numbers)
        assert int(states[-1][0].bad_step) == 5


def test_chunks_hold_patients_of_like_length():
    lengths = jnp.array([9, 1, 5, 1, 9, 2, 5, 9])
    found = np.asarray(alike(lengths, 2))
    np.testing.assert_array_equal(found, [[1, 3], [2, 5], [0, 6], [4, 7]])


@pytest.mark.parametrize("devices", [1, 2])
def test_chunks_by_length_sum_to_the_gradient_of_the_batch(devices):
    """Every patient once, whichever chunk it is in; validation likewise."""
    x, y = linear_data()
    count = lambda data: (data[0][:, 0] * 10).astype(int)
    by_length = Objective(start, EXACT.loss, lengths=count)
    params = start(jax.random.key(1), (x, y))
    cut = Layout(2, 4 // devices, devices)
    rows, key = jnp.arange(8), jax.random.key(0)

    def both(objective):
        run = accumulate(objective, players_of(objective)[0], cut, "data")
        one = lambda _: run(params, key, (x, y), rows)
        return jax.vmap(one, axis_name="data")(jnp.arange(devices))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        both(by_length),
        both(EXACT),
    )
    for rows in (4, 3):  # 20 patients, twice: 3 do not divide them
        settings = config(chunk_rows=rows, valid_draws=2)

        def judged(objective, settings=settings):
            asked = objective, settings, key, params, (x, y), devices, "data"
            return jax.vmap(lambda _: mean_loss(*asked), axis_name="data")(
                jnp.arange(devices)
            )

        np.testing.assert_allclose(judged(by_length), judged(EXACT), rtol=1e-5)
