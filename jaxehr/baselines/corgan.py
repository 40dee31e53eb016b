"""CorGAN: a Wasserstein GAN in the latent of a convolutional autoencoder [corgan2020].

Stage 1 trains a one-dimensional convolutional autoencoder of rows x in [0, 1]^D, folded
into c = ceil(D / 1071) channels of 1071 places: of each column as many copies in a row
as there is room for, then zeros. Stage 2 plays [arjovsky2017]

    L_f = E f(dec(G(z))) - E f(x),    L_G = -E f(dec(G(z))),    z ~ N(0, I),

with every weight of the critic f cut to [-clip, clip] after each update. L_G moves the
generator, two residual layers, and more slowly the decoder. Every loss has l2 / 2 times
the squares of the parameters it moves.

B rows, D columns, L positions, C channels, k kernel, s stride.
"""

# Deviation: the authors' network takes rows of exactly 1,071 columns, the only width at
# which its decoder ends where its encoder began. Rows are folded to that width; few
# columns are repeated (a logit is the mean over its copies), for with zeros instead
# most of the decoder's first positions, and so its weights, would make nothing.
# Deviation: numbers, categories and the label come in as for medGAN.
# Deviation: the authors pretrain the convolutional autoencoder for one epoch (of 46,520
# patients), the dense one for 100; we take 100, and one in the preset `authors`.
# Deviation: weights start with the variance that keeps a signal's; theirs, N(0, 0.02^2)
# whatever the layer, make small networks stand still at first.
# Deviation: their bursts of 100 updates of the critic (the first 25 steps, and every
# 500th) are left out. Weights are cut after an update, not before.

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxehr.baselines import adversarial as shared
from jaxehr.baselines.adversarial import Norm, Residual
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.baselines.recipe import ROWS, Recipe, Rows, Task, build, rows_form
from jaxehr.core.checks import known, positive, within
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params, Player
from jaxehr.nn.mlp import Mlp
from jaxehr.training.config import TrainConfig
from jaxehr.training.turns import optimiser

LENGTH = 1071
# (kernel, stride, channels over those of the first layer); 1071 -> 1 and back.
DOWN = ((5, 2, 1), (5, 2, 2), (5, 3, 4), (5, 3, 8), (5, 3, 16), (8, 1, 32))
UP = ((5, 1, 16), (5, 4, 8), (7, 4, 4), (7, 3, 2), (7, 2, 1), (3, 2, 0))
EPSILON = 1e-5  # of the autoencoder's normalisation
RESIDUALS = 2  # layers of the generator


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorganConfig:
    """Model and optimisation of CorGAN; defaults are the authors' unless noted."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""
    channels: int = 4
    """Channels of the first convolution; the last one, and the latent, have 32 times as
    many."""
    critic: int = 256
    """Units of each of the critic's three layers."""
    critic_updates: int = 5
    """Updates of the critic in a step, before one of generator and decoder."""
    clip: float = 0.01
    """Largest size of a weight of the critic."""
    decoder_rate: float = 0.1
    """Step size of the decoder in the second stage, over that of the generator."""
    l2: float = 1e-4
    """Weight of the squares of all parameters."""
    autoencoder_epochs: int = 100
    """Passes over the patients of the first stage."""
    autoencoder_learning_rate: float = 1e-3
    """Adam step size of the first stage."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(chunk_rows=shared.WHOLE, ema_decay=0.99)
    )
    """Optimisation of the second stage; the first takes its batch. Both are on one
    device, since a batch is normalised as a whole. With chunks below the batch,
    statistics are those of a chunk."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)
        positive(
            channels=self.channels,
            critic=self.critic,
            critic_updates=self.critic_updates,
            clip=self.clip,
            autoencoder_epochs=self.autoencoder_epochs,
            autoencoder_learning_rate=self.autoencoder_learning_rate,
        )
        within("decoder_rate", self.decoder_rate, 0.0, 1e3)
        within("l2", self.l2, 0.0, 1e3)

    @property
    def latent(self) -> int:
        """Coordinates of the latent, of the noise, and units of the generator."""
        return self.channels * DOWN[-1][-1]


PRESETS: dict[str, dict[str, Any]] = {
    # [corgan2020], Generative/corGAN/pytorch/CNN/MIMIC/wgancnnmimic.py.
    "authors": {
        "autoencoder_epochs": 1,
        "train": {"batch_size": 512, "ema_decay": 0.0},
    },
    "small": {
        "channels": 2,
        "autoencoder_epochs": 60,
        "autoencoder_learning_rate": 5e-3,
        "train": {"steps": 2000, "batch_size": 128},
    },
}


def corgan(schema: Schema, config: CorganConfig | None = None) -> GenerativeModel:
    """CorGAN for cohorts of `schema`."""
    config = config or CorganConfig()
    return build(
        schema,
        Recipe("corgan", config, rows_form, learn, draw, plan, conditional=False),
    )


