"""The two tables of a cohort, or of one of its shards, as files in a folder.

A sparse temporal table is `temporal.npz` instead of `temporal.parquet`: the arrays
offsets, cells, length and shape (patients, steps, columns) of `core.sparse`, patients
in the order of `static.parquet`.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxehr.core.arrays import read_arrays
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, Schema, take
from jaxehr.core.files import read_json
from jaxehr.core.sparse import SparseTable, is_sound
from jaxehr.data.assemble import assemble, static_rows, temporal_rows
from jaxehr.data.schema_json import schema_from_json

MARKER, PROVENANCE = "schema.json", "provenance.json"
BLOCK_BYTES = 2**27  # of values that are made rows at a time
STATIC, TEMPORAL, SPARSE = "static.parquet", "temporal.parquet", "temporal.npz"


def write_tables(
    data: Dataset, folder: pathlib.Path, more: dict[str, Any] | None = None
) -> None:
    """Writes the two tables; `more` are further columns of the static one."""
    static = static_rows(data)
    for name, values in (more or {}).items():
        static = static.append_column(name, pa.array(values))
    pq.write_table(static, folder / STATIC, compression="zstd")
    if isinstance(data.cohort.temporal, SparseTable):
        write_sparse(data.cohort.temporal, folder / SPARSE)
    else:
        write_dense(data, folder / TEMPORAL)


def write_dense(data: Dataset, path: pathlib.Path) -> None:
    """Writes the rows of a dense temporal table, some patients at a time."""
    size = sum(leaf.nbytes for leaf in data.cohort.temporal)
    count = len(data.ids)
    some = max(count * BLOCK_BYTES // max(size, 1), 1)
    first = temporal_rows(take(data, np.arange(min(some, count))))
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for start in range(some, count, some):
            rows = np.arange(start, min(start + some, count))
            writer.write_table(temporal_rows(take(data, rows)))


def read_tables(
    folder: pathlib.Path,
    schema: Schema,
    provenance: dict[str, Any],
    columns: Sequence[str] | None = None,
) -> Dataset:
    """The dataset of the two tables in a folder.

    Args:
      columns: of the two tables; those that `schema` does not name are never used.

    Raises:
      InputError: a broken or foreign file, values that do not fit the schema.
    """
    series = series_file(folder)
    refuse_absent(folder, (STATIC, series))
    static = read_parquet(folder / STATIC, columns)
    if series == SPARSE:
        temporal: Any = read_sparse(folder / series)
    else:
        temporal = read_parquet(folder / series, columns)
    where = (str(folder / STATIC), str(folder / series))
    return assemble(
        schema, static, temporal, provenance, where=where, allow_missing=True
    )


def series_file(folder: pathlib.Path) -> str:
    """The name of the file with the temporal table; two of them are refused."""
    series = SPARSE if (folder / SPARSE).is_file() else TEMPORAL
    if series == SPARSE and (folder / TEMPORAL).is_file():
        raise InputError(
            f"{folder}: holds both {SPARSE} and {TEMPORAL}; remove the one that is not "
            "of this cohort."
        )
    return series


def refuse_absent(folder: pathlib.Path, files: Sequence[str]) -> None:
    """Raises InputError unless all `files` are in the folder."""
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"{folder}: not a cohort folder ({', '.join(absent)} missing); make one "
            "with `jaxehr prepare`."
        )


def read_names(folder: pathlib.Path) -> tuple[Schema, dict[str, Any]]:
    """Schema and provenance of a cohort folder."""
    schema = schema_from_json(read_json(folder / MARKER), str(folder / MARKER))
    provenance = read_json(folder / PROVENANCE)
    if not isinstance(provenance, dict):
        raise InputError(f"{folder / PROVENANCE}: must be a JSON object.")
    return schema, provenance


def write_sparse(table: SparseTable, path: pathlib.Path) -> None:
    shape = np.array([len(table.length), table.steps, table.features], np.int64)
    np.savez(
        path,
        allow_pickle=False,
        offsets=table.offsets,
        cells=table.cells,
        length=table.length,
        shape=shape,
    )


def read_sparse(path: pathlib.Path) -> SparseTable:
    """The table that `write_sparse` wrote; anything else is refused in one line."""
    found = read_arrays(path)
    names = {"offsets": np.int64, "cells": np.int32, "length": np.int32}
    names["shape"] = np.int64
    fits = set(found) == set(names) and all(
        isinstance(found[name], np.ndarray) and found[name].dtype == kind
        for name, kind in names.items()
    )
    if fits and found["shape"].shape == (3,) and (found["shape"] >= 0).all():
        _, steps, features = map(int, found.pop("shape"))
        table = SparseTable(**found, steps=steps, features=features)
        if is_sound(table):
            return table
    raise InputError(
        f"{path}: damaged or not ours (its arrays do not fit together); prepare the "
        "cohort again."
    )


def read_parquet(path: pathlib.Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, or its `columns`; a damaged or foreign file is refused in one line."""
    try:
        file = pq.ParquetFile(path)
        if columns is not None:
            columns = [name for name in columns if name in file.schema_arrow.names]
        return file.read(columns)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable Parquet file ({reason}).") from error
