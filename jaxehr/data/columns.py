"""One column at a time: Arrow values to floats or codes and back, with exact dtypes.

Every refusal names the file, the column, the first bad row with its id and value, and
how many rows are bad. Rows are counted from 1, the header not counted.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature
from jaxehr.core.dtypes import DTYPES, TEXTS

pc: Any = pyarrow.compute  # made at import: its functions are unknown to type checkers

TYPES = {name: pa.type_for_alias(name) for name in DTYPES}
EXACT = 2**53  # whole numbers beyond this are not exact in float64
TOO_LARGE = (
    "integers must lie in [-2**53, 2**53]",
    "An identifier is no feature: drop the column.",
)
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
DOUBLE = NUMBER + r"|(?i)^[+-]?(nan|inf(inity)?)$"  # what a double can be
WHOLE = r"^([+-]?[0-9]{1,18})(\.0*)?$"
DIGITS = r"^[+-]?[0-9]{16,}(\.0*)?$"  # of whole numbers that may lie beyond `EXACT`


class Place(NamedTuple):
    """Where a column comes from, for messages: file or table name, and the row ids."""

    where: str
    ids: Any = None  # Arrow array of the ids of the rows, or None


def text(value: Any) -> str:
    """`value` for a message, cut to 40 characters."""
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def listing(values: Any, limit: int = 12) -> str:
    """The first values of a list for a message."""
    values = list(values)
    more = ", ..." if len(values) > limit else ""
    return ", ".join(text(value) for value in values[:limit]) + more


def refuse_rows(
    place: Place, name: str, bad: np.ndarray, values: Any, rule: str, advice: str = ""
) -> None:
    """Raises InputError with the first of the `bad` rows (Bool [rows]), if any."""
    count = int(np.count_nonzero(bad))
    if not count:
        return
    row = int(np.argmax(bad))
    value = values[row]
    value = value.as_py() if isinstance(value, pa.Scalar) else value.item()
    owner = "" if place.ids is None else f" (id {text(place.ids[row].as_py())})"
    tail = f" {advice}" if advice else ""
    raise InputError(
        f"{place.where}: column {name!r}: {rule}, got {text(value)} at data row "
        f"{row + 1}{owner}; {count} of {len(bad)} rows are bad.{tail}"
    )


def plain(column: Any) -> Any:
    """The column as one Arrow array; dictionary columns become their values."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks()
    return column


def is_text(column: Any) -> bool:
    return str(column.type) in (*TEXTS, "string_view")


def observed_mask(column: Any) -> np.ndarray:
    """Bool [rows]: True where the value is not null."""
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool)


def refuse_not_finite(place: Place, name: str, column: Any) -> None:
    """NaN and infinity are no values; a missing value is an empty cell."""
    if pa.types.is_floating(column.type):
        finite = pc.fill_null(pc.is_finite(column), True)
        refuse_rows(
            place,
            name,
            ~finite.to_numpy(zero_copy_only=False),
            column,
            "values must be finite",
            "Leave the cell empty (null) for a missing value.",
        )


def as_numbers(place: Place, name: str, column: Any) -> Any:
    """The column as Arrow doubles; text is accepted when every cell is a number."""
    if is_text(column):
        trimmed = pc.utf8_trim_whitespace(column)
        fits = pc.fill_null(pc.match_substring_regex(trimmed, NUMBER), True)
        refuse_rows(
            place,
            name,
            ~fits.to_numpy(zero_copy_only=False),
            column,
            "values must be numbers",
            "Leave the cell empty for a missing value.",
        )
        return trimmed.cast(pa.float64())
    if pa.types.is_integer(column.type):
        large = pc.or_(pc.greater(column, EXACT), pc.less(column, -EXACT))
        refuse_rows(
            place,
            name,
            pc.fill_null(large, False).to_numpy(zero_copy_only=False),
            column,
            *TOO_LARGE,
        )
    try:
        return column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(
            f"{place.where}: column {name!r}: values must be numbers, got the type "
            f"{column.type}."
        ) from None


def decode_numeric(
    place: Place, feature: Feature, column: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Values float64 [rows] (0 where missing) and observed Bool [rows].

    Raises:
      InputError: text, NaN or infinity, a value outside the bounds, or a fraction in an
        `integer` feature.
    """
    column = plain(column)
    refuse_not_finite(place, feature.name, column)
    numbers = as_numbers(place, feature.name, column)
    refuse_not_finite(place, feature.name, numbers)
    observed = observed_mask(numbers)
    values = (
        pc.fill_null(numbers, 0.0).to_numpy(zero_copy_only=False).astype(np.float64)
    )
    if feature.kind == "integer":
        fraction = observed & (values != np.rint(values))
        refuse_rows(place, feature.name, fraction, column, "values must be integers")
    lower, upper = bounds(feature)
    outside = observed & ((values < lower) | (values > upper))
    rule = f"values must lie in [{lower}, {upper}]"
    advice = "Correct the value, or widen the bounds in the schema."
    refuse_rows(place, feature.name, outside, column, rule, advice)
    return values, observed


def bounds(feature: Feature) -> tuple[float, float]:
    """Lower and upper bound as values of the dtype; infinite where there is none."""
    lower = -math.inf if feature.lower is None else float(feature.lower)
    upper = math.inf if feature.upper is None else float(feature.upper)
    if feature.dtype == "float":
        return float(np.float32(lower)), float(np.float32(upper))
    return lower, upper


def decode_codes(
    place: Place, name: str, dtype: str, categories: tuple[Any, ...], column: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Codes int32 [rows] (0 where missing) and observed Bool [rows].

    Raises:
      InputError: a value that is none of `categories`.
    """
    column = plain(column)
    refuse_not_finite(place, name, column)
    known = pa.array(list(categories), TYPES[dtype])
    try:
        codes = pc.index_in(column.cast(TYPES[dtype]), value_set=known)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        codes = pc.index_in(column.cast(pa.string()), value_set=known.cast(pa.string()))
    observed = observed_mask(column)
    unknown = observed & ~observed_mask(codes)
    rule = f"unknown category; known: {listing(categories)}"
    advice = "Correct the value, or add it to the categories in the schema."
    refuse_rows(place, name, unknown, column, rule, advice)
    codes = pc.fill_null(codes, 0).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32), observed


def encode_numeric(feature: Feature, values: np.ndarray, observed: np.ndarray) -> Any:
    """The Arrow column of a numeric feature in its own dtype; missing becomes null.

    Raises:
      InputError: a value not finite, outside the bounds, or no value of the dtype.
    """
    lower, upper = bounds(feature)
    if feature.dtype == "float":
        values = values.astype(np.float32).astype(np.float64)
    inside = np.isfinite(values) & (values >= lower) & (values <= upper)
    rule = f"values must be finite and lie in [{lower}, {upper}]"
    refuse_rows(Place("cohort"), feature.name, observed & ~inside, values, rule)
    column = pa.array(values, pa.float64(), mask=~observed)
    try:
        return column.cast(TYPES[feature.dtype])
    except pa.ArrowInvalid as error:
        raise InputError(
            f"feature {feature.name!r}: values do not fit dtype "
            f"{feature.dtype!r} ({error})."
        ) from error


def encode_codes(
    dtype: str, categories: tuple[Any, ...], codes: np.ndarray, observed: np.ndarray
) -> Any:
    """The Arrow column of a coded feature or label; missing becomes null."""
    known = pa.array(list(categories), TYPES[dtype])
    return known.take(pa.array(codes, pa.int32(), mask=~observed))
