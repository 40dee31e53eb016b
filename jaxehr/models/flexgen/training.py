"""The stages of a training: autoencoders; alignment and diffusion of their latents.

`autoencode` and `diffuse` are the two stages, so that research code can align the same
latents in several ways; `alternate` trains everything in turns.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxehr.core.cohort import Cohort, Schema, num_patients, rows_of
from jaxehr.core.contracts import Callback, Params
from jaxehr.core.sparse import SparseTable
from jaxehr.diffusion.whitening import Whitening, fit_whitening, no_whitening
from jaxehr.models.flexgen import alignment, latent, preprocessing, records, turns
from jaxehr.models.flexgen.autoencoders import encode_all, make_autoencoder
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.layout import Layout, make_layout
from jaxehr.models.flexgen.preprocessing import Encoded
from jaxehr.models.flexgen.records import MODALITIES, presence
from jaxehr.models.flexgen.within import without_donors
from jaxehr.ot.config import AlignmentConfig
from jaxehr.training.config import TrainConfig, resolve
from jaxehr.training.sharding import computed_once
from jaxehr.training.stages import Stages


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
    stages = Stages(plan, callbacks, checkpoint, announce, records.SHARES)
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
    hidden: bool = True,
) -> Params:
    """The second stage, from what `autoencode` returned: everything `sample` needs.

    Args:
      hidden: measure the alignment on hidden modalities too; it takes as long again.
    """
    records.check_cohort(schema, cohort, config.alignment.method)
    config = settled(config, schema, cohort)
    stages = Stages({"latent": config.train.steps}, callbacks, checkpoint, announce)
    return diffuse_in(stages, schema, config, key, parts, cohort, valid, hidden)


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
        count = int(presence(cohort, which).sum())
        plan[which] = epochs * max(count // autoencoder_batch(config, count), 1)
    return plan


def autoencoder_batch(config: FlexgenConfig, count: int) -> int:
    """The batch of the diffusion, or an eighth of a small cohort."""
    return max(min(config.train.batch_size, max(count // 8, 16), count), 1)


def autoencoder_config(config: FlexgenConfig, steps: int, count: int) -> TrainConfig:
    """Optimisation of an autoencoder; its limits are the diffusion's."""
    return dataclasses.replace(
        config.train,
        batch_size=autoencoder_batch(config, count),
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
    layout = make_layout(schema, config, isinstance(cohort.temporal, SparseTable))
    fitted = preprocessing.fit(schema, layout, config, cohort)
    fitted["sparse"] = np.bool_(layout.temporal.sparse)
    data = preprocessing.encode(fitted, layout, cohort)
    judged = None if valid is None else preprocessing.encode(fitted, layout, valid)
    parts: dict[str, Any] = {"fitted": fitted}
    for which, subkey in zip(MODALITIES, jax.random.split(key), strict=True):
        have, told = presence(cohort, which), None
        if judged is not None and getattr(judged, f"has_{which}").any():
            told = preprocessing.records(judged, which)
        train = autoencoder_config(config, stages.plan[which], int(have.sum()))
        own = dataclasses.replace(config, train=train)
        trained = stages.run(
            which,
            subkey,
            make_autoencoder(layout, own, which).objective(fitted),
            preprocessing.records(data, which),
            train,
            valid=told,
        )
        parts[which] = jax.tree.map(np.asarray, trained.params)
    return parts


def layout_of(schema: Schema, config: FlexgenConfig, fitted: Params) -> Layout:
    """The layout that `autoencode` used."""
    return make_layout(schema, config, bool(fitted["sparse"]))


@computed_once
def posterior(
    layout: Layout, config: FlexgenConfig, parts: Params, data: Encoded
) -> alignment.Posterior:
    """What both encoders say of every patient; zeros where a modality is missing."""
    found: dict[str, Any] = {}
    for which in MODALITIES:
        has = getattr(data, f"has_{which}")
        mean = np.zeros((len(has), config.latent), np.float32)
        std = np.zeros((len(has), config.latent), np.float32)
        if has.any():
            model = make_autoencoder(layout, config, which)
            mean[has], std[has] = encode_all(
                model, parts[which], preprocessing.records(data, which)
            )
        found |= {f"{which}_mean": mean, f"{which}_std": std, f"has_{which}": has}
    return alignment.Posterior(**found, label=data.label)


def diffuse_in(
    stages: Stages,
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    parts: Params,
    cohort: Cohort,
    valid: Cohort | None,
    hidden: bool = True,
) -> Params:
    """Aligns the latents once, completes them, and learns their distribution."""
    layout = layout_of(schema, config, parts["fitted"])
    key_align, key_white, key_train = jax.random.split(key, 3)
    data = preprocessing.encode(parts["fitted"], layout, cohort)
    found = posterior(layout, config, parts, data)
    imputers, told = aligned(stages, schema, config, key_align, found, hidden)
    completed = latents(config, found, imputers)
    whitening = whiten(config, key_white, completed)
    judged = None
    if valid is not None:
        judged = preprocessing.encode(parts["fitted"], layout, valid)
        judged = latents(config, posterior(layout, config, parts, judged), imputers)
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
        completed,
        config.train,
        valid=judged,
    )
    weights = {which: parts[which] for which in MODALITIES}
    weights["score"] = trained.params
    return finished(parts["fitted"], weights, whitening, imputers, told)


