"""A cohort as a MEDS dataset: the inverse of `jaxehr.data.meds`.

Time 0 of every subject is `EPOCH`; `START` and `END` mark its first and last row.
Numbers have 32 bits there. A temporal category is a `text_value`, a static one a code
`NAME//VALUE`, the label `LABEL//NAME//CLASS`; a column `age` in years is a birth. Of a
sparse table only the ones are events, without a value.
A subject is a stay: how long after another stay of its person it began is not known, so
the two have no common time line. The static code `PERSON//ID` names the person.
Subjects whose ids are no whole numbers are numbered from 0.
"""

import datetime
import importlib.metadata
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxehr.core.checks import known
from jaxehr.core.cohort import Dataset, Feature, Schema, valid_steps
from jaxehr.core.files import PathLike, new_folder, write_json
from jaxehr.core.sparse import SparseTable
from jaxehr.data.assemble import static_rows, temporal_rows
from jaxehr.data.columns import pc
from jaxehr.data.events import DONE
from jaxehr.data.meds import (
    AGE,
    BIRTH,
    END,
    HOUR,
    JOIN,
    LABEL,
    PERSON,
    SECOND,
    START,
    SUBJECT,
    YEAR,
    load_meds,
)

EPOCH = datetime.datetime(2000, 1, 1)
SECONDS = {"s": 1, "min": 60, "h": HOUR, "d": 24 * HOUR, "a": YEAR}
SPLITS = ("train", "tuning", "held_out")


def save_meds(data: Dataset, path: PathLike, *, split: str = "train") -> None:
    """Writes data/SPLIT/0.parquet and metadata/, whole or not at all.

    Raises:
      InputError: the package `meds` is not installed; another split; a time unit that
        is none of `SECONDS`; `path` exists.
    """
    schemas = load_meds()
    known("split", split, SPLITS)
    if data.schema.temporal:
        known("time unit", data.schema.time_unit, SECONDS)
    subjects = data.ids
    if subjects.dtype.kind != "i":
        subjects = np.arange(len(data.ids))
    events = schemas.DataSchema.align(make_events(data, subjects))
    splits = pa.table({SUBJECT: np.sort(subjects), "split": [split] * len(subjects)})
    info = {
        "dataset_name": "jaxehr cohort",
        "etl_name": "jaxehr",
        "etl_version": importlib.metadata.version("jaxehr"),
        "meds_version": importlib.metadata.version("meds"),
    }
    schemas.DatasetMetadataSchema.validate(info)
    with new_folder(path) as folder:
        write(folder / schemas.data_subdirectory / split / "0.parquet", events)
        codes = schemas.CodeMetadataSchema.align(make_codes(data, events))
        write(folder / schemas.code_metadata_filepath, codes)
        splits = schemas.SubjectSplitSchema.align(splits)
        write(folder / schemas.subject_splits_filepath, splits)
        write_json(folder / schemas.dataset_metadata_filepath, info)


