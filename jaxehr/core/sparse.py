"""Temporal tables of thousands of binary columns: only the cells that are 1 are kept.

A `SparseTable` stands where a `Table` stands in `Cohort.temporal`, on the host (NumPy).
Notation: N patients, T steps, D features.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxehr.core.checks import InputError

MOST_BYTES = 4 * 2**30  # the largest dense table that is made of a sparse one
ROWS = 1024  # patients copied at a time
MOST_CELLS = 2**31  # cells of one patient are numbered by int32


class SparseTable(NamedTuple):
    """Binary columns (Features of kind "binary" with two categories, codes 0 and 1).

    Every cell of a valid step is observed; steps from `length` on are padding.

    Attributes:
      offsets: Int64 [N + 1]; the cells of patient i are cells[offsets[i]:offsets[i+1]].
      cells: Int32 [ones], step * D + feature of every 1, ascending inside a patient.
      length: Int32 [N], valid steps; equal to `Cohort.length`.
      steps: T. features: D.
    """

    offsets: np.ndarray
    cells: np.ndarray
    length: np.ndarray
    steps: int
    features: int

    @property
    def counts(self) -> np.ndarray:
        """Int64 [N]: how many ones a patient has."""
        return np.diff(self.offsets)

    @property
    def numeric(self) -> np.ndarray:
        """Float64 [N, T, 0]: there is no numeric column."""
        return np.zeros((len(self.length), self.steps, 0), np.float64)

    @property
    def codes(self) -> np.ndarray:
        """Int32 [N, T, D], dense; refused above 4 GiB."""
        return dense(self, np.int32)

    @property
    def observed(self) -> np.ndarray:
        """Bool [N, T, D], dense; refused above 4 GiB."""
        refuse_large(self, 1)
        valid = np.arange(self.steps) < np.asarray(self.length)[:, None]
        return np.repeat(valid[..., None], self.features, -1)


def refuse_large(table: SparseTable, item_bytes: int) -> None:
    """Raises InputError when the dense table has more than 4 GiB."""
    size = len(table.length) * table.steps * table.features * item_bytes
    if size > MOST_BYTES:
        raise InputError(
            f"sparse table of {len(table.length)} patients x {table.steps} steps x "
            f"{table.features} columns: this needs the dense table of "
            f"{size / 2**30:.1f} GiB, at most {MOST_BYTES / 2**30:.0f} GiB is allowed; "
            "take fewer patients at a time."
        )


def dense(table: SparseTable, dtype: type = np.int8) -> np.ndarray:
    """0 and 1 of every cell, [N, T, D] of `dtype`.

    Raises:
      InputError: the result has more than 4 GiB.
    """
    refuse_large(table, np.dtype(dtype).itemsize)
    patients = len(table.length)
    flat = np.zeros((patients, table.steps * table.features), dtype)
    flat[np.repeat(np.arange(patients), table.counts), table.cells] = 1
    return flat.reshape(patients, table.steps, table.features)


def from_dense(codes: np.ndarray, length: np.ndarray) -> SparseTable:
    """The sparse table of codes [N, T, D] (0/1 or Bool); padding is left out.

    Raises:
      InputError: codes other than 0 and 1, a length outside [0, T].
    """
    codes = np.asarray(codes)
    valid = np.arange(codes.shape[1]) < np.asarray(length)[:, None]
    inside = codes[valid]
    bad = int(np.count_nonzero((inside != 0) & (inside != 1)))
    if bad:
        raise InputError(
            f"sparse table: codes must be 0 or 1; {bad} of {inside.size} are not."
        )
    return from_cells(np.nonzero(codes * valid[..., None]), length, codes.shape)


def from_cells(
    where: Sequence[np.ndarray],
    length: np.ndarray,
    shape: tuple[int, ...],
) -> SparseTable:
    """The sparse table of shape (N, T, D) with ones at `where`, in any order.

    Args:
      where: patient, step and feature of every 1, Int [ones] each; twice is once.

    Raises:
      InputError: an index or a length outside the shape; T * D above 2^31.
    """
    patients, steps, features = (int(size) for size in shape)
    if steps * features >= MOST_CELLS:
        raise InputError(
            f"sparse table: {steps} steps x {features} columns are more than "
            f"{MOST_CELLS} cells of one patient; use larger steps."
        )
    patient, step, feature = (np.asarray(index, np.int64) for index in where)
    for name, index, size in zip(("patient", "step", "column"), where, shape):
        bad = (np.asarray(index) < 0) | (np.asarray(index) >= size)
        if bad.any():
            raise InputError(
                f"sparse table: {name} numbers must lie in [0, {size}), got "
                f"{np.asarray(index)[bad][0]}; {bad.sum()} of {len(bad)} are bad."
            )
    within = step * features + feature
    place = patient * (steps * features) + within
    if len(place) > 1 and not (place[1:] > place[:-1]).all():
        place.sort()  # np.unique hashes: several times slower
        place = place[np.diff(place, prepend=-1) > 0]
        patient, within = np.divmod(place, steps * features)
    counts = np.bincount(patient, minlength=patients)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    table = SparseTable(offsets, within.astype(np.int32), length, steps, features)
    return cut(table, length)


def cut(table: SparseTable, length: np.ndarray) -> SparseTable:
    """The table with these lengths; ones in steps beyond them are dropped."""
    length = np.asarray(length, np.int32)
    outside = (length < 0) | (length > table.steps)
    if length.shape != (len(table.offsets) - 1,) or outside.any():
        raise InputError(
            f"sparse table: {len(table.offsets) - 1} lengths in [0, {table.steps}] "
            f"are needed, got {length.size}, {int(outside.sum())} of them outside."
        )
    ends = length * np.int64(table.features)
    if (last_cells(table) < ends).all():
        return table._replace(length=length)
    owner = np.repeat(np.arange(len(length)), table.counts)
    keep = table.cells < ends[owner]
    counts = np.bincount(owner[keep], minlength=len(length))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return table._replace(offsets=offsets, cells=table.cells[keep], length=length)


def last_cells(table: SparseTable) -> np.ndarray:
    """The largest cell of each patient; -1 without any."""
    if not len(table.cells):
        return np.full(len(table.length), -1)
    return np.where(table.counts > 0, table.cells[table.offsets[1:] - 1], -1)


def take_rows(table: SparseTable, rows: np.ndarray) -> SparseTable:
    """The patients `rows` (indices or a Boolean mask), in that order."""
    length = np.asarray(table.length)[rows]
    counts, start = table.counts[rows], table.offsets[:-1][rows]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    cells = np.empty(offsets[-1], np.int32)
    for first in range(0, len(counts), ROWS):  # so that indices stay few
        block = slice(first, first + ROWS)
        low, many = offsets[first], counts[block]
        at = np.repeat(start[block] - offsets[:-1][block] + low, many)
        at += np.arange(len(at))
        cells[low : low + len(at)] = table.cells[at]
    return table._replace(offsets=offsets, cells=cells, length=length)


def join(tables: list[SparseTable]) -> SparseTable:
    """Patient after patient; the tables have one grid and one set of columns."""
    first = tables[0]
    ends = np.cumsum([0] + [table.offsets[-1] for table in tables])
    parts = [table.offsets[:-1] + end for table, end in zip(tables, ends)]
    return first._replace(
        offsets=np.concatenate([*parts, ends[-1:]]).astype(np.int64),
        cells=np.concatenate([table.cells for table in tables]),
        length=np.concatenate([table.length for table in tables]),
    )


def density(table: SparseTable) -> float:
    """Share of ones among the cells of valid steps; NaN without any step."""
    cells = int(np.asarray(table.length, np.int64).sum()) * table.features
    return len(table.cells) / cells if cells else math.nan


def column_counts(table: SparseTable) -> np.ndarray:
    """Int64 [D]: how many ones a column has, over patients and steps."""
    return np.bincount(table.cells % max(table.features, 1), minlength=table.features)


def is_sound(table: SparseTable) -> bool:
    """Whether arrays that were read fit together: order, ranges, sizes."""
    offsets, cells, length = table.offsets, table.cells, table.length
    if not (offsets.ndim == cells.ndim == length.ndim == 1):
        return False
    if len(offsets) != len(length) + 1 or offsets[0] != 0 or offsets[-1] != len(cells):
        return False
    counts = np.diff(offsets)
    if (counts < 0).any() or (length < 0).any() or (length > table.steps).any():
        return False
    rising = cells[1:] > cells[:-1]
    starts = offsets[(offsets > 0) & (offsets < len(cells))]
    rising[starts - 1] = True  # the first cell of the next patient may be lower
    inside = not len(cells) or int(cells.min()) >= 0
    ends = length * np.int64(table.features)
    return bool(inside and rising.all() and (last_cells(table) < ends).all())
