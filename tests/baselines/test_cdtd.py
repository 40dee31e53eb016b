"""CDTD: its losses by hand, its size, its sampler with the exact denoiser."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cohorts import cohort, complete, schema

from jaxehr.baselines import cdtd as module
from jaxehr.baselines import cdtd_parts as parts
from jaxehr.baselines.cdtd import PRESETS, CdtdConfig, CdtdSampling, cdtd
from jaxehr.baselines.forms.rows import FLAT
from jaxehr.core.checks import InputError
from jaxehr.core.configs import replace
from jaxehr.diffusion import embeddings, timewarp
from jaxehr.training.config import TrainConfig

MADE = schema()
CONFIG = CdtdConfig(
    embedding_dim=3, embedding=4, num_layers=2, hidden=8, train=TrainConfig(steps=4)
)


@functools.cache
def data():
    """(layout, fitted, batch) of some patients."""
    people = complete(cohort(MADE))
    fitted = FLAT.fit(MADE, people, True)
    layout = FLAT.layout(MADE, fitted)
    batch = FLAT.take(layout, FLAT.encode(fitted, layout, people), jnp.arange(8))
    return layout, fitted, batch


@functools.cache
def start(config=CONFIG):
    """(model, params, batch) before training."""
    layout, fitted, batch = data()
    model = module.make_model(layout, config)
    begin = functools.partial(parts.init, model, {}, fitted)
    return model, jax.jit(begin)(jax.random.key(0), batch), batch


def grouped(model, codes):
    """Codes [B, Q] in the order of `Groups`."""
    return np.concatenate(model.groups.take(codes), 1)


def test_the_first_prediction_is_the_marginal():
    """The last layer starts at 0: D = c_skip x and p the frequencies of training."""
    model, params, batch = start()
    x = parts.clean(model, params, {}, batch)
    sigma = parts.levels(model, jnp.full((8, 2), 0.05))  # 4 and 5
    told = jax.nn.one_hot(batch.label, 2)
    guess, logits = parts.denoise(model, params, x, sigma, jnp.full((8,), 0.5), told)
    np.testing.assert_allclose(guess, x.numeric / (1 + 4.0**2), rtol=1e-5)
    frequency = data()[1]["frequency"]
    for part, (k, places) in zip(model.groups.split(logits), model.groups.places):
        wanted = np.broadcast_to(frequency[places, :k], part.shape)
        np.testing.assert_allclose(jax.nn.softmax(part), wanted, rtol=1e-5)
    assert sigma.coded.shape == (8, model.codes, 1)
    np.testing.assert_allclose(sigma.coded, 5.0, rtol=1e-6)


def test_the_losses_by_hand():
    """At the start: the marginal's error, weighted, and its cross-entropy over H."""
    model, params, batch = start()
    entropy = parts.entropies(model, data()[1]["frequency"])
    key = jax.random.key(5)
    measure = functools.partial(module.measure, model, {}, entropy)
    found = jax.jit(measure)(params, key, batch)
    keys = jax.random.split(key, 3)
    u = np.mod(jax.random.uniform(keys[0]) + np.arange(8) / 8, 1)
    np.testing.assert_allclose(found.u, u, rtol=1e-6)
    sigma = 80 * np.asarray(timewarp.quantile(params["warp"], u))[:, :1]
    x0 = np.asarray(batch.numeric)
    x = x0 + sigma * np.asarray(jax.random.normal(keys[1], x0.shape))
    square = (x / (1 + sigma**2) - x0) ** 2
    np.testing.assert_allclose(found.plain[:, : model.numbers], square, rtol=1e-3)
    weighted = square * (1 + sigma**2) / sigma**2
    np.testing.assert_allclose(found.weighted[:, : model.numbers], weighted, rtol=2e-3)
    frequency, codes, column = data()[1]["frequency"], grouped(model, batch.codes), 0
    for k, places in model.groups.places:
        for q in places:
            p = frequency[q, :k]
            wanted = -np.log(p[codes[:, column]]) / -np.sum(p * np.log(p))
            np.testing.assert_allclose(
                found.plain[:, model.numbers + column], wanted, rtol=1e-4
            )
            column += 1
    np.testing.assert_array_equal(
        found.plain[:, model.numbers :], found.weighted[:, model.numbers :]
    )


