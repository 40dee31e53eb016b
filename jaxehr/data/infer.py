"""The schema of tables that come without one: kinds, categories, bounds, time grid.

| values seen | kind |
|---|---|
| one | constant |
| two texts, two integers, true/false, or 0.0/1.0 | binary |
| text with up to `max_categories` values; 3 to 10 integers | categorical |
| more integers; doubles that are all whole | integer |
| other numbers | numeric |

Numbers of a CSV file with leading zeros (007) are text. The only bound is 0, where no
value is negative: the schema is published with synthetic patients, so that it holds no
extreme of a real one. Units are unknown: edit schema.json.
"""

import re
from typing import Any

import numpy as np

from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Feature, Label, Schema
from jaxehr.core.dtypes import FLOATS, INTEGERS, TEXTS
from jaxehr.data.columns import TYPES, text
from jaxehr.data.gridding import count_steps, holding
from jaxehr.data.raw_tables import (
    CSV,
    ROW,
    Raw,
    RawTables,
    Rule,
    TablesOptions,
    finite,
    is_fraction,
    not_finite,
    number,
    open_tables,
    parsed,
    refuse_any,
    scalar,
    summary,
    times,
)
from jaxehr.data.texts import FORMS, refuse_forms, refuse_odd, refuse_strange

FEW_INTEGERS = 10  # up to here integers are taken as codes
MOST_STEPS = 1000  # a longer inferred grid is a sign of unregular times
CANONICAL = r"^(0|-?[1-9][0-9]{0,17})$"  # an integer that reads back the same
INTEGER = r"^[+-]?[0-9]{1,18}$"
ZEROS = r"^[+-]?0[0-9]"  # such a number is a code: a post code, a ward


def infer_schema(options: TablesOptions) -> Schema:
    """The schema of the files of `options`, to be reviewed and edited.

    Raises:
      InputError: text in a numeric column, decimal commas, NaN or infinity, a column
        that is all missing, text with too many values, dates, ids that are neither
        whole numbers nor text, a label of one class, times off a grid.
    """
    with open_tables(options) as raws:
        return infer_opened(raws, options)


def infer_opened(raws: RawTables, options: TablesOptions) -> Schema:
    """`infer_schema` of files that are open already."""
    static, temporal = raws.static, raws.temporal
    opened = [raw for raw in raws if raw]
    for name in options.text_columns:
        known("column", name, dict.fromkeys(n for raw in opened for n in raw.types))
    one, many = (), ()
    if static:
        skipped = {options.id, options.group, options.label}
        one = infer_features(static, skipped, options)
    grid: dict[str, Any] = {}
    if temporal:
        many = infer_features(temporal, {options.id, options.time}, options)
        grid = infer_grid(temporal, options)
    return Schema(
        static=one,
        temporal=many,
        id=options.id,
        id_dtype=infer_id_dtype(opened, options.id),
        label=infer_label(raws.labels or static, options) if options.label else None,
        group=options.group or None,
        time_unit=options.time_unit or "h",
        **grid,
    )


def infer_id_dtype(raws: list[Raw], name: str) -> str:
    """The dtype in the first file; a CSV id is int64 when it reads back the same."""
    dtypes = []
    for raw in raws:
        check_ids(raw, name)
        column, dtype = raw.table[name], raw.types[name]
        if dtype == CSV:
            dtype = "int64" if scalar(column.re_search(CANONICAL).all()) else "string"
        dtypes.append(dtype)
    if any(dtype in TEXTS for dtype in dtypes):
        return next(dtype for dtype in dtypes if dtype in TEXTS)
    return dtypes[0] if dtypes[0] in INTEGERS[:-1] else "int64"


def check_ids(raw: Raw, name: str) -> None:
    """Refuses ids that are missing, or neither whole numbers nor text."""
    column, dtype = raw.table[name], raw.types[name]
    rules = [Rule(name, column.isnull(), "every row needs an id")]
    if dtype in FLOATS:
        value = number(raw, name)
        broken = not_finite(value) | is_fraction(value)
        rules.append(Rule(name, broken, "ids must be whole numbers or text"))
    elif dtype not in (CSV, *INTEGERS, *TEXTS):
        raise InputError(
            f"{raw.path}: column {name!r}: ids must be whole numbers or text, got the "
            f"type {dtype}; convert them."
        )
    refuse_any(raw, rules)


