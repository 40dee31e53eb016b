"""A denoiser in which every column of a row is a token [tabdiff2025].

B rows, P numbers, Q codes in groups of K categories, n = P + Q tokens of d coordinates.
A code is shown as a state of K + 1 entries, one-hot, the last one for "masked".
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxehr.nn.tabular import RowDenoiser

EPSILON = 1e-5  # of a layer norm


class ColumnDenoiser(nn.Module):
    """Tokens, transformer, one dense network of all tokens, transformer, columns.

    Attributes:
      token: d. num_layers, num_heads, expansion: of either transformer. width: W of the
        dense network, whose layers have W, 2 W, 2 W and W units.
    """

    token: int = 4
    num_layers: int = 2
    num_heads: int = 1
    expansion: int = 32
    width: int = 1024

    @nn.compact
    def __call__(
        self, x: jax.Array, states: list[jax.Array], level: jax.Array
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Numbers [B, P], states [B, codes, K + 1] of each K and noise level [B] ->
        outputs [B, P] and logits [B, codes, K] of each K."""
        tokens = Tokens(self.token, name="tokens")(x, states)
        layers = (self.num_layers, self.num_heads, self.expansion)
        h = TokenEncoder(*layers, name="encoder")(tokens)
        rows, count, size = h.shape
        widths = (2 * self.width, 2 * self.width, self.width)
        dense = RowDenoiser(
            widths, self.width, count * size, activation=nn.silu, name="dense"
        )
        h = dense(h.reshape(rows, count * size), level, jnp.zeros((rows, 0)))
        h = TokenEncoder(*layers, name="decoder")(h.reshape(rows, count, size))
        sizes = tuple(state.shape[-2:] for state in states)
        return Columns(x.shape[-1], sizes, name="columns")(h)


class Tokens(nn.Module):
    """Columns as tokens [B, n, d]: x w + b of a number, W state + b of a code."""

    token: int

    @nn.compact
    def __call__(self, x: jax.Array, states: list[jax.Array]) -> jax.Array:
        scale = 1.0 / math.sqrt(self.token)
        init = lambda key, shape: jax.random.uniform(
            key, shape, minval=-scale, maxval=scale
        )
        d, numbers = self.token, x.shape[-1]
        parts = [x[..., None] * self.param("numbers", init, (numbers, d))]
        for state in states:
            codes, entries = state.shape[-2:]
            name = f"codes_{entries - 1}"
            table = self.param(name, init, (codes, entries, d))
            parts.append(jnp.einsum("bgk,gkd->bgd", state, table))
        tokens = jnp.concatenate(parts, 1)
        return tokens + self.param("bias", init, tokens.shape[1:])


class TokenEncoder(nn.Module):
    """Blocks h + Attention(LN h), then h + Dense(ReLU(Dense(LN h))), on [B, n, d].

    The first attention has no norm before it; one head has no layer behind it.
    """

    num_layers: int
    num_heads: int
    expansion: int

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        width, norm = h.shape[-1], lambda name: nn.LayerNorm(EPSILON, name=name)
        for i in range(self.num_layers):
            inner = norm(f"norm_attention_{i}")(h) if i else h
            h = h + self.attend(inner, i)
            inner = norm(f"norm_dense_{i}")(h)
            inner = nn.relu(nn.Dense(self.expansion * width, name=f"expand_{i}")(inner))
            h = h + nn.Dense(width, name=f"contract_{i}")(inner)
        return h

    def attend(self, h: jax.Array, i: int) -> jax.Array:
        """Every token looks at every token."""
        width, heads = h.shape[-1], self.num_heads
        split = lambda name: nn.Dense(width, name=f"{name}_{i}")(h).reshape(
            *h.shape[:-1], heads, width // heads
        )
        found = jax.nn.dot_product_attention(*map(split, ("query", "key", "value")))
        found = found.reshape(h.shape)
        return nn.Dense(width, name=f"mix_{i}")(found) if heads > 1 else found


class Columns(nn.Module):
    """Tokens [B, n, d] -> outputs [B, P] of numbers, logits [B, codes, K] of codes."""

    numbers: int
    sizes: tuple[tuple[int, ...], ...]  # (codes, K + 1) of each K

    @nn.compact
    def __call__(self, h: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        init, d = nn.initializers.xavier_uniform(), h.shape[-1]
        weight = self.param("numbers", init, (self.numbers, d))
        out = jnp.einsum("bnd,nd->bn", h[:, : self.numbers], weight)
        logits, place = [], self.numbers
        for codes, entries in self.sizes:
            part, categories = h[:, place : place + codes], entries - 1
            # Each code has a layer of its own; the codes are the batch of the weights.
            each = nn.initializers.xavier_uniform(batch_axis=(0,))
            name, shape = f"codes_{categories}", (codes, d, categories)
            table = self.param(name, each, shape)
            bias = self.param(
                f"bias_{categories}", nn.initializers.zeros_init(), shape[::2]
            )
            logits.append(jnp.einsum("bgd,gdk->bgk", part, table) + bias)
            place += codes
        return out, logits
