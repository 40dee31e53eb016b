"""Small cohorts of every kind of column, dense and sparse, for tests of any layer."""

import numpy as np

from jaxehr.core import sparse
from jaxehr.core.cohort import (
    Cohort,
    Feature,
    Label,
    Schema,
    Table,
    empty_table,
    make_cohort,
    rows_of,
)

STEPS = 4
STATIC = (
    Feature(name="age", kind="integer", dtype="int64"),
    Feature(name="unit", kind="categorical", categories=tuple("abcd"), dtype="string"),
    Feature(name="site", kind="constant", categories=("x",), dtype="string"),
)
TEMPORAL = (
    Feature(name="hr", kind="numeric", lower=0.0),
    Feature(name="rhythm", kind="categorical", categories=(1, 2, 3), dtype="int64"),
    Feature(name="ward", kind="constant", categories=("w",), dtype="string"),
    Feature(name="lab", kind="numeric"),
    Feature(name="vent", kind="binary", categories=(0, 1), dtype="int64"),
)


def schema(*, static=STATIC, temporal=TEMPORAL, classes=2):
    label = Label(name="died", classes=tuple(range(classes))) if classes else None
    steps = STEPS if temporal else 0
    return Schema(static=static, temporal=temporal, num_steps=steps, label=label)


def values(rng, feature, shape):
    if feature.kind == "integer":
        return rng.integers(20, 90, shape)
    if feature.name == "lab":  # zero-inflated, and as fine as a double
        return np.where(rng.random(shape) < 0.4, 0.0, rng.lognormal(size=shape))
    return np.round(rng.normal(80, 10, shape), 1)


def table(rng, features, shape, missing):
    if not features:
        return empty_table(shape, features)
    numeric = [values(rng, f, shape) for f in features if f.is_numeric]
    codes = [
        rng.integers(f.cardinality, size=shape) for f in features if not f.is_numeric
    ]
    stack = lambda arrays, dtype: (
        np.stack(arrays, -1).astype(dtype) if arrays else np.zeros((*shape, 0), dtype)
    )
    observed = rng.random((*shape, len(features))) >= missing
    return Table(stack(numeric, np.float64), stack(codes, np.int32), observed)


def cohort(made: Schema, *, seed=0, count=60, missing=0.2, variable=True) -> Cohort:
    """Independent columns; lengths from 0 with `variable`; some without static part."""
    rng = np.random.default_rng(seed)
    static = table(rng, made.static, (count,), missing)
    static.observed[:3] = static.observed[:3] & (not variable)
    temporal = table(rng, made.temporal, (count, made.num_steps), missing)
    length = np.full(count, made.num_steps)
    if variable:
        length = rng.integers(0, made.num_steps + 1, count)
    label = rng.integers(max(made.num_classes, 1), size=count)
    return make_cohort(static, temporal, length, label)


def complete(people: Cohort) -> Cohort:
    """The patients who have both parts."""
    return rows_of(people, people.has_static & people.has_temporal)


def assert_cohorts(found: Cohort, wanted: Cohort, rtol: float = 0.0) -> None:
    """Raises unless two cohorts are equal, numbers within `rtol`."""
    for part in ("static", "temporal"):
        a, b = getattr(found, part), getattr(wanted, part)
        np.testing.assert_array_equal(a.observed, b.observed)
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_allclose(a.numeric, b.numeric, rtol=rtol, atol=0)
    for name in ("has_static", "has_temporal", "length", "label"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def sparse_schema(columns: int = 11, steps: int = 5) -> Schema:
    return schema().replace(
        temporal=tuple(
            Feature(name=f"x{i}", kind="binary", categories=(0, 1), dtype="int64")
            for i in range(columns)
        ),
        num_steps=steps,
    )


def sparse_cohort(made: Schema, *, count=40, seed=0, density=0.2):
    """The same patients twice: with a sparse and with a dense temporal table."""
    rng = np.random.default_rng(seed)
    shape = (count, made.num_steps, len(made.temporal))
    length = rng.integers(0, made.num_steps + 1, count)
    length[0] = made.num_steps
    codes = (rng.random(shape) < density).astype(np.int32)
    codes[1] = 0
    static = table(rng, made.static, (count,), 0.2)
    label = rng.integers(made.num_classes, size=count)
    thin = make_cohort(static, sparse.from_dense(codes, length), length, label)
    whole = Table(np.zeros((*shape[:2], 0)), codes, np.ones(shape, bool))
    return thin, make_cohort(static, whole, length, label)
