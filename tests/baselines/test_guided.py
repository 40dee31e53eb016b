"""The diffusion of vectors: exact predictors, guidance, hidden labels, refusals."""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.baselines import guided
from jaxehr.baselines.guided import GuidedSampling
from jaxehr.baselines.meddiff import MeddiffConfig
from jaxehr.core.checks import InputError
from jaxehr.diffusion import ddpm
from jaxehr.training.stages import Stages

KEY = jax.random.key(0)
CONFIG = MeddiffConfig(betas="sqrt", diffusion_steps=1000)
MEANS = jnp.array([[1.0, -2.0], [-3.0, 0.5]])  # of both classes


class Rows(NamedTuple):
    label: jax.Array
    x: jax.Array


def exact(variance, config, params, x, t, told):
    """E[eps | x, y] of N(MEANS[y], variance) data; without a label of mean 0."""
    signal, noise = ddpm.scales(guided.plan_of(config), t)
    away = x - signal * (told @ MEANS)
    return noise * away / (signal**2 * variance + noise**2)


@functools.cache
def drawn(variance, options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guided, "predict", functools.partial(exact, variance))
        label = jnp.arange(4000) % 2
        keys = jax.random.split(KEY, 4000)
        run = functools.partial(guided.draw, CONFIG, 2, 2, options)
        return np.asarray(jax.jit(run)(None, keys, label)), np.asarray(label)


@pytest.mark.parametrize(
    ("variance", "options", "bias"),
    [
        # DDIM's Euler steps narrow the law by known factors, at most 3 % here.
        (0.5, GuidedSampling(solver="ddim", steps=50), 0.03),
        (4.0, GuidedSampling(solver="ddim", steps=50), 0.03),
        (0.5, GuidedSampling(solver="ddpm"), 0.01),
    ],
)
def test_the_exact_noise_gives_the_law(variance, options, bias):
    """Mean within 4 s.e. (and the 1.2 % of it that x_T forgets); deviation too."""
    x, label = drawn(variance, options)
    for code in (0, 1):
        rows, error = x[label == code], np.sqrt(variance / 2000)
        off = np.abs(rows.mean(0) - np.asarray(MEANS)[code])
        assert (off < 4 * error + 0.012 * np.abs(np.asarray(MEANS)[code])).all()
        np.testing.assert_allclose(
            rows.std(0), np.sqrt(variance), rtol=4 / np.sqrt(4000) + bias
        )


def test_guidance_extrapolates_from_no_label():
    """The predictors differ in their mean only: the guided mean is (1 + w) mean."""
    options = GuidedSampling(solver="ddim", steps=50, guidance=0.5)
    x, label = drawn(0.5, options)
    for code in (0, 1):
        wanted = 1.5 * np.asarray(MEANS)[code]
        off = np.abs(x[label == code].mean(0) - wanted)
        assert (off < 4 * np.sqrt(0.5 / 2000) + 0.012 * np.abs(wanted)).all()


def test_the_loss_of_the_exact_noise_is_zero(monkeypatch):
    """Rows are the means themselves, so the noise can be told from x."""
    monkeypatch.setattr(guided, "predict", functools.partial(exact, 0.0))
    config = MeddiffConfig(betas="code", diffusion_steps=100, label_drop=0.0)
    clean = lambda key, batch: batch.x
    made = guided.objective(config, 2, 2, clean, lambda data, rows: data)
    label = jnp.arange(64) % 2
    value, _ = made.loss({}, KEY, Rows(label, MEANS[label]))
    assert float(value) < 1e-8
    shifted, _ = made.loss({}, KEY, Rows(label, MEANS[label] + 1.0))
    assert float(shifted) > 0.1


@pytest.mark.parametrize(("share", "told"), [(0.0, 1.0), (0.99, 0.01), (0.25, 0.75)])
def test_labels_are_hidden_as_often_as_wanted(monkeypatch, share, told):
    """Of 4,096 patients, within 4 s.e."""
    seen = []

    def spy(config, params, x, t, told):
        seen.append((np.asarray(told).sum(1), np.asarray(t)))
        return jnp.zeros_like(x)

    monkeypatch.setattr(guided, "predict", spy)
    config = MeddiffConfig(diffusion_steps=100, label_drop=share)
    clean = lambda key, batch: batch.x
    made = guided.objective(config, 2, 2, clean, lambda data, rows: data)
    rows = Rows(jnp.zeros(4096, int), jnp.zeros((4096, 2)))
    value, _ = made.loss({}, KEY, rows)
    assert abs(float(value) - 1.0) < 4 * np.sqrt(2 / 8192)  # E eps^2
    assert abs(seen[0][0].mean() - told) <= 4 * np.sqrt(share * (1 - share) / 4096)
    levels = np.bincount(seen[0][1], minlength=101)
    assert levels[0] == 0
    assert (np.abs(levels[1:] - 40.96) <= 1).all()  # every level alike often


def test_the_network_starts_at_the_noise_of_white_rows():
    made = guided.objective(CONFIG, 3, 2, None, None)
    params = made.init(KEY, Rows(jnp.zeros(5, int), jnp.zeros((5, 3))))
    x, t = jax.random.normal(KEY, (5, 3)), jnp.array([1, 10, 100, 500, 1000])
    told = jax.nn.one_hot(jnp.array([0, 1, 0, 1, 0]), 2)
    found = guided.predict(CONFIG, params, x, t, told)
    noise = ddpm.scales(guided.plan_of(CONFIG), t)[1]
    np.testing.assert_allclose(found, noise * x, rtol=1e-6)


@pytest.mark.parametrize(
    ("betas", "levels", "told"),
    [
        ("sqrt", 50, "betas sqrt with 50 levels leave 0.80 of the data"),
        ("paper", 200, "leave 0.60 .* --betas scaled, or more --diffusion-steps"),
        ("sqrt", 1000, None),
        ("scaled", 20, None),
    ],
)
def test_a_schedule_that_does_not_end_in_noise_is_told(betas, levels, told):
    heard = []
    config = MeddiffConfig(betas=betas, diffusion_steps=levels)
    guided.announce_signal(config, Stages({}, announce=heard.append))
    assert len(heard) == (told is not None)
    assert not told or re.search(told, heard[0])


@pytest.mark.parametrize(
    ("options", "classes", "match"),
    [
        ({"guidance": 1.0}, 0, "got 0 classes and label_drop 0.1; use guidance 0"),
        ({"steps": 20}, 2, "ddpm takes each of the model's 1000 noise levels, got"),
        ({"solver": "ddim", "steps": 1001}, 2, r"steps must lie in \[1, 1000\]"),
    ],
)
def test_options_that_the_model_cannot_honour(options, classes, match):
    with pytest.raises(InputError, match=match):
        guided.check_sampling(CONFIG, classes, GuidedSampling(**options))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"solver": "heun"}, "unknown solver 'heun'; known: ddpm, ddim"),
        ({"steps": -1}, r"steps must lie in \[0, 10000\], got -1"),
        ({"guidance": -2.0}, r"guidance must lie in \[-1.0, 100.0\]"),
        ({"decode": "mean"}, "unknown decode 'mean'"),
    ],
)
def test_refused_options(fields, match):
    with pytest.raises(InputError, match=match):
        GuidedSampling(**fields)
