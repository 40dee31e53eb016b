"""The tables a user brings, opened in DuckDB with row numbers: CSV, CSV.GZ, Parquet.

CSV columns are read as text, so that a bad cell can be shown with its row. Spaces
around a text do not count; an empty one is missing, and so is `NA` unless the options
name other texts. Rows count from 1, the header not counted.
"""

import collections
import contextlib
import csv
import dataclasses
import gzip
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from jaxehr.core.checks import InputError, positive
from jaxehr.core.dtypes import TEXTS
from jaxehr.core.sizes import check_size
from jaxehr.data.columns import DIGITS, DOUBLE, EXACT, WHOLE, listing, text
from jaxehr.data.gridding import connect, exact

OURS = "jaxehr_"
ROW = f"{OURS}row"
CSV = "csv"  # the type of every column of a CSV file
ENDINGS = (".csv", ".csv.gz", ".parquet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TablesOptions:
    """Which files and columns make up the cohort; static, temporal or both."""

    static: str = ""
    """File with one row a stay (CSV, CSV.GZ or Parquet)."""
    temporal: str = ""
    """File with one row a stay and time."""
    labels: str = ""
    """File with id and label, when the label is not a column of the static file."""
    id: str
    """Name of the column that tells stays apart, in every file."""
    time: str = ""
    """Name of the time column of the temporal file: a number, 0 or more."""
    label: str = ""
    """Name of the label column."""
    group: str = ""
    """Name of the static column with the person, if a person has several stays."""
    step: float = 0
    """Width of the time grid, to which rows are binned; 0 = the rows lie on a grid."""
    hours: float = 0
    """Length of the window from its start, in the unit of the time column; 0 = all."""
    schema: str = ""
    """An edited schema.json to use in place of the inferred one."""
    time_unit: str = ""
    """Unit of the time column, e.g. s, min, h, d, a; empty = h, or as `schema` says."""
    max_categories: int = 20
    """Most values that a text column may have."""
    missing_values: tuple[str, ...] = ("NA",)
    """Texts that mean a missing value, as an empty one does."""
    text_columns: tuple[str, ...] = ()
    """Columns of words and codes, even where all or most values are numbers."""
    memory_limit: str = "8GB"
    """Most memory that the time grid of all stays may need."""

    def __post_init__(self) -> None:
        for name in ("static", "temporal", "labels", "schema"):  # pathlib.Path as well
            object.__setattr__(self, name, os.fspath(getattr(self, name)))
        for name in ("missing_values", "text_columns"):
            given: Any = getattr(self, name)
            if isinstance(given, str):  # would be taken letter by letter
                raise InputError(
                    f"tables: {name} must be a tuple, such as ({given!r},)."
                )
        if not self.static and not self.temporal:
            raise InputError("tables: give --static, --temporal or both.")
        if self.temporal and not self.time:
            raise InputError("tables: --temporal needs --time, the name of its column.")
        if self.labels and not self.label:
            raise InputError("tables: --labels needs --label, the name of its column.")
        if self.label and not (self.static or self.labels):
            raise InputError("tables: --label needs --static or --labels, its file.")
        if self.group and not self.static:
            raise InputError(
                "tables: --group needs --static, the file with the column."
            )
        if not (0 <= self.step < math.inf and 0 <= self.hours < math.inf):
            raise InputError(
                f"tables: step and hours must be finite and not negative, got "
                f"{self.step} and {self.hours}."
            )
        if not self.temporal and (self.time or self.step or self.hours):
            raise InputError(
                "tables: --time, --step and --hours belong to --temporal; give its "
                "file, or leave them out."
            )
        positive(max_categories=self.max_categories)
        check_size("memory_limit", self.memory_limit)


class Raw(NamedTuple):
    """One opened file: `types` are Arrow type names, or `CSV` where read as text."""

    path: str
    table: Any  # Ibis table with the columns and ROW
    types: dict[str, str]


class RawTables(NamedTuple):
    static: Raw | None
    temporal: Raw | None
    labels: Raw | None


@contextlib.contextmanager
def open_tables(options: TablesOptions) -> Iterator[RawTables]:
    """Loads the files into DuckDB, which spills to a temporary folder.

    Raises:
      InputError: no such file, another ending, an unreadable or empty table, a missing
        id, time, label or group column; too little memory or space.
    """
    connection = connect()
    connection.raw_sql("SET preserve_insertion_order = true")
    label = "" if options.labels else options.label
    wanted = {
        "static": (options.static, [options.id, label, options.group]),
        "temporal": (options.temporal, [options.id, options.time]),
        "labels": (options.labels, [options.id, options.label]),
    }
    try:
        yield RawTables(
            *(
                open_table(connection, name, *rest, options.missing_values)
                for name, rest in wanted.items()
            )
        )
    except duckdb.Error as error:  # after a file was opened, too
        files = [path for path, _ in wanted.values() if path]
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{', '.join(files)}: cannot be prepared ({reason}); free memory and space "
            f"in {tempfile.gettempdir()}, or let TMPDIR name a folder with more."
        ) from error
    finally:
        connection.disconnect()


