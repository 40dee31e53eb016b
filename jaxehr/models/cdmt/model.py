"""The CDMT-EHR generative model: a factory that ties the parts together."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Schema, concatenate, num_patients, rows_of
from jaxehr.core.configs import replace
from jaxehr.core.contracts import Callback, GenerativeModel, Params
from jaxehr.core.labels import label_codes
from jaxehr.models.cdmt import preprocessing, sampling, scoring
from jaxehr.models.cdmt.config import CdmtConfig, CdmtSampling
from jaxehr.models.cdmt.layout import make_layout, refuse_silent
from jaxehr.models.cdmt.objective import (
    Model,
    complete,
    fitted_model,
    make_model,
    make_objective,
    noise_levels,
)
from jaxehr.models.cdmt.shards import fit_shards
from jaxehr.training.config import resolve
from jaxehr.training.loop import train


def cdmt(schema: Schema, config: CdmtConfig | None = None) -> GenerativeModel:
    """CDMT-EHR for cohorts of `schema` [cdmt2026].

    `fit` returns nested dicts of arrays: `fitted` (preprocessing), `weights` (network,
    embeddings, schedules). `sample` takes `label` None (training frequency),
    "balanced", one code, or an array of codes, and `options: CdmtSampling`, `index`
    (numbers of the patients; default 0 .. num - 1) and `progress`.
    """
    config = config or CdmtConfig()
    model = make_model(make_layout(schema, config), config)
    return GenerativeModel(
        functools.partial(fit, schema, model),
        functools.partial(sample, schema, model),
        losses=functools.partial(scoring.patient_losses, model),
        fit_many=functools.partial(scoring.fit_many, schema, model),
        fit_shards=functools.partial(fit_shards, schema, model),
    )


def fit(
    schema: Schema,
    model: Model,
    key: jax.Array,
    cohort: Cohort,
    *,
    valid: Cohort | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> Params:
    """Learns preprocessing and weights from `cohort`; see `training.loop.train`."""
    layout, config = model.layout, model.config
    refuse_silent(layout, int(np.sum(~np.asarray(cohort.has_temporal))))
    sizes = num_patients(cohort), max(schema.num_steps, 1)
    accelerator = jax.default_backend() != "cpu"
    fitted, batch = preprocessing.fit_encoded(schema, layout, config, cohort)
    model = fitted_model(model, fitted)
    lengths, judge = [batch.length], None
    if valid is not None:
        numbers = np.arange(num_patients(valid))
        judge = preprocessing.encode(fitted, layout, valid, numbers)
        lengths.append(judge.length)
    trained = train(
        key,
        make_objective(model, fitted, *lengths),
        batch,
        config=resolve(config.train, *sizes, accelerator=accelerator),
        valid=judge,
        callbacks=callbacks,
        checkpoint=checkpoint,
        announce=announce,
    )
    return {"fitted": fitted, "weights": jax.tree.map(np.asarray, trained.params)}


def sample(
    schema: Schema,
    model: Model,
    key: jax.Array,
    params: Params,
    label: Any | None,
    num: int,
    *,
    options: CdmtSampling | None = None,
    index: Any | None = None,
    progress: Callable[[int], None] | None = None,
) -> Cohort:
    """Draws patients; patient i depends on key, params, label and i only."""
    settings = options or CdmtSampling()
    check_sampling(schema, model.config, settings)
    if settings.products != "as-trained":
        products = {"products": settings.products}
        model = make_model(model.layout, replace(model.config, products))
    model = fitted_model(model, params["fitted"])
    numbers = np.arange(num) if index is None else np.asarray(index)
    frames = np.asarray(params["fitted"]["frames"], np.float32)
    if label is not None:
        check_conditional(schema, model.config)
    codes = label_codes(schema, frames.sum((1, 2)), label, len(numbers))
    numbers = numbers.astype(np.int32)
    order = sampling.by_length(key, frames, numbers, codes)
    blocks = sampling.sample_blocks(
        model,
        settings,
        key,
        complete(params["weights"], params["fitted"]),
        frames,
        numbers[order],
        codes[order],
        progress,
    )
    # Decoding is NumPy on one core, and beside a GPU slower than drawing: each block by
    # itself, while the next ones are drawn.
    decode = functools.partial(preprocessing.decode, params["fitted"], model.layout)
    with ThreadPoolExecutor() as pool:
        drawn = concatenate(list(pool.map(decode, blocks)))
    if (np.diff(order) == 1).all():
        return drawn
    return rows_of(drawn, np.argsort(order))


def check_sampling(schema: Schema, config: CdmtConfig, options: CdmtSampling) -> None:
    """Refuses options that this model cannot honour."""
    guided = options.guidance or options.guidance_categorical
    if guided and (config.mode == "unconditional" or schema.label is None):
        raise InputError(
            "guidance needs a model trained with --mode conditional on a cohort with a "
            "label."
        )
    if guided and not config.label_drop:
        raise InputError(
            "guidance needs a model that was trained with --label-drop above 0; use "
            "guidance 0."
        )
    if config.categorical == "mask" and options.solver not in ("auto", "euler"):
        raise InputError("mask diffusion has the euler sampler only.")
    if config.categorical == "mask" and options.decode != CdmtSampling().decode:
        raise InputError("decode is for embeddings; mask diffusion draws codes itself.")


def check_conditional(schema: Schema, config: CdmtConfig) -> None:
    """Refuses a label where the model draws it."""
    if config.mode == "unconditional" or schema.label is None:
        raise InputError(
            "this model draws the label itself and cannot be given one; train with "
            "--mode conditional on a cohort with a label."
        )


def learned_schedule(
    schema: Schema, config: CdmtConfig, params: Params
) -> dict[str, Any]:
    """Noise levels of every block of columns for plots: names, and sigma over t.

    Returns:
      For each block: `names` [D], `sigma` [levels, T, D] (or [levels, 1, D]) at `t`.
    """
    model = fitted_model(
        make_model(make_layout(schema, config), config), params["fitted"]
    )
    layout = model.layout
    t = np.linspace(0.0, 1.0, 51)
    sigma = jax.vmap(lambda t: noise_levels(model, params["weights"], t))(t)
    temporal, static = layout.temporal, layout.static
    names = {
        "numeric": [
            *(f.name for f in temporal.numeric),
            *preprocessing.latent_names(params["fitted"], layout),
        ],
        "coded": list(temporal.names),
        "static_numeric": [f.name for f in static.numeric],
        "static_coded": list(static.names),
    }
    blocks = {}
    for block, columns in names.items():
        if columns:
            values = np.asarray(getattr(sigma, block))
            values = values[..., 0] if block.endswith("coded") else values
            values = values.reshape(len(t), -1, len(columns))
            blocks[block] = {"names": columns, "t": t.tolist(), "sigma": values}
    return blocks
