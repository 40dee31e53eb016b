"""The single files of FIDDLE: sparse arrays (COO in .npz), names, CSV tables.

An .npz of the package `sparse` holds data [ones], coords [dims, ones], shape [dims] and
fill_value; NumPy reads it, and pickled objects are refused.
"""

import pathlib
import re
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from jaxehr.core.checks import InputError
from jaxehr.core.files import read_json
from jaxehr.core.sparse import SparseTable, from_cells
from jaxehr.data.columns import listing

TASK = re.compile(r"(?P<name>.+)_(?P<hours>\d+(\.\d+)?)h")  # of the release: ARF_4h
ARRAYS = ("data", "coords", "shape")
DAMAGE = (
    ValueError,
    TypeError,
    AttributeError,  # a single array instead of an archive
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


class Matrix(NamedTuple):
    """A binary array [N, D] or [N, T, D] with the names of its columns."""

    path: pathlib.Path
    coords: np.ndarray  # int64 [dims, ones]
    shape: tuple[int, ...]
    names: tuple[str, ...]
    aliases: dict[str, list[str]]  # columns that FIDDLE dropped as duplicates


def find_file(folder: pathlib.Path, stem: str, ending: str) -> pathlib.Path | None:
    """The file `stem + ending`, the stem in lower or upper case."""
    for name in (stem, stem.swapcase()):
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    return None


def read_matrix(folder: pathlib.Path, stem: str, dims: int) -> Matrix:
    """The array `stem`.npz (or in the other case) with names and aliases.

    Raises:
      InputError: a missing, damaged or foreign file, another number of dimensions, a
        fill value other than 0, values other than 0 and 1, coordinates outside the
        shape, as many names as there are no columns.
    """
    path = find_file(folder, stem, ".npz")
    if path is None:
        raise InputError(f"{folder / stem}.npz: no such file.")
    arrays = read_npz(path)
    shape, coords, data = arrays["shape"], arrays["coords"], arrays["data"]
    sound = (
        shape.shape == (dims,)
        and shape.dtype.kind in "iu"
        and coords.dtype.kind in "iu"
        and coords.shape == (dims, data.size)
        and data.ndim == 1
    )
    if not sound:
        raise InputError(
            f"{path}: shape {shape.tolist()}, coords {list(coords.shape)} and data "
            f"{list(data.shape)} are no sparse array of {dims} dimensions."
        )
    fill = arrays.get("fill_value", np.zeros(()))
    if fill.shape or fill != 0:
        raise InputError(f"{path}: fill_value must be 0, got {fill}.")
    bad = int(np.count_nonzero((data != 0) & (data != 1)))
    if bad:
        raise InputError(
            f"{path}: values must be 0 or 1, got {data[(data != 0) & (data != 1)][0]}; "
            f"{bad} of {data.size} are bad. Run FIDDLE with discretize: yes."
        )
    coords = coords.astype(np.int64)[:, data != 0]
    outside = ((coords < 0) | (coords >= shape[:, None])).any(0)
    if outside.any():
        raise InputError(
            f"{path}: coords must lie in shape {shape.tolist()}, got "
            f"{coords[:, outside][:, 0].tolist()}; {outside.sum()} are outside."
        )
    sizes = tuple(map(int, shape))
    names = read_names(folder, path.stem, sizes[-1])
    aliases = find_file(folder, stem, ".feature_aliases.json")
    return Matrix(path, coords, sizes, names, read_json(aliases) if aliases else {})


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable npz file ({reason}).") from error
    absent = [name for name in ARRAYS if name not in arrays]
    if absent:
        raise InputError(
            f"{path}: array(s) {listing(absent)} missing; a sparse array (COO) of the "
            f"package sparse has {listing(ARRAYS)}."
        )
    return arrays


def read_names(folder: pathlib.Path, stem: str, count: int) -> tuple[str, ...]:
    """The names of `count` columns, from .json or (old versions) .txt."""
    path = find_file(folder, stem, ".feature_names.json")
    if path:
        names = read_json(path)
    else:
        path = find_file(folder, stem, ".feature_names.txt")
        if path is None:
            raise InputError(f"{folder / stem}.feature_names.json: no such file.")
        names = path.read_text(encoding="utf-8").split("\n")
        names = names[:-1] if names[-1] == "" else names
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not texts or len(names) != count:
        found = f"{len(names)} values" if isinstance(names, list) else "something else"
        raise InputError(
            f"{path}: a list of {count} names is needed, one a column of {stem}.npz, "
            f"got {found}."
        )
    return tuple(names)


def static_codes(matrix: Matrix) -> np.ndarray:
    """Int32 [N, D], dense."""
    codes = np.zeros(matrix.shape, np.int32)
    codes[tuple(matrix.coords)] = 1
    return codes


def temporal_table(matrix: Matrix) -> SparseTable:
    """The table [N, T, D] of stays that all have T steps."""
    length = np.full(matrix.shape[0], matrix.shape[1], np.int32)
    return from_cells(tuple(matrix.coords), length, matrix.shape)


def read_csv(path: pathlib.Path) -> pa.Table:
    try:
        return pyarrow.csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable CSV file ({reason}).") from error


def one_column(table: pa.Table, names: tuple[str, ...]) -> str | None:
    """The column whose name is one of `names`, whatever its case."""
    found = [name for name in table.column_names if name.lower() in names]
    return found[0] if found else None


def values_of(path: pathlib.Path, table: pa.Table, name: str) -> np.ndarray:
    """A column without a null as int64 (whole numbers, Booleans) or text.

    Raises:
      InputError: an empty cell; the message names the first and how many.
    """
    column: Any = table[name].combine_chunks()
    empty = np.asarray(column.is_null(nan_is_null=True))
    if empty.any():
        raise InputError(
            f"{path}: column {name!r}: {empty.sum()} of {len(empty)} cells are empty, "
            f"the first at data row {int(np.argmax(empty)) + 1}."
        )
    values = np.asarray(column.to_numpy(zero_copy_only=False))
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        return values.astype(np.int64)
    return values.astype(np.int64 if values.dtype.kind in "biu" else str)
