"""Imputers: closed forms, draws by row, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aligned_data import planted

from jaxehr.core.checks import InputError
from jaxehr.ot import imputers
from jaxehr.ot.align import align
from jaxehr.ot.config import AlignmentConfig

METHODS = [
    ("ridge", "stochastic"),
    ("knn", "stochastic"),
    ("class-mean", "stochastic"),
    ("fused", "sample"),
    ("fused", "barycentric"),
    ("fused", "linear"),
]


@pytest.fixture(scope="module")
def made():
    clouds, held, _ = planted(0, n=120, pairs=30)
    found = {}
    for method, imputation in METHODS:
        config = AlignmentConfig(method=method, imputation=imputation)
        found[method, imputation] = align(jax.random.key(0), clouds, 2, config), config
    return found, held


@pytest.mark.parametrize("which", METHODS)
def test_a_row_depends_on_its_key_latent_and_label_alone(made, which):
    (aligned, config), (z, label, _) = made[0][which], made[1]
    z, label = jnp.asarray(z[:9]), jnp.asarray(label[:9])
    keys = jax.random.split(jax.random.key(1), 9)
    drawing = jax.jit(lambda *row: imputers.draw(aligned.forward, config, *row))
    together = drawing(keys, z, label)
    order = np.array([4, 1, 7])
    some = drawing(keys[order], z[order], label[order])
    np.testing.assert_allclose(some, together[order], rtol=1e-5, atol=1e-5)
    again = drawing(jax.random.split(jax.random.key(2), 9), z, label)
    without_spread = config.imputation in ("linear", "barycentric")
    assert np.allclose(again, together) == without_spread


@pytest.mark.parametrize("which", METHODS[:2])
def test_the_label_does_not_enter_linear_maps_and_neighbours(made, which):
    (aligned, config), (z, label, _) = made[0][which], made[1]
    keys = jax.random.split(jax.random.key(1), len(z))
    for label_now in (label, 1 - label):
        drawn = imputers.draw(aligned.forward, config, keys, z, label_now)
        first = drawn if label_now is label else first  # noqa: F821
        np.testing.assert_array_equal(drawn, first)


def test_stochastic_draws_have_the_maps_mean_and_residual_covariance():
    weight, bias = np.array([[2.0, 0.0]]), np.array([1.0, -1.0])
    residual = np.array([[1.0, 0.0], [0.5, 0.2]])
    arrays = imputers.linear_arrays(weight, bias, residual)
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    z, label = np.full((count, 1), 3.0), np.zeros(count, int)
    drawn = np.asarray(imputers.draw(arrays, AlignmentConfig(), keys, z, label))
    error = 5.0 / np.sqrt(count)  # five standard errors, scales of at most 1
    np.testing.assert_allclose(drawn.mean(0), [7.0, -1.0], atol=error)
    np.testing.assert_allclose(np.cov(drawn.T), residual @ residual.T, atol=2.0 * error)


def test_neighbours_by_hand():
    points, targets = np.array([[0.0], [1.0], [10.0]]), np.array([[1.0], [3.0], [50.0]])
    arrays = imputers.knn_arrays(points, targets, np.zeros(1))
    config = AlignmentConfig(method="knn", neighbours=2)
    z, label = np.array([[0.4], [9.0]]), np.zeros(2, int)
    guess = imputers.predict(arrays, config, z, label)
    np.testing.assert_allclose(guess, [[2.0], [26.5]])
    keys = jax.random.split(jax.random.key(0), 200)
    drawn = imputers.draw(
        arrays, config, keys, np.full((200, 1), 0.4), np.zeros(200, int)
    )
    assert set(np.unique(np.asarray(drawn))) == {1.0, 3.0}


def test_classes_by_hand():
    arrays = imputers.class_arrays(
        np.array([[0.0], [5.0]]), np.array([[[1.0]], [[2.0]]])
    )
    config, label = AlignmentConfig(method="class-mean"), np.array([1, 0] * 10_000)
    z = np.zeros((20_000, 3))
    np.testing.assert_allclose(
        imputers.predict(arrays, config, z[:2], label[:2]), [[5.0], [0.0]]
    )
    keys = jax.random.split(jax.random.key(0), len(z))
    drawn = np.asarray(imputers.draw(arrays, config, keys, z, label))
    error = 5.0 / np.sqrt(10_000)
    np.testing.assert_allclose(drawn[label == 1].mean(), 5.0, atol=2 * error)
    np.testing.assert_allclose(drawn[label == 1].std(), 2.0, atol=2 * error)
    np.testing.assert_allclose(drawn[label == 0].std(), 1.0, atol=error)


def test_draws_by_class_take_no_matrix_a_patient():
    rows, size = 138_840, 64
    arrays = imputers.class_arrays(np.zeros((2, size)), np.ones((2, size, size)))
    config = AlignmentConfig(method="class-mean")
    drawing = jax.jit(lambda arrays, *row: imputers.draw(arrays, config, *row))
    shapes = [
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows)),
        jax.ShapeDtypeStruct((rows, size), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.int32),
    ]
    memory = drawing.lower(arrays, *shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2**29  # a factor a patient would be 2.1 GiB


def test_draws_from_the_coupling_have_its_barycentre(made):
    aligned, config = made[0]["fused", "sample"]
    z, label, _ = made[1]
    count = 1000
    rows, labels = np.repeat(z[:1], count, 0), np.repeat(label[:1], count)
    keys = jax.random.split(jax.random.key(3), count)
    drawn = np.asarray(imputers.draw(aligned.forward, config, keys, rows, labels))
    expected = imputers.predict(aligned.forward, config, z[:1], label[:1])[0]
    error = 5.0 * drawn.std(0) / np.sqrt(count) + 1e-4
    assert (np.abs(drawn.mean(0) - expected) < error).all()


def test_the_coupling_imputes_in_the_sample_as_it_transports(made):
    aligned, config = made[0]["fused", "barycentric"]
    assert aligned.diagnostics["used"]["forward"] == "coupling (barycentric)"
    assert aligned.forward["references"].shape[0] <= config.subsample
    z, label, truth = made[1]
    guess = np.asarray(imputers.predict(aligned.forward, config, z, label))
    assert np.mean((guess - truth) ** 2) < 0.5 * np.var(truth)


def test_complete_cases_cannot_impute():
    config = AlignmentConfig(method="complete")
    keys = jax.random.split(jax.random.key(0), 2)
    z, label = np.zeros((2, 3)), np.zeros(2, int)
    with pytest.raises(InputError, match="complete leaves out patients"):
        imputers.predict({}, config, z, label)
    with pytest.raises(InputError, match="complete leaves out patients"):
        imputers.draw({}, config, keys, z, label)
