"""Areas from counts: scikit-learn, weights, ties, one class."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxehr.metrics.ranking import average_precision, counts_of, roc_area


@pytest.mark.parametrize("levels", [3, 20, 10_000])
def test_areas_are_scikit_learns_with_ties_and_weights(levels):
    rng = np.random.default_rng(0)
    label = rng.random(300) < 0.3
    score = rng.integers(0, levels, 300) + 0.3 * levels * label
    weight = rng.multinomial(300, np.full(300, 1 / 300), 4)
    counts = counts_of(label, score, weight)
    for w, area, precision in zip(
        weight, roc_area(*counts), average_precision(*counts), strict=True
    ):
        expected = roc_auc_score(label, score, sample_weight=w)
        np.testing.assert_allclose(area, expected, rtol=1e-12)
        expected = average_precision_score(label, score, sample_weight=w)
        np.testing.assert_allclose(precision, expected, rtol=1e-12)
    one = counts_of(label, score)
    np.testing.assert_allclose(roc_area(*one), roc_auc_score(label, score))


def test_one_class_has_no_area():
    label = np.ones(5, bool)
    for name in (roc_area, average_precision):
        assert np.isnan(name(*counts_of(label, np.arange(5.0))))
        assert np.isnan(name(*counts_of(~label, np.arange(5.0))))
