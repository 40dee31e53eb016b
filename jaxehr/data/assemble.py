"""The two tables of a cohort on disk to arrays, and back: exact inverses.

`static` has one row a stay: id, [group], feature columns, [label]. `temporal` has one
row a (stay, grid time): id, time, feature columns. Null = not observed; values are raw.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Label,
    Schema,
    Table,
    column_order,
    empty_table,
    make_cohort,
    valid_steps,
)
from jaxehr.core.dtypes import INTEGERS
from jaxehr.core.sparse import SparseTable
from jaxehr.data.columns import (
    TYPES,
    Place,
    as_numbers,
    decode_codes,
    decode_numeric,
    encode_codes,
    encode_numeric,
    listing,
    observed_mask,
    pc,
    plain,
    refuse_not_finite,
    refuse_rows,
    text,
)


def assemble(
    schema: Schema,
    static: pa.Table,
    temporal: pa.Table | SparseTable | None,
    provenance: dict[str, Any],
    *,
    where: tuple[str, str] = ("static", "temporal"),
    allow_missing: bool = False,
) -> Dataset:
    """The dataset of two tables in the form on disk; other columns are ignored.

    Stays are the rows of `static` in their order, then the ids that occur only in
    `temporal`. A stay whose static values are all null lacks the static part; one
    without temporal rows has length 0. Length is the last step index + 1; absent grid
    rows before it are filled as not observed.

    Args:
      temporal: times lie on schema.start + k * schema.step, 0 <= k < schema.num_steps.
        A sparse table is taken as it is; its patients are the rows of `static`.
      where: names of the two tables in messages, usually their files.
      allow_missing: whether a feature may have no value (a small synthetic cohort, a
        part of one whose features were chosen on everybody).

    Raises:
      InputError: missing column, null or repeated id or (id, time), time off the grid,
        unknown category, text or NaN in a numeric column, value outside the bounds,
        fraction in an integer column, label or group null, feature all missing, empty
        table.
    """
    sparse = isinstance(temporal, SparseTable)
    rest = None if sparse else temporal
    known, rows, ids = read_all_ids(schema, static, rest, where)
    here, there = Place(where[0], known), Place(where[1], rows)
    stays, shape = np.arange(len(known)), (len(ids), schema.num_steps)
    table = read_features(here, schema.static, static, stays, shape[:1], allow_missing)
    labels = np.zeros(len(ids), np.int32)
    if schema.label:
        labels = read_label(here, schema.label, static)
    groups = read_groups(here, schema, static, ids)
    if sparse:
        series, length = fitting(where[1], schema, temporal, len(ids)), temporal.length
    else:
        cells, length = read_grid(where[1], schema, rest, rows, ids)
        series = read_features(
            there, schema.temporal, rest, cells, shape, allow_missing
        )
    cohort = make_cohort(table, series, length, labels)
    return Dataset(schema, cohort, to_numpy(ids), groups, dict(provenance))


def fitting(
    where: str, schema: Schema, table: SparseTable, patients: int
) -> SparseTable:
    """The sparse table, which must be of the size and the kinds of the schema."""
    found = (len(table.length), table.steps, table.features)
    wanted = (patients, schema.num_steps, len(schema.temporal))
    if found != wanted:
        raise InputError(
            f"{where}: holds {found} patients, steps and columns, but the other files "
            f"{wanted}; bring the files of one cohort together."
        )
    others = [f.name for f in schema.temporal if f.kind != "binary"]
    if others:
        raise InputError(
            f"{where}: {len(others)} column(s) of the schema are not binary, e.g. "
            f"{listing(others, 3)}; a sparse table holds binary columns only."
        )
    return table


def read_all_ids(
    schema: Schema, static: pa.Table, temporal: pa.Table | None, where: tuple[str, str]
) -> tuple[Any, Any, Any]:
    """Ids of the rows of `static`, of `temporal` (or None), and of the stays."""
    label = schema.label.name if schema.label else None
    columns = [schema.id, *(f.name for f in schema.static)]
    columns += [name for name in (schema.group, label) if name]
    check_columns(static, columns, where[0])
    known = read_ids(Place(where[0]), schema, static[schema.id])
    check_distinct(Place(where[0]), schema.id, known)
    rows = None
    if temporal is not None:
        columns = [schema.id, schema.time, *(f.name for f in schema.temporal)]
        check_columns(temporal, columns, where[1])
        rows = read_ids(Place(where[1]), schema, temporal[schema.id])
    ids = all_ids(schema, known, rows, where)
    if not len(ids):
        raise InputError(f"{where[0]}: empty table; at least one stay is needed.")
    return known, rows, ids


def check_columns(table: pa.Table, columns: list[str], where: str) -> None:
    """Raises InputError unless `columns` all occur in `table`, each once."""
    names = table.column_names
    absent = [name for name in columns if name not in names]
    if absent:
        raise InputError(
            f"{where}: column(s) {listing(absent)} missing; there are: "
            f"{listing(names, 60)}."
        )
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise InputError(f"{where}: column(s) {listing(twice)} occur more than once.")


def read_ids(place: Place, schema: Schema, column: Any) -> Any:
    """The id column in the dtype of the schema; a null one is refused."""
    column = plain(column)
    rule = "every row needs an id"
    refuse_rows(place, schema.id, ~observed_mask(column), column, rule)
    try:
        return column.cast(TYPES[schema.id_dtype])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(
            f"{place.where}: column {schema.id!r}: ids must be {schema.id_dtype}, got "
            f"the type {column.type}."
        ) from None


def check_distinct(place: Place, name: str, column: Any) -> None:
    """Raises InputError when a value occurs twice."""
    counts = pc.value_counts(column)
    often = pc.greater(counts.field(1), 1)
    repeated = counts.filter(often)
    if not len(repeated):
        return
    value = repeated.field(0)[0]
    row = int(np.argmax(pc.equal(column, value).to_numpy(zero_copy_only=False)))
    raise InputError(
        f"{place.where}: column {name!r}: one row a stay is allowed, got "
        f"{repeated.field(1)[0].as_py()} rows with {text(value.as_py())} (first at "
        f"data row {row + 1}); {len(repeated)} ids are repeated."
    )


def all_ids(schema: Schema, known: Any, rows: Any, where: tuple[str, str]) -> Any:
    """Ids of `static`, then those only in `temporal`, in order of appearance."""
    if rows is None:
        return known
    others = pc.unique(rows.filter(pc.invert(pc.is_in(rows, value_set=known))))
    if len(others) and (schema.label or schema.group):
        what = schema.label.name if schema.label else schema.group
        raise InputError(
            f"{where[0]}: column {what!r}: label or group missing for {len(others)} "
            f"stay(s) of {where[1]}, e.g. id {text(others[0].as_py())}; add their rows."
        )
    return pa.concat_arrays([known, others]) if len(others) else known


def read_features(
    place: Place,
    features: tuple[Feature, ...],
    table: pa.Table | None,
    cells: np.ndarray,
    shape: tuple[int, ...],
    allow_missing: bool,
) -> Table:
    """Puts row i of `table` at flat position cells[i] of arrays of `shape`."""
    out = empty_table(shape, features)
    size = int(np.prod(shape))
    numeric, codes, seen = (leaf.reshape(size, leaf.shape[-1]) for leaf in out)
    count = numeric.shape[1]
    for feature, (is_numeric, at) in zip(features, column_order(features)):
        observed = np.zeros(0, bool)
        if table is not None:
            column = table[feature.name]
            if is_numeric:
                numeric[cells, at], observed = decode_numeric(place, feature, column)
            else:
                codes[cells, at], observed = decode_codes(
                    place, feature.name, feature.dtype, feature.categories, column
                )
            seen[cells, at if is_numeric else count + at] = observed
        if not observed.any() and not allow_missing:
            raise InputError(
                f"{place.where}: column {feature.name!r}: all {len(observed)} values "
                "are missing; leave the column out."
            )
    return out


def read_label(place: Place, label: Label, static: pa.Table) -> np.ndarray:
    """Codes int32 [stays]; a stay without a label is refused."""
    column = plain(static[label.name])
    rule = "every stay needs a label; label missing"
    refuse_rows(place, label.name, ~observed_mask(column), column, rule)
    return decode_codes(place, label.name, label.dtype, label.classes, column)[0]


def read_groups(place: Place, schema: Schema, static: pa.Table, ids: Any) -> np.ndarray:
    """The person of each stay; the stay itself when the schema names no group."""
    if schema.group is None:
        return to_numpy(ids)
    column = plain(static[schema.group])
    rule = "every stay needs a group"
    refuse_rows(place, schema.group, ~observed_mask(column), column, rule)
    if str(column.type) not in (*INTEGERS, "string", "large_string"):
        raise InputError(
            f"{place.where}: column {schema.group!r}: groups must be integers or text, "
            f"got the type {column.type}."
        )
    return to_numpy(column, keep=True)


def to_numpy(column: Any, keep: bool = False) -> np.ndarray:
    """int64 (or, with `keep`, the integer dtype of the column) or fixed-width str."""
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype == object:
        return values.astype(str)
    return values if keep else values.astype(np.int64)


def read_grid(
    where: str, schema: Schema, temporal: pa.Table | None, rows: Any, ids: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Flat grid position of each temporal row [rows], and the length of each stay."""
    length = np.zeros(len(ids), np.int32)
    if temporal is None:
        return np.zeros(0, np.int64), length
    place, name = Place(where, rows), schema.time
    column = plain(temporal[name])
    rule = "every row needs a time"
    refuse_rows(place, name, ~observed_mask(column), column, rule)
    refuse_not_finite(place, name, column)
    numbers = as_numbers(place, name, column)
    times = numbers.to_numpy(zero_copy_only=False)
    last = schema.start + (schema.num_steps - 1) * schema.step
    rule = f"times must lie in [{schema.start:g}, {last:g}]"
    position = (times - schema.start) / schema.step
    near = 1e-6  # of a step
    if column.type == pa.float32():  # what is left of a time in its seven digits
        near = near + np.spacing(np.abs(times).astype(np.float32)) / schema.step
    outside = (position < -near) | (position > schema.num_steps - 1 + near)
    refuse_rows(place, name, outside, column, rule)
    step = np.rint(position).astype(np.int64)
    rule = f"times must be multiples of {schema.step:g} from {schema.start:g}"
    refuse_rows(place, name, np.abs(position - step) > near, column, rule)
    stays = pc.index_in(rows, value_set=ids).to_numpy(zero_copy_only=False)
    cells = stays.astype(np.int64) * schema.num_steps + step
    check_cells(place, name, cells, column)
    np.maximum.at(length, stays, (step + 1).astype(np.int32))
    return cells, length