def write(path: pathlib.Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def make_events(data: Dataset, subjects: np.ndarray) -> pa.Table:
    """All events, sorted by subject and time, static ones first."""
    schema = data.schema
    static = static_rows(data)
    parts = [
        static_events(feature, subjects, static[feature.name])
        for feature in schema.static
    ]
    if schema.label:
        name = LABEL + JOIN + schema.label.name
        parts.append(value_codes(name, subjects, static[schema.label.name]))
    if schema.group:
        parts.append(value_codes(PERSON, subjects, static[schema.group]))
    if schema.temporal:
        parts += dated_events(data, subjects)
    events = pa.concat_tables(parts)
    if not len(events):
        return events
    events = events.append_column("dated", events["time"].is_valid())
    keys = [(name, "ascending") for name in (SUBJECT, "dated", "time", "code")]
    return events.sort_by(keys).drop_columns(["dated"])


def dated_events(data: Dataset, subjects: np.ndarray) -> list[pa.Table]:
    """The temporal columns, and `START` and `END` of each subject with steps."""
    schema, table = data.schema, data.cohort.temporal
    unit = SECONDS[schema.time_unit]
    if isinstance(table, SparseTable):
        parts = [ones(schema, table, subjects, unit)]
    else:
        parts = column_events(data, subjects, unit)
    length = np.asarray(data.cohort.length)
    has = length > 0
    zero = moments(np.zeros(has.sum()))
    last = moments((length[has] - 1) * schema.step * unit)
    parts.append(event_table(subjects[has], zero, START))
    parts.append(event_table(subjects[has], last, END))
    return parts


def ones(
    schema: Schema, table: SparseTable, subjects: np.ndarray, unit: int
) -> pa.Table:
    """An event without a value for every 1 of a sparse table."""
    step, column = np.divmod(table.cells, max(table.features, 1))
    names = pa.array([feature.name for feature in schema.temporal], pa.string())
    times = moments(step * schema.step * unit)
    return event_table(np.repeat(subjects, table.counts), times, names.take(column))


def column_events(data: Dataset, subjects: np.ndarray, unit: int) -> list[pa.Table]:
    """The events of each column of a dense temporal table."""
    schema = data.schema
    rows = temporal_rows(data)
    owner = np.repeat(subjects, np.asarray(data.cohort.length))
    steps = np.nonzero(valid_steps(data.cohort))[1]
    times = moments(steps * schema.step * unit)
    parts = []
    for feature in schema.temporal:
        seen = rows[feature.name].is_valid().combine_chunks()
        values = rows[feature.name].filter(seen)
        mask = seen.to_numpy(zero_copy_only=False)
        parts.append(
            event_table(
                owner[mask],
                times.filter(seen),
                feature.name,
                number=values if feature.is_numeric else None,
                text=None if feature.is_numeric else words(feature, values),
            )
        )
    return parts


def words(feature: Feature, values: Any) -> Any:
    """Categories as text; a constant `done` has no value."""
    return None if feature.categories == (DONE,) else values.cast(pa.string())


def static_events(feature: Feature, subjects: np.ndarray, column: Any) -> pa.Table:
    """Events without a time of one static column; `age` becomes the birth."""
    if not feature.is_numeric:
        return value_codes(feature.name, subjects, column)
    seen = column.is_valid().combine_chunks()
    values = column.filter(seen)
    owner = subjects[seen.to_numpy(zero_copy_only=False)]
    if feature.name == AGE and feature.unit == "a":
        born = moments(-values.to_numpy() * YEAR)
        return event_table(owner, born, BIRTH)
    return event_table(owner, None, feature.name, number=values)


def value_codes(name: str, subjects: np.ndarray, column: Any) -> pa.Table:
    """Static codes NAME//VALUE of the rows that have a value."""
    seen = column.is_valid().combine_chunks()
    texts = column.filter(seen).cast(pa.string())
    codes = pc.binary_join_element_wise(name, texts, JOIN)
    return event_table(subjects[seen.to_numpy(zero_copy_only=False)], None, codes)


def moments(seconds: np.ndarray) -> pa.Array:
    """Times `seconds` after `EPOCH`, up to the next microsecond.

    A time that was rounded down would lie in the step before its own.
    """
    parts = np.round(np.asarray(seconds, np.float64) * SECOND, 3)
    whole = np.ceil(parts).astype("timedelta64[us]")
    return pa.array(np.datetime64(EPOCH, "us") + whole)


def event_table(
    owner: np.ndarray, times: Any, code: Any, number: Any = None, text: Any = None
) -> pa.Table:
    """Events of one code, or of one code each, in the columns of MEDS."""
    count = len(owner)
    kinds = {"time": pa.timestamp("us"), "numeric_value": pa.float32()}
    kinds |= {"text_value": pa.large_string()}
    columns = {"time": times, "numeric_value": number, "text_value": text}
    filled = {
        name: pa.nulls(count, kind)
        if columns[name] is None
        else cast(columns[name], kind)
        for name, kind in kinds.items()
    }
    single = isinstance(code, str)
    codes = pa.repeat(code, count) if single else cast(code, pa.string())
    return pa.table({SUBJECT: pa.array(owner, pa.int64()), "code": codes, **filled})


def cast(column: Any, kind: pa.DataType) -> Any:
    """The column in another type; numbers are rounded to 32 bits."""
    return column.cast(kind, safe=not pa.types.is_floating(kind))


def make_codes(data: Dataset, events: pa.Table) -> pa.Table:
    """Every code with its unit as description."""
    features = (*data.schema.static, *data.schema.temporal)
    units = {f.name: f"unit {f.unit}" for f in features if f.unit}
    codes = sorted(pc.unique(events["code"]).to_pylist())
    return pa.table(
        {
            "code": pa.array(codes, pa.string()),
            "description": pa.array([units.get(c) for c in codes], pa.string()),
            "parent_codes": pa.nulls(len(codes), pa.list_(pa.string())),
        }
    )
