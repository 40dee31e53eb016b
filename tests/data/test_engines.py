"""The same queries on every engine: Spark bit for bit, BigQuery as far as its SQL."""

import importlib.util
import shutil
import types

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mimic3_tables import chart, write_tables
from small_cohorts import assert_cohorts
from test_mimic3_tasks import ADMITTED, CHARTED, OTHER, PEOPLE, STAYS

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature
from jaxehr.data import engines
from jaxehr.data import mimic3_vitals as vitals
from jaxehr.data.engines import EngineOptions, open_engine
from jaxehr.data.events import with_last_rows
from jaxehr.data.gridding import grid_long
from jaxehr.data.hospital import typed
from jaxehr.data.mimic3 import Mimic3Options, open_parts, read
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import load_cohort, save_parts

needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="PySpark and Java are needed (extra `spark`)",
)


def draws(seed=0, rows=600):
    """Charted rows of three stays at odd seconds, with awkward decimals."""
    generator = np.random.default_rng(seed)
    items = generator.choice([220045, 220179, 220180, 220181, 220210, 220277], rows)
    items[::9] = 223761
    found = []
    for item in items:
        stay = generator.choice([111, 121, 211])
        second = generator.integers(7200, 86_000)
        clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
        low, high = (71, 119) if item == 223761 else (20, 69)
        value = round(generator.uniform(low, high), 2)
        found.append((int(stay), int(item), clock, str(value), ""))
    return chart(found)


@needs_spark
def test_spark_gives_the_same_cohort_bit_for_bit(tmp_path):
    folder = write_tables(tmp_path, CHARTEVENTS=draws())
    one = read([folder])
    other = read([folder], Mimic3Options(engine="spark", master="local[2]"))
    assert one.schema == other.schema
    np.testing.assert_array_equal(one.ids, other.ids)
    for mine, theirs in zip(one.cohort.temporal, other.cohort.temporal):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(one.cohort.label, other.cohort.label)
    assert one.provenance["steps"] == other.provenance["steps"]


@needs_spark
def test_spark_makes_the_same_shards(tmp_path):
    tables = {"ADMISSIONS": ADMITTED, "ICUSTAYS": STAYS, "PATIENTS": PEOPLE}
    folder = write_tables(tmp_path, **tables, CHARTEVENTS=CHARTED, **OTHER)
    fields = {"task": "mortality48", "min_share": 0.0}
    whole = read([folder], Mimic3Options(**fields))
    options = Mimic3Options(engine="spark", master="local[2]", **fields)
    with open_parts([folder], options, 2) as made:
        save_parts(made, tmp_path / "cohort")
    again = load_cohort(tmp_path / "cohort")
    assert again.schema == whole.schema
    np.testing.assert_array_equal(again.ids, whole.ids)
    assert_cohorts(again.cohort, whole.cohort)


