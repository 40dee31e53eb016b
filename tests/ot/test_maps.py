"""Linear maps: closed forms, invariances, the choice by cross-validation."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaxehr.core.checks import InputError
from jaxehr.ot import maps
from jaxehr.ot.costs import covariance


def rows(seed, count=50, source=4, target=3):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, source)), generator.normal(
        size=(count, target)
    )


def test_ridge_is_scikit_learns():
    x, y = rows(0)
    weights = np.random.default_rng(1).random(50)
    found = maps.ridge(maps.moments(x, y, weights), 0.3)
    # Its penalty is of the sum over rows, ours per unit of weight and mean variance.
    variance = np.trace(covariance(x, weights)) / x.shape[1]
    model = Ridge(alpha=0.3 * variance * weights.sum()).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(found.weight, model.coef_.T, atol=1e-10)
    np.testing.assert_allclose(found.bias, model.intercept_, atol=1e-10)


def test_sums_by_blocks_are_the_sums(monkeypatch):
    x, y = rows(2)
    whole = maps.moments(x, y)
    monkeypatch.setattr(maps, "BLOCK", 7)
    for part, expected in zip(maps.moments(x, y), whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-12)
    doubled = maps.add(whole, whole, 3.0)
    np.testing.assert_allclose(doubled.xy, 4.0 * whole.xy)


def test_ridge_without_rows_or_spread_is_constant():
    x, y = rows(3)
    assert not maps.ridge(maps.empty(4, 3), 0.1).weight.any()
    flat = maps.ridge(maps.moments(np.ones_like(x), y), 0.1)
    assert not flat.weight.any()
    np.testing.assert_allclose(flat.bias, y.mean(0))


def test_ridge_recovers_a_planted_map():
    # R^2 > 0.99 without noise [acceptance 6].
    x, _ = rows(4, count=200)
    y = x @ np.random.default_rng(5).normal(size=(4, 3)) + 2.0
    found = maps.ridge(maps.moments(x, y), 1e-4)
    assert maps.nrmse(found, x, y) ** 2 < 0.01


def test_procrustes_recovers_a_planted_rotation():
    x, _ = rows(6)
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(4, 4)))[0]
    found = maps.procrustes(maps.moments(x, x @ turn + 1.0))
    np.testing.assert_allclose(found.weight, turn, atol=1e-10)
    np.testing.assert_allclose(found.bias, 1.0, atol=1e-10)


def test_bures_maps_the_one_gaussian_onto_the_other():
    x, _ = rows(8, count=100)
    generator = np.random.default_rng(9)
    y = generator.normal(size=(80, 4)) @ generator.normal(size=(4, 4)) + 3.0
    found = maps.bures(x, y)
    moved = maps.apply(found, x)
    np.testing.assert_allclose(covariance(moved), covariance(y), atol=1e-8)
    np.testing.assert_allclose(moved.mean(0), y.mean(0), atol=1e-10)
    np.testing.assert_allclose(found.weight, found.weight.T, atol=1e-8)  # optimal


def test_residuals_complete_the_targets_covariance():
    x, y = rows(10, count=400)
    y = x @ np.ones((4, 3)) + y
    found = maps.ridge(maps.moments(x, y), 0.1)
    noise = np.array([0.1, 0.2, 0.3])
    root = maps.residual_factor(found, x, y, noise)
    explained = found.weight.T @ covariance(x) @ found.weight
    np.testing.assert_allclose(
        root @ root.T + explained, covariance(y) + np.diag(noise), atol=1e-8
    )


def test_residuals_keep_the_positive_part():
    matrix = np.diag([4.0, -1.0])
    root = maps.factor(matrix)
    np.testing.assert_allclose(root @ root.T, np.diag([4.0, 0.0]), atol=1e-12)


def test_useless_transported_rows_get_no_weight():
    x, _ = rows(11, count=60)
    y = x @ np.random.default_rng(12).normal(size=(4, 3))
    wrong = maps.moments(*rows(13, count=500))
    fold = maps.folds(np.random.default_rng(0), 60)
    choice = maps.choose(x, y, fold, [wrong] * maps.FOLDS, 1e-2)
    assert choice.weight == 0.0
    assert choice.errors["map"] == choice.errors["ridge"] < 0.1


def test_good_transported_rows_get_weight():
    generator = np.random.default_rng(14)
    truth = generator.normal(size=(20, 3))
    x = generator.normal(size=(12, 20))
    y = x @ truth + generator.normal(size=(12, 3))
    fresh = generator.normal(size=(500, 20))
    good = maps.moments(fresh, fresh @ truth)
    fold = maps.folds(generator, 12)
    choice = maps.choose(x, y, fold, [good] * maps.FOLDS, 1e-2)
    assert choice.weight > 0.0
    assert choice.errors["map"] < choice.errors["ridge"]


def test_folds_are_of_one_size():
    fold = maps.folds(np.random.default_rng(0), 23)
    assert set(np.bincount(fold)) == {4, 5}


def test_two_sizes_are_refused():
    x, y = rows(15)
    with pytest.raises(InputError, match="procrustes needs latents of one size, got 4"):
        maps.procrustes(maps.moments(x, y))
    with pytest.raises(
        InputError, match="bures needs latents of one size, got 4 and 3"
    ):
        maps.bures(x, y)
