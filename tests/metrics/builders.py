"""Small data sets of a known law for the tests of the metrics."""

import numpy as np

from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Label,
    Schema,
    Table,
    empty_table,
    make_cohort,
)
from jaxehr.core.contracts import Comparison
from jaxehr.core.sparse import from_dense


def schema(
    static=True, steps=8, numeric=3, coded=True, label=True, classes=2
) -> Schema:
    """Numeric columns x0, x1, ..., a categorical and a binary one, two static ones."""
    temporal = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(numeric))
    if coded:
        temporal += (
            Feature(name="state", kind="categorical", categories=("a", "b", "c")),
            Feature(name="on", kind="binary", categories=(0, 1)),
        )
    rest = (
        Feature(name="sex", kind="binary", categories=("f", "m")),
        Feature(name="age", kind="numeric"),
    )
    return Schema(
        static=rest if static else (),
        temporal=temporal if steps else (),
        num_steps=steps,
        label=Label(name="died", classes=tuple(range(classes))) if label else None,
    )


def simulate(
    seed: int,
    count: int = 400,
    law: Schema | None = None,
    *,
    noise: float = 0.0,
    shift: float = 0.0,
    scramble: bool = False,
    effect: float = 1.0,
    missing: float = 0.1,
    ragged: bool = True,
) -> Dataset:
    """AR(1) columns with a common part, a Markov state, and a label that moves them.

    Args:
      noise: standard deviation of independent noise added to the numbers.
      shift: added to the numbers.
      scramble: whether steps are shuffled over patients and time, per column.
      effect: how far the label moves the numbers.
    """
    law = law or schema()
    rng, steps = np.random.default_rng(seed), law.num_steps
    label = rng.integers(0, max(law.num_classes, 1), count)
    temporal = steps_of(rng, law, label, noise, shift, effect)
    seen = rng.random(temporal.observed.shape) > missing
    static = empty_table((count,), law.static)
    if law.static:
        age = 50 + 10 * rng.normal(size=(count, 1)) + shift + 3 * label[:, None]
        sex = rng.integers(0, 2, (count, 1))
        static = Table(age, sex, rng.random((count, 2)) > missing)
    if scramble:
        mix = lambda x: rng.permuted(x.reshape(-1, x.shape[2]), axis=0).reshape(x.shape)
        temporal = temporal._replace(
            numeric=mix(temporal.numeric), codes=mix(temporal.codes)
        )
    length = np.full(count, steps)
    if ragged and steps > 2:
        length = rng.integers(steps // 2, steps + 1, count)
    cohort = make_cohort(static, temporal._replace(observed=seen), length, label)
    ids = rng.permutation(count) + 1_000_000 * (seed + 1)
    return Dataset(law, cohort, ids, ids, {})


def steps_of(rng, law, label, noise, shift, effect) -> Table:
    count, steps = len(label), law.num_steps
    table = empty_table((count, steps), law.temporal)
    numeric, codes = table.numeric.copy(), table.codes.copy()
    state = rng.integers(0, 3, count)
    common = rng.normal(size=(count, 1))
    value = rng.normal(size=(count, numeric.shape[2]))
    for t in range(steps):
        value = 0.8 * value + 0.6 * rng.normal(size=value.shape)
        numeric[:, t] = value + common + effect * label[:, None] * (t / steps)
        state = np.where(rng.random(count) < 0.8, state, rng.integers(0, 3, count))
        if codes.shape[2]:
            codes[:, t, 0], codes[:, t, 1] = state, rng.random(count) < 0.3
    numeric = 5 + 2 * numeric + shift + noise * rng.normal(size=numeric.shape)
    return Table(numeric, codes, np.ones(table.observed.shape, bool))


def compared(synthetic: Dataset, law: Schema | None = None, count: int = 400, **kw):
    """A comparison whose training and hold-out patients are draws of the plain law."""
    law = law or synthetic.schema
    return Comparison(
        simulate(1, count, law, **kw), simulate(2, count, law, **kw), synthetic
    )


def binary_schema(columns=6, steps=4) -> Schema:
    """Binary temporal columns b0, b1, ..., static ones as in `schema`, two classes."""
    temporal = tuple(
        Feature(name=f"b{i}", kind="binary", categories=(0, 1)) for i in range(columns)
    )
    return schema(steps=steps).replace(temporal=temporal)


def sparse_pair(seed: int, count: int = 80, columns: int = 6, steps: int = 4):
    """One data set twice: with a sparse and with a dense temporal table."""
    rng, law = np.random.default_rng(seed), binary_schema(columns, steps)
    length = rng.integers(0, steps + 1, count)
    label = rng.integers(0, 2, count)
    share = np.linspace(0.05, 0.6, columns) + 0.3 * label[:, None, None]
    codes = (rng.random((count, steps, columns)) < share).astype(np.int32)
    observed = np.ones(codes.shape, bool)
    static = Table(
        50 + 10 * rng.normal(size=(count, 1)),
        rng.integers(0, 2, (count, 1)),
        rng.random((count, 2)) > 0.1,
    )
    tables = (
        from_dense(codes, length),
        Table(np.zeros((count, steps, 0)), codes, observed),
    )
    ids = np.arange(count) + 1000 * seed
    return [
        Dataset(law, make_cohort(static, table, length, label), ids, ids, {})
        for table in tables
    ]
