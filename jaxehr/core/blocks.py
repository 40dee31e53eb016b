"""Blocks of patients of one size, so that a patient does not depend on the others."""

from collections.abc import Iterator

import jax
import numpy as np

CPU_ROWS = 128  # patients of a block whose states stay in the cache of a CPU
LONG, FEW_ROWS = 64, 32  # steps of a long record, and as many of these
ACCELERATOR_ROWS = 4096


def block_rows(steps: int = 1) -> int:
    """Patients in one block; fixed per platform, since it may change the rounding.

    Args:
      steps: over which a recurrent network keeps states.
    """
    if jax.default_backend() != "cpu":
        return ACCELERATOR_ROWS
    return CPU_ROWS if steps <= LONG else FEW_ROWS


def blocks_of(count: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Patients of each block, and which places of the block are no padding.

    Every block has `size` places; padding repeats the last patient.
    """
    for first in range(0, count, size):
        rows = np.minimum(np.arange(first, first + size), count - 1)
        yield rows, np.arange(min(size, count - first))
