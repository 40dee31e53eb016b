"""Whitening: white, invertible, careful with few rows; scikit-learn's shrinkage."""

import numpy as np
import pytest
from sklearn import covariance

from jaxehr.diffusion.whitening import (
    colour,
    fit_whitening,
    no_whitening,
    shrunk_covariance,
    whiten,
)

DIM = 8


def correlated(num):
    rng = np.random.default_rng(0)
    factor = np.diag(np.arange(2.0, 2.0 + DIM)) + rng.random((DIM, DIM))
    return (rng.normal(size=(num, DIM)) @ factor + 2.0).astype(np.float32)


def test_whitened_latents_are_white_and_come_back():
    z = correlated(4000)
    whitening = fit_whitening(z)
    x = np.asarray(whiten(whitening, z))
    np.testing.assert_allclose(x.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.cov(x.T), np.eye(DIM), atol=0.03)  # some shrinkage
    np.testing.assert_allclose(colour(whitening, x), z, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["rank two", "constant"])
def test_rank_deficient_latents_come_back(scale):
    rng = np.random.default_rng(0)
    z = scale * rng.normal(size=(500, 2)) @ rng.normal(size=(2, DIM)) + 3.0
    z = z.astype(np.float32)
    whitening = fit_whitening(z)
    x = np.asarray(whiten(whitening, z))
    assert np.isfinite(x).all()
    assert np.abs(x).max() < 10.0
    np.testing.assert_allclose(colour(whitening, x), z, atol=1e-3)


def test_few_patients_do_not_make_directions_look_empty():
    """20 patients, 64 coordinates: fresh draws stay near unit variance."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(1.0, 0.3, 64)
    whitening = fit_whitening(spread * rng.normal(size=(20, 64)))
    fresh = spread * rng.normal(size=(2000, 64))
    variance = np.asarray(whiten(whitening, fresh.astype(np.float32))).var(0)
    assert variance.min() > 0.05
    assert variance.max() < 5.0


def test_shrinkage_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(40, 12)) * np.geomspace(3, 0.1, 12)
    z -= z.mean(0)
    expected, _ = covariance.ledoit_wolf(z, assume_centered=True)
    np.testing.assert_allclose(shrunk_covariance(z), expected, rtol=1e-10)


def test_whitening_can_be_left_out():
    z = correlated(4000)
    whitening = no_whitening(DIM)
    np.testing.assert_array_equal(whiten(whitening, z), z)
    np.testing.assert_array_equal(colour(whitening, z), z)
