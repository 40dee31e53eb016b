"""Neighbours in place of a lost modality: by hand, dense and sparse; what is kept."""

import numpy as np
import pytest
from small_cohorts import cohort, schema, sparse_cohort, sparse_schema

from jaxehr.baselines.forms import complete as module
from jaxehr.baselines.forms.complete import (
    average,
    complete,
    fit_donors,
    in_words,
    most_ones,
)
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Feature,
    Schema,
    Table,
    make_cohort,
    rows_of,
)
from jaxehr.core.sparse import SparseTable, from_dense

SCHEMA = Schema(
    static=(Feature(name="a", kind="numeric"),),
    temporal=(
        Feature(name="n", kind="integer"),
        Feature(name="x", kind="numeric"),
        Feature(name="c", kind="categorical", categories=("u", "v", "w")),
    ),
    num_steps=2,
)


def known_cohort(a, n, codes, length, *, has=None):
    """Patients with static a; n, x = n / 2 and a code do not change in time."""
    count = len(a)
    static = Table(
        np.asarray(a, float)[:, None],
        np.zeros((count, 0), int),
        np.ones((count, 1), bool) if has is None else np.asarray(has)[:, None],
    )
    numeric = np.stack([n, np.asarray(n) / 2], -1)[:, None].repeat(2, 1)
    temporal = Table(
        numeric,
        np.asarray(codes)[:, None, None].repeat(2, 1),
        np.ones((count, 2, 3), bool),
    )
    return make_cohort(static, temporal, np.asarray(length), np.zeros(count, int))


def test_the_five_nearest_by_hand():
    """Patient 7 lacks the series; in a, 0 to 4 are the nearest, and 2 the first."""
    a = [1.0, 2.0, 3.2, 4.0, 5.5, 20.0, 30.0, 3.1]
    n = [1, 2, 4, 5, 6, 90, 95, 0]
    people = known_cohort(a, n, [0, 1, 1, 0, 2, 2, 2, 0], [2, 2, 1, 2, 2, 2, 2, 0])
    people.temporal.observed[4, :, 1] = False  # one neighbour without x
    found = complete(fit_donors(SCHEMA, people), people)
    assert found.has_temporal.all()
    assert found.length[7] == 1  # as the nearest has
    assert found.temporal.numeric[7, 0].tolist() == [4.0, (0.5 + 1 + 2 + 2.5) / 4]
    assert found.temporal.codes[7, 0, 0] == 1  # two each of u and v: the nearer
    assert found.temporal.observed[7].tolist() == [[True] * 3, [False] * 3]
    np.testing.assert_array_equal(found.temporal.codes[:7], people.temporal.codes[:7])
    assert in_words(people, found).startswith(
        "kNN (k = 5) imputed the temporal part of 1"
    )


def test_means_of_whole_numbers_are_whole():
    near = Table(
        np.array([[[1.0, 1.0], [2.0, 2.0]]]),
        np.zeros((1, 2, 0), int),
        np.ones((1, 2, 2), bool),
    )
    found = average(near, np.array([True, False]))
    assert found.numeric.tolist() == [[2.0, 1.5]]


def test_a_static_part_from_the_series():
    a, n = [1.0, 2.0, 3.0, 9.0], [1, 1, 1, 1]
    people = known_cohort(
        a, n, [0, 0, 0, 0], [2, 2, 2, 2], has=[True, True, True, False]
    )
    found = complete(fit_donors(SCHEMA, people), people)
    assert found.static.numeric[:, 0].tolist() == [1.0, 2.0, 3.0, 2.0]


@pytest.mark.parametrize("make", ["dense", "sparse"])
def test_everyone_with_something_becomes_complete_and_keeps_it(make):
    made = schema() if make == "dense" else sparse_schema()
    people = cohort(made, count=120)
    if make == "sparse":
        people = sparse_cohort(made, count=80)[0]
        people.static.observed[::7] = False
        people = people._replace(has_static=people.static.observed.any(-1))
    found = complete(fit_donors(made, people), people)
    something = people.has_static | people.has_temporal
    np.testing.assert_array_equal(found.has_static, something)
    np.testing.assert_array_equal(found.has_temporal, something)
    assert not something.all()
    for part in ("static", "temporal"):
        has = getattr(people, f"has_{part}")
        one, two = (
            getattr(c, part) for c in (rows_of(found, has), rows_of(people, has))
        )
        np.testing.assert_array_equal(one.observed, two.observed)
        np.testing.assert_array_equal(one.codes, two.codes)
        np.testing.assert_array_equal(one.numeric, two.numeric)
    np.testing.assert_array_equal(found.label, people.label)
    assert isinstance(found.temporal, SparseTable) is (make == "sparse")


def test_ones_that_most_neighbours_have():
    codes = np.zeros((4, 2, 3), int)
    codes[0, 0, 1] = codes[1, 0, 1] = codes[2, 0, 1] = 1
    codes[0, 1, 2] = codes[3, 1, 2] = 1
    table = from_dense(codes, np.full(4, 2))
    found = most_ones(table, np.array([[0, 1, 3], [3, 2, 0], [2, 2, 3]]))
    wanted = np.zeros((3, 2, 3), int)
    wanted[0, 0, 1] = wanted[1, 0, 1] = wanted[1, 1, 2] = wanted[0, 1, 2] = 1
    wanted[2, 0, 1] = 1
    np.testing.assert_array_equal(found.codes, wanted)


def test_blocks_of_patients_change_nothing(monkeypatch):
    made = schema()
    people = cohort(made, count=120)
    donors = fit_donors(made, people)
    wanted = complete(donors, people)
    monkeypatch.setattr(module, "ROWS", 3)
    found = complete(donors, people)
    np.testing.assert_array_equal(found.temporal.numeric, wanted.temporal.numeric)


def test_nobody_lacks_anything():
    made = schema()
    people = cohort(made, variable=False, missing=0.0)
    assert fit_donors(made, people) is None
    assert complete(None, people) is not None
    assert in_words(people, people) == ""
    alone = cohort(schema(static=()))
    assert fit_donors(schema(static=()), alone) is None


def test_nobody_is_complete():
    made = schema()
    people = cohort(made, count=20, missing=0.0)
    split = np.arange(20) % 2 == 0
    static = people.static._replace(observed=people.static.observed & split[:, None])
    people = make_cohort(static, people.temporal, np.where(split, 0, 4), people.label)
    with pytest.raises(InputError, match="patients lack a modality and none has both"):
        fit_donors(made, people)
