"""Parameter counts of the public code, losses against NumPy, exact predictors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import timediff as module
from jaxehr.baselines.forms.layout import Batch
from jaxehr.baselines.forms.series import SERIES
from jaxehr.baselines.recipe import Sampling
from jaxehr.baselines.timediff import PRESETS, TimediffConfig, timediff
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature, Label, Schema, Table, empty_table, make_cohort
from jaxehr.core.configs import replace
from jaxehr.core.sparse import SparseTable
from jaxehr.diffusion import ddpm

KEY = jax.random.key(0)
MADE = schema()
FAST = {
    "hidden": 8,
    "num_layers": 1,
    "diffusion_steps": 5,
    "train": {"steps": 3, "batch_size": 16, "chunk_rows": 16},
}


def vitals(columns, labelled, steps=25):
    """(schema, cohort): numbers that are missing sometimes, and a binary label."""
    rng = np.random.default_rng(0)
    features = tuple(Feature(name=f"v{i}", kind="numeric") for i in range(columns))
    label = Label(name="died", classes=(0, 1)) if labelled else None
    made = Schema(static=(), temporal=features, num_steps=steps, label=label)
    shape = (20, steps, columns)
    codes = np.zeros((20, steps, 0), np.int32)
    table = Table(rng.normal(size=shape), codes, rng.random(shape) < 0.7)
    static = empty_table((20,), ())
    return made, make_cohort(static, table, np.full(20, steps), np.arange(20) % 2)


def model_of(made, people, config):
    fitted = SERIES.fit(made, people, False)
    layout = SERIES.layout(made, fitted)
    batch = SERIES.take(layout, SERIES.encode(fitted, layout, people), jnp.arange(4))
    return layout, module.model_of(layout, config), batch


@pytest.mark.parametrize(
    ("columns", "labelled", "preset", "hidden", "count"),
    [
        (7, True, "authors", 92, 553_127),  # MIMIC-III: W = 7 + 2 x 8
        (7, False, "authors", 84, 482_629),  # without the label
        (4, True, "authors-eicu", 256, 3_137_038),
    ],
)
def test_parameter_counts_of_the_public_code(columns, labelled, preset, hidden, count):
    """torch keeps two biases of each gate where one is enough: 2 H more a direction
    and layer, for r and z, of which our GRU keeps the sum."""
    made, people = vitals(columns, labelled)
    config = replace(TimediffConfig(), PRESETS[preset])
    # Theirs averages by 0.995 once in ten steps.
    np.testing.assert_allclose(config.train.ema_decay**10, 0.995, rtol=1e-4)
    _, model, batch = model_of(made, people, config)
    assert model.hidden == hidden
    params = jax.eval_shape(functools.partial(module.init, model), KEY, batch)
    found = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert found + 2 * 3 * 2 * hidden == count


def test_parameter_count_of_the_transformer():
    """By hand at W = 21, H = 84: input, positions, three layers, both ends."""
    made, people = vitals(7, False)
    config = TimediffConfig(backbone="transformer")
    _, model, batch = model_of(made, people, config)
    params = jax.eval_shape(functools.partial(module.init, model), KEY, batch)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_203_181


def test_the_width_of_wide_tables_is_bounded():
    made, people = vitals(40, False)
    assert model_of(made, people, TimediffConfig())[1].hidden == module.WIDEST


def distributions(plan, num, x0, x, t):
    """q(x_{t-1} | x_t, x_0) by Bayes' rule over all x_{t-1}, NumPy."""
    eye = np.eye(num)
    kernel = lambda a: a * eye + (1 - a) / num
    joint = kernel(plan.alpha_bar[t - 1])[x0] * kernel(plan.alpha[t])[:, x]
    return joint / joint.sum()


