"""Diffusion of the fused latents z = [temporal; static] [flexgen2024, Sec. 4.3].

B patients, l coordinates of one modality, C classes, T noise levels. Latents are
whitened first and noise is predicted; a sample is whitened backwards.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.blocks import block_rows, blocks_of
from jaxehr.core.contracts import Objective, Params, gather
from jaxehr.core.keys import patient_keys
from jaxehr.diffusion import ddpm, vectors
from jaxehr.diffusion.whitening import Whitening, colour, whiten
from jaxehr.models.flexgen.config import FlexgenConfig, FlexgenSampling
from jaxehr.nn.score import ScoreNetwork
from jaxehr.training.sharding import compiled_rows

LONG = 1000  # levels of the schedule `long`


class Latents(NamedTuple):
    """The data of the diffusion; all but `common` have patients in front."""

    label: Any  # Int [N]
    static_mean: Any  # [N, l]
    static_std: Any
    temporal_mean: Any
    temporal_std: Any
    has_static: Any  # Bool [N]
    has_temporal: Any
    common: Any  # what completing a patient needs: the imputers of both directions


def num_levels(config: FlexgenConfig) -> int:
    """T."""
    return LONG if config.betas == "long" else config.diffusion_steps


def plan_of(config: FlexgenConfig) -> ddpm.Schedule:
    """The noise schedule."""
    return ddpm.schedule(ddpm.betas(config.betas, num_levels(config)))


def predict(
    config: FlexgenConfig, params: Params, x: jax.Array, t: jax.Array, told: jax.Array
) -> jax.Array:
    """eps_hat [B, 2l] of white noisy latents at levels t, Int [B] or [1]."""
    noise = ddpm.scales(plan_of(config), t)[1]
    inputs = (x, t / num_levels(config), told, noise)
    guess: Any = network_of(config).apply({"params": params}, *inputs)
    return guess


def network_of(config: FlexgenConfig) -> ScoreNetwork:
    authors = config.last_activation == "gelu"
    return ScoreNetwork(2 * config.latent, config.width, authors)


def take(data: Latents, rows: jax.Array) -> Latents:
    """The patients `rows`; what is common to all of them stays."""
    return gather(data._replace(common=None), rows)._replace(common=data.common)


def objective(
    config: FlexgenConfig,
    num_classes: int,
    whitening: Whitening,
    complete: Callable[[jax.Array, Latents], jax.Array],
) -> Objective:
    """Mean |eps - eps_hat|^2 over coordinates, t uniform in 1 ... T [ho2020, Eq. 14].

    The label is hidden with probability `config.label_drop`, for guidance.

    Args:
      complete: (key, batch) -> z [B, 2l], temporal first: posterior draws, and draws of
        what is missing.
    """
    plan = plan_of(config)

    def init(key: jax.Array, batch: Latents) -> Params:
        rows = batch.label.shape[0]
        x, one = jnp.zeros((rows, 2 * config.latent)), jnp.ones((rows, 1))
        told = jnp.zeros((rows, num_classes))
        return network_of(config).init(key, x, one[:, 0], told, one)["params"]

    def loss(params: Params, key: jax.Array, batch: Latents) -> Any:
        keys, told = jax.random.split(key, 4), jax.nn.one_hot(batch.label, num_classes)
        x0 = whiten(whitening, complete(keys[0], batch))
        guess, drop = functools.partial(predict, config, params), config.label_drop
        return vectors.noise_loss(plan, guess, keys[1:], x0, told, drop), {}

    return Objective(init, loss, take)


def denoised(
    config: FlexgenConfig,
    num_classes: int,
    whitening: Whitening,
    key: jax.Array,
    params: Params,
    z: jax.Array,
    label: jax.Array,
    t: jax.Array,
) -> jax.Array:
    """z0_hat [B, 2l]: latents z, noised to levels t, Int [B], denoised in one step."""
    plan = plan_of(config)
    x0 = whiten(whitening, z)
    x = ddpm.q_sample(plan, x0, t, jax.random.normal(key, x0.shape))
    eps = predict(config, params, x, t, jax.nn.one_hot(label, num_classes))
    return colour(whitening, ddpm.clean_of(plan, x, t, eps))


def sample_rows(
    config: FlexgenConfig,
    num_classes: int,
    sampling: FlexgenSampling,
    key: jax.Array,
    params: Params,
    whitening: Whitening,
    index: jax.Array,
    label: jax.Array,
) -> jax.Array:
    """z [rows, 2l] of the patients with numbers `index` and labels `label`, [rows]."""
    keys, told = patient_keys(key, index), jax.nn.one_hot(label, num_classes)
    guess, dim = functools.partial(predict, config, params), 2 * config.latent
    x = vectors.draw(plan_of(config), guess, sampling, keys, told, dim)
    return colour(whitening, x)


@functools.lru_cache(maxsize=16)
def program(
    config: FlexgenConfig, num_classes: int, sampling: FlexgenSampling, devices: int
) -> Any:
    """The compiled sampler of one block on each device."""
    run = functools.partial(sample_rows, config, num_classes, sampling)
    return compiled_rows(run, devices, copied=3)


def sample(
    config: FlexgenConfig,
    num_classes: int,
    whitening: Whitening,
    sampling: FlexgenSampling,
    key: jax.Array,
    params: Params,
    index: np.ndarray,
    label: np.ndarray,
) -> np.ndarray:
    """Latents z [N, 2l] of the patients `index` [N]; patient i from fold_in(key, i).

    Guidance is (1 + w) eps(label) - w eps(no label). Blocks have a fixed number of
    rows, so that a patient does not depend on how many are drawn.

    Raises:
      InputError: see `vectors.check_options`.
    """
    levels = num_levels(config)
    vectors.check_options(levels, num_classes, config.label_drop, sampling)
    devices = jax.device_count()
    run = program(config, num_classes, sampling, devices)
    params, whitening = jax.device_put((params, whitening))
    count, blocks = len(index), [np.zeros((0, 2 * config.latent), np.float32)]
    for rows, _ in blocks_of(count, 2 * block_rows() * devices):
        out = run(key, params, whitening, index[rows], label[rows])
        blocks.append(np.asarray(out))
    return np.concatenate(blocks)[:count]
