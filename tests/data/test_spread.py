"""The table of how far draws lie apart, against numbers by hand."""

import numpy as np

from jaxehr.core.cohort import Dataset, Feature, Schema, Table, make_cohort
from jaxehr.core.sparse import from_dense
from jaxehr.data.spread import spread

STATIC = (
    Feature(name="age", kind="numeric"),
    Feature(name="sex", kind="binary", categories=("f", "m"), dtype="string"),
)


def patients(ages, sexes, seen, temporal, features, length):
    made = Schema(static=STATIC, temporal=features, num_steps=2, start=10.0, step=5.0)
    static = Table(
        np.array(ages, float)[:, None],
        np.array(sexes)[:, None],
        np.array(seen, bool)[:, None] & np.ones(2, bool),
    )
    cohort = make_cohort(static, temporal, np.array(length), np.zeros(len(ages), int))
    ids = np.array([70 + i for i in range(len(ages))])
    return Dataset(made, cohort, ids, ids, {})


def test_dense_by_hand():
    features = (Feature(name="hr", kind="numeric"),)
    series = lambda values: Table(
        np.array(values, float)[..., None],
        np.zeros((2, 2, 0), np.int32),
        np.ones((2, 2, 1), bool),
    )
    before = patients(
        [0, 50], [0, 1], [False, True], series([[1, 2], [0, 0]]), features, [2, 0]
    )
    draws = [
        patients([40, 50], [1, 1], [1, 1], series([[1, 2], [60, 0]]), features, [2, 1]),
        patients(
            [44, 50], [1, 1], [1, 1], series([[1, 2], [70, 90]]), features, [2, 2]
        ),
    ]
    found = spread(before, [d.cohort for d in draws]).to_pylist()
    assert [(r["id"], r["time"], r["column"], r["present"]) for r in found] == [
        (70, None, "age", 1.0),
        (70, None, "sex", 1.0),
        (71, 10.0, "hr", 1.0),
        (71, 15.0, "hr", 0.5),
    ]
    assert [(r["mean"], r["sd"]) for r in found] == [
        (42.0, 2.0),
        (None, None),
        (65.0, 5.0),
        (90.0, 0.0),
    ]
    assert (found[1]["mode"], found[1]["share"]) == ("m", 1.0)


def test_sparse_lists_what_was_ever_one():
    features = tuple(
        Feature(name=name, kind="binary", categories=(0, 1)) for name in "xyz"
    )
    series = lambda ones, length: from_dense(
        np.array([[[1, 1, 1], [0, 0, 0]], ones]), np.array([2, length])
    )
    make = lambda ones, length: patients(
        [50, 50], [0, 1], [1, 1], series(ones, length), features, [2, length]
    )
    before = make([[0, 0, 0]] * 2, 0)
    draws = [
        make([[1, 0, 0], [0, 1, 0]], 2),
        make([[1, 0, 0], [0, 0, 0]], 2),
        make([[1, 0, 0], [0, 0, 0]], 2),
    ]
    found = spread(before, [d.cohort for d in draws]).to_pylist()
    rows = [(r["id"], r["time"], r["column"], r["mode"], r["share"]) for r in found]
    assert rows == [(71, 10.0, "x", "1", 1.0), (71, 15.0, "y", "0", 1 - 1 / 3)]
