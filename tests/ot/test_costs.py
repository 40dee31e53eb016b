"""Embeddings, codes, weights and scales of the cost."""

import numpy as np
import pytest

from jaxehr.ot import costs


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_simplex_codes_have_the_inner_products_of_a_simplex(classes):
    codes = costs.simplex(classes)
    expected = np.full((classes, classes), -1.0 / (classes - 1))
    np.fill_diagonal(expected, 1.0)
    assert codes.shape == (classes, classes - 1)
    np.testing.assert_allclose(codes @ codes.T, expected, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_similarities_are_inner_products_of_signed_rows(x64, classes):
    # C^T = U U' to 1e-12 [acceptance 1]: the sign times the cosine [Eq. 6].
    generator = np.random.default_rng(0)
    z, label = generator.normal(size=(40, 5)), generator.integers(0, classes, 40)
    side = costs.side(z, classes, signed=True, penalty=0.0)
    u = np.asarray(costs.embed(side, z, label)[0])
    moved = z - z.mean(0)
    norm = np.linalg.norm(moved, axis=1)
    cosine = moved @ moved.T / np.outer(norm, norm)
    sign = np.where(label[:, None] == label, 1.0, -1.0 / (classes - 1))
    np.testing.assert_allclose(u @ u.T, sign * cosine, atol=1e-12)


def test_a_row_without_direction_is_zero_and_finite():
    z = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    side = costs.side(z, 1, signed=False, penalty=0.0)
    rows = np.stack([side.centre, side.centre + 1.0])
    unit = np.asarray(costs.embed(side, rows, np.zeros(2, int))[0])
    np.testing.assert_array_equal(unit[0], 0.0)
    np.testing.assert_allclose(np.linalg.norm(unit[1]), 1.0, rtol=1e-6)


def test_class_weights_give_both_clouds_the_sources_shares():
    source, target = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 1, 1, 1])
    a, b = costs.class_weights(source, target, 3, matched=True)
    np.testing.assert_allclose([a.sum(), b.sum()], 1.0)
    assert a[4] == 0.0  # class 2 is in one cloud only
    np.testing.assert_allclose(a[:3].sum(), 0.75)
    np.testing.assert_allclose(b[0], 0.75)
    a, b = costs.class_weights(source, target, 3, matched=False)
    np.testing.assert_allclose(a, 0.2)
    a, b = costs.class_weights(np.zeros(2, int), np.ones(2, int), 2, matched=True)
    assert not a.any()
    assert not b.any()


def test_sigma_ref_by_hand():
    # Covariances diag(1, 0) and diag(1/4, 1/4): 2 sqrt((1 x 1/4)^2 + 0).
    u = np.array([[1.0, 0.0], [-1.0, 0.0]])
    v = np.array([[0.5, 0.5], [-0.5, 0.5], [0.5, -0.5], [-0.5, -0.5]])
    found = costs.sigma_ref(u, v, np.full(2, 0.5), np.full(4, 0.25))
    np.testing.assert_allclose(found, 0.5)


def test_covariance_is_numpys():
    z = np.random.default_rng(1).normal(size=(30, 4))
    np.testing.assert_allclose(costs.covariance(z), np.cov(z.T, bias=True), atol=1e-12)
    weights = np.r_[np.ones(10), np.zeros(20)]
    np.testing.assert_allclose(costs.covariance(z, weights), costs.covariance(z[:10]))
