"""Panels: who belongs together, and patterns as ordered codes and back."""

import numpy as np
import pytest

from jaxehr.data import panels

RNG = np.random.default_rng(2)


def rows(count=2000):
    """Columns 0, 2, 3 measured together but for a slip, 1 and 4 too, 5 alone; 6 is
    never missing, 7 always."""
    missing = np.zeros((count, 8), bool)
    blood, line = RNG.random(count) < 0.6, RNG.random(count) < 0.3
    for column in (0, 2, 3):
        missing[:, column] = blood ^ (RNG.random(count) < 0.01)
    missing[:, 1] = line
    missing[:, 4] = line
    missing[:, 5] = RNG.random(count) < 0.5
    missing[:, 7] = True
    return missing


MISSING = rows()
FOUND = panels.fit(MISSING)


def test_columns_measured_together_are_one_panel():
    groups = {tuple(np.flatnonzero(FOUND.member == i)) for i in range(len(FOUND.sizes))}
    assert groups == {(0, 2, 3), (1, 4), (5,)}
    assert (FOUND.member[[6, 7]] == -1).all()  # nothing is known of the other


def test_codes_and_back():
    codes = panels.codes_of(FOUND, MISSING)
    assert (codes < FOUND.sizes).all()
    back = panels.missing_of(FOUND, codes)
    np.testing.assert_array_equal(back[:, :6], MISSING[:, :6])
    # Those of no panel: always there, and never.
    np.testing.assert_array_equal(back[:, 6:], MISSING[:, 6:])


def test_codes_are_ordered_by_how_much_is_missing():
    for i, size in enumerate(FOUND.sizes):
        lost = panels.ones(FOUND.pattern[i, :size])
        assert (np.diff(lost) >= 0).all()
        assert FOUND.pattern[i, 0] == 0


def test_a_pattern_that_training_lacks_becomes_the_nearest_one():
    seen = np.zeros((100, 4), bool)
    seen[:50] = True
    seen[0, 3] = False  # 0, 1, 2 missing
    found = panels.fit(seen)
    assert len(found.sizes) == 1
    assert found.sizes[0] == 3
    odd = np.array([[True, False, False, False], [True, True, False, False]])
    back = panels.missing_of(found, panels.codes_of(found, odd))
    # Two slips away from all and from nothing: one slip from (0, 1, 2).
    np.testing.assert_array_equal(back, [[False] * 4, [True, True, True, False]])


def test_panels_stay_small():
    together = np.repeat(RNG.random((500, 1)) < 0.5, 20, 1)
    found = panels.fit(together)
    counts = np.bincount(found.member)
    assert counts.max() <= panels.MOST
    assert counts.sum() == 20
    codes = panels.codes_of(found, together)
    np.testing.assert_array_equal(panels.missing_of(found, codes), together)


@pytest.mark.parametrize("count", [0, 1])
def test_without_rows_or_gaps_there_is_no_panel(count):
    found = panels.fit(np.zeros((count, 3), bool))
    assert len(found.sizes) == 0
    codes = panels.codes_of(found, np.ones((2, 5, 3), bool))
    assert codes.shape == (2, 5, 0)
    assert not panels.missing_of(found, codes).any()
