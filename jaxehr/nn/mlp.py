"""A stack of dense layers."""

from collections.abc import Callable

import flax.linen as nn
import jax


class Mlp(nn.Module):
    """Dense layers with an activation between them: [..., C] -> [..., widths[-1]].

    Attributes:
      widths: outputs of each layer; the last layer has no activation.
      zero_last: the last layer starts at weight 0, so the first output is 0.
    """

    widths: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    zero_last: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        last = len(self.widths) - 1
        for layer, width in enumerate(self.widths):
            zero = self.zero_last and layer == last
            init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
            x = nn.Dense(width, kernel_init=init, name=f"layer_{layer}")(x)
            if layer < last:
                x = self.activation(x)
        return x