@pytest.mark.parametrize("t", [1, 2, 7, 10])
def test_losses_against_numpy(monkeypatch, t):
    """Of the published t = 0 (here 1) the negative log-likelihood, else the KL."""
    people = complete(cohort(MADE))
    config = TimediffConfig(diffusion_steps=10, loss_lambda=0.3, hidden=8)
    _, model, batch = model_of(MADE, people, config)
    plan, seen = model.plan, {}

    def spy(model, params, x, codes, level):
        logits = jax.random.normal(KEY, (*x.shape[:2], model.codes.width))
        seen.update(x=x, codes=codes, t=level, logits=logits)
        return 0.3 * x, logits

    monkeypatch.setattr(module, "predict", spy)
    level = lambda key, rows: jnp.full(rows, (t - 0.5) / 10)
    monkeypatch.setattr(module, "low_discrepancy", level)
    found, told = module.loss(model, {}, jax.random.key(1), batch)
    assert (np.asarray(seen["t"]) == t).all()
    x, x0 = np.asarray(seen["x"]), np.asarray(batch.numeric)
    signal = plan.alpha_bar[t] ** 0.5
    eps = (x - signal * x0) / (1 - plan.alpha_bar[t]) ** 0.5
    normal = np.mean((eps - 0.3 * x) ** 2)
    np.testing.assert_allclose(told["normal"], normal, rtol=1e-3)
    total, codes = 0.0, np.asarray(batch.codes)
    groups = zip(model.codes.places, model.codes.split(seen["logits"]), strict=True)
    for (num, places), logits in groups:
        for row, step, i in np.ndindex(*logits.shape[:3]):
            q = places[i]
            clean, noisy = codes[row, step, q], int(seen["codes"][row, step, q])
            p = np.exp(np.asarray(logits[row, step, i], np.float64))
            each = [distributions(plan, num, k, noisy, t) for k in range(num)]
            # p(x_{t-1} | x_t) puts the distribution of x_0 into the first factor.
            eye, mixed = np.eye(num), plan.alpha_bar[t - 1]
            model_p = (mixed * (p / p.sum()) + (1 - mixed) / num) * (
                plan.alpha[t] * eye + (1 - plan.alpha[t]) / num
            )[:, noisy]
            model_p /= model_p.sum()
            true = each[clean]
            if t == 1:
                step_loss = -np.log(model_p[clean])
            else:
                step_loss = np.sum(true * np.log(true / model_p))
            last = plan.alpha_bar[-1] * eye[clean] + (1 - plan.alpha_bar[-1]) / num
            total += 10 * step_loss + np.sum(last * np.log(last * num))
    multinomial = total / len(codes) / codes.shape[-1]
    np.testing.assert_allclose(told["multinomial"], multinomial, rtol=1e-3)
    np.testing.assert_allclose(found, normal + 0.3 * multinomial, rtol=1e-3)


def drawn(monkeypatch, layout, config, exact, rows, low=-9.0, high=9.0, mode=False):
    monkeypatch.setattr(module, "predict", exact)
    options = Sampling(decode="mode" if mode else "sample")
    ends = {"low": jnp.float32(low), "high": jnp.float32(high), "network": {}}
    run = functools.partial(module.draw, layout, config, options)
    keys = jax.random.split(KEY, rows)
    return jax.jit(run)(ends, keys, jnp.zeros(rows, int))


@pytest.mark.parametrize("numbers", ["normal", "unit"])
@pytest.mark.parametrize("mode", [True, False])
def test_the_exact_predictor_of_one_series_draws_it(monkeypatch, numbers, mode):
    people = complete(cohort(MADE))
    config = TimediffConfig(diffusion_steps=20, numbers=numbers)
    layout, model, batch = model_of(MADE, people, config)
    x0 = module.numbers_of(model, batch.numeric[:1])
    logits = 70.0 * (model.codes.one_hot(batch.codes[:1].astype(int)) - 1.0)

    def exact(model, params, x, codes, t):
        signal, noise = (s[..., None] for s in ddpm.scales(model.plan, t))
        wide = jnp.broadcast_to(logits, (len(x), *logits.shape[1:]))
        return (x - signal * x0) / noise, wide

    found = drawn(monkeypatch, layout, config, exact, 3, mode=mode)
    for row in range(3):
        np.testing.assert_array_equal(found.codes[row], batch.codes[0])
        inside = np.abs(batch.numeric[0]) < 3.0
        np.testing.assert_allclose(
            found.numeric[row][inside], batch.numeric[0][inside], atol=2e-3
        )


def test_the_exact_predictor_of_a_law_draws_it(monkeypatch):
    """Codes of known frequency, numbers N(0.5, 0.6^2); within 4 s.e.

    Fifty steps of the posterior narrow a normal law by 6 %: the variance is that of the
    scalar recursion, computed apart.
    """
    people = complete(cohort(MADE, missing=0.0, variable=False))
    config = TimediffConfig(diffusion_steps=50)
    layout, model, _ = model_of(MADE, people, config)
    share = lambda k: np.arange(1, k + 1) / np.arange(1, k + 1).sum()
    laws = [(share(k), places) for k, places in model.codes.places]

    def exact(model, params, x, codes, t):
        signal, noise = (s[..., None] for s in ddpm.scales(model.plan, t))
        eps = noise * (x - 0.5 * signal) / (0.36 * signal**2 + noise**2)
        # The step multiplies by what x_t says itself: logits are the rest, the prior.
        logs = [np.tile(np.log(p), len(places)) for p, places in laws]
        lead = (*x.shape[:2], model.codes.width)
        return eps, jnp.broadcast_to(np.concatenate(logs), lead)

    found = drawn(monkeypatch, layout, config, exact, 1000)
    for p, places in laws:
        codes = np.asarray(found.codes)[..., places]
        shares = np.bincount(codes.ravel(), minlength=len(p)) / codes.size
        assert (np.abs(shares - p) < 4 * np.sqrt(p * (1 - p) / codes.size)).all()
    numeric = np.asarray(found.numeric)
    variance, plan = 1.0, model.plan
    for t in range(50, 0, -1):
        before, after, beta = plan.alpha_bar[t - 1], plan.alpha_bar[t], plan.beta[t]
        # E[x_0 | x_t] = slope x_t + constant; the mean of x_{t-1} is linear in both.
        slope = after**0.5 * 0.36 / (after * 0.36 + 1 - after)
        gain = before**0.5 * beta * slope + plan.alpha[t] ** 0.5 * (1 - before)
        variance = (gain / (1 - after)) ** 2 * variance
        variance += beta * (1 - before) / (1 - after)
    error = 4 * np.sqrt(variance / numeric.size)
    assert abs(numeric.mean() - 0.5) < error + 1e-3
    assert 0.5 < np.sqrt(variance) < 0.6
    assert abs(numeric.std() - np.sqrt(variance)) < error
    numbers = numeric.reshape(len(numeric), -1)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(numbers.shape[1])).max() < 0.15