def test_what_is_added_up_and_what_it_moves():
    """Denoising over its expectation (1 at the start), and two fits of their own."""
    model, params, batch = start()
    entropy = parts.entropies(model, data()[1]["frequency"])
    measured = functools.partial(module.measure, model, {}, entropy)
    total = functools.partial(module.training_loss, model, measured)
    grad = jax.jit(jax.value_and_grad(total, has_aux=True))
    (value, told), grads = grad(params, jax.random.key(5), batch)
    found = measured(params, jax.random.key(5), batch)
    mean = np.asarray(found.weighted).mean(1)
    np.testing.assert_allclose(told["loss_denoising"], mean.mean(), rtol=1e-5)
    np.testing.assert_allclose(told["loss_expected"], np.mean((1 - mean) ** 2), 1e-5)
    plain = np.asarray(found.plain)
    numbers, codes = plain[:, : model.numbers], plain[:, model.numbers :]
    each = np.stack([numbers.mean(1), codes.mean(1)], 1)
    np.testing.assert_allclose(module.by_schedule(model, found.plain), each, rtol=1e-5)
    np.testing.assert_allclose(
        told["loss_schedule"],
        timewarp.fit_loss(params["warp"], found.s, each).mean(),
        rtol=1e-5,
    )
    np.testing.assert_allclose(value, sum(told.values()), rtol=1e-5)
    # The expectation has its own gradient only: 2 mean((1 - loss) waves).
    np.testing.assert_allclose(
        grads["expected"]["bias"], 2 * np.mean(1 - mean), rtol=1e-4
    )
    plain_value = module.validation_loss(measured, params, jax.random.key(5), batch)[0]
    np.testing.assert_allclose(plain_value, mean.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "count"), [("single", 1), ("type", 2), ("feature", None)]
)
def test_schedules_and_their_columns(schedule, count):
    layout, _, batch = data()
    model = module.make_model(layout, replace(CONFIG, {"schedule": schedule}))
    columns = model.numbers + model.codes
    count = count or columns
    assert model.place.max() + 1 == count
    each = jnp.asarray(np.random.default_rng(0).random((len(batch.label), columns)))
    means = np.stack([each[:, model.place == f].mean(1) for f in range(count)], 1)
    np.testing.assert_allclose(module.by_schedule(model, each), means, rtol=1e-5)
    s = jnp.linspace(0.1, 0.9, count)
    sigma = parts.levels(model, s)
    np.testing.assert_allclose(sigma.numeric, 80 * s[model.place[: model.numbers]])
    np.testing.assert_allclose(
        sigma.coded[:, 0], 100 * s[model.place[model.numbers :]], rtol=1e-6
    )


def test_size_of_the_authors_model():
    """5 layers of 796 after a sum of 256, 16 coordinates a category and a feature."""
    config = replace(CdtdConfig(), PRESETS["authors"])
    assert (config.num_layers, config.hidden, config.embedding) == (5, 796, 256)
    layout, fitted, batch = data()
    model = module.make_model(layout, config)
    shapes = jax.eval_shape(
        functools.partial(parts.init, model, {}, fitted), jax.random.key(0), batch
    )
    width, out = model.numbers + 16 * model.codes, model.numbers + model.groups.width
    sizes = [256, *(796,) * 5, out]
    wanted = (width + 1) * 256 + 2 * 257 * 256 + 2 * 256
    wanted += sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert count(shapes["network"]) == wanted
    assert count(shapes["tables"]) == 16 * model.groups.width
    assert count(shapes["biases"]) == 16 * model.codes
    assert count(shapes["expected"]) == 1025
    assert count(shapes["warp"]) == 6