def plan(config: CorganConfig, patients: int) -> dict[str, int]:
    """Both stages."""
    batch = config.train.batch_size
    first = shared.passes(config.autoencoder_epochs, batch, patients)
    return {"autoencoder": first, "gan": config.train.steps}


def folds(width: int) -> int:
    """c, the channels that `width` columns are folded into."""
    return max(math.ceil(width / LENGTH), 1)


def copies(width: int) -> int:
    """How often a column stands in the folded row."""
    return folds(width) * LENGTH // max(width, 1)


def fold(x: jax.Array) -> jax.Array:
    """Rows [B, D] -> [B, 1071, c]: channel j holds places 1071 j and on."""
    count = folds(x.shape[-1])
    x = jnp.repeat(x, copies(x.shape[-1]), -1)
    wide = jnp.pad(x, ((0, 0), (0, count * LENGTH - x.shape[-1])))
    return wide.reshape(len(x), count, LENGTH).swapaxes(1, 2)


def unfold(x: jax.Array, width: int) -> jax.Array:
    """The inverse of `fold`: [B, 1071, c] -> [B, D], means over copies."""
    flat = x.swapaxes(1, 2).reshape(len(x), -1)
    used = flat[:, : copies(width) * width]
    return used.reshape(len(x), width, -1).mean(-1)


class Narrow(nn.Module):
    """Convolution without padding: [B, L, C] -> [B, (L - k) // s + 1, features].

    One product over shifted blocks of s positions, for which there is fast code on
    every device.
    """

    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rows, length, channels = x.shape
        count = (length - self.kernel) // self.stride + 1
        groups = math.ceil(self.kernel / self.stride)
        size = (count - 1 + groups) * self.stride
        x = jnp.pad(x[:, :size], ((0, 0), (0, max(size - length, 0)), (0, 0)))
        blocks = x.reshape(rows, -1, self.stride * channels)
        seen = [blocks[:, g : g + count] for g in range(groups)]
        seen = jnp.concatenate(seen, -1)[..., : self.kernel * channels]
        return nn.Dense(self.features, name="kernel")(seen)


class Widen(nn.Module):
    """Transposed convolution: [B, L, C] -> [B, s (L - 1) + k, features].

    Each position adds k outputs from s times its place on; in blocks of s outputs.
    """

    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rows, length, _ = x.shape
        size, block = self.kernel * self.features, self.stride * self.features
        dense = nn.Dense(size, use_bias=False, name="kernel")
        groups = math.ceil(self.kernel / self.stride)
        each = jnp.pad(dense(x), ((0, 0), (0, 0), (0, groups * block - size)))
        out = jnp.zeros((rows, length + groups - 1, block), x.dtype)
        for g, part in enumerate(jnp.split(each, groups, -1)):
            out += jnp.pad(part, ((0, 0), (g, groups - 1 - g), (0, 0)))
        out = out.reshape(rows, -1, self.features)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return out[:, : self.stride * (length - 1) + self.kernel] + bias


class Encoder(nn.Module):
    """Folded rows [B, 1071, c] -> latents [B, l] in (-1, 1)."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, (kernel, stride, wide) in enumerate(DOWN):
            x = Narrow(self.channels * wide, kernel, stride, name=f"layer_{i}")(x)
            if 0 < i < len(DOWN) - 1:
                x = Norm(EPSILON, name=f"norm_{i}")(x)
            if i < len(DOWN) - 1:
                x = nn.leaky_relu(x, 0.2)
        return nn.tanh(x[:, 0])


class Decoder(nn.Module):
    """Latents [B, l] -> logits of folded rows [B, 1071, count]."""

    channels: int
    count: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        x = z[:, None]
        for i, (kernel, stride, wide) in enumerate(UP):
            features = self.channels * wide or self.count
            x = Widen(features, kernel, stride, name=f"layer_{i}")(x)
            if 0 < i < len(UP) - 1:
                x = Norm(EPSILON, name=f"norm_{i}")(x)
            if i < len(UP) - 1:
                x = nn.relu(x)
        return x


def decode(
    layout: Layout,
    config: CorganConfig,
    params: Params,
    z: jax.Array,
    moments: Params,
) -> tuple[jax.Array, Params]:
    """Logits [B, D] of latents z [B, l], and the moments of the decoder's layers."""
    network = Decoder(config.channels, folds(layout.width))
    out, found = shared.call(network, params, z, moments)
    return unfold(out, layout.width), found


def generate(
    layout: Layout, config: CorganConfig, params: Params, z: jax.Array, moments: Params
) -> tuple[jax.Array, Params]:
    """Logits [B, D] of noise z [B, l], and the moments of all layers; see `settle`."""
    kept = lambda name: moments.get(name, {})
    network = Residual(RESIDUALS)
    h, first = shared.call(network, params["generator"], z, kept("generator"))
    out, last = decode(layout, config, params["decoder"], h, kept("decoder"))
    return out, {"generator": first, "decoder": last}


