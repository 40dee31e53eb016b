"""The diffusion time in the network: sinusoid, embedding, feature-wise modulation.

Sizes are those of TimeDiff's public code, which [cdmt2026] builds on.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

TIME_SCALE = 1000.0  # t in [0, 1] to TimeDiff's range of step numbers, 0 to 999


def sinusoid(t: jax.Array, size: int = 64, base: float = 10_000.0) -> jax.Array:
    """Waves of t [B] at geometric frequencies: [B, size], sines then cosines.

    sin(1000 t w_k) and cos(1000 t w_k) with w_k = base^(-k / (size/2 - 1)),
    k = 0 ... size/2 - 1. `size` is even and at least 4; t is in [0, 1].
    """
    half = size // 2
    frequency = base ** (-jnp.arange(half) / (half - 1))
    angle = TIME_SCALE * t[:, None] * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def waves(x: jax.Array, size: int, base: float = 10_000.0) -> jax.Array:
    """cos, then sin, of x [B] at frequencies base^(-k / (size/2)): [B, size].

    k = 0 ... size/2 - 1; `size` is even. The embedding of TabDDPM, TabDiff and CDTD.
    """
    half = size // 2
    angle = x[:, None] * base ** (-jnp.arange(half) / half)
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class TimeEmbedding(nn.Module):
    """t [B] in [0, 1] -> [B, width]: sinusoid, Linear, GELU, Linear."""

    waves: int = 64
    width: int = 256

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        h = nn.Dense(self.width, name="first")(sinusoid(t, self.waves))
        return nn.Dense(self.width, name="second")(nn.gelu(h, approximate=False))


class Film(nn.Module):
    """Feature-wise modulation h * (1 + scale) + shift [cdmt2026, Eq. 4].

    (scale, shift) = Linear(SiLU(time)); gamma of the equation is 1 + scale.
    """

    @nn.compact
    def __call__(self, h: jax.Array, time: jax.Array) -> jax.Array:
        """h [B, H] or [B, T, H], time [B, E]; the same for all steps of a row."""
        both = nn.Dense(2 * h.shape[-1], name="modulation")(nn.silu(time))  # [B, 2H]
        steps = (1,) * (h.ndim - 2)
        scale, shift = jnp.split(both.reshape(-1, *steps, both.shape[-1]), 2, axis=-1)
        return h * (1.0 + scale) + shift
