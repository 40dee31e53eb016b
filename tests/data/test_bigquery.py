"""BigQuery without an account: the same cohort from tables of a data set.

DuckDB plays the data set, with columns typed as PhysioNet's; every query is also
written in BigQuery's dialect.
"""

import datetime
import re
import sys
import types

import duckdb
import ibis
import numpy as np
import pytest
from mimic3_tables import chart, write_tables
from small_cohorts import assert_cohorts
from test_mimic3_tasks import ADMITTED, CHARTED, OTHER, PEOPLE, STAYS
from test_mimic3_vitals import ROWS

from jaxehr.cli import main
from jaxehr.core.checks import InputError
from jaxehr.data import bigquery, engines, hospital
from jaxehr.data.engines import EngineOptions
from jaxehr.data.meds import MedsOptions
from jaxehr.data.mimic3 import Mimic3Options, read

DATASET = "physionet.mimic"
CHANGED = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
TIMES = re.compile("time$|^dob$|^charttime$")


def fill(backend, folder):
    """The tables of a folder, typed: DATETIME, INT64, FLOAT64, upper-case names."""
    backend.raw_sql("ATTACH ':memory:' AS physionet")
    backend.raw_sql(f"CREATE SCHEMA {DATASET}")
    backend.raw_sql("SET TimeZone = 'UTC'")
    for path in folder.glob("*.csv"):
        names = duckdb.sql(f"FROM read_csv('{path}', all_varchar=true)").columns
        kind = lambda name: (
            "TIMESTAMP"
            if TIMES.search(name)
            else "BIGINT"
            if name.endswith(("id", "flag", "error"))
            else "DOUBLE"
            if name in ("valuenum", "amount")
            else "VARCHAR"
        )
        columns = ", ".join(f"TRY_CAST({n} AS {kind(n)}) AS {n.upper()}" for n in names)
        backend.raw_sql(
            f"CREATE TABLE {DATASET}.{path.stem.lower()} AS "
            f"SELECT {columns} FROM read_csv('{path}', all_varchar=true, header=true)"
        )


@pytest.fixture
def dialect(monkeypatch):
    """Collects every query in BigQuery's dialect."""
    written = []

    def sql(opened, expression):
        written.append(ibis.to_sql(expression, dialect="bigquery"))
        return str(opened.engine.backend.compile(expression))

    monkeypatch.setattr(hospital, "sql", sql)
    return written


@pytest.fixture
def hosted(monkeypatch, dialect):
    """Makes the tables of a folder a data set."""

    def host(folder):
        def connect(project):
            assert project == "paying"
            backend = ibis.duckdb.connect()
            fill(backend, folder)
            state = types.SimpleNamespace(modified=CHANGED, num_rows=7)
            tables = [path.stem.lower() for path in folder.glob("*.csv")]
            backend.list_tables = lambda database: tables
            backend.client = types.SimpleNamespace(get_table=lambda name: state)
            return backend

        monkeypatch.setattr(engines, "connect_bigquery", connect)

    return host


def same(one, other):
    assert one.schema == other.schema
    np.testing.assert_array_equal(one.ids, other.ids)
    assert_cohorts(other.cohort, one.cohort)
    assert one.provenance["steps"] == other.provenance["steps"]


@pytest.mark.parametrize("task", ["vitals24", "mortality48", "arf4"])
def test_a_data_set_gives_the_same_cohort(tmp_path, hosted, dialect, task):
    tables = {"ADMISSIONS": ADMITTED, "ICUSTAYS": STAYS, "PATIENTS": PEOPLE}
    tables |= {"CHARTEVENTS": CHARTED, **OTHER}
    more = {"min_share": 0.0}
    if task == "vitals24":
        tables, more = {"CHARTEVENTS": chart(ROWS)}, {}
    folder = write_tables(tmp_path, **tables)
    hosted(folder)
    one = read([folder], Mimic3Options(task=task, **more))
    dialect.clear()
    options = Mimic3Options(task=task, engine="bigquery", project="paying", **more)
    other = read([DATASET], options)
    same(one, other)
    assert other.provenance["files"]["ICUSTAYS"] == {
        "table": f"{DATASET}.icustays",
        "modified": "2026-01-02T00:00:00+00:00",
        "rows": 7,
    }
    text = "\n".join(dialect)
    assert len(dialect) >= 7
    # A DATETIME has no number of seconds there; a TIMESTAMP has.
    assert "UNIX_SECONDS(" in text
    assert "AS TIMESTAMP)" in text
    assert "AS DATETIME)" not in text


def test_what_is_missing_is_told(tmp_path, hosted, capsys):
    hosted(write_tables(tmp_path / "tables", CHARTEVENTS=chart(ROWS), ICUSTAYS=None))
    options = Mimic3Options(engine="bigquery", project="paying")
    message = (
        r"physionet.mimic: table ICUSTAYS is missing; there are: 'admissions', 'charte"
    )
    with pytest.raises(InputError, match=message):
        read([DATASET], options)
    with pytest.raises(InputError, match=r"needs one data set, PROJECT.DATASET"):
        read([tmp_path], options)
    with pytest.raises(InputError, match="bigquery needs --project"):
        EngineOptions(engine="bigquery")
    with pytest.raises(InputError, match="other engines have none"):
        EngineOptions(project="paying")
    with pytest.raises(InputError, match="MEDS is files"):
        MedsOptions(engine="bigquery", project="paying")
    words = f"prepare mimic3 {DATASET} --engine bigquery --out".split()
    assert main([*words, str(tmp_path / "out")]) == 2
    assert "bigquery needs --project" in capsys.readouterr().err


def test_without_the_packages_or_a_login_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(InputError, match=r'run: pip install "jaxehr\[bigquery\]"'):
        bigquery.connect_bigquery("paying")

    class Nobody(Exception):
        pass

    def default(scopes):
        raise Nobody

    auth = types.ModuleType("google.auth")
    auth.default = default
    auth.exceptions = types.SimpleNamespace(DefaultCredentialsError=Nobody)
    monkeypatch.setattr(bigquery.importlib, "import_module", lambda name: auth)
    with pytest.raises(InputError, match=r"nobody is logged in; run: gcloud auth"):
        bigquery.connect_bigquery("paying")