def aligned(
    stages: Stages,
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    found: alignment.Posterior,
    hidden: bool,
) -> tuple[Params, dict[str, Any]]:
    """Imputers and diagnostics. Announces latents that hold nothing, what imputes, and
    a coupling that collapsed or did not converge."""
    imputers, told = alignment.fit_alignment(
        key, found, schema.num_classes, config.alignment, hidden
    )
    told |= {"latents": alignment.latents_told(found)}
    if stages.announce:
        stages.announce(f"latents: {alignment.latents_in_words(told['latents'])}")
        stages.announce(f"alignment: {alignment.in_words(told, config.alignment)}")
    return imputers, told


@computed_once
def whiten(
    config: FlexgenConfig, key: jax.Array, completed: latent.Latents
) -> Whitening:
    """Whitening of one draw of the completed latents; the identity if not wanted.

    Deviation: the paper's schedule ends at abar = .77 but sampling starts from pure
    noise, which loses the main directions of correlated latents; white ones lose
    nothing. Without `config.whiten` this is as in the paper.
    """
    draw = completing(config.alignment)
    z = draw(key, jax.tree.map(np.asarray, completed))
    return fit_whitening(np.asarray(z)) if config.whiten else no_whitening(z.shape[1])


@functools.lru_cache(maxsize=16)
def completing(config: AlignmentConfig) -> Any:
    """(key, Latents) -> one draw of the completed latents; compiled."""
    return jax.jit(functools.partial(alignment.complete, config))


def finished(
    fitted: Params,
    weights: Params,
    whitening: Whitening,
    imputers: Params,
    told: dict[str, Any],
) -> Params:
    """Everything `sample` and `impute` need, as NumPy arrays; donors stay behind."""
    weights = {**weights, "whitening": whitening._asdict()}
    kept = {way: without_donors(found) for way, found in imputers["within"].items()}
    imputers = imputers | {"within": kept}
    made = {"fitted": fitted, "weights": weights, "alignment": imputers}
    return jax.tree.map(np.asarray, made) | {"diagnostics": alignment.to_text(told)}


def latents(
    config: FlexgenConfig, found: alignment.Posterior, imputers: Params
) -> latent.Latents:
    """The data of the diffusion: patients with at least one modality, or with both."""
    keep = found.has_static | found.has_temporal
    if config.alignment.method == "complete":
        keep = found.has_static & found.has_temporal
    each = {name: leaf[keep] for name, leaf in found._asdict().items()}
    return latent.Latents(**each, common=imputers)


def alternate(
    stages: Stages,
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    parts: Params,
    cohort: Cohort,
    valid: Cohort | None,
) -> Params:
    """Turns of alignment and joint training [flexgen2024, Alg. 1]; see `turns`.

    Those who validate choose the average of the last turn, which is kept: losses of
    two turns rest on other imputed latents and another whitening.
    """
    layout, fitted = layout_of(schema, config, parts["fitted"]), parts["fitted"]
    encode = lambda people: preprocessing.encode(fitted, layout, known(config, people))
    data, judged = encode(cohort), None if valid is None else encode(valid)
    config = dataclasses.replace(config, train=turn_config(config, len(data.label)))
    start = {which: parts[which] for which in MODALITIES}
    weights, state = start, None
    objective = turns.joint_objective(layout, config, fitted, start)
    for turn in range(config.turns):
        keys = jax.random.split(jax.random.fold_in(key, turn), 3)
        found = posterior(layout, config, weights, data)
        imputers, _ = aligned(stages, schema, config, keys[0], found, hidden=False)
        whitening = whiten(config, keys[1], latents(config, found, imputers))
        joint = turns.Joint(data, imputers, whitening)
        judging = turn == config.turns - 1 and judged and len(judged.label)
        trained = stages.run(
            f"turn-{turn}",
            keys[2],
            objective,
            joint,
            config.train,
            valid=joint._replace(patients=judged) if judging else None,
            start=state,
        )
        weights, state = trained.params, trained.state
    # The encoders have moved since the last alignment; patients are imputed by a new
    # one. The score network keeps the whitening that it was trained with.
    found = posterior(layout, config, weights, data)
    key = jax.random.fold_in(key, config.turns)
    imputers, told = aligned(stages, schema, config, key, found, hidden=True)
    return finished(fitted, dict(weights), whitening, imputers, told)


def turn_config(config: FlexgenConfig, count: int) -> TrainConfig:
    """Optimisation of a turn, judged ten times or more in the last one."""
    train = config.train
    every = min(train.eval_every, train.steps // (10 * config.turns))
    batch = min(train.batch_size, count)
    return dataclasses.replace(train, eval_every=max(every, 1), batch_size=batch)


def known(config: FlexgenConfig, cohort: Cohort) -> Cohort:
    """The patients with a modality, or with both where none is imputed."""
    static, temporal = presence(cohort, "static"), presence(cohort, "temporal")
    keep = (
        static & temporal
        if config.alignment.method == "complete"
        else static | temporal
    )
    return cohort if keep.all() else rows_of(cohort, keep)
