"""The interfaces between layers: generative models, training objectives, metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from jaxehr.core.cohort import Cohort, Dataset, Schema

Params = Any  # any pytree of arrays
Callback = Callable[[int, dict[str, float]], None]


# (key, cohort, *, valid=None, callbacks=(), checkpoint=None, announce=None) -> params
FitFn = Callable[..., Params]
# (key, params, label or None, num, *, options of the model) -> Cohort of NumPy arrays
SampleFn = Callable[..., Cohort]
# (key, params, cohort) -> Cohort with the missing parts drawn
ImputeFn = Callable[..., Cohort]


class GenerativeModel(NamedTuple):
    """What experiments and the command line see; `cdmt(schema, config)` returns one."""

    fit: FitFn
    sample: SampleFn
    impute: ImputeFn | None = None


def gather(data: Any, rows: jax.Array) -> Any:
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
    each, in order, and `loss` is what validation measures.
    """

    init: Callable[[jax.Array, Any], Params]  # (key, batch) -> params
    loss: LossFn
    take: Callable[[Any, jax.Array], Any] = gather
    players: tuple[Player, ...] = ()


class Value(NamedTuple):
    """What a metric returns; `reason` says why `value` is None ("not defined")."""

    value: float | None
    reference: float | None = None  # the same number for real against real
    low: float | None = None  # confidence interval of `value`
    high: float | None = None
    reason: str = ""
    detail: Any = None  # dict of JSON-able extras, e.g. one number per feature


class MetricFn(Protocol):
    def __call__(self, key: jax.Array, real: "Comparison") -> dict[str, Value]: ...


class Comparison(NamedTuple):
    """Real training data, real hold-out and synthetic data of one schema."""

    train: Dataset
    holdout: Dataset
    synthetic: Dataset

    @property
    def schema(self) -> Schema:
        return self.train.schema


class Metric(NamedTuple):
    """Numbers computed together; `names` are the keys that `run` returns."""

    run: MetricFn
    group: str  # fidelity | temporal | discriminability | utility
    names: dict[str, "Definition"]
    sparse: bool = False  # takes a `SparseTable` as it is; others see a dense one


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
