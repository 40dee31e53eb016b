"""Correlations from scores; those of codes are tested with the copula."""

import numpy as np
import pytest
from scipy.special import ndtri

from jaxehr.diffusion.pairs import (
    TERMS,
    correlation,
    means_between,
    nearest,
    step_expansion,
)

R = np.array(
    [[1, 0.6, 0.5, -0.4], [0.6, 1, 0.3, 0.2], [0.5, 0.3, 1, 0.1], [-0.4, 0.2, 0.1, 1]]
)


def test_the_nearest_correlation():
    bad = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    found = nearest(bad)
    np.testing.assert_allclose(np.diag(found), 1.0)
    assert np.linalg.eigvalsh(found)[0] > 0
    np.testing.assert_allclose(nearest(R), R, atol=1e-12)
    # Higham's example and answer, to its digits and our smallest eigenvalue; with
    # eigenvalues cut once it would be 0.739 and 0.094.
    far = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    near = np.array([[1, 0.7607, 0.1573], [0.7607, 1, 0.7607], [0.1573, 0.7607, 1]])
    np.testing.assert_allclose(nearest(far), near, atol=2e-4)


def test_nobody_and_values_that_never_differ_have_no_correlation():
    seen = np.array([[True, False, True]] * 5)
    scores = np.where(seen, np.arange(15.0).reshape(5, 3) - 7, 0.0)
    scores[:, 2] = 0.0
    np.testing.assert_array_equal(correlation(scores, seen), np.eye(3))
    none = np.zeros((5, 3))
    np.testing.assert_array_equal(correlation(none, none > 0), np.eye(3))


@pytest.mark.parametrize("wanted", [0.95, 0.5, -0.6])
def test_rare_codes_tell_strong_correlations(wanted):
    """Two codes, one of them in 5 % of 40,000 patients; four codes; a number.

    To first order two rare codes would be correlated by more than 1 (or less than half
    of it where they exclude each other).
    """
    law = np.full((3, 3), wanted)
    law[2] = law[:, 2] = abs(wanted)
    law[0, 2] = law[2, 0] = wanted
    np.fill_diagonal(law, 1.0)
    law = nearest(law)
    x = np.random.default_rng(0).multivariate_normal(np.zeros(3), law, 40_000)
    scores, expansions = [x[:, 0]], [np.eye(1, TERMS)[0]]
    for column, shares in ((1, [0.95]), (2, [0.2, 0.6, 0.9])):
        ends = np.array([-6.0, *ndtri(shares), 6.0])
        code = np.searchsorted(ends[1:-1], x[:, column])
        each = means_between(ends[:-1], ends[1:])
        scores.append(each[code])
        expansions.append(step_expansion(ends[:-1], ends[1:], each))
    scores, seen = np.stack(scores, 1), np.ones(x.shape, bool)
    found = correlation(scores, seen, np.stack(expansions))
    # Rare codes of 40,000 tell 0.5 to a standard error of 0.009.
    np.testing.assert_allclose(found, law, atol=0.03)


def test_the_expansion_of_a_sign():
    """E[sign sign] = 2 asin(rho) / pi."""
    ends = np.array([-6.0, 0.0, 6.0])
    a = step_expansion(ends[:-1], ends[1:], np.array([-1.0, 1.0]))
    for rho in (0.3, 0.8):
        product = (a**2 * rho ** np.arange(1, TERMS + 1)).sum()
        np.testing.assert_allclose(product, 2 * np.arcsin(rho) / np.pi, atol=1e-4)
