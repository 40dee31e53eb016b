"""The FLEXGEN-EHR generative model: a factory that ties the parts together.

Two stages [specs A.7]: autoencoders of both modalities; then alignment of their latents
and diffusion of the fused ones. `autoencode` and `diffuse` are these stages, so that
research code can align the same latents in several ways.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.cohort import Cohort, Schema, num_patients
from jaxehr.core.contracts import Callback, GenerativeModel, Params
from jaxehr.core.keys import patient_keys
from jaxehr.models.flexgen import (
    alignment,
    imputation,
    latent,
    preprocessing,
    records,
    turns,
)
from jaxehr.models.flexgen.autoencoders import encode_all, make_autoencoder
from jaxehr.models.flexgen.config import FlexgenConfig, FlexgenSampling
from jaxehr.models.flexgen.decoding import decode_patients
from jaxehr.models.flexgen.layout import Layout, make_layout
from jaxehr.models.flexgen.stages import MODALITIES, Stages, presence, rows_of
from jaxehr.models.labels import label_codes
from jaxehr.training.config import TrainConfig, resolve


def flexgen(schema: Schema, config: FlexgenConfig | None = None) -> GenerativeModel:
    """FLEXGEN-EHR for cohorts of `schema` [flexgen2024].

    `fit` returns nested dicts of arrays: `fitted` (preprocessing, frames), `weights`
    (both autoencoders, score network, whitening), `alignment` (imputers). `sample`
    takes `label` None (training frequency), "balanced", one code, or an array of codes,
    `options: FlexgenSampling`, `index` and `progress`; `impute` draws the modality that
    a patient lacks.
    """
    config = config or FlexgenConfig()
    records.check_schema(schema)
    bound = functools.partial
    return GenerativeModel(
        bound(fit, schema, config),
        bound(sample, schema, config),
        bound(impute, schema, config),
    )


def fit(
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    cohort: Cohort,
    *,
    valid: Cohort | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> Params:
    """All stages, as one training with one count of steps; resumable.

    Raises:
      InputError: see `records.check_cohort`.
    """
    records.check_cohort(schema, cohort, config.alignment.method)
    config = settled(config, schema, cohort)
    plan = plan_autoencoders(config, cohort)
    if config.order == "alternating":
        plan |= turns.plan_turns(config, cohort)
    else:
        plan |= {"latent": config.train.steps}
    stages = Stages(plan, callbacks, checkpoint, announce)
    key_first, key_second = jax.random.split(key)
    parts = autoencode_in(stages, schema, config, key_first, cohort, valid)
    if config.order == "alternating":
        return turns.alternate(stages, schema, config, key_second, parts, cohort, valid)
    return diffuse_in(stages, schema, config, key_second, parts, cohort, valid)


def autoencode(
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    cohort: Cohort,
    *,
    valid: Cohort | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> Params:
    """The first stage: `fitted`, and the weights of both autoencoders."""
    config = settled(config, schema, cohort)
    plan = plan_autoencoders(config, cohort)
    stages = Stages(plan, callbacks, checkpoint, announce)
    return autoencode_in(stages, schema, config, key, cohort, valid)


def diffuse(
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    parts: Params,
    cohort: Cohort,
    *,
    valid: Cohort | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> Params:
    """The second stage, from what `autoencode` returned: everything `sample` needs."""
    records.check_cohort(schema, cohort, config.alignment.method)
    config = settled(config, schema, cohort)
    stages = Stages({"latent": config.train.steps}, callbacks, checkpoint, announce)
    return diffuse_in(stages, schema, config, key, parts, cohort, valid)


def settled(config: FlexgenConfig, schema: Schema, cohort: Cohort) -> FlexgenConfig:
    """`config` with the automatic sizes of the latent diffusion filled in."""
    accelerator = jax.default_backend() != "cpu"
    # A latent has no time steps.
    train = resolve(config.train, num_patients(cohort), 1, accelerator=accelerator)
    return dataclasses.replace(config, train=train)


def plan_autoencoders(config: FlexgenConfig, cohort: Cohort) -> dict[str, int]:
    """Steps of each autoencoder: passes over the patients who have the modality."""
    epochs = config.autoencoder_epochs
    if config.order == "alternating":
        epochs = config.warmup_epochs
    plan = {}
    for which in MODALITIES:
        count = int(np.asarray(presence(cohort, which)).sum())
        batch = min(config.train.batch_size, max(count, 1))
        plan[which] = epochs * max(count // batch, 1)
    return plan


def autoencoder_config(config: FlexgenConfig, steps: int) -> TrainConfig:
    """Optimisation of an autoencoder: the batch and the limits of the diffusion's."""
    return dataclasses.replace(
        config.train,
        learning_rate=config.autoencoder_learning_rate,
        chunk_rows=min(config.train.chunk_rows, 128),
        lr_schedule="constant",
        eval_every=max(steps // 40, 1),
        valid_draws=1,
    )


def autoencode_in(
    stages: Stages,
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    cohort: Cohort,
    valid: Cohort | None,
) -> Params:
    """Trains each autoencoder on the patients who have its modality."""
    layout = make_layout(schema, config, cohort)
    fitted = preprocessing.fit(schema, layout, config, cohort)
    fitted["frames"] = records.count_frames(schema, cohort)
    parts: dict[str, Any] = {"fitted": fitted}
    for which, subkey in zip(MODALITIES, jax.random.split(key), strict=True):
        have = rows_of(cohort, presence(cohort, which))
        judged = None
        if valid is not None and presence(valid, which).any():
            judged = rows_of(valid, presence(valid, which))
            judged = preprocessing.encode(fitted, layout, judged)
        model = make_autoencoder(layout, config, which)
        trained = stages.run(
            which,
            subkey,
            model.objective,
            preprocessing.encode(fitted, layout, have),
            autoencoder_config(config, stages.plan[which]),
            valid=judged,
        )
        parts[which] = jax.tree.map(np.asarray, trained.params)
    return parts


def posterior(
    layout: Layout, config: FlexgenConfig, parts: Params, cohort: Cohort
) -> alignment.Posterior:
    """What both encoders say of every patient; zeros where a modality is missing."""
    count, found = num_patients(cohort), {}
    for which in MODALITIES:
        has = presence(cohort, which)
        mean = np.zeros((count, config.latent), np.float32)
        std = np.zeros((count, config.latent), np.float32)
        if has.any():
            data = preprocessing.encode(parts["fitted"], layout, rows_of(cohort, has))
            model = make_autoencoder(layout, config, which)
            mean[has], std[has] = encode_all(model, parts[which], data)
        found |= {f"{which}_mean": mean, f"{which}_std": std, f"has_{which}": has}
    return alignment.Posterior(**found, label=np.asarray(cohort.label, np.int32))


def diffuse_in(
    stages: Stages,
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    parts: Params,
    cohort: Cohort,
    valid: Cohort | None,
) -> Params:
    """Aligns the latents once, completes them, and learns their distribution."""
    layout = make_layout(schema, config, cohort)
    key_align, key_white, key_train = jax.random.split(key, 3)
    found = posterior(layout, config, parts, cohort)
    imputers, told = alignment.fit_alignment(
        key_align, found, schema.num_classes, config.alignment
    )
    if stages.announce:
        stages.announce(f"alignment: {alignment.in_words(told, config.alignment)}")
    data = latents(config, found, imputers)
    whitening = latent.fit_whitening(
        config, np.asarray(alignment.complete(config.alignment, key_white, data))
    )
    judged = None
    if valid is not None:
        judged = latents(config, posterior(layout, config, parts, valid), imputers)
        judged = judged if len(judged.label) else None
    trained = stages.run(
        "latent",
        key_train,
        latent.objective(
            config,
            schema.num_classes,
            whitening,
            functools.partial(alignment.complete, config.alignment),
        ),
        data,
        config.train,
        valid=judged,
    )
    weights = {name: parts[name] for name in MODALITIES}
    weights["score"] = jax.tree.map(np.asarray, trained.params)
    weights["whitening"] = jax.tree.map(np.asarray, whitening._asdict())
    return {
        "fitted": parts["fitted"],
        "weights": weights,
        "alignment": jax.tree.map(np.asarray, imputers),
        "diagnostics": alignment.to_text(told),
    }


def latents(
    config: FlexgenConfig, found: alignment.Posterior, imputers: Params
) -> latent.Latents:
    """The data of the diffusion: patients with at least one modality, or with both."""
    keep = found.has_static | found.has_temporal
    if config.alignment.method == "complete":
        keep = found.has_static & found.has_temporal
    each = {name: leaf[keep] for name, leaf in found._asdict().items()}
    return latent.Latents(**each, common=imputers)


def sample(
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    params: Params,
    label: Any | None,
    num: int,
    *,
    options: FlexgenSampling | None = None,
    index: Any | None = None,
    progress: Callable[[int], None] | None = None,
) -> Cohort:
    """Draws patients; patient i depends on key, params, label and i only."""
    settings = options or FlexgenSampling()
    counts = np.asarray(params["fitted"]["frames"])
    numbers = (np.arange(num) if index is None else np.asarray(index)).astype(np.int32)
    codes = label_codes(schema, counts.sum((1, 2)), label, len(numbers))
    key_frame, key_latent, key_decode = jax.random.split(key, 3)
    frames = records.draw_frames(key_frame, counts, numbers, codes, settings.missing)
    weights = params["weights"]
    z = latent.sample(
        config,
        schema.num_classes,
        latent.Whitening(**weights["whitening"]),
        settings,
        key_latent,
        weights["score"],
        numbers,
        frames.label,
    )
    layout = make_layout(schema, config, fitted=params["fitted"])
    return decode_patients(
        layout,
        config,
        params,
        patient_keys(key_decode, jnp.asarray(numbers)),
        z,
        frames,
        mode=settings.decode == "mode",
        progress=progress,
    )


def impute(
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    params: Params,
    cohort: Cohort,
    *,
    index: Any | None = None,
) -> Cohort:
    """One draw of the modality that each patient lacks; the rest is untouched.

    Args:
      index: Int [N], numbers that give each patient a key; default 0 .. N - 1.

    Raises:
      InputError: the run cannot impute; a patient has neither modality.
    """
    imputation.check(config, cohort)
    layout = make_layout(schema, config, fitted=params["fitted"])
    parts = {"fitted": params["fitted"]} | params["weights"]
    found = posterior(layout, config, parts, cohort)
    numbers = np.arange(num_patients(cohort)) if index is None else np.asarray(index)
    return imputation.impute_missing(
        layout, config, key, params, cohort, found, numbers.astype(np.int32)
    )
