"""A cohort as a folder: two Parquet tables, schema.json and provenance.json.

Tables as in `data.cohort_files`; a large cohort lies in shards, see `data.shards`.
"""

import pathlib
from collections.abc import Callable, Iterator

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset
from jaxehr.core.files import Kind, PathLike, new_folder, write_json
from jaxehr.data import shards
from jaxehr.data.cohort_files import (
    MARKER,
    PROVENANCE,
    SPARSE,
    STATIC,
    TEMPORAL,
    read_names,
    read_tables,
    refuse_absent,
    series_file,
    write_tables,
)
from jaxehr.data.dataset_checks import check_dataset
from jaxehr.data.schema_json import schema_to_json
from jaxehr.data.shards import FOLDER, INDEX, Parts, Piece

TABLES = (STATIC, TEMPORAL, SPARSE)
SHARDS = (INDEX, *(f"{FOLDER}/?????/{name}" for name in TABLES))
COHORT = Kind(
    "cohort",
    (MARKER, PROVENANCE, *TABLES, *SHARDS),
    MARKER,
    lambda said: {"version", "id", "time", "static", "temporal"} <= set(said),
)
SYNTHETIC = COHORT._replace(
    name="cohort of synthetic patients",
    marker=PROVENANCE,
    is_ours=lambda said: said.get("kind") == "synthetic",
)


def save_cohort(
    data: Dataset, path: PathLike, *, overwrite: bool = False, shards: int = 1
) -> None:
    """Writes the folder whole or not at all; the same data give the same bytes.

    Args:
      overwrite: whether a cohort folder at `path` may be replaced, a real one too;
        what holds other files beside never is.
      shards: in how many; 1 = a folder without, 0 = as `shards.number_for` says.

    Raises:
      InputError: `path` exists and may not be replaced, a full disk, values that
        do not fit the schema.
    """
    check_dataset(data)
    with new_folder(path, replaces=COHORT if overwrite else None) as folder:
        write_cohort(data, folder, shards)


def write_cohort(data: Dataset, folder: pathlib.Path, number: int = 1) -> None:
    """Writes the files of a cohort into an empty folder."""
    number = number or shards.number_for(shards.bytes_of(data.cohort))
    if number > 1:
        shards.write(folder, shards.cut(data, number))
        return
    write_tables(data, folder)
    write_json(folder / MARKER, schema_to_json(data.schema))
    write_json(folder / PROVENANCE, data.provenance)


def save_parts(
    parts: Parts, path: PathLike, seen: Callable[[Dataset], None] = lambda part: None
) -> None:
    """Writes a cohort folder part by part; `seen` is told every part.

    Raises:
      InputError: as `save_cohort`.
    """

    def told() -> Iterator[Piece]:
        for piece in parts.pieces:
            seen(piece.data)
            yield piece

    with new_folder(path) as folder:
        if parts.number == 1:
            write_cohort(next(told()).data, folder)
        else:
            shards.write(folder, told())


def load_cohort(path: PathLike) -> Dataset:
    """Reads the folder that `save_cohort` wrote; values, order and dtypes are the same.

    A cohort in shards is read whole.

    Raises:
      InputError: no cohort folder, a missing, broken or foreign file, values that
        do not fit the schema (it may have been edited).
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    if shards.is_sharded(folder):
        return shards.whole(shards.open_shards(folder))
    refuse_absent(folder, (STATIC, series_file(folder), MARKER, PROVENANCE))
    return read_tables(folder, *read_names(folder))
