"""medGAN: a generator of latents for the decoder of an autoencoder [choi2017].

Stage 1 trains an autoencoder of rows x in [0, 1]^D. Stage 2 plays

    L_D = -E log D(x, m) - E log(1 - D(x', m')),    L_G = -E log D(x', m'),

x' = dec(G(z)), z ~ N(0, I), where m, m' are the means of the real and of the made rows
of the batch ("minibatch averaging": D sees whether rows are too alike). G is a stack
of residual layers h = act(BN(W h)) + h; L_G moves the generator and the decoder. Every
loss has l2 / 2 times the squares of the parameters it moves.

D columns, l coordinates of the latent, B rows of a batch.
"""

# Deviation: medGAN knows binary columns (and counts). Here a number is its quantile
# level in [0, 1], and a category has a softmax over its columns; values are drawn with
# the decoder's outputs as chances (`--decode mode` is medGAN's threshold at 0.5).
# Deviation: the label is one of the columns; medGAN has none.
# Deviation: dropout, declared in medGAN's code but never on, is left out.

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxehr.baselines import adversarial as shared
from jaxehr.baselines.adversarial import Residual
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.baselines.recipe import ROWS, Recipe, Rows, Task, build, rows_form
from jaxehr.core.checks import known, positive, within
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params, Player
from jaxehr.nn.mlp import Mlp
from jaxehr.training.config import TrainConfig

AUTOENCODER_CHUNK = 128  # rows; it does not look at a batch as a whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class MedganConfig:
    """Model and optimisation of medGAN; defaults are those of the authors' code."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""
    hidden: int = 0
    """Units of a layer between columns and latent, on both sides; 0 = none."""
    latent: int = 128
    """Coordinates of the latent, of the noise, and units of the generator."""
    num_layers: int = 3
    """Residual layers of the generator."""
    discriminator: int = 256
    """Units of the discriminator's first layer; the second has half of them."""
    discriminator_updates: int = 2
    """Updates of the discriminator in a step, before one of generator and decoder."""
    l2: float = 1e-3
    """Weight of the squares of all parameters."""
    autoencoder_epochs: int = 100
    """Passes over the patients of the first stage."""
    autoencoder_batch: int = 100
    """Patients of a batch of the first stage."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(chunk_rows=shared.WHOLE, ema_decay=0.99)
    )
    """Optimisation of the second stage, on one device, since a batch is normalised as a
    whole; the first takes its step size. With chunks below the batch, statistics are
    those of a chunk."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)
        positive(
            latent=self.latent,
            num_layers=self.num_layers,
            discriminator=self.discriminator,
            discriminator_updates=self.discriminator_updates,
            autoencoder_epochs=self.autoencoder_epochs,
            autoencoder_batch=self.autoencoder_batch,
        )
        within("hidden", self.hidden, 0, 2**16)
        within("l2", self.l2, 0.0, 1e3)


PRESETS: dict[str, dict[str, Any]] = {
    # [choi2017], medgan.py: no average of the weights, batches of 1,000.
    "authors": {"train": {"batch_size": 1000, "ema_decay": 0.0}},
    # [flexgen2024, App. B]: "two-layer MLP", 512 then 128.
    "paper": {"hidden": 512, "train": {"batch_size": 128, "ema_decay": 0.0}},
    "small": {
        "latent": 64,
        "discriminator": 128,
        "autoencoder_epochs": 40,
        "train": {"steps": 4000, "batch_size": 256},
    },
}


def medgan(schema: Schema, config: MedganConfig | None = None) -> GenerativeModel:
    """medGAN for cohorts of `schema`."""
    config = config or MedganConfig()
    return build(
        schema,
        Recipe("medgan", config, rows_form, learn, draw, plan, conditional=False),
    )


def plan(config: MedganConfig, patients: int) -> dict[str, int]:
    """Both stages."""
    first = shared.passes(config.autoencoder_epochs, config.autoencoder_batch, patients)
    return {"autoencoder": first, "gan": config.train.steps}


class Encoder(nn.Module):
    """Rows [B, D] -> latents [B, l] in (-1, 1)."""

    config: MedganConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        widths = (self.config.hidden, self.config.latent)
        return nn.tanh(Mlp(tuple(w for w in widths if w), nn.tanh, name="mlp")(x))


class Decoder(nn.Module):
    """Latents [B, l] -> logits [B, D]."""

    width: int
    config: MedganConfig

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        widths = (self.config.hidden, self.width)
        return Mlp(tuple(w for w in widths if w), nn.tanh, name="mlp")(z)


