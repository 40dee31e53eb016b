"""A variational autoencoder of one row a patient, told the label.

Per patient with row x and label y, q = N(mean(x, y), diag std(x, y)^2):

    loss = -E_q[log p(x | z, y)] + kl_weight KL(q || N(0, I)),

the bound of [kingma2014] at kl_weight 1, summed over columns and coordinates; normal,
Bernoulli, categorical and binomial columns as in `matrix.log_likelihood`. Patients who
lack a modality are completed by their neighbours.
"""

# Deviation: the VAE of CorGAN's code [corgan2020] takes binary columns only, is not
# told the label, normalises nowhere and thresholds its means at 0.5. Here each hidden
# layer is normalised over its units, also in the preset `corgan`.

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.baselines.recipe import (
    ROWS,
    Recipe,
    Rows,
    Task,
    build,
    one_stage,
    rows_form,
)
from jaxehr.core.checks import known, positive, within
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params
from jaxehr.nn.likelihoods import sigma_of
from jaxehr.nn.vae import Posterior, dense, divergence
from jaxehr.training.config import TrainConfig

ACTIVE = 0.01  # nats of mean divergence above which a coordinate says something


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """Model and optimisation of the variational autoencoder."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""
    hidden: int = 256
    """Units of each dense layer."""
    num_layers: int = 2
    """Dense layers of the encoder, and of the decoder."""
    latent: int = 64
    """Coordinates of the latent."""
    kl_weight: float = 1.0
    """Weight of the divergence; 1 is the bound on the likelihood."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(ema_decay=0.99)
    )
    """Optimisation."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)
        positive(hidden=self.hidden, num_layers=self.num_layers, latent=self.latent)
        within("kl_weight", self.kl_weight, 0.0, 1e6)


PRESETS: dict[str, dict[str, Any]] = {
    # [corgan2020], Generative/VAE/MIMIC/vae.py.
    "corgan": {
        "num_layers": 1,
        "latent": 128,
        "train": {"batch_size": 512, "ema_decay": 0.0},
    },
    "small": {
        "hidden": 64,
        "latent": 16,
        "train": {"steps": 2000, "batch_size": 128, "lr_schedule": "cosine"},
    },
}


def vae(schema: Schema, config: VaeConfig | None = None) -> GenerativeModel:
    """The variational autoencoder for cohorts of `schema`."""
    config = config or VaeConfig()
    return build(schema, Recipe("vae", config, rows_form, learn, draw, one_stage))


class Encoder(nn.Module):
    """Row and label [B, columns] -> mean and log variance [B, l] of q."""

    config: VaeConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        for layer in range(self.config.num_layers):
            x = dense(self.config.hidden, f"layer_{layer}")(x)
        return Posterior(self.config.latent, name="posterior")(x)


class Decoder(nn.Module):
    """Latent and label [B, l + C] -> outputs [B, width] as in `matrix`."""

    width: int
    config: VaeConfig

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        for layer in range(self.config.num_layers):
            z = dense(self.config.hidden, f"layer_{layer}")(z)
        return nn.Dense(self.width, name="heads")(z)


def with_label(layout: Layout, x: jax.Array, label: Any) -> jax.Array:
    """x [B, D] with the one-hot label [B, C] beside it."""
    told = jax.nn.one_hot(jnp.asarray(label), layout.classes)
    return jnp.concatenate([x, told], -1)


def init(
    layout: Layout, config: VaeConfig, fitted: Params, key: jax.Array, batch: Batch
) -> Params:
    """Random weights; the biases of the outputs say the marginals of training."""
    key_encoder, key_decoder = jax.random.split(key)
    x = with_label(layout, matrix.matrix_of(layout, batch), batch.label)
    z = with_label(layout, jnp.zeros((len(x), config.latent)), batch.label)
    decoder = dict(Decoder(layout.width, config).init(key_decoder, z)["params"])
    bias = jnp.asarray(matrix.start_bias(layout, fitted))
    decoder["heads"] = {**decoder["heads"], "bias": bias}
    return {
        "encoder": Encoder(config).init(key_encoder, x)["params"],
        "decoder": decoder,
        "sigma": jnp.zeros(layout.numbers),
    }


def encode(
    layout: Layout, config: VaeConfig, params: Params, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation [B, l] of q(z | x, y)."""
    x = with_label(layout, matrix.matrix_of(layout, batch), batch.label)
    found: Any = Encoder(config).apply({"params": params["encoder"]}, x)
    return found[0], jnp.exp(0.5 * found[1])


def decode(
    layout: Layout, config: VaeConfig, params: Params, z: jax.Array, label: Any
) -> jax.Array:
    """Outputs [B, width] of latents z [B, l] and labels [B]."""
    network = Decoder(layout.width, config)
    told = with_label(layout, z, label)
    return jnp.asarray(network.apply({"params": params["decoder"]}, told))


def loss(
    layout: Layout, config: VaeConfig, params: Params, key: jax.Array, batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The bound of the module docstring, averaged over rows, in nats a patient."""
    mean, std = encode(layout, config, params, batch)
    z = mean + std * jax.random.normal(key, mean.shape)
    outputs, sigma = decode(layout, config, params, z, batch.label), params["sigma"]
    log_p = matrix.log_likelihood(layout, outputs, sigma_of(sigma), batch)
    each = divergence(mean, std)  # [B, l]
    error, kl = -log_p.mean(), each.sum(-1).mean()
    active = jnp.sum(each.mean(0) > ACTIVE).astype(jnp.float32)
    told = {"reconstruction": error, "kl": kl, "active_units": active}
    return error + config.kl_weight * kl, told


def learn(key: jax.Array, config: VaeConfig, task: Task) -> Params:
    """One training."""
    bound = functools.partial
    objective = Objective(
        bound(init, task.layout, config, task.fitted),
        bound(loss, task.layout, config),
        bound(task.form.take, task.layout),
    )
    run = task.stages.run
    trained = run("all", key, objective, task.data, config.train, valid=task.valid)
    return trained.params


def draw(
    layout: Layout,
    config: VaeConfig,
    options: Any,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """Rows decoded from z ~ N(0, I)."""
    each = jax.vmap(functools.partial(jax.random.split, num=3))(keys)
    z = normals(each[:, 0], config.latent)
    mode = options.decode == "mode"
    return draw_rows(layout, config, weights, each[:, 1:], z, label, mode=mode)


def normals(keys: jax.Array, num: int) -> jax.Array:
    """Standard normal [B, num]; row i from keys[i]."""
    return jax.vmap(lambda key: jax.random.normal(key, (num,)))(keys)


def draw_rows(
    layout: Layout,
    config: VaeConfig,
    weights: Params,
    keys: jax.Array,
    z: jax.Array,
    label: jax.Array,
    *,
    mode: bool,
) -> Batch:
    """Rows drawn from what the decoder says of latents z [B, l]; keys [B, 2]."""
    outputs = decode(layout, config, weights, z, label)
    rows = matrix.probabilities(layout, outputs)
    if not mode:
        noise = sigma_of(weights["sigma"]) * normals(keys[:, 0], layout.numbers)
        rows = rows.at[:, : layout.numbers].add(noise)
    return matrix.batch_of(layout, keys[:, 1], rows, label, mode=mode)
