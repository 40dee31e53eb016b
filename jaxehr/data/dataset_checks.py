"""Arrays that were put together by hand, checked once where they enter.

Readers check the columns of files; this is the same for arrays: types, shapes, values
and people, in passes over whole arrays. N patients, T steps, D features.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxehr.core.array_checks import check_array, refuse_cells
from jaxehr.core.checks import InputError, check_type
from jaxehr.core.cohort import (
    Cohort,
    Dataset,
    Feature,
    Schema,
    Table,
    coded_features,
    num_patients,
    numeric_features,
    valid_steps,
)
from jaxehr.core.sparse import SparseTable, is_sound
from jaxehr.data.assemble import fitting
from jaxehr.data.columns import bounds

MARK = "Mark a missing value in `observed`."
BUILD = "Build cohorts with `jaxehr.core.cohort.make_cohort`."
LEAVE_OUT = "Leave out stays whose label is not known, or give them a class."


def check_dataset(data: Any, where: str = "the cohort") -> None:
    """Raises unless everything in a dataset fits its schema.

    Args:
      where: which data these are, for messages.

    Raises:
      InputError: what `check_cohort` refuses; ids or groups that are no array [N] of
        integers or text; an id that occurs twice.
    """
    check_type(where, data, Dataset)
    check_cohort(data.schema, data.cohort, where)
    check_type(f"{where}: provenance", data.provenance, dict)
    count = num_patients(data.cohort)
    for name in ("ids", "groups"):
        check_array(f"{where}: {name}", getattr(data, name), (count,), "iuU")
    _, first = np.unique(data.ids, return_index=True)
    again = np.ones(count, bool)
    again[first] = False
    advice = "What stays of one person share stands in `groups`."
    refuse_cells(f"{where}: ids", "every stay has its own", again, data.ids, advice)


def check_cohort(schema: Any, cohort: Any, where: str = "the cohort") -> None:
    """Raises unless the arrays of a cohort fit the schema and each other.

    Raises:
      InputError: no array, another shape or kind; an observed value that is not finite,
        out of its bounds, a fraction in an integer column or no code; a label or length
        out of range; presence that contradicts what is observed.
    """
    check_type(f"{where}: schema", schema, Schema)
    check_type(f"{where}: cohort", cohort, Cohort)
    check_array(f"{where}: label", cohort.label, (None,), "iu")
    shape = num_patients(cohort), schema.num_steps
    for name, kinds in (("length", "iu"), ("has_static", "b"), ("has_temporal", "b")):
        check_array(f"{where}: {name}", getattr(cohort, name), shape[:1], kinds)
    label, length = np.asarray(cohort.label), np.asarray(cohort.length)
    classes = max(schema.num_classes, 1)
    rule = f"codes of classes must lie in [0, {classes})"
    refuse_cells(f"{where}: label", rule, outside(label, classes), label, LEAVE_OUT)
    rule = f"lengths must lie in [0, {shape[1]}]"
    refuse_cells(f"{where}: length", rule, outside(length, shape[1] + 1), length)
    check_table(f"{where}: static", schema.static, cohort.static, shape[:1])
    there = np.asarray(cohort.static.observed).any(-1)
    place = f"{where}: temporal"
    if isinstance(cohort.temporal, SparseTable):
        check_sparse(place, schema, cohort.temporal, length)
    else:
        check_table(place, schema.temporal, cohort.temporal, shape)
        seen = np.asarray(cohort.temporal.observed).any(-1)
        late = np.asarray(seen & ~valid_steps(cohort))
        refuse_cells(place, "nothing is observed from `length` on", late, late, BUILD)
    for name, true in (("has_static", there), ("has_temporal", length > 0)):
        found = np.asarray(getattr(cohort, name))
        rule = "a part is there when something is observed, or a step"
        refuse_cells(f"{where}: {name}", rule, found != true, found, BUILD)


def check_table(
    where: str, features: tuple[Feature, ...], table: Any, shape: tuple[int, ...]
) -> None:
    """Raises unless the table has these columns and every observed value fits."""
    check_type(where, table, Table)
    numbers, coded = numeric_features(features), coded_features(features)
    for name, width, kinds in (
        ("numeric", len(numbers), "fiu"),
        ("codes", len(coded), "iu"),
        ("observed", len(features), "b"),
    ):
        leaf = getattr(table, name)
        check_array(f"{where}: {name}", leaf, (*shape, width), kinds)
    values, codes, seen = map(np.asarray, table)
    bad = seen[..., : len(numbers)] & ~sound(numbers, values)
    refuse_column(where, numbers, numbers_allowed, bad, values)
    sizes = np.array([feature.cardinality for feature in coded], int)
    bad = seen[..., len(numbers) :] & outside(codes, sizes)
    refuse_column(where, coded, codes_allowed, bad, codes)


def check_sparse(
    where: str, schema: Schema, table: SparseTable, length: np.ndarray
) -> None:
    """Raises unless a sparse table fits the schema and the lengths [N] of a cohort."""
    for name, kinds in (("offsets", "iu"), ("cells", "iu"), ("length", "iu")):
        check_array(f"{where}: {name}", getattr(table, name), (None,), kinds)
    fitting(where, schema, table, len(length))
    if not is_sound(table) or (table.length != length).any():
        raise InputError(
            f"{where}: the arrays of the sparse table do not fit together, or not the "
            "lengths of the cohort; make it with `jaxehr.core.sparse.from_cells`."
        )


def sound(features: tuple[Feature, ...], values: np.ndarray) -> np.ndarray:
    """Bool [*shape, D]: the number is finite, in its bounds, whole where it must be."""
    low, high = np.array([limits(feature) for feature in features]).reshape(-1, 2).T
    fits = np.isfinite(values) & (values >= low) & (values <= high)
    for at, feature in enumerate(features):
        if feature.kind == "integer":
            fits[..., at] &= values[..., at] == np.rint(values[..., at])
    return fits


def limits(feature: Feature) -> tuple[float, float]:
    """The bounds as they are or as values of the dtype, whichever is wider."""
    low, high = bounds(feature)
    own_low = low if feature.lower is None else feature.lower
    own_high = high if feature.upper is None else feature.upper
    return min(low, own_low), max(high, own_high)


def numbers_allowed(feature: Feature) -> str:
    low, high = limits(feature)
    kind = "whole" if feature.kind == "integer" else "finite"
    return f"observed values must be {kind} and lie in [{low}, {high}]"


def codes_allowed(feature: Feature) -> str:
    return f"observed codes must lie in [0, {feature.cardinality})"


def outside(codes: np.ndarray, sizes: Any) -> np.ndarray:
    return (codes < 0) | (codes >= sizes)


def refuse_column(
    where: str,
    features: tuple[Feature, ...],
    allowed: Callable[[Feature], str],
    bad: np.ndarray,
    values: np.ndarray,
) -> None:
    """Raises with the first column of which some cells [*shape, D] are bad."""
    if bad.any():
        at = int(np.argmax(bad.reshape(-1, len(features)).any(0)))
        place, rule = f"{where} column {features[at].name!r}", allowed(features[at])
        refuse_cells(place, rule, bad[..., at], values[..., at], MARK)
