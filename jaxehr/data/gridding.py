"""Binning of dated observations to a regular time grid, as Ibis expressions on DuckDB.

Bin k of a variable holds the observations at a time t with
  start + k step <= t < start + (k+1) step                          (`mean`, `last`),
  start + (k-1/2) step < t <= start + (k+1/2) step                  (`nearest`),
so that `nearest` gives every observation to its nearest grid point (exact halves to the
earlier one) and keeps, of those at one grid point, the nearest, ties to the earlier.
Borders are resolved to 1e-9 of a step. Of several observations at the chosen instant
the largest counts, since the order of rows carries no meaning.

Results do not depend on the number of threads: means are sums of 64-bit integers (the
values scaled by a power of two taken from the bin), and everything else is a maximum or
a minimum. Nothing here loops over patients or rows, and DuckDB spills to a temporary
folder above its memory limit.
"""

import fractions
import math
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature

BIN, TIME, VARIABLE, VALUE = "jaxehr_bin", "jaxehr_time", "jaxehr_variable", "value"
POINT, HALF = "jaxehr_point", 2.0**30  # HALF^2 is one of the bin's largest value
SPILL = "jaxehr-duckdb-"
FIXED = 2.0**40  # resolution of `fixed_mean`
Columns = dict[str, tuple[str, bool]]  # column -> (aggregate, is numeric)


def connect(memory_limit: str = "1GB", threads: int = 2) -> Any:
    """An Ibis backend on an in-memory DuckDB that spills to the temporary folder.

    What killed processes left there is removed.
    """
    remove_spills()
    spill = os.path.join(tempfile.gettempdir(), f"{SPILL}{os.getpid()}")
    return ibis.duckdb.connect(
        memory_limit=memory_limit,
        threads=threads,
        temp_directory=spill,
        preserve_insertion_order=False,
    )


