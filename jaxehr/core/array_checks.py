"""Checks of arrays that a user made: kind, shape, and where the first bad cell is."""

import math
from typing import Any

import numpy as np

from jaxehr.core.checks import InputError

KINDS = {  # of NumPy dtypes, in words
    "b": "Booleans",
    "iu": "integers",
    "fiu": "numbers",
    "iuU": "integers or text",
    "biuf": "whole numbers",
}


def check_array(
    what: str, value: Any, shape: tuple[int | None, ...], kinds: str
) -> None:
    """Raises unless `value` is an array of this shape (None = any size) whose dtype is
    of one of these kinds: a key of `KINDS`."""
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    wanted = f"{what}: must be an array [{sizes}] of {KINDS[kinds]}"
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise InputError(f"{wanted}, got {type(value).__name__}.")
    fits = len(value.shape) == len(shape) and all(
        size is None or size == found for size, found in zip(shape, value.shape)
    )
    if not fits or value.dtype.kind not in kinds:
        raise InputError(f"{wanted}, got {value.dtype} {list(value.shape)}.")


def refuse_cells(
    where: str, rule: str, bad: Any, values: Any, advice: str = ""
) -> None:
    """Raises with the first of the bad cells, arrays [N] or [N, T], if any."""
    if not bad.any():
        return
    cell = int(bad.argmax())
    row, step = divmod(cell, math.prod(bad.shape[1:]))
    place = f"row {row}, step {step}" if bad.ndim > 1 else f"row {row}"
    tail = f" {advice}" if advice else ""
    raise InputError(
        f"{where}: {rule}, got {values.reshape(-1)[cell].item()!r:.40} in {place} "
        f"(counted from 0); {bad.sum()} of {bad.size} are bad.{tail}"
    )


def whole_numbers(name: str, values: Any, count: int, most: int) -> np.ndarray:
    """The numbers as int32 [count]; refused where that would change one."""
    values = np.asarray(values)
    check_array(name, values, (count,), "biuf")
    fits = (values >= 0) & (values <= most) & (values == np.rint(values))
    refuse_cells(name, f"must be whole and lie in [0, {most}]", ~fits, values)
    return values.astype(np.int32)


def check_leaves(where: str, table: Any, shape: tuple[int | None, ...]) -> None:
    """Raises unless the arrays of a table are of one shape, and its codes whole."""
    for name, kinds in (("observed", "b"), ("numeric", "fiu"), ("codes", "biuf")):
        check_array(f"{where}: {name}", getattr(table, name), (*shape, None), kinds)
    numbers, codes = table.numeric.shape[-1], np.asarray(table.codes)
    found, wanted = numbers + codes.shape[-1], table.observed.shape[-1]
    if found != wanted:
        raise InputError(
            f"{where}: numeric and codes have {found} columns, but observed {wanted}."
        )
    if codes.dtype.kind == "f":
        for at, column in enumerate(np.moveaxis(codes, -1, 0)):
            broken = table.observed[..., numbers + at] & (column != np.rint(column))
            refuse_cells(f"{where}: codes", "must be whole", broken, column)
