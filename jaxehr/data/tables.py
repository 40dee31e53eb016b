"""Any two tables as a cohort: CSV, CSV.GZ or Parquet, schema inferred or edited.

The work is done by DuckDB through Ibis with bounded memory; only the finished grid
comes into memory.
"""

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, Feature, Schema
from jaxehr.core.files import read_json
from jaxehr.data.assemble import assemble, check_distinct
from jaxehr.data.columns import TYPES, Place, bounds, listing, pc, refuse_rows
from jaxehr.data.gridding import grid_wide
from jaxehr.data.infer import (
    CANONICAL,
    EMPTY,
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
    not_finite,
    number,
    open_tables,
    refuse_any,
    scalar,
)
from jaxehr.data.schema_json import schema_from_json

__all__ = ["HEADER", "TablesOptions", "infer_schema", "read", "schema_table"]

HEADER = ("column", "table", "kind", "dtype", "values", "missing", "unit")
MOST_CELLS = 4_000_000_000


def read(options: TablesOptions) -> Dataset:
    """Reads the files of `options` as a cohort.

    Raises:
      InputError: see `infer_schema`; with an edited schema also a value that it does
        not allow; an id of `labels` that no table has; a stay without a label.
    """
    with open_tables(options) as raws:
        schema = read_schema(options) if options.schema else infer_opened(raws, options)
        check_features(raws, schema)
        static = read_static(raws, schema)
        temporal = None
        if raws.temporal:
            if options.schema:
                check_times(raws.temporal, schema.id, schema.time)
            check_size(raws.temporal, schema, static.num_rows)
            temporal = read_temporal(raws.temporal, schema, options)
    files = {
        name: pathlib.Path(path).name
        for name in ("static", "temporal", "labels", "schema")
        if (path := getattr(options, name))
    }
    provenance = {"source": "tables", "files": files, "binned": options.step > 0}
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
    for name, ours, given in pairs:
        if ours != given:
            raise InputError(
                f"{options.schema}: {name} is {ours!r} there and {given!r} in the "
                "options; make them the same."
            )
    return schema


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
    if not feature.is_numeric:
        values = typed(raw, name, feature.dtype)
        known = values.isin(list(feature.categories)).fill_null(False)
        rule = f"unknown category; known: {listing(feature.categories)}"
        return [Rule(name, column.notnull() & ~known, rule)]
    value = number(raw, name)
    lower, upper = bounds(feature)
    strange = (column.notnull() & value.isnull()) | not_finite(value)
    outside = (value < lower) | (value > upper)
    rules = [Rule(name, strange, "values must be finite numbers", EMPTY)]
    if feature.kind == "integer":
        rules.append(Rule(name, value != value.round(), "values must be integers"))
    return [*rules, Rule(name, outside, f"values must lie in [{lower}, {upper}]")]


def feature_columns(raw: Raw, features: tuple[Feature, ...]) -> dict[str, Any]:
    """The feature columns of a file as numbers or categories."""
    return {
        f.name: number(raw, f.name) if f.is_numeric else typed(raw, f.name, f.dtype)
        for f in features
    }


def read_ids(raw: Raw, schema: Schema) -> Any:
    """The id column of a file, in the dtype of the schema."""
    missing = raw.table[schema.id].isnull()
    ids = typed(raw, schema.id, schema.id_dtype)
    rules = [
        Rule(schema.id, missing, "every row needs an id"),
        Rule(schema.id, ids.isnull(), f"ids must be {schema.id_dtype}"),
    ]
    refuse_any(raw, rules)
    return ids


