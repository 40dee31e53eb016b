"""Log-probabilities and their gradients against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from jaxehr.nn import likelihoods


def test_bernoulli_and_its_gradient(x64):
    logits = jnp.array([-800.0, -30.0, -1.3, 0.0, 0.7, 30.0, 800.0])
    logits, x = jnp.tile(logits, 2), jnp.arange(14) < 7
    found, back = jax.vjp(lambda at: likelihoods.bernoulli(at, x), logits)
    wanted = special.log_expit(np.where(x, logits, -logits))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    gradient = back(jnp.full(logits.shape, 2.0))[0]
    wanted = 2.0 * (x - special.expit(logits))
    np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-300)


def test_negative_binomial(x64):
    mean, r = np.array([0.2, 3.0, 500.0]), np.array([0.3, 2.0, 50.0])
    x = np.array([[0.0, 0.0, 0.0], [1.0, 4.0, 450.0], [7.0, 40.0, 900.0]])
    found = likelihoods.negative_binomial(jnp.log(mean), jnp.asarray(r), x)
    wanted = stats.nbinom.logpmf(x, r, r / (r + mean))
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    # d log p / d log m = (x - m) r / (m + r)
    total = lambda at: likelihoods.negative_binomial(at, jnp.asarray(r), x).sum()
    gradient = jax.grad(total)(jnp.log(mean))
    wanted = ((x - mean) * r / (mean + r)).sum(0)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-10)


def test_normal_and_categorical(x64):
    rng = np.random.default_rng(0)
    x, mean, sigma = rng.normal(size=(3, 6))
    sigma = np.exp(sigma)
    found = likelihoods.normal(mean, sigma, x)
    np.testing.assert_allclose(found, stats.norm.logpdf(x, mean, sigma), rtol=1e-12)
    logits, codes = rng.normal(size=(6, 4)), rng.integers(4, size=6)
    found = likelihoods.categorical(jnp.asarray(logits), jnp.asarray(codes))
    wanted = special.log_softmax(logits, -1)[np.arange(6), codes]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_raw_deviations_come_back(x64):
    sigma = jnp.array([0.011, 0.1, 1.0, 30.0])
    found = likelihoods.sigma_of(likelihoods.raw_sigma(sigma))
    np.testing.assert_allclose(found, sigma, rtol=1e-10)
    np.testing.assert_allclose(likelihoods.raw_sigma(jnp.ones(())), 0.0, atol=1e-12)
    least = likelihoods.sigma_of(likelihoods.raw_sigma(jnp.array([-1.0, 0.0, 0.01])))
    np.testing.assert_allclose(least, likelihoods.SMALLEST_SIGMA, atol=2e-6)
