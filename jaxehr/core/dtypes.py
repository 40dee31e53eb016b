"""Arrow's names of the dtypes of columns on disk: what is allowed, and what fits."""

import math
from typing import Any

import numpy as np

from jaxehr.core.checks import InputError

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float", "double")
TEXTS = ("string", "large_string")
DTYPES = (*INTEGERS, *FLOATS, *TEXTS, "bool")
# By kind: the dtype of a column that names none, and those allowed.
NUMBERS = {
    "numeric": ("double", FLOATS),
    "integer": ("int64", (*INTEGERS, *FLOATS)),
}
BY_DEFAULT = ("bool", "int64", "double", "string")  # of codes: the first that fits


def settled(kind: str, name: str, dtype: str, categories: tuple[Any, ...]) -> str:
    """The dtype of a column, or the default one where it is "".

    Raises:
      InputError: it does not suit the kind, or does not hold every category.
    """
    own, allowed = NUMBERS.get(kind) or (default_dtype(categories), DTYPES)
    dtype = dtype or own
    check_dtype(kind, name, dtype, allowed)
    check_categories(name, dtype, categories)
    return dtype


def default_dtype(categories: tuple[Any, ...]) -> str:
    """The dtype of a coded column whose schema names none."""
    fitting = (name for name in BY_DEFAULT if all(fits(v, name) for v in categories))
    return next(fitting, "string")


def check_dtype(kind: str, name: str, dtype: str, allowed: tuple[str, ...]) -> None:
    """Raises InputError unless `dtype` is one of the `allowed`."""
    if dtype not in allowed:
        raise InputError(
            f"schema: {kind} {name!r}: dtype must be one of {', '.join(allowed)}, "
            f"got {dtype!r}."
        )


def check_categories(name: str, dtype: str, categories: tuple[Any, ...]) -> None:
    """Raises InputError unless the categories are finite values of `dtype`."""
    if not all(fits(value, dtype) for value in categories):
        shown = ", ".join(f"{value!r:.40}" for value in categories[:12])
        raise InputError(
            f"schema: {name!r}: categories {shown} are not all values of dtype "
            f"{dtype!r}."
        )


def fits(value: Any, dtype: str) -> bool:
    """Whether a column of `dtype` holds the value as it is."""
    if dtype in TEXTS or isinstance(value, str):
        return dtype in TEXTS and isinstance(value, str)
    if dtype == "bool" or isinstance(value, (bool, np.bool_)):
        return dtype == "bool" and isinstance(value, (bool, np.bool_))
    number = isinstance(value, (int, float, np.integer, np.floating))
    if not number or not math.isfinite(value):
        return False
    if dtype in FLOATS:
        kind = np.float32 if dtype == "float" else np.float64
        return not isinstance(value, (int, np.integer)) or int(kind(value)) == value
    ends = np.iinfo(dtype)
    return bool(int(value) == value and ends.min <= value <= ends.max)
