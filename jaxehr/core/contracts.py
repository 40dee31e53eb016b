"""The interfaces between layers: generative models, training objectives, metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.cohort import Cohort, Dataset, Schema

Params = Any  # any pytree of arrays
Callback = Callable[[int, dict[str, float]], None]


# (key, cohort, *, valid=None, callbacks=(), checkpoint=None, announce=None) -> params
FitFn = Callable[..., Params]
# (key, params, label or None, num, *, options of the model) -> Cohort of NumPy arrays
SampleFn = Callable[..., Cohort]
# (key, params, cohort) -> Cohort with the missing parts drawn
ImputeFn = Callable[..., Cohort]
# (key, params, cohort, *, levels, repeats) -> float [N, Q], what training minimises of
# each patient in Q parts, most of them a noise level; noise is the same for every
# patient: a number depends on the key, the parameters and the patient only
LossesFn = Callable[..., np.ndarray]
# (keys [S], params, cohort, rows [S, n], *, valid=None, steps=0) -> S params: small
# trainings together, each on its rows, encoded as `params` says; the patients `valid`
# choose the best average; steps 0 = those of the configuration
FitManyFn = Callable[..., list[Params]]
# (key, shards, learn Bool [N], judge Bool [N], *, scratch, memory, callbacks=(),
# checkpoint=None, announce=None) -> params: `fit` with data that stay on disk
FitShardsFn = Callable[..., Params]


class GenerativeModel(NamedTuple):
    """What experiments and the command line see; `cdmt(schema, config)` returns one.

    `losses` and `fit_many` are for attacks on the model itself; `fit_shards` learns
    from data that do not fit into memory.
    """

    fit: FitFn
    sample: SampleFn
    impute: ImputeFn | None = None
    losses: LossesFn | None = None
    fit_many: FitManyFn | None = None
    fit_shards: FitShardsFn | None = None


def gather(data: Any, rows: Any) -> Any:
    """The patients `rows` of arrays that all have patients in front."""
    return jax.tree.map(lambda leaf: leaf[rows], data)


# (params, key, batch) -> the mean over the rows of the batch, and metrics
LossFn = Callable[[Params, jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]]


class Player(NamedTuple):
    """Some parameters that are trained in turns with others, on a loss of their own.

    Attributes:
      name: stands before its metrics.
      loss: of all parameters, as the players before it in the same step left them.
      moves: names of the top-level parameters that it moves; () = all of them.
      updates: its optimiser steps in one step of training, each with another batch.
      optimiser: (TrainConfig) -> optax transformation; None = the common one.
    """

    name: str
    loss: LossFn
    moves: tuple[str, ...] = ()
    updates: int = 1
    optimiser: Callable[[Any], Any] | None = None


class Objective(NamedTuple):
    """What the training loop sees: one stage.

    `loss` returns the mean over the rows of its batch, so that gradients of chunks
    average to the gradient of the whole batch. `take` makes a batch of the rows it is
    given; the first leaf of the data has one entry a patient. It is where sparse data
    become dense, one batch at a time. With `players` a step of training is a turn of
    each, in order, and `loss` is what validation measures. `lengths` counts the steps
    of each patient of the data: those of like length share a chunk, so that its loops
    over time end early. With `whole` the loss knows statistics of its batch: one device
    takes all of it, so that they do not depend on the number of devices. `undecayed`
    names top-level parameters that weight decay of the common optimiser leaves alone,
    such as the shape of a noise schedule.
    """

    init: Callable[[jax.Array, Any], Params]  # (key, batch) -> params
    loss: LossFn
    take: Callable[[Any, jax.Array], Any] = gather
    players: tuple[Player, ...] = ()
    lengths: Callable[[Any], jax.Array] | None = None  # data -> Int [N]
    whole: bool = False
    undecayed: tuple[str, ...] = ()


class Value(NamedTuple):
    """What a metric returns; `reason` says why `value` is None ("not defined")."""

    value: float | None
    reference: float | None = None  # the same number for real against real
    low: float | None = None  # confidence interval of `value`
    high: float | None = None
    reason: str = ""
    detail: Any = None  # dict of JSON-able extras, e.g. one number per feature


# (key, real, ...) -> number -> Value; see `Metric.takes`
MetricFn = Callable[..., dict[str, Value]]


class Comparison(NamedTuple):
    """Real training data, real hold-out and synthetic data of one schema."""

    train: Dataset
    holdout: Dataset
    synthetic: Dataset

    @property
    def schema(self) -> Schema:
        return self.train.schema


class Attacked(NamedTuple):
    """A trained model that attacks may look into, and whom it learned from."""

    model: GenerativeModel
    params: Params
    learned: np.ndarray  # Bool [training patients]; the others only chose the weights


class Scored(NamedTuple):
    """What an attack says of single patients: higher = "training patient"."""

    rows: np.ndarray  # Int [n]: who was asked about, rows of `Comparison.train`
    members: np.ndarray  # [n] their scores
    others: np.ndarray  # [m] scores of hold-out patients


class Metric(NamedTuple):
    """Numbers computed together; `names` are the keys that `run` returns."""

    run: MetricFn
    group: str  # fidelity | temporal | discriminability | utility | privacy
    names: dict[str, "Definition"]
    sparse: bool = False  # takes a `SparseTable` as it is; others see a dense one
    # What `run` gets by name beside the data: "model", an `Attacked` (without one the
    # metric is not defined), "keep", a function or None that receives a `Scored`,
    # "learned", that of the `Attacked` or None, "even", a `Comparison` of as many
    # synthetic as training patients, drawn once for all metrics.
    takes: tuple[str, ...] = ()


class Definition(NamedTuple):
    """How a number is read: what it is, which way is better, its ideal, its source."""

    title: str
    text: str
    direction: str  # "lower" | "higher" | "target"
    ideal: float | None  # None: the reference is the ideal
    source: str = ""


class Result(NamedTuple):
    """One line of the table of results."""

    name: str
    group: str
    definition: Definition
    value: Value
