"""A causal transformer, whole sequences at once or step by step from a cache.

The blocks are those of GPT-2 [radford2019]: pre-norm, h + Attention(LN h), then
h + Dense(GELU(Dense(LN h))), four times as wide inside; GELU by tanh.

Notation: B patients, T positions, E width, H heads of d = E / H.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Cache(NamedTuple):
    """Keys and values of the positions seen so far, of every layer."""

    keys: jax.Array  # [layers, B, T, H, d]
    values: jax.Array


class CausalBlock(nn.Module):
    """One block; `steps` and `one` share their weights."""

    width: int
    num_heads: int

    def setup(self) -> None:
        self.norm_attention = nn.LayerNorm(epsilon=1e-5)
        self.attention = nn.Dense(3 * self.width)
        self.project = nn.Dense(self.width)
        self.norm_dense = nn.LayerNorm(epsilon=1e-5)
        self.expand = nn.Dense(4 * self.width)
        self.contract = nn.Dense(self.width)

    def heads(self, h: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values [.., H, d] of h [.., E]."""
        three = self.attention(self.norm_attention(h))
        shape = (*h.shape[:-1], self.num_heads, self.width // self.num_heads)
        query, key, value = (x.reshape(shape) for x in jnp.split(three, 3, axis=-1))
        return query * shape[-1] ** -0.5, key, value

    def rest(self, h: jax.Array, attended: jax.Array) -> jax.Array:
        """What follows the attention."""
        h = h + self.project(attended.reshape(h.shape))
        inner = self.expand(self.norm_dense(h))
        return h + self.contract(nn.gelu(inner, approximate=True))

    def steps(self, h: jax.Array) -> jax.Array:
        """h [B, T, E]; position t sees positions up to t."""
        query, key, value = self.heads(h)
        scores = jnp.einsum("bthd,bshd->bhts", query, key)
        behind = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        weights = nn.softmax(jnp.where(behind, scores, -1e10), axis=-1)
        return self.rest(h, jnp.einsum("bhts,bshd->bthd", weights, value))

    def one(
        self, h: jax.Array, keys: jax.Array, values: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """h [B, E] of position t; keys and values [B, T, H, d] with it put in."""
        query, key, value = self.heads(h)
        place = lambda all_of, new: jax.lax.dynamic_update_slice_in_dim(
            all_of, new[:, None], t, axis=1
        )
        keys, values = place(keys, key), place(values, value)
        scores = jnp.einsum("bhd,bshd->bhs", query, keys)
        behind = jnp.arange(keys.shape[1]) <= t
        weights = nn.softmax(jnp.where(behind, scores, -1e10), axis=-1)
        return self.rest(h, jnp.einsum("bhs,bshd->bhd", weights, values)), keys, values


class CausalTransformer(nn.Module):
    """Blocks with learned positions and a last layer normalisation.

    Attributes:
      width: E, a multiple of `num_heads`. num_positions: T, at most.
    """

    width: int
    num_heads: int
    num_layers: int
    num_positions: int

    def setup(self) -> None:
        init, shape = nn.initializers.normal(0.02), (self.num_positions, self.width)
        self.positions = self.param("positions", init, shape)
        self.layers = [
            CausalBlock(self.width, self.num_heads) for _ in range(self.num_layers)
        ]
        self.norm_last = nn.LayerNorm(epsilon=1e-5)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, T, E] -> [B, T, E]; an output depends on inputs up to its position."""
        h = x + self.positions[: x.shape[1]]
        for layer in self.layers:
            h = layer.steps(h)
        return self.norm_last(h)

    def start(self, rows: int) -> Cache:
        """An empty cache of so many rows."""
        each = (self.num_heads, self.width // self.num_heads)
        zeros = jnp.zeros((self.num_layers, rows, self.num_positions, *each))
        return Cache(zeros, zeros)

    def step(self, x: jax.Array, cache: Cache, t: jax.Array) -> tuple[jax.Array, Cache]:
        """x [B, E] of position t -> its output [B, E], and the cache with it."""
        h, found = x + self.positions[t], []
        for place, layer in enumerate(self.layers):
            h, *pair = layer.one(h, cache.keys[place], cache.values[place], t)
            found.append(pair)
        keys, values = (jnp.stack(leaves) for leaves in zip(*found, strict=True))
        return self.norm_last(h), Cache(keys, values)
