"""A Gaussian copula over one row a patient: marginals of training, one correlation.

Every column j is a monotone function of a standard normal x_j: a number by the inverse
of its distribution function, a code by thresholds at its cumulative frequencies (in
the order of the codes), a sum over time as a number is; x ~ N(0, R), R as in
`diffusion.pairs`, from those who have the values: what is filled in says nothing. The
label is the first column: given it, its normal is drawn inside its segment. Those who
lack a modality are completed by their neighbours.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from scipy.special import ndtri as normal_quantile
from scipy.stats import rankdata

from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.baselines.forms.rows import exact_shares, known_values
from jaxehr.baselines.forms.scores import fit_scores
from jaxehr.baselines.recipe import (
    ROWS,
    Drawing,
    Recipe,
    Rows,
    Task,
    build,
    no_stage,
    rows_form,
)
from jaxehr.core.blocks import blocks_of
from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Params
from jaxehr.diffusion import pairs

MOST_COLUMNS = 8192  # of the correlation matrix
BLOCK = 512  # patients made dense at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopulaConfig:
    """Choices of the copula."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)


PRESETS: dict[str, dict[str, Any]] = {}


def copula(schema: Schema, config: CopulaConfig | None = None) -> GenerativeModel:
    """The Gaussian copula for cohorts of `schema`."""
    config = config or CopulaConfig()
    parts = (rows_form, learn, draw, no_stage)
    return build(schema, Recipe("copula", config, *parts, sampling=Drawing))


def learn(key: jax.Array, config: CopulaConfig, task: Task) -> Params:
    """Marginals, and a factor [columns, columns] of the correlation, label first.

    Raises:
      InputError: too many columns.
    """
    del key
    layout = task.layout
    columns = 1 + layout.numbers + len(layout.cardinalities) + layout.sums
    if columns > MOST_COLUMNS:
        raise InputError(
            f"copula: a correlation of {columns} columns is too large, at most "
            f"{MOST_COLUMNS} are allowed; prepare larger steps or fewer columns"
            + (", or take --rows sums." if config.rows == "flat" else ".")
        )
    table, seen = dense(task)
    found = pairs.nearest(pairs.correlation(scores(table, seen), seen))
    label = table[:, 0].astype(int)
    quantile = task.fitted["row"]["quantile"]
    shares = np.bincount(label, minlength=max(layout.classes, 1)) / len(label)
    return {
        "factor": np.linalg.cholesky(found).astype(np.float32),
        "mean": quantile["mean"],
        "std": quantile["std"],
        "ends": np.concatenate([[0.0], np.cumsum(shares)]),
        "thresholds": thresholds(layout, exact_shares(layout, task.fitted)),
        "sums": fit_scores(task.form, layout, task.data),
    }


def dense(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Label, numbers, codes and sums of the training patients [N, D], and Bool [N, D]:
    which of them are neither filled in nor padding."""
    layout, data, parts = task.layout, task.data, []
    take = jax.jit(task.form.take, static_argnums=0)
    for rows, kept in blocks_of(len(data.label), BLOCK):
        batch = take(layout, data, rows)
        parts.append([np.asarray(leaf)[kept] for leaf in batch[2:]])
    label = np.asarray(data.label)[:, None]
    table = [label, *map(np.concatenate, zip(*parts, strict=True))]
    numbers, codes = known_values(layout, table[2], np.asarray(data.length))
    sums = np.ones(table[3].shape, bool)
    seen = [np.ones(label.shape, bool), numbers, codes, sums]
    return np.concatenate(table, 1), np.concatenate(seen, 1)


def scores(table: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """E[x | value] of every column [N, D], x standard normal; 0 where not `seen`.

    A value whose share lies in [a, b] of the distribution function has the mean of
    the normal law between Phi^-1(a) and Phi^-1(b).
    """
    count = np.maximum(seen.sum(0), 1)
    last = np.where(seen, table, np.inf)  # ranks of the others stay what they are
    low = np.where(seen, (rankdata(last, "min", axis=0) - 1) / count, 0.0)
    high = np.where(seen, rankdata(last, "max", axis=0) / count, 1.0)
    return pairs.means_between(normal_quantile(low), normal_quantile(high))


def thresholds(layout: Layout, frequency: np.ndarray) -> np.ndarray:
    """Levels [Q, K - 1] above which the next code begins; 2 where there is none."""
    ends = np.cumsum(frequency, 1)
    inside = np.arange(1, ends.shape[1] + 1) < np.asarray(layout.cardinalities)[:, None]
    return np.where(inside, ends, 2.0)[:, :-1]


def draw(
    layout: Layout,
    config: CopulaConfig,
    options: Any,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """x ~ N(0, R) given the label, then every column by its marginal."""
    del config, options
    low, high = weights["ends"][label], weights["ends"][label + 1]
    size = weights["factor"].shape[0]

    def normals(key: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        key_label, key_rest = jax.random.split(key)
        level = low + (high - low) * jax.random.uniform(key_label)
        first = ndtri(jnp.clip(level, 1e-6, 1.0 - 1e-6))
        return jax.random.normal(key_rest, (size,)).at[0].set(first)

    x = jax.vmap(normals)(keys, low, high) @ weights["factor"].T
    ends = np.cumsum([1, layout.numbers, len(layout.cardinalities)])
    _, z, coded, summed = jnp.split(x, ends, axis=1)
    above = ndtr(coded)[..., None] > weights["thresholds"]
    if layout.sums:
        column, sums = jax.vmap(jnp.interp, (1, 0, 0), 1), weights["sums"]
        summed = column(ndtr(summed), sums["levels"], sums["knots"])
    return Batch(
        label.astype(jnp.int32),
        jnp.zeros_like(label, jnp.int32),
        (z - weights["mean"]) / weights["std"],
        above.sum(-1).astype(jnp.int32),
        summed,
    )
