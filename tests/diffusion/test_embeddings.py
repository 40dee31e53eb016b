"""Embeddings: score interpolation against the mixture posterior, decoding, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from jaxehr.diffusion.embeddings import (
    cross_entropy,
    embed,
    expected,
    init_table,
    nearest,
    normalise,
    pad_logits,
    valid_codes,
)

CARDINALITIES = (2, 2, 3, 5)
DIM = 6


@pytest.fixture
def e():
    return normalise(init_table(jax.random.key(0), CARDINALITIES, DIM))


def random_codes(key, shape):
    high = jnp.asarray(CARDINALITIES)
    return jax.random.randint(key, (*shape, len(CARDINALITIES)), 0, high)


def test_score_interpolation_is_the_posterior_mean_of_a_mixture(x64):
    """D(z) = z + sigma^2 grad log p(z), p the mixture of N(e_k, sigma^2) (Tweedie)."""
    e = normalise(init_table(jax.random.key(0), CARDINALITIES, DIM))
    valid = jnp.asarray(valid_codes(CARDINALITIES))
    prior = jax.random.normal(jax.random.key(1), valid.shape)
    prior = jax.nn.log_softmax(jnp.where(valid, prior, -1e9))
    for sigma in (0.3, 2.0, 50.0):
        noise = jax.random.normal(jax.random.key(2), (9, len(CARDINALITIES), DIM))
        z = e[:, 1] + sigma * noise

        def joint(z, sigma=sigma):
            square = jnp.sum((z[..., None, :] - e) ** 2, axis=-1)
            return prior - square / (2 * sigma**2)

        score = jax.grad(lambda z: logsumexp(joint(z), axis=-1).sum())(z)
        tweedie = z + sigma**2 * score
        np.testing.assert_allclose(expected(e, joint(z)), tweedie, atol=1e-7)


def test_for_two_codes_nearest_equals_argmax():
    """The final state is sum_k p_k e_k, halfway exactly at p = 1/2."""
    e = normalise(init_table(jax.random.key(3), (2,) * 5, DIM))
    logits = 4.0 * jax.random.normal(jax.random.key(4), (500, 5, 2))
    codes = nearest(e, valid_codes((2,) * 5), expected(e, logits))
    np.testing.assert_array_equal(codes, jnp.argmax(logits, axis=-1))


def test_nearest_inverts_embed_and_never_returns_padding(e):
    codes = random_codes(jax.random.key(1), (40, 7))
    valid = valid_codes(CARDINALITIES)
    np.testing.assert_array_equal(nearest(e, valid, embed(e, codes)), codes)
    anywhere = 100.0 * jax.random.normal(jax.random.key(2), (400, 4, DIM))
    found = np.asarray(nearest(e, valid, anywhere))
    assert np.all(found < np.asarray(CARDINALITIES))
    spread = anywhere[..., None, :] - e
    distance = np.where(valid, np.sum(np.asarray(spread) ** 2, axis=-1), np.inf)
    np.testing.assert_array_equal(found, distance.argmin(-1))


def test_nearest_is_by_distance_also_for_rows_of_unequal_length():
    e = jnp.array([[[1.0, 0.0], [5.0, 0.0]]])
    z = jnp.array([[[2.0, 0.0]], [[4.0, 0.0]]])
    codes = nearest(e, valid_codes((2,)), z)
    np.testing.assert_array_equal(codes, [[0], [1]])


def test_normalised_rows_have_length_sqrt_d(e):
    length = np.linalg.norm(e, axis=-1)
    expected_length = np.where(valid_codes(CARDINALITIES), np.sqrt(DIM), 0.0)
    np.testing.assert_allclose(length, expected_length, rtol=1e-5)


def test_gradient_of_normalise_is_orthogonal_and_zero_at_padding():
    table = init_table(jax.random.key(0), CARDINALITIES, DIM)
    pull = jax.random.normal(jax.random.key(1), table.shape)
    gradient = jax.grad(lambda v: jnp.sum(normalise(v) * pull))(table)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0, 2:], 0.0)
    along = np.sum(gradient * table, axis=-1)
    size = np.linalg.norm(gradient, axis=-1) * np.linalg.norm(table, axis=-1)
    np.testing.assert_allclose(along, 0.0, atol=1e-5 * size.max())


def test_bias_is_added_before_normalising():
    table = init_table(jax.random.key(0), (2, 3), DIM)
    bias = jax.random.normal(jax.random.key(1), (2, DIM))
    shifted = normalise(table + bias[:, None, :])
    np.testing.assert_array_equal(normalise(table, bias), shifted)


def test_embed_looks_up_and_its_gradient_is_the_one_of_a_lookup(e):
    codes = random_codes(jax.random.key(1), (8, 5))
    plain = lambda e: e[jnp.arange(len(CARDINALITIES)), codes]
    np.testing.assert_array_equal(embed(e, codes), plain(e))
    pull = jax.random.normal(jax.random.key(2), (8, 5, len(CARDINALITIES), DIM))
    gradient = jax.jit(jax.grad(lambda e: jnp.sum(embed(e, codes) * pull)))(e)
    reference = jax.grad(lambda e: jnp.sum(plain(e) * pull))(e)
    np.testing.assert_allclose(gradient, reference, rtol=1e-5, atol=1e-5)


def test_pad_logits_places_every_logit():
    flat = jnp.arange(24.0).reshape(2, 12)
    padded = np.asarray(pad_logits(flat, CARDINALITIES))
    assert padded.shape == (2, 4, 5)
    valid = valid_codes(CARDINALITIES)
    np.testing.assert_array_equal(padded[:, valid], flat)
    np.testing.assert_array_equal(padded[:, ~valid], np.float32(-1e9))
    equal = pad_logits(flat, (3,) * 4)
    np.testing.assert_array_equal(equal, flat.reshape(2, 4, 3))
    assert pad_logits(jnp.zeros((2, 0)), ()).shape == (2, 0, 0)
    with pytest.raises(ValueError, match="width 12, the cardinalities sum to 4"):
        pad_logits(flat, (2, 2))


def test_cross_entropy_by_hand_and_against_a_lookup():
    logits = pad_logits(jnp.log(jnp.array([0.2, 0.8, 0.1, 0.3, 0.6])), (2, 3))
    got = cross_entropy(logits, jnp.array([1, 0]))
    np.testing.assert_allclose(got, -np.log([0.8, 0.1]), rtol=1e-5)
    gradient = jax.grad(lambda v: cross_entropy(v, jnp.array([1, 0])).sum())(logits)
    np.testing.assert_allclose(gradient[0], [0.2, -0.2, 0.0], atol=1e-6)


def test_no_features_is_no_special_case():
    e = normalise(init_table(jax.random.key(0), (), DIM))
    assert embed(e, jnp.zeros((3, 0), int)).shape == (3, 0, DIM)
    assert expected(e, jnp.zeros((3, 0, 0))).shape == (3, 0, DIM)
    assert cross_entropy(jnp.zeros((3, 0, 0)), jnp.zeros((3, 0), int)).shape == (3, 0)
