"""Binning by hand, against a plain loop, and the same whatever the thread count."""

import collections
import os

import ibis
import numpy as np
import pyarrow as pa
import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature
from jaxehr.data.gridding import (
    bounded,
    connect,
    count_steps,
    count_values,
    grid_long,
    grid_wide,
    with_ends,
)


def feature(name, aggregate="mean", kind="numeric", **options):
    return Feature(name=name, kind=kind, aggregate=aggregate, **options)


def wide(table, features, start=0.0, step=1.0, num_steps=4, threads=2):
    expression = grid_wide(
        ibis.memtable(table),
        id="id",
        time="time",
        features=tuple(features),
        start=start,
        step=step,
        num_steps=num_steps,
    )
    return connect(threads=threads).to_pyarrow(expression)


def long(table, features, start=0.0, step=1.0, num_steps=4, threads=2):
    expression = grid_long(
        ibis.memtable(table),
        id="id",
        time="time",
        variable="variable",
        value="value",
        features=tuple(features),
        start=start,
        step=step,
        num_steps=num_steps,
    )
    return connect(threads=threads).to_pyarrow(expression)


def series(times, values, id=1):
    columns = {"id": [id] * len(times), "time": list(map(float, times)), "x": values}
    return pa.table(columns)


def test_bins_are_closed_below_and_open_above():
    table = series([0, 0.99, 1.0, 3.999, 4.0, -0.01], [1.0, 3.0, 5.0, 7.0, 9.0, 11.0])
    grid = wide(table, [feature("x")])
    assert grid["time"].to_pylist() == [0.0, 1.0, 3.0]
    assert grid["x"].to_pylist() == [2.0, 5.0, 7.0]


def test_bins_of_a_tenth_hold_their_own_grid_points():
    times = [k / 10 for k in range(10)]  # 0.3 / 0.1 < 3 in floats
    grid = wide(
        series(times, [float(k) for k in range(10)]), [feature("x")], 0, 0.1, 10
    )
    assert grid["x"].to_pylist() == list(range(10))


def test_mean_of_equal_values_is_that_value():
    grid = wide(series([0.1, 0.2, 0.3], [106.1] * 3), [feature("x")])
    assert (106.1 * 3) / 3 != 106.1  # what a plain mean gives
    assert grid["x"].to_pylist() == [106.1]


def test_last_is_by_time_and_ignores_nulls():
    table = series([0.5, 0.2, 0.9, 0.5], [1.0, 8.0, None, 3.0])
    grid = wide(table, [feature("x", "last")])
    assert grid["x"].to_pylist() == [3.0]  # of two at 0.5 the larger


@pytest.mark.parametrize(
    ("times", "values", "expected"),
    [
        ([0.8, 1.3], [1.0, 2.0], {1.0: 1.0}),
        ([0.8, 1.2], [1.0, 2.0], {1.0: 1.0}),  # a tie goes to the earlier
        ([0.5, 1.5], [1.0, 2.0], {0.0: 1.0, 1.0: 2.0}),  # halves to the earlier point
        ([1.0, 0.9], [None, 2.0], {1.0: 2.0}),  # a null is no observation
        ([-0.4, 3.5, 3.6], [1.0, 2.0, 3.0], {0.0: 1.0, 3.0: 2.0}),
    ],
)
def test_nearest_by_hand(times, values, expected):
    grid = wide(series(times, values), [feature("x", "nearest")])
    found = dict(zip(grid["time"].to_pylist(), grid["x"].to_pylist()))
    assert found == expected


def test_a_row_without_values_keeps_its_bin():
    grid = wide(series([0, 2.5], [1.0, None]), [feature("x")])
    assert grid["time"].to_pylist() == [0.0, 2.0]
    assert grid["x"].to_pylist() == [1.0, None]


def test_codes_take_the_last_and_integers_round():
    table = pa.table(
        {
            "id": [1, 1, 1],
            "time": [0.1, 0.2, 0.3],
            "s": ["b", "c", "a"],
            "n": [3, 4, 4],
        }
    )
    features = [
        feature("s", kind="categorical", categories=("a", "b", "c"), dtype="string"),
        feature("n", kind="integer", dtype="int64"),
    ]
    grid = wide(table, features)
    assert grid["s"].to_pylist() == ["a"]
    assert grid["n"].to_pylist() == [4.0]


