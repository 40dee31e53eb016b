"""The denoiser: bidirectional GRU over time, conditioned on noise level and label.

Notation: B patients, T steps, H hidden; blocks of columns as in `Blocks`. Noise levels
are the sampler's business; the network sees scaled inputs and the diffusion time.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxehr.diffusion.embeddings import pad_logits
from jaxehr.diffusion.schedules import power_mean
from jaxehr.models.cdmt.config import CdmtConfig
from jaxehr.models.cdmt.layout import Layout
from jaxehr.nn.gru import BiGru
from jaxehr.nn.time import TIME_SCALE, Film, TimeEmbedding

NOISE_INPUTS = 16  # of the GRU, if it is told the noise level


class Blocks(NamedTuple):
    """One value per block of columns: clean data, noisy data, levels, outputs, ..."""

    numeric: Any  # [B, T, numeric] or alike
    coded: Any  # [B, T, coded, ...]
    static_numeric: Any  # [B, static numeric]
    static_coded: Any  # [B, static coded, ...]


class Frame(NamedTuple):
    """What a patient is conditioned on, known before any value is."""

    condition: jax.Array  # [B, classes] one-hot label; all zeros = not told
    length: jax.Array  # Int [B]
    has_static: jax.Array  # Bool [B]


def noise_input(config: CdmtConfig, t: jax.Array) -> jax.Array:
    """The scalar [B] that tells the network how noisy its input is."""
    if config.time_input == "t":
        return t
    # One reference schedule for all columns, whatever theirs has become [tabdiff2025];
    # the embedding multiplies by its own scale.
    return jnp.log(power_mean(t, 7.0, 0.002, 80.0)) / 4.0 / TIME_SCALE


class Denoiser(nn.Module):
    """Scaled blocks -> outputs for numeric columns, padded logits [.., D, K] for coded.

    Behind the numeric columns of series are corrections of the logits of gaps, side by
    side (`diffusion.ordinal`).

    Deviation: static columns are not in the paper. They enter every time step through
    a small context vector and come out of a head on the mean state over time; without
    them the network is the paper's.
    """

    layout: Layout
    config: CdmtConfig

    @nn.compact
    def __call__(self, inputs: Blocks, t: jax.Array, frame: Frame) -> Blocks:
        """Inputs hold flat coded blocks: [B, T, columns] and [B, columns]."""
        rows = t.shape[0]
        time = TimeEmbedding(name="time")(noise_input(self.config, t))  # [B, E]
        known = frame.has_static.astype(jnp.float32)[:, None]
        static = jnp.concatenate([inputs.static_numeric, inputs.static_coded], -1)
        static = jnp.concatenate([static * known, known], -1)
        context = frame.condition
        if self.layout.static.features:
            summary = nn.gelu(nn.Dense(64, name="context")(static))
            context = jnp.concatenate([context, summary], -1)
        pooled = jnp.zeros((rows, 0))
        numeric = jnp.zeros((rows, 0, 0))
        coded = jnp.zeros((rows, 0, 0, 1))
        if self.layout.temporal.features:
            h = self.temporal(inputs, time, context, frame.length)
            count = jnp.maximum(frame.length, 1).astype(jnp.float32)[:, None]
            pooled = h.sum(1) / count
            part = self.layout.temporal
            numbers = len(part.numeric) + sum(self.layout.gaps)
            numeric, coded = self.head(h, part, "head", numbers)
        static_numeric, static_coded = self.static(pooled, static, time, frame)
        return Blocks(numeric, coded, static_numeric, static_coded)

    def temporal(
        self, inputs: Blocks, time: jax.Array, context: jax.Array, length: jax.Array
    ) -> jax.Array:
        """States [B, T, 2H], zero at padding."""
        x = jnp.concatenate([inputs.numeric, inputs.coded], -1)
        if self.config.noise_at == "both":
            told = nn.Dense(NOISE_INPUTS, name="noise")(nn.silu(time))
            context = jnp.concatenate([context, told], -1)
        shape = (*x.shape[:2], context.shape[-1])
        x = jnp.concatenate([x, jnp.broadcast_to(context[:, None], shape)], -1)
        config = self.config
        how = config.gru, config.products, config.unroll
        gru = BiGru(config.hidden, config.num_layers, *how, name="gru")
        ends = None if self.layout.full else length
        h = nn.LayerNorm(name="norm")(gru(x, ends))
        h = Film(name="film")(h, time)
        valid = jnp.arange(h.shape[1])[None, :] < length[:, None]
        return jnp.where(valid[..., None], h, 0.0)

    def static(
        self, pooled: jax.Array, static: jax.Array, time: jax.Array, frame: Frame
    ) -> tuple[jax.Array, jax.Array]:
        """Outputs for the static columns from the mean state and the noisy statics."""
        if not self.layout.static.features:
            empty = jnp.zeros((time.shape[0], 0))
            return empty, empty[..., None]
        h = jnp.concatenate([pooled, static, frame.condition], -1)
        h = nn.gelu(nn.Dense(2 * self.config.hidden, name="static_in")(h))
        h = nn.Dense(2 * self.config.hidden, name="static_mid")(h)
        h = nn.LayerNorm(name="static_norm")(h)
        h = nn.gelu(Film(name="static_film")(h, time))
        part = self.layout.static
        return self.head(h, part, "static_head", len(part.numeric))

    def head(
        self, h: jax.Array, part: Any, name: str, count: int
    ) -> tuple[jax.Array, jax.Array]:
        """One linear layer for `count` numbers and for logits, zero at the start."""
        sizes = part.cardinalities
        zeros = nn.initializers.zeros_init()
        out = nn.Dense(count + sum(sizes), name=name, kernel_init=zeros)(h)
        logits = (
            pad_logits(out[..., count:], sizes) if sizes else out[..., count:, None]
        )
        return out[..., :count], logits
