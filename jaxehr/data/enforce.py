"""Rules enforced on a cohort by the smallest repair.

Numbers that break `Order` or `Monotone` rules are put in order by
    y = (max of what may not exceed it + min of what it may not exceed) / 2
over the observed values that the rules link, itself among them, margins added on the
way: no other values that keep the rules have a smaller largest change. Then each goes
back towards its own value as far as the others let it. Of two values both become their
mean. N patients, T steps.
"""

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Cohort,
    Dataset,
    Schema,
    Table,
    column_order,
    make_cohort,
    numeric_features,
)
from jaxehr.core.rule_checks import inner_bounds, ordered, systems
from jaxehr.core.rules import Implies, Monotone, NothingAfter, Order
from jaxehr.core.sparse import SparseTable
from jaxehr.data.columns import bounds
from jaxehr.data.rules import (
    FINDERS,
    Cells,
    Grid,
    Sheet,
    after,
    code_of,
    covered,
    demanded,
    find_broken,
    is_bounded,
    read_grid,
    read_sheet,
)

MOST_DECIMALS = 6
Link = Order | Monotone


def enforce_rules(data: Dataset, schema: Schema | None = None) -> Dataset:
    """The cohort with every bound and rule kept, by small changes of its values.

    Bounds clip. Coded columns that may not fall keep the highest value so far; an
    implied value is put in; numbers are put in order (see the module docstring) with
    no more decimals than the patient's own, whole ones where an integer column takes
    part; what is observed after an event, or implied to be missing, becomes missing.
    What is missing stays missing. A patient's values depend on this patient only, and
    doing it twice changes nothing more.

    Args:
      schema: its bounds and rules count; None = those of `data`.

    Returns:
      The cohort with `schema`; provenance["rules"] counts what was broken before, and
      what was changed.

    Raises:
      InputError: no bound and no rule; a sparse table where rules need a dense one.
    """
    schema = schema or data.schema
    check_enforceable(schema)
    grid = read_grid(schema, data.cohort)
    before = read_sheet(grid, data.cohort)
    sheet = dict(before)
    for step in (keep_states, imply, clip, put_in_order, cut_after):
        step(grid, sheet)
    counts = {"broken_before": tally(grid, before), **changes(before, sheet)}
    cohort = write_sheet(schema, data.cohort, sheet)
    provenance = data.provenance | {"rules": counts}
    return data._replace(schema=schema, cohort=cohort, provenance=provenance)


def check_enforceable(schema: Schema) -> None:
    """Raises InputError where there is nothing to enforce."""
    if not schema.rules and not any(map(is_bounded, schema.static + schema.temporal)):
        raise InputError(
            "no rule and no bound to enforce; add `rules` to a schema.json (see "
            "`jaxehr.data.schema_json`)."
        )


def tally(grid: Grid, sheet: Sheet) -> dict[str, dict[str, int]]:
    """How many cells and patients break each bound or rule that is broken."""
    return {
        name: {
            "cells": int(found.broken.sum()),
            "patients": int(found.broken.any(1).sum()),
        }
        for name, found in find_broken(grid, sheet)
        if found.broken.any()
    }


def changes(before: Sheet, after: Sheet) -> dict[str, object]:
    """Values changed or made missing, by column, and patients with any such value."""
    values, patients = {}, 0
    for name, old in before.items():
        new = after[name]
        moved = old.seen & (~new.seen | (old.values != new.values))
        patients = patients | moved.any(1)
        if moved.any():
            values[name] = int(moved.sum())
    return {
        "values_changed": values,
        "patients_changed": int(np.sum(patients)),
        "patients": len(next(iter(before.values())).seen),
    }


def keep_states(grid: Grid, sheet: Sheet) -> None:
    """Coded columns that may not fall: the highest (or lowest) value so far."""
    rules = [rule for rule in grid.schema.rules if isinstance(rule, Monotone)]
    for rule in rules:
        if grid.columns[rule.column].feature.is_numeric:
            continue
        values, seen = sheet[rule.column]
        sign = 1 if rule.relation == ">=" else -1
        least = np.iinfo(np.int32).min
        kept = np.maximum.accumulate(np.where(seen, sign * values, least), axis=1)
        sheet[rule.column] = Cells(np.where(seen, sign * kept, values), seen)


