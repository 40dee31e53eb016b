"""Records: what was written comes back in any order, from any thread."""

import concurrent.futures
import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.data.records import Records, is_whole, kind_of, write_records


class Batch(NamedTuple):
    x: Any
    code: Any
    flag: Any


def people(count=50, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3, 2)).astype("f4")
    return Batch(
        x, rng.integers(-5, 5, (count, 4)).astype("i1"), rng.random(count) > 0.5
    )


def write(tmp_path, batch, parts=3):
    edges = np.linspace(0, len(batch.x), parts + 1).astype(int)
    path, kind = tmp_path / "people", kind_of(batch)
    cuts = [Batch(*(leaf[a:b] for leaf in batch)) for a, b in itertools.pairwise(edges)]
    write_records(path, kind, cuts)
    return Records(path, Batch, kind, np.arange(len(batch.x)))


def test_rows_come_back_in_any_order(tmp_path):
    batch = people()
    slots = np.random.default_rng(1).permutation(50)
    records = write(tmp_path, batch)._replace(slots=slots)
    assert is_whole(records.path, records.kind, 50)
    assert not is_whole(records.path, records.kind, 49)
    rows = np.array([7, 7, 0, 49])
    for found, leaf in zip(records.take(rows), batch):
        np.testing.assert_array_equal(found, leaf[slots[rows]])
        assert found.dtype == leaf.dtype
        assert found.flags.c_contiguous
    assert records.take(rows[:0]).x.shape == (0, 3, 2)


def test_threads_do_not_disturb_each_other(tmp_path):
    batch = people(400)
    records = write(tmp_path, batch)
    rows = [np.random.default_rng(i).integers(0, 400, 300) for i in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for found, wanted in zip(pool.map(records.take, rows), rows):
            np.testing.assert_array_equal(found.x, batch.x[wanted])


def test_a_file_that_is_cut_off_or_gone_is_refused(tmp_path):
    records = write(tmp_path, people())
    content = records.path.read_bytes()
    records.path.write_bytes(content[:-3])
    with pytest.raises(InputError, match=r"people: was cut off; train again"):
        records.take(np.array([49]))
    records.path.unlink()
    with pytest.raises(InputError, match=r"people: cannot be read \(No such file"):
        records.take(np.array([0]))


def test_an_interrupted_file_is_not_there(tmp_path):
    def broken():
        yield people()
        raise RuntimeError("the cable")

    with pytest.raises(RuntimeError, match="the cable"):
        write_records(tmp_path / "people", kind_of(people()), broken())
    assert not list(tmp_path.iterdir())
