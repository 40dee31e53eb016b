"""Two clouds of latents and the transport problem that they pose."""

from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.ot import costs, maps
from jaxehr.ot.config import AlignmentConfig

FEWEST_PAIRS = 5  # complete pairs below which nothing is learned from them
PAPER_EPSILON = 0.05
CONSTANT = 1e-8  # sigma_ref below: an embedding without spread


class Clouds(NamedTuple):
    """Two clouds of latents, one row a record, and which rows are one patient.

    source [n, l], target [m, l']; labels Int [n], [m]; pairs Int [K, 2] (row of source,
    row of target). source_noise [l], target_noise [l']: mean posterior variance.
    """

    source: Any
    source_label: Any
    target: Any
    target_label: Any
    pairs: Any
    source_noise: Any
    target_noise: Any


class Built(NamedTuple):
    """A problem, how latents enter it, its scales; start: M from anchors, or None."""

    problem: costs.Problem
    sides: tuple[costs.Side, costs.Side]
    sigma: float
    epsilon: float
    start: np.ndarray | None


def check(clouds: Clouds, num_classes: int) -> Clouds:
    """Clouds as NumPy arrays, or an InputError."""
    arrays = Clouds(*(np.asarray(part) for part in clouds))
    for name in ("source", "target"):
        z, label = getattr(arrays, name), getattr(arrays, f"{name}_label")
        if z.ndim != 2 or not z.size or len(label) != len(z):
            raise InputError(
                f"{name}: latents must be [n, l] with a label each and at least one "
                f"row, got {z.shape} and {len(label)} labels."
            )
        if not np.isfinite(z).all():
            bad = int((~np.isfinite(z).all(1)).sum())
            raise InputError(
                f"{name}: {bad} of {len(z)} latents are not finite; the encoder "
                "diverged, lower its learning rate."
            )
        if label.min() < 0 or label.max() >= max(num_classes, 1):
            raise InputError(
                f"{name}: labels must lie in [0, {max(num_classes, 1)}), got "
                f"{label.min()} to {label.max()}."
            )
    pairs = arrays.pairs.reshape(-1, 2).astype(np.int64)
    sizes = np.array([len(arrays.source), len(arrays.target)])
    bad = ((pairs < 0) | (pairs >= sizes)).any(1)
    if bad.any():
        raise InputError(
            f"pairs: {bad.sum()} of {len(pairs)} name rows outside of {sizes[0]} "
            f"source and {sizes[1]} target rows; the first is {pairs[bad][0].tolist()}."
        )
    return arrays._replace(
        source=arrays.source.astype(np.float32),
        target=arrays.target.astype(np.float32),
        source_label=arrays.source_label.astype(np.int64),
        target_label=arrays.target_label.astype(np.int64),
        pairs=pairs,
    )


def reverse(clouds: Clouds) -> Clouds:
    """The same clouds, target to source."""
    z, label, other, other_label, pairs, noise, other_noise = clouds
    return Clouds(other, other_label, z, label, pairs[:, ::-1], other_noise, noise)


def build(
    clouds: Clouds, num_classes: int, config: AlignmentConfig, penalty: float
) -> Built:
    """The problem that `config.method` solves on the clouds.

    Rows without a direction, and rows of a class that the other cloud lacks, weigh 0.

    Args:
      penalty: of the ridge map that carries the anchor term.
    """
    signed, classes = config.method == "signed", num_classes
    sides = [
        costs.side(z, classes, signed=signed, penalty=0.0)
        for z in (clouds.source, clouds.target)
    ]
    labels = clouds.source_label, clouds.target_label
    zs = clouds.source, clouds.target
    u, v = (_units(*args) for args in zip(sides, zs, labels, strict=True))
    keep = [unit.any(1) for unit in (u, v)]
    weights = [np.zeros(len(unit)) for unit in (u, v)]
    if keep[0].any() and keep[1].any():
        weights[0][keep[0]], weights[1][keep[1]] = costs.class_weights(
            labels[0][keep[0]], labels[1][keep[1]], classes, not signed
        )
    a, b = weights
    sigma = costs.sigma_ref(u, v, a, b) if a.any() else 0.0
    epsilon = config.epsilon or (PAPER_EPSILON if signed else config.rho * sigma)
    both = sides[0], sides[1]
    none = np.zeros((len(u), 0), np.float32), np.zeros((len(v), 0), np.float32)
    built = Built(costs.Problem(u, v, a, b, *none), both, sigma, epsilon, None)
    if signed or sigma < CONSTANT:
        return built
    return _with_terms(built, clouds, classes, config, penalty)


def _with_terms(
    built: Built,
    clouds: Clouds,
    num_classes: int,
    config: AlignmentConfig,
    penalty: float,
) -> Built:
    """Adds the label term and, for `fused` with pairs enough, the anchors."""
    problem, pairs = built.problem, clouds.pairs
    cost = config.label_penalty * built.sigma if num_classes > 1 else 0.0
    table = np.sqrt(cost) * np.eye(max(num_classes, 1))[:, : num_classes * (cost > 0)]
    source, target = (side._replace(table=table) for side in built.sides)
    start = None
    if config.method == "fused" and len(pairs) >= FEWEST_PAIRS:
        start = problem.u[pairs[:, 0]].T @ problem.v[pairs[:, 1]] / len(pairs)
        x, z = clouds.source[pairs[:, 0]], clouds.target[pairs[:, 1]]
        known = maps.ridge(maps.moments(x, z), penalty)
        centre = problem.b @ clouds.target
        spread = known.weight.T @ costs.covariance(clouds.source, problem.a)
        wide = np.sum(
            (spread @ known.weight) * costs.covariance(clouds.target, problem.b)
        )
        scale = config.anchor_weight * built.sigma / max(np.sqrt(max(wide, 0.0)), 1e-12)
        source = source._replace(
            linear=scale * known.weight, offset=scale * (known.bias - centre)
        )
        eye = np.eye(len(centre))
        target = target._replace(linear=eye, offset=-centre)
    x = _linear(source, clouds.source, clouds.source_label)
    y = _linear(target, clouds.target, clouds.target_label)
    if start is not None:  # of a pair the truth is known
        truth = scale * (clouds.target[pairs[:, 1]] - centre)
        x[pairs[:, 0], table.shape[1] :] = truth
    return built._replace(
        problem=problem._replace(x=x, y=y), sides=(source, target), start=start
    )


def _units(side: costs.Side, z: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.array(costs.embed(side, z, label)[0], np.float32)


def _linear(side: costs.Side, z: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.array(costs.embed(side, z, label)[1], np.float32)
