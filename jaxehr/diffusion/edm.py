"""Preconditioning, loss weight and time sampling [karras2022, Table 1].

sigma: noise level of an element; sigma_data: standard deviation of the clean data. All
functions are elementwise, so that every element may have its own sigma.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Preconditioning(NamedTuple):
    """Coefficients of D(x) = c_skip x + c_out F(c_in x)."""

    c_skip: jax.Array
    c_out: jax.Array
    c_in: jax.Array


def precondition(sigma: jax.Array, sigma_data: float) -> Preconditioning:
    """Coefficients that give network input and target unit variance at every sigma.

    c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2),
    c_in = 1 / sqrt(sigma^2 + s^2), with s = sigma_data [karras2022, Table 1].
    Embeddings use c_in alone: their head gives logits [mueller2025].
    """
    total = sigma**2 + sigma_data**2
    c_in = jax.lax.rsqrt(total)
    return Preconditioning(sigma_data**2 / total, sigma * sigma_data * c_in, c_in)


def loss_weight(sigma: jax.Array, sigma_data: float) -> jax.Array:
    """lambda(sigma) = (sigma^2 + s^2) / (sigma s)^2 = 1 / c_out^2 [cdmt2026, Eq. 7]."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def low_discrepancy(key: jax.Array, num: int) -> jax.Array:
    """Times [num] in [0, 1): one uniform offset plus i / num, modulo 1.

    Each is uniform by itself, and together they cover [0, 1) evenly, which lowers the
    variance of a batch mean over time [mueller2025; kingma2021, App. I.1].
    """
    return jnp.mod(jax.random.uniform(key) + jnp.arange(num) / num, 1.0)
