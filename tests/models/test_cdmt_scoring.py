"""The losses of each patient, small trainings together, the attack that uses both."""

import functools

import jax
import numpy as np
import pytest
from cdmt_builders import config, untrained
from small_cohorts import cohort, schema

from jaxehr.core.cohort import Dataset, Feature, map_patients, num_patients
from jaxehr.core.contracts import Attacked, Comparison
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.model_loss import membership_loss, pool_of
from jaxehr.models.cdmt.model import cdmt
from jaxehr.models.cdmt.objective import make_objective

KEY = jax.random.key(4)
# Without time steps training compiles in a moment, and masks need no learning.
NUMBERS = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(24))
TABLE = schema(static=NUMBERS, temporal=())
SETTINGS = config(
    hidden=64, masks=False, train={"learning_rate": 4e-3, "batch_size": 64}
)
WORK = MetricConfig(loss_levels=8, loss_repeats=2, control_steps=400)


@functools.cache
def people_of(seed):
    found = cohort(TABLE, seed=seed, count=80, missing=0.0)
    return Dataset(TABLE, found, 100 * seed + np.arange(80), np.arange(80), {})


@functools.cache
def start(categorical="embedding"):
    """A model that learned nothing: fixed parts, parameters, encoded people, people."""
    made = schema() if categorical == "embedding" else schema(temporal=())
    people = cohort(made, count=130)
    settings = config(label_drop=0.0, categorical=categorical)
    fixed, params, batch = untrained(made, settings, people)
    return cdmt(made, settings), fixed, params, batch, people


@pytest.mark.parametrize("categorical", ["embedding", "mask"])
def test_losses_are_those_of_the_objective(categorical):
    """The mean over patients and levels is the training loss."""
    found, fixed, params, batch, people = start(categorical)
    each = found.losses(KEY, params, people, levels=16, repeats=16)
    assert each.shape == (130, 16)
    loss = jax.jit(make_objective(fixed, params["fitted"]).loss)
    draws = [loss(params["weights"], jax.random.key(i), batch)[0] for i in range(40)]
    # One draw of noise for all patients at each of 256 times, against 40 x 130 times.
    np.testing.assert_allclose(each.mean(), np.mean(draws), rtol=0.05)


def test_a_patient_has_the_same_losses_in_any_batch():
    found, _, params, _, people = start()
    each = found.losses(KEY, params, people, levels=16, repeats=16)
    rows = np.array([129, 3, 57])
    few = map_patients(lambda leaf: leaf[rows], people)
    some = found.losses(KEY, params, few, levels=16, repeats=16)
    np.testing.assert_array_equal(some, each[rows])
    other = found.losses(jax.random.key(1), params, few, levels=16, repeats=16)
    assert (other != some).all()
    nobody = map_patients(lambda leaf: leaf[:0], people)
    assert found.losses(KEY, params, nobody, levels=16, repeats=16).shape == (0, 16)


def test_trainings_together_do_not_depend_on_each_other():
    people = people_of(1).cohort
    _, params, _ = untrained(TABLE, SETTINGS, people, spread=0.1)
    found = cdmt(TABLE, SETTINGS)
    rows = np.random.default_rng(0).permutation(72).reshape(3, 24)
    keys, valid = jax.random.split(KEY, 3), np.arange(72, 80)
    many = found.fit_many(keys, params, people, rows, valid=valid, steps=6)
    chosen = np.array([1, 1, 0])
    again = found.fit_many(
        keys[chosen], params, people, rows[chosen], valid=valid, steps=6
    )
    weights = lambda one: jax.tree.leaves(one["weights"])
    for i, other in enumerate(again):
        assert other["fitted"] is params["fitted"]
        for a, b in zip(weights(many[chosen[i]]), weights(other), strict=True):
            np.testing.assert_array_equal(a, b)
    moved = [np.abs(a - b).max(initial=0) for a, b in zip(*map(weights, many[:2]))]
    assert max(moved) > 1e-3


def test_an_overfitted_model_is_caught_and_an_untrained_one_is_not():
    train, held = people_of(1), people_of(2)
    real = Comparison(train, held, held)
    _, params, _ = untrained(TABLE, SETTINGS, train.cohort, spread=0.1)
    fresh = Attacked(cdmt(TABLE, SETTINGS), params, np.ones(80, bool))
    found = membership_loss(WORK).run(KEY, real, model=fresh)
    for name, value in found.items():
        assert value.low <= {"membership_loss_auroc": 0.5}.get(name, 0.02), name
    for name in ("membership_loss_advantage", "membership_loss_auroc"):
        assert found[name].detail["leaky_generator_caught"], name
    assert found["membership_loss_auroc"].detail["leaky_generator"] > 0.8
    pool = pool_of(np.random.default_rng(0), real, fresh)
    assert num_patients(pool.cohort) == 160
