"""The denoiser of a row: dense layers after a sum of row, noise level and label.

The network of TabDDPM's public code [kotelnikov2023], which CDTD [mueller2025]
and, with SiLU, TabDiff [tabdiff2025] share. B rows, C columns, E coordinates of the
sum.
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from jaxehr.nn.mlp import Mlp
from jaxehr.nn.time import waves


class RowDenoiser(nn.Module):
    """Row [B, C], noise level [B] and one-hot label [B, classes] -> [B, outputs].

    Mlp(Dense(row) + Dense(SiLU(Dense(waves(level)))) + SiLU(embedding of the label)),
    with `activation` between the layers of the Mlp.

    Attributes:
      widths: of its hidden layers. embedding: E, even. zero_last: the last layer starts
        at weight 0.
    """

    widths: tuple[int, ...]
    embedding: int
    outputs: int
    zero_last: bool = False
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, level: jax.Array, told: jax.Array) -> jax.Array:
        size = self.embedding
        when = nn.silu(nn.Dense(size, name="level_in")(waves(level, size)))
        when = nn.Dense(size, name="level_out")(when)
        if told.shape[-1]:  # else the label is a column, or there is none
            init = nn.initializers.normal(1.0)
            embed = nn.Dense(size, use_bias=False, kernel_init=init, name="label")
            when = when + nn.silu(embed(told))
        h = nn.Dense(size, name="row")(x) + when
        widths = (*self.widths, self.outputs)
        last = self.zero_last
        return Mlp(widths, self.activation, zero_last=last, name="layers")(h)
