"""The two variational autoencoders [flexgen2024, Sec. 4.2] as pure functions.

Per patient, with q = N(mean, diag std^2) and the label y given to the decoder:

    loss = -E_q[log p(x | z, y)] + kl_weight KL(q || N(0, I)),

where log p runs over observed values only.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.blocks import blocks_of
from jaxehr.core.checks import known
from jaxehr.core.contracts import Objective, Params
from jaxehr.models.flexgen import likelihoods
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.layout import Layout, Part
from jaxehr.models.flexgen.likelihoods import Drawn, Outputs
from jaxehr.models.flexgen.networks import (
    StaticDecoder,
    StaticEncoder,
    TemporalDecoder,
    TemporalEncoder,
)
from jaxehr.models.flexgen.preprocessing import Records, gather, take
from jaxehr.nn.vae import divergence

Which = Literal["static", "temporal"]
ACTIVE = 0.01  # nats of mean divergence above which a coordinate says something
BLOCK_BYTES = 2**28  # outputs of one block of patients outside training


class Autoencoder(NamedTuple):
    """One part's autoencoder; everything learned is in its `Params`.

    Attributes:
      objective: fitted (of the whole layout) -> training objective over `Records`.
      encode: (params, batch) -> mean and standard deviation of q, [B, l] each.
      decode: (params, z [B, l], one-hot label [B, classes]) -> Outputs.
      log_likelihood: (params, z, batch) -> [B], of values and length.
      draw: (keys [B], outputs) -> Drawn; row i depends on row i only.
      mode: outputs -> Drawn, the most probable values.
    """

    part: Part
    num_classes: int
    latent: int
    objective: Callable[[dict[str, Any]], Objective]
    encode: Callable[[Params, Records], tuple[jax.Array, jax.Array]]
    decode: Callable[[Params, jax.Array, jax.Array], Outputs]
    log_likelihood: Callable[[Params, jax.Array, Records], jax.Array]
    draw: Callable[[jax.Array, Outputs], Drawn]
    mode: Callable[[Outputs], Drawn]


class Networks(NamedTuple):
    """Both networks of one part; `told` are the classes the encoder is told."""

    part: Part
    config: FlexgenConfig
    encoder: Any
    decoder: Any
    classes: int
    told: int


@functools.lru_cache(maxsize=64)
def make_autoencoder(
    layout: Layout, config: FlexgenConfig, which: Which
) -> Autoencoder:
    """The autoencoder of one part; the same object for equal arguments."""
    known("part", which, get_args(Which))
    classes = layout.num_classes
    told = classes if config.label_in_encoder else 0
    if which == "static":
        part = layout.static
        encoder: Any = StaticEncoder(part, config)
        decoder: Any = StaticDecoder(part, config)
    else:
        part = layout.temporal
        encoder = TemporalEncoder(part, config)
        decoder = TemporalDecoder(part, config)
    networks = Networks(part, config, encoder, decoder, classes, told)

    def objective(fitted: dict[str, Any]) -> Objective:
        return Objective(
            functools.partial(init, networks, fitted[which]),
            functools.partial(elbo_loss, networks),
            functools.partial(take, part),
        )

    return Autoencoder(
        part,
        classes,
        config.latent,
        objective,
        functools.partial(encode, networks),
        functools.partial(decode, networks),
        functools.partial(log_likelihood, networks),
        functools.partial(likelihoods.draw, part),
        functools.partial(likelihoods.mode, part),
    )


def init(
    networks: Networks, fitted: dict[str, Any], key: jax.Array, batch: Records
) -> Params:
    """Random weights; the biases of the outputs say the marginals of training."""
    key_encoder, key_decoder = jax.random.split(key)
    label = jax.nn.one_hot(jnp.asarray(batch.label), networks.classes)
    z = jnp.zeros((len(label), networks.config.latent))
    encoder = networks.encoder.init(key_encoder, batch, label[:, : networks.told])
    decoder = dict(networks.decoder.init(key_decoder, z, label)["params"])
    bias = likelihoods.start_bias(networks.part, fitted)
    heads = dict(decoder["heads"])
    heads["all"] = heads["all"] | {"bias": jnp.asarray(bias)}
    decoder["heads"] = heads
    if networks.part.steps:
        bias = jnp.asarray(likelihoods.start_length(fitted))
        decoder["length"] = decoder["length"] | {"bias": bias}
    return {"encoder": encoder["params"], "decoder": decoder}


def encode(
    networks: Networks, params: Params, batch: Records
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation [B, l] of q(z | x)."""
    label = jax.nn.one_hot(jnp.asarray(batch.label), networks.told)
    variables = {"params": params["encoder"]}
    mean, logvar = networks.encoder.apply(variables, batch, label)
    return mean, jnp.exp(0.5 * logvar)


