"""The single files of FIDDLE: sparse arrays (COO in .npz), names, CSV tables.

An .npz of the package `sparse` holds data [ones], coords [dims, ones], shape [dims] and
fill_value. The two long arrays are read in blocks, for the coordinates of eICU alone
would fill 5 GB; pickled objects are refused.
"""

import contextlib
import math
import pathlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from jaxehr.core.checks import InputError
from jaxehr.core.files import read_json
from jaxehr.core.sparse import MOST_CELLS, SparseTable
from jaxehr.data.columns import listing

TASK = re.compile(r"(?P<name>.+)_(?P<hours>\d+(\.\d+)?)h")  # of the release: ARF_4h
ARRAYS = ("data", "coords", "shape")
BLOCK = 2**22  # numbers in memory at a time
DAMAGE = (
    ValueError,
    KeyError,  # an unknown version of the format
    OSError,
    EOFError,
    RuntimeError,  # a password; a compression that zipfile lacks (NotImplementedError)
    zipfile.BadZipFile,
    zlib.error,
)


class Matrix(NamedTuple):
    """A binary array [N, D] or [N, T, D] with the names of its columns."""

    path: pathlib.Path
    ones: np.ndarray  # int64, flat positions of the ones, ascending
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
    try:
        with zipfile.ZipFile(path) as archive:
            ones, sizes = read_ones(path, archive, dims)
    except InputError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable npz file ({reason}).") from error
    names = read_names(folder, path.stem, sizes[-1])
    aliases = find_file(folder, stem, ".feature_aliases.json")
    return Matrix(path, ones, sizes, names, read_json(aliases) if aliases else {})


def read_ones(
    path: pathlib.Path, archive: zipfile.ZipFile, dims: int
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Flat positions of the ones, ascending, and the shape."""
    inside = [name.removesuffix(".npy") for name in archive.namelist()]
    absent = [name for name in ARRAYS if name not in inside]
    if absent:
        raise InputError(
            f"{path}: array(s) {listing(absent)} missing; a sparse array (COO) of the "
            f"package sparse has {listing(ARRAYS)}."
        )
    shape = whole(archive, "shape")
    fill = whole(archive, "fill_value") if "fill_value" in inside else np.zeros(())
    with opened(archive, "coords") as (coords, blocks):
        with opened(archive, "data") as (data, values):
            fits = shape.shape == (dims,) and coords == (dims, *data) and len(data) == 1
            if not fits or shape.dtype.kind not in "iu":
                raise InputError(
                    f"{path}: shape {shape.tolist()}, coords {list(coords)} and data "
                    f"{list(data)} are no sparse array of {dims} dimensions."
                )
            if fill.shape or fill != 0:
                raise InputError(f"{path}: fill_value must be 0, got {fill}.")
            keep = read_values(path, values, data[0])
        ones = read_places(path, blocks, shape, coords[1])
    if keep is not None:
        ones = ones[keep]
    if not all((a[1:] > a[:-1]).all() for a in pieces(ones)):
        ones.sort()
        ones = ones[np.diff(ones, prepend=-1) > 0]
    return ones, tuple(map(int, shape))


def pieces(array: np.ndarray) -> list[np.ndarray]:
    """Blocks that share one element with the next, for comparisons of neighbours."""
    return [array[at : at + BLOCK + 1] for at in range(0, len(array), BLOCK)]


def read_values(
    path: pathlib.Path, values: Iterator[np.ndarray], count: int
) -> np.ndarray | None:
    """Bool [count]: which entries are 1; None when all of them are."""
    keep, at = None, 0
    for block in values:
        wrong = (block != 0) & (block != 1)
        if wrong.any():
            raise InputError(
                f"{path}: values must be 0 or 1, got {block[wrong][0]} ({wrong.sum()} "
                f"of {block.size} are bad). Run FIDDLE with discretize: yes."
            )
        if (block == 0).any():
            keep = np.ones(count, bool) if keep is None else keep
            keep[at : at + len(block)] = block != 0
        at += len(block)
    return keep


def read_places(
    path: pathlib.Path, blocks: Iterator[np.ndarray], shape: np.ndarray, count: int
) -> np.ndarray:
    """Flat positions, int64 [count]: the rows of coords come one after the other."""
    ones, axis, at = np.zeros(count, np.int64), 0, 0
    strides = np.append(np.cumprod(shape[:0:-1].astype(np.int64))[::-1], 1)
    for block in blocks:
        rest = block.astype(np.int64)
        while len(rest):
            now, rest = rest[: count - at], rest[count - at :]
            outside = (now < 0) | (now >= shape[axis])
            if outside.any():
                raise InputError(
                    f"{path}: coords of dimension {axis} must lie in [0, "
                    f"{shape[axis]}), got {now[outside][0]}."
                )
            ones[at : at + len(now)] += now * strides[axis]
            at += len(now)
            if at == count:
                axis, at = axis + 1, 0
    return ones


def whole(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


@contextlib.contextmanager
def opened(
    archive: zipfile.ZipFile, name: str
) -> Iterator[tuple[tuple[int, ...], Iterator[np.ndarray]]]:
    """The shape of an array of numbers, and its elements in C order, in blocks."""
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, fortran, dtype = read[version](stream)
        if dtype.kind not in "biuf":
            raise ValueError(f"{name} has the type {dtype}; numbers are needed")
        if fortran and len(shape) > 1:
            array = whole(archive, name).reshape(-1)
            yield shape, iter([array] if array.size else [])
            return
        yield shape, elements(stream, math.prod(shape), dtype)


def elements(stream: IO[bytes], count: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    while count:
        size = min(count, BLOCK)
        content = stream.read(size * dtype.itemsize)
        yield np.frombuffer(content, dtype, size)
        count -= size


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
    codes.reshape(-1)[matrix.ones] = 1
    return codes


def temporal_table(matrix: Matrix) -> SparseTable:
    """The table [N, T, D] of stays that all have T steps."""
    patients, steps, features = matrix.shape
    if steps * features >= MOST_CELLS:
        raise InputError(
            f"{matrix.path}: {steps} steps x {features} columns are too many; at most "
            f"{MOST_CELLS - 1} cells of one stay are supported."
        )
    starts = np.arange(patients + 1) * (steps * features)
    offsets = np.searchsorted(matrix.ones, starts).astype(np.int64)
    cells = np.empty(len(matrix.ones), np.int32)
    np.remainder(matrix.ones, max(steps * features, 1), out=cells, casting="unsafe")
    length = np.full(patients, steps, np.int32)
    return SparseTable(offsets, cells, length, steps, features)


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
