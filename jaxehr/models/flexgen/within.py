"""Imputed latents of training patients, whose label is known.

The diffusion learns p(z | y). Imputed by one map for all classes, the missing part
would say too little of the label: imputing without the outcome attenuates [moons2006].
So the map is taken inside the classes,

    z' = m'_y + (z - m_y) W + F eps,    F F' = S' + noise - W' S W,

with class means m, common covariances S inside the classes, and W by ridge on complete
patients, centred by class; by the alignment's own map where that rests on more.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.contracts import Params
from jaxehr.ot import maps
from jaxehr.ot.config import AlignmentConfig

SHRINK = 10.0  # records of a class that weigh as much as the mean of all
FROM_PAIRS = ("ridge", "ridge on pairs")


def fit_within(
    source: tuple[np.ndarray, np.ndarray],
    target: tuple[np.ndarray, np.ndarray],
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    noise: np.ndarray,
    made: Params,
    words: tuple[str, float],
    num_classes: int,
    config: AlignmentConfig,
) -> Params:
    """Arrays of one direction; {} where the imputer itself is used.

    Args:
      source, target: latents [n, l] and labels [n] of all records with the part.
      pairs: x [K, l], y [K, l'], label [K] of the complete patients.
      noise: [l'] mean posterior variance of the target.
      made: the imputer of this direction.
      words: what it rests on, and the penalty of its ridge.
    """
    wanted = config.by_class and config.imputation == "stochastic"
    if not wanted or num_classes < 2 or "weight" not in made:
        return {}
    (z, label), (other, other_label) = source, target
    means = (
        class_means(z, label, num_classes),
        class_means(other, other_label, num_classes),
    )
    used, penalty = words
    weight = np.asarray(made["weight"], np.float64)
    if used in FROM_PAIRS:
        x, y, known = pairs
        sums = maps.moments(x - means[0][known], y - means[1][known])
        weight = maps.ridge(sums, penalty).weight
    linear = maps.Linear(weight, np.zeros(len(noise)))
    factor = maps.residual_factor(
        linear, z - means[0][label], other - means[1][other_label], noise
    )
    found = {"from": means[0], "to": means[1], "weight": weight, "residual": factor}
    return {name: np.asarray(array, np.float32) for name, array in found.items()}


def class_means(z: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """[C, l], shrunk to the mean of all where a class has few records."""
    counts = np.bincount(label, minlength=num_classes)[:, None]
    sums = np.stack([z[label == code].sum(0) for code in range(num_classes)])
    return (sums + SHRINK * z.mean(0)) / (counts + SHRINK)


def draw_within(arrays: Params, keys: jax.Array, z: Any, label: Any) -> jax.Array:
    """z' [B, l'] of known latents [B, l] and labels [B], each from its own key."""
    residual = jnp.asarray(arrays["residual"])
    eps = jax.vmap(lambda key: jax.random.normal(key, (len(residual),)))(keys)
    centred = z - jnp.asarray(arrays["from"])[label]
    mean = jnp.asarray(arrays["to"])[label] + centred @ arrays["weight"]
    return mean + eps @ residual.T