def check_cells(place: Place, name: str, cells: np.ndarray, times: Any) -> None:
    """Raises InputError when a (stay, time) occurs twice."""
    order = np.argsort(cells, kind="stable")
    again = np.zeros(len(cells), bool)
    again[order[1:]] = cells[order[1:]] == cells[order[:-1]]
    rule = "one row a (id, time) is allowed; duplicate"
    advice = "Pass --step to put the rows on a time grid."
    refuse_rows(place, name, again, times, rule, advice)


def grid_times(schema: Schema) -> np.ndarray:
    """Times [num_steps] of the grid, rounded so that 3 * 0.1 is 0.3."""
    times = schema.start + np.arange(schema.num_steps) * schema.step
    return np.round(
        times, 12 - int(np.ceil(np.log10(max(abs(times).max(initial=0), 1))))
    )


def disassemble(data: Dataset) -> tuple[pa.Table, pa.Table]:
    """The two tables of a dataset, the inverse of `assemble`.

    Columns, order, dtypes and categories are those of the schema. Every stay has a row
    in `static` (all features null when it lacks the static part), and the rows
    0..length-1 in `temporal`, those without any value included.
    """
    return static_rows(data), temporal_rows(data)


def static_rows(data: Dataset) -> pa.Table:
    """One row a stay: id, group, static features, label."""
    schema, cohort = data.schema, data.cohort
    ids = encode_ids(schema, data.ids)
    static = {schema.id: ids}
    if schema.group:
        static[schema.group] = pa.array(data.groups)
    else:
        refuse_persons(data)
    static |= write_features(schema.static, cohort.static)
    if schema.label:
        known = np.ones(len(ids), bool)
        static[schema.label.name] = encode_codes(
            schema.label.dtype, schema.label.classes, np.asarray(cohort.label), known
        )
    return pa.table(static)


