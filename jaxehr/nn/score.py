"""The score network of a latent diffusion.

B patients, d coordinates, C classes, T noise levels.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxehr.nn.mlp import Mlp
from jaxehr.nn.time import Film, TimeEmbedding


class ScoreNetwork(nn.Module):
    """Noisy x [B, d] -> predicted noise [B, d].

    `time` is t / T and `noise` sqrt(1 - abar_t), [B] and [B, 1], or [1] and [1, 1] for
    one level of all rows; `told` is the one-hot label [B, C], zeros = not told.

    The authors' network is h = GELU(Dense(x)), then Dense(h) * label + time beside h,
    and one layer to the output.

    Deviation: there, x and time meet only in a sum, so that the predicted noise cannot
    scale x by the level, not even for normal data; and a GELU on the output bounds it
    at -0.17. Here a layer modulated by time follows, no GELU, and sqrt(1 - abar_t) x is
    added, the exact noise of white normal latents. On a mixture of two normals in 32
    dimensions the loss came to 0.005 above the ideal 0.315 after 3,000 steps, without
    these changes (but without the GELU too) to 0.083, with the GELU to 0.34.

    Attributes:
      authors: the network of the public code, with that GELU.
    """

    dim: int
    width: int
    authors: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, time: jax.Array, told: jax.Array, noise: jax.Array
    ) -> jax.Array:
        gelu = functools.partial(nn.gelu, approximate=False)
        h = gelu(nn.Dense(self.width, name="input")(x))
        label: Any = 1.0
        if told.shape[-1]:  # else the cohort has no label
            label = Mlp((self.width, self.width), gelu, name="label")(told)
        if self.authors:
            when = Mlp((self.width, self.width), gelu, name="time")(time[:, None])
        else:
            when = TimeEmbedding(width=self.width, name="time")(time)
        fused = label * nn.Dense(self.width, name="inner")(h) + when
        both = jnp.concatenate([fused, h], -1)
        if self.authors:
            return gelu(nn.Dense(self.dim, name="output")(both))
        h = gelu(nn.Dense(self.width, name="deep")(gelu(both)))
        h = Film(name="film")(h, when)
        zeros = nn.initializers.zeros_init()
        return noise * x + nn.Dense(self.dim, name="output", kernel_init=zeros)(h)
