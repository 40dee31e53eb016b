"""Imputation inside the classes keeps what both parts say of the label."""

import jax
import numpy as np
import pytest

from jaxehr.models.flexgen.within import class_means, draw_within, fit_within
from jaxehr.ot import maps
from jaxehr.ot.config import AlignmentConfig

CONFIG = AlignmentConfig(method="ridge")
NOISE = np.zeros(3)


def world(count=6000):
    """x [n, 3] and y [n, 3], normal inside two classes; 14 % positives."""
    rng = np.random.default_rng(0)
    label = (rng.random(count) < 0.14).astype(int)
    x = rng.normal(size=(count, 3)) + np.outer(label, [1.0, 0.0, 0.5])
    y = 0.6 * rng.normal(size=(count, 3)) + np.outer(label, [0.0, 1.2, 0.0])
    y += x @ np.diag([0.8, -0.3, 0.5])
    return x.astype(np.float32), y.astype(np.float32), label


def fitted(x, y, label, config=CONFIG):
    linear = maps.ridge(maps.moments(x, y), 1e-3)
    made = {"weight": linear.weight}
    sides = (x, label), (y, label), (x, y, label)
    return fit_within(*sides, NOISE, made, ("ridge", 1e-3), 2, config)


def separation(z, label):
    """Squared Mahalanobis distance of the two class means."""
    means = [z[label == c].mean(0) for c in (0, 1)]
    inside = np.cov((z - np.stack(means)[label]).T)
    gap = means[1] - means[0]
    return gap @ np.linalg.solve(inside, gap)


def test_imputed_records_tell_as_much_of_the_label_as_true_ones():
    x, y, label = world()
    keys = jax.random.split(jax.random.key(0), len(x))
    guess = np.asarray(draw_within(fitted(x, y, label), keys, x, label))
    found = separation(np.concatenate([x, guess], 1), label)
    truth = separation(np.concatenate([x, y], 1), label)
    # Some per cent of sampling error: 840 positives.
    assert found == pytest.approx(truth, rel=0.1)
    for code in (0, 1):
        rows = label == code
        joint = lambda z, rows=rows: np.cov(np.concatenate([x[rows], z[rows]], 1).T)
        np.testing.assert_allclose(joint(guess), joint(y), atol=0.12)


def test_rows_depend_on_themselves_alone():
    x, y, label = world(200)
    arrays, keys = fitted(x, y, label), jax.random.split(jax.random.key(0), 200)
    every = np.asarray(draw_within(arrays, keys, x, label))
    rows = np.array([150, 3])
    some = np.asarray(draw_within(arrays, keys[rows], x[rows], label[rows]))
    np.testing.assert_allclose(some, every[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        AlignmentConfig(method="ridge", by_class=False),
        AlignmentConfig(method="ridge", imputation="linear"),
    ],
)
def test_it_can_be_left_out(config):
    assert fitted(*world(50), config) == {}


def test_means_of_small_classes_are_shrunk():
    z = np.array([[0.0], [2.0], [10.0]])
    means = class_means(z, np.array([0, 0, 1]), 2)
    np.testing.assert_allclose(means[:, 0], [(2 + 40) / 12, (10 + 40) / 11])
