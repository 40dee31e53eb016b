"""Imputation inside the classes keeps what both parts say of the label."""

import jax
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from jaxehr.models.flexgen.alignment import Posterior, fit_alignment
from jaxehr.models.flexgen.imputation import latent_program
from jaxehr.models.flexgen.within import (
    class_means,
    draw_within,
    fit_within,
    without_donors,
)
from jaxehr.ot import maps
from jaxehr.ot.config import AlignmentConfig

CONFIG = AlignmentConfig(method="ridge")


def world(count=6000):
    """x [n, 3] and y [n, 3], normal inside two classes; 14 % positives."""
    rng = np.random.default_rng(0)
    label = (rng.random(count) < 0.14).astype(int)
    x = rng.normal(size=(count, 3)) + np.outer(label, [1.0, 0.0, 0.5])
    y = 0.6 * rng.normal(size=(count, 3)) + np.outer(label, [0.0, 1.2, 0.0])
    y += x @ np.diag([0.8, -0.3, 0.5])
    return x.astype(np.float32), y.astype(np.float32), label


def fitted(x, y, label, config=CONFIG, classes=2):
    linear = maps.ridge(maps.moments(x, y), 1e-3)
    made = {"weight": linear.weight}
    sides = (x, label), (y, np.zeros_like(y), label), (x, y, label)
    return fit_within(*sides, made, ("ridge", 1e-3), classes, config)


def separation(z, label):
    """Squared Mahalanobis distance of the two class means."""
    means = [z[label == c].mean(0) for c in (0, 1)]
    inside = np.cov((z - np.stack(means)[label]).T)
    gap = means[1] - means[0]
    return gap @ np.linalg.solve(inside, gap)


@pytest.mark.parametrize("kept", [lambda arrays: arrays, without_donors])
def test_imputed_records_tell_as_much_of_the_label_as_true_ones(kept):
    x, y, label = world()
    keys = jax.random.split(jax.random.key(0), len(x))
    guess = np.asarray(draw_within(kept(fitted(x, y, label)), keys, x, label))
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


def skewness(z):
    moved = (z - z.mean(0)) / z.std(0)
    return np.mean(moved**3, 0)


@pytest.mark.parametrize("classes", [0, 2])
def test_residuals_have_the_shape_of_real_ones(classes):
    rng = np.random.default_rng(0)
    label = np.arange(6000) % max(classes, 1)
    x = rng.normal(size=(6000, 2)).astype(np.float32)
    y = rng.exponential(size=(6000, 2)).astype(np.float32) + 0.2 * x
    arrays = fitted(x, y, label, classes=classes)
    keys = jax.random.split(jax.random.key(0), len(x))
    guess = np.asarray(draw_within(arrays, keys, x, label))
    np.testing.assert_allclose(skewness(guess), skewness(y), atol=0.25)
    np.testing.assert_allclose(np.cov(guess.T), np.cov(y.T), atol=0.08)
    assert (
        np.abs(
            skewness(np.asarray(draw_within(without_donors(arrays), keys, x, label)))
        ).max()
        < 0.2
    )


def test_donors_are_of_the_class_and_leave_with_the_training():
    label = np.array([0] * 40 + [1] * 60)
    y = np.where(label == 0, -5.0, 5.0)[:, None] * np.ones(3)
    y = (y + np.random.default_rng(0).normal(size=(100, 3))).astype(np.float32)
    arrays = fitted(np.zeros_like(y), y, label)
    assert list(arrays["first"]) == [0, 40]
    assert list(arrays["count"]) == [40, 60]
    moved = arrays["donor_mean"] + arrays["to"][np.sort(label)]
    np.testing.assert_allclose(moved, y, atol=1e-5)
    assert not any("donor" in name for name in without_donors(arrays))


def test_a_class_without_a_donor_takes_any():
    x, y, label = world(200)
    arrays = fitted(x[label == 0], y[label == 0], label[label == 0])
    assert list(arrays["count"]) == [(label == 0).sum()] * 2
    keys = jax.random.split(jax.random.key(0), 3)
    assert np.isfinite(draw_within(arrays, keys, x[:3], np.ones(3, int))).all()


SIZE, DONORS = 8, 150


def blind(seed):
    """600 latents of both parts, linked, that tell nothing of the label; 150 patients
    have both, the others lack the static one. Aligned by default."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(4 * DONORS, SIZE)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    other = (0.6 * z @ turn + 0.8 * rng.normal(size=z.shape)).astype(np.float32)
    label = (rng.random(len(z)) < 0.5).astype(int)
    has = np.arange(len(z)) < DONORS
    zeros = np.zeros_like(z)
    other[~has] = 0.0
    found = Posterior(other, zeros, z, zeros, has, np.ones_like(has), label)
    config = AlignmentConfig()
    made, _ = fit_alignment(jax.random.key(seed), found, 2, config, hidden=False)
    return found, made


def judged(train, test, label):
    """AUROC on every second record of a linear head that learned from the others."""
    head = LogisticRegression(C=1.0, max_iter=2000).fit(train[::2], label[::2])
    return roc_auc_score(label[1::2], head.decision_function(test[1::2]))


def test_a_head_learns_nothing_of_the_label_from_imputed_parts():
    # The head learns from the training's imputed latents, of half of the records
    # without a static part, and is judged on the other half.
    alone, imputed, told = [], [], []
    for seed in range(6):
        found, made = blind(seed)
        z, label = found.temporal_mean, found.label
        index, keys = np.arange(len(z)), jax.random.split(jax.random.key(0), 3)
        each = jax.random.split(jax.random.key(1), len(z))
        inside = np.asarray(draw_within(made["within"]["forward"], each, z, label))
        both, _ = latent_program(AlignmentConfig(), 1)(made, keys, index, found)
        trained = np.concatenate([z, inside], 1)
        pairs = (z, z), (trained, np.asarray(both)), (trained, trained)
        for each, (train, test) in zip((alone, imputed, told), pairs, strict=True):
            each.append(judged(train[DONORS:], test[DONORS:], label[DONORS:]))
    # Standard error of an AUROC of 1/2 with n / 2 records a class, sqrt(1 / (3 n)),
    # over six worlds; at most twice that for a difference. n = 225.
    error = np.sqrt(1.0 / (3 * 1.5 * DONORS) / 6)
    assert np.mean(imputed) < np.mean(alone) + 3 * 2 * error
    # Drawn inside the class the label is read: what that tells is the sampling error
    # of the donors' class means, at distance sqrt(l (1 / n_0 + 1 / n_1)) in units of
    # what z leaves open, whose variance is at least 0.64, and no more.
    gap = np.sqrt(SIZE * 4 / DONORS / 0.64)
    assert np.mean(told) < norm.cdf(gap / np.sqrt(2)) + 3 * error
