"""Checks of user input at the boundary; every refusal is an `InputError`.

The message says where, what is allowed, what came, how many, and what to do. The
command line prints it as one line and exits with code 2.
"""

import math
from collections.abc import Iterable
from typing import Any

LARGEST_SEED = 2**32 - 1
KINDS = {  # of NumPy dtypes, in words
    "b": "Booleans",
    "iu": "integers",
    "fiu": "numbers",
    "iuU": "integers or text",
    "biuf": "whole numbers",
}


class InputError(ValueError):
    """The user's input is refused; the message is one line meant for the user."""


def known(what: str, name: Any, allowed: Iterable[Any]) -> None:
    """Raises unless `name` is one of `allowed`; the message lists them."""
    allowed = list(allowed)
    if name not in allowed:
        listing = ", ".join(str(item) for item in allowed)
        raise InputError(f"unknown {what} {name!r}; known: {listing}.")


def positive(**values: float) -> None:
    """Raises unless every value is above zero."""
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"{name} must be positive, got {value}.")


def within(name: str, value: float, low: float, high: float) -> None:
    """Raises unless low <= value <= high."""
    if not low <= value <= high:
        raise InputError(f"{name} must lie in [{low}, {high}], got {value}.")


def check_seed(seed: int) -> None:
    """Raises unless `seed` is one that JAX and NumPy take unchanged."""
    within("seed", seed, 0, LARGEST_SEED)


def check_type(what: str, value: Any, kind: type) -> None:
    """Raises unless `value` is a `kind`."""
    if not isinstance(value, kind):
        raise InputError(
            f"{what}: must be a {kind.__name__}, got {type(value).__name__}."
        )


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