def column_types(
    raw: Raw, names: list[str], words: tuple[str, ...] = ()
) -> dict[str, str]:
    """Arrow type names of columns, string for those of `words`.

    Raises:
      InputError: what no feature or label can be.
    """
    types = {}
    for name in names:
        types[name] = "string" if name in words else raw.types[name]
        if types[name] != CSV and types[name] not in TYPES:
            raise InputError(
                f"{raw.path}: column {name!r}: the type {types[name]} is not "
                "supported; convert it to a number or text, or drop the column."
            )
    counts = summary(raw, {name: measures(raw, name, types[name]) for name in names})
    for name in names:
        found = counts[name]
        if not found["seen"]:
            raise InputError(
                f"{raw.path}: column {name!r}: all {found['total']} values are "
                "missing; drop the column."
            )
        if types[name] == CSV:
            types[name] = csv_type(raw, name, found)
        elif found.get("strange"):
            refuse_strange(raw, name)
    return types


def measures(raw: Raw, name: str, dtype: str) -> dict[str, Any]:
    """What is counted of a column to tell its type."""
    column = raw.table[name]
    parts = {"total": raw.table.count(), "seen": column.count()}
    if dtype == CSV:
        parts["numbers"] = finite(number(raw, name)).sum()
        for key, form in (("integers", INTEGER), ("zeros", ZEROS), *FORMS.items()):
            parts[key] = column.re_search(form).sum()
    if dtype in (CSV, *FLOATS):
        parts["strange"] = not_finite(number(raw, name)).sum()
    return parts


def csv_type(raw: Raw, name: str, found: dict[str, int]) -> str:
    """int64, double or string; numbers with a few texts among them are refused."""
    seen, numbers = found["seen"], found["numbers"]
    if found["strange"] and numbers + found["strange"] == seen:
        refuse_strange(raw, name)
    if numbers < seen:
        refuse_forms(raw, name, found)
        refuse_odd(raw, name, found["zeros"] > 0, numbers, seen)
    if numbers < seen or found["zeros"]:
        return "string"
    return "int64" if found["integers"] == seen else "double"


def typed(raw: Raw, name: str, dtype: str) -> Any:
    """The column with the values of `dtype`; null where the text is none."""
    column = raw.table[name]
    if dtype in TEXTS:
        return column.cast("string")
    if not column.type().is_string():
        return column
    wanted = "boolean" if dtype == "bool" else "float64" if dtype in FLOATS else "int64"
    return parsed(column, wanted)


def distinct(raw: Raw, name: str, dtype: str, limit: int) -> list[Any]:
    """Up to `limit` + 1 distinct values, sorted."""
    values = raw.table.select(value=typed(raw, name, dtype))
    values = values.filter(values.value.notnull()).distinct().limit(limit + 1)
    return sorted(values.to_pyarrow()["value"].to_pylist())


def refuse_many(raw: Raw, name: str, values: list[Any], limit: int) -> None:
    """Raises InputError when there are more than `limit` categories."""
    if len(values) > limit:
        count = scalar(raw.table[name].nunique())
        led = any(re.search(ZEROS, str(value)) for value in values)
        zeros = "; numbers with leading zeros are text" if led else ""
        raise InputError(
            f"{raw.path}: column {name!r}: at most {limit} categories are allowed, got "
            f"{count} (e.g. {text(values[0])}{zeros}); drop the column, or raise "
            "--max-categories."
        )


def infer_features(
    raw: Raw, skipped: set[str], options: TablesOptions
) -> tuple[Feature, ...]:
    """The features of a file in its order; see the module docstring for the kinds."""
    names = [name for name in raw.types if name not in skipped]
    types = column_types(raw, names, options.text_columns)
    ends = {}
    for name in names:
        if types[name] in (*INTEGERS, *FLOATS):
            value = number(raw, name)
            whole = (~is_fraction(value)).all()
            ends[name] = {"low": value.min(), "whole": whole}
    found = summary(raw, ends)
    return tuple(
        infer_feature(raw, name, types[name], found.get(name, {}), options)
        for name in names
    )


def infer_feature(
    raw: Raw, name: str, dtype: str, ends: dict[str, Any], options: TablesOptions
) -> Feature:
    """Kind, categories and lower bound of one column of a known dtype."""
    limit = options.max_categories
    values = distinct(raw, name, dtype, max(limit, FEW_INTEGERS))
    if dtype in TEXTS:
        refuse_many(raw, name, values, limit)
    count = len(values)
    coded = dtype in (*TEXTS, "bool") or count == 1
    coded |= dtype in INTEGERS and count <= min(FEW_INTEGERS, limit)
    coded |= dtype in FLOATS and values == [0.0, 1.0]
    parts: dict[str, Any] = {"name": name, "dtype": dtype}
    if coded:
        kind = "constant" if count == 1 else "binary" if count == 2 else "categorical"
        return Feature(**parts, kind=kind, categories=tuple(values), aggregate="last")
    kind = "integer" if dtype in INTEGERS or ends["whole"] else "numeric"
    return Feature(**parts, kind=kind, lower=0.0 if ends["low"] >= 0 else None)


