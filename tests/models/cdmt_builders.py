"""Small cohorts of every kind of column and small CDMT models, trained or not."""

import contextlib
import functools

import jax
import numpy as np

from jaxehr.core.cohort import (
    Cohort,
    Feature,
    Label,
    Schema,
    Table,
    empty_table,
    make_cohort,
)
from jaxehr.models.cdmt import preprocessing
from jaxehr.models.cdmt.config import CdmtConfig
from jaxehr.models.cdmt.layout import make_layout
from jaxehr.models.cdmt.objective import init_params, make_model
from jaxehr.training.config import TrainConfig

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
COMPILE = "/jax/core/compile/backend_compile_duration"
compilations = [0]


def count_compilation(event, duration, **_):
    compilations[0] += event == COMPILE


jax.monitoring.register_event_duration_secs_listener(count_compilation)


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


def config(**fields):
    train = fields.pop("train", {})
    train = {"steps": 4, "batch_size": 32, "eval_every": 2, "valid_draws": 1} | train
    small = {"hidden": 8, "num_layers": 1, "embedding_dim": 4}
    return CdmtConfig(**small | fields, train=TrainConfig(**train))


def fitted_model(made: Schema, settings: CdmtConfig, people: Cohort):
    """The fixed parts, what preprocessing read off, and the encoded cohort."""
    layout = make_layout(made, settings)
    fitted = preprocessing.fit(made, layout, settings, people)
    encoded = preprocessing.encode(fitted, layout, people)
    return make_model(layout, settings), fitted, encoded


def untrained(made: Schema, settings: CdmtConfig, people: Cohort, spread=0.0):
    """The model at its start, or (nothing is compiled) with weights N(0, spread^2).

    Returns:
      (model, params, encoded cohort).
    """
    model, fitted, encoded = fitted_model(made, settings, people)
    start = functools.partial(init_params, model, fitted)
    key, rng = jax.random.key(0), np.random.default_rng(0)
    if spread:
        shapes = jax.eval_shape(start, key, encoded)
        draw = lambda leaf: (spread * rng.normal(size=leaf.shape)).astype("f4")
        weights = jax.tree.map(draw, shapes)
    else:
        weights = jax.tree.map(np.asarray, jax.jit(start)(key, encoded))
    return model, {"fitted": fitted, "weights": weights}, encoded


@contextlib.contextmanager
def quick_compiler():
    """Compiles without optimising: half the time, and the tests run short programs."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
