"""The normal law: exact sums, shrinkage, and E[x0 | x] against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import OAS

from jaxehr.diffusion import gaussian

RNG = np.random.default_rng(5)
STEPS, COLUMNS = 5, 3


def series(count=400):
    """Patients [N, T, D] of correlated values, and labels that move their mean."""
    root = RNG.normal(size=(STEPS * COLUMNS, STEPS * COLUMNS))
    label = RNG.integers(0, 2, count)
    flat = RNG.normal(size=(count, STEPS * COLUMNS)) @ root + label[:, None]
    return flat.reshape(count, STEPS, COLUMNS) / 4.0, label


X, LABEL = series()
LAW = gaussian.fit(gaussian.moments(X, LABEL, 2), STEPS)


def flat(x):
    """[.., T, D] in the order [D, T]."""
    return np.asarray(x, np.float64).swapaxes(-1, -2).reshape(*x.shape[:-2], -1)


def covariance(law):
    """The dense matrix that a law of one block stands for."""
    basis = np.asarray(law.basis[0], np.float64)
    kept = basis @ np.diag(law.variance[0] - law.rest[0]) @ basis.T
    return kept + law.rest[0] * np.eye(len(basis))


def test_moments_add_up_exactly_in_any_order():
    whole = gaussian.moments(X, LABEL, 2)
    order = RNG.permutation(len(X))
    parts = np.array_split(order, [1, 100, 250])
    found = gaussian.moments(X[parts[0]], LABEL[parts[0]], 2)
    for part in parts[1:]:
        found = gaussian.add(found, gaussian.moments(X[part], LABEL[part], 2))
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_column_is_shrunk_as_scikit_learn_does(monkeypatch):
    monkeypatch.setattr(gaussian, "REST", 0.0)
    found = gaussian.fit(gaussian.moments(X[..., :1], LABEL, 2), STEPS)
    values = X[..., 0]
    np.testing.assert_allclose(found.mean[-1], values.mean(0), atol=0.003)
    middle = np.array([values[code == LABEL].mean(0) for code in (0, 1)])
    wanted = OAS(assume_centered=True).fit(values - middle[LABEL])
    np.testing.assert_allclose(covariance(found), wanted.covariance_, atol=0.02)
    np.testing.assert_allclose(found.mean[:2], middle, atol=0.003)


def test_what_hardly_moves_is_not_torn_apart():
    """Thirty columns that keep their level, of which only two are correlated.

    The oracle approximation over all values would add its share of the variance to
    every difference between two steps.
    """
    count, columns = 300, 30
    level = RNG.normal(size=(count, 1, columns))
    level[..., 1] = 0.8 * level[..., 0] + 0.6 * level[..., 1]
    x = np.sqrt(0.99) * level + 0.1 * RNG.normal(size=(count, STEPS, columns))
    found = gaussian.moments(x, np.zeros(count, int), 0)
    cov = gaussian.covariance(found, STEPS)[0]
    usual = gaussian.oracle((found.square / gaussian.UNITS**2) / count, count)[0]
    truth = np.kron(np.eye(columns), np.full((STEPS, STEPS), 0.99))
    truth[:STEPS, STEPS : 2 * STEPS] = truth[STEPS : 2 * STEPS, :STEPS] = 0.8 * 0.99
    truth += 0.01 * np.eye(len(truth))
    error = lambda matrix: np.square(matrix - truth).sum()
    assert error(cov) < 0.5 * error(usual)
    moved = lambda matrix: matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1]
    assert moved(cov) < 0.04  # 0.02
    assert moved(usual) > 0.1


def test_few_patients_do_not_make_it_singular():
    few = gaussian.fit(gaussian.moments(X[:4], LABEL[:4], 2), STEPS)
    assert few.variance.min() > 0.05
    assert few.rest.min() > 0.05
    one = gaussian.fit(gaussian.moments(X[:1], LABEL[:1], 2), STEPS)  # no spread at all
    assert np.isfinite(np.concatenate([leaf.ravel() for leaf in one])).all()


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 80.0])
@pytest.mark.parametrize("told", [True, False])
def test_the_estimate_is_that_of_dense_algebra(sigma, told):
    x = X[:7] + sigma * RNG.normal(size=X[:7].shape)
    condition = np.eye(2)[LABEL[:7]] * told
    levels = np.full((STEPS, COLUMNS), sigma)
    asked = [jnp.asarray(leaf, jnp.float32) for leaf in (x, levels, condition)]
    found, left = jax.jit(gaussian.denoise)(LAW, *asked)
    cov = covariance(LAW)
    gain = cov @ np.linalg.inv(cov + sigma**2 * np.eye(len(cov)))
    mean = LAW.mean[LABEL[:7]] if told else LAW.mean[-1]
    wanted = mean + (flat(x) - mean) @ gain.T
    np.testing.assert_allclose(flat(found), wanted, rtol=2e-3, atol=2e-3)
    variance = np.trace(cov - gain @ cov) / len(cov)
    np.testing.assert_allclose(left, variance, rtol=0.02)


def test_levels_by_patient_and_value_count_as_their_geometric_mean():
    levels = np.exp(RNG.normal(size=(7, STEPS, COLUMNS)))
    condition = jnp.zeros((7, 0))
    x = jnp.asarray(X[:7], jnp.float32)
    found, left = gaussian.denoise(LAW, x, jnp.asarray(levels), condition)
    assert left.shape == (7,)
    for i in range(7):
        mean = np.full((STEPS, COLUMNS), np.exp(np.log(levels[i]).mean()))
        row = slice(i, i + 1)
        one, rest = gaussian.denoise(LAW, x[row], jnp.asarray(mean), condition[row])
        np.testing.assert_allclose(found[i], one[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(left[i], rest, rtol=1e-4)


@pytest.mark.parametrize(("most", "blocks"), [(15, 1), (14, 3), (5, 3), (4, 15)])
def test_wide_series_are_cut_into_columns_then_values(monkeypatch, most, blocks):
    monkeypatch.setattr(gaussian, "MOST", most)
    assert gaussian.blocks_of(STEPS, COLUMNS)[0] == blocks
    law = gaussian.fit(gaussian.moments(X, LABEL, 2), STEPS)
    assert law.basis.shape[0] == blocks
    x = X[:7] + 0.5 * RNG.normal(size=X[:7].shape)
    asked = (
        jnp.full((STEPS, COLUMNS), 0.5),
        jnp.zeros((7, 0)),
    )
    error = {}
    for name, each in (("cut", law), ("whole", LAW)):
        found, _ = gaussian.denoise(each, jnp.asarray(x, jnp.float32), *asked)
        error[name] = float(np.square(np.asarray(found) - X[:7]).mean())
    assert error["cut"] < np.square(x - X[:7]).mean()
    if blocks > 1:  # what is known of other columns helps
        assert error["whole"] < error["cut"]


def test_what_is_left_of_every_value():
    """The diagonal of C - C (C + sigma^2 I)^-1 C, and its mean is `left`."""
    sigma = jnp.full((2, STEPS, COLUMNS), 0.7).at[1].set(3.0)
    cov = covariance(LAW)
    found = np.asarray(gaussian.spread(LAW, sigma))
    zeros = jnp.zeros((2, STEPS, COLUMNS))
    told = jnp.zeros((2, 2))
    left = gaussian.denoise(LAW, zeros, sigma, told)[1]
    for row, level in enumerate((0.7, 3.0)):
        noisy = np.linalg.inv(cov + level**2 * np.eye(len(cov)))
        wanted = np.diag(cov - cov @ noisy @ cov)
        np.testing.assert_allclose(flat(found[row]) ** 2, wanted, rtol=2e-3)
        np.testing.assert_allclose(left[row], wanted.mean(), rtol=2e-3)