def imply(grid: Grid, sheet: Sheet) -> None:
    """Implied values, conditions before what follows from them; then implied gaps."""
    rules = [rule for rule in grid.schema.rules if isinstance(rule, Implies)]
    rank = ordered("implies", [(r.when.column, r.then.column) for r in rules])
    place = lambda r: (rank.index(r.then.column), r.then.value is None)
    for rule in sorted(rules, key=place):
        hit, (values, seen) = demanded(rule, grid, sheet), sheet[rule.then.column]
        if rule.then.value is None:
            sheet[rule.then.column] = Cells(values, seen & ~hit)
        else:
            code = code_of(rule.then, grid)
            sheet[rule.then.column] = Cells(np.where(hit & seen, code, values), seen)


def clip(grid: Grid, sheet: Sheet) -> None:
    """Values beyond a bound become the bound."""
    for name, (values, seen) in sheet.items():
        if is_bounded(grid.columns[name].feature):
            inside = np.clip(values, *limits(grid, [name])[name])
            sheet[name] = Cells(np.where(seen, inside, values), seen)


def limits(grid: Grid, names: list[str]) -> dict[str, tuple[float, float]]:
    """Bounds as values of the dtype; whole ones where a column holds integers."""
    features = [grid.columns[name].feature for name in names]
    return dict(zip(names, inner_bounds(features, map(bounds, features)), strict=True))


def cut_after(grid: Grid, sheet: Sheet) -> None:
    """Nothing is observed after an event."""
    for rule in grid.schema.rules:
        if isinstance(rule, NothingAfter):
            late = after(rule, grid, sheet)
            for name in covered(rule, grid.schema):
                values, seen = sheet[name]
                sheet[name] = Cells(values, seen & ~late)


def put_in_order(grid: Grid, sheet: Sheet) -> None:
    """The numbers of patients who break an `Order` or `Monotone` rule."""
    for names in systems(grid.schema.rules):
        if not grid.columns[names[0]].feature.is_numeric:
            continue
        rules = [
            rule
            for rule in grid.schema.rules
            if isinstance(rule, (Order, Monotone)) and set(rule.names) <= set(names)
        ]
        broken = [FINDERS[type(r)](r, grid, sheet).broken.any(1) for r in rules]
        rows = np.flatnonzero(np.any(broken, axis=0))
        cells = {n: Cells(*(leaf[rows] for leaf in sheet[n])) for n in names}
        whole = [n for n in names if grid.columns[n].feature.kind == "integer"]
        digits = np.zeros((len(rows), 1)) if whole else decimals(rules, cells)
        found = midway(rules, cells, limits(grid, names), digits)
        # Whole numbers go back first, while all others are whole
        for name in [*whole, *(n for n in names if n not in whole)]:
            found[name] = back(name, rules, cells, found)
            values, seen = sheet[name]
            values = values.copy()
            values[rows] = np.where(cells[name].seen, found[name], values[rows])
            sheet[name] = Cells(values, seen)


def midway(
    rules: list[Link],
    cells: Sheet,
    limits: dict[str, tuple[float, float]],
    digits: np.ndarray,
) -> dict[str, np.ndarray]:
    """The equation of the module: [N, T] or [N, 1] by column.

    Rounding down to the decimals of a patient, and clipping to bounds that take part
    in the order, both keep it.

    Args:
      cells: columns, lower ones first; digits: [N, 1] decimals, -1 = not rounded.
    """
    values = {name: column.values for name, column in cells.items()}
    ends = [
        {n: np.full(v.shape, limits[n][at]) for n, v in values.items()} for at in (0, 1)
    ]
    top, bottom = push(rules, cells, values, 1), push(rules, cells, values, -1)
    least, most = push(rules, cells, ends[0], 1), push(rules, cells, ends[1], -1)
    found = {}
    for name, (_, seen) in cells.items():
        halves = [np.where(seen, side[name], 0.0) / 2 for side in (top, bottom)]
        y = round_down(halves[0] + halves[1], digits)
        found[name] = np.clip(y, least[name], most[name])
    return found


def push(
    rules: list[Link], cells: Sheet, values: dict[str, np.ndarray], sign: int
) -> dict[str, np.ndarray]:
    """For each value the largest of those that may not exceed it, itself among them.

    Args:
      values: by column; those that are observed count.
      sign: -1 gives the smallest of those that it may not exceed.

    Returns:
      By column; -sign * infinity where nothing is observed.
    """
    out = dict(values)
    for name in list(cells)[::sign]:
        asked = next_to(name, rules, cells, out, sign)
        best = np.maximum(sign * values[name], sign * asked)
        out[name] = sign * along(best, cells[name].seen, sign * trend(name, rules))
    return out