def test_the_exact_denoiser_draws_the_law(monkeypatch):
    """A number of two narrow normals, and codes by their frequencies: 2,000 patients.

    With exact scores the ODE leaves the error of 200 Euler steps and of the sample.
    """
    model, params, _ = start(replace(CONFIG, {"low_noise": 30.0}))
    layout, frequency = model.layout, data()[1]["frequency"]
    tables = parts.tables_of(model, params)
    centres, std, share = jnp.array([-1.0, 0.8]), 0.2, jnp.array([0.3, 0.7])

    def exact(_model, _params, x, sigma, u, told):
        variance = std**2 + sigma.numeric[..., None] ** 2
        far = x.numeric[..., None] - centres
        p = jax.nn.softmax(-0.5 * far**2 / variance + jnp.log(share), -1)
        towards = centres + std**2 / variance * far
        logits, at = [], 0
        for table, (k, places) in zip(tables, model.groups.places):
            z = x.coded[:, at : at + len(places), None]
            level = sigma.coded[at : at + len(places), :, None]
            square = jnp.sum((z - table) ** 2, -1) / level[..., 0] ** 2
            logs = -0.5 * square + jnp.log(frequency[places, :k])
            logits.append(logs.reshape(len(logs), -1))
            at += len(places)
        return jnp.sum(p * towards, -1), jnp.concatenate(logits, -1)

    monkeypatch.setattr(module, "denoise", exact)
    keys = jax.random.split(jax.random.key(0), 2000)
    run = functools.partial(
        module.draw, layout, model.config, CdtdSampling(), {"model": params}
    )
    drawn = jax.jit(run)(keys, jnp.zeros(2000, jnp.int32))
    x = np.asarray(drawn.numeric[:, 0])
    assert abs((x > 0).mean() - 0.7) < 4 * np.sqrt(0.21 / 2000) + 0.01
    for centre, inside in ((-1.0, x[x < 0]), (0.8, x[x > 0])):
        assert abs(inside.mean() - centre) < 0.04
        assert abs(inside.std() - std) < 0.04
    for q, k in enumerate(layout.cardinalities):
        found = np.bincount(drawn.codes[:, q], minlength=k) / 2000
        bound = 4 * np.sqrt(0.25 / 2000) + 0.01
        np.testing.assert_allclose(found, frequency[q, :k], atol=bound)


def test_codes_come_back_at_their_places():
    model, params, batch = start()
    x = parts.clean(model, params, {}, batch)
    tables, at, found = parts.tables_of(model, params), 0, []
    for table, (k, places) in zip(tables, model.groups.places):
        z = x.coded[:, at : at + len(places)]
        valid = np.ones((len(places), k), bool)
        found.append(embeddings.nearest(table, valid, z))
        at += len(places)
    back = model.groups.together(found, (8,))
    np.testing.assert_array_equal(back, batch.codes)
    square = jnp.sum(x.coded**2, -1)
    np.testing.assert_allclose(square, CONFIG.embedding_dim, rtol=1e-4)


def test_the_label_may_be_a_column():
    people = complete(cohort(MADE))
    model = cdtd(MADE, replace(CONFIG, {"label": "column", "schedule": "feature"}))
    params = model.fit(jax.random.key(0), people)
    drawn = model.sample(
        jax.random.key(1), params, None, 40, options=CdtdSampling(steps=3)
    )
    assert set(np.asarray(drawn.label)) <= {0, 1}
    with pytest.raises(InputError, match="cdtd draws the label itself"):
        model.sample(jax.random.key(1), params, 1, 4)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"schedule": "both"}, "unknown schedule 'both'; known: single, type, feature"),
        ({"label": "no"}, "unknown label 'no'; known: condition, column"),
        ({"embedding": 5}, "embedding must be even, got 5"),
        ({"low_noise": 0.0}, "low_noise must be positive, got 0"),
    ],
)
def test_what_is_refused(fields, text):
    with pytest.raises(InputError, match=text):
        CdtdConfig(**fields)
    with pytest.raises(InputError, match="steps must be positive, got 0"):
        CdtdSampling(steps=0)