class Discriminator(nn.Module):
    """Rows [B, D] -> logits [B] of being real; their mean stands beside each."""

    units: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        mean = jnp.broadcast_to(x.mean(0), x.shape)
        widths = (self.units, max(self.units // 2, 1), 1)
        return Mlp(widths, name="mlp")(jnp.concatenate([x, mean], -1))[:, 0]


def autoencoder(layout: Layout, config: MedganConfig) -> Objective:
    """Stage 1: the cross entropy of a row by its own latent, in nats a patient."""
    encoder, decoder = Encoder(config), Decoder(layout.width, config)

    def init(key: jax.Array, batch: Batch) -> Params:
        keys, x = jax.random.split(key), matrix.matrix_of(layout, batch, unit=True)
        z = jnp.zeros((len(x), config.latent))
        return {
            "encoder": encoder.init(keys[0], x)["params"],
            "decoder": decoder.init(keys[1], z)["params"],
        }

    def loss(params: Params, key: jax.Array, batch: Batch) -> Any:
        x = matrix.matrix_of(layout, batch, unit=True)
        z: Any = encoder.apply({"params": params["encoder"]}, x)
        outputs: Any = decoder.apply({"params": params["decoder"]}, z)
        error = shared.cross_entropy(layout, outputs, batch).mean()
        return error + shared.penalty(config.l2, params), {"reconstruction": error}

    return Objective(init, loss)


def logits_of(
    layout: Layout, config: MedganConfig, params: Params, z: jax.Array
) -> jax.Array:
    """Logits [B, D] of noise z [B, l], by the settled moments if there are any."""
    network, moments = Residual(config.num_layers), params.get("moments", {})
    h = shared.call(network, params["generator"], z, moments)[0]
    decoder = Decoder(layout.width, config)
    return jnp.asarray(decoder.apply({"params": params["decoder"]}, h))


def duel(layout: Layout, config: MedganConfig) -> Objective:
    """Stage 2; parameters `generator`, `decoder`, `discriminator`."""
    network = Discriminator(config.discriminator)

    def judge(params: Params, x: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply({"params": params["discriminator"]}, x))

    def init(key: jax.Array, batch: Any) -> Params:
        keys, two = jax.random.split(key), jnp.zeros((2, config.latent))
        generator = Residual(config.num_layers).init(keys[0], two)["params"]
        rows = jnp.zeros((2, layout.width))
        judging = network.init(keys[1], rows)["params"]
        return {"generator": generator, "discriminator": judging}

    def made(params: Params, key: jax.Array, rows: int) -> jax.Array:
        z = jax.random.normal(key, (rows, config.latent))
        outputs = logits_of(layout, config, params, z)
        return matrix.probabilities(layout, outputs, unit=True)

    def discriminate(params: Params, key: jax.Array, batch: Batch) -> Any:
        x = matrix.matrix_of(layout, batch, unit=True)
        real = shared.judged(judge(params, x), True)
        fake = shared.judged(judge(params, made(params, key, len(x))), False)
        decay = shared.penalty(config.l2, params["discriminator"])
        return real + fake + decay, {"real": real, "fake": fake}

    def generate(params: Params, key: jax.Array, batch: Batch) -> Any:
        fake = judge(params, made(params, key, len(batch.label)))
        error = shared.judged(fake, True)
        decay = shared.penalty(config.l2, (params["generator"], params["decoder"]))
        return error + decay, {"fooled": error}

    players = (
        Player(
            "discriminator",
            discriminate,
            ("discriminator",),
            config.discriminator_updates,
        ),
        Player("generator", generate, ("generator", "decoder")),
    )
    return Objective(init, generate, players=players, whole=True)


def moments_of(config: MedganConfig, params: Params, key: jax.Array) -> Params:
    """Settled moments of the generator's layers."""
    network, generator = Residual(config.num_layers), params["generator"]
    run = lambda moments, z: shared.call(network, generator, z, moments)[1]
    return shared.settle(key, run, config.latent)


def learn(key: jax.Array, config: MedganConfig, task: Task) -> Params:
    """Autoencoder, then the two players, then the moments."""
    keys, layout = jax.random.split(key, 4), task.layout
    take = functools.partial(task.form.take, layout)
    first = dataclasses.replace(
        config.train,
        batch_size=config.autoencoder_batch,
        chunk_rows=AUTOENCODER_CHUNK,
    )
    done = task.stages.run(
        "autoencoder",
        keys[0],
        autoencoder(layout, config)._replace(take=take),
        task.data,
        first,
        valid=task.valid,
    )
    objective = duel(layout, config)._replace(take=take)
    begun = {"decoder": done.params["decoder"]}
    start = shared.prepared(objective, config.train, keys[1], begun)
    # No validation: the loss of a player says nothing of how good the patients are.
    done = task.stages.run(
        "gan", keys[2], objective, task.data, config.train, start=start
    )
    kept = {name: done.params[name] for name in ("generator", "decoder")}
    settled = jax.jit(functools.partial(moments_of, config))
    return {**kept, "moments": settled(kept, keys[3])}


def draw(
    layout: Layout,
    config: MedganConfig,
    options: Any,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """Rows of z ~ N(0, I), by fixed moments."""
    pairs = jax.vmap(jax.random.split)(keys)
    z = shared.noise(pairs[:, 0], config.latent)
    rows = matrix.probabilities(
        layout, logits_of(layout, config, weights, z), unit=True
    )
    mode = options.decode == "mode"
    return matrix.batch_of(layout, pairs[:, 1], rows, label, mode=mode, unit=True)
