"""Small CDMT models, trained or not."""

import functools

import jax
import numpy as np

from jaxehr.core.cohort import Cohort, Schema
from jaxehr.models.cdmt import objective, preprocessing, sampling
from jaxehr.models.cdmt.config import PAPER, CdmtConfig
from jaxehr.models.cdmt.layout import make_layout
from jaxehr.models.cdmt.objective import init_params, make_model
from jaxehr.training.config import TrainConfig

COMPILE = "/jax/core/compile/backend_compile_duration"
compilations = [0]


def count_compilation(event, duration, **_):
    compilations[0] += event == COMPILE


jax.monitoring.register_event_duration_secs_listener(count_compilation)


def config(**fields):
    train = fields.pop("train", {})
    train = {"steps": 4, "batch_size": 32, "eval_every": 2, "valid_draws": 1} | train
    small = {"hidden": 8, "num_layers": 1, "embedding_dim": 4} | PAPER
    return CdmtConfig(**small | fields, train=TrainConfig(**train))


def fitted_model(made: Schema, settings: CdmtConfig, people: Cohort):
    """The fixed parts, what preprocessing read off, and the encoded cohort."""
    layout = make_layout(made, settings)
    fitted = preprocessing.fit(made, layout, settings, people)
    encoded = preprocessing.encode(fitted, layout, people)
    return objective.fitted_model(make_model(layout, settings), fitted), fitted, encoded


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


def sampled(*asked):
    """All blocks of `sampling.sample_blocks` as one batch."""
    blocks = sampling.sample_blocks(*asked)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *blocks)
