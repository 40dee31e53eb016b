"""Where a cohort breaks its bounds and plausibility rules. N patients, T steps."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Feature, Schema, column_order, valid_steps
from jaxehr.core.rules import (
    Case,
    Column,
    Implies,
    Monotone,
    NothingAfter,
    Order,
)
from jaxehr.core.sparse import SparseTable
from jaxehr.data.assemble import grid_times
from jaxehr.data.columns import bounds

ROUNDING = 1e-6  # a rule is not broken by less than this share of its values


class Cells(NamedTuple):
    """One column: numbers or codes."""

    values: np.ndarray  # [N, T]; [N, 1] of a static column
    seen: np.ndarray  # Bool, likewise


Sheet = dict[str, Cells]


class Found(NamedTuple):
    """Where a rule applies, and where it is broken: Bool [N, T] or [N, 1]."""

    applies: np.ndarray
    broken: np.ndarray


class Grid(NamedTuple):
    """What rules need beside the values."""

    schema: Schema
    columns: dict[str, Column]  # Schema.columns
    valid: np.ndarray  # Bool [N, T]
    times: np.ndarray  # [T]


def read_grid(schema: Schema, cohort: Cohort) -> Grid:
    return Grid(schema, schema.columns, valid_steps(cohort), grid_times(schema))


def find_broken(grid: Grid, sheet: Sheet) -> Iterator[tuple[str, Found]]:
    """Every bound and rule of the schema, as text, with where it is broken."""
    for name, (values, seen) in sheet.items():
        feature = grid.columns[name].feature
        if is_bounded(feature):
            low, high = bounds(feature)
            unit = f" {feature.unit}" if feature.unit else ""
            outside = seen & ((values < low) | (values > high))
            yield f"{name} in [{low:g}, {high:g}]{unit}", Found(seen, outside)
    for rule in grid.schema.rules:
        yield str(rule), FINDERS[type(rule)](rule, grid, sheet)


def is_bounded(feature: Feature) -> bool:
    given = feature.lower is not None or feature.upper is not None
    return feature.is_numeric and given


def read_sheet(grid: Grid, cohort: Cohort) -> Sheet:
    """The columns that bounds and rules speak of.

    Raises:
      InputError: one of them is in a sparse temporal table.
    """
    schema, sheet = grid.schema, {}
    named = {name for rule in schema.rules for name in rule.names}
    for rule in schema.rules:
        if isinstance(rule, NothingAfter):
            named |= set(covered(rule, schema))
    for name, (part, place, feature) in grid.columns.items():
        if not (is_bounded(feature) or name in named):
            continue
        table = getattr(cohort, part)
        if isinstance(table, SparseTable):
            raise InputError(
                f"rules: column {name!r} is in a sparse temporal table; rules and "
                "bounds of its columns need a dense one."
            )
        numeric, at = column_order(getattr(schema, part))[place]
        count = table.numeric.shape[-1]
        values = np.asarray((table.numeric if numeric else table.codes)[..., at])
        seen = np.asarray(table.observed[..., at if numeric else count + at], bool)
        if part == "static":
            values, seen = values[:, None], seen[:, None]
        sheet[name] = Cells(values, seen)
    return sheet


def exceeds(a: np.ndarray, b: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Whether a + margin > b by more than rounding."""
    size = np.abs(a) + np.abs(b) + abs(margin)
    return a + margin - b > ROUNDING * size


def find_order(rule: Order, grid: Grid, sheet: Sheet) -> Found:
    low, high = (sheet[name] for name in rule.ends)
    both = low.seen & high.seen
    return Found(both, both & exceeds(low.values, high.values, rule.margin))


def find_monotone(rule: Monotone, grid: Grid, sheet: Sheet) -> Found:
    values, seen = sheet[rule.column]
    x = values if rule.relation == ">=" else -values
    highest = np.maximum.accumulate(np.where(seen, x, -np.inf), axis=1)
    before = np.pad(highest[:, :-1], ((0, 0), (1, 0)), constant_values=-np.inf)
    applies = seen & (before > -np.inf)
    return Found(applies, applies & exceeds(np.where(applies, before, x), x))


def find_after(rule: NothingAfter, grid: Grid, sheet: Sheet) -> Found:
    late = after(rule, grid, sheet)
    seen = np.zeros_like(late)
    for name in covered(rule, grid.schema):
        seen |= sheet[name].seen
    return Found(late, late & seen)


def after(rule: NothingAfter, grid: Grid, sheet: Sheet) -> np.ndarray:
    """Bool [N, T]: valid steps later than the event."""
    values, seen = sheet[rule.event_column]
    if isinstance(rule.event, str):
        late = seen & exceeds(grid.times, values)
    else:
        came = holds(rule.event, grid, sheet).cumsum(1) > 0
        late = np.pad(came[:, :-1], ((0, 0), (1, 0)))
    return late & grid.valid


def covered(rule: NothingAfter, schema: Schema) -> list[str]:
    """The columns in which nothing may follow the event."""
    every = [f.name for f in schema.temporal if f.name != rule.event_column]
    return list(rule.columns) or every


def holds(case: Case, grid: Grid, sheet: Sheet) -> np.ndarray:
    """Bool [N, T] or [N, 1]: the column is observed and has the value."""
    values, seen = sheet[case.column]
    return seen & (values == code_of(case, grid))


def code_of(case: Case, grid: Grid) -> int:
    return grid.columns[case.column].feature.categories.index(case.value)


def find_implied(rule: Implies, grid: Grid, sheet: Sheet) -> Found:
    hit, (values, seen) = demanded(rule, grid, sheet), sheet[rule.then.column]
    if rule.then.value is None:
        return Found(hit, hit & seen)
    return Found(hit & seen, hit & seen & (values != code_of(rule.then, grid)))


def demanded(rule: Implies, grid: Grid, sheet: Sheet) -> np.ndarray:
    """Bool in the shape of the consequence: where the condition holds."""
    hit = holds(rule.when, grid, sheet)
    parts = [grid.columns[case.column].part for case in (rule.when, rule.then)]
    if parts == ["temporal", "static"]:
        return np.any(hit, axis=1, keepdims=True)
    return hit & grid.valid if parts[1] == "temporal" else hit


FINDERS = {
    Order: find_order,
    Monotone: find_monotone,
    NothingAfter: find_after,
    Implies: find_implied,
}
