"""One Ibis expression, several engines: DuckDB in this process, Spark, BigQuery.

Queries are written once; what differs between engines (how a session starts, how a file
is opened) is here. Engines agree bit for bit because no query rests on the order of
rows, sums are sums of integers, and text becomes numbers by IEEE rules.
"""

import contextlib
import dataclasses
import importlib
import itertools
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from jaxehr.core.checks import InputError
from jaxehr.core.sizes import check_size
from jaxehr.data.bigquery import connect_bigquery
from jaxehr.data.gridding import connect, exact, in_memory
from jaxehr.data.raw_tables import ROW, read_header

Name = Literal["duckdb", "spark", "bigquery"]
GOOGLE = (
    ("google.api_core.exceptions", "GoogleAPICallError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)
LOCAL, FILE = "127.0.0.1", "jaxehr_file"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where the queries run."""

    engine: Name = "duckdb"
    """`duckdb` in this process, `spark` or `bigquery` (extras of these names)."""
    memory_limit: str = "2GB"
    """Memory of DuckDB or Spark's driver; above it data go to a temporary folder."""
    master: str = "local[*]"
    """Spark only: the master's URL, e.g. spark://host:7077, yarn or local[4]."""
    project: str = ""
    """BigQuery only: the project that is billed. Instead of a folder name the data set,
    e.g. physionet-data.mimiciii_clinical; log in with gcloud first."""

    def __post_init__(self) -> None:
        check_size("memory_limit", self.memory_limit)
        if (self.engine == "bigquery") != bool(self.project):
            raise InputError(
                "engine bigquery needs --project, the project that is billed; other "
                "engines have none."
            )


class Engine(NamedTuple):
    """A running engine; tables are numbered, so that queries read the same every time.

    `session` is Spark's, None for the others.
    """

    backend: Any
    numbers: Iterator[int]
    session: Any = None
    name: Name = "duckdb"


@contextlib.contextmanager
def open_engine(options: EngineOptions) -> Iterator[Engine]:
    """Starts an engine and ends it, temporary tables included.

    Raises:
      InputError: Spark or BigQuery is asked for and it, or Java, is not installed;
        nobody is logged in to BigQuery.
    """
    if options.engine == "bigquery":
        backend = connect_bigquery(options.project)
        yield Engine(backend, itertools.count(), name="bigquery")
        return
    if options.engine == "spark":
        session = start_spark(options)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                backend = ibis.pyspark.connect(session)
                yield Engine(backend, itertools.count(), session, "spark")
        finally:
            session.stop()
        return
    backend = connect(options.memory_limit, os.cpu_count() or 1)
    try:
        yield Engine(backend, itertools.count())
    finally:
        backend.disconnect()


def start_spark(options: EngineOptions) -> Any:
    """A Spark session in UTC, so that a time is read as it is written."""
    try:
        sql: Any = importlib.import_module("pyspark.sql")
    except ImportError:
        raise InputError(
            'engine spark: PySpark is not installed; run: pip install "jaxehr[spark]".'
        ) from None
    memory = options.memory_limit.replace(" ", "").rstrip("B").rstrip("i").lower()
    settings = {
        "spark.driver.memory": memory,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "false",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    if options.master.startswith("local"):
        settings["spark.sql.shuffle.partitions"] = str(4 * (os.cpu_count() or 1))
        settings["spark.driver.host"] = settings["spark.driver.bindAddress"] = LOCAL
    builder = sql.SparkSession.builder
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        return builder.master(options.master).appName("jaxehr").getOrCreate()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"engine spark: no session at {options.master} ({reason}); Java 17 or "
            "newer is needed."
        ) from error


def is_csv(path: str) -> bool:
    """Whether the name of a file, not of a folder on the way to it, tells of CSV."""
    return path.lower().endswith((".csv", ".csv.gz"))


def scan(engine: Engine, path: str) -> Any:
    """A CSV, CSV.GZ or Parquet file (or a folder of Parquet parts) as an Ibis table.

    Column names become lower case. Columns of a CSV file are text.
    """
    if not is_csv(path):
        if engine.session:
            reader = engine.session.read.option("recursiveFileLookup", True)
            table = as_view(engine, reader.parquet(path))
        else:
            parts = [exact(part) for part in parts_of(path)]
            table = engine.backend.read_parquet(parts, table_name=new_name(engine))
    else:
        table = scan_csv(engine, path)
    return table.rename({name.lower(): name for name in table.columns})


def scan_csv(engine: Engine, path: str) -> Any:
    header, delimiter = read_header(path)
    if engine.session:
        reader = engine.session.read.schema(
            ", ".join(f"`{name}` STRING" for name in header)
        )
        options = {"sep": delimiter, "quote": '"', "escape": '"', "mode": "FAILFAST"}
        return as_view(engine, reader.options(header=True, **options).csv(path))
    return engine.backend.read_csv(
        exact(path),
        table_name=new_name(engine),
        auto_detect=False,
        header=True,
        delim=delimiter,
        quote='"',
        escape='"',
        columns=dict.fromkeys(header, "VARCHAR"),
    )


def has_rows(engine: Engine) -> bool:
    """Whether the engine reads files in order, so that rows have numbers."""
    return engine.name == "duckdb"


@contextlib.contextmanager
def numbered(path: str) -> Iterator[Any]:
    """A file on DuckDB with its name in `FILE` and its rows from 1 on in `ROW`."""
    engine = Engine(connect(threads=os.cpu_count() or 1), itertools.count())
    engine.backend.raw_sql("SET preserve_insertion_order = true")
    try:
        if is_csv(path):
            table = scan(engine, path)
            place = {FILE: ibis.literal(path), ROW: ibis.row_number() + 1}
        else:
            names = {"filename": True, "file_row_number": True}
            parts = [exact(part) for part in parts_of(path)]
            table = engine.backend.read_parquet(
                parts, table_name=new_name(engine), **names
            )
            table = table.rename({name.lower(): name for name in table.columns})
            place = {FILE: table["filename"], ROW: table["file_row_number"] + 1}
        yield table.mutate(**place)
    finally:
        engine.backend.disconnect()


def new_name(engine: Engine) -> str:
    return f"jaxehr_{next(engine.numbers)}"


def as_view(engine: Engine, frame: Any) -> Any:
    """A Spark data frame as an Ibis table."""
    name = new_name(engine)
    frame.createOrReplaceTempView(name)
    return engine.backend.table(name)


def keep(engine: Engine, expression: Any) -> Any:
    """The table computed once; it lives until the engine ends."""
    if engine.session:
        frame = engine.session.sql(engine.backend.compile(expression))
        return as_view(engine, frame.localCheckpoint())  # the plan starts anew here
    return engine.backend.create_table(new_name(engine), expression, temp=True)


def upload(engine: Engine, table: pa.Table) -> Any:
    """An Arrow table as a table of the engine; it lives until the engine ends."""
    if engine.session:
        return as_view(engine, engine.session.createDataFrame(table))
    return keep(engine, in_memory(table))


def fetch(engine: Engine, expression: Any) -> pa.Table:
    """The rows in memory."""
    return engine.backend.to_pyarrow(expression)


def microseconds(engine: Engine, time: Any) -> Any:
    """Microseconds of a timestamp since 1970; Ibis has no function for it on Spark."""
    kinds = ((ibis.dtype("timestamp"),), ibis.dtype("int64"))
    name = "unix_micros" if engine.session else "epoch_us"
    builtin: Any = ibis.udf.scalar.builtin
    return builtin(lambda time: None, name=name, signature=kinds)(time)


def failures() -> tuple[type[Exception], ...]:
    """What engines raise when a file cannot be read or the memory does not suffice."""
    found: list[type[Exception]] = [duckdb.Error, pa.ArrowException, EOFError]
    with contextlib.suppress(ImportError):
        found.append(importlib.import_module("pyspark.errors").PySparkException)
    for module, name in GOOGLE:
        with contextlib.suppress(ImportError):
            found.append(getattr(importlib.import_module(module), name))
    return tuple(found)


def column_names(path: str) -> list[str]:
    """The names in the header of a file, as they stand there."""
    if is_csv(path):
        return read_header(path)[0]
    return pq.read_schema(parts_of(path)[0]).names


def parts_of(path: str) -> list[str]:
    """The Parquet files of a table: itself, or those in the folder and below.

    Raises:
      InputError: a folder without any.
    """
    if not os.path.isdir(path):
        return [path]
    found = sorted(str(part) for part in pathlib.Path(path).rglob("*.parquet"))
    if not found:
        raise InputError(f"{path}: no Parquet file in this folder.")
    return found
