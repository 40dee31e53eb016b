"""Encoders and decoders of both parts, as pure Flax modules without state.

Notation: B patients, T steps, C input columns, l latent coordinates. An encoder returns
the mean and the logarithm of the variance of q(z | x); a decoder the `Outputs` of
p(x | z, y).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.layout import Part
from jaxehr.models.flexgen.likelihoods import Outputs, spread_of, valid_rows
from jaxehr.models.flexgen.preprocessing import Block, Records
from jaxehr.nn.temporal import Lstm
from jaxehr.nn.vae import Posterior, dense

# [ADA: AdaTime, models.py]: channels and kernel sizes of the three convolutions.
CONVOLUTIONS = ((64, 5), (128, 8), (128, 8))


def inputs_of(part: Part, block: Block, valid: jax.Array) -> jax.Array:
    """What an encoder sees of a row: [.., C], 0 wherever nothing is observed.

    Numeric scores, binary values, one-hot categories, and which values are observed.
    """
    numeric, flags = block.numeric.shape[-1], block.observed
    pieces = [block.numeric, block.codes[..., : part.num_binary]]
    coded, place = flags[..., numeric:], part.num_binary
    if part.num_flags:
        pieces[0] = jnp.where(flags[..., :numeric], pieces[0], 0.0)
        pieces[1] = jnp.where(coded[..., :place], pieces[1], 0)
    for width, count in part.categorical:
        codes = block.codes[..., place : place + count]
        known = coded[..., place : place + count, None]
        hot = (codes[..., None] == jnp.arange(width)) & known
        pieces.append(hot.reshape(*codes.shape[:-1], width * count))
        place += count
    pieces.append(flags)
    kept = [piece.astype(jnp.float32) for piece in pieces if piece.shape[-1]]
    return jnp.where(valid[..., None], jnp.concatenate(kept, -1), 0.0)


class RowDense(nn.Module):
    """Dense layer over the last axis, as one product of two matrices.

    Flattened, with the bias as a row of the kernel, for XLA on CPU is slow at gradients
    of products with three axes and at sums down the columns of wide matrices.
    """

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        lead, channels = x.shape[:-1], x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (channels, self.features))
        flat = x.reshape(math.prod(lead), channels)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            flat = jnp.concatenate([flat, jnp.ones((len(flat), 1))], -1)
            kernel = jnp.concatenate([kernel, bias[None]])
        return (flat @ kernel).reshape(*lead, self.features)


class StaticEncoder(nn.Module):
    """A dense layer over the patient's row [flexgen2024, Sec. 4.2]."""

    part: Part
    config: FlexgenConfig

    @nn.compact
    def __call__(self, batch: Records, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`label` [B, classes] one-hot; no column if encoders are not told it."""
        valid = valid_rows(self.part, batch.block, batch.length)
        x = inputs_of(self.part, batch.block, valid)
        h = dense(self.config.hidden, "layer")(jnp.concatenate([x, label], -1))
        return Posterior(self.config.latent, name="posterior")(h)


class TemporalEncoder(nn.Module):
    """Steps to one summary a patient by `config.encoder`, then the posterior."""

    part: Part
    config: FlexgenConfig

    @nn.compact
    def __call__(self, batch: Records, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`label` [B, classes] one-hot; no column if encoders are not told it."""
        config, length = self.config, batch.length
        valid = valid_rows(self.part, batch.block, length)
        x = inputs_of(self.part, batch.block, valid)  # [B, T, C]
        if config.encoder == "sum":
            h = step_mean(x, length)
        elif config.encoder == "cnn1d":
            h = Convolutions(name="cnn")(x, length)
        else:
            h = Recurrent(config.hidden_sequence, name="lstm")(x, length)
        h = dense(config.hidden, "layer")(jnp.concatenate([h, label], -1))
        return Posterior(config.latent, name="posterior")(h)


def step_mean(x: jax.Array, length: jax.Array) -> jax.Array:
    """Mean over the valid steps [B, C] of x, which is 0 at the others."""
    return x.sum(1) / jnp.maximum(length, 1).astype(x.dtype)[:, None]


class Recurrent(nn.Module):
    """LSTM: its last state and the mean of its states [B, 2 hidden].

    Deviation: wide rows are projected to `hidden` columns first, which costs a fraction
    of the LSTM's own product; the mean of the states is ours.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array) -> jax.Array:
        if x.shape[-1] > self.hidden:
            valid = (jnp.arange(x.shape[1]) < length[:, None])[..., None]
            x = RowDense(self.hidden, use_bias=False, name="project")(x)
            x = jnp.where(valid, nn.LayerNorm(name="norm")(x), 0.0)
        states, last = Lstm(self.hidden, name="lstm")(x, length)
        return jnp.concatenate([last, step_mean(states, length)], -1)


class Convolution(nn.Module):
    """Convolution over time with zeros beyond the ends: [B, T, C] -> [B, T', F].

    One product with the kernels of all shifts side by side, whose slices are then
    shifted and added: the input, the wide side here, is never copied.
    """

    features: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, features = self.kernel_size, self.features
        around = size // 2
        y = RowDense(size * features, use_bias=False, name="kernel")(x)
        steps = x.shape[1] + 2 * around - size + 1
        y = jnp.pad(y, ((0, 0), (around, around), (0, 0)))
        shifts = [
            y[:, k : k + steps, k * features : (k + 1) * features] for k in range(size)
        ]
        return sum(shifts[1:], shifts[0])


class Convolutions(nn.Module):
    """Three blocks of convolution, norm, ReLU and maximum of two; then the mean.

    Channels and kernels are those of [flexgen2024, B.1] (AdaTime's CNN). Deviation:
    LayerNorm in place of BatchNorm, no dropout, and padding is kept at zero, so that
    the steps beyond `length` change nothing.
    """

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array) -> jax.Array:
        for block, (features, size) in enumerate(CONVOLUTIONS):
            x = Convolution(features, size, name=f"block_{block}")(x)
            x = nn.relu(nn.LayerNorm(name=f"norm_{block}")(x))
            length = length + 1 - size % 2
            x = jnp.where((jnp.arange(x.shape[1]) < length[:, None])[..., None], x, 0.0)
            # Windows of two with a zero in front; after ReLU a zero changes no maximum.
            x = jnp.pad(x, ((0, 0), (1, 1 - x.shape[1] % 2), (0, 0)))
            x = x.reshape(x.shape[0], -1, 2, features).max(2)
            length = length // 2 + 1
        return step_mean(x, length)


class StaticDecoder(nn.Module):
    """[z, one-hot label] -> outputs of the static row."""

    part: Part
    config: FlexgenConfig

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array) -> Outputs:
        h = dense(self.config.hidden, "layer")(jnp.concatenate([z, label], -1))
        heads, spread = Heads(self.part, name="heads")(h)
        empty = jnp.zeros((z.shape[0], 0))
        return Outputs(heads, jnp.broadcast_to(spread, (len(z), len(spread))), empty)


class TemporalDecoder(nn.Module):
    """[z, one-hot label] -> outputs of every step: the same code at each of T steps,
    with a learned position, through an LSTM (README, Deviations); and of the length."""

    part: Part
    config: FlexgenConfig

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array) -> Outputs:
        width, steps = self.config.hidden_sequence, self.part.steps
        h = dense(self.config.hidden, "layer")(jnp.concatenate([z, label], -1))
        code = nn.Dense(width, name="code")(h)[:, None]  # [B, 1, W]
        place = self.param("place", nn.initializers.normal(0.1), (steps, width))
        states, _ = Lstm(width, name="lstm")(code + place)
        # The code goes around the LSTM too: levels of a patient need no recurrence.
        heads, spread = Heads(self.part, name="heads")(states + code)
        length = nn.Dense(steps, kernel_init=small_start(), name="length")(h)
        return Outputs(heads, jnp.broadcast_to(spread, (len(z), len(spread))), length)


def small_start() -> nn.initializers.Initializer:
    """Weights so small that the first prediction is the bias, the training marginal."""
    return nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")


class Heads(nn.Module):
    """All outputs in one product, and the spread of every numeric column."""

    part: Part

    @nn.compact
    def __call__(self, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        init = small_start()
        heads = RowDense(self.part.num_outputs, init, name="all")(h)
        shape = (self.part.num_normal + self.part.num_counts,)
        raw = self.param("spread", nn.initializers.zeros_init(), shape)
        return heads, spread_of(self.part, raw)