def infer_label(raw: Raw | None, options: TablesOptions) -> Label:
    """Classes of the label column in sorted order; no stay may lack its label."""
    assert raw is not None  # TablesOptions asks for the file
    name = options.label
    rule = "every stay needs a label; label missing"
    refuse_any(raw, [Rule(name, raw.table[name].isnull(), rule)], options.id)
    dtype = column_types(raw, [name], options.text_columns)[name]
    values = distinct(raw, name, dtype, options.max_categories)
    refuse_many(raw, name, values, options.max_categories)
    return Label(name=name, classes=tuple(values), dtype=dtype)


def check_times(raw: Raw, options: TablesOptions) -> None:
    """Refuses times that are missing, no number, or negative; also, without a step to
    bin them, those that occur twice in a stay."""
    id, time = options.id, options.time
    column = raw.table[time]
    if not (column.type().is_string() or column.type().is_numeric()):
        raise InputError(
            f"{raw.path}: column {time!r}: times must be numbers, got the type "
            f"{raw.types[time]}; give the time since the start of the stay."
        )
    value = times(raw, time)
    strange = value.isnull() | not_finite(value)
    rules = [
        Rule(time, column.isnull(), "every row needs a time"),
        Rule(time, strange, "times must be numbers"),
        Rule(time, value < 0, "times must not be negative"),
    ]
    refuse_any(raw, rules, id)
    if not options.step:
        refuse_pairs(raw, id, time)


def refuse_pairs(raw: Raw, id: str, time: str) -> None:
    """Raises InputError when a stay has a time twice."""
    value = times(raw, time)
    rows = raw.table.select(id=raw.table[id], time=value, row=raw.table[ROW])
    groups = rows.group_by(["id", "time"]).aggregate(
        count=rows.count(), first=rows["row"].min(), last=rows["row"].max()
    )
    again = groups.filter(groups["count"] > 1)
    found = again.order_by("first").limit(1).to_pyarrow().to_pylist()
    if found:
        one, pairs = found[0], scalar(again.count())
        raise InputError(
            f"{raw.path}: duplicate ({id}, {time}): one row each is allowed, got "
            f"{one['count']} rows for ({str(one['id'])[:40]}, {one['time']:g}), e.g. "
            f"data rows {one['first']} and {one['last']}; {pairs} pair(s) are "
            "repeated. Pass --step to bin them. Every variable needs a column of its "
            "own: a file with one row a measurement (its name in one column, its value "
            "in another) has to be brought into that form first, or bins mix them."
        )


def infer_grid(raw: Raw, options: TablesOptions) -> dict[str, Any]:
    """Name, dtype, start, step and number of the grid times.

    With options.step the grid starts at 0. Without, the times have to be multiples of
    their smallest difference, counted from the smallest time.
    """
    check_times(raw, options)
    value, dtype = times(raw, options.time), time_type(raw, options.time)
    if options.step:
        start, step = 0.0, float(options.step)
        last = float(scalar(value.max()))
        num_steps = int(np.floor(np.round(last / step, 9))) + 1
    else:
        found = raw.table.select(time=value).distinct().limit(100_000).to_pyarrow()
        at = np.sort(found["time"].to_numpy())
        start = float(at[0])
        step = float(np.diff(at).min()) if len(at) > 1 else 1.0
        step = float(np.round(step, 9))
        check_regular(raw, options.time, at, step)
        num_steps = int(np.rint((at[-1] - start) / step)) + 1
    if options.hours:  # the same for another cohort, whose stays are shorter
        num_steps = count_steps(options.hours, step, width_name="step")
    grid = {"start": start, "step": step, "num_steps": num_steps}
    return {"time": options.time, "time_dtype": holding(dtype, **grid), **grid}


def time_type(raw: Raw, name: str) -> str:
    """The dtype of the times; text of whole numbers only is int64."""
    if not raw.table[name].type().is_string():
        return column_types(raw, [name])[name]
    whole = raw.table[name].re_search(INTEGER).all()
    return "int64" if scalar(whole) else "double"


def check_regular(raw: Raw, name: str, times: np.ndarray, step: float) -> None:
    """Raises InputError unless the sorted times [k] lie on a grid that is not long."""
    position = (times - times[0]) / step if step > 0 else np.full(len(times), 0.5)
    off = np.abs(position - np.rint(position)) > 1e-6
    if off.any() or position[-1] >= MOST_STEPS:
        worst = times[np.argmax(off)] if off.any() else times[-1]
        raise InputError(
            f"{raw.path}: column {name!r}: times are not on a regular grid "
            f"(smallest difference {step:g}, {len(times)} distinct times, e.g. "
            f"{worst:g}); pass --step to bin them."
        )
