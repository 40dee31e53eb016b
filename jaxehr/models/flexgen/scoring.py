"""The loss of each patient, for attacks on the model itself.

It is the sum of what training minimises: the bounds of both autoencoders on what the
patient has, and the noise that the score network leaves in the fused latent,

    sum_parts (-E_q[log p(x | z, y)] + kl_weight KL(q || N(0, I)))
        + 1/2 E |eps - eps_hat|^2.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.cohort import Cohort, Schema, num_patients
from jaxehr.core.contracts import Params
from jaxehr.diffusion import ddpm
from jaxehr.diffusion.edm import low_discrepancy
from jaxehr.models.flexgen import latent, preprocessing, turns
from jaxehr.models.flexgen.alignment import complete
from jaxehr.models.flexgen.autoencoders import (
    block_rows,
    divergence,
    make_autoencoder,
)
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.latent import Latents, Whitening
from jaxehr.models.flexgen.layout import Layout
from jaxehr.models.flexgen.stages import MODALITIES
from jaxehr.models.flexgen.training import layout_of
from jaxehr.models.flexgen.turns import Joint


def loss(
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    params: Params,
    cohort: Cohort,
    *,
    draws: int = 16,
) -> np.ndarray:
    """The loss of each patient [N], label told, mean over `draws` noise levels.

    The levels cover the schedule evenly. Levels and noise are the same for every
    patient, so that a number depends on the key, the parameters and the patient only.
    """
    layout, weights = layout_of(schema, config, params["fitted"]), params["weights"]
    data = preprocessing.encode(params["fitted"], layout, cohort)
    whitening = Whitening(**weights["whitening"])
    common = jax.device_put((weights, Joint(data, params["alignment"], whitening)))
    run, size = program(layout, config, draws), rows_of_block(layout)
    count, found = num_patients(cohort), [np.zeros(0, np.float32)]
    for first in range(0, count, size):
        # Blocks are full, or the rounding of a number would depend on their size.
        rows = np.minimum(np.arange(first, first + size), count - 1)
        found.append(np.asarray(run(*common, key, rows)))
    return np.concatenate(found)[:count]


def rows_of_block(layout: Layout) -> int:
    return min(block_rows(layout.static), block_rows(layout.temporal))


@functools.lru_cache(maxsize=16)
def program(layout: Layout, config: FlexgenConfig, draws: int) -> Any:
    """The compiled losses of one block."""

    def run(weights: Params, data: Joint, key: jax.Array, rows: jax.Array) -> jax.Array:
        batch = turns.take(layout, data, rows)
        return patient_losses(layout, config, draws, weights, key, batch)

    return jax.jit(run)


def patient_losses(
    layout: Layout,
    config: FlexgenConfig,
    draws: int,
    weights: Params,
    key: jax.Array,
    batch: Joint,
) -> jax.Array:
    """Loss of each patient of a batch [B]."""
    latents, scored = encoded(layout, config, weights, batch), scored_by(config, batch)
    told = jax.nn.one_hot(batch.patients.label, layout.num_classes)
    plan, highest = latent.plan_of(config), latent.num_levels(config)
    key_levels, key_noise = jax.random.split(key)

    def one(draw: tuple[jax.Array, jax.Array]) -> jax.Array:
        share, key = draw
        key_latent, key_eps = jax.random.split(key)
        z = completed(config, key_latent, latents)
        total = bounds(layout, config, weights, latents, z, batch)
        level = jnp.minimum(1 + (highest * share).astype(jnp.int32), highest)[None]
        eps = jax.random.normal(key_eps, (1, z.shape[1]))
        x = ddpm.q_sample(plan, latent.whiten(batch.whitening, z), level, eps)
        guess = latent.predict(config, weights["score"], x, level, told)
        left = 0.5 * jnp.sum((guess - eps) ** 2, -1)
        return total + jnp.where(scored, left, 0.0)

    shares = low_discrepancy(key_levels, draws)
    return jax.lax.map(one, (shares, jax.random.split(key_noise, draws))).mean(0)


def encoded(
    layout: Layout, config: FlexgenConfig, weights: Params, batch: Joint
) -> Latents:
    """What both encoders say of a batch."""
    models = {which: make_autoencoder(layout, config, which) for which in MODALITIES}
    return turns.encoded_latents(models, weights, batch)


def scored_by(config: FlexgenConfig, batch: Joint) -> jax.Array:
    """Bool [B]: whom the score network learns from."""
    static, temporal = batch.patients.has_static, batch.patients.has_temporal
    needs_both = config.alignment.method == "complete"
    return static & temporal if needs_both else static | temporal


def completed(config: FlexgenConfig, key: jax.Array, latents: Latents) -> jax.Array:
    """`complete` with the same noise for every patient: z [B, 2l], temporal first."""

    def one(row: Latents) -> jax.Array:
        alone = jax.tree.map(lambda leaf: leaf[None], row)
        alone = alone._replace(common=latents.common)
        return complete(config.alignment, key, alone)[0]

    return jax.vmap(one)(latents._replace(common=None))


def bounds(
    layout: Layout,
    config: FlexgenConfig,
    weights: Params,
    latents: Latents,
    z: jax.Array,
    batch: Joint,
) -> jax.Array:
    """Minus the bounds [B] of both autoencoders at the latents z, on what is there."""
    parts = {"temporal": z[:, : config.latent], "static": z[:, config.latent :]}
    total = jnp.zeros(z.shape[0])
    for which in MODALITIES:
        model = make_autoencoder(layout, config, which)
        mean, std = (getattr(latents, f"{which}_{name}") for name in ("mean", "std"))
        records = turns.records_of(batch.patients, which)
        each = config.kl_weight * divergence(mean, std).sum(-1)
        each -= model.log_likelihood(weights[which], parts[which], records)
        total += jnp.where(getattr(latents, f"has_{which}"), each, 0.0)
    return total
