"""Any two tables as a cohort: CSV, CSV.GZ or Parquet, schema inferred or edited.

The work is done by DuckDB through Ibis with bounded memory; only the finished grid
comes into memory.
"""

import pathlib
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, Feature, Schema
from jaxehr.core.dtypes import FLOATS, TEXTS
from jaxehr.core.files import read_json
from jaxehr.core.sizes import size_in_bytes
from jaxehr.data.assemble import assemble, check_distinct
from jaxehr.data.columns import (
    TOO_LARGE,
    TYPES,
    Place,
    bounds,
    listing,
    pc,
    refuse_rows,
    text,
)
from jaxehr.data.gridding import count_steps, grid_wide, in_bins
from jaxehr.data.infer import (
    CANONICAL,
    check_ids,
    check_times,
    infer_opened,
    infer_schema,
    typed,
)
from jaxehr.data.raw_tables import (
    ROW,
    Raw,
    RawTables,
    Rule,
    TablesOptions,
    is_fraction,
    not_finite,
    number,
    open_tables,
    parsed,
    refuse_any,
    scalar,
    times,
    too_large,
)
from jaxehr.data.schema_json import schema_from_json
from jaxehr.data.shards import dense_bytes
from jaxehr.data.texts import empty

__all__ = ["TablesOptions", "infer_schema", "read"]

COPIES = 3  # of the arrays of a cohort while it is read: filled, cleared, written


def read(options: TablesOptions) -> Dataset:
    """Reads the files of `options` as a cohort.

    Raises:
      InputError: see `infer_schema`; with an edited schema also a value that it does
        not allow; an id of `labels` that no table has; a stay without a label.
    """
    with open_tables(options) as raws:
        schema = read_schema(options) if options.schema else infer_opened(raws, options)
        check_features(raws, schema)
        static, alone = read_static(raws, schema)
        temporal, outside = None, {}
        if raws.temporal:
            if options.schema:
                check_times(raws.temporal, options)
                check_window(raws.temporal, schema, options)
            check_size(raws.temporal, schema, static.num_rows, options)
            temporal, outside = read_temporal(raws.temporal, schema, options)
    files = {
        name: pathlib.Path(path).name
        for name in ("static", "temporal", "labels", "schema")
        if (path := getattr(options, name))
    }
    provenance = {"source": "tables", "files": files, "binned": options.step > 0}
    provenance |= {"unmatched": alone, "outside": outside}
    where = (options.static or options.labels or options.temporal, options.temporal)
    return assemble(schema, static, temporal, provenance, where=where)


def read_schema(options: TablesOptions) -> Schema:
    """The edited schema; its column names and step have to be those of the options."""
    schema = schema_from_json(read_json(options.schema), options.schema)
    label = schema.label.name if schema.label else ""
    pairs = [("id", schema.id, options.id), ("label", label, options.label)]
    pairs += [("group", schema.group or "", options.group)]
    if options.temporal:
        pairs += [("time", schema.time, options.time)]
    if options.step:
        pairs += [("step", schema.step, options.step)]
    if options.time_unit:
        pairs += [("time unit", schema.time_unit, options.time_unit)]
    for name, ours, given in pairs:
        if ours != given:
            raise InputError(
                f"{options.schema}: {name} is {ours!r} there and {given!r} in the "
                "options; make them the same."
            )
    columns = [(f.name, f.categories) for f in (*schema.static, *schema.temporal)]
    columns += [(schema.label.name, schema.label.classes)] if schema.label else []
    for name, values in columns:
        lost = {"", *options.missing_values} & set(map(str, values))
        if lost:
            raise InputError(
                f"{options.schema}: column {name!r}: {min(lost)!r} is a category there "
                "and a missing value by --missing-values; it cannot be both."
            )
    return schema


def check_window(raw: Raw, schema: Schema, options: TablesOptions) -> None:
    """Refuses a schema whose grid does not hold what lies in `options.hours`."""
    if not options.hours:
        return
    value = times(raw, schema.time) - schema.start
    ours = schema.num_steps
    given = count_steps(options.hours, schema.step, width_name="step")
    # 1e-6 of a step, as in `assemble`.
    after = (value >= (ours - 1e-6) * schema.step) & (
        value < (given - 1e-6) * schema.step
    )
    if ours > given or scalar(after.any()):
        raise InputError(
            f"{options.schema}: the window is {ours * schema.step:g} "
            f"{schema.time_unit} there ({ours} steps) and {options.hours:g} in the "
            "options; make them the same."
        )


def check_features(raws: RawTables, schema: Schema) -> None:
    """Refuses the first value that the schema does not allow, with its row."""
    for raw, features in (
        (raws.static, schema.static),
        (raws.temporal, schema.temporal),
    ):
        rules = []
        for feature in features:
            if raw is None or feature.name not in raw.types:
                have = listing(raw.types, 60) if raw else "no such file was given"
                raise InputError(
                    f"{raw.path if raw else 'tables'}: column {feature.name!r} of the "
                    f"schema is missing; there are: {have}."
                )
            rules += feature_rules(raw, feature)
        if raw:
            refuse_any(raw, rules, schema.id)


