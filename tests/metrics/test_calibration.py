"""Brier score and recalibration against scikit-learn; laws of a known slope."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from jaxehr.metrics.calibration import CUT, DRAWS, brier, recalibration

RNG = np.random.default_rng(0)
LABEL = RNG.random(400) < 0.3
CHANCE = np.clip(expit(2 * LABEL - 1.5 + RNG.normal(size=400)), 0, 1)
WEIGHT = RNG.multinomial(400, np.full(400, 1 / 400), DRAWS + 3)


def test_brier_is_scikit_learns():
    for weight, found in zip(WEIGHT, brier(LABEL, CHANCE, WEIGHT), strict=True):
        expected = brier_score_loss(LABEL, CHANCE, sample_weight=weight)
        np.testing.assert_allclose(found, expected)


def test_recalibration_is_scikit_learns_logistic_regression_without_penalty():
    chance = CHANCE.copy()
    chance[:2] = 0.0, 1.0  # cut
    fits = recalibration(LABEL, chance, WEIGHT)
    x = logit(np.clip(chance, CUT, 1 - CUT))[:, None]
    for weight, intercept, slope in zip(WEIGHT, *fits, strict=True):
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
        model.fit(x, LABEL, sample_weight=weight)
        np.testing.assert_allclose(slope, model.coef_[0, 0], rtol=1e-5)
        np.testing.assert_allclose(intercept, model.intercept_[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shift", "factor"), [(0.0, 1.0), (0.7, 2.0), (-0.5, 0.5)])
def test_the_slope_of_chances_that_are_too_extreme_or_too_timid(shift, factor):
    """logit(p) = factor x logit(truth) + shift, so b = 1 / factor, a = -shift b."""
    score = RNG.normal(size=200_000)
    label = RNG.random(200_000) < expit(score)
    chance = expit(factor * score + shift)
    intercept, slope = recalibration(label, chance, np.ones((1, 200_000)))
    # standard error of b about 0.006 / factor; the cut touches few
    np.testing.assert_allclose(slope, 1 / factor, rtol=0.03)
    np.testing.assert_allclose(intercept, -shift / factor, atol=0.03)


@pytest.mark.parametrize(
    ("label", "chance"),
    [
        (LABEL, np.full(400, 0.3)),
        (LABEL, np.where(LABEL, 0.9, 0.2)),
        (LABEL, np.where(LABEL, 0.1, 0.8)),
        (np.zeros(400, bool), CHANCE),
    ],
    ids=["equal", "separated", "reversed", "one class"],
)
def test_no_finite_solution(label, chance):
    for found in recalibration(label, chance, WEIGHT):
        assert np.isnan(found).all()
