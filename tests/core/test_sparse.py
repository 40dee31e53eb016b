import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxehr.core import sparse
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Schema,
    Table,
    concatenate,
    empty_table,
    make_cohort,
    num_steps,
    take,
    to_dense,
    valid_steps,
)

BINARY = tuple(
    Feature(name=name, kind="binary", dtype="int64", categories=(0, 1))
    for name in ("a", "b", "c")
)


def random_codes(seed, patients=5, steps=4, features=3):
    generator = np.random.default_rng(seed)
    length = generator.integers(0, steps + 1, patients)
    codes = generator.integers(0, 2, (patients, steps, features))
    valid = np.arange(steps) < length[:, None]
    return (codes * valid[..., None]).astype(np.int32), length.astype(np.int32)


def cohort(seed=0, patients=5):
    codes, length = random_codes(seed, patients)
    table = sparse.from_dense(codes, length)
    return make_cohort(
        empty_table((patients,), ()), table, length, np.zeros(patients)
    ), codes


def test_the_cells_of_a_small_table_by_hand():
    codes = np.zeros((2, 2, 3), int)
    codes[0, 0, 2] = codes[0, 1, 1] = codes[1, 0, 0] = 1
    table = sparse.from_dense(codes, np.array([2, 1]))
    assert table.offsets.tolist() == [0, 2, 3]
    assert table.cells.tolist() == [2, 4, 0]
    assert [leaf.dtype.name for leaf in table[:3]] == ["int64", "int32", "int32"]
    assert table.observed[1].tolist() == [[True] * 3, [False] * 3]
    assert table.numeric.shape == (2, 2, 0)
    assert sparse.density(table) == 3 / 9
    assert sparse.column_counts(table).tolist() == [1, 1, 1]


@given(st.integers(0, 2**16), st.lists(st.integers(0, 4), max_size=7))
@settings(max_examples=40, deadline=None)
def test_take_and_back_to_dense(seed, rows):
    codes, length = random_codes(seed)
    table = sparse.from_dense(codes, length)
    np.testing.assert_array_equal(table.codes, codes)
    rows = np.array(rows, int)
    found = sparse.take_rows(table, rows)
    np.testing.assert_array_equal(found.codes, codes[rows])
    np.testing.assert_array_equal(found.length, length[rows])
    again = sparse.join([found, table])
    np.testing.assert_array_equal(again.codes, np.concatenate([codes[rows], codes]))
    assert all(map(sparse.is_sound, (table, found, again)))


@pytest.mark.parametrize("rows", [1, 2, 5, 6])
def test_rows_are_copied_in_blocks_of_any_size(monkeypatch, rows):
    monkeypatch.setattr(sparse, "ROWS", rows)
    codes, length = random_codes(3)
    table = sparse.from_dense(codes, length)
    order = np.array([4, 4, 0, 2, 1, 3])
    np.testing.assert_array_equal(sparse.take_rows(table, order).codes, codes[order])


def test_cells_in_any_order_and_twice():
    where = (np.array([1, 0, 1, 0]), np.array([0, 1, 0, 0]), np.array([2, 0, 2, 1]))
    table = sparse.from_cells(where, np.array([2, 2]), (2, 2, 3))
    assert table.offsets.tolist() == [0, 2, 3]
    assert table.cells.tolist() == [1, 3, 2]


def test_padding_is_cut():
    ones = np.ones((2, 3, 2), int)
    table = sparse.from_dense(ones, np.array([3, 1]))
    assert table.counts.tolist() == [6, 2]
    made = make_cohort(empty_table((2,), ()), table, np.array([0, 1]), np.zeros(2))
    assert made.temporal.counts.tolist() == [0, 2]
    assert made.has_temporal.tolist() == [False, True]


def test_cohort_functions_keep_a_sparse_table():
    one, codes = cohort(0)
    two, others = cohort(1, 4)
    whole = concatenate([one, two])
    assert isinstance(whole.temporal, sparse.SparseTable)
    assert num_steps(whole.temporal) == 4
    np.testing.assert_array_equal(
        whole.temporal.observed, np.repeat(valid_steps(whole)[..., None], 3, -1)
    )
    ids = np.arange(9)
    data = Dataset(Schema(temporal=BINARY, num_steps=4), whole, ids, ids, {})
    for rows in (ids >= 5, np.array([7, 0, 0])):
        found = take(data, rows).cohort
        dense = np.concatenate([codes, others])[rows]
        np.testing.assert_array_equal(found.temporal.codes, dense)
        np.testing.assert_array_equal(found.length, found.temporal.length)
    jax.tree.map(np.testing.assert_array_equal, take(data, ids < 5).cohort, one)


def test_to_dense_gives_the_table_that_was_packed():
    made, codes = cohort()
    dense = to_dense(made)
    assert isinstance(dense.temporal, Table)
    np.testing.assert_array_equal(dense.temporal.codes, codes)
    observed = np.repeat(valid_steps(made)[..., None], 3, -1)
    np.testing.assert_array_equal(dense.temporal.observed, observed)
    assert to_dense(dense) is dense


def test_refusals():
    codes = np.zeros((2, 2, 3), int)
    with pytest.raises(InputError, match="codes must be 0 or 1; 1 of 12 are not"):
        sparse.from_dense(np.where(np.arange(12).reshape(2, 2, 3) == 5, 3, 0), [2, 2])
    with pytest.raises(InputError, match=r"2 lengths in \[0, 2\] are needed, got 2, 1"):
        sparse.from_dense(codes, np.array([2, 3]))
    with pytest.raises(InputError, match=r"column numbers must lie in \[0, 3\), got 4"):
        sparse.from_cells(([0], [0], [4]), np.array([2]), (1, 2, 3))
    with pytest.raises(InputError, match="more than 2147483648 cells of one patient"):
        sparse.from_cells(([], [], []), np.zeros(0), (0, 2**16, 2**15))


def test_a_large_dense_table_is_refused():
    table = sparse.from_cells(([], [], []), np.full(10_000, 48), (10_000, 48, 7307))
    with pytest.raises(InputError, match=r"the dense table of 13[.]1 GiB"):
        _ = table.codes
    assert take_small(table).codes.shape == (2, 48, 7307)
    with pytest.raises(InputError, match=r"dense table of 19[.]6 GiB"):
        _ = sparse.join([table] * 6).observed


def take_small(table):
    return sparse.take_rows(table, np.array([5, 3]))


def test_unsound_arrays_are_seen():
    table = sparse.from_dense(np.ones((2, 2, 3), int), np.array([2, 2]))
    assert sparse.is_sound(table)
    for wrong in (
        table._replace(offsets=table.offsets[:-1]),
        table._replace(offsets=np.array([0, 7, 6])),
        table._replace(cells=table.cells[::-1]),
        table._replace(cells=table.cells[:, None]),
        table._replace(length=np.array([2, 1])),
        table._replace(length=np.array([2, 3])),
        table._replace(cells=table.cells - 1),
    ):
        assert not sparse.is_sound(wrong)
