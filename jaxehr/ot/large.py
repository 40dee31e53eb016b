"""Couplings of any size, and what they transport, a block of rows at a time.

Up to `dense_limit` rows the whole plan is solved. Above, the moment M = U' G V is found
on a subsample, refined over mini-batches stratified by label that share it, and frozen:
potentials on reference rows then couple every row, in or out of the sample.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.ot.config import AlignmentConfig
from jaxehr.ot.costs import Problem, take
from jaxehr.ot.factored import Solution, best_of_starts, bucket, solve

BATCHES = 20  # mini-batches that refine the shared moment
SMALLEST_STEP = 0.05
BATCH_ERROR = 1e-2  # of the row sums of a mini-batch
BLOCK = 4096  # rows that are transported at once


class Coupling(NamedTuple):
    """A solution on the rows `source` [R], `target` [R'] of a problem.

    values: GW value of every start, in their order. drift: relative change of the
    moment, frozen, on the reference rows; None where the whole plan was solved.
    """

    solution: Solution
    source: np.ndarray
    target: np.ndarray
    values: list[float]
    drift: float | None = None


class Rows(NamedTuple):
    """Label [n] and weight [n] of a cloud's rows, for drawing some of them."""

    label: np.ndarray
    weight: np.ndarray


def stratified(generator: np.random.Generator, rows: Rows, count: int) -> np.ndarray:
    """Numbers, ascending, of `count` rows of positive weight, classes in proportion."""
    usable = np.flatnonzero(rows.weight > 0)
    if len(usable) <= count:
        return usable
    order = generator.permutation(usable)
    order = order[np.argsort(rows.label[order], kind="stable")]
    # Evenly spaced places in the order by class: each class within one of its share.
    places = ((np.arange(count) + generator.random()) * len(order) / count).astype(int)
    return np.sort(order[places])


def couple(
    key: jax.Array,
    problem: Problem,
    labels: tuple[np.ndarray, np.ndarray],
    config: AlignmentConfig,
    epsilon: float,
    sigma: float,
    start: np.ndarray | None,
) -> Coupling:
    """Solves the problem, whatever its size.

    Args:
      labels: of the rows of both clouds.
      start: M from anchors; without, `config.starts` starts on a subsample.
    """
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    clouds = Rows(labels[0], problem.a), Rows(labels[1], problem.b)
    some = lambda count: [stratified(generator, rows, count) for rows in clouds]
    values: list[float] = []
    if start is None:
        rows = some(config.subsample)
        label = labels[0][rows[0]], labels[1][rows[1]]
        found, values = best_of_starts(
            generator, take(problem, *rows), label, epsilon, sigma, config.starts
        )
        start = np.asarray(found.moment)
    if max(len(problem.a), len(problem.b)) <= config.dense_limit:
        rows = some(config.dense_limit)
        found = solve(take(problem, *rows), epsilon, start=start)
        return Coupling(found, rows[0], rows[1], values or [float(found.value)])
    found = solve(take(problem, *some(config.subsample)), epsilon, start=start)
    values = values or [float(found.value)]
    once = functools.partial(solve, epsilon=epsilon, max_outer=0)
    moment = np.asarray(found.moment)
    for k in range(BATCHES):
        batch = take(problem, *some(config.subsample))
        seen = once(batch, start=moment, tolerance=BATCH_ERROR)
        step = max((k + 1.0) ** -0.7, SMALLEST_STEP)
        moment = moment + step * (np.asarray(seen.moment) - moment)
    rows = some(2 * config.subsample)
    last = once(take(problem, *rows), start=moment)
    drift = np.linalg.norm(np.asarray(last.moment) - moment) / np.linalg.norm(moment)
    last = last._replace(outer=found.outer + BATCHES, change=found.change)
    return Coupling(last, rows[0], rows[1], values, float(drift))


@jax.jit
def _carry(
    queries: jax.Array, references: jax.Array, potential: jax.Array, targets: jax.Array
) -> jax.Array:
    logits = queries @ references.T + potential
    return jax.nn.softmax(logits, 1) @ targets


def barycentres(
    queries: np.ndarray,
    references: Any,
    potential: Any,
    targets: np.ndarray,
    epsilon: float,
) -> np.ndarray:
    """Rows b_i = sum_j G_ij targets_j / sum_j G_ij of the plan, [N, l'].

    Args:
      queries: [N, k] rows whose products with references [R, k] are similarities.
      potential: [R] of the references. targets: [R, l'].
    """
    count, rows = len(queries), min(BLOCK, bucket(max(len(queries), 1)))
    spare = bucket(len(references)) - len(references)
    pad = lambda array, value: np.pad(
        np.asarray(array, np.float32),
        [(0, spare)] + [(0, 0)] * (np.ndim(array) - 1),
        constant_values=value,
    )
    # A padded reference has no mass; -inf would be NaN in 0 x inf.
    fixed = [pad(references, 0.0), pad(np.asarray(potential) / epsilon, -1e30)]
    fixed = [jnp.asarray(part) for part in [*fixed, pad(targets, 0.0)]]
    out = np.empty((count, targets.shape[1]), np.float32)
    for first in range(0, count, rows):
        block = np.zeros((rows, queries.shape[1]), np.float32)
        here = queries[first : first + rows]
        block[: len(here)] = here / epsilon
        out[first : first + rows] = np.asarray(_carry(block, *fixed))[: len(here)]
    return out


def query_rows(unit: np.ndarray, linear: np.ndarray, project: np.ndarray) -> np.ndarray:
    """Rows whose products with (v_j, y_j) are the similarities S_ij."""
    return np.concatenate([2.0 * (unit @ project), linear], 1).astype(np.float32)
