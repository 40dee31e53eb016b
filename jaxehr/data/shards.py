"""A cohort in shards: folders with the usual tables, people assigned by hashed id.

  COHORT/schema.json, provenance.json, shards.json
  COHORT/shards/00000/static.parquet, temporal.parquet (or temporal.npz), ...

`shards.json` holds the number of shards and of the patients of each; a shard without
patients has no folder. A person is in shard floor(K h), h = `hashed_share`(person,
"shards"), so all stays of a person are in one. The column `jaxehr_row` of a shard's
static table is the place of the stay in the whole cohort: read back whole it has the
same order as without shards, and what depends on the order depends on no shard.
"""

import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxehr.core import sparse
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Dataset, Schema, empty_table, take
from jaxehr.core.files import read_json, write_json
from jaxehr.core.sparse import SparseTable
from jaxehr.data.assemble import read_ids, to_numpy
from jaxehr.data.cohort_files import (
    MARKER,
    PROVENANCE,
    SPARSE,
    STATIC,
    read_names,
    read_parquet,
    read_tables,
    refuse_absent,
    write_tables,
)
from jaxehr.data.columns import Place, plain
from jaxehr.data.schema_json import schema_to_json
from jaxehr.data.split import hashed_share

INDEX, FOLDER, ROW, FORMAT = "shards.json", "shards", "jaxehr_row", 1
WHOLE_BYTES, SHARD_BYTES = 2**30, 2**27  # arrays above 1 GiB are cut to 128 MiB


class Piece(NamedTuple):
    """One shard's patients on the way to disk: `rows` are their places in the whole."""

    data: Dataset
    rows: np.ndarray


class Parts(NamedTuple):
    """A cohort in `number` parts, made as they are taken; `whole` if in memory."""

    number: int
    pieces: Iterator[Piece]
    whole: Dataset | None = None


class Shards(NamedTuple):
    """An opened cohort in shards: who is where; no values.

    Attributes:
      parts: the folders of the shards that have patients.
      rows: of each shard the places of its patients in the whole cohort.
      ids, groups: [N] of the whole cohort in its order.
    """

    schema: Schema
    provenance: dict[str, Any]
    parts: tuple[pathlib.Path, ...]
    rows: tuple[np.ndarray, ...]
    ids: np.ndarray
    groups: np.ndarray


def shard_of(groups: np.ndarray, number: int) -> np.ndarray:
    """Int [N]: the shard of each person, 0 .. number - 1."""
    return np.floor(hashed_share(groups, "shards") * number).astype(np.int64)


def bytes_of(cohort: Cohort) -> int:
    """Size of the arrays of a cohort."""
    leaves = (*cohort.static, *cohort.temporal, *cohort[2:])
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, np.ndarray))


def dense_bytes(schema: Schema, patients: int) -> int:
    """Size of the arrays of a cohort with a dense temporal table."""
    bytes_a_row = lambda features: sum(9 if f.is_numeric else 5 for f in features)
    steps = schema.num_steps * bytes_a_row(schema.temporal)
    return patients * (steps + bytes_a_row(schema.static) + 10)


def number_for(size: int) -> int:
    """Shards for arrays of `size` bytes: 1 up to 1 GiB, else of about 128 MiB each."""
    return 1 if size <= WHOLE_BYTES else math.ceil(size / SHARD_BYTES)


def cut(data: Dataset, number: int) -> Iterator[Piece]:
    """The shards of a cohort in memory, each with its places."""
    shard = shard_of(data.groups, number)
    for i in range(number):
        rows = np.flatnonzero(shard == i)
        yield Piece(take(data, rows), rows)


def parts_of(data: Dataset, number: int = 1) -> Parts:
    """The parts of a cohort in memory; 0 = as many as `number_for` says."""
    number = number or number_for(bytes_of(data.cohort))
    one = iter([Piece(data, np.arange(len(data.ids)))])
    return Parts(number, cut(data, number) if number > 1 else one, data)


def write(folder: pathlib.Path, pieces: Iterable[Piece]) -> None:
    """Writes shard after shard into an empty folder, none kept in memory.

    Schema and provenance are those of the last piece, whose readers know all.
    """
    sizes, last = [], None
    for number, piece in enumerate(pieces):
        sizes.append(len(piece.rows))
        last = piece.data
        if len(piece.rows):
            part = folder / FOLDER / f"{number:05}"
            part.mkdir(parents=True)
            write_tables(piece.data, part, {ROW: piece.rows.astype(np.int64)})
    if last is None or not sum(sizes):
        raise InputError(f"{folder}: no patient to write.")
    write_json(folder / INDEX, {"format": FORMAT, "patients": sizes})
    write_json(folder / MARKER, schema_to_json(last.schema))
    write_json(folder / PROVENANCE, last.provenance)


def is_sharded(folder: pathlib.Path) -> bool:
    return (folder / INDEX).is_file()


