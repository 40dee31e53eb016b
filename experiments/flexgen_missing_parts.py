"""The parts of one cell of `flexgen_missing`: hide, train, impute, compare, floors."""

import functools
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core import arrays
from jaxehr.core.cohort import Cohort, Dataset, Schema, Table, take
from jaxehr.core.contracts import Metric, Params
from jaxehr.core.files import write_bytes
from jaxehr.core.sparse import SparseTable, from_cells
from jaxehr.data.missing import drop_modalities
from jaxehr.data.split import split
from jaxehr.metrics.classifiers import Rows
from jaxehr.metrics.dimensions import dimensions
from jaxehr.metrics.evaluate import MetricConfig, comparison, run_metrics
from jaxehr.metrics.imputation import Baseline, baseline, imputation_error, nrmse
from jaxehr.metrics.learners import FOREST, Learner
from jaxehr.metrics.memory import digest
from jaxehr.metrics.mmd import mmd_pooled
from jaxehr.metrics.pooled import pool_sparse
from jaxehr.metrics.utility import pooled_family, utility
from jaxehr.models.flexgen import model, training
from jaxehr.models.flexgen.config import FlexgenConfig

VALID_SHARE = 0.1


class Clock:
    """Seconds of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = round(now - self.last, 1), now


class HiddenPart(NamedTuple):
    """Patients who lost a modality, before and after, and what others tell of it."""

    truth: Dataset
    left: Dataset
    base: Baseline


def hide(
    data: Dataset, static: int, temporal: int, seed: int
) -> tuple[tuple[Dataset, Dataset], dict[str, HiddenPart]]:
    """Training and validation patients with modalities hidden; and what was hidden.

    Args:
      static, temporal: percent of the patients who lose the part.
    """
    left, lost = drop_modalities(data, static / 100, temporal / 100, seed)
    found = {}
    for part in ("static", "temporal"):
        rows = np.flatnonzero(getattr(lost, part))
        has = np.flatnonzero(getattr(left.cohort, f"has_{part}"))
        seen = take(data, has).cohort
        lengths = (seen.length,) if part == "temporal" else ()
        base = baseline(getattr(data.schema, part), getattr(seen, part), *lengths)
        found[part] = HiddenPart(take(data, rows), take(left, rows), base)
    return split(left, VALID_SHARE, salt="valid"), found


def fit_parts(
    path: Any,
    schema: Schema,
    config: FlexgenConfig,
    key: jax.Array,
    left: tuple[Dataset, Dataset],
) -> Params:
    """The autoencoders of a pattern and seed, trained once."""
    if path.is_file():
        return arrays.read_arrays(path)
    fit, valid = left
    parts = training.autoencode(schema, config, key, fit.cohort, valid=valid.cohort)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, arrays.to_bytes(parts))
    return arrays.read_arrays(path)  # the same arrays, whether trained now or before


def imputation(
    key: jax.Array,
    schema: Schema,
    config: FlexgenConfig,
    params: Params,
    hidden: dict[str, HiddenPart],
    arguments: Any,
) -> dict[str, Any]:
    """Errors of both hidden modalities; the patients are those of the training."""
    found = {}
    for i, (part, (truth, left, base)) in enumerate(hidden.items()):
        rows = np.arange(len(truth.ids))
        if not rows.size:
            continue
        if rows.size > arguments.hidden_patients:
            rng = np.random.default_rng(0)
            rows = np.sort(rng.permutation(rows)[: arguments.hidden_patients])
        truth, left = take(truth, rows), take(left, rows)
        keys = jax.random.split(jax.random.fold_in(key, i), arguments.draws)
        draws = [model.impute(schema, config, k, params, left.cohort) for k in keys]
        found[part] = part_error(schema, part, truth.cohort, draws, base)
        found[part]["patients"] = len(rows)
    return found


def part_error(
    schema: Schema, part: str, truth: Cohort, draws: list[Cohort], base: Baseline
) -> dict[str, Any]:
    """Errors of one modality: of each cell, and of each patient's mean over time."""
    lengths: dict[str, Any] = {}
    if part == "temporal":
        lengths = {"length": truth.length, "draw_lengths": [d.length for d in draws]}
    features = getattr(schema, part)
    tables = [getattr(cohort, part) for cohort in (truth, *draws)]
    errors = imputation_error(features, tables[0], tables[1:], base, **lengths)
    shares = [person_shares(features, table) for table in tables]
    mean = np.broadcast_to(base.shares, shares[0].shape).reshape(-1)
    drawn = np.stack([share.reshape(-1) for share in shares[1:]])
    person = nrmse(shares[0].reshape(-1), drawn, mean)
    return errors["overall"] | {"person_nrmse": person}


