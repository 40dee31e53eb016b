"""Imputation of one latent from the other one: pure functions over arrays.

What the arrays hold decides what is done: `weight` a linear map, `references` the rows
of a coupling, `points` the complete records for knn, `means` the classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.ot.config import AlignmentConfig
from jaxehr.ot.costs import Side, embed

ROWS = 256  # at once against the references
Arrays = dict[str, Any]


def linear_arrays(weight: Any, bias: Any, residual: Any) -> Arrays:
    """z W + bias, and a factor F of the residual covariance F F'."""
    return _float(weight=weight, bias=bias, residual=residual)


def knn_arrays(source: Any, target: Any, noise: Any) -> Arrays:
    """The complete records: latents [K, l], [K, l'], posterior variance [l']."""
    return _float(points=source, targets=target, noise=np.sqrt(noise))


def class_arrays(means: Any, factors: Any) -> Arrays:
    """Mean [C, l'] and factor of the covariance [C, l', l'] of each class."""
    return _float(means=means, factors=factors)


def coupling_arrays(
    side: Side,
    project: Any,
    references: Any,
    potential: Any,
    targets: Any,
    noise: Any,
    epsilon: float,
) -> Arrays:
    """Rows of the coupling out of sample: softmax_j((S_ij + g_j) / epsilon).

    Args:
      side: how a latent enters the cost. project: [r, r'] 2 M, seen from this side.
      references: [R, r' + k] unit and linear rows. potential: [R]. targets: [R, l'].
      noise: [l'] posterior variance of the targets.
    """
    return _float(
        **side._asdict(),
        project=project,
        references=references,
        potential=potential,
        targets=targets,
        noise=np.sqrt(noise),
        epsilon=epsilon,
    )


def predict(arrays: Arrays, config: AlignmentConfig, z: Any, label: Any) -> jax.Array:
    """The expected latent [B, l'] given the other one z [B, l] and the label [B].

    The label does not enter a linear map or knn.

    Raises:
      InputError: method complete, which imputes nothing.
    """
    _refuse_empty(arrays)
    z = jnp.asarray(z, float)
    if "weight" in arrays:
        return z @ arrays["weight"] + arrays["bias"]
    if "means" in arrays:
        return jnp.asarray(arrays["means"])[label]
    if "points" in arrays:
        nearest = _by_rows(lambda row: _nearest(arrays, config, row), z)
        return jnp.mean(jnp.asarray(arrays["targets"])[nearest], 1)
    targets = jnp.asarray(arrays["targets"])
    return _by_rows(
        lambda row: jax.nn.softmax(_logits(arrays, *row)) @ targets, (z, label)
    )


def draw(
    arrays: Arrays,
    config: AlignmentConfig,
    keys: jax.Array,
    z: Any,
    label: Any,
) -> jax.Array:
    """A draw of the latent [B, l']; row i depends on keys[i], z[i], label[i] alone.

    Linear maps and classes add Gaussian residuals, knn takes one of the neighbours,
    `sample` one row of the coupling (both with the posterior's noise). The imputations
    `linear` and `barycentric` have no spread.

    Raises:
      InputError: method complete, which imputes nothing.
    """
    _refuse_empty(arrays)
    normal = lambda size: jax.vmap(lambda key: jax.random.normal(key, (size,)))(keys)
    if config.imputation in ("linear", "barycentric"):
        return predict(arrays, config, z, label)
    if "weight" in arrays:
        residual = jnp.asarray(arrays["residual"])
        return predict(arrays, config, z, label) + normal(len(residual)) @ residual.T
    if "means" in arrays:
        factors = jnp.asarray(arrays["factors"])
        noise, means = normal(factors.shape[-1]), jnp.asarray(arrays["means"])
        # Every class for every row: factors[label] would be l' x l' numbers a row.
        residual = jnp.einsum("cij,bj->bci", factors, noise)
        return means[label] + residual[jnp.arange(len(noise)), label]
    z = jnp.asarray(z, float)
    halves = jax.vmap(jax.random.split)(keys)
    if "points" in arrays:
        nearest = _by_rows(lambda row: _nearest(arrays, config, row), z)
        pick = jax.vmap(lambda key, near: jax.random.choice(key, near))
        chosen = pick(halves[:, 0], nearest)
    else:
        one = lambda row: jax.random.categorical(row[0], _logits(arrays, *row[1:]))
        chosen = _by_rows(one, (halves[:, 0], z, label))
    noise = jax.vmap(lambda key: jax.random.normal(key, arrays["noise"].shape))
    targets = jnp.asarray(arrays["targets"])
    return targets[chosen] + arrays["noise"] * noise(halves[:, 1])


def _nearest(arrays: Arrays, config: AlignmentConfig, z: jax.Array) -> jax.Array:
    """Numbers [k] of the complete records nearest to z [l]."""
    points = jnp.asarray(arrays["points"])
    closeness = points @ z - 0.5 * jnp.sum(points**2, 1)
    return jax.lax.top_k(closeness, min(config.neighbours, len(points)))[1]


def _logits(arrays: Arrays, z: jax.Array, label: jax.Array) -> jax.Array:
    """Log-masses [R] of one row of the coupling, up to a constant."""
    side = Side(*(arrays[name] for name in Side._fields))
    unit, linear = embed(side, z[None], label[None])
    features = jnp.concatenate([unit @ arrays["project"], linear], 1)[0]
    return (arrays["references"] @ features + arrays["potential"]) / arrays["epsilon"]


def _by_rows(function: Any, rows: Any) -> jax.Array:
    return jax.lax.map(function, rows, batch_size=ROWS)


def _float(**arrays: Any) -> Arrays:
    return {name: np.asarray(value, np.float32) for name, value in arrays.items()}


def _refuse_empty(arrays: Arrays) -> None:
    if not arrays:
        raise InputError(
            "method complete leaves out patients who lack a modality and cannot "
            "impute; choose another method, such as fused."
        )
