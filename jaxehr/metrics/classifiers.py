"""Neural classifiers of the metrics, and their training over many seeds at once.

Input rows are steps of [numbers, codes, masks, static columns]; padding is 0 and never
reaches a result. Axis letters: S seeds, N patients, B rows of a batch, T steps.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxehr.core.contracts import Objective, Params
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.nn.mlp import Mlp
from jaxehr.nn.temporal import Conv1d, Lstm
from jaxehr.nn.transformer import TransformerEncoder
from jaxehr.training.config import TrainConfig
from jaxehr.training.many import apply_many, fit_many
from jaxehr.training.turns import batches, layout

HIDDEN = 64
# Keeps a whole network in the cache of a CPU: 5-25 % faster than 32 or 128 rows.
CHUNK_ROWS = 64
LONG = 100  # steps above which the convolutions are pooled
VALIDATION_SHARE = 0.1


class Rows(NamedTuple):
    """Patients as a classifier sees them."""

    x: Any  # float32 [N, T, D], or [N, D] for flat classifiers
    length: Any  # int32 [N]
    label: Any  # int32 [N]


class Classifier(NamedTuple):
    objective: Objective  # mean cross-entropy
    logits: Callable[[Params, Rows], jax.Array]  # [B, classes]


class FlatNet(nn.Module):
    """Two hidden layers, 128 and 64, with ReLU."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array) -> jax.Array:
        return Mlp((128, 64, self.classes))(x)


class LstmNet(nn.Module):
    """LSTM, one or both directions; the states it ends in decide."""

    classes: int
    bidirectional: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array) -> jax.Array:
        _, end = Lstm(HIDDEN, self.bidirectional)(x, length)
        return nn.Dense(self.classes)(end)


class TransformerNet(nn.Module):
    """Transformer encoder, 2 layers and 4 heads; the mean over valid steps decides."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array) -> jax.Array:
        # The paper leaves the width of the dense layers open; 4 x takes a third longer.
        encoder = TransformerEncoder(HIDDEN, num_heads=4, num_layers=2, expansion=2)
        h = encoder(x, length)
        return nn.Dense(self.classes)(h.sum(1) / length[:, None])  # 0 at padding


class ConvLstmNet(nn.Module):
    """Convolutions of 5 and 3 steps with ReLU (pooled on long grids), then an LSTM."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array) -> jax.Array:
        valid = (jnp.arange(x.shape[1])[None, :] < length[:, None])[..., None]
        h = nn.relu(Conv1d(HIDDEN, 5)(jnp.where(valid, x, 0.0)))
        h = nn.relu(Conv1d(HIDDEN, 3)(jnp.where(valid, h, 0.0)))
        h = jnp.where(valid, h, 0.0)
        if x.shape[1] > LONG:
            # After ReLU no value is negative: padding by 0 changes no maximum.
            h = jnp.pad(h, ((0, 0), (0, x.shape[1] % 2), (0, 0)))
            h = h.reshape(len(h), -1, 2, HIDDEN).max(2)
            length = (length + 1) // 2
        return nn.Dense(self.classes)(Lstm(HIDDEN)(h, length)[1])


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "mlp": FlatNet,
    "lstm": LstmNet,
    "bilstm": functools.partial(LstmNet, bidirectional=True),
    "transformer": TransformerNet,
    "cnnlstm": ConvLstmNet,
}


@functools.cache
def classifier(name: str, classes: int) -> Classifier:
    """Built once for each name, so that compiled programs are found again."""
    network = NETWORKS[name](classes)

    def logits(params: Params, batch: Rows) -> jax.Array:
        return jnp.asarray(network.apply(params, batch.x, batch.length))

    def loss(params: Params, key: jax.Array, batch: Rows) -> Any:
        entropy = optax.softmax_cross_entropy_with_integer_labels
        return jnp.mean(entropy(logits(params, batch), batch.label)), {}

    def init(key: jax.Array, batch: Rows) -> Params:
        return network.init(key, batch.x[:1], batch.length[:1])

    return Classifier(Objective(init, loss), logits)


def cut_validation(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Int [S, n] in random order -> training rows and the last tenth for validation."""
    held = max(round(VALIDATION_SHARE * rows.shape[1]), 1)
    return rows[:, :-held], rows[:, -held:]


def steps_of_pass(config: MetricConfig, count: int) -> int:
    """Optimiser steps of a pass over `count` training rows."""
    base = TrainConfig(batch_size=config.batch_size, chunk_rows=CHUNK_ROWS)
    return batches(layout(base, count), count)


def with_steps_of(config: MetricConfig, full: int, count: int) -> MetricConfig:
    """Passes over `count` patients that make the steps of `epochs` passes over `full`,
    validation rows included."""
    # Deviation: the papers leave the steps open. By equal passes a larger set would
    # make more of them, and gain by these.
    rows = lambda n: cut_validation(np.zeros((1, n), int))[0].shape[1]
    steps, own = (steps_of_pass(config, rows(n)) for n in (full, count))
    epochs = max(round(config.epochs * steps / own), 1)
    return dataclasses.replace(config, epochs=epochs)


def fit_classifiers(
    keys: jax.Array,
    name: str,
    classes: int,
    table: Rows,
    rows: tuple[np.ndarray, np.ndarray],
    config: MetricConfig,
    epochs: int,
) -> Params:
    """Trains a classifier for every seed.

    Args:
      keys: [S].
      name: one of `NETWORKS`.
      rows: training rows [S, n] and validation rows [S, m] of `table`.

    Returns:
      The weights after the pass over the training rows whose cross-entropy on the
      validation rows was the lowest, with a leading axis [S].
    """
    per_epoch = steps_of_pass(config, rows[0].shape[1])
    training = TrainConfig(
        batch_size=config.batch_size,
        chunk_rows=CHUNK_ROWS,
        steps=epochs * per_epoch,
        eval_every=per_epoch,
        learning_rate=config.learning_rate,
        ema_decay=0.0,  # the weights themselves
        valid_draws=1,
    )
    objective = classifier(name, classes).objective
    data, chosen = on_device(table), as_int32(rows)
    return fit_many(keys, objective, data, config=training, rows=chosen)


def apply_classifiers(
    params: Params, name: str, classes: int, table: Rows, rows: np.ndarray
) -> np.ndarray:
    """Chances [S, k, classes] of the rows [S, k] of `table`, by the weights of each."""
    function = classifier(name, classes).logits
    logits = apply_many(params, function, on_device(table), rows=as_int32(rows))
    return np.asarray(jax.nn.softmax(logits, axis=-1), np.float64)


def as_int32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.int32), tree)


def on_device(table: Rows) -> Rows:
    x = jnp.asarray(table.x, jnp.float32)
    return Rows(x, *(jnp.asarray(leaf, jnp.int32) for leaf in table[1:]))


def join(tables: list[Rows]) -> Rows:
    """One table below the other."""
    return Rows(*map(np.concatenate, zip(*tables, strict=True)))
