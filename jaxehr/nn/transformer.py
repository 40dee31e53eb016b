"""A small transformer encoder over time steps."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxehr.core.checks import known

Positions = Literal["learned", "sinusoidal"]


def position_waves(num_steps: int, width: int, base: float = 10_000.0) -> jax.Array:
    """Fixed positions [T, width]: sin, then cos, of k base^(-i / (width/2))."""
    half = width // 2
    angle = jnp.arange(num_steps)[:, None] * base ** (-jnp.arange(half) / half)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class EncoderBlock(nn.Module):
    """Pre-norm block: h + Attention(LN h), then h + Dense(GELU(Dense(LN h)))."""

    num_heads: int
    expansion: int

    @nn.compact
    def __call__(self, h: jax.Array, mask: jax.Array | None) -> jax.Array:
        """h [B, T, d]; mask Bool [B, 1, 1, T], False = no one looks at this step."""
        width = h.shape[-1]
        attend = nn.MultiHeadDotProductAttention(self.num_heads, name="attention")
        h = h + attend(nn.LayerNorm(name="norm_attention")(h), mask=mask)
        inner = nn.LayerNorm(name="norm_dense")(h)
        inner = nn.Dense(self.expansion * width, name="expand")(inner)
        inner = nn.gelu(inner, approximate=False)
        return h + nn.Dense(width, name="contract")(inner)


class TransformerEncoder(nn.Module):
    """x [B, T, C] -> [B, T, width]; outputs at padding are 0.

    What `x` holds at padding, NaN included, reaches no valid step and no gradient.

    Attributes:
      width: d, a multiple of `num_heads` (and even, for sinusoidal positions).
      positions: `learned` fixes T at the T of `init`; `sinusoidal` takes any T.
    """

    width: int = 64
    num_heads: int = 4
    num_layers: int = 2
    expansion: int = 4
    positions: Positions = "learned"

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Runs the encoder; `length` Int [B] counts valid steps, None = all."""
        known("positions", self.positions, ("learned", "sinusoidal"))
        num_steps, valid, mask = x.shape[1], True, None
        if length is not None:
            seen = jnp.arange(num_steps)[None, :] < length[:, None]  # [B, T]
            valid, mask = seen[..., None], seen[:, None, None, :]
        h = nn.Dense(self.width, name="input")(jnp.where(valid, x, 0.0))
        if self.positions == "learned":
            init = nn.initializers.normal(0.02)
            h = h + self.param("positions", init, (num_steps, self.width))
        else:
            h = h + position_waves(num_steps, self.width)
        for layer in range(self.num_layers):
            block = EncoderBlock(self.num_heads, self.expansion, name=f"layer_{layer}")
            h = block(h, mask)
        return jnp.where(valid, nn.LayerNorm(name="norm_last")(h), 0.0)
