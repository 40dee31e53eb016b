"""Many seeds at once give what each seed gives alone."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.core.contracts import Objective
from jaxehr.training import many
from jaxehr.training.config import TrainConfig
from jaxehr.training.many import apply_many, fit_many, fit_one, fitting

CONFIG = TrainConfig(
    steps=25,
    batch_size=16,
    learning_rate=0.1,
    ema_decay=0.0,
    eval_every=10,
    valid_draws=1,
)


def squared_error(params, key, batch):
    x, y = batch
    return jnp.mean((x @ params - y) ** 2), {}


def draw_params(key, batch):
    return jax.random.normal(key, batch[0].shape[-1:])


LINEAR = Objective(draw_params, squared_error)


def linear_data(seed, count=40, noise=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5]) + noise * rng.normal(size=count)
    return x, y.astype(np.float32)


def test_each_seed_equals_its_own_training():
    keys = jax.random.split(jax.random.key(0), 3)
    data, valid = jax.tree.map(jnp.asarray, (linear_data(0), linear_data(1)))
    many = fit_many(keys, LINEAR, data, config=CONFIG, valid=valid)
    one = jax.jit(lambda k: fit_one(k, LINEAR, CONFIG, data, valid))
    alone = np.stack([one(key) for key in keys])
    np.testing.assert_allclose(many, alone, rtol=1e-5, atol=1e-6)
    assert np.std(alone, 0).min() > 0  # seeds differ


def test_own_data_equal_own_rows_of_shared_data():
    keys = jax.random.split(jax.random.key(0), 3)
    data = linear_data(0, 60, noise=1.0)
    rng = np.random.default_rng(5)
    order = np.stack([rng.permutation(60) for _ in range(3)])
    rows = order[:, :40], order[:, 40:50]
    by_rows = fit_many(keys, LINEAR, data, config=CONFIG, rows=rows)
    own, own_valid = (tuple(leaf[r] for leaf in data) for r in rows)
    by_data = fit_many(keys, LINEAR, own, config=CONFIG, valid=own_valid, shared=False)
    np.testing.assert_allclose(by_rows, by_data, rtol=1e-5, atol=1e-6)


def test_rows_without_validation_equal_own_data():
    keys = jax.random.split(jax.random.key(0), 2)
    data = linear_data(0, 60, noise=1.0)
    rows = np.random.default_rng(5).permutation(60).reshape(2, 30)
    by_rows = fit_many(keys, LINEAR, data, config=CONFIG, rows=(rows, None))
    own = tuple(leaf[rows] for leaf in data)
    by_data = fit_many(keys, LINEAR, own, config=CONFIG, shared=False)
    np.testing.assert_allclose(by_rows, by_data, rtol=1e-5, atol=1e-6)


def test_without_validation_the_last_average_comes_back():
    config = TrainConfig(
        steps=400, batch_size=40, learning_rate=0.1, ema_decay=0.0, eval_every=100
    )
    keys = jax.random.split(jax.random.key(0), 2)
    params = fit_many(keys, LINEAR, linear_data(0), config=config)
    # Adam at 0.1 on noise-free data is at the solution after 400 steps
    np.testing.assert_allclose(params, [[1.0, -2.0, 0.5]] * 2, atol=1e-3)


def test_the_best_round_is_kept():
    """Validation data of another law are fitted best by the first round."""
    config = TrainConfig(
        steps=300,
        batch_size=40,
        learning_rate=0.05,
        ema_decay=0.0,
        eval_every=20,
        valid_draws=1,
    )
    x, y = linear_data(1)
    keys = jax.random.split(jax.random.key(1), 4)
    risk = lambda params: np.mean((x @ np.asarray(params).T - (-y)[:, None]) ** 2, 0)
    best = fit_many(keys, LINEAR, linear_data(0), config=config, valid=(x, -y))
    last = fit_many(keys, LINEAR, linear_data(0), config=config)
    assert (risk(best) < risk(last)).all()


def test_a_training_that_diverges_before_it_is_judged_is_no_number():
    data, keys = linear_data(0), jax.random.split(jax.random.key(0), 2)
    x, y = (jnp.stack([leaf, leaf]) for leaf in data)
    own = (x, y.at[0].set(np.nan)), (x, y)
    many = fit_many(keys, LINEAR, own[0], config=CONFIG, valid=own[1], shared=False)
    assert np.isnan(many[0]).all()
    assert np.isfinite(many[1]).all()


def test_apply_many_is_the_function_for_each_seed_and_row():
    params = jnp.arange(6.0).reshape(2, 3)
    x, _ = linear_data(0, 11)
    found = apply_many(params, predict, x, chunk_rows=4)
    np.testing.assert_allclose(found, np.einsum("sd,nd->sn", params, x), rtol=1e-5)
    rows = np.array([[3, 1, 9], [0, 0, 10]])
    some = apply_many(params, predict, x, rows=rows, chunk_rows=2)
    np.testing.assert_allclose(some, np.take_along_axis(np.asarray(found), rows, 1))


def predict(params, x):
    return x @ params


def test_the_second_call_does_not_compile():
    keys = jax.random.split(jax.random.key(0), 2)
    data = linear_data(0)
    fit_many(keys, LINEAR, data, config=CONFIG, valid=data)
    program = fitting(LINEAR, CONFIG, True, min(len(jax.devices()), 2))
    before = program._cache_size()
    fit_many(keys, LINEAR, data, config=CONFIG, valid=data)
    assert program._cache_size() == before >= 1


def test_rows_and_validation_data_exclude_each_other():
    keys = jax.random.split(jax.random.key(0), 2)
    data, rows = linear_data(0), (np.zeros((2, 4), int), np.zeros((2, 4), int))
    with pytest.raises(ValueError, match="rows of one shared table"):
        fit_many(keys, LINEAR, data, config=CONFIG, valid=data, rows=rows)


def test_in_a_job_every_device_works(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: list(range(8)))
    assert [many.width_of(seeds) for seeds in (5, 9)] == [5, 8]
    # A process whose devices were left out could not see the result.
    monkeypatch.setattr(jax, "process_count", lambda: 8)
    assert many.width_of(5) == 8


def test_seeds_over_several_devices_equal_one_device():
    script = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from test_many import CONFIG, LINEAR, linear_data
from jaxehr.training import many
keys = jax.random.split(jax.random.key(0), 3)
data, valid = linear_data(0), linear_data(1)
both = many.fit_many(keys, LINEAR, data, config=CONFIG, valid=valid)
assert len(jax.devices()) == 2
program = many.fitting(LINEAR, CONFIG, True, 1)
alone = many.spread(program, (keys, None), (data, valid), 3, 1)
np.testing.assert_array_equal(both, alone)
predict = lambda p, x: x @ p
a = many.apply_many(both, predict, data[0])
np.testing.assert_allclose(a, np.einsum("sd,nd->sn", both, data[0]), atol=1e-5)
print("equal")
"""
    here = pathlib.Path(__file__).parent
    paths = [str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env
    )
    assert done.stdout.strip() == "equal", done.stderr
