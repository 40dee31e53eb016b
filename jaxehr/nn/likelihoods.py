"""Logarithms of probabilities, element by element, by kind of value."""

import math
from typing import Any

import jax
import jax.numpy as jnp

LOG_2PI = math.log(2 * math.pi)
SMALLEST_SIGMA = 0.01  # atoms of a quantile transform would drive sigma to 0


@jax.custom_vjp
def bernoulli(logits: jax.Array, x: jax.Array) -> jax.Array:
    """log p(x) = -log(1 + exp(-l)) if x, else -log(1 + exp(l)); x Bool.

    The gradient, x - sigmoid(l), is written out: that of `softplus` costs thrice.
    """
    signed = jnp.where(x, -logits, logits)
    return -jnp.maximum(signed, 0.0) - jnp.log(1.0 + jnp.exp(-jnp.abs(signed)))


def _bernoulli_forward(logits: jax.Array, x: jax.Array) -> Any:
    return bernoulli(logits, x), (logits, x)


def _bernoulli_backward(saved: Any, cotangent: jax.Array) -> Any:
    logits, x = saved
    return cotangent * (x.astype(logits.dtype) - jax.nn.sigmoid(logits)), None


bernoulli.defvjp(_bernoulli_forward, _bernoulli_backward)


def sigma_of(raw: jax.Array) -> jax.Array:
    """Positive deviations of unbounded parameters, 1 at 0."""
    start = math.log(math.expm1(1.0 - SMALLEST_SIGMA))
    return SMALLEST_SIGMA + jax.nn.softplus(raw + start)


def raw_sigma(sigma: jax.Array) -> jax.Array:
    """The inverse of `sigma_of`; deviations at or below its least become the least."""
    above = jnp.maximum(sigma - SMALLEST_SIGMA, 1e-6)
    start = math.log(math.expm1(1.0 - SMALLEST_SIGMA))
    return above + jnp.log(-jnp.expm1(-above)) - start


def normal(mean: jax.Array, sigma: jax.Array, x: jax.Array) -> jax.Array:
    """log N(x; mean, sigma^2)."""
    return -0.5 * ((x - mean) / sigma) ** 2 - jnp.log(sigma) - 0.5 * LOG_2PI


def negative_binomial(log_mean: jax.Array, r: jax.Array, x: jax.Array) -> jax.Array:
    """log NB(x; m, r), variance m + m^2 / r, with s = log m - log r:

    lgamma(x + r) - lgamma(r) - lgamma(x + 1) - (x + r) softplus(s) + x s.
    """
    s = jnp.clip(log_mean, -20.0, 20.0) - jnp.log(r)
    lgamma = jax.lax.lgamma
    ways = lgamma(x + r) - lgamma(jnp.broadcast_to(r, x.shape)) - lgamma(x + 1.0)
    return ways - (x + r) * jax.nn.softplus(s) + x * s


def categorical(logits: jax.Array, codes: jax.Array) -> jax.Array:
    """log p of `codes` [..] under logits [.., K]."""
    chosen = codes[..., None] == jnp.arange(logits.shape[-1])
    at = jnp.sum(jnp.where(chosen, logits, 0.0), -1)
    return at - jax.scipy.special.logsumexp(logits, axis=-1)
