"""The signed matrix and back; draws of the exact noise; presets; refused choices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import guided
from jaxehr.baselines import meddiff as module
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.rows import FLAT, SUMS
from jaxehr.baselines.meddiff import (
    PRESETS,
    MeddiffConfig,
    MeddiffSampling,
    meddiff,
)
from jaxehr.core.checks import InputError
from jaxehr.core.configs import replace
from jaxehr.diffusion import ddpm

KEY = jax.random.key(0)
MADE = schema()


@functools.cache
def batch_of(form, made, sparse=False):
    people = sparse_cohort(made)[0] if sparse else complete(cohort(made))
    fitted = form.fit(made, people, True)
    layout = form.layout(made, fitted)
    data = form.encode(fitted, layout, people)
    return layout, form.take(layout, data, jnp.arange(len(people.label)))


@pytest.mark.parametrize("numbers", ["normal", "unit"])
def test_codes_are_signs(numbers):
    layout, batch = batch_of(FLAT, MADE)
    config = MeddiffConfig(numbers=numbers)
    x = np.asarray(module.signed(layout, config, batch))
    assert x.shape == (len(batch.label), layout.width)
    assert set(np.unique(x[:, layout.numbers :])) == {-1.0, 1.0}
    if numbers == "normal":
        np.testing.assert_array_equal(x[:, : layout.numbers], batch.numeric)
    else:
        assert np.abs(x[:, : layout.numbers]).max() <= 1.0
    blocks = matrix.split(layout, jnp.asarray(x))
    for leaf, (k, _) in zip(blocks.groups, layout.groups, strict=True):
        np.testing.assert_array_equal(leaf.sum(-1), 2 - k)  # one 1, else -1


def test_shares_lie_between_the_signs():
    layout, batch = batch_of(SUMS, sparse_schema(), True)
    x = np.asarray(module.signed(layout, MeddiffConfig(), batch))
    sums = matrix.split(layout, jnp.asarray(x)).sums
    np.testing.assert_allclose(sums, 2 * np.asarray(batch.sums) - 1, atol=1e-6)


@pytest.mark.parametrize("numbers", ["normal", "unit"])
def test_the_exact_noise_of_two_rows_draws_them(monkeypatch, numbers):
    """Each class is one patient: every draw is that patient, codes without error."""
    layout, batch = batch_of(FLAT, MADE)
    config = MeddiffConfig(numbers=numbers)
    rows = module.signed(layout, config, batch)[:2]

    def exact(config, params, x, t, told):
        signal, noise = ddpm.scales(guided.plan_of(config), t)
        return (x - signal * (told @ rows)) / noise

    monkeypatch.setattr(guided, "predict", exact)
    label = jnp.arange(6) % 2
    keys = jax.random.split(KEY, 6)
    run = functools.partial(module.draw, layout, config, MeddiffSampling(steps=10))
    found = jax.jit(run)({}, keys, label)
    np.testing.assert_array_equal(found.codes, np.asarray(batch.codes)[label])
    # Levels beyond 1e-6 of 0 and 1 are cut, and float32 holds few digits there.
    inside = np.abs(np.asarray(batch.numeric)[label]) < 4.0
    wanted = np.asarray(batch.numeric)[label]
    np.testing.assert_allclose(
        np.asarray(found.numeric)[inside], wanted[inside], atol=5e-3
    )


@pytest.mark.parametrize(("levels", "steps"), [(200, 50), (20, 20)])
def test_the_defaults_suit_any_number_of_levels(levels, steps):
    """And each solver; steps that are asked for stay."""
    config = MeddiffConfig(diffusion_steps=levels)
    for solver, wanted in (("ddim", steps), ("ddpm", 0)):
        options = module.settled(config, MeddiffSampling(solver=solver))
        guided.check_sampling(config, 2, options)
        assert options.steps == wanted
    assert module.settled(config, MeddiffSampling(steps=7)).steps == 7


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train(name):
    fast = {"width": 8, "train": {"steps": 3, "batch_size": 16}}
    config = replace(replace(MeddiffConfig(), PRESETS[name]), fast)
    model = meddiff(MADE, config)
    params = model.fit(KEY, cohort(MADE), valid=cohort(MADE, seed=3, count=9))
    options = MeddiffSampling(steps=3, guidance=0.5)
    made = model.sample(jax.random.key(1), params, None, 5, options=options)
    assert np.isfinite(made.temporal.numeric).all()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"numbers": "log"}, "unknown numbers 'log'; known: normal, unit"),
        ({"width": 0}, "width must be positive, got 0"),
        ({"rows": "long"}, "unknown rows 'long'"),
    ],
)
def test_refused_choices(fields, match):
    with pytest.raises(InputError, match=match):
        MeddiffConfig(**fields)
