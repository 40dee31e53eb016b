"""Losses of EHR-M-GAN by hand and by loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxehr.baselines import ehrmgan_losses as losses
from jaxehr.nn import vae


def test_the_divergence_by_hand():
    """Mean 1/2, deviation 2: 1/2 (4 + 1/4 - 1 - 2 log 2), and the authors' formula."""
    mean, log_std = jnp.full((3, 2, 5), 0.5), jnp.full((3, 2, 5), np.log(2.0))
    wanted = 10 * 0.5 * (4 + 0.25 - 1 - 2 * np.log(2.0))
    np.testing.assert_allclose(
        losses.divergence("corrected", mean, log_std), [wanted] * 3, rtol=1e-5
    )
    wanted = 10 * 0.5 * (2 + 0.25 - 1 - np.log(2.0))
    np.testing.assert_allclose(
        losses.divergence("published", mean, log_std), [wanted] * 3, rtol=1e-5
    )


def test_the_corrected_divergence_is_that_of_normals(x64):
    rng = np.random.default_rng(0)
    mean, log_std = rng.normal(size=(2, 4, 3, 2))
    wanted = vae.divergence(jnp.asarray(mean), jnp.exp(log_std)).sum((1, 2))
    found = losses.divergence("corrected", mean, jnp.asarray(log_std))
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    for form in ("corrected", "published"):  # both are 0 at the prior, and least there
        zero = losses.divergence(form, jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1)))
        np.testing.assert_allclose(zero, 0.0, atol=1e-12)
        assert (losses.divergence(form, mean, jnp.asarray(log_std)) > 0).all()


def test_the_contrast_by_a_loop(x64):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 6, 4))

    def half(a, b):
        total = 0.0
        for i in range(6):
            against = [a[i] @ b[j] for j in range(6)]
            against += [a[i] @ a[j] for j in range(6) if j != i]
            total -= a[i] @ b[i] - np.log(np.exp(against).sum())
        return total / 6

    found = losses.contrast(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(found, half(a, b) + half(b, a), rtol=1e-10)
    slope = jax.grad(losses.contrast)(jnp.asarray(a), jnp.asarray(b))
    assert np.isfinite(slope).all()


def test_no_contrast_of_latents_that_say_nothing():
    """11 others that are alike: log 11 for both halves."""
    zero = jnp.zeros((6, 3))
    np.testing.assert_allclose(losses.contrast(zero, zero), 2 * np.log(11.0), rtol=1e-6)


def test_gaps_of_moments_by_numpy(x64):
    rng = np.random.default_rng(2)
    made, real = rng.normal(0.3, 1.0, (9, 3, 4)), rng.normal(-0.2, 2.0, (9, 3, 4))
    deviations = np.abs(np.sqrt(made.var(0) + 1e-6) - np.sqrt(real.var(0) + 1e-6))
    roots = np.abs(np.sqrt(np.abs(made.mean(0))) - np.sqrt(np.abs(real.mean(0))))
    found = losses.feature_gap(jnp.asarray(made), jnp.asarray(real))
    # the small number that keeps the root of a mean smooth moves it by 1e-3 at most
    np.testing.assert_allclose(found, deviations.mean() + roots.mean(), atol=1e-3)
    means = np.abs(made.mean(0) - real.mean(0))
    found = losses.data_gap(jnp.asarray(made), jnp.asarray(real))
    np.testing.assert_allclose(found, deviations.mean() + means.mean(), rtol=1e-10)
    np.testing.assert_allclose(losses.data_gap(real, real), 0.0)


def test_the_matching_is_a_mean_square():
    one, two = jnp.zeros((2, 3, 4)), jnp.full((2, 3, 4), 3.0)
    np.testing.assert_allclose(losses.matching(one, two), 9.0)


@pytest.mark.parametrize("label", [0.0, 0.1, 1.0, 1.2])
def test_soft_labels_by_numpy(x64, label):
    logits = np.array([-3.0, 0.2, 40.0])
    p = special.expit(logits)
    with np.errstate(divide="ignore"):
        log_not = np.where(logits > 30, -logits, np.log(1 - p))
    wanted = -(label * np.log(p) + (1 - label) * log_not).mean()
    found = losses.soft(jnp.asarray(logits), jnp.full(3, label))
    np.testing.assert_allclose(found, wanted, rtol=1e-8)