def test_estimates_stay_in_the_range_of_training(monkeypatch):
    people = complete(cohort(MADE))
    config = TimediffConfig(diffusion_steps=20)
    layout, _, _ = model_of(MADE, people, config)
    wild = lambda model, params, x, codes, t: (
        -50.0 * jnp.ones_like(x),
        jnp.zeros((*x.shape[:2], model.codes.width)),
    )
    found = drawn(monkeypatch, layout, config, wild, 3, low=-1.5, high=2.5)
    np.testing.assert_allclose(found.numeric, 2.5, rtol=1e-6)


def test_what_the_network_sees(monkeypatch):
    """One-hot codes, or their logarithms, beside the numbers."""
    people, seen = complete(cohort(MADE)), []
    for codes_as in ("one-hot", "log"):
        config = TimediffConfig(codes_as=codes_as, hidden=4, num_layers=1)
        _, model, batch = model_of(MADE, people, config)
        spy = lambda self, x, t: seen.append(np.asarray(x)) or x
        params = module.init(model, KEY, batch)
        with monkeypatch.context() as patch:
            patch.setattr(module.Denoiser, "__call__", spy)
            inputs = (batch.numeric, batch.codes, jnp.full(4, 3))
            module.predict(model, params, *inputs)
    hot, logs = (x[..., model.numbers :] for x in seen)
    np.testing.assert_allclose(np.exp(logs), hot, atol=1e-6)
    np.testing.assert_array_equal(hot.sum(-1), len(model.codes.cardinalities))
    np.testing.assert_array_equal(seen[0][..., : model.numbers], batch.numeric)


@pytest.mark.parametrize(
    ("name", "backbone"), list(zip(PRESETS, ["gru", "transformer", "transformer"]))
)
def test_presets_train(name, backbone):
    config = replace(replace(TimediffConfig(), PRESETS[name]), FAST)
    config = replace(config, {"backbone": backbone})
    model = timediff(MADE, config)
    params = model.fit(KEY, cohort(MADE), valid=cohort(MADE, seed=3, count=9))
    made = model.sample(jax.random.key(1), params, None, 5)
    assert np.isfinite(made.temporal.numeric).all()
    assert (params["weights"]["low"] < params["weights"]["high"]).all()


def test_sparse_series():
    made = sparse_schema()
    thin, _ = sparse_cohort(made)
    model = timediff(made, replace(TimediffConfig(), FAST))
    found = model.sample(KEY, model.fit(KEY, thin), None, 6)
    assert isinstance(found.temporal, SparseTable)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"backbone": "lstm"}, "unknown backbone 'lstm'; known: gru, transformer"),
        ({"numbers": "log"}, "unknown numbers 'log'; known: normal, unit"),
        ({"codes_as": "bits"}, "unknown codes_as 'bits'; known: one-hot, log"),
        ({"hidden": -1}, r"hidden must lie in \[0, 100000\], got -1"),
        ({"num_layers": 0}, "num_layers must be positive, got 0"),
        ({"diffusion_steps": 0}, "diffusion_steps must be positive, got 0"),
        ({"loss_lambda": -1.0}, r"loss_lambda must lie in \[0.0"),
    ],
)
def test_refused_choices(fields, match):
    with pytest.raises(InputError, match=match):
        TimediffConfig(**fields)


def test_the_drawn_batch_has_the_shape_of_the_form(monkeypatch):
    people = complete(cohort(MADE))
    layout, _, batch = model_of(MADE, people, TimediffConfig(diffusion_steps=2))
    zeros = lambda model, params, x, codes, t: (
        jnp.zeros_like(x),
        jnp.zeros((*x.shape[:2], model.codes.width)),
    )
    found = drawn(monkeypatch, layout, TimediffConfig(diffusion_steps=2), zeros, 4)
    assert isinstance(found, Batch)
    for one, two in zip(found[2:], batch[2:], strict=True):
        assert one.shape == two.shape