def feature_rules(raw: Raw, feature: Feature) -> list[Rule]:
    """What the values of one column may not be, in the order of the messages."""
    name, column = feature.name, raw.table[feature.name]
    exact = Rule(name, too_large(raw, name), *TOO_LARGE)
    if not feature.is_numeric:
        values = typed(raw, name, feature.dtype)
        known = values.isin(list(feature.categories)).fill_null(False)
        rule = f"unknown category; known: {listing(feature.categories)}"
        rules = [Rule(name, column.notnull() & ~known, rule)]
        return [exact, *rules] if feature.dtype in FLOATS else rules
    value = number(raw, name)
    lower, upper = bounds(feature)
    strange = (column.notnull() & value.isnull()) | not_finite(value)
    outside = (value < lower) | (value > upper)
    finite = "values must be finite numbers"
    rules = [Rule(name, strange, finite, empty(raw, name)), exact]
    if feature.kind == "integer":
        rules.append(Rule(name, is_fraction(value), "values must be integers"))
    return [*rules, Rule(name, outside, f"values must lie in [{lower}, {upper}]")]


def feature_columns(raw: Raw, features: tuple[Feature, ...]) -> dict[str, Any]:
    """The feature columns of a file as numbers or categories."""
    return {
        f.name: number(raw, f.name) if f.is_numeric else typed(raw, f.name, f.dtype)
        for f in features
    }


def read_ids(raw: Raw, schema: Schema) -> Any:
    """The id column of a file, in the dtype of the schema."""
    check_ids(raw, schema.id)
    ids, broken = raw.table[schema.id], False
    if raw.types[schema.id] in FLOATS:
        ids = ids.try_cast("int64")  # also where other ids are text: 7 and not 7.0
    if schema.id_dtype in TEXTS:
        ids = ids.cast("string")
    else:
        value = number(raw, schema.id)
        ids = parsed(ids, "int64") if ids.type().is_string() else ids
        ids, broken = ids.try_cast(schema.id_dtype), is_fraction(value)
    rule = f"ids must be {schema.id_dtype}"
    refuse_any(raw, [Rule(schema.id, ids.isnull() | broken, rule)])
    return ids


def read_static(raws: RawTables, schema: Schema) -> tuple[pa.Table, dict[str, int]]:
    """One row a stay of either file: id, group, static features, label.

    Returns:
      The table; and, of two files, how many stays are in one of them only.
    """
    static, alone = pa.table({schema.id: pa.array([], TYPES[schema.id_dtype])}), {}
    if raws.static:
        static = static_rows(raws.static, schema, bool(raws.labels))
    if raws.temporal:
        ids = series_ids(raws.temporal, schema)
        known = static[schema.id].combine_chunks()
        new = ids.filter(pc.invert(pc.is_in(ids, value_set=known)))
        if raws.static:
            alone = {"static": len(known) + len(new) - len(ids), "temporal": len(new)}
            refuse_strangers(raws, schema.id, known, ids, len(new))
        if raws.labels or not schema.label:
            extra = pa.table({schema.id: new})
            static = pa.concat_tables([static, extra], promote_options="default")
    static = join_labels(raws.labels, schema, static) if raws.labels else static
    return static, alone


def static_rows(raw: Raw, schema: Schema, labelled: bool) -> pa.Table:
    """The rows of the static file; its label too, unless `labelled` elsewhere."""
    columns, label = {schema.id: read_ids(raw, schema)}, schema.label
    if schema.group:
        columns[schema.group] = raw_group(raw, schema.group)
    columns |= feature_columns(raw, schema.static)
    if label and not labelled:
        columns[label.name] = typed(raw, label.name, label.dtype)
    static = raw.table.order_by(ROW).select(**columns).to_pyarrow()
    ids = static[schema.id].cast(TYPES[schema.id_dtype])  # string to large_string
    check_distinct(Place(raw.path), schema.id, ids.combine_chunks())
    return static.set_column(0, schema.id, ids)


def series_ids(raw: Raw, schema: Schema) -> Any:
    """The ids of the temporal file in order of appearance, each once."""
    table = raw.table.select(**{schema.id: read_ids(raw, schema), ROW: ROW})
    first = table.group_by(schema.id).aggregate(**{ROW: table[ROW].min()})
    ids = first.order_by(ROW).select(schema.id).to_pyarrow()[schema.id]
    return ids.cast(TYPES[schema.id_dtype]).combine_chunks()


def refuse_strangers(
    raws: RawTables, name: str, known: Any, ids: Any, new: int
) -> None:
    """Raises InputError when no stay of the static file is in the temporal one."""
    if new == len(ids):
        assert raws.static is not None
        assert raws.temporal is not None
        raise InputError(
            f"{raws.static.path} and {raws.temporal.path}: column {name!r}: no id is "
            f"in both, e.g. {text(known[0].as_py())} there and {text(ids[0].as_py())} "
            "here; give a stay the same id in both files, or prepare one of them alone."
        )


