"""TabDiff: schedules, loss by hand, clock, sampler with the exact denoiser."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cohorts import cohort, complete, schema

from jaxehr.baselines import tabdiff as module
from jaxehr.baselines import tabdiff_parts as parts
from jaxehr.baselines.forms.rows import FLAT
from jaxehr.baselines.tabdiff import PRESETS, TabdiffConfig, TabdiffSampling
from jaxehr.core.checks import InputError
from jaxehr.core.configs import replace
from jaxehr.diffusion import masked
from jaxehr.training.config import TrainConfig

MADE = schema()
CONFIG = TabdiffConfig(
    num_layers=1, expansion=2, width=8, train=TrainConfig(steps=4, batch_size=8)
)


@functools.cache
def data():
    """(layout, fitted, batch) of some patients; the label is a code."""
    people = complete(cohort(MADE))
    fitted = FLAT.fit(MADE, people, False)
    layout = FLAT.layout(MADE, fitted)
    batch = FLAT.take(layout, FLAT.encode(fitted, layout, people), jnp.arange(8))
    return layout, fitted, batch


@functools.cache
def start(config=CONFIG):
    """(model, params, batch) before training."""
    layout, _, batch = data()
    model = module.make_model(layout, config)
    begin = jax.jit(functools.partial(parts.init, model, {}))
    return model, begin(jax.random.key(0), batch), batch


def test_schedules_start_end_and_rise():
    """rho = 12.0009, k = 1.00248; sigma .002 to 80, masks 1e-5 to .999."""
    model, params, _ = start()
    np.testing.assert_allclose(model.rho(params), 12.000911, rtol=1e-6)
    for k in model.exponents(params):
        np.testing.assert_allclose(k, 1.002476, rtol=1e-6)
    t = jnp.linspace(0.0, 1.0, 101)
    noise = jax.vmap(lambda t: parts.noise_at(model, params, t))(t)
    np.testing.assert_allclose(noise.sigma[0], 0.002, rtol=1e-5)
    np.testing.assert_allclose(noise.sigma[-1], 80.0, rtol=1e-5)
    assert (np.diff(noise.sigma, axis=0) > 0).all()
    for leaf in noise.masked:
        np.testing.assert_allclose(leaf[0], 1e-5, rtol=1e-4)
        np.testing.assert_allclose(leaf[-1], 0.999, rtol=1e-6)
        assert (np.diff(leaf, axis=0) > 0).all()


def test_fixed_schedules_are_the_same_for_all():
    model, params, _ = start(replace(CONFIG, {"schedule": "fixed"}))
    noise = parts.noise_at(model, params, jnp.float32(0.5))
    np.testing.assert_allclose(noise.sigma, 2.5152, rtol=1e-4)  # rho = 7
    for leaf in noise.masked:
        np.testing.assert_allclose(leaf, 0.99899 * 0.5 + 1e-5, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["learned", "fixed"])
def test_the_loss_by_hand(schedule):
    """From the same noise, column by column."""
    model, params, batch = start(replace(CONFIG, {"schedule": schedule}))
    key = jax.random.key(4)
    value, told = jax.jit(functools.partial(module.loss, model, {}))(params, key, batch)
    keys = jax.random.split(key, 3)
    t = jax.random.uniform(keys[0], (8,))
    noise = jax.vmap(lambda t: parts.noise_at(model, params, t))(t)
    sigma, x0 = np.asarray(noise.sigma), np.asarray(batch.numeric)
    x = x0 + sigma * np.asarray(jax.random.normal(keys[1], x0.shape))
    codes, learned = model.groups.take(batch.codes), schedule == "learned"
    states = [
        masked.corrupt(
            jax.random.fold_in(keys[2], num),
            part,
            t[:, None],
            k,
            num_codes=num,
            learnable=learned,
        )
        for part, k, (num, _) in zip(
            codes, model.exponents(params), model.groups.places
        )
    ]
    guess, logits = parts.denoise(model, params, x, states, sigma, t)
    square = (1 + sigma**2) / sigma**2 * (np.asarray(guess) - x0) ** 2
    np.testing.assert_allclose(told["loss_numeric"], square.mean(), rtol=1e-3)
    total = 0.0
    for i, k in enumerate(model.exponents(params)):
        hidden = np.asarray(masked.codes_of(states[i])) == model.groups.places[i][0]
        logs = np.asarray(jax.nn.log_softmax(logits[i]))
        picked = np.take_along_axis(logs, np.asarray(codes[i])[..., None], -1)[..., 0]
        at, slope = np.asarray(t)[:, None], 0.99899
        chance = slope * at ** np.asarray(k) + 1e-5
        rate = slope * k * at ** (np.asarray(k) - 1) if learned else 1.0
        total -= np.sum(np.asarray(rate) / chance * picked * hidden)
    np.testing.assert_allclose(told["loss_coded"], total / batch.codes.size, rtol=1e-3)
    np.testing.assert_allclose(value, sum(told.values()), rtol=1e-5)


def test_the_loss_of_numbers_fades_with_the_clock():
    model, params, batch = start()
    loss = functools.partial(module.loss, model, {}, annealed=True)
    late = {**params, "clock": jnp.float32(0.75)}
    grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, told), grads = grad(late, jax.random.key(4), batch)
    wanted = 0.25 * told["loss_numeric"] + told["loss_coded"]
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert grads["clock"] == 0.0
    for leaf in (grads["raw_rho"], *grads["raw_k"].values()):
        assert np.abs(leaf).max() > 0  # schedules are learned by the same loss
    even = replace(CONFIG, {"anneal": False})
    loss = functools.partial(module.loss, start(even)[0], {}, annealed=True)
    value, told = jax.jit(loss)(late, jax.random.key(4), batch)
    np.testing.assert_allclose(value, sum(told.values()), rtol=1e-6)


def test_the_clock_goes_from_0_to_1():
    tx = module.ticking(TrainConfig(steps=8))
    params = {"clock": jnp.float32(0.0), "w": jnp.ones(2)}
    state, grads = tx.init(params), {"clock": jnp.float32(0.0), "w": jnp.ones(2)}
    for step in range(1, 9):
        change, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, change)
        np.testing.assert_allclose(params["clock"], step / 8, rtol=1e-6)
    np.testing.assert_allclose(params["w"], 1 - 8e-3, rtol=1e-4)  # Adam's


def test_the_plan_adds_noise_but_at_the_first_level():
    model, params, _ = start()
    # Schedules that differ: the codes follow the number that is earliest in time.
    params = {**params, "raw_rho": jnp.linspace(0.0, 9.0, model.numbers)}
    plan = parts.plan(model, params, TabdiffSampling(steps=50))
    now, later = np.asarray(plan.now.sigma), np.asarray(plan.later.sigma)
    np.testing.assert_array_equal(later[0], now[0])
    np.testing.assert_allclose(later[1:], 1.02 * now[1:], rtol=1e-6)
    assert plan.later.t[0] == 1.0
    ends, rho = (0.002, 80.0), np.asarray(model.rho(params), np.float64)
    low, high = (end ** (1 / rho) for end in ends)
    t = ((later[1:] ** (1 / rho) - low) / (high - low)).min(-1)
    np.testing.assert_allclose(plan.later.t[1:], t, atol=2e-5)
    for n in range(len(plan.now.masked)):
        assert (plan.later.masked[n] >= plan.now.masked[n]).all()
        np.testing.assert_array_equal(plan.after.masked[n][:-1], plan.now.masked[n][1:])
        assert not plan.after.masked[n][-1].any()
    assert not plan.after.sigma[-1].any()
    still = parts.plan(model, params, TabdiffSampling(steps=50, stochastic=False))
    np.testing.assert_array_equal(still.later.sigma, still.now.sigma)


def test_stirred_states_have_the_later_noise():
    """20,000 patients of one number and one code: four standard errors."""
    noise = lambda sigma, p: parts.Noise(
        jnp.float32(0), jnp.array([sigma]), [jnp.array([p])]
    )
    step = parts.Step(noise(1.0, 0.2), noise(1.25, 0.5), noise(0.5, 0.1))
    keys = jax.random.split(jax.random.key(0), 20_000)
    pairs = jax.vmap(jax.random.split)(keys)
    state = lambda key: jnp.where(jax.random.uniform(key) < 0.2, 2, 0)
    codes = jax.nn.one_hot(jax.vmap(state)(pairs[:, 0]), 3)[:, None]
    x = jax.random.normal(jax.random.key(1), (20_000, 1))
    stir = jax.vmap(lambda key, x, s: parts.churn(step, key, x, [s]))
    x, (codes,) = stir(pairs[:, 1], x, codes)
    np.testing.assert_allclose(x.std(), 1.25, rtol=4 / np.sqrt(2 * 20_000))
    hidden = np.asarray(masked.codes_of(codes)) == 2
    assert abs(hidden.mean() - 0.5) < 4 * math.sqrt(0.25 / 20_000)


OPTIONS = [
    TabdiffSampling(),
    TabdiffSampling(steps=100, stochastic=False, second_order=False),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_exact_denoiser_draws_the_law(monkeypatch, options):
    """A number of two normals, a binary code that says which, other codes: 2,000."""
    model, params, _ = start()
    layout, frequency = model.layout, data()[1]["frequency"]
    where = [num for num, _ in model.groups.places].index(2)
    place = model.groups.places[where][1][0]
    centres, std, share = jnp.array([-1.0, 0.8]), 0.2, jnp.array([0.3, 0.7])

    def exact(_model, _params, x, states, sigma, t):
        variance = std**2 + sigma[..., None] ** 2
        far = x[..., None] - centres
        seen = states[where][:, 0, :2]  # of the code, zeros where it is masked
        known = jnp.where(seen.sum(-1, keepdims=True) > 0, seen, 1.0)
        logs = -0.5 * far**2 / variance + jnp.log(share)
        own = logs[:, 0] + jnp.log(jnp.maximum(known, 1e-30))
        logs = logs.at[:, 0].set(own)
        towards = centres + std**2 / variance * far
        logits = [
            jnp.broadcast_to(
                jnp.log(jnp.asarray(frequency[at, :num], jnp.float32)),
                (len(x), len(at), num),
            )
            for num, at in model.groups.places
        ]
        logits[where] = logits[where].at[:, 0].set(own)
        return jnp.sum(jax.nn.softmax(logs, -1) * towards, -1), logits

    monkeypatch.setattr(parts, "denoise", exact)
    keys = jax.random.split(jax.random.key(0), 2000)
    run = functools.partial(
        module.draw, layout, model.config, options, {"model": params}
    )
    drawn = jax.jit(run)(keys, jnp.zeros(2000, jnp.int32))
    x, code = np.asarray(drawn.numeric[:, 0]), np.asarray(drawn.codes[:, place])
    bound = 4 * math.sqrt(0.25 / 2000) + 0.01
    assert abs(code.mean() - 0.7) < bound
    agree = (x > 0) == (code == 1)
    assert agree.mean() > 0.97
    for value, centre in enumerate((-1.0, 0.8)):
        inside = x[(code == value) & agree]
        assert abs(inside.mean() - centre) < 0.05
        assert abs(inside.std() - std) < 0.05
    for q, k in enumerate(layout.cardinalities):
        if q != place:
            found = np.bincount(drawn.codes[:, q], minlength=k) / 2000
            np.testing.assert_allclose(found, frequency[q, :k], atol=bound)


def test_few_patients_at_once_are_the_same_patients(monkeypatch):
    """Attention has room for some patients; nobody depends on how many."""
    model, params, _ = start()
    keys = jax.random.split(jax.random.key(2), 8)
    options, label = TabdiffSampling(steps=3, decode="mode"), jnp.zeros(8, jnp.int32)
    run = lambda: jax.jit(
        functools.partial(module.draw, model.layout, model.config, options)
    )({"model": params}, keys, label)
    whole = run()
    columns = model.numbers + len(model.layout.cardinalities)
    monkeypatch.setattr(module, "PAIRS", 2 * columns**2)
    for one, two in zip(whole, run(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


def test_presets_and_what_is_refused():
    authors = replace(TabdiffConfig(), PRESETS["authors"])
    assert (authors.token, authors.width, authors.expansion) == (4, 1024, 32)
    assert (authors.train.ema_decay, authors.train.ema_unit) == (0.997, "epoch")
    for fields, text in (
        ({"schedule": "own"}, "unknown schedule 'own'; known: learned, fixed"),
        ({"sigma_min": 90.0}, "sigma_min 90.0 must lie below sigma_max 80.0"),
        ({"num_heads": 3}, "token 4 must be a multiple of num_heads 3"),
        ({"width": 0}, "width must be positive, got 0"),
    ):
        with pytest.raises(InputError, match=text):
            TabdiffConfig(**fields)
    with pytest.raises(InputError, match="steps must be positive, got 0"):
        TabdiffSampling(steps=0)
