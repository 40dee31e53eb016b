"""Nearest patients in jitted blocks, one on each device; no table of all pairs is held.

N, M patients, D columns, k neighbours.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.blocks import blocks_of
from jaxehr.training.sharding import compiled_rows, make_mesh, replicate

BLOCK = 512  # patients whose distances to all of the table are held at once
CELLS = 2**25  # distances that are held at once; a large table takes smaller blocks
MOST_BYTES = 2**30  # of all copies of the table


class Nearest(NamedTuple):
    """The k nearest rows of a table, ascending."""

    distance: np.ndarray  # float64 [N, k], Euclidean
    row: np.ndarray  # Int [N, k]; fewer columns where the table has fewer rows


def search(count: int, exclude_self: bool) -> Callable[..., jax.Array]:
    """(table [M, D], rows [B, D], their own numbers [B]) -> numbers of the nearest rows
    [B, k], by |a|^2 + |b|^2 - 2 a.b."""

    def run(table: jax.Array, rows: jax.Array, own: jax.Array) -> jax.Array:
        square = (rows**2).sum(1)[:, None] + (table**2).sum(1)[None, :]
        # Accelerators round factors to 8 to 11 bits: near rows would change places
        square = square - 2.0 * jnp.matmul(rows, table.T, precision="highest")
        if exclude_self:
            same = own[:, None] == jnp.arange(len(table))
            square = jnp.where(same, jnp.inf, square)
        if count == 1:
            return jnp.argmin(square, 1)[:, None]
        return jax.lax.top_k(-square, count)[1]

    return run


@functools.lru_cache(maxsize=16)
def program(count: int, exclude_self: bool, devices: int) -> Any:
    """`search`, compiled."""
    return compiled_rows(search(count, exclude_self), devices)


def nearest(
    rows: np.ndarray, table: np.ndarray, count: int = 1, *, exclude_self: bool = False
) -> Nearest:
    """The `count` nearest rows of `table` [M, D] to each of `rows` [N, D].

    Distances are formed again from the differences of the rows that were found, so
    that a copy has distance 0.

    Args:
      exclude_self: `rows` is `table`, or its first rows, and a row is not its own
        neighbour.
    """
    centre = table.mean(0)  # smaller numbers, smaller rounding errors
    a = np.asarray(rows - centre, np.float32)
    b = np.asarray(table - centre, np.float32)
    found = min(count, len(b) - int(exclude_self))
    devices = jax.device_count()
    if jax.process_count() == 1:  # each device has a copy of the table
        devices = min(devices, max(MOST_BYTES // max(b.nbytes, 1), 1))
    run, parts = program(found, exclude_self, devices), []
    everywhere = replicate(b, make_mesh(devices))
    block = min(max(CELLS // max(len(b), 1), 1), BLOCK)
    for rows_now, kept in blocks_of(len(a), block * devices):
        parts.append(np.asarray(run(everywhere, a[rows_now], rows_now))[kept])
    row = np.concatenate(parts)
    distance = np.stack(
        [np.sqrt(((a - b[row[:, i]]).astype(float) ** 2).sum(1)) for i in range(found)],
        -1,
    )
    order = np.argsort(distance, 1, kind="stable")
    return Nearest(
        np.take_along_axis(distance, order, 1), np.take_along_axis(row, order, 1)
    )


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    size = np.sqrt((rows.astype(float) ** 2).sum(1, keepdims=True))
    return (rows / np.where(size > 0, size, 1.0)).astype(np.float32)
