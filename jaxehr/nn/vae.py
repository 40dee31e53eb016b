"""Parts of variational autoencoders: pure Flax modules without state.

B patients, l latent coordinates; q(z | x) = N(mean, diag std^2).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

LOG_VARIANCE = (-12.0, 6.0)


def dense(width: int, name: str) -> Callable[[jax.Array], jax.Array]:
    """Dense layer, LayerNorm, ReLU.

    Deviation: [flexgen2024] normalises over the batch, which needs a running state.
    """
    layer, norm = nn.Dense(width, name=name), nn.LayerNorm(name=f"{name}_norm")
    return lambda x: nn.relu(norm(layer(x)))


class Posterior(nn.Module):
    """Summary [B, W] -> mean and log variance [B, l]."""

    latent: int

    @nn.compact
    def __call__(self, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = nn.Dense(self.latent, name="mean")(h)
        logvar = nn.Dense(self.latent, name="logvar")(h)
        return mean, jnp.clip(logvar, *LOG_VARIANCE)


def divergence(mean: jax.Array, std: jax.Array) -> jax.Array:
    """KL(N(mean, std^2) || N(0, 1)) of every coordinate, in nats."""
    return 0.5 * (mean**2 + std**2 - 1.0) - jnp.log(std)