def exact(path: str) -> str:
    """The path as DuckDB has to be given it: it reads `*`, `?` and `[` as patterns."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)


def remove_spills() -> None:
    """Removes the spill folders of processes that were killed."""
    for left in pathlib.Path(tempfile.gettempdir()).glob(f"{SPILL}*"):
        number = left.name.removeprefix(SPILL)
        if number.isdigit() and os.name == "posix":  # elsewhere 0 is no harmless signal
            try:
                os.kill(int(number), 0)
            except ProcessLookupError:
                shutil.rmtree(left, ignore_errors=True)
            except OSError:  # somebody else's
                continue


def in_memory(table: pa.Table) -> Any:
    """An Arrow table as an Ibis table, without a copy."""
    return ibis.memtable(table)


def count_steps(
    window: float, width: float, unit: str = "hours", *, width_name: str = ""
) -> int:
    """Number of grid steps of a window: window / width, which must be whole.

    `unit` names the two options in messages: `hours` and `bin_hours`, unless
    `width_name` does.
    """
    width_name = width_name or f"bin_{unit}"
    if not (0 < window < math.inf and 0 < width < math.inf):
        raise InputError(
            f"{unit} {window:g} and {width_name} {width:g} must be positive and finite."
        )
    steps = round(window / width)
    if steps < 1 or abs(steps * width - window) > 1e-6 * width:
        raise InputError(
            f"{unit} {window:g} must be a whole multiple of {width_name} {width:g}."
        )
    return steps


def holding(dtype: str, start: float, step: float, num_steps: int) -> str:
    """`dtype` if every time of a grid is a value of it, else double (0.1: no float)."""
    parts = max(fractions.Fraction(end).denominator for end in (start, step))
    fits = parts == 1
    if dtype == "float":
        fits = parts * (abs(start) + num_steps * step) <= 2**24
    elif fits and "int" in dtype and start + num_steps * step > np.iinfo(dtype).max:
        return "int64"
    return dtype if fits else "double"


def bounded(value: Any, lower: Any, upper: Any) -> Any:
    """`value` where lower <= value <= upper, else null; a null bound does not bind."""
    inside = (value >= lower).fill_null(True) & (value <= upper).fill_null(True)
    return _only(inside, value)


def fixed_mean(value: Any) -> Any:
    """Mean of doubles below 2^12 as an aggregate, exact to 2^-40 for 2^11 of them.

    It is a sum of integers, the same in any order and on any engine.
    """
    low, high = value.min(), value.max()
    total = (value * FIXED).round().cast("int64").sum().cast("float64")
    mean = total / FIXED / value.count().nullif(0)
    return ibis.ifelse(low == high, low, mean)


def bound_columns(table: Any, features: tuple[Feature, ...]) -> Any:
    """The table with the values outside the bounds of its numeric features null."""
    limits = {
        f.name: bounded(table[f.name], f.lower, f.upper)
        for f in features
        if f.is_numeric
    }
    return table.mutate(**limits) if limits else table


def count_values(
    con: Any, table: Any, features: tuple[Feature, ...]
) -> dict[str, dict[str, int]]:
    """For each feature its number of values, and of those outside its bounds."""
    if not features:
        return {}
    sound = bound_columns(table, features)
    given = table.aggregate([table[f.name].count().name(f.name) for f in features])
    kept = sound.aggregate([sound[f.name].count().name(f.name) for f in features])
    given, kept = (con.to_pyarrow(row).to_pylist()[0] for row in (given, kept))
    return {
        name: {"values": given[name], "implausible": given[name] - kept[name]}
        for name in given
    }


def in_bins(
    time: Any,
    features: tuple[Feature, ...],
    *,
    start: float,
    step: float,
    num_steps: int,
) -> Any:
    """Boolean: whether `grid_wide` puts what is seen at `time` into any bin."""
    position = (time.cast("float64") - start) / step
    found = ibis.literal(False)
    for nearest in {f.aggregate == "nearest" for f in features}:
        found |= _bins(position, nearest).between(0, num_steps - 1)
    return found


def grid_wide(
    table: Any,
    *,
    id: str,
    time: str,
    features: tuple[Feature, ...],
    start: float,
    step: float,
    num_steps: int,
) -> Any:
    """Bins a table of one column a feature.

    Args:
      table: Ibis table with columns `id`, `time` (a number) and one a feature; null =
        not observed. Values are finite; a bin that holds NaN or infinity becomes NaN.
      features: each `aggregate` is applied to its column. `mean` of a coded feature is
        its last value, and of an `integer` feature the mean rounded to an integer.

    Returns:
      Ibis table (id, time, features), time = start + k * step, sorted. A bin with a row
      is there even if every value in it is null; a bin without any row is absent.
    """
    at = table[time].cast("float64")
    position = (at - start) / step
    names = [feature.name for feature in features]
    parts = []
    for nearest in (True, False):
        chosen = [f for f in features if (f.aggregate == "nearest") == nearest]
        if not chosen:
            continue
        rows = table.mutate(**{TIME: at, BIN: _bins(position, nearest)})
        rows = rows.filter(rows[BIN].between(0, num_steps - 1))
        rows = rows.select(id, TIME, BIN, *(f.name for f in chosen))
        columns = {f.name: (_aggregate(f), f.is_numeric) for f in chosen}
        parts.append(_combine(rows, [id, BIN], columns, start, step))
    grid = parts[0]
    if len(parts) == 2:
        other = parts[1].rename(jaxehr_id=id, jaxehr_other=BIN)
        on = [grid[id] == other["jaxehr_id"], grid[BIN] == other["jaxehr_other"]]
        both = grid.join(other, on, how="outer")
        grid = both.mutate(
            **{
                id: both[id].coalesce(both["jaxehr_id"]),
                BIN: both[BIN].coalesce(both["jaxehr_other"]),
            }
        )
    return _finish(grid, id, time, names, features, start, step)


def grid_long(
    table: Any,
    *,
    id: str,
    time: str,
    variable: str,
    value: str,
    features: tuple[Feature, ...],
    start: float,
    step: float,
    num_steps: int,
) -> Any:
    """Bins a table of (id, time, variable, value) rows and pivots it.

    Rows whose variable is no feature's name, and rows without value, are ignored; all
    values are numbers. Otherwise as `grid_wide`; only bins with a value are returned.
    """
    rows = table.select(
        **{
            id: table[id],
            TIME: table[time].cast("float64"),
            VARIABLE: table[variable],
            VALUE: table[value],
        }
    )
    rows = rows.filter(rows[VALUE].notnull() & rows[TIME].notnull())
    parts = []
    for aggregate in sorted({_aggregate(f) for f in features}):
        names = [f.name for f in features if _aggregate(f) == aggregate]
        part = rows.filter(rows[VARIABLE].isin(names))
        position = (part[TIME] - start) / step
        part = part.mutate(**{BIN: _bins(position, aggregate == "nearest")})
        part = part.filter(part[BIN].between(0, num_steps - 1))
        keys = [id, VARIABLE, BIN]
        parts.append(_combine(part, keys, {VALUE: (aggregate, True)}, start, step))
    cells = ibis.union(*parts) if len(parts) > 1 else parts[0]
    pivot = {
        f.name: cells[VALUE].max(where=_equals(cells[VARIABLE], f.name))
        for f in features
    }
    grid = cells.group_by([id, BIN]).aggregate(**pivot)
    names = [feature.name for feature in features]
    return _finish(grid, id, time, names, features, start, step)


def with_ends(grid: Any, ends: Any, *, id: str, time: str) -> Any:
    """Adds the rows (id, time) of `ends` that `grid` lacks, without any value.

    The last row of a stay is what tells its length on disk: an hour in which a stay was
    watched and nothing was measured has a row.
    """
    typed = ends.select(
        **{id: ends[id].cast(grid[id].type()), time: ends[time].cast(grid[time].type())}
    )
    absent = typed.anti_join(grid, [id, time])
    blank = {
        name: ibis.null(grid[name].type())
        for name in grid.columns
        if name not in (id, time)
    }
    added = absent.mutate(**blank).select(*grid.columns)
    return ibis.union(grid, added).order_by([id, time])


def _aggregate(feature: Feature) -> str:
    coded_mean = feature.aggregate == "mean" and not feature.is_numeric
    return "last" if coded_mean else feature.aggregate


def _bins(position: Any, nearest: bool) -> Any:
    bins = (position - 0.5).round(9).ceil() if nearest else position.round(9).floor()
    return bins.cast("int64")


def _combine(
    rows: Any, keys: list[str], columns: Columns, start: float, step: float
) -> Any:
    """One row a group of `keys`: each column by its aggregate, null if none is seen."""
    rows = rows.mutate(**{POINT: start + rows[BIN].cast("float64") * step})
    first, second = {}, {}
    for number, (name, (aggregate, is_numeric)) in enumerate(columns.items()):
        if aggregate == "mean" and is_numeric:
            first |= _mean_window(rows, number, name)
            second[name] = _mean(number, name)
        else:
            first |= _instant_window(rows, number, name, aggregate)
            second[name] = _at_instant(number, name, aggregate)
    marked = rows.group_by(keys).mutate(**first)
    return marked.group_by(keys).aggregate(
        **{name: build(marked) for name, build in second.items()}
    )


def _only(condition: Any, value: Any) -> Any:
    return ibis.ifelse(condition, value, None)


def _equals(column: Any, value: Any) -> Any:
    return column == value


def _finite(value: Any) -> Any:
    return value.abs() < float("inf")


def _mean_window(rows: Any, number: int, name: str) -> dict[str, Any]:
    value = rows[name].cast("float64")
    return {f"jaxehr_top{number}": value.abs().max(where=_finite(value))}


def _mean(number: int, name: str) -> Callable[[Any], Any]:
    """Mean as an integer sum: exact for values within 2^-8 of the bin's largest."""

    def build(marked: Any) -> Any:
        value, top = marked[name].cast("float64"), marked[f"jaxehr_top{number}"]
        power = ibis.literal(2.0) ** top.nullif(0).log2().ceil()
        scale = power.fill_null(1.0)
        finite = _finite(value)
        part = _only(finite, value) / scale
        # Two halves of 30 bits: no engine's 64-bit sum of them overflows.
        high = (part * HALF).floor()
        low = ((part * HALF - high) * HALF).round()
        high, low = (half.cast("int64").sum().cast("float64") for half in (high, low))
        total = (high * HALF + low) / HALF / HALF * scale.max()
        mean = total / finite.sum().nullif(0)
        # A single value, or one value many times, is itself and not a rounding of it.
        low, high = value.min(), value.max()
        mean = ibis.ifelse(low == high, low, mean)
        return ibis.ifelse((~finite).any(), float("nan"), mean)

    return build


