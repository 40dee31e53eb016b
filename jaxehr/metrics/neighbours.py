"""Nearest patients in jitted blocks; no table of all pairs is ever held.

N, M patients, D columns, k neighbours.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 512  # patients whose distances to all of the table are held at once
TABLE = 20_000  # at most so many patients are searched for neighbours


class Nearest(NamedTuple):
    """The k nearest rows of a table, ascending."""

    distance: np.ndarray  # float64 [N, k], Euclidean
    row: np.ndarray  # Int [N, k]; fewer columns where the table has fewer rows


@functools.partial(jax.jit, static_argnames=("count", "exclude_self"))
def block_nearest(rows, table, first, count: int, exclude_self: bool):
    """Numbers of the nearest rows [BLOCK, k], by |a|^2 + |b|^2 - 2 a.b."""
    square = (rows**2).sum(1)[:, None] + (table**2).sum(1)[None, :]
    square = square - 2.0 * rows @ table.T
    if exclude_self:
        own = first + jnp.arange(rows.shape[0])
        square = jnp.where(own[:, None] == jnp.arange(len(table)), jnp.inf, square)
    if count == 1:
        return jnp.argmin(square, 1)[:, None]
    return jax.lax.top_k(-square, count)[1]


def nearest(
    rows: np.ndarray, table: np.ndarray, count: int = 1, *, exclude_self: bool = False
) -> Nearest:
    """The `count` nearest rows of `table` [M, D] to each of `rows` [N, D].

    Distances are formed again from the differences of the rows that were found, so
    that a copy has distance 0.

    Args:
      exclude_self: `rows` is `table`, and a row is not its own neighbour.
    """
    centre = table.mean(0)  # smaller numbers, smaller rounding errors
    a = np.asarray(rows - centre, np.float32)
    b = np.asarray(table - centre, np.float32)
    found = min(count, len(b) - int(exclude_self))
    on_device, parts = jnp.asarray(b), []
    for first in range(0, len(a), BLOCK):
        block = a[first : first + BLOCK]
        padded = np.zeros((BLOCK, a.shape[1]), np.float32)
        padded[: len(block)] = block
        row = block_nearest(padded, on_device, first, found, exclude_self)
        parts.append(np.asarray(row)[: len(block)])
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
