"""Codes as intervals: probabilities, the mean of a latent, far tails, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxehr.diffusion import ordinal
from jaxehr.diffusion.embeddings import cross_entropy, pad_logits

SIZES = (2, 4)
FAR = 6.0
# Ends of 2 and of 4 codes at two steps, padded to 5.
ENDS = jnp.asarray(
    [
        [[-FAR, 0.3, FAR, FAR, FAR], [-FAR, -1.0, 0.0, 1.5, FAR]],
        [[-FAR, -0.7, FAR, FAR, FAR], [-FAR, -0.2, 0.1, 0.4, FAR]],
    ]
)
SIDE = ordinal.side_by_side(ENDS, SIZES)
RNG = np.random.default_rng(3)


def moments(shift=1.0, scale=1.0):
    mean = jnp.asarray(shift * RNG.normal(size=(7, 2, 2)), jnp.float32)
    return mean, jnp.asarray(scale * RNG.uniform(0.3, 1.0, (7, 2, 2)), jnp.float32)


def logits_of(mean, spread, correction=0.0):
    correction = jnp.full((7, 2, sum(SIZES)), correction)
    cuts = ordinal.cuts_of(SIDE, mean, spread, SIZES)
    return ordinal.logits_of(cuts, correction)


def expected(mean, spread, logits):
    cuts = ordinal.cuts_of(SIDE, mean, spread, SIZES)
    return ordinal.expected(SIDE, mean, spread, cuts, logits, SIZES)


def test_codes_have_the_probabilities_of_their_intervals():
    mean, spread = moments()
    found = jax.nn.softmax(pad_logits(logits_of(mean, spread), SIZES), -1)
    law = stats.norm(np.asarray(mean)[..., None], np.asarray(spread)[..., None])
    wanted = np.diff(law.cdf(np.asarray(ENDS)), axis=-1)
    wanted /= wanted.sum(-1, keepdims=True)  # nothing lies beyond the outer ends
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    np.testing.assert_array_equal(found[..., 0, 2:], 0.0)


def test_without_a_network_the_mean_is_that_of_the_normal_law():
    """sum_k P_k E[z | k] = m."""
    mean, spread = moments()
    found = expected(mean, spread, logits_of(mean, spread))
    np.testing.assert_allclose(found, mean, atol=2e-4)


def test_a_code_that_is_known_has_the_mean_of_its_interval():
    mean, spread = moments()
    for code in range(2):
        logits = jnp.zeros((7, 2, 6)).at[..., [code, 2 + code]].set(1e3)
        found = np.asarray(expected(mean, spread, logits))
        low, high = np.asarray(ENDS[..., code]), np.asarray(ENDS[..., code + 1])
        m, s = np.asarray(mean, float), np.asarray(spread, float)
        wanted = stats.truncnorm((low - m) / s, (high - m) / s, m, s).mean()
        np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_far_from_all_that_is_likely_nothing_breaks():
    """Means beyond the ends, a tiny spread: finite, inside the ends, gradients too."""
    mean, spread = moments(shift=8.0, scale=0.01)

    def loss(mean, spread):
        logits = logits_of(mean, spread)
        codes = jnp.ones((7, 2, 2), int)
        z = expected(mean, spread, logits)
        return cross_entropy(pad_logits(logits, SIZES), codes).sum() + z.sum(), z

    (total, z), slopes = jax.value_and_grad(loss, (0, 1), has_aux=True)(mean, spread)
    assert np.isfinite(total)
    assert np.abs(z).max() <= FAR
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_a_latent_lies_in_the_interval_of_its_code():
    z = jnp.asarray([[[0.0, -2.0], [-1.0, 0.2]], [[0.4, 1.6], [0.0, 5.0]]])
    found = ordinal.codes_of(ENDS, z)
    np.testing.assert_array_equal(found, [[[0, 0], [0, 2]], [[1, 3], [1, 3]]])


def test_without_gaps_there_is_nothing():
    nothing = ordinal.side_by_side(jnp.zeros((2, 0, 2)), ())
    assert nothing.low.shape == nothing.high.shape == (2, 0)


def test_small_probabilities_keep_their_digits():
    """Tails of both sides, where the difference of two cdf is 0 in float32."""
    for side in (-1.0, 1.0):
        mean = jnp.full((1, 2, 2), side * 7.5)
        cuts = ordinal.cuts_of(SIDE, mean, jnp.ones((1, 2, 2)), SIZES)
        law = stats.norm(0.0, 1.0)
        ends = np.asarray(ENDS[0, 1], float) - side * 7.5
        ends[0], ends[-1] = -np.inf, np.inf
        left, right = np.diff(law.cdf(ends)), -np.diff(law.sf(ends))
        wanted = np.where(ends[:-1] > 0, right, left)
        np.testing.assert_allclose(cuts.share[0, 0, 2:], wanted, rtol=2e-3)