def read_static(raws: RawTables, schema: Schema) -> pa.Table:
    """One row a stay of either file: id, group, static features, label."""
    raw, label = raws.static, schema.label
    dtype = TYPES[schema.id_dtype]
    static = pa.table({schema.id: pa.array([], dtype)})
    if raw:
        columns = {schema.id: read_ids(raw, schema)}
        if schema.group:
            columns[schema.group] = raw_group(raw, schema.group)
        columns |= feature_columns(raw, schema.static)
        if label and not raws.labels:
            columns[label.name] = typed(raw, label.name, label.dtype)
        static = raw.table.order_by(ROW).select(**columns).to_pyarrow()
        ids = static[schema.id].cast(dtype)
        static = static.set_column(0, schema.id, ids)
        check_distinct(Place(raw.path), schema.id, ids.combine_chunks())
    if raws.temporal and (raws.labels or not label):
        table = raws.temporal.table.select(
            **{schema.id: read_ids(raws.temporal, schema), ROW: ROW}
        )
        first = table.group_by(schema.id).aggregate(**{ROW: table[ROW].min()})
        ids = first.order_by(ROW).select(schema.id).to_pyarrow()[schema.id].cast(dtype)
        new = pc.invert(pc.is_in(ids, value_set=static[schema.id].combine_chunks()))
        extra = pa.table({schema.id: ids.filter(new)})
        static = pa.concat_tables([static, extra], promote_options="default")
    return join_labels(raws.labels, schema, static) if raws.labels else static


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


def check_size(raw: Raw, schema: Schema, stays: int) -> None:
    """Refuses a grid that no memory holds: usually one wrong time, or a tiny step."""
    cells = stays * schema.num_steps * max(len(schema.temporal), 1)
    if cells > MOST_CELLS:
        last = schema.start + (schema.num_steps - 1) * schema.step
        raise InputError(
            f"{raw.path}: {stays} stays of {schema.num_steps} steps (times up to "
            f"{last:g}) do not fit in memory; pass --hours, or a larger --step."
        )


def read_temporal(raw: Raw, schema: Schema, options: TablesOptions) -> pa.Table:
    """The temporal rows on the grid of the schema, cut off after the window."""
    columns = {schema.id: read_ids(raw, schema), schema.time: number(raw, schema.time)}
    columns |= feature_columns(raw, schema.temporal)
    rows = raw.table.order_by(ROW).select(**columns)
    if options.hours:
        end = schema.start + (schema.num_steps - 1e-6) * schema.step
        rows = rows.filter(rows[schema.time] < end)
    if options.step:
        rows = grid_wide(
            rows,
            id=schema.id,
            time=schema.time,
            features=schema.temporal,
            start=schema.start,
            step=schema.step,
            num_steps=schema.num_steps,
        )
    return rows.to_pyarrow()


def schema_table(schema: Schema, data: Dataset | None = None) -> list[list[str]]:
    """Rows under `HEADER` to print a schema for review.

    Args:
      data: the cohort, for the share of missing values; without it that cell is empty.
    """
    rows = []
    for part in ("static", "temporal"):
        features = getattr(schema, part)
        shares = missing_shares(data, part) if data else {}
        for f in features:
            values = listing(f.categories, 6)
            if f.is_numeric:
                values = f"{ends(f.lower)} .. {ends(f.upper)}"
            share = shares.get(f.name, "")
            rows.append([f.name, part, f.kind, f.dtype, values, share, f.unit])
    if schema.label:
        values = listing(schema.label.classes, 6)
        rows.append(
            [schema.label.name, "label", "", schema.label.dtype, values, "", ""]
        )
    return rows


def ends(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def missing_shares(data: Dataset, part: str) -> dict[str, str]:
    """Share of missing values of each feature, over stays or valid steps."""
    features, seen = getattr(data.schema, part), getattr(data.cohort, part).observed
    ordered = [f for f in features if f.is_numeric] + [
        f for f in features if not f.is_numeric
    ]
    total = data.cohort.length.sum() if part == "temporal" else len(data.ids)
    counts = np.asarray(seen).sum(axis=tuple(range(seen.ndim - 1)))
    return {
        f.name: f"{1 - count / max(total, 1):.1%}" for f, count in zip(ordered, counts)
    }
