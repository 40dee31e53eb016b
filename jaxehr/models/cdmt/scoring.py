"""The denoising losses of each patient, and several small trainings at once.

Both are for attacks on the model itself: does it know a patient it was trained on?
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.cohort import Cohort, Schema, num_patients
from jaxehr.core.contracts import Params, gather
from jaxehr.models.cdmt import preprocessing
from jaxehr.models.cdmt.network import Blocks
from jaxehr.models.cdmt.objective import (
    Model,
    Scales,
    clean,
    complete,
    corrupt,
    fitted_model,
    losses,
    make_frame,
    make_objective,
    noise_levels,
    predict,
    row_weights,
    scales_of,
    weighted,
)
from jaxehr.models.cdmt.preprocessing import Batch
from jaxehr.models.cdmt.sampling import block_rows
from jaxehr.training import many
from jaxehr.training.config import resolve
from jaxehr.training.sharding import compiled_rows


def patient_losses(
    model: Model,
    key: jax.Array,
    params: Params,
    cohort: Cohort,
    *,
    levels: int = 16,
    repeats: int = 4,
) -> np.ndarray:
    """The training loss of each patient at `levels` even times in (0, 1): [N, levels].

    Each is a mean over `repeats` draws of noise; the label is told. Noise is the same
    for every patient, so that a number depends on the key, the parameters and the
    patient only.
    """
    fitted = params["fitted"]
    model = fitted_model(model, fitted)
    weights = complete(params["weights"], fitted)
    data = preprocessing.encode(fitted, model.layout, cohort)
    devices = jax.device_count()
    run = program(model, levels, repeats, devices)
    size = block_rows(model.layout.num_steps) * devices
    common = jax.device_put((scales_of(model, fitted), weights))
    count, found = num_patients(cohort), [np.zeros((0, levels), np.float32)]
    order = np.argsort(cohort.length, kind="stable")  # loops over time end early
    for first in range(0, count, size):
        # Blocks are full, or the rounding of a number would depend on their size.
        rows = order[np.minimum(np.arange(first, first + size), count - 1)]
        found.append(np.asarray(run(*common, key, gather(data, rows))))
    return np.concatenate(found)[np.argsort(order)]


@functools.lru_cache(maxsize=16)
def program(model: Model, levels: int, repeats: int, devices: int) -> Any:
    """The compiled losses of one block on each device."""
    run = functools.partial(block_losses, model, levels, repeats)
    return compiled_rows(run, devices, copied=3)


def block_losses(
    model: Model,
    levels: int,
    repeats: int,
    scales: Scales,
    params: Params,
    key: jax.Array,
    batch: Batch,
) -> jax.Array:
    """Losses [B, levels] of a batch."""
    rows, weigh = batch.label.shape[0], row_weights(*scales)
    frame = make_frame(model, batch.label, batch.length, batch.has_static)
    x0 = clean(model, params, batch)

    def one(draw: tuple[jax.Array, jax.Array]) -> jax.Array:
        t, key = draw
        sigma = noise_levels(model, params, t)
        x = alike(model, params, key, batch, x0, sigma, t)
        every = jnp.full((rows,), t)
        out = predict(model, params, x, sigma, every, frame)
        each = losses(model, params, batch, x, x0, sigma, out, every)
        found = (w(leaf, batch) for w, leaf in zip(weigh, each))
        return weighted(model.config, Blocks(*found))

    count = levels * repeats
    times = (jnp.arange(count) // repeats + 0.5) / levels
    found = jax.lax.map(one, (times, jax.random.split(key, count)))  # [count, B]
    return found.reshape(levels, repeats, rows).mean(1).T


def alike(
    model: Model,
    params: Params,
    key: jax.Array,
    batch: Batch,
    x0: Blocks,
    sigma: Blocks,
    t: jax.Array,
) -> Blocks:
    """`corrupt` with the same noise for every patient, at one time t."""
    key_noise, *key_coded = jax.random.split(key, 3)

    def one(batch: Batch, x0: Blocks) -> Blocks:
        alone = lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)
        rest = (alone(batch), alone(x0), sigma, t[None])
        x = corrupt(model, params, key_noise, (key_coded[0], key_coded[1]), *rest)
        return jax.tree.map(lambda leaf: leaf[0], x)

    return jax.vmap(one)(batch, x0)


def fit_many(
    schema: Schema,
    model: Model,
    keys: jax.Array,
    params: Params,
    cohort: Cohort,
    rows: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    steps: int = 0,
) -> list[Params]:
    """S trainings in one program, each on its own patients `rows` [S, n] of `cohort`.

    Patients are encoded as in `params`, whose preprocessing all trainings share.

    Args:
      valid: patients [m] that choose the best average of every training; None = the
        last average.
      steps: optimiser steps of each; 0 = those of the configuration.
    """
    fitted, train = params["fitted"], model.config.train
    model = fitted_model(model, fitted)
    data = preprocessing.encode(fitted, model.layout, cohort)
    sizes = rows.shape[1], max(schema.num_steps, 1)
    accelerator = jax.default_backend() != "cpu"
    train = dataclasses.replace(train, steps=steps or train.steps)
    judged = None if valid is None else np.tile(valid, (len(keys), 1))
    weights = many.fit_many(
        keys,
        make_objective(model, fitted),
        data,
        config=resolve(train, *sizes, accelerator=accelerator),
        rows=(rows, judged),
    )
    weights = jax.tree.map(np.asarray, weights)
    part = lambda i: jax.tree.map(lambda leaf: leaf[i], weights)
    return [{"fitted": fitted, "weights": part(i)} for i in range(len(keys))]
