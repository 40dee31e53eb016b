"""Checks of user input at the boundary; every refusal is an `InputError`.

The message says where, what is allowed, what came, how many, and what to do. The
command line prints it as one line and exits with code 2.
"""

import operator
from collections.abc import Iterable
from typing import Any

LARGEST_SEED = 2**32 - 1


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


def whole(name: str, value: Any) -> int:
    """The value as an int; raises unless it is a whole number of any integer type."""
    try:
        return operator.index(value)
    except TypeError:
        shown = " ".join(repr(value).split())
        raise InputError(f"{name} must be a whole number, got {shown:.60}.") from None


def check_seed(seed: int) -> None:
    """Raises unless `seed` is one that JAX and NumPy take unchanged."""
    whole("seed", seed)
    within("seed", seed, 0, LARGEST_SEED)


def check_type(what: str, value: Any, kind: type) -> None:
    """Raises unless `value` is a `kind`."""
    if not isinstance(value, kind):
        raise InputError(
            f"{what}: must be a {kind.__name__}, got {type(value).__name__}."
        )
