"""Algorithm 1 in turns: align, then train diffusion and autoencoders together.

The paper's "train encoders and decoders based on G(z_i)" is undefined; read (README,
Deviations) as the bound of both autoencoders on observed modalities, plus the decoders'
likelihood of what the score network denoises, for patients who have both: it denoises
the fused latent, so that of anyone else an imputed half would enter. No reconstruction
depends on an imputed latent.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.contracts import Objective, Params
from jaxehr.diffusion.whitening import Whitening
from jaxehr.models.flexgen import latent, preprocessing
from jaxehr.models.flexgen.alignment import complete
from jaxehr.models.flexgen.autoencoders import make_autoencoder
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.layout import Layout
from jaxehr.models.flexgen.preprocessing import Encoded, Records
from jaxehr.models.flexgen.records import MODALITIES

LATEST = 5  # the decoders see latents noised up to this part (a fifth) of the levels


class Joint(NamedTuple):
    """The data of a turn: patients, imputers of both directions, whitening.

    All of it is data, so that every turn is the same program.
    """

    patients: Encoded
    common: Params
    whitening: Whitening


def plan_turns(config: FlexgenConfig) -> dict[str, int]:
    """The steps of the diffusion, dealt out over the turns."""
    ends = np.linspace(0, config.train.steps, config.turns + 1).round().astype(int)
    return {f"turn-{i}": int(n) for i, n in enumerate(np.diff(ends))}


def take(layout: Layout, data: Joint, rows: jax.Array) -> Joint:
    """The dense batch of the patients `rows`."""
    whole = data.patients
    parts: dict[str, Any] = {}
    for which, part in (("static", layout.static), ("temporal", layout.temporal)):
        found = Records(whole.label, whole.length, getattr(whole, which))
        parts[which] = preprocessing.take(part, found, rows).block
    each: list[Any] = [jnp.asarray(leaf)[rows] for leaf in whole[:4]]
    return data._replace(patients=Encoded(*each, **parts))


def records_of(patients: Encoded, which: str) -> Records:
    """One part of every patient of a batch, also of those who lack it."""
    return Records(patients.label, patients.length, getattr(patients, which))


def encoded_latents(
    models: dict[str, Any], params: Params, batch: Joint
) -> latent.Latents:
    """What the encoders say of a batch; no gradient goes back to them."""
    patients, found = batch.patients, {}
    frozen = jax.lax.stop_gradient(params)
    for which, model in models.items():
        mean, std = model.encode(frozen[which], records_of(patients, which))
        found |= {f"{which}_mean": mean, f"{which}_std": std}
    return latent.Latents(
        label=patients.label,
        has_static=patients.has_static,
        has_temporal=patients.has_temporal,
        common=batch.common,
        **found,
    )


def joint_objective(
    layout: Layout,
    config: FlexgenConfig,
    fitted: Params,
    start: Params,
) -> Objective:
    """One batch: both bounds, the diffusion's loss, the decoders' on denoised latents.

    Args:
      start: weights of both autoencoders, from which the first turn begins.
    """
    models = {which: make_autoencoder(layout, config, which) for which in MODALITIES}
    bounds = {which: model.objective(fitted) for which, model in models.items()}
    draw = functools.partial(complete, config.alignment)
    score_of = functools.partial(
        latent.objective, config, layout.num_classes, complete=draw
    )

    latents = functools.partial(encoded_latents, models)

    def init(key: jax.Array, batch: Joint) -> Params:
        score = score_of(batch.whitening).init(key, latents(start, batch))
        return {**start, "score": score}

    def loss(params: Params, key: jax.Array, batch: Joint) -> Any:
        keys = jax.random.split(key, 5)
        total, metrics = jnp.float32(0.0), {}
        for which, subkey in zip(MODALITIES, keys[:2]):
            found = records_of(batch.patients, which)
            bound, told = bounds[which].loss(params[which], subkey, found)
            total = total + bound
            metrics |= {f"{which}_{name}": value for name, value in told.items()}
        encoded = latents(params, batch)
        diffusion = score_of(batch.whitening)
        score, _ = diffusion.loss(params["score"], keys[2], encoded)
        denoised = estimate(
            config, layout, batch.whitening, draw, params["score"], keys[3:], encoded
        )
        decoded = decoders_loss(config, models, params, denoised, batch.patients)
        metrics |= {"score": score, "decoders": decoded}
        return total + score + config.decoder_weight * decoded, metrics

    return Objective(init, loss, functools.partial(take, layout))


def estimate(
    config: FlexgenConfig,
    layout: Layout,
    whitening: Whitening,
    draw: Callable[..., jax.Array],
    score: Params,
    keys: jax.Array,
    encoded: latent.Latents,
) -> jax.Array:
    """z0_hat [B, 2l]: the score network's one-step estimate at a small random level."""
    z = draw(keys[0], encoded)
    key_level, key_noise = jax.random.split(keys[1])
    highest = max(latent.num_levels(config) // LATEST, 1)
    level = jax.random.randint(key_level, (z.shape[0],), 1, highest + 1)
    return jax.lax.stop_gradient(
        latent.denoised(
            config,
            layout.num_classes,
            whitening,
            key_noise,
            score,
            z,
            encoded.label,
            level,
        )
    )


def decoders_loss(
    config: FlexgenConfig,
    models: dict[str, Any],
    params: Params,
    z: jax.Array,
    patients: Encoded,
) -> jax.Array:
    """Minus the likelihood of both modalities given denoised latents, averaged over
    rows; a patient who lacks a modality counts 0."""
    parts = {"temporal": z[:, : config.latent], "static": z[:, config.latent :]}
    total, both = jnp.float32(0.0), patients.has_static & patients.has_temporal
    for which, model in models.items():
        found = records_of(patients, which)
        each = model.log_likelihood(params[which], parts[which], found)
        total = total - jnp.mean(jnp.where(both, each, 0.0))
    return total