def _instant_window(
    rows: Any, number: int, name: str, aggregate: str
) -> dict[str, Any]:
    """The instant whose value counts; for `nearest` one candidate on each side."""
    seen, at, point = rows[name].notnull(), rows[TIME], rows[POINT]
    if aggregate != "nearest":
        return {f"jaxehr_before{number}": at.max(where=seen)}
    return {
        f"jaxehr_before{number}": at.max(where=seen & (at <= point)),
        f"jaxehr_after{number}": at.min(where=seen & (at > point)),
    }


def _at_instant(number: int, name: str, aggregate: str) -> Callable[[Any], Any]:
    def build(marked: Any) -> Any:
        chosen = marked[f"jaxehr_before{number}"]
        if aggregate == "nearest":
            after, point = marked[f"jaxehr_after{number}"], marked[POINT]
            earlier = after.isnull() | (point - chosen <= after - point)
            chosen = ibis.ifelse(chosen.notnull() & earlier, chosen, after)
        return marked[name].max(where=marked[TIME] == chosen)

    return build


def _finish(
    grid: Any,
    id: str,
    time: str,
    names: list[str],
    features: tuple[Feature, ...],
    start: float,
    step: float,
) -> Any:
    """Names, rounding of integer means, order of rows."""
    whole = {
        f.name: grid[f.name].round().cast("float64")
        for f in features
        if f.kind == "integer" and f.aggregate == "mean"
    }
    grid = grid.mutate(**{time: start + grid[BIN].cast("float64") * step, **whole})
    return grid.select(id, time, *names).order_by([id, time])
