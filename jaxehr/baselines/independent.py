"""The floor: every column of every step by itself, as often as in training.

Numbers by the inverse of their distribution function, codes by their frequencies; which
values are missing, the length and the label are columns like any other, so that nothing
says anything of anything else. Only which whole parts a patient has goes together, and
with the label. It takes patients as they are: numbers, codes and missing values.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxehr.baselines.forms.layout import Batch, Layout, length_of
from jaxehr.baselines.forms.rows import exact_shares
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
from jaxehr.core.checks import known
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndependentConfig:
    """Choices of the floor."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)


PRESETS: dict[str, dict[str, Any]] = {}


def independent(
    schema: Schema, config: IndependentConfig | None = None
) -> GenerativeModel:
    """The product of the column marginals of training."""
    config = config or IndependentConfig()
    parts = (rows_form, learn, draw, no_stage)
    made = Recipe("independent", config, *parts, whole=False, sampling=Drawing)
    return build(schema, made)


def learn(key: jax.Array, config: IndependentConfig, task: Task) -> Params:
    """Mean and deviation of the normal scores, frequencies of codes and of ones."""
    del key, config
    quantile = task.fitted["row"]["quantile"]
    return {
        "mean": quantile["mean"],
        "std": quantile["std"],
        "chance": exact_shares(task.layout, task.fitted),
        "sums": task.fitted["sums"],
    }


def draw(
    layout: Layout,
    config: IndependentConfig,
    options: Any,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """Each column by itself; a step of a summed column is 1 with the mean share."""
    del config, options

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key)
        normal = jax.random.normal(keys[0], (layout.numbers,))
        logits = jnp.log(weights["chance"])
        # A level that is uniform, not a score that is normal: atoms keep their share.
        z = (normal - weights["mean"]) / weights["std"]
        return z, jax.random.categorical(keys[1], logits)

    pairs = jax.vmap(jax.random.split)(keys)
    numeric, codes = jax.vmap(one)(pairs[:, 0])
    length = length_of(layout, codes)

    def ones(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        key, length = row
        steps = layout.schema.num_steps
        chosen = jax.random.uniform(key, (steps, layout.sums)) < weights["sums"]
        valid = (jnp.arange(steps) < length)[:, None]
        return jnp.sum(chosen & valid, 0) / jnp.maximum(length, 1)

    sums = jnp.zeros((len(keys), 0))
    if layout.sums:
        sums = jax.lax.map(ones, (pairs[:, 1], length), batch_size=8)
    return Batch(label.astype(jnp.int32), length, numeric, codes, sums)
