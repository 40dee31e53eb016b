"""Whitening of latents before their diffusion, and back.

N latents of d coordinates.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

FLOOR = 1e-6  # smallest variance of a direction, relative to the largest


class Whitening(NamedTuple):
    """x = (z - mean) forward, z = x inverse + mean."""

    mean: Any  # [d]
    forward: Any  # [d, d]
    inverse: Any


def fit_whitening(z: np.ndarray) -> Whitening:
    """Symmetric whitening S^(-1/2) of latents z [N, d].

    S is the covariance shrunk to a sphere [ledoit2004], so that fewer patients than
    coordinates do not make a direction look empty. The symmetric root changes little
    when S does; principal axes would swap.
    """
    mean = np.mean(z, 0, dtype=np.float64)
    values, axes = np.linalg.eigh(shrunk_covariance(z - mean))
    values = np.maximum(values, FLOOR * values[-1]) if values[-1] > 0 else values + 1.0
    root = np.sqrt(values)
    arrays = (mean, (axes / root) @ axes.T, (axes * root) @ axes.T)
    return Whitening(*(array.astype(np.float32) for array in arrays))


def no_whitening(dim: int) -> Whitening:
    """The identity."""
    one = np.eye(dim, dtype=np.float32)
    return Whitening(np.zeros(dim, np.float32), one, one)


def shrunk_covariance(centred: np.ndarray) -> np.ndarray:
    """(1 - s) S + s m I, m = tr(S) / d, s from the data [ledoit2004, Sec. 3.3].

    s = min(b, e) / e with e = |S - m I|^2 and b = mean_k |x_k x_k' - S|^2 / N.
    """
    count, dim = centred.shape
    covariance = centred.T @ centred / count
    sphere = np.trace(covariance) / dim * np.eye(dim)
    spread = np.sum((covariance - sphere) ** 2)
    error = np.mean(np.sum(centred**2, 1) ** 2) - np.sum(covariance**2)
    share = min(error / count / spread, 1.0) if spread > 0 else 1.0
    return (1.0 - share) * covariance + share * sphere


def whiten(whitening: Whitening, z: jax.Array) -> jax.Array:
    """Latents of mean 0 and covariance near I."""
    return jnp.matmul(z - whitening.mean, whitening.forward, precision="highest")


def colour(whitening: Whitening, x: jax.Array) -> jax.Array:
    """Undoes `whiten`."""
    product = jnp.matmul(x, whitening.inverse, precision="highest")
    return product + whitening.mean
