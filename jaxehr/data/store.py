"""A cohort as a folder: two Parquet tables, schema.json and provenance.json.

A sparse temporal table is `temporal.npz` instead of `temporal.parquet`: the arrays
offsets, cells, length and shape (patients, steps, columns) of `core.sparse`, patients
in the order of `static.parquet`.
"""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxehr.core.arrays import read_arrays
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset
from jaxehr.core.files import PathLike, new_folder, read_json, write_json
from jaxehr.core.sparse import SparseTable, is_sound
from jaxehr.data.assemble import assemble, static_rows, temporal_rows
from jaxehr.data.schema_json import schema_from_json, schema_to_json

MARKER = "schema.json"
STATIC, TEMPORAL, SPARSE = "static.parquet", "temporal.parquet", "temporal.npz"
PROVENANCE = "provenance.json"


def save_cohort(data: Dataset, path: PathLike, *, overwrite: bool = False) -> None:
    """Writes the folder whole or not at all; the same data give the same bytes.

    Args:
      overwrite: whether an older cohort folder at `path` may be replaced.

    Raises:
      InputError: `path` exists and may not be replaced, a full disk, values that
        do not fit the schema.
    """
    with new_folder(path, marker=MARKER, overwrite=overwrite) as folder:
        write_cohort(data, folder)


def write_cohort(data: Dataset, folder: pathlib.Path) -> None:
    """Writes the files of a cohort into an empty folder."""
    temporal = data.cohort.temporal
    sparse = isinstance(temporal, SparseTable)
    tables = {STATIC: static_rows(data)}
    if not sparse:
        tables[TEMPORAL] = temporal_rows(data)
    for name, table in tables.items():
        pq.write_table(table, folder / name, compression="zstd")
    if sparse:
        write_sparse(temporal, folder / SPARSE)
    write_json(folder / MARKER, schema_to_json(data.schema))
    write_json(folder / PROVENANCE, data.provenance)


def load_cohort(path: PathLike) -> Dataset:
    """Reads the folder that `save_cohort` wrote; values, order and dtypes are the same.

    Raises:
      InputError: no cohort folder, a missing, broken or foreign file, values that
        do not fit the schema (it may have been edited).
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    series = SPARSE if (folder / SPARSE).is_file() else TEMPORAL
    files = (STATIC, series, MARKER, PROVENANCE)
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"{folder}: not a cohort folder ({', '.join(absent)} missing); make one "
            "with `jaxehr prepare`."
        )
    if series == SPARSE and (folder / TEMPORAL).is_file():
        raise InputError(
            f"{folder}: holds both {SPARSE} and {TEMPORAL}; remove the one that is not "
            "of this cohort."
        )
    schema = schema_from_json(read_json(folder / MARKER), str(folder / MARKER))
    provenance = read_json(folder / PROVENANCE)
    if not isinstance(provenance, dict):
        raise InputError(f"{folder / PROVENANCE}: must be a JSON object.")
    static = read_parquet(folder / STATIC)
    read = read_sparse if series == SPARSE else read_parquet
    temporal = read(folder / series)
    where = (str(folder / STATIC), str(folder / series))
    return assemble(
        schema, static, temporal, provenance, where=where, allow_missing=True
    )


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


def read_parquet(path: pathlib.Path) -> pa.Table:
    """The whole table; a truncated or foreign file is refused in one line."""
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable Parquet file ({reason}).") from error
