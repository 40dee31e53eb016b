"""Invented patients with binary columns in both parts, as discretised cohorts have."""

import numpy as np

from jaxehr.core.cohort import Dataset, Feature, Label, Schema, Table, make_cohort
from jaxehr.core.sparse import from_dense


def people(seed: int, count: int, steps: int = 3) -> Dataset:
    """A common factor moves all columns; the first two temporal ones are equal."""
    rng = np.random.default_rng(seed)
    binary = lambda name: Feature(name=name, kind="binary", categories=(0, 1))
    schema = Schema(
        static=tuple(binary(f"s{i}") for i in range(4)),
        temporal=tuple(binary(f"t{i}") for i in range(6)),
        num_steps=steps,
        label=Label(name="died", classes=(0, 1)),
    )
    factor = rng.normal(size=count)
    label = (factor + rng.normal(size=count) > 0.7).astype(int)
    static = (rng.normal(size=(count, 4)) + factor[:, None] > 0).astype(np.int32)
    temporal = rng.normal(size=(count, steps, 6)) + factor[:, None, None] > 0.5
    temporal[..., 1] = temporal[..., 0]
    length = np.full(count, steps)
    cohort = make_cohort(
        Table(np.zeros((count, 0)), static, np.ones(static.shape, bool)),
        from_dense(temporal, length),
        length,
        label,
    )
    ids = np.arange(count) + 10_000 * seed
    return Dataset(schema, cohort, ids, ids, {})
