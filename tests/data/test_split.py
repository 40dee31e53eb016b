"""Splits: by person, reproducible, independent of order, of the right size."""

import hashlib

import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import take
from jaxehr.data.hospital import PartOptions, select_part
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.split import fewer, hashed_share, split


def test_the_share_is_the_blake2b_hash_of_the_person():
    digest = hashlib.blake2b(b"\x0042", digest_size=8).digest()
    exact = int.from_bytes(digest, "big") / 2**64
    assert hashed_share(np.array([42]))[0] == pytest.approx(exact, abs=2.0**-52)
    assert hashed_share(np.array(["42"]))[0] == hashed_share(np.array([42]))[0]


def test_shares_are_uniform_and_salts_independent():
    count = 20_000
    one, two = (hashed_share(np.arange(count), salt) for salt in ("a", "b"))
    assert one.min() >= 0.0
    assert one.max() < 1.0
    error = 1.0 / np.sqrt(12 * count)  # standard error of the mean of a uniform number
    assert abs(one.mean() - 0.5) < 4 * error
    assert abs(np.mean(one > 0.8) - 0.2) < 4 * np.sqrt(0.16 / count)
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(count)


def test_a_person_stays_on_one_side_in_any_order():
    data = simulate(SimulateOptions(n=200, steps=3))
    data = data._replace(groups=data.ids // 3)
    train, holdout = split(data, 0.3)
    assert len(train.ids) + len(holdout.ids) == 200
    assert not set(train.groups) & set(holdout.groups)
    order = np.random.default_rng(0).permutation(200)
    shuffled = split(take(data, order), 0.3)[1]
    assert sorted(shuffled.ids) == sorted(holdout.ids)
    fewer = split(take(data, np.arange(90)), 0.3)[1]
    assert set(fewer.ids) == set(holdout.ids[holdout.ids <= data.ids[89]])
    rows = holdout.cohort.label, data.cohort.label[np.isin(data.ids, holdout.ids)]
    np.testing.assert_array_equal(*rows)


def test_bad_fractions_and_empty_sides_are_refused():
    data = simulate(SimulateOptions(n=4, steps=3))
    for fraction in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match=f"between 0 and 1, got {fraction}"):
            split(data, fraction)
    with pytest.raises(
        InputError, match=r"hold-out part is empty: .* 1e-09 of 4 people"
    ):
        split(data, 1e-9)
    with pytest.raises(InputError, match=r"training part is empty"):
        split(data, 1 - 1e-9)


def test_fewer_are_taken_by_the_hash_of_the_person():
    groups, rows = np.arange(100), np.arange(100) % 2 == 0
    few, more = fewer(groups, rows, 10), fewer(groups, rows, 20)
    assert few.sum() == 10
    assert not (few & ~more).any()
    assert not (more & ~rows).any()
    order = np.random.default_rng(0).permutation(100)
    np.testing.assert_array_equal(fewer(groups[order], rows[order], 10), few[order])
    np.testing.assert_array_equal(fewer(groups, rows, 99), rows)


@pytest.mark.parametrize("by", ["person", "stay"])
def test_train_holds_out_a_share_of_a_part(by):
    """The default hold-out of `train` and `discretize` inside our own split."""
    data = simulate(SimulateOptions(n=400, steps=3))
    data = data._replace(groups=data.ids // 2)
    for part, most in (("train", 0.8), ("test", 0.2)):
        options = PartOptions(part=part, split_by=by)
        chosen = select_part(data, options)
        error = np.sqrt(0.16 / 200)  # standard error of a share of the people
        assert abs(len(chosen.ids) / 400 - most) < 4 * error
        _, holdout = split(chosen, 0.2)
        assert abs(len(holdout.ids) / len(chosen.ids) - 0.2) < 4 * error / np.sqrt(most)
