"""What adversarial baselines share: normalisation over a batch, its fixed statistics,
the error of an autoencoder on columns in [0, 1], optimisers of players.

In training a batch is normalised by its own mean and variance. A patient must not
depend on its batch, so after training the statistics of every layer are computed once
over fresh noise, and are fixed ("settled") from then on.

Notation: `matrix`; B rows, D columns, C channels.
"""

# Deviation: medGAN and CorGAN keep running averages of the batches' statistics. Settled
# ones are what those estimate, and cannot be a batch's: with them each layer's input
# has exactly the moments by which it is normalised.

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.core.contracts import Objective, Params
from jaxehr.training.config import TrainConfig
from jaxehr.training.steps import TrainState, init_state

GENERATOR_EPSILON = 1e-3
WHOLE = 4096  # rows of which statistics are taken at once
SETTLING = 64  # batches of noise
SETTLING_ROWS = 256  # rows of each


class Norm(nn.Module):
    """h [.., C] of zero mean and unit variance over the batch, then scaled [C].

    The moments are those of the batch, or the fixed ones of the collection `moments`
    if it is given: {"mean", "square"} [C], of h and h^2. Where that collection is
    mutable, those of the batch are put into `found`, whatever the layer is scaled by.
    """

    epsilon: float

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        axes = tuple(range(h.ndim - 1))
        moments = {"mean": h.mean(axes), "square": (h * h).mean(axes)}
        if self.is_mutable_collection("found") and not self.is_initializing():
            for name, value in moments.items():
                self.put_variable("found", name, value)
        if self.has_variable("moments", "mean"):
            moments = {name: self.get_variable("moments", name) for name in moments}
        scale = self.param("scale", nn.initializers.ones, h.shape[-1:])
        shift = self.param("shift", nn.initializers.zeros, h.shape[-1:])
        # Rounding may leave a constant channel below zero.
        variance = jnp.maximum(moments["square"] - moments["mean"] ** 2, 0.0)
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        return (h - moments["mean"]) * factor + shift


class Residual(nn.Module):
    """Noise [B, l] -> latents [B, l]: h = act(BN(W h)) + h, act ReLU, at last tanh."""

    num_layers: int

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        for layer in range(self.num_layers):
            dense = nn.Dense(h.shape[-1], use_bias=False, name=f"layer_{layer}")
            act = nn.relu if layer < self.num_layers - 1 else nn.tanh
            h = act(Norm(GENERATOR_EPSILON, name=f"norm_{layer}")(dense(h))) + h
        return h


def call(network: nn.Module, params: Params, x: jax.Array, moments: Params) -> Any:
    """Output of a network, by fixed moments if there are any; moments of the batch."""
    known = {"params": params} | ({"moments": moments} if moments else {})
    out, found = network.apply(known, x, mutable=["found"])
    return out, found.get("found") or {}


def settle(
    key: jax.Array,
    run: Callable[[Params, jax.Array], Params],
    size: int,
) -> Params:
    """Moments of every normalised layer over fresh normal noise.

    A pass over the noise normalises by the moments of the pass before. Layer j is right
    after pass j, as what comes before it no longer changes; so as many passes as layers
    end in a fixed point.

    Args:
      run: (moments, noise [rows, size]) -> moments of the layers on this noise; with
        no moments, {}, each layer is normalised by the noise.
    """
    keys = jax.random.split(key, SETTLING)
    start = run({}, jnp.zeros((2, size)))  # the first pass makes them right
    layers = len(jax.tree.leaves(start)) // 2

    def once(moments: Params, _: Any) -> tuple[Params, None]:
        def batch(total: Params, key: jax.Array) -> tuple[Params, None]:
            found = run(moments, jax.random.normal(key, (SETTLING_ROWS, size)))
            return jax.tree.map(lambda t, f: t + f / SETTLING, total, found), None

        zero = jax.tree.map(jnp.zeros_like, moments)
        return jax.lax.scan(batch, zero, keys)[0], None

    return jax.lax.scan(once, start, None, length=layers)[0]


def cross_entropy(layout: Layout, outputs: jax.Array, batch: Batch) -> jax.Array:
    """-log p [B] of the columns in [0, 1] under logits [B, width], summed over columns.

    Of a number, share or binary code x the Bernoulli -x log p - (1 - x) log(1 - p), of
    a category the categorical one.
    """
    heads = matrix.split(layout, outputs)
    x = matrix.blocks_of(layout, batch, unit=True)
    bernoulli = optax.sigmoid_binary_cross_entropy
    total = jnp.zeros(outputs.shape[:-1])
    for name in ("numeric", "sums", "binary"):
        total += bernoulli(getattr(heads, name), getattr(x, name)).sum(-1)
    for logits, hot in zip(heads.groups, x.groups, strict=True):
        total += -(hot * jax.nn.log_softmax(logits, -1)).sum((-1, -2))
    return total


def penalty(weight: float, params: Params) -> jax.Array:
    """weight / 2 times the sum of squares of all parameters."""
    squares = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)]
    return jnp.asarray(0.5 * weight * sum(squares))


def judged(logits: jax.Array, real: bool) -> jax.Array:
    """Mean -log D of rows that are real, or -log(1 - D); D = sigmoid(logits)."""
    return jax.nn.softplus(-logits if real else logits).mean()


def clipped(limit: float) -> optax.GradientTransformation:
    """After an update all parameters lie in [-limit, limit] [arjovsky2017, Alg. 1]."""

    def cut(updates: Params, params: Params | None) -> Params:
        return jax.tree.map(
            lambda u, p: jnp.clip(p + u, -limit, limit) - p, updates, params
        )

    return optax.stateless(cut)


def passes(epochs: int, batch: int, patients: int) -> int:
    """Optimiser steps of so many passes over the patients; the rest is left out."""
    return epochs * max(patients // max(min(batch, patients), 1), 1)


def prepared(
    objective: Objective, config: TrainConfig, key: jax.Array, params: Params
) -> TrainState:
    """The state before a stage that goes on with `params` of the one before.

    `objective.init` (key, None) makes the parameters that are new.
    """
    fresh = jax.jit(lambda key: objective.init(key, None))(key)
    return init_state(objective, config, {**fresh, **params})


def noise(keys: jax.Array, size: int) -> jax.Array:
    """Standard normals [B, size], row i from keys[i]."""
    return jax.vmap(lambda key: jax.random.normal(key, (size,)))(keys)
