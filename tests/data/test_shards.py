"""Cohorts in shards: who is where, exact round trips, refusals of damaged folders."""

import hashlib
import json
import pathlib
import shutil
import tempfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from small_cohorts import assert_cohorts, sparse_cohort, sparse_schema
from strategies import datasets
from test_store import assert_same

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, take
from jaxehr.core.sparse import SparseTable
from jaxehr.data import cohort_files, shards
from jaxehr.data.shards import INDEX, number_for, open_shards, pieces
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import load_cohort, save_cohort


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(datasets())
def test_read_back_whole_a_cohort_is_the_same_in_any_number_of_shards(data):
    with tempfile.TemporaryDirectory() as folder:
        save_cohort(data, pathlib.Path(folder, "whole"))
        plain = load_cohort(pathlib.Path(folder, "whole"))
        for number in (2, 5):
            path = pathlib.Path(folder, str(number))
            save_cohort(data, path, shards=number)
            again = load_cohort(path)
            assert_same(plain, again)
            assert plain.groups.dtype == again.groups.dtype


def simulated(count=60):
    data = simulate(SimulateOptions(n=count, steps=3))
    schema = data.schema.replace(group="person")
    return data._replace(schema=schema, groups=data.ids // 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "cohort"
    save_cohort(simulated(), path, shards=4)
    return path


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may damage."""
    return pathlib.Path(shutil.copytree(made, tmp_path / "cohort"))


def test_a_person_is_in_the_shard_of_the_hash(made):
    found = open_shards(made)
    for part, rows in zip(found.parts, found.rows, strict=True):
        for person in found.groups[rows]:
            text = f"shards\0{person}".encode()
            digest = hashlib.blake2b(text, digest_size=8).digest()
            assert int.from_bytes(digest, "big") * 4 >> 64 == int(part.name)
    np.testing.assert_array_equal(found.ids, simulated().ids)
    np.testing.assert_array_equal(found.groups, simulated().groups)
    sizes = json.loads((made / INDEX).read_text())["patients"]
    assert sum(sizes) == 60
    assert len(sizes) == 4


def test_pieces_are_the_chosen_patients_and_columns(made):
    data, found = simulated(), open_shards(made)
    rows = np.arange(60) % 7 == 0
    seen = []
    for piece, places in pieces(found, rows):
        assert_cohorts(piece.cohort, take(data, places).cohort)
        seen += places.tolist()
    assert sorted(seen) == np.flatnonzero(rows).tolist()
    name = data.schema.temporal[1].name
    for piece, places in pieces(found, columns=[name]):
        assert [f.name for f in piece.schema.temporal] == [name]
        whole = take(data, places).cohort
        np.testing.assert_array_equal(piece.cohort.length, whole.length)
        np.testing.assert_array_equal(
            piece.cohort.temporal.numeric[..., 0], whole.temporal.numeric[..., 1]
        )


def test_shards_without_the_chosen_are_not_read(folder):
    found = open_shards(folder)
    rows = np.zeros(60, bool)
    rows[found.rows[1]] = True
    for other in (found.parts[0], *found.parts[2:]):
        (other / "temporal.parquet").write_text("not read")
    assert len(list(pieces(found, rows))) == 1


def test_sparse_tables_stay_sparse(tmp_path):
    made = sparse_schema()
    thin, _ = sparse_cohort(made)
    ids = np.arange(len(thin.label)) * 7
    data = Dataset(made, thin, ids, ids, {})
    save_cohort(data, tmp_path / "cohort", shards=3)
    again = load_cohort(tmp_path / "cohort").cohort
    assert isinstance(again.temporal, SparseTable)
    for mine, other in zip(thin.temporal, again.temporal, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert_cohorts(
        again._replace(temporal=thin.static), thin._replace(temporal=thin.static)
    )


def test_as_many_shards_as_the_size_asks_for(tmp_path, monkeypatch):
    assert [number_for(n) for n in (0, 2**30, 2**30 + 1, 2**32)] == [1, 1, 9, 32]
    data = simulated()
    size = shards.bytes_of(data.cohort)
    assert size == sum(
        leaf.nbytes
        for leaf in (*data.cohort.static, *data.cohort.temporal, *data.cohort[2:])
    )
    assert shards.dense_bytes(data.schema, 60) == size
    save_cohort(data, tmp_path / "small", shards=0)
    assert not shards.is_sharded(tmp_path / "small")
    monkeypatch.setattr(shards, "WHOLE_BYTES", size - 1)
    monkeypatch.setattr(shards, "SHARD_BYTES", size // 3 + 1)
    save_cohort(data, tmp_path / "large", shards=0)
    assert len(json.loads((tmp_path / "large" / INDEX).read_text())["patients"]) == 3
    assert_same(load_cohort(tmp_path / "small"), load_cohort(tmp_path / "large"))


def test_rows_are_written_some_patients_at_a_time(tmp_path, monkeypatch):
    data = simulated()
    save_cohort(data, tmp_path / "one")
    monkeypatch.setattr(cohort_files, "BLOCK_BYTES", 1000)
    save_cohort(data, tmp_path / "some")
    file = pq.ParquetFile(tmp_path / "some" / "temporal.parquet")
    assert file.num_row_groups > 5
    assert file.read() == pq.read_table(tmp_path / "one" / "temporal.parquet")
    assert_same(load_cohort(tmp_path / "one"), load_cohort(tmp_path / "some"))


def lose(folder):
    shutil.rmtree(open_shards(folder).parts[0])


def swap(folder):
    one, other, *_ = open_shards(folder).parts
    (other / "static.parquet").write_bytes((one / "static.parquet").read_bytes())


def miscount(folder):
    (folder / INDEX).write_text('{"format": 1, "patients": [60, 0]}')


def other_version(folder):
    (folder / INDEX).write_text('{"format": 9, "patients": [60, 0]}')


def garble(folder):
    (open_shards(folder).parts[0] / "temporal.parquet").write_text("x")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lose, r"shards/00000: not a cohort folder \(static.parquet missing\)"),
        (swap, r"its shards do not fit together \(\d+ stays, 60 of them in shards"),
        (miscount, r"its shards do not fit together|static.parquet missing"),
        (other_version, r"shards.json: damaged or of another version of jaxehr"),
        (garble, r"00000/temporal.parquet: not a readable Parquet file"),
    ],
)
def test_damaged_folders_are_refused(folder, damage, text):
    damage(folder)
    with pytest.raises(InputError, match=text):
        load_cohort(folder)
