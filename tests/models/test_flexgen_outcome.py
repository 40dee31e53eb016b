"""The class that a latent speaks for, against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from jaxehr.models.flexgen.outcome import draw_outcome, fit_outcome


def points(count=5000, classes=3):
    rng = np.random.default_rng(0)
    label = rng.choice(classes, size=count, p=[0.6, 0.3, 0.1])
    z = rng.normal(size=(count, 4)) @ rng.normal(size=(4, 4)) + label[:, None]
    return z.astype(np.float32), label


def test_log_odds_are_those_of_linear_discriminants():
    z, label = points()
    found = fit_outcome(z, label, 3)
    odds = jax.nn.softmax(jnp.asarray(z @ found["weight"] + found["bias"]))
    wanted = LinearDiscriminantAnalysis().fit(z, label).predict_proba(z)
    # Ours shrinks the covariance a little, which shows where the odds are even.
    np.testing.assert_allclose(odds, wanted, atol=0.05)
    assert np.abs(odds - wanted).mean() < 0.002


def test_classes_are_drawn_as_often_as_they_are():
    z, label = points()
    keys = jax.random.split(jax.random.key(0), len(z))
    drawn = np.asarray(draw_outcome(fit_outcome(z, label, 3), keys, z))
    share = np.bincount(label, minlength=3) / len(z)
    found = np.bincount(drawn, minlength=3) / len(z)
    np.testing.assert_allclose(found, share, atol=0.02)


def test_a_class_without_patients_is_never_drawn():
    z, label = points()
    arrays = fit_outcome(z, np.minimum(label, 1), 3)
    keys = jax.random.split(jax.random.key(0), len(z))
    assert np.asarray(draw_outcome(arrays, keys, z)).max() == 1


def test_without_a_label_there_is_one_class():
    z, _ = points()
    arrays = fit_outcome(z, np.zeros(len(z), int), 0)
    keys = jax.random.split(jax.random.key(0), 5)
    assert not np.asarray(draw_outcome(arrays, keys, z[:5])).any()