def raw_group(raw: Raw, name: str) -> Any:
    """The group column: integers when a CSV holds plain integers only, else text."""
    column = raw.table[name]
    if not column.type().is_string():
        return column
    plain = scalar(column.re_search(CANONICAL).all())
    return column.cast("int64") if plain else column


def join_labels(raw: Raw, schema: Schema, static: pa.Table) -> pa.Table:
    """Adds the label of each stay from the file of labels."""
    label = schema.label
    assert label is not None  # TablesOptions: --labels comes with --label
    columns = {schema.id: read_ids(raw, schema)}
    columns[label.name] = typed(raw, label.name, label.dtype)
    labels = raw.table.order_by(ROW).select(**columns).to_pyarrow()
    ids = labels[schema.id].cast(TYPES[schema.id_dtype]).combine_chunks()
    stays = static[schema.id].combine_chunks()
    check_distinct(Place(raw.path), schema.id, ids)
    strange = pc.invert(pc.is_in(ids, value_set=stays)).to_numpy(zero_copy_only=False)
    rule = "every id has to occur in the static or the temporal table"
    refuse_rows(Place(raw.path), schema.id, np.asarray(strange, bool), ids, rule)
    place = pc.index_in(stays, value_set=ids)
    missing = np.asarray(place.is_null().to_numpy(zero_copy_only=False), bool)
    if missing.any():
        first = stays[int(np.argmax(missing))].as_py()
        raise InputError(
            f"{raw.path}: label missing for {missing.sum()} of {len(stays)} stays, "
            f"e.g. id {first!r}; add their rows."
        )
    return static.append_column(label.name, labels[label.name].take(place))


def check_size(raw: Raw, schema: Schema, stays: int, options: TablesOptions) -> None:
    """Refuses a grid that takes too much memory: one wrong time, or a tiny step."""
    need, limit = COPIES * dense_bytes(schema, stays), options.memory_limit
    if need <= size_in_bytes("memory_limit", limit):
        return
    if options.hours and not options.schema:
        raise InputError(
            f"{raw.path}: {stays} stays of {schema.num_steps} steps, for --hours "
            f"{options.hours:g}, need {need / 1e9:.1f} GB, more than --memory-limit "
            f"{limit}; pass smaller --hours, a larger --step or a larger "
            "--memory-limit."
        )
    time = times(raw, schema.time)
    rows = raw.table.select(id=raw.table[schema.id], time=time, row=raw.table[ROW])
    last = rows.order_by([ibis.desc("time"), "row"]).limit(1).to_pyarrow()
    found = last.to_pylist()[0]
    raise InputError(
        f"{raw.path}: {stays} stays of {schema.num_steps} steps need "
        f"{need / 1e9:.1f} GB, more than --memory-limit {limit}; the longest is id "
        f"{text(found['id'])} with the time {found['time']:g} at data row "
        f"{found['row']}. Correct it, or pass --hours, a larger --step or a larger "
        "--memory-limit."
    )


def read_temporal(
    raw: Raw, schema: Schema, options: TablesOptions
) -> tuple[pa.Table, dict[str, int]]:
    """The temporal rows on the grid of the schema, cut off after the window.

    Returns:
      The table; and how many rows were cut off, and stays that have no other row.
    """
    if options.step and not schema.temporal:
        raise InputError(f"{raw.path}: has no column beside id and time to bin.")
    columns = {schema.id: read_ids(raw, schema), schema.time: times(raw, schema.time)}
    columns |= feature_columns(raw, schema.temporal)
    rows = raw.table.order_by(ROW).select(**columns)
    start, step, num_steps = schema.start, schema.step, schema.num_steps
    grid: dict[str, Any] = {"start": start, "step": step, "num_steps": num_steps}
    inside = ibis.literal(True)
    if options.hours:
        inside &= rows[schema.time] < start + (num_steps - 1e-6) * step
    if options.step:
        inside &= in_bins(rows[schema.time], schema.temporal, **grid)
    outside = cut_off(rows, inside, schema.id)
    rows = rows.filter(inside)
    if options.step:
        names = {"id": schema.id, "time": schema.time}
        rows = grid_wide(rows, features=schema.temporal, **names, **grid)
    return rows.to_pyarrow(), outside


def cut_off(rows: Any, inside: Any, id: str) -> dict[str, int]:
    """How many rows are not `inside`, and how many stays have no other row."""
    marked = rows.select(id=rows[id], inside=inside)
    counts = marked.group_by("id").aggregate(
        all=marked.count(), inside=marked["inside"].sum()
    )
    gone = counts["all"] - counts["inside"]
    found = counts.aggregate(rows=gone.sum(), stays=(counts["inside"] == 0).sum())
    return found.to_pyarrow().to_pylist()[0]
