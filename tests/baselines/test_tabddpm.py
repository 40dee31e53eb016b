"""TabDDPM: its loss by hand, its size, its sampler with the exact denoiser."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import tabddpm as module
from jaxehr.baselines.forms import scores as forms
from jaxehr.baselines.forms.layout import Batch
from jaxehr.baselines.forms.rows import FLAT, SUMS
from jaxehr.baselines.recipe import Sampling
from jaxehr.baselines.tabddpm import PRESETS, TabddpmConfig, tabddpm
from jaxehr.core.checks import InputError
from jaxehr.core.configs import replace
from jaxehr.diffusion import ddpm, multinomial
from jaxehr.training.config import TrainConfig

MADE = schema()
CONFIG = TabddpmConfig(
    num_steps=12, num_layers=2, first=8, last=6, embedding=4, train=TrainConfig(steps=4)
)


@functools.cache
def start(config=CONFIG):
    """(model, params, batch) before training."""
    people = complete(cohort(MADE))
    fitted = FLAT.fit(MADE, people, True)
    layout = FLAT.layout(MADE, fitted)
    batch = FLAT.take(layout, FLAT.encode(fitted, layout, people), jnp.arange(8))
    model = module.make_model(layout, config)
    return model, module.init(model, {}, jax.random.key(0), batch), batch


def test_the_loss_by_hand():
    """From the same noise: squared errors over numbers, bounds over codes, means."""
    model, params, batch = start()
    plan, key = model.plan, jax.random.key(3)
    value, told = module.loss(model, {}, params, key, batch)
    keys = jax.random.split(key, 3)
    t = np.asarray(jax.random.randint(keys[0], (8,), 1, 13))
    eps = np.asarray(jax.random.normal(keys[1], batch.numeric.shape))
    share = plan.alpha_bar[t][:, None]
    x = np.sqrt(share) * batch.numeric + np.sqrt(1 - share) * eps
    codes = jnp.asarray(batch.codes)
    noisy = model.groups.corrupt(keys[2], plan, codes, t)
    found, logits = module.predict(model, params, x, noisy, jnp.asarray(t), batch.label)
    np.testing.assert_allclose(
        told["loss_numeric"], np.mean((found - eps) ** 2), rtol=1e-4
    )
    each = []
    for part, (k, places) in zip(model.groups.split(logits), model.groups.places):
        assert part.shape[-1] == k
        each.append(
            multinomial.bound(plan, part, codes[:, places], noisy[:, places], t)
        )
    bound = np.concatenate(each, 1)
    assert bound.shape == codes.shape
    np.testing.assert_allclose(told["loss_coded"], bound.mean(), rtol=1e-4)
    np.testing.assert_allclose(value, sum(told.values()), rtol=1e-6)


def test_a_wide_row_passes_through():
    """The noise of 300 numbers needs as many coordinates."""
    layout = start()[0].layout
    model = module.make_model(layout, TabddpmConfig())._replace(numbers=300)
    assert module.network(model).embedding == 384
    assert module.network(start()[0]).embedding == 4


def test_size_of_the_presets():
    """Dense layers with biases, but for the label's; W one-hot columns in and out."""
    for name, preset in PRESETS.items():
        config = replace(TabddpmConfig(), preset)
        model, _, batch = start()
        model = module.make_model(model.layout, config)
        shapes = jax.eval_shape(
            functools.partial(module.init, model, {}), jax.random.key(0), batch
        )
        e, width = config.embedding, model.numbers + sum(model.layout.cardinalities)
        e = e or 128  # of a narrow row
        sizes = [e, *config.widths, width]
        wanted = (width + 1) * e + 2 * (e + 1) * e + 2 * e
        wanted += sum((a + 1) * b for a, b in itertools.pairwise(sizes))
        found = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        assert found == wanted, name
    assert replace(TabddpmConfig(), PRESETS["adult"]).embedding == 128
    widths = lambda name: replace(TabddpmConfig(), PRESETS[name]).widths
    assert widths("adult") == (256, 1024, 1024, 1024, 1024, 256)
    assert widths("adult-mlp") == (1024, 512)
    assert widths("cdtd") == (798,) * 5
    assert TabddpmConfig(num_layers=1).widths == (512,)