def autoencoder(layout: Layout, config: CorganConfig) -> Objective:
    """Stage 1: the cross entropy of a row by its own latent, in nats a patient."""
    encoder = Encoder(config.channels)

    def init(key: jax.Array, batch: Batch) -> Params:
        keys, x = jax.random.split(key), matrix.matrix_of(layout, batch, unit=True)
        decoder = Decoder(config.channels, folds(layout.width))
        z = jnp.zeros((len(x), config.latent))
        return {
            "encoder": encoder.init(keys[0], fold(x))["params"],
            "decoder": decoder.init(keys[1], z)["params"],
        }

    def loss(params: Params, key: jax.Array, batch: Batch) -> Any:
        x = matrix.matrix_of(layout, batch, unit=True)
        z: Any = encoder.apply({"params": params["encoder"]}, fold(x))
        outputs, _ = decode(layout, config, params["decoder"], z, {})
        error = shared.cross_entropy(layout, outputs, batch).mean()
        return error + shared.penalty(config.l2, params), {"reconstruction": error}

    return Objective(init, loss, whole=True)


def duel(layout: Layout, config: CorganConfig) -> Objective:
    """Stage 2; parameters `generator`, `decoder`, `critic`."""
    network = Mlp((config.critic,) * 3 + (1,))

    def judge(params: Params, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.asarray(network.apply({"params": params["critic"]}, x)))

    def init(key: jax.Array, batch: Any) -> Params:
        keys, two = jax.random.split(key), jnp.zeros((2, config.latent))
        generator = Residual(RESIDUALS).init(keys[0], two)["params"]
        critic = network.init(keys[1], jnp.zeros((2, layout.width)))["params"]
        return {"generator": generator, "critic": critic}

    def made(params: Params, key: jax.Array, rows: int) -> jax.Array:
        z = jax.random.normal(key, (rows, config.latent))
        outputs, _ = generate(layout, config, params, z, {})
        return matrix.probabilities(layout, outputs, unit=True)

    def criticise(params: Params, key: jax.Array, batch: Batch) -> Any:
        x = matrix.matrix_of(layout, batch, unit=True)
        gap = judge(params, x) - judge(params, made(params, key, len(x)))
        return shared.penalty(config.l2, params["critic"]) - gap, {"distance": gap}

    def persuade(params: Params, key: jax.Array, batch: Batch) -> Any:
        fake = judge(params, made(params, key, len(batch.label)))
        decay = shared.penalty(config.l2, (params["generator"], params["decoder"]))
        return decay - fake, {}

    moves, cut = ("generator", "decoder"), shared.clipped(config.clip)
    return Objective(
        init,
        persuade,
        players=(
            Player(
                "critic",
                criticise,
                ("critic",),
                config.critic_updates,
                lambda train: optax.chain(optimiser(train), cut),
            ),
            Player("generator", persuade, moves, 1, slower(config.decoder_rate)),
        ),
        whole=True,
    )


def slower(rate: float) -> Any:
    """(TrainConfig) -> the common optimiser, with `rate` times the step of the decoder.

    An Adam step is proportional to its step size.
    """
    scale = optax.masked(optax.scale(rate), {"generator": False, "decoder": True})
    return lambda train: optax.chain(optimiser(train), scale)


def learn(key: jax.Array, config: CorganConfig, task: Task) -> Params:
    """Autoencoder, then the two players, then the moments."""
    keys, layout, run = jax.random.split(key, 4), task.layout, task.stages.run
    take = functools.partial(task.form.take, layout)
    first = autoencoder(layout, config)._replace(take=take)
    rate = config.autoencoder_learning_rate
    settings = dataclasses.replace(config.train, learning_rate=rate)
    done = run("autoencoder", keys[0], first, task.data, settings, valid=task.valid)
    objective = duel(layout, config)._replace(take=take)
    begun = {"decoder": done.params["decoder"]}
    start = shared.prepared(objective, config.train, keys[1], begun)
    # No validation: the loss of a player says nothing of how good the patients are.
    done = run("gan", keys[2], objective, task.data, config.train, start=start)
    kept = {name: done.params[name] for name in ("generator", "decoder")}
    found = lambda moments, z: generate(layout, config, kept, z, moments)[1]
    settled = jax.jit(lambda key: shared.settle(key, found, config.latent))
    return {**kept, "moments": settled(keys[3])}


def draw(
    layout: Layout,
    config: CorganConfig,
    options: Any,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """Rows of z ~ N(0, I), by fixed moments."""
    pairs = jax.vmap(jax.random.split)(keys)
    z = shared.noise(pairs[:, 0], config.latent)
    outputs, _ = generate(layout, config, weights, z, weights["moments"])
    rows = matrix.probabilities(layout, outputs, unit=True)
    mode = options.decode == "mode"
    return matrix.batch_of(layout, pairs[:, 1], rows, label, mode=mode, unit=True)
