"""The losses of each patient, for attacks on the model itself.

They are what training minimises: the bound of each autoencoder where the patient has
its part, -E_q[log p(x | z, y)] + kl_weight KL(q || N(0, I)), and |eps - eps_hat|^2 of
the fused latent at several noise levels. But donors are not at hand any more (see
`within`), the residual of a part that a patient lacks is normal here; and the bound is
that of a patient also where training summed the divergence over a batch (`kl_reduction`
"batch").
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.cohort import Cohort, Schema, num_patients
from jaxehr.core.contracts import Params
from jaxehr.diffusion import ddpm
from jaxehr.diffusion.whitening import Whitening, whiten
from jaxehr.models.flexgen import latent, preprocessing, turns
from jaxehr.models.flexgen.alignment import complete
from jaxehr.models.flexgen.autoencoders import (
    block_rows,
    divergence,
    make_autoencoder,
)
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.latent import Latents
from jaxehr.models.flexgen.layout import Layout
from jaxehr.models.flexgen.records import MODALITIES
from jaxehr.models.flexgen.training import layout_of
from jaxehr.models.flexgen.turns import Joint


def patient_losses(
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    params: Params,
    cohort: Cohort,
    *,
    levels: int = 16,
    repeats: int = 4,
) -> np.ndarray:
    """The losses of each patient [N, levels + 2]: even noise levels, then the bounds of
    the static and of the temporal part (0 where the patient lacks it).

    Each is a mean over `repeats` draws (the bounds over all draws); the label is told.
    Noise is the same for every patient, so that a number depends on the key, the
    parameters and the patient only.
    """
    layout, weights = layout_of(schema, config, params["fitted"]), params["weights"]
    data = preprocessing.encode(params["fitted"], layout, cohort)
    whitening = Whitening(**weights["whitening"])
    told = jax.device_put((weights, params["alignment"], whitening))
    run = program(layout, config, levels, repeats)
    size = min(block_rows(layout.static), block_rows(layout.temporal))
    width = levels + len(MODALITIES)
    count, found = num_patients(cohort), [np.zeros((0, width), np.float32)]
    for first in range(0, count, size):
        # Blocks are full, or the rounding of a number would depend on their size.
        rows = np.minimum(np.arange(first, first + size), count - 1)
        block = preprocessing.gather_all(data, rows)
        found.append(np.asarray(run(*told, key, block)))
    return np.concatenate(found)[:count]


@functools.lru_cache(maxsize=16)
def program(layout: Layout, config: FlexgenConfig, levels: int, repeats: int) -> Any:
    """The compiled losses of one block."""

    def run(
        weights: Params, common: Params, whitening: Any, key: jax.Array, block: Any
    ) -> jax.Array:
        data = Joint(block, common, whitening)
        batch = turns.take(layout, data, jnp.arange(block.label.shape[0]))
        return block_losses(layout, config, levels, repeats, weights, key, batch)

    return jax.jit(run)


def block_losses(
    layout: Layout,
    config: FlexgenConfig,
    levels: int,
    repeats: int,
    weights: Params,
    key: jax.Array,
    batch: Joint,
) -> jax.Array:
    """Losses [B, levels + 2] of a batch."""
    latents, scored = encoded(layout, config, weights, batch), scored_by(config, batch)
    told = jax.nn.one_hot(batch.patients.label, layout.num_classes)
    plan, highest = latent.plan_of(config), latent.num_levels(config)

    def one(draw: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        level, (key_latent, key_eps) = draw[0][None], jax.random.split(draw[1])
        z = completed(config, key_latent, latents)
        eps = jax.random.normal(key_eps, (1, z.shape[1]))
        x = ddpm.q_sample(plan, whiten(batch.whitening, z), level, eps)
        guess = latent.predict(config, weights["score"], x, level, told)
        left = jnp.where(scored, jnp.sum((guess - eps) ** 2, -1), 0.0)
        return left, bounds(layout, config, weights, latents, z, batch)

    count = levels * repeats
    level = 1 + (jnp.arange(count) // repeats * highest) // levels
    left, parts = jax.lax.map(one, (level, jax.random.split(key, count)))
    left = left.reshape(levels, repeats, -1).mean(1)  # [levels, B]
    return jnp.concatenate([left, parts.mean(0)]).T


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
    """Minus the bounds [2, B] of both autoencoders at the latents z."""
    parts = {"temporal": z[:, : config.latent], "static": z[:, config.latent :]}
    found = []
    for which in MODALITIES:
        model = make_autoencoder(layout, config, which)
        mean, std = (getattr(latents, f"{which}_{name}") for name in ("mean", "std"))
        records = turns.records_of(batch.patients, which)
        each = config.kl_weight * divergence(mean, std).sum(-1)
        each -= model.log_likelihood(weights[which], parts[which], records)
        found.append(jnp.where(getattr(latents, f"has_{which}"), each, 0.0))
    return jnp.stack(found)