def open_shards(folder: pathlib.Path) -> Shards:
    """Reads who is where.

    Raises:
      InputError: a missing, broken or foreign file; shards that do not fit together.
    """
    refuse_absent(folder, (INDEX, MARKER, PROVENANCE))
    index = read_json(folder / INDEX)
    sizes = index.get("patients") if isinstance(index, dict) else None
    sound = isinstance(sizes, list) and all(isinstance(n, int) for n in sizes)
    if not sound or sizes is None or index.get("format") != FORMAT:
        raise InputError(f"{folder / INDEX}: damaged or of another version of jaxehr.")
    schema, provenance = read_names(folder)
    parts = [folder / FOLDER / f"{i:05}" for i, n in enumerate(sizes) if n]
    tables = [read_people(part, schema) for part in parts]
    rows, ids, groups = ([table[i] for table in tables] for i in range(3))
    order = np.concatenate([*rows, np.zeros(0, np.int64)])
    wanted = [n for n in sizes if n]
    if [len(r) for r in rows] != wanted or not is_order(order):
        raise InputError(
            f"{folder}: its shards do not fit together ({len(order)} stays, "
            f"{sum(wanted)} of them in {INDEX}); prepare the cohort again."
        )
    back = np.argsort(order, kind="stable")
    ids, groups = np.concatenate(ids)[back], np.concatenate(groups)[back]
    return Shards(schema, provenance, tuple(parts), tuple(rows), ids, groups)


def is_order(rows: np.ndarray) -> bool:
    """Whether every number from 0 on occurs once."""
    return len(rows) > 0 and bool((np.sort(rows) == np.arange(len(rows))).all())


def read_people(part: pathlib.Path, schema: Schema) -> tuple[np.ndarray, ...]:
    """Places, ids and groups of the patients of one shard."""
    refuse_absent(part, (STATIC,))
    names = [ROW, schema.id, *([schema.group] if schema.group else [])]
    table = read_parquet(part / STATIC, names)
    absent = [name for name in names if name not in table.column_names]
    if absent:
        raise InputError(
            f"{part / STATIC}: column(s) {', '.join(absent)} missing; prepare the "
            "cohort again."
        )
    ids = to_numpy(read_ids(Place(str(part / STATIC)), schema, table[schema.id]))
    groups = to_numpy(plain(table[schema.group]), keep=True) if schema.group else ids
    return to_numpy(plain(table[ROW])), ids, groups


def pieces(
    shards: Shards,
    rows: np.ndarray | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[Piece]:
    """Patients shard after shard; only one shard is in memory at a time.

    Args:
      rows: Bool [N], which patients; None = all. Shards without any are not read.
      columns: names of the temporal features to read of dense tables; None = all.
        Static ones, label and length are always there.
    """
    schema = shards.schema
    if columns is not None:
        chosen = tuple(f for f in schema.temporal if f.name in columns)
        schema = schema.replace(temporal=chosen, rules=())
    names = [f.name for f in (*schema.static, *schema.temporal)]
    names += [schema.id, schema.time, *([schema.group] if schema.group else [])]
    names += [schema.label.name] if schema.label else []
    for part, places in zip(shards.parts, shards.rows, strict=True):
        kept = np.ones(len(places), bool) if rows is None else rows[places]
        if kept.any():
            data = read_tables(part, schema, shards.provenance, names)
            if len(data.ids) != len(places):
                raise InputError(
                    f"{part}: has stays that its {STATIC} lacks; prepare the cohort "
                    "again."
                )
            yield Piece(data if kept.all() else take(data, kept), places[kept])


def whole(shards: Shards) -> Dataset:
    """The cohort in memory, in its own order."""
    count, schema = len(shards.ids), shards.schema
    cohort, tables = None, []
    for data, rows in pieces(shards):
        part = data.cohort
        if isinstance(part.temporal, SparseTable):
            tables.append(part.temporal)
            part = part._replace(temporal=())
        if cohort is None:
            cohort = blank(schema, count, dense=not tables)
        for target, leaf in zip(leaves(cohort), leaves(part), strict=True):
            target[rows] = leaf
    assert cohort is not None  # `open_shards` refuses a cohort without patients
    if tables:
        back = np.argsort(np.concatenate(shards.rows), kind="stable")
        temporal = sparse.take_rows(sparse.join(tables), back)
        cohort = cohort._replace(temporal=temporal)
    return Dataset(schema, cohort, shards.ids, shards.groups, shards.provenance)


def blank(schema: Schema, count: int, dense: bool) -> Cohort:
    """Arrays of `count` patients to be filled in."""
    steps = schema.num_steps
    temporal = empty_table((count, steps), schema.temporal) if dense else ()
    empty = lambda dtype: np.zeros(count, dtype)
    static = empty_table((count,), schema.static)
    return Cohort(
        static, temporal, empty(bool), empty(bool), empty(np.int32), empty(np.int32)
    )


def leaves(cohort: Cohort) -> list[np.ndarray]:
    return [*cohort.static, *cohort.temporal, *cohort[2:]]


def memory_for(shards: Shards) -> int:
    """Bytes that training needs for this cohort in memory, roughly.

    The arrays are there three times: as read, as split, and encoded.
    """
    files = [part / SPARSE for part in shards.parts]
    thin = sum(file.stat().st_size for file in files if file.is_file())
    return 3 * (thin or dense_bytes(shards.schema, len(shards.ids)))