def refuse_persons(data: Dataset) -> None:
    """Raises InputError where persons would be lost for want of a column."""
    others = int(np.sum(data.groups != data.ids))
    if others:
        raise InputError(
            f"cohort: the groups of {others} stay(s) are not their ids, but the schema "
            "names no column for them; give it one, e.g. "
            "data._replace(schema=data.schema.replace(group='person'))."
        )


def temporal_rows(data: Dataset) -> pa.Table:
    """One row a (stay, step before its length): id, time, temporal features."""
    schema, cohort = data.schema, data.cohort
    stays, steps = np.nonzero(valid_steps(cohort))
    times = pa.array(grid_times(schema)[steps], pa.float64())
    temporal = {
        schema.id: encode_ids(schema, data.ids).take(pa.array(stays)),
        schema.time: times.cast(TYPES[schema.time_dtype]),
    }
    rows = Table(*(np.asarray(leaf)[stays, steps] for leaf in cohort.temporal))
    temporal |= write_features(schema.temporal, rows)
    return pa.table(temporal)


def encode_ids(schema: Schema, ids: np.ndarray) -> Any:
    """The id column in its dtype on disk."""
    try:
        return pa.array(ids).cast(TYPES[schema.id_dtype])
    except pa.ArrowInvalid as error:
        raise InputError(
            f"ids do not fit dtype {schema.id_dtype!r} ({error}); take fewer patients, "
            "or prepare the cohort from tables whose ids have a wider one."
        ) from error


def write_features(features: tuple[Feature, ...], table: Table) -> dict[str, Any]:
    """Arrow columns of a table of shape [rows, features], in schema order."""
    numeric, codes, seen = (np.asarray(leaf) for leaf in table)
    columns = {}
    for feature, (is_numeric, at) in zip(features, column_order(features)):
        if is_numeric:
            columns[feature.name] = encode_numeric(feature, numeric[:, at], seen[:, at])
        else:
            observed = seen[:, numeric.shape[1] + at]
            columns[feature.name] = encode_codes(
                feature.dtype, feature.categories, codes[:, at], observed
            )
    return columns