def open_table(
    connection: Any, name: str, path: str, columns: list[str], missing: tuple[str, ...]
) -> Raw | None:
    """The file as a DuckDB table `name`; None without a path."""
    if not path:
        return None
    if not pathlib.Path(path).is_file():
        raise InputError(f"{path}: no such file.")
    if not path.lower().endswith(ENDINGS):
        raise InputError(f"{path}: the ending must be one of {', '.join(ENDINGS)}.")
    try:
        view, types = open_view(connection, f"{name}_file", path, missing)
        refuse_names(path, list(types))
        absent = [column for column in columns if column and column not in types]
        if absent:
            raise InputError(
                f"{path}: column(s) {listing(absent)} missing; there are: "
                f"{listing(types, 60)}."
            )
        numbered = view.mutate(**{ROW: ibis.row_number() + 1})
        table = connection.create_table(name, numbered, temp=True)
        count = scalar(table.count())
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table ({why(error)}).") from error
    if not count:
        raise InputError(f"{path}: empty table; at least one row is needed.")
    return Raw(path, table, types)


def why(error: Exception) -> str:
    """Why a table cannot be read; of a CSV file without what stands in its rows."""
    said = " ".join(str(error).split())
    if isinstance(error, UnicodeDecodeError) or "not utf-8 encoded" in said:
        return "its text is not UTF-8; save it as UTF-8"
    line = re.search(r"CSV Error on Line: (\d+)", said)
    cells = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", said)
    if line and cells:
        return (
            f"line {line[1]} has {cells[2]} cells and the header {cells[1]}; put cells "
            "that hold the delimiter in quotes"
        )
    if line and "unterminated quote" in said:
        return f"the quote that begins in line {line[1]} does not end"
    return said[:200]


def open_view(
    connection: Any, name: str, path: str, missing: tuple[str, ...]
) -> tuple[Any, dict[str, str]]:
    """The rows and the types of a file; decimals become integers or doubles."""
    if path.lower().endswith(".parquet"):
        described = pq.read_schema(path)
        refuse_twins(path, described.names)
        view, types = connection.read_parquet(exact(path), table_name=name), {}
        for field in described:
            kind = field.type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if pa.types.is_decimal(kind):
                whole = kind.scale == 0
                kind = pa.int64() if whole else pa.float64()
                value = view[field.name].cast("int64" if whole else "float64")
                view = view.mutate(**{field.name: value})
            types[field.name] = str(kind)
        given = [n for n, kind in types.items() if kind in TEXTS]
        return view.mutate(**trimmed(view, given, missing)), types
    header, delimiter = read_header(path)
    view = connection.read_csv(
        exact(path),
        table_name=name,
        auto_detect=False,
        header=True,
        delim=delimiter,
        quote='"',
        escape='"',
        columns=dict.fromkeys(header, "VARCHAR"),
    )
    return view.mutate(**trimmed(view, header, missing)), dict.fromkeys(header, CSV)


def trimmed(view: Any, names: list[str], missing: tuple[str, ...]) -> dict[str, Any]:
    """Columns of text without spaces around, null for what means a missing value."""
    texts, null = ["", *(word.strip() for word in missing)], ibis.null("string")
    columns = {name: view[name].strip() for name in names}
    return {n: ibis.ifelse(c.isin(texts), null, c) for n, c in columns.items()}


def read_header(path: str) -> tuple[list[str], str]:
    """Column names and delimiter (the most frequent of , ; tab |) of a CSV file."""
    opener = gzip.open if path.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
        line = stream.readline()
    if not line.strip():
        raise InputError(f"{path}: empty table; a header and one row are needed.")
    counts = collections.Counter(sign for sign in line if sign in ",;\t|")
    delimiter = counts.most_common(1)[0][0] if counts else ","
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    if "" in names:
        raise InputError(
            f"{path}: column {names.index('') + 1} of {len(names)} has no name; write "
            "the table without an index, or name the column."
        )
    refuse_twins(path, names)
    return names, delimiter


def refuse_twins(path: str, names: list[str]) -> None:
    """Raises InputError for names that DuckDB does not tell apart."""
    often = collections.Counter(name.lower() for name in names)
    twice = [name for name in names if often[name.lower()] > 1]
    if twice:
        raise InputError(
            f"{path}: column(s) {listing(twice)} occur more than once (upper and lower "
            "case count as the same)."
        )


