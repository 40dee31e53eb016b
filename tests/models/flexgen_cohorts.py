"""Small cohorts and FLEXGEN autoencoders for tests, dense and sparse."""

import numpy as np
from cdmt_builders import cohort, schema, table

from jaxehr.core import sparse
from jaxehr.core.cohort import Cohort, Feature, Schema, Table, make_cohort
from jaxehr.models.flexgen import preprocessing
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.layout import make_layout

SMALL = {"latent": 4, "hidden": 16, "hidden_sequence": 8, "max_knots": 1000}
__all__ = ["cohort", "encoded", "schema", "sparse_cohort", "sparse_schema", "table"]


def config(**fields):
    return FlexgenConfig(**SMALL | fields)


def encoded(made: Schema, settings: FlexgenConfig, people: Cohort):
    """(layout, fitted, encoded) of a cohort on itself."""
    layout = make_layout(
        made, settings, isinstance(people.temporal, sparse.SparseTable)
    )
    fitted = preprocessing.fit(made, layout, settings, people)
    return layout, fitted, preprocessing.encode(fitted, layout, people)


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
