"""Sparse tables on the device: the ones of a cohort, made dense one batch at a time.

Notation: N patients, T steps, D features, B patients of a batch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.sparse import SparseTable

MOST_ONES = 2**31 - 1  # ones of a packed cohort are numbered by int32


class Packed(NamedTuple):
    """The ones of a sparse part: those of patient i are cells[start:start + count]."""

    start: Any  # int32 [N]
    count: Any  # int32 [N]
    cells: Any  # int32 [ones], step * D + feature; no patients in front
    window: Any  # int32 [most ones of a patient]: 0, 1, ...; its shape is static


def pack(table: SparseTable) -> Packed:
    """A sparse table as arrays for the device; `cells` is not copied.

    Raises:
      InputError: more ones than int32 can number.
    """
    if len(table.cells) > MOST_ONES:
        raise InputError(
            f"sparse table: at most {MOST_ONES} ones can be trained on, got "
            f"{len(table.cells)}; take fewer patients."
        )
    counts = np.diff(table.offsets).astype(np.int32)
    cells = table.cells if len(table.cells) else np.zeros(1, np.int32)
    window = np.arange(max(counts.max(initial=0), 1), dtype=np.int32)
    return Packed(table.offsets[:-1].astype(np.int32), counts, cells, window)


def gather(packed: Packed, rows: np.ndarray) -> Packed:
    """The patients `rows` alone, on the host.

    Sizes are powers of two, so that blocks of any cohort share some programs.
    """
    start, count = np.asarray(packed.start)[rows], np.asarray(packed.count)[rows]
    begin = np.cumsum(count) - count
    at = np.repeat(start - begin, count) + np.arange(count.sum())
    power = lambda size: 1 << max(int(size) - 1, 0).bit_length()
    cells = np.zeros(power(len(at)), np.int32)
    cells[: len(at)] = np.asarray(packed.cells)[at]
    window = np.arange(power(len(packed.window)), dtype=np.int32)
    return Packed(begin.astype(np.int32), count, cells, window)


def unpack(packed: Packed, rows: jax.Array, steps: int, features: int) -> jax.Array:
    """Bool [B, T, D] of the patients `rows` [B]."""
    window, size = jnp.asarray(packed.window), steps * features
    at = jnp.asarray(packed.start)[rows][:, None] + window
    cells = jnp.asarray(packed.cells).at[at].get(mode="clip")
    inside = window < jnp.asarray(packed.count)[rows][:, None]
    flat = jnp.zeros((rows.shape[0], size), bool)
    owner = jnp.arange(rows.shape[0])[:, None]
    flat = flat.at[owner, jnp.where(inside, cells, size)].set(True, mode="drop")
    return flat.reshape(rows.shape[0], steps, features)


def repack(
    packed: Packed, length: np.ndarray, steps: int, features: int
) -> SparseTable:
    """The inverse of `pack`."""
    count = np.asarray(packed.count)
    offsets = np.concatenate([[0], np.cumsum(count, dtype=np.int64)])
    at = np.repeat(packed.start - offsets[:-1], count) + np.arange(offsets[-1])
    cells = np.asarray(packed.cells)[at]
    return SparseTable(offsets, cells, length, steps, features)