def next_to(
    name: str, rules: list[Link], cells: Sheet, values: dict[str, np.ndarray], sign: int
) -> np.ndarray:
    """What the columns right below (sign -1: above) demand of this one.

    -sign * infinity where they demand nothing.
    """
    best = np.full(cells[name].seen.shape, -np.inf)
    for rule in rules:
        if isinstance(rule, Order) and rule.ends[sign > 0] == name:
            other = rule.ends[sign < 0]
            asked = np.where(cells[other].seen, sign * values[other], -np.inf)
            if np.size(asked, 1) > np.size(best, 1):  # steps beside a static column
                asked = asked.max(1, keepdims=True, initial=-np.inf)
            best = np.maximum(best, asked + rule.margin)
    return sign * best


def trend(name: str, rules: list[Link]) -> int:
    """1 = the column never falls, -1 = never rises, 0 = neither."""
    for rule in rules:
        if isinstance(rule, Monotone) and rule.column == name:
            return 1 if rule.relation == ">=" else -1
    return 0


def along(x: np.ndarray, seen: np.ndarray, way: int) -> np.ndarray:
    """The observed x, and with a way the highest so far, from the first or last step.

    -infinity where nothing is observed.
    """
    x = np.where(seen, x, -np.inf)
    highest = lambda: np.maximum.accumulate(x[:, ::way], axis=1)[:, ::way]
    return np.where(seen, highest(), -np.inf) if way else x


def back(
    name: str, rules: list[Link], cells: Sheet, found: dict[str, np.ndarray]
) -> np.ndarray:
    """The values of a column as near to what they were as the others allow."""
    values, seen = cells[name]
    low, high = (next_to(name, rules, cells, found, sign) for sign in (1, -1))
    way = trend(name, rules)
    if way:  # nor may a value pass the one that comes next
        later = np.where(seen, found[name], np.inf)[:, ::way]
        later = np.minimum.accumulate(later[:, ::-1], axis=1)[:, ::-1]
        ahead = np.pad(later[:, 1:], ((0, 0), (0, 1)), constant_values=np.inf)
        high = np.minimum(high, ahead[:, ::way])
    return along(np.clip(values, low, high), seen, way)


def decimals(rules: list[Link], cells: Sheet) -> np.ndarray:
    """[N, 1]: the smallest number that all values of a patient and all margins have.

    -1 where it is above 6.
    """
    margins = [rule.margin for rule in rules if isinstance(rule, Order)]
    digits = np.full((len(next(iter(cells.values())).seen), 1), -1)
    for count in reversed(range(MOST_DECIMALS + 1)):
        fits = np.full(len(digits), bool(np.all(np.round(margins, count) == margins)))
        for values, seen in cells.values():
            fits &= (~seen | (np.round(values, count) == values)).all(1)
        digits[fits] = count
    return digits


def round_down(values: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """To `digits` decimals, -1 = not at all; products are rounded to hit whole ones."""
    scale = 10.0 ** np.maximum(digits, 0)
    return np.where(digits < 0, values, np.floor(np.round(values * scale, 6)) / scale)


def write_sheet(schema: Schema, cohort: Cohort, sheet: Sheet) -> Cohort:
    """The cohort with these columns in place of its own."""
    tables, columns = {}, schema.columns
    for part in ("static", "temporal"):
        table, features = getattr(cohort, part), getattr(schema, part)
        if isinstance(table, SparseTable):
            tables[part] = table
            continue
        numeric, codes, seen = (np.array(leaf) for leaf in table)
        count, order = len(numeric_features(features)), column_order(features)
        for name, cells in sheet.items():
            where, place, _ = columns[name]
            if where == part:
                is_numeric, at = order[place]
                into = numeric if is_numeric else codes
                into[..., at] = cells.values.reshape(into.shape[:-1])
                at = at if is_numeric else count + at
                seen[..., at] = cells.seen.reshape(seen.shape[:-1])
        tables[part] = Table(numeric, codes, seen)
    return make_cohort(
        tables["static"], tables["temporal"], cohort.length, cohort.label
    )
