"""The FLEXGEN-EHR generative model: a factory that ties the parts together.

Two stages (README, Deviations: order): autoencoders of both modalities; then alignment
of their latents and diffusion of the fused ones.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxehr.core.cohort import Cohort, Schema, num_patients, rows_of
from jaxehr.core.contracts import Callback, GenerativeModel, Params
from jaxehr.core.labels import label_codes
from jaxehr.diffusion.whitening import Whitening
from jaxehr.models.flexgen import (
    imputation,
    latent,
    preprocessing,
    records,
    scoring,
)
from jaxehr.models.flexgen.config import FlexgenConfig, FlexgenSampling
from jaxehr.models.flexgen.decoding import decode_patients
from jaxehr.models.flexgen.layout import make_layout
from jaxehr.models.flexgen.training import (
    alternate,
    autoencode_in,
    diffuse_in,
    layout_of,
    plan_autoencoders,
    posterior,
    settled,
)
from jaxehr.models.flexgen.turns import plan_turns
from jaxehr.training.stages import Stages


def flexgen(schema: Schema, config: FlexgenConfig | None = None) -> GenerativeModel:
    """FLEXGEN-EHR for cohorts of `schema` [flexgen2024].

    `fit` returns nested dicts of arrays: `fitted` (preprocessing, frames), `weights`
    (both autoencoders, score network, whitening), `alignment` (imputers). `sample`
    takes `label` None (training frequency), "balanced", one code, or an array of codes,
    `options: FlexgenSampling`, `index` and `progress`; `impute` draws the modality that
    a patient lacks.
    """
    config = config or FlexgenConfig()
    make_layout(schema, config)  # refuses a schema without one of the modalities
    bound = functools.partial
    return GenerativeModel(
        bound(fit, schema, config),
        bound(sample, schema, config),
        bound(impute, schema, config),
        bound(scoring.patient_losses, schema, config),
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
    in_turns = config.order == "alternating"
    plan |= plan_turns(config) if in_turns else {"latent": config.train.steps}
    stages = Stages(plan, callbacks, checkpoint, announce, records.SHARES)
    key_first, key_second = jax.random.split(key)
    parts = autoencode_in(stages, schema, config, key_first, cohort, valid)
    if in_turns:
        return alternate(stages, schema, config, key_second, parts, cohort, valid)
    return diffuse_in(stages, schema, config, key_second, parts, cohort, valid)


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
    counts = records.joint(params["fitted"]["presence"])
    numbers = (np.arange(num) if index is None else np.asarray(index)).astype(np.int32)
    codes = label_codes(schema, counts.sum((1, 2)), label, len(numbers))
    key_frame, key_latent, key_decode = jax.random.split(key, 3)
    frames = records.draw_frames(key_frame, counts, numbers, codes, settings.missing)
    weights = params["weights"]
    z = latent.sample(
        config,
        schema.num_classes,
        Whitening(**weights["whitening"]),
        settings,
        key_latent,
        weights["score"],
        numbers,
        frames.label,
    )
    layout = layout_of(schema, config, params["fitted"])
    return decode_patients(
        layout,
        config,
        params,
        key_decode,
        numbers,
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

    The patient's label is not read: what is drawn does not give the outcome away.

    Args:
      index: Int [N], numbers that give each patient a key; default 0 .. N - 1.

    Raises:
      InputError: the run cannot impute, or only by reading the label; a patient has
        neither modality.
    """
    imputation.check(config, cohort)
    lacking = np.flatnonzero(
        ~(records.presence(cohort, "static") & records.presence(cohort, "temporal"))
    )
    if not len(lacking):
        return cohort
    layout = layout_of(schema, config, params["fitted"])
    data = preprocessing.encode(params["fitted"], layout, rows_of(cohort, lacking))
    found = posterior(layout, config, params["weights"], data)
    numbers = np.arange(num_patients(cohort)) if index is None else np.asarray(index)
    drawn = imputation.draw_missing(
        layout, config, key, params, found, numbers[lacking].astype(np.int32)
    )
    return imputation.merge(cohort, drawn, lacking)