def test_the_exact_denoiser_draws_the_law(monkeypatch):
    """A number from two narrow normals, and a code that says which: 2,000 patients."""
    model, params, _ = start(replace(CONFIG, {"num_steps": 200}))
    layout, places = model.layout, model.groups.places
    centres, std, share = jnp.array([-1.0, 0.8]), 0.2, jnp.array([0.3, 0.7])
    kept = jnp.asarray(model.plan.alpha_bar)
    column = next(i for k, p in places for i in p if k == 2)

    def exact(_model, _params, x, codes, t, _label):
        """Of the first number and the first binary code, given each other's noise."""
        a = kept[t[0]]
        variance = a * std**2 + 1 - a
        far = x[:, :1] - jnp.sqrt(a) * centres
        log_x = -0.5 * far**2 / variance + jnp.log(share)  # [B, 2]
        seen = codes[:, column, None] == jnp.arange(2)
        log_c = jnp.log(jnp.where(seen, a + (1 - a) / 2, (1 - a) / 2))
        p = jax.nn.softmax(log_x + log_c, -1)
        eps = jnp.zeros_like(x)
        score = jnp.sum(p * far, -1) * jnp.sqrt(1 - a) / variance
        logits = [jnp.zeros((len(x), len(q), k)) for k, q in places]
        where = [k for k, _ in places].index(2)
        own = list(places[where][1]).index(column)
        # The step is exact with what the others say of the code, without its own.
        logits[where] = logits[where].at[:, own].set(log_x)
        wide = [leaf.reshape(len(x), -1) for leaf in logits]
        return eps.at[:, 0].set(score), jnp.concatenate(wide, -1)

    monkeypatch.setattr(module, "predict", exact)
    keys = jax.random.split(jax.random.key(0), 2000)
    weights = {"network": params}
    run = functools.partial(module.draw, layout, model.config, Sampling(), weights)
    drawn = jax.jit(run)(keys, jnp.zeros(2000, jnp.int32))
    code, x = np.asarray(drawn.codes[:, column]), np.asarray(drawn.numeric[:, 0])
    assert abs(code.mean() - 0.7) < 4 * np.sqrt(0.21 / 2000) + 0.01
    agree = (x > 0) == (code == 1)
    assert agree.mean() > 0.98
    for value, centre in enumerate((-1.0, 0.8)):
        inside = x[(code == value) & agree]
        assert abs(inside.mean() - centre) < 0.04
        assert abs(inside.std() - std) < 0.04


def test_clean_numbers_are_bounded():
    """Inside the bound the noise is as it was; outside, x0_hat is the bound."""
    plan = ddpm.schedule(ddpm.clean_betas("cosine", 12))
    x, t = jnp.array([[0.5, 4.0, -9.0]]), jnp.array([7])
    share = plan.alpha_bar[7]
    eps = jnp.array([[0.3, -0.2, 0.1]])
    clean = (x - np.sqrt(1 - share) * eps) / np.sqrt(share)
    found = module.bounded(plan, x, t, eps, 2.0)
    back = (x - np.sqrt(1 - share) * found) / np.sqrt(share)
    np.testing.assert_allclose(back, np.clip(clean, -2.0, 2.0), rtol=1e-4)
    np.testing.assert_allclose(found[0, 0], 0.3, rtol=1e-4)
    assert abs(float(clean[0, 1])) > 2.0


def test_mode_takes_the_likeliest_code_at_the_last_step(monkeypatch):
    model, params, _ = start()
    chance = jnp.log(jnp.linspace(1.0, 2.0, model.groups.width))
    sure = lambda _m, _p, x, codes, t, label: (
        jnp.zeros_like(x),
        jnp.broadcast_to(chance, (len(x), model.groups.width)),
    )
    monkeypatch.setattr(module, "predict", sure)
    keys = jax.random.split(jax.random.key(0), 300)
    weights = {"network": params}

    def codes(decode):
        config = replace(CONFIG, {"num_steps": 1})
        options = Sampling(decode=decode)
        label = jnp.zeros(300, jnp.int32)
        return module.draw(model.layout, config, options, weights, keys, label).codes

    sizes = np.asarray(model.layout.cardinalities)
    likeliest = codes("mode")
    # With one level of beta .999 the step says x_0 given only by the network.
    assert (likeliest == sizes - 1).all()
    assert (codes("sample") != sizes - 1).any()


def test_sums_of_a_sparse_table_become_scores_and_come_back():
    made = sparse_schema()
    people = complete(sparse_cohort(made, count=200)[0])
    fitted = SUMS.fit(made, people, True)
    layout = SUMS.layout(made, fitted)
    data = SUMS.encode(fitted, layout, people)
    found = forms.fit_scores(SUMS, layout, data)
    batch = SUMS.take(layout, data, jnp.arange(len(people.label)))
    x = forms.numbers_of(found, batch)
    z = np.asarray(x[:, layout.numbers :])
    assert x.shape[1] == layout.numbers + layout.sums
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1.0, atol=1e-3)
    back = forms.rows_of(layout, found, x, batch.codes, batch.label)
    np.testing.assert_allclose(back.sums, batch.sums, atol=1e-5)
    np.testing.assert_array_equal(back.numeric, batch.numeric)
    model = tabddpm(made, CONFIG)
    params = model.fit(jax.random.key(0), people)
    drawn = model.sample(jax.random.key(1), params, None, 20)
    assert type(drawn.temporal) is type(people.temporal)


def test_without_sums_nothing_is_fitted():
    model, _, batch = start()
    assert forms.fit_scores(FLAT, model.layout, batch) == {}
    np.testing.assert_array_equal(forms.numbers_of({}, batch), batch.numeric)
    row = forms.rows_of(model.layout, {}, batch.numeric, batch.codes, batch.label)
    assert isinstance(row, Batch)
    assert row.sums.shape == (8, 0)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"schedule": "sine"}, "unknown schedule 'sine'; known: cosine, linear"),
        ({"embedding": 5}, "embedding must be even and not negative, got 5"),
        ({"num_steps": 0}, "num_steps must be positive, got 0"),
        ({"clip": -1.0}, "clip must lie in"),
        ({"rows": "wide"}, "unknown rows 'wide'"),
    ],
)
def test_what_is_refused(fields, text):
    with pytest.raises(InputError, match=text):
        TabddpmConfig(**fields)


def test_the_linear_schedule_is_used():
    model, _, _ = start()
    other = module.make_model(model.layout, replace(CONFIG, {"schedule": "linear"}))
    wanted = ddpm.clean_betas("linear", CONFIG.num_steps)
    np.testing.assert_array_equal(other.plan.beta, wanted)