def test_nan_is_not_averaged_away():
    grid = wide(series([0.1, 0.2], [1.0, float("nan")]), [feature("x")])
    assert np.isnan(grid["x"].to_pylist()[0])


def random_long(n=4000):
    draw = np.random.default_rng(0)
    return pa.table(
        {
            "id": draw.integers(0, 30, n),
            "time": np.round(draw.uniform(-1, 7, n), 2),
            "variable": draw.choice(["a", "b", "c", "other"], n),
            "value": draw.normal(size=n) * 10.0 ** draw.integers(-9, 9, n),
        }
    )


def test_long_means_equal_a_plain_loop():
    table = random_long()
    grid = long(table, [feature(name) for name in "abc"], num_steps=6)
    cells = collections.defaultdict(list)
    for row in table.to_pylist():
        if 0 <= row["time"] < 6:
            key = row["id"], float(np.floor(row["time"])), row["variable"]
            cells[key].append(row["value"])
    count = 0
    for row in grid.to_pylist():
        for name in "abc":
            expected = cells.get((row["id"], row["time"], name))
            if expected is None:
                assert row[name] is None
                continue
            count += 1
            # One ulp of the largest of the bin: the mean itself may cancel.
            room = 4e-16 * np.abs(expected).max()
            np.testing.assert_allclose(row[name], np.mean(expected), rtol=0, atol=room)
    assert count == sum(key[2] != "other" for key in cells)


def test_threads_and_row_order_do_not_change_a_bit():
    table = random_long(60_000)
    kinds = zip("abc", ("mean", "nearest", "last"))
    features = [feature(name, aggregate) for name, aggregate in kinds]
    one = long(table, features, threads=1)
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))
    assert long(shuffled, features, threads=4).equals(one)


def test_wide_and_long_agree():
    table = random_long()
    features = [feature("a"), feature("b", "nearest"), feature("c", "last")]
    wide_columns = {
        name: [
            v if w == name else None
            for v, w in zip(table["value"].to_pylist(), table["variable"].to_pylist())
        ]
        for name in "abc"
    }
    other = pa.table({"id": table["id"], "time": table["time"], **wide_columns})
    grid = wide(other, features).to_pandas().dropna(how="all", subset=list("abc"))
    expected = long(table, features).to_pandas()
    assert grid.reset_index(drop=True).equals(expected)


def test_ends_add_only_what_is_absent():
    con = connect()
    grid = pa.table({"id": [1, 1], "time": [0.0, 2.0], "x": [5.0, 6.0]})
    ends = pa.table({"id": [1, 2], "time": [2, 1]})
    table = with_ends(ibis.memtable(grid), ibis.memtable(ends), id="id", time="time")
    found = con.to_pyarrow(table).to_pylist()
    assert found == [*grid.to_pylist(), {"id": 2, "time": 1.0, "x": None}]


def test_bounds_are_closed_and_what_is_dropped_is_counted():
    con = connect()
    table = ibis.memtable(pa.table({"x": [0.0, 1.0, 2.0, 2.1, None]}))
    kept = con.to_pyarrow(table.select(y=bounded(table.x, 1, 2)))["y"].to_pylist()
    assert kept == [None, 1.0, 2.0, None, None]
    counts = count_values(con, table, (feature("x", lower=1, upper=2),))
    assert counts == {"x": {"values": 4, "implausible": 2}}


def test_window_must_be_whole_steps():
    assert count_steps(24, 0.1) == 240
    with pytest.raises(
        InputError, match="hours 24 must be a whole multiple of bin_hours 5"
    ):
        count_steps(24, 5)
    with pytest.raises(InputError, match="hours -1 and bin_hours 1 must be positive"):
        count_steps(-1, 1)
    with pytest.raises(InputError, match="hours inf and bin_hours 1 must be pos"):
        count_steps(float("inf"), 1)


def test_spill_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for number in (2**22 + 1, os.getpid(), "mine"):  # above the largest process id
        (tmp_path / f"jaxehr-duckdb-{number}").mkdir()
    connect().disconnect()
    left = {path.name for path in tmp_path.iterdir()}
    assert f"jaxehr-duckdb-{2**22 + 1}" not in left
    assert "jaxehr-duckdb-mine" in left
