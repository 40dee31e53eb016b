"""The nearest-synthetic attack: by hand, on a copy, on strangers."""

import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.metrics import membership
from jaxehr.metrics.membership import (
    clopper_pearson,
    median_rule,
    nearest_hamming,
)


def generator(seed=0):
    return np.random.default_rng(seed)


def people(count, seed, columns=40):
    """Independent binary columns [count, columns]."""
    return np.random.default_rng(seed).integers(2, size=(count, columns))


def attacked(seed, train, holdout, synthetic):
    asked = (nearest_hamming(rows, synthetic) for rows in (train, holdout))
    return median_rule(generator(seed), *asked)


def test_distance_by_hand():
    records = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    synthetic = np.array([[1, 0, 0, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(nearest_hamming(records, synthetic), [1, 2])


def test_distance_is_that_of_numpy():
    rng = generator()
    a, b = rng.integers(2, size=(700, 33)), rng.integers(2, size=(90, 33))
    expected = (a[:, None] != b[None]).sum(-1).min(1)
    np.testing.assert_array_equal(nearest_hamming(a, b), expected)


def test_a_large_release_is_searched_in_parts(monkeypatch):
    a, b = people(60, 1), people(100, 2)
    whole = nearest_hamming(a, b)
    monkeypatch.setattr("jaxehr.metrics.membership.TABLE", 30)
    np.testing.assert_array_equal(nearest_hamming(a, b), whole)


def test_a_copy_of_the_training_data_is_caught():
    train, others = people(300, 1), people(300, 2)
    found = attacked(0, train, others, train)
    assert found.accuracy > 0.99
    assert found.auroc > 0.99
    assert found.low > 0.97


def test_strangers_give_nothing_away():
    accuracies = []
    for seed in range(5):
        sets = [people(400, 10 * seed + i) for i in range(3)]
        accuracies.append(attacked(seed, *sets).accuracy)
    # Half the calls are right by chance; the mean of five attacks on 800 records.
    error = 0.5 / np.sqrt(5 * 800)
    assert abs(np.mean(accuracies) - 0.5) < 4 * error


def test_ties_are_broken_so_that_half_is_called():
    same = np.full(200, 3)
    found = median_rule(generator(), same, same)
    assert abs(found.accuracy - 0.5) < 0.15
    assert found.auroc == 0.5


def test_the_rule_by_hand():
    found = median_rule(generator(), np.array([0, 1, 5]), np.array([2, 6, 7]))
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.auroc == pytest.approx(8 / 9)


def test_unequal_sides_are_refused():
    with pytest.raises(InputError, match="got 2 and 3"):
        median_rule(generator(), np.zeros(2), np.zeros(3))


def test_interval_of_a_proportion():
    # Clopper and Pearson's table: 0 of 10 has the upper end 1 - .025^(1/10).
    low, high = clopper_pearson(0, 10)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_a_table_is_copied_once_and_not_for_every_block(monkeypatch):
    """SciPy copies a dense factor that is not in the order of C."""
    plain, ordered = membership.scipy.sparse.csr_array, []

    class Watched(plain):
        def __matmul__(self, other):
            ordered.append(other.flags.c_contiguous)
            return super().__matmul__(other)

    monkeypatch.setattr(membership.scipy.sparse, "csr_array", Watched)
    rows = np.random.default_rng(0).integers(0, 2, (600, 9))
    nearest_hamming(rows, rows)
    assert ordered == [True, True]
