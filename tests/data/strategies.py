"""Hypothesis strategies for schemas and datasets of every kind and dtype."""

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from jaxehr.core.cohort import Dataset, Feature, Label, Schema, Table, make_cohort
from jaxehr.core.dtypes import FLOATS, INTEGERS, TEXTS
from jaxehr.data.columns import TYPES

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
names = st.text("abcdefgxyz_ é", min_size=1, max_size=6)


def integers(dtype: str):
    info = np.iinfo(TYPES[dtype].to_pandas_dtype())
    return st.integers(max(int(info.min), -(2**53)), min(int(info.max), 2**53))


def floats(dtype: str):
    width = 32 if dtype == "float" else 64
    return st.floats(allow_nan=False, allow_infinity=False, width=width)


def values_of(kind: str, dtype: str):
    """One value of the column as a Python value."""
    if kind == "integer" and dtype in FLOATS:
        return st.integers(-(2**20), 2**20).map(float)
    if dtype in INTEGERS:
        return integers(dtype)
    return {**dict.fromkeys(FLOATS, floats(dtype)), "bool": st.booleans()}.get(
        dtype, words
    )


@st.composite
def categories(draw, dtype: str, least: int, most: int):
    if dtype == "bool":
        return draw(st.sampled_from([(False, True), (True, False)]))[:most]
    values = values_of("categorical", dtype)
    return tuple(draw(st.lists(values, min_size=least, max_size=most, unique=True)))


@st.composite
def features(draw, name: str):
    kind = draw(
        st.sampled_from(["numeric", "integer", "binary", "categorical", "constant"])
    )
    choices = {"numeric": FLOATS, "integer": (*INTEGERS, *FLOATS)}
    dtype = draw(st.sampled_from(choices.get(kind, tuple(TYPES))))
    unit = draw(st.sampled_from(["", "mmHg"]))
    aggregate = draw(st.sampled_from(["mean", "last", "nearest"]))
    parts = {"name": name, "kind": kind, "dtype": dtype, "unit": unit}
    parts["aggregate"] = aggregate
    sizes = {"binary": (2, 2), "constant": (1, 1), "categorical": (2, 4)}
    if kind in sizes:
        return Feature(**parts, categories=draw(categories(dtype, *sizes[kind])))
    ends = sorted(draw(st.lists(values_of(kind, dtype), min_size=2, max_size=2)))
    lower, upper = draw(st.sampled_from([(None, None), (ends[0], None), tuple(ends)]))
    return Feature(**parts, lower=lower, upper=upper)


@st.composite
def schemas(draw):
    found = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    reserved = {"id", "time", "label", "group"}
    found = [f"{name}!" if name in reserved else name for name in found]
    cut = draw(st.integers(0, len(found)))
    static, temporal = found[:cut], found[cut:]
    whole = draw(st.booleans())
    return Schema(
        static=tuple(draw(features(name)) for name in static),
        temporal=tuple(draw(features(name)) for name in temporal),
        num_steps=draw(st.integers(1, 4)) if temporal else 0,
        id_dtype=draw(st.sampled_from((*INTEGERS[:-1], *TEXTS))),
        time_dtype=draw(st.sampled_from(("int16", "int64"))) if whole else "double",
        time_unit=draw(st.sampled_from(["h", "day"])),
        start=draw(st.sampled_from([0.0, 5.0])),
        step=draw(st.sampled_from([1.0, 6.0] if whole else [0.1, 0.25, 1 / 3])),
        label=draw(st.none() | labels()),
        group=draw(st.sampled_from([None, "group"])),
    )


@st.composite
def labels(draw):
    dtype = draw(st.sampled_from(["int64", "int8", "bool", "string", "double"]))
    return Label(name="label", classes=draw(categories(dtype, 2, 3)), dtype=dtype)


@st.composite
def tables(draw, shape: tuple[int, ...], features: tuple[Feature, ...]):
    """A Table with values drawn in the kind, dtype and bounds of each feature."""
    numeric, codes, seen = [], [], {True: [], False: []}
    count = int(np.prod(shape))
    for feature in features:
        observed = st.lists(st.booleans(), min_size=count, max_size=count)
        seen[feature.is_numeric].append(np.array(draw(observed), bool).reshape(shape))
        if feature.is_numeric:
            low = -np.inf if feature.lower is None else feature.lower
            high = np.inf if feature.upper is None else feature.upper
            values = values_of(feature.kind, feature.dtype)
            values = values.map(
                lambda v, low=low, high=high: float(min(max(v, low), high))
            )
            drawn = draw(st.lists(values, min_size=count, max_size=count))
            numeric.append(np.array(drawn, np.float64).reshape(shape))
        else:
            values = st.integers(0, feature.cardinality - 1)
            drawn = draw(st.lists(values, min_size=count, max_size=count))
            codes.append(np.array(drawn, np.int32).reshape(shape))

    def stack(parts, dtype):
        return np.stack(parts, -1) if parts else np.zeros((*shape, 0), dtype)

    return Table(
        stack(numeric, np.float64),
        stack(codes, np.int32),
        stack(seen[True] + seen[False], bool),
    )


@st.composite
def datasets(draw):
    schema = draw(schemas())
    count = draw(st.integers(1, 5))
    text = schema.id_dtype in TEXTS
    one = words if text else integers(schema.id_dtype)
    ids = draw(st.lists(one, min_size=count, max_size=count, unique=True))
    length = draw(
        st.lists(st.integers(0, schema.num_steps), min_size=count, max_size=count)
    )
    label = st.integers(0, max(schema.num_classes - 1, 0))
    cohort = make_cohort(
        draw(tables((count,), schema.static)),
        draw(tables((count, schema.num_steps), schema.temporal)),
        np.array(length),
        np.array(draw(st.lists(label, min_size=count, max_size=count))),
    )
    ids = np.array(ids, str if text else np.int64)
    groups = ids
    if schema.group:
        person = st.lists(st.integers(0, 2), min_size=count, max_size=count)
        kind = draw(st.sampled_from([np.int64, np.int16, str]))
        groups = np.array(draw(person)).astype(kind)
    return Dataset(schema, cohort, ids, groups, {"source": "strategy", "n": count})


def arrow_types(schema: Schema) -> tuple[pa.Schema, pa.Schema]:
    """The columns, order and Arrow types that the two files must have (no group)."""
    label = [(schema.label.name, TYPES[schema.label.dtype])] if schema.label else []
    ident = (schema.id, TYPES[schema.id_dtype])
    return pa.schema(
        [ident, *((f.name, TYPES[f.dtype]) for f in schema.static), *label]
    ), pa.schema(
        [
            ident,
            (schema.time, TYPES[schema.time_dtype]),
            *((f.name, TYPES[f.dtype]) for f in schema.temporal),
        ]
    )
