"""The tables of a hospital database as distributed, and the ledger of its steps.

A table is found by its name in upper or lower case, as CSV, CSV.GZ or Parquet (one file
or a folder of parts), in the given folder or up to two folders below it. Cells are cast
on reading; a cell that cannot be cast is refused with its file, column and value.
"""

import contextlib
import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import ibis
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, take
from jaxehr.data.bigquery import TIME, check_dataset, open_table, state_of
from jaxehr.data.columns import listing
from jaxehr.data.engines import (
    FILE,
    Engine,
    EngineOptions,
    column_names,
    failures,
    fetch,
    has_rows,
    keep,
    numbered,
    open_engine,
    scan,
)
from jaxehr.data.raw_tables import ROW, parsed
from jaxehr.data.split import hashed_share

LOG = logging.getLogger("jaxehr.prepare")
BAD = "jaxehr_bad"
ENDINGS = (".csv", ".csv.gz", ".parquet")
WORDS = {
    "int64": "whole numbers",
    "float64": "numbers",
    "timestamp": "times like 2101-10-20 19:08:00",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartOptions(EngineOptions):
    """Which part of our own split to write."""

    part: Literal["all", "train", "test"] = "all"
    """Which part of the split to write; `train` of `jaxehr` holds people out itself."""
    test_fraction: float = 0.2
    """Share of people (or stays) in the part `test`."""
    split_by: Literal["person", "stay"] = "person"
    """Unit of the split; `stay` lets stays of one person fall in both parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.test_fraction < 1.0:
            raise InputError(
                f"test_fraction must lie between 0 and 1, got {self.test_fraction}."
            )


class Hospital(NamedTuple):
    """An opened folder; the other fields fill as it is read."""

    engine: Engine
    folder: pathlib.Path
    files: dict[str, pathlib.Path]
    steps: list[dict[str, Any]]
    queries: dict[str, str]
    kinds: dict[str, dict[str, str]]  # table -> column -> Ibis type


class Keys(NamedTuple):
    """Names of the columns with the person and the stay."""

    person: str
    stay: str


@contextlib.contextmanager
def open_hospital(paths: Any, options: EngineOptions) -> Iterator[Hospital]:
    """Opens one folder of tables, or one data set of BigQuery, with an engine.

    Raises:
      InputError: not one folder, no such folder, a file that cannot be read (truncated,
        another delimiter than in its header), too little memory.
    """
    remote = options.engine == "bigquery"
    if remote:
        check_dataset(paths)
    elif len(paths) != 1 or not pathlib.Path(paths[0]).is_dir():
        raise InputError(
            f"{', '.join(map(str, paths))}: one folder with the tables is needed "
            "(unpack an archive first)."
        )
    folder = pathlib.Path(paths[0])
    with open_engine(options) as engine:
        hospital = Hospital(engine, folder, {}, [], {}, {})
        try:
            yield hospital
        except failures() as error:
            reason = " ".join(str(error).split())[:300]
            advice = " Raise --memory-limit." if "Out of Memory" in reason else ""
            raise InputError(f"{folder}: cannot be read ({reason}).{advice}") from error


def find_table(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The file of table `name`, in `folder` or the nearest folder below it, or None."""
    wanted = [name.lower() + ending for ending in ENDINGS]
    for pattern in ("*", "*/*", "*/*/*"):
        found = [p for p in sorted(folder.glob(pattern)) if p.name.lower() in wanted]
        if len(found) > 1:
            names = listing([str(p.relative_to(folder)) for p in found], 4)
            raise InputError(
                f"{folder}: table {name} is there {len(found)} times ({names}); keep "
                "one."
            )
        if found:
            return found[0]
    return None


def table(hospital: Hospital, name: str, columns: dict[str, str]) -> Any:
    """The columns of table `name` (lower case -> Ibis type), cast, with `BAD` beside.

    `BAD` describes the first cell of a row that cannot be cast, else it is null.

    Raises:
      InputError: no such table or column; the message says where it was looked for.
    """
    if hospital.engine.name == "bigquery":
        return remote_table(hospital, name, columns)
    path = find_table(hospital.folder, name)
    if path is None:
        endings = ", ".join(name + ending for ending in ENDINGS)
        raise InputError(
            f"{hospital.folder}: table {name} is missing; looked for {endings}, in "
            "upper or lower case, here and up to two folders below."
        )
    try:
        names = [column.lower() for column in column_names(str(path))]
    except (OSError, UnicodeDecodeError, *failures()) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable table ({reason}).") from error
    refuse_absent(str(path), columns, names)
    hospital.files[name], hospital.kinds[name] = path, columns
    return typed(scan(hospital.engine, str(path)), columns)


def refuse_absent(where: str, columns: dict[str, str], names: list[str]) -> None:
    """Raises InputError unless all `columns` are among `names`."""
    absent = [column for column in columns if column not in names]
    if absent:
        raise InputError(
            f"{where}: column(s) {listing(absent)} missing; there are: "
            f"{listing(names, 60)}."
        )


def remote_table(hospital: Hospital, name: str, columns: dict[str, str]) -> Any:
    """`table` of a data set of BigQuery."""
    path, raw = open_table(hospital.engine.backend, str(hospital.folder), name)
    refuse_absent(path, columns, list(raw.columns))
    kinds = {c: TIME if kind == "timestamp" else kind for c, kind in columns.items()}
    hospital.files[name], hospital.kinds[name] = pathlib.Path(path), columns
    return typed(raw, kinds)


def typed(raw: Any, columns: dict[str, str]) -> Any:
    """Casts text columns; empty text and `NA` are null."""
    cast, first = casts(raw, columns)
    return raw.select(**cast, **{BAD: first})


def casts(raw: Any, columns: dict[str, str]) -> tuple[dict[str, Any], Any]:
    """The columns cast, and what is wrong with the first bad cell of a row, or null."""
    cast, bad = {}, []
    for column, kind in columns.items():
        value, name = raw[column], kind.partition("(")[0]
        if not value.type().is_string():
            cast[column] = value.cast(kind)
            continue
        value = value.strip().nullif("").nullif("NA")
        cast[column] = value if kind == "string" else parsed(value, kind)
        if kind != "string":
            wrong = value.notnull() & cast[column].isnull()
            told = ibis.literal(
                f"column {column!r}: values must be {WORDS[name]}, got "
            )
            bad.append(ibis.ifelse(wrong, told + value.substr(0, 40), None))
    return cast, ibis.coalesce(*bad) if bad else ibis.null("string")


def checked(hospital: Hospital, name: str, rows: Any) -> Any:
    """The rows of table `name` computed once, without `BAD`.

    Raises:
      InputError: a cell that cannot be cast.
    """
    hospital.queries[name] = sql(hospital, rows)
    rows = keep(hospital.engine, rows)
    found = first_row(hospital, rows, count=rows[BAD].count(), first=rows[BAD].min())
    if found["count"]:
        where, row = place_of(hospital, name, str(found["first"]))
        raise InputError(
            f"{where}: {found['first']!s}{row}; {found['count']} rows are bad. An "
            "empty cell is a missing value."
        )
    return rows.drop(BAD)


def place_of(hospital: Hospital, name: str, told: str) -> tuple[pathlib.Path, str]:
    """The file and the row of the first cell of table `name` of which `told` is said.

    The file is read once more, in order. Only DuckDB counts rows.
    """
    path, columns = hospital.files[name], hospital.kinds[name]
    if not has_rows(hospital.engine):
        return path, ""
    with numbered(str(path)) as raw:
        rows = raw.select(ROW, FILE, **{BAD: casts(raw, columns)[1]})
        rows = rows.filter(rows[BAD] == told).order_by([FILE, ROW]).limit(1)
        found = rows.to_pyarrow().to_pylist()
    if not found:
        return path, ""
    return pathlib.Path(found[0][FILE]), f" at data row {found[0][ROW]}"


def first_row(hospital: Hospital, table: Any, /, **measures: Any) -> dict[str, Any]:
    """Aggregates of a table as Python values."""
    return fetch(hospital.engine, table.aggregate(**measures)).to_pylist()[0]


def refuse_repeats(hospital: Hospital, name: str, rows: Any, key: str) -> None:
    """Raises InputError unless each value of `key` occurs once in table `name`."""
    counts = rows.group_by(key).aggregate(n=rows.count())
    often = counts.filter(counts.n > 1)
    found = first_row(
        hospital, often, ids=often.count(), most=often.n.max(), first=often[key].min()
    )
    if found["ids"]:
        raise InputError(
            f"{hospital.files[name]}: duplicate rows: each {key} may occur once, but "
            f"{found['ids']} occur up to {found['most']} times, e.g. {found['first']}."
        )


def refuse_where(hospital: Hospital, name: str, bad: Any, key: str, rule: str) -> None:
    """Raises InputError if the table `bad` has a row; `rule` says what it breaks."""
    found = first_row(hospital, bad, n=bad.count(), first=bad[key].min())
    if found["n"]:
        raise InputError(
            f"{hospital.files[name]}: {rule}; {found['n']} rows are bad, e.g. {key} "
            f"{found['first']}."
        )


def step(
    hospital: Hospital, text: str, rows: Any, keys: Keys, *, store: bool = True
) -> Any:
    """Counts and tells what a step kept; returns its table, computed once if `store`.

    Raises:
      InputError: nothing is left; the message names the step and what was there before.
    """
    hospital.queries[text] = sql(hospital, rows)
    rows = keep(hospital.engine, rows) if store else rows
    people, stays = rows[keys.person].nunique(), rows[keys.stay].nunique()
    found = first_row(hospital, rows, rows=rows.count(), patients=people, stays=stays)
    told = ", ".join(f"{value} {name}" for name, value in found.items())
    LOG.info("%s: %s", text, told)
    before = hospital.steps[-1] if hospital.steps else {"patients": 0}
    hospital.steps.append({"step": text, **found})
    if not found["rows"]:
        raise InputError(
            f"{hospital.folder}: no patient is left after the step {text!r}; before it "
            f"there were {before['patients']}."
        )
    return rows


def without(table: Any, *names: str) -> Any:
    """The table without some columns; `drop` writes another query every time."""
    return table.select(*(name for name in table.columns if name not in names))


def sql(hospital: Hospital, expression: Any) -> str:
    """The text of a query in the dialect of the engine."""
    return str(hospital.engine.backend.compile(expression))


def provenance(
    hospital: Hospital, source: str, options: Any, **more: Any
) -> dict[str, Any]:
    """Options, steps, queries, and the SHA-256 of every file (the state of a table)."""
    known: Any = digests
    if hospital.engine.name == "bigquery":
        known = lambda path: state_of(hospital.engine.backend, str(path))
    files = {name: known(path) for name, path in sorted(hospital.files.items())}
    return {
        "source": source,
        "options": dataclasses.asdict(options),
        "files": files,
        "steps": hospital.steps,
        "queries": hospital.queries,
        **more,
    }


def digests(path: pathlib.Path) -> dict[str, str]:
    """File name -> SHA-256 (of every part, for a folder of parts)."""
    parts = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    found = {}
    for part in parts:
        name = part.name if part == path else part.relative_to(path).as_posix()
        with part.open("rb") as stream:
            found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def select_part(data: Dataset, options: PartOptions) -> Dataset:
    """The stays of `options.part`, by the hash of the person or of the stay.

    Raises:
      InputError: no stay is in it.
    """
    if options.part == "all":
        return data
    return take(data, in_part(data.ids, data.groups, options))


def in_part(ids: np.ndarray, groups: np.ndarray, options: PartOptions) -> np.ndarray:
    """Bool [N]: the stays of `options.part`; see `select_part`.

    The hash has a salt of its own: those whom `train` and `discretize` hold out of a
    part (without a salt) are a share of it, and not the whole other part.
    """
    if options.part == "all":
        return np.ones(len(ids), bool)
    units = groups if options.split_by == "person" else ids
    test = hashed_share(units, "part") >= 1.0 - options.test_fraction
    rows = test if options.part == "test" else ~test
    if not rows.any():
        raise InputError(
            f"part {options.part!r} holds none of {len(rows)} stays; choose another "
            "test_fraction."
        )
    return rows