def decode(
    networks: Networks, params: Params, z: jax.Array, label: jax.Array
) -> Outputs:
    """Outputs for latents [B, l] and one-hot labels [B, classes]."""
    return networks.decoder.apply({"params": params["decoder"]}, z, label)


def log_likelihood(
    networks: Networks, params: Params, z: jax.Array, batch: Records
) -> jax.Array:
    """log p(x | z, y) [B] of the observed values, their masks and the length."""
    label = jax.nn.one_hot(jnp.asarray(batch.label), networks.classes)
    outputs, part = decode(networks, params, z, label), networks.part
    values = likelihoods.log_likelihood(part, outputs, batch.block, batch.length)
    return values + likelihoods.length_likelihood(outputs, batch.length)


def elbo_loss(
    networks: Networks, params: Params, key: jax.Array, batch: Records
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The bound of the module docstring, averaged over rows; a row without the part
    counts 0. Metrics are in nats a patient; `active_units` is a number of coordinates.

    With `kl_reduction` "batch" the divergence is summed over the rows of a batch, of
    `config.train`, against the mean reconstruction of a value, as in the authors' code
    (README, Deviations: divergence).
    """
    part, config = networks.part, networks.config
    valid = likelihoods.valid_rows(part, batch.block, batch.length)
    has = valid.any(-1) if part.steps else valid
    mean, std = encode(networks, params, batch)
    z = mean + std * jax.random.normal(key, mean.shape)
    error = -jnp.mean(jnp.where(has, log_likelihood(networks, params, z, batch), 0.0))
    each = jnp.where(has[:, None], divergence(mean, std), 0.0)  # [B, l]
    kl = each.sum(-1).mean()
    metrics = {
        "reconstruction": error,
        "kl": kl,
        "active_units": jnp.sum(each.mean(0) > ACTIVE).astype(jnp.float32),
    }
    if config.kl_reduction == "batch":
        values = part.num_outputs * max(part.steps, 1)
        return error / values + config.kl_weight * config.train.batch_size * kl, metrics
    return error + config.kl_weight * kl, metrics


def block_rows(part: Part) -> int:
    """Patients whose outputs take about `BLOCK_BYTES`; at least 16, at most 256."""
    bytes_each = 4 * max(part.steps, 1) * max(part.num_outputs, part.num_inputs)
    return int(min(max(BLOCK_BYTES // bytes_each, 16), 256))


@functools.lru_cache(maxsize=64)
def encoder_program(autoencoder: Autoencoder) -> Callable[..., Any]:
    """`take` and `encode` of one block of patients, compiled."""

    def run(params: Params, data: Records, rows: jax.Array) -> Any:
        return autoencoder.encode(params, take(autoencoder.part, data, rows))

    return jax.jit(run)


def encode_all(
    autoencoder: Autoencoder,
    params: Params,
    data: Records,
    rows_per_block: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of q for every patient, NumPy [n, l] each.

    The program sees one block at a time, so that it fits a cohort of any size.
    """
    count = len(data.label)
    if not count:
        empty = np.zeros((0, autoencoder.latent), np.float32)
        return empty, empty
    # Blocks are full, or a patient's latent would depend on how many there are.
    size = rows_per_block or block_rows(autoencoder.part)
    run = encoder_program(autoencoder)
    params, blocks = jax.device_put(params), []
    for rows, _ in blocks_of(count, size):
        label, length = (np.asarray(leaf)[rows] for leaf in (data.label, data.length))
        block = Records(label, length, gather(data.block, rows))
        found = run(params, block, np.arange(len(rows)))
        blocks.append([np.asarray(leaf) for leaf in found])
    mean, std = (np.concatenate(leaves)[:count] for leaves in zip(*blocks))
    return mean, std
