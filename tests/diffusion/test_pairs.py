"""Correlations from scores; those of codes are tested with the copula."""

import numpy as np

from jaxehr.diffusion.pairs import correlation, nearest

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
