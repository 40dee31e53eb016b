"""Latent diffusion: network, guidance, rows, a learned mixture."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.diffusion import ddpm
from jaxehr.diffusion.whitening import fit_whitening, no_whitening
from jaxehr.models.flexgen import latent
from jaxehr.models.flexgen.config import FlexgenConfig, FlexgenSampling
from jaxehr.training.config import TrainConfig
from jaxehr.training.loop import train

HALF = 4  # coordinates of one modality
DIM = 2 * HALF
CONFIG = FlexgenConfig(
    latent=HALF,
    width=64,
    train=TrainConfig(
        steps=1500,
        batch_size=128,
        learning_rate=2e-3,
        lr_schedule="cosine",
        ema_decay=0.99,
        eval_every=10_000,
        checkpoint_every=10_000,
    ),
)


predict = jax.jit(latent.predict, static_argnums=0)


def latents(z, label):
    """Data whose posterior draws are the rows of z, temporal first."""
    zeros, ones = np.zeros((len(z), HALF), np.float32), np.ones(len(z), bool)
    static, temporal = z[:, HALF:], z[:, :HALF]
    common = {"weight": np.arange(3.0)}
    return latent.Latents(label, static, zeros, temporal, zeros, ones, ones, common)


def complete(key, batch):
    return jnp.concatenate([batch.temporal_mean, batch.static_mean], -1)


def moments(label):
    """Mean and Cholesky factor of each class, as in the mixture that is learned."""
    rng = np.random.default_rng(5)
    means = np.stack([np.zeros(DIM), 2.0 * rng.normal(size=DIM)])
    factors = rng.normal(size=(2, DIM, DIM)) / np.sqrt(DIM) + 0.5 * np.eye(DIM)
    return means[label], factors[label]


@functools.cache
def mixture(num, seed):
    rng = np.random.default_rng(seed)
    label = (rng.random(num) < 0.3).astype(np.int32)
    means, factors = moments(label)
    z = means + np.einsum("nij,nj->ni", factors, rng.normal(size=(num, DIM)))
    return z.astype(np.float32), label


@functools.cache
def learned():
    """Whitening and parameters after one short training (about 7 s)."""
    z, label = mixture(4000, 0)
    whitening = fit_whitening(z)
    objective = latent.objective(CONFIG, 2, whitening, complete)
    trained = train(
        jax.random.key(0), objective, latents(z, label), config=CONFIG.train
    )
    return whitening, trained.params


@functools.cache
def start(config=CONFIG, num_classes=2):
    """Parameters at random, also those that start at zero, and an identity."""
    whitening = no_whitening(DIM)
    objective = latent.objective(config, num_classes, whitening, complete)
    batch = latents(*mixture(4, 3))
    params = jax.jit(objective.init)(jax.random.key(0), batch)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    random = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return whitening, jax.tree.unflatten(tree, random)


def draw(parts, num=6, *, config=CONFIG, classes=2, index=None, label=None, **options):
    index = np.arange(num, dtype=np.int32) if index is None else index
    label = np.zeros(len(index), np.int32) if label is None else label
    sampling = FlexgenSampling(**options)
    return latent.sample(
        config, classes, parts[0], sampling, jax.random.key(2), parts[1], index, label
    )


# ---- learned


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_a_mixture_of_two_normals_is_learned(solver):
    """Means within .15 of a standard deviation, covariances within 18 % (Frobenius).

    Standard errors of 4,000 draws: .016 and about 3 %; 50 levels cost up to 7 % of a
    direction's variance (table A.5), 4,000 patients and 1,500 steps the rest.
    """
    for code in (0, 1):
        label = np.full(4000, code, np.int32)
        out = draw(learned(), 4000, label=label, solver=solver)
        mean, factor = moments(code)
        covariance = factor @ factor.T
        z = (out.mean(0) - mean) / np.sqrt(np.diag(covariance))
        assert np.abs(z).max() < 0.15
        error = np.linalg.norm(np.cov(out.T) - covariance)
        assert error < 0.18 * np.linalg.norm(covariance)


def test_guidance_moves_a_class_away_from_the_other():
    """The same start and noise with and without: the mean shift in standard errors."""
    label = np.ones(512, np.int32)
    away = moments(1)[0] - moments(0)[0]
    plain, guided = (
        draw(learned(), 512, label=label, guidance=w) @ away for w in (0.0, 1.0)
    )
    shift = guided - plain
    assert shift.mean() > 4 * shift.std() / np.sqrt(512)


def test_one_step_estimates_come_nearer_at_low_levels():
    whitening, params = learned()
    z, label = mixture(512, 1)
    denoise = jax.jit(functools.partial(latent.denoised, CONFIG, 2, whitening))
    errors = []
    for level in (1, 10, 50):
        t = jnp.full(512, level)
        guess = denoise(jax.random.key(0), params, z, label, t)
        assert guess.shape == z.shape
        errors.append(float(jnp.mean((guess - z) ** 2)))
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] < 0.01 * z.var()
    # At the last level nothing is known but the label.
    _, factors = moments(label)
    within = np.mean(np.trace(factors @ factors.swapaxes(1, 2), axis1=1, axis2=2)) / DIM
    np.testing.assert_allclose(errors[2], within, rtol=0.15)


# ---- network and objective


@pytest.mark.parametrize(("last", "bounded"), [("none", False), ("gelu", True)])
def test_predicted_noise_may_be_negative_but_not_with_the_last_gelu(last, bounded):
    config = dataclasses.replace(CONFIG, last_activation=last)
    x = 10.0 * jax.random.normal(jax.random.key(3), (64, DIM))
    t, told = jnp.full(64, 25), jnp.zeros((64, 2))
    guess = predict(config, start(config)[1], x, t, told)
    assert (float(guess.min()) >= -0.1701) is bounded


def test_untrained_network_has_the_loss_of_white_normal_data():
    """eps_hat = sqrt(1 - abar) x errs by abar a coordinate on N(0, 1) data."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(8000, DIM)).astype(np.float32)
    whitening = start()[0]
    objective = latent.objective(CONFIG, 2, whitening, complete)
    batch = latents(z, np.zeros(8000, np.int32))
    params = jax.jit(objective.init)(jax.random.key(0), batch)
    loss = jax.jit(objective.loss)(params, jax.random.key(1), batch)[0]
    expected = latent.plan_of(CONFIG).alpha_bar[1:].mean()
    # |error|^2 has a variance of at most 2 about its level's mean
    np.testing.assert_allclose(loss, expected, atol=4 * np.sqrt(2 / z.size))