def person_shares(features: Any, table: Table | SparseTable) -> np.ndarray:
    """How many of a patient's steps hold a 1, by binary column: [N, D]."""
    if not isinstance(table, SparseTable):
        return np.asarray(table.codes, float)
    pooled = pool_sparse(features, table)
    return pooled.total.toarray() / np.maximum(pooled.steps, 1)[:, None]


def compare(
    key: jax.Array, world: Any, made: Dataset, trees: int
) -> dict[str, dict[str, float | None]]:
    """Dimension-wise R^2, MMD and random forest, against the real test patients."""
    compared = comparison(world.train, made, world.test)
    return {
        result.name: {
            "value": result.value.value,
            "reference": result.value.reference,
            "low": result.value.low,
            "high": result.value.high,
        }
        for result in run_metrics(key, compared, metrics_of(trees))
    }


@functools.cache
def metrics_of(trees: int) -> dict[str, Metric]:
    """The metrics of every cell; they remember the forest of the real patients."""
    config = MetricConfig(pooled_rows=2000, trees=trees, max_rows=0, augment=0)
    forest = remembering(FOREST)
    return {
        "dimensions": dimensions(config),
        "mmd_pooled": mmd_pooled(config),
        "utility_forest": utility(
            pooled_family("forest", "random forest", forest), config
        ),
    }


def remembering(learner: Learner, most: int = 4) -> Learner:
    """`learner`, but what was learnt lately from the same rows is not learnt again."""
    kept: dict[str, Any] = {}

    def fit(
        config: MetricConfig,
        keys: jax.Array,
        classes: int,
        table: Rows,
        rows: np.ndarray,
    ) -> np.ndarray:
        models = np.empty(len(rows), object)
        for i in range(len(rows)):
            one = (config, keys[i : i + 1], classes, table, rows[i : i + 1])
            name = digest((config, classes), keys[i], table, rows[i])
            found = kept.pop(name, None)
            kept[name] = learner.fit(*one)[0] if found is None else found
            models[i] = kept[name]
            while len(kept) > most:
                kept.pop(next(iter(kept)))
        return models

    return Learner(fit, learner.chance)


def floor(key: jax.Array, data: Dataset, *, by_class: bool) -> Dataset:
    """Real patients with every column shuffled over patients: no joint law is left.

    A temporal column keeps its course over time. With `by_class` it is shuffled inside
    each class of the label, which leaves what each column alone says of the label.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    label = np.asarray(data.cohort.label)
    group = label if by_class else np.zeros_like(label)

    def shuffled() -> np.ndarray:
        order = np.arange(len(label))
        for value in np.unique(group):
            rows = np.flatnonzero(group == value)
            order[rows] = rng.permutation(rows)
        return order

    static, temporal = data.cohort.static, data.cohort.temporal
    codes, seen = static.codes.copy(), static.observed.copy()
    for column in range(codes.shape[1]):
        order = shuffled()
        codes[:, column] = codes[order, column]
        seen[:, column] = seen[order, column]
    orders = np.stack([shuffled() for _ in range(temporal.features)])
    owner = np.repeat(np.arange(len(label)), np.diff(temporal.offsets))
    step, column = np.divmod(temporal.cells, temporal.features)
    shape = (len(label), temporal.steps, temporal.features)
    table = from_cells((orders[column, owner], step, column), temporal.length, shape)
    cohort = data.cohort._replace(
        static=static._replace(codes=codes, observed=seen), temporal=table
    )
    return data._replace(cohort=cohort)
