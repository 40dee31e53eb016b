"""Rows as numbers and codes only: sums over time become normal scores.

For models that diffuse numbers of unit variance. A row [B, P + S] has the numbers of
the form, then the score of each share of steps at 1, by the quantiles of training
(`data.transforms`: few distinct shares are atoms). Without sums nothing is fitted.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxehr.baselines.forms.layout import Batch, Form, Layout
from jaxehr.core.blocks import blocks_of
from jaxehr.core.cohort import Feature
from jaxehr.core.contracts import Params
from jaxehr.data.transforms import QuantileNormal, fit_quantile_normal

KNOTS = 64  # of one share
BLOCK, COLUMNS = 512, 256  # patients, columns made dense at once


def fit_scores(form: Form, layout: Layout, data: Batch) -> Params:
    """Quantiles of every sum over the training patients, as a dict of arrays [S, K]."""
    if not layout.sums:
        return {}
    take, shares = jax.jit(form.take, static_argnums=0), []
    for rows, kept in blocks_of(len(data.label), BLOCK):
        shares.append(np.asarray(take(layout, data, rows).sums)[kept])
    table, fitted = np.concatenate(shares), []
    feature = Feature(name="share", kind="numeric", lower=0.0, upper=1.0)
    for first in range(0, layout.sums, COLUMNS):
        part = table[:, first : first + COLUMNS]
        names = (feature,) * part.shape[1]
        found = fit_quantile_normal(part, np.ones(part.shape, bool), names, KNOTS)
        fitted += [knots_of(found, d) for d in range(part.shape[1])]
    most = max(len(row) for column in fitted for row in column)
    padded = lambda row: np.pad(row, (0, most - len(row)), "edge").astype(np.float32)
    names = ("levels", "knots", "middle", "values", "moments")
    return {
        name: np.stack([padded(column[i]) for column in fitted])
        for i, name in enumerate(names)
    }


def knots_of(found: QuantileNormal, d: int) -> tuple[np.ndarray, ...]:
    """Levels and knots of one column, those of the middle of its atoms, moments.

    The moments are mean, std, and the level from which a value stays away from 0 and 1.
    """
    size = int(found.size[d])
    levels, knots = found.levels[d][:size], found.values[d][:size]
    values, first, count = np.unique(knots, return_index=True, return_counts=True)
    middle = (levels[first] + levels[first + count - 1]) / 2
    edge = 0.5 / max(int(found.count[d]), 1)
    moments = np.array([found.mean[d], found.std[d], edge])
    return levels, knots, middle, values, moments


def numbers_of(scores: Params, batch: Batch) -> jax.Array:
    """Numbers and scores [B, P + S] of a batch."""
    if not scores:
        return jnp.asarray(batch.numeric)
    mean, std, edge = (scores["moments"][:, i] for i in range(3))
    column = jax.vmap(jnp.interp, (1, 0, 0), 1)
    level = column(batch.sums, scores["values"], scores["middle"])
    z = (ndtri(jnp.clip(level, edge, 1.0 - edge)) - mean) / std
    return jnp.concatenate([batch.numeric, z], -1)


def rows_of(
    layout: Layout, scores: Params, x: jax.Array, codes: jax.Array, label: jax.Array
) -> Batch:
    """Drawn patients of numbers and scores [B, P + S] and codes [B, Q]."""
    sums = x[:, layout.numbers :]
    if scores:
        mean, std = scores["moments"][:, 0], scores["moments"][:, 1]
        column = jax.vmap(jnp.interp, (1, 0, 0), 1)
        sums = column(ndtr(sums * std + mean), scores["levels"], scores["knots"])
    label = jnp.asarray(label, jnp.int32)
    numeric = x[:, : layout.numbers]
    return Batch(label, jnp.zeros_like(label), numeric, codes.astype(jnp.int32), sums)