@needs_spark
def test_spark_means_of_many_large_values():
    generator = np.random.default_rng(0)
    value = generator.choice([1.0, -1.0], 900) * generator.lognormal(5, 3, 900)
    place = generator.integers(0, 12, 900)
    table = pa.table(
        {"id": place // 4, "at": place % 4 + 0.25, "name": ["x"] * 900, "value": value}
    )
    axes = {"id": "id", "time": "at", "start": 0.0, "step": 1.0, "num_steps": 4}
    axes |= {"variable": "name", "value": "value"}
    found = []
    for name in ("duckdb", "spark"):
        options = EngineOptions(engine=name, master="local[2]")
        with open_engine(options) as engine:
            features = (Feature(name="x", kind="numeric"),)
            query = grid_long(ibis.memtable(table), features=features, **axes)
            found.append(engines.fetch(engine, query)["x"].to_numpy())
    np.testing.assert_array_equal(*found)


ENGINES = ["duckdb", pytest.param("spark", marks=needs_spark)]
READ = {  # text: as a number, as a whole number; DuckDB itself has 1_1 as 11
    "1_1": (None, None),
    "0x1F": (None, None),
    "1.5d": (None, None),
    "1.5": (1.5, None),
    " 7 ": (7.0, 7),
    "+12.00": (12.0, 12),
    "1e3": (1000.0, None),
    "123456789012345678": (123456789012345678.0, 123456789012345678),
    "1234567890123456789": (1234567890123456789.0, None),
    "": (None, None),
}


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_reads_the_same_texts_as_numbers(name):
    texts = pa.table({"text": list(READ), "real": list(READ), "whole": list(READ)})
    with open_engine(EngineOptions(engine=name, master="local[2]")) as engine:
        raw = engines.upload(engine, texts)
        kinds = {"text": "string", "real": "float64", "whole": "int64"}
        rows = typed(raw, kinds)
        rows = rows.mutate(whole=rows.whole.cast("string"))  # pandas rounds
        rows = engines.fetch(engine, rows).to_pylist()
    whole = [row["whole"] and int(row["whole"]) for row in rows]
    found = {row["text"]: (row["real"], n) for row, n in zip(rows, whole)}
    assert found == {text.strip() or None: read for text, read in READ.items()}
    bad = [row["text"] for row in rows if row["jaxehr_bad"]]
    assert len(bad) == sum(None in read for text, read in READ.items() if text)


def test_bigquery_sql_compiles():
    kinds = dict.fromkeys(vitals.COLUMNS, "string")
    raw = ibis.table(kinds, name="chartevents")
    rows = vitals.listed(typed(raw, vitals.COLUMNS))
    stays = ibis.table(
        {"icustay_id": "int64", "intime": "timestamp", "outtime": "timestamp"},
        name="icustays",
    )
    query = vitals.first_day(rows.inner_join(stays, "icustay_id"))
    text = ibis.to_sql(vitals.nearest_rows(vitals.charted(query)), dialect="bigquery")
    assert "SAFE_CAST" in text
    assert "`chartevents`" in text
    features = simulate(SimulateOptions(n=8, steps=2)).schema.temporal
    events = ibis.table(
        {"id": "int64", "at": "float64", "name": "string", "value": "float64"}, name="e"
    )
    grid = grid_long(
        events,
        id="id",
        time="at",
        variable="name",
        value="value",
        features=features,
        start=0.0,
        step=1.0,
        num_steps=4,
    )
    assert "GROUP BY" in ibis.to_sql(grid, dialect="bigquery")


def test_spark_that_cannot_start_is_refused(monkeypatch):
    options = EngineOptions(engine="spark")
    monkeypatch.setitem(__import__("sys").modules, "pyspark.sql", None)
    with (
        pytest.raises(InputError, match=r'run: pip install "jaxehr\[spark\]"'),
        open_engine(options),
    ):
        pass

    class Builder:
        def __getattr__(self, name):
            return lambda *_: self

        def getOrCreate(self):
            raise RuntimeError("Java gateway process exited")

    session = types.SimpleNamespace(builder=Builder())
    module = types.SimpleNamespace(SparkSession=session)
    monkeypatch.setattr(engines.importlib, "import_module", lambda _: module)
    with (
        pytest.raises(InputError, match=r"no session at local\[\*\] \(Java gateway"),
        open_engine(options),
    ):
        pass


def test_too_little_memory_is_told(tmp_path):
    folder = write_tables(tmp_path, CHARTEVENTS=draws(rows=20_000))
    with pytest.raises(InputError, match=r"Out of Memory .* Raise --memory-limit"):
        read([folder], Mimic3Options(memory_limit="2MB"))


@pytest.mark.parametrize("name", ["x[1]", "x*", "x?"])
def test_a_name_is_no_pattern(tmp_path, name):
    for stem, value in ((name, 1), ("x1", 2)):
        (tmp_path / stem).mkdir()
        (tmp_path / stem / "x.csv").write_text(f"a\n{value}\n")
        pq.write_table(pa.table({"a": [str(value)]}), tmp_path / stem / "x.parquet")
    for file in ("x.csv", "x.parquet", ""):  # the last is a folder of Parquet parts
        path = str(tmp_path / name / file)
        with open_engine(EngineOptions()) as engine:
            rows = engines.fetch(engine, engines.scan(engine, path))
        assert rows["a"].to_pylist() == ["1"]
        with engines.numbered(path) as rows:
            assert rows.to_pyarrow()["a"].to_pylist() == ["1"]


def test_csv_in_the_name_of_a_folder_is_no_csv_file(tmp_path):
    path = tmp_path / "made.from.csv.files" / "x.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"A": [1, 2]}), path)
    assert engines.column_names(str(path)) == ["A"]
    with open_engine(EngineOptions()) as engine:
        assert engines.fetch(engine, engines.scan(engine, str(path))).num_rows == 2
    with engines.numbered(str(path)) as rows:
        assert rows.to_pyarrow()["a"].to_pylist() == [1, 2]
    assert engines.is_csv("a/B.CSV.GZ")


def test_the_last_row_is_in_the_bin_of_its_time():
    """0.3 / 0.1 is a little less than 3."""
    axes = {"id": "id", "time": "hour", "start": 0.0, "step": 0.1, "num_steps": 10}
    table = pa.table({"id": [1], "hour": [0.0], "x": [5.0]})
    ends = pa.table({"id": [1], "end": [0.3]})
    found = with_last_rows(table, axes, ends)
    assert found["hour"].to_pylist() == [0.0, 3 * 0.1]