def test_one_level_for_all_rows_is_the_same_as_one_for_each():
    params = start()[1]
    x = jax.random.normal(jax.random.key(3), (6, DIM))
    told = jax.nn.one_hot(jnp.array([0, 1, 0, 1, 1, 0]), 2)
    each = predict(CONFIG, params, x, jnp.full(6, 7), told)
    one = predict(CONFIG, params, x, jnp.array([7]), told)
    np.testing.assert_allclose(one, each, rtol=2e-5, atol=1e-6)


def test_hidden_labels_do_not_enter_the_loss():
    config = dataclasses.replace(CONFIG, label_drop=0.99)
    whitening, params = start(config)
    objective = latent.objective(config, 2, whitening, complete)
    z, label = mixture(4, 1)
    loss = lambda label: objective.loss(params, jax.random.key(0), latents(z, label))[0]
    assert loss(label) == loss(1 - label)
    told = latent.objective(CONFIG, 2, whitening, complete)
    loss = lambda label: told.loss(params, jax.random.key(0), latents(z, label))[0]
    assert loss(label) != loss(1 - label)


def test_a_batch_takes_patients_and_leaves_what_is_common():
    z, label = mixture(64, 1)
    data = latents(z, label)
    batch = latent.take(data, jnp.array([5, 3]))
    np.testing.assert_array_equal(batch.static_mean, z[[5, 3], HALF:])
    np.testing.assert_array_equal(batch.label, label[[5, 3]])
    np.testing.assert_array_equal(batch.common["weight"], data.common["weight"])


def test_number_of_levels():
    assert latent.num_levels(CONFIG) == 50
    assert latent.num_levels(dataclasses.replace(CONFIG, betas="long")) == 1000


# ---- sampling


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_a_patient_depends_on_its_number_only(solver):
    many = draw(start(), 300, solver=solver)  # two blocks
    few = draw(start(), index=np.array([299, 7, 0], np.int32), solver=solver)
    np.testing.assert_array_equal(few, many[[299, 7, 0]])
    assert draw(start(), 0, solver=solver).shape == (0, DIM)
    assert len(np.unique(many, axis=0)) == 300


def test_guidance_of_the_samples_is_that_of_the_formula():
    """One DDIM step by hand: eps = (1 + w) eps(label) - w eps(no label)."""
    parts, label = start(), np.array([0, 1], np.int32)
    out = draw(parts, 2, label=label, solver="ddim", steps=1, guidance=0.7)
    keys = [jax.random.fold_in(jax.random.key(2), i) for i in range(2)]
    x = jnp.stack([jax.random.normal(jax.random.split(k)[0], (DIM,)) for k in keys])
    t = jnp.full(2, 50)
    told = jax.nn.one_hot(label, 2)
    with_label = predict(CONFIG, parts[1], x, t, told)
    without = predict(CONFIG, parts[1], x, t, 0 * told)
    eps = 1.7 * with_label - 0.7 * without
    expected = ddpm.clean_of(latent.plan_of(CONFIG), x, t, eps)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_a_cohort_without_a_label_can_be_sampled():
    parts = start(num_classes=0)
    assert np.isfinite(draw(parts, 3, classes=0)).all()
    with pytest.raises(InputError, match=r"guidance 0.5 needs .* got 0 classes"):
        draw(parts, 3, classes=0, guidance=0.5)


def test_guidance_needs_labels_that_were_hidden():
    config = dataclasses.replace(CONFIG, label_drop=0.0)
    with pytest.raises(InputError, match=r"got 2 classes and label_drop 0.0"):
        draw(start(), config=config, guidance=0.5)


def test_steps_that_the_solver_cannot_take_are_refused():
    with pytest.raises(InputError, match=r"each of the model's 50 noise levels.* 20"):
        draw(start(), solver="ddpm", steps=20)
    with pytest.raises(InputError, match=r"steps must lie in \[1, 50\].* got 60"):
        draw(start(), solver="ddim", steps=60)
    assert draw(start(), 3, solver="ddim", steps=5).shape == (3, DIM)