def refuse_names(path: str, names: list[str]) -> None:
    """Raises InputError for an index without a name, which pandas writes as a column of
    Parquet, and for names that columns of ours have in queries."""
    for name in names:
        if re.fullmatch(r"__index_level_\d+__", name):
            raise InputError(
                f"{path}: column {name!r} has no name; write the table without an "
                "index, or name the column."
            )
    ours = [name for name in names if name.lower().startswith(OURS)]
    if ours:
        raise InputError(
            f"{path}: column(s) {listing(ours)}: names that begin with {OURS} are "
            "taken; rename them."
        )


def parsed(value: Any, kind: str) -> Any:
    """Text as another type, null where it is none.

    Engines read more as numbers, each its own: 1_1, 0x1F, 1.5 as a whole number, 1.5d.
    """
    if kind == "int64":
        value = value.re_extract(WHOLE, 1).nullif("")
    if kind == "float64":
        value = ibis.ifelse(value.re_search(DOUBLE), value, None)
    return value.try_cast(kind)


def number(raw: Raw, name: str) -> Any:
    """The column as doubles; null where the text is no number."""
    column = raw.table[name]
    if column.type().is_string():
        return parsed(column, "float64")
    return column.cast("float64")


def too_large(raw: Raw, name: str) -> Any:
    """True where a whole number is too large to be exact as a double."""
    column = raw.table[name]
    if column.type().is_string():
        whole = parsed(column, "int64")  # null beyond 18 digits
        inside = whole.between(-EXACT, EXACT).fill_null(False)
        return column.re_search(DIGITS) & ~inside
    if column.type().is_integer():
        return (column > EXACT) | (column < -EXACT)
    return column.isnull() & column.notnull()


def times(raw: Raw, name: str) -> Any:
    """The time column as `number`; 0.1 in 32 bits is 0.1, and not 0.10000000149."""
    column = raw.table[name]
    if column.type().is_float32():
        return column.cast("string").cast("float64")
    return number(raw, name)


def not_finite(value: Any) -> Any:
    """True where a double is NaN or infinite, False where it is null."""
    return (value.isnan() | value.isinf()).fill_null(False)


def finite(value: Any) -> Any:
    """True where a double is a finite number, False where it is null."""
    return value.notnull() & ~not_finite(value)


def is_fraction(value: Any) -> Any:
    """True where a double is no whole number; Ibis rounds to 64-bit integers."""
    return value % 1 != 0


def scalar(expression: Any) -> Any:
    """The Python value of an Ibis scalar."""
    return expression.to_pyarrow().as_py()


def summary(raw: Raw, measures: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Computes aggregates in one pass: {key: {measure: expression}} to values."""
    keys = [(key, name) for key, parts in measures.items() for name in parts]
    if not keys:
        return {}
    flat = {f"m{i}": measures[key][name] for i, (key, name) in enumerate(keys)}
    row = raw.table.aggregate(**flat).to_pyarrow().to_pylist()[0]
    found: dict[Any, dict[str, Any]] = {key: {} for key in measures}
    for i, (key, name) in enumerate(keys):
        found[key][name] = row[f"m{i}"]
    return found


class Rule(NamedTuple):
    """What no row may have: `bad` is a Boolean expression, null counts as False."""

    column: str
    bad: Any
    text: str
    advice: str = ""


def refuse_any(raw: Raw, rules: list[Rule], id: str = "") -> None:
    """Checks all rules in one pass; the first that is broken raises InputError."""
    found = summary(raw, {i: {"bad": rule.bad.sum()} for i, rule in enumerate(rules)})
    for i, rule in enumerate(rules):
        if found[i]["bad"]:
            refuse_first(raw, rule, found[i]["bad"], id)


def refuse_first(raw: Raw, rule: Rule, count: int, id: str) -> None:
    rows = raw.table.filter(rule.bad)
    chosen = {
        "value": rows[rule.column],
        "row": rows[ROW],
        "id": rows[id or rule.column],
    }
    first = rows.select(**chosen).order_by("row").limit(1).to_pyarrow().to_pylist()[0]
    owner = f" (id {str(first['id'])[:40]})" if id else ""
    tail = f" {rule.advice}" if rule.advice else ""
    total = scalar(raw.table.count())
    raise InputError(
        f"{raw.path}: column {rule.column!r}: {rule.text}, got {text(first['value'])} "
        f"at data row {first['row']}{owner}; {count} of {total} rows are "
        f"bad.{tail}"
    )
