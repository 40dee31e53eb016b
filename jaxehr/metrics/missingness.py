"""Which values are missing: when, together with which others, and in whom.

Definitions are ours. A value is missing where a valid step, or the static table, holds
none. Columns that are complete in every data set are left out; the columns of a sparse
table are always complete. N patients, T steps, F columns with missing values.
"""

from typing import NamedTuple

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxehr.core.cohort import (
    Dataset,
    coded_features,
    numeric_features,
    valid_steps,
)
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.core.sparse import SparseTable
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import (
    GROUPS,
    Distance,
    from_sums,
    generator,
    groups_of,
    moments,
    nanmean,
    undefined,
)
from jaxehr.metrics.people import as_many
from jaxehr.metrics.resampling import auroc, measured, one_vs_rest, trial
from jaxehr.metrics.utility import no_label
from jaxehr.metrics.views import distinct, too_few

COMPLETE = "no column with missing values"
LEAST_PATIENTS = 50  # at a step, on both sides, for its rates to be compared
THIRDS = 3
RIDGE = 0.01  # C of scikit-learn: strong, for the shares of thirds are nearly collinear


class Gaps(NamedTuple):
    """Where values are missing; one step stands for a grid without columns."""

    names: list[str]  # [F], temporal ones first
    temporal: np.ndarray  # Bool [N, T, F_temporal]
    static: np.ndarray  # Bool [N, F_static]
    valid: np.ndarray  # Bool [N, T]


def gaps(data: Dataset) -> Gaps:
    """Missing values of one data set."""
    cohort, schema = data.cohort, data.schema
    ordered = lambda part: [
        f.name for f in (*numeric_features(part), *coded_features(part))
    ]
    static = ~np.asarray(cohort.static.observed, bool)
    valid = valid_steps(cohort)
    if not schema.temporal:
        valid = np.ones((len(static), 1), bool)
    if isinstance(cohort.temporal, SparseTable) or not schema.temporal:
        empty = np.zeros((*valid.shape, 0), bool)
        return Gaps(distinct([], ordered(schema.static)), empty, static, valid)
    temporal = ~np.asarray(cohort.temporal.observed, bool) & valid[..., None]
    names = distinct(ordered(schema.temporal), ordered(schema.static))
    return Gaps(names, temporal, static, valid)


def with_gaps(real: Comparison) -> dict[str, Gaps]:
    """Gaps of each set, of the columns that have one in some set."""
    sets = {side: gaps(data) for side, data in real._asdict().items()}
    temporal = np.any([g.temporal.any((0, 1)) for g in sets.values()], axis=0)
    static = np.any([g.static.any(0) for g in sets.values()], axis=0)
    kept = np.concatenate([temporal, static])
    return {
        side: Gaps(
            [name for name, keep in zip(g.names, kept, strict=True) if keep],
            g.temporal[..., temporal],
            g.static[:, static],
            g.valid,
        )
        for side, g in sets.items()
    }


def missing_rate(config: MetricConfig = DEFAULT) -> Metric:
    """Share of missing values of every column at every step: mean and largest error."""
    text = (
        "Absolute difference of the share of missing values of a column at a step "
        f"(steps that {LEAST_PATIENTS} patients of each side reach; static columns "
        "have one share);"
    )
    names = {
        "missing_rate_mae": Definition(
            "Error of missing rates", f"{text} mean.", "lower", 0.0
        ),
        "missing_rate_max": Definition(
            "Error of missing rates, worst",
            f"{text} the largest one, whose place `metrics.json` names.",
            "lower",
            0.0,
        ),
    }

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        rng, sums = generator(key), {}
        real = even or as_many(rng, real)
        found = with_gaps(real)
        columns = found["train"].names
        if not columns:
            return undefined(names, COMPLETE)
        for side, g in found.items():
            group = groups_of(rng, getattr(real, side).groups)
            parts = {"temporal": g.temporal, "static": g.static, "valid": g.valid}
            sums[side] = {k: group_totals(leaf, group) for k, leaf in parts.items()}
            sums[side]["patients"] = np.bincount(group, minlength=GROUPS).astype(float)
        held = [s["valid"].sum(0) >= LEAST_PATIENTS for s in sums.values()]
        law = real.schema
        times = [
            f"{law.start + k * law.step:g} {law.time_unit}" for k in range(len(held[0]))
        ]
        kept = np.all(held, axis=0)
        apart = lambda a, b: rate_distance(columns, times, kept, a, b)
        bounds = dict.fromkeys(names, (0.0, 1.0))
        key = jax.random.fold_in(key, 1)
        return from_sums(key, sums, apart, config.resamples, bounds)

    return Metric(run, "missingness", names, sparse=True, takes=("even",))


def group_totals(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """How many are True in each group: Bool [N, ...] -> [GROUPS, ...]."""
    total = [values[group == i].sum(0) for i in range(GROUPS)]
    return np.stack(total).astype(np.float64)


def rate_distance(
    columns: list[str], times: list[str], kept: np.ndarray, a: dict, b: dict
) -> Distance:
    """Mean and largest difference of rates; by column, and the place of the largest."""
    steps, static = (
        np.abs(rate(a[part], a[over]) - rate(b[part], b[over]))
        for part, over in (("temporal", "valid"), ("static", "patients"))
    )
    steps = steps[kept]  # [steps, F_temporal]
    every = np.concatenate([steps.reshape(-1), static])
    names = {"missing_rate_mae": nanmean(every), "missing_rate_max": float("nan")}
    if not every.size:
        return Distance(names, {})
    worst = int(np.nanargmax(every))
    names["missing_rate_max"] = float(every[worst])
    if worst < steps.size:
        step, column = divmod(worst, steps.shape[1])
        place = f"{columns[column]} at {np.asarray(times)[kept][step]}"
    else:
        place = columns[steps.shape[1] + worst - steps.size]
    means = [*(nanmean(e) for e in steps.T), *map(float, static)]
    by_name = {c: m for c, m in zip(columns, means, strict=True) if np.isfinite(m)}
    detail = {
        "missing_rate_mae": by_name,
        "missing_rate_max": {place: float(every[worst])},
    }
    return Distance(names, detail)


def rate(missing: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Missing [T, F] or [F] over the total [T] or []; steps without anyone are 0."""
    return missing / np.maximum(np.asarray(total), 1.0)[..., None]


def co_missing(config: MetricConfig = DEFAULT) -> Metric:
    """Share of valid steps at which two columns are both missing."""
    name = "co_missing_mae"
    definition = Definition(
        "Error of joint missing rates",
        "Absolute difference of the share of valid steps at which two columns are both "
        "missing; mean over pairs of columns; static columns stand at each step.",
        "lower",
        0.0,
    )

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined([name], reason)
        rng, sums = generator(key), {}
        real = even or as_many(rng, real)
        found = with_gaps(real)
        columns = found["train"].names
        if len(columns) < 2:
            reason = f"{len(columns)} column(s) with missing values; two are needed"
            return undefined([name], reason)
        for side, g in found.items():
            still = np.broadcast_to(
                g.static[:, None], (*g.valid.shape, g.static.shape[1])
            )
            x = np.concatenate([g.temporal, still], -1)
            group = groups_of(rng, getattr(real, side).groups)
            sums[side] = moments(x, g.valid, group)
        apart = lambda a, b: joint_distance(name, columns, a, b)
        key, bounds = jax.random.fold_in(key, 1), {name: (0.0, 1.0)}
        return from_sums(key, sums, apart, config.resamples, bounds)

    return Metric(run, "missingness", {name: definition}, sparse=True, takes=("even",))


def joint_distance(
    name: str, columns: list[str], a: np.ndarray, b: np.ndarray
) -> Distance:
    """From sums of [1, m][1, m]^T, m the masks."""
    error = np.abs(a[1:, 1:] / max(a[0, 0], 1.0) - b[1:, 1:] / max(b[0, 0], 1.0))
    np.fill_diagonal(error, np.nan)
    rows = {c: nanmean(row) for c, row in zip(columns, error, strict=True)}
    return Distance({name: nanmean(error)}, {name: rows})


def mask_auroc(config: MetricConfig = DEFAULT) -> Metric:
    """The label from the masks alone: what is measured tells how ill a patient is."""
    name = "mask_auroc"
    definition = Definition(
        "Outcome from missing values alone, AUROC",
        "AUROC on real hold-out patients of a logistic regression that sees only which "
        "values are missing (share by column and third of the stay), trained on "
        "synthetic patients; the reference is trained on real ones.",
        "higher",
        1.0,
    )

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real) or no_label(real):
            return undefined([name], reason)
        found = with_gaps(real)
        if not found["train"].names:
            return undefined([name], COMPLETE)
        tested = trial(generator(key), real.holdout, 1, config.resamples)
        areas, test = [], gap_shares(found["holdout"])
        for side, data in (("synthetic", real.synthetic), ("train", real.train)):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=RIDGE))
            model.fit(gap_shares(found[side]), np.asarray(data.cohort.label))
            chance = np.zeros((len(test), real.schema.num_classes))
            chance[:, np.asarray(model.classes_, int)] = model.predict_proba(test)
            areas.append(one_vs_rest(auroc, tested.label, chance, tested.patients))
        return {name: measured(areas[0], areas[1], "one class only")}

    return Metric(run, "missingness", {name: definition}, sparse=True)


def gap_shares(g: Gaps) -> np.ndarray:
    """Share of missing steps by column and third of the grid, then static masks.

    A third without a valid step takes the share of the whole stay, so that the length
    of the stay is not told.
    """
    count = lambda x, over: x.sum(1) / np.maximum(over.sum(1), 1)[:, None]
    whole = count(g.temporal, g.valid)
    parts = []
    for steps in np.array_split(np.arange(g.valid.shape[1]), THIRDS):
        here = g.valid[:, steps]
        share = count(g.temporal[:, steps], here)
        parts.append(np.where(np.any(here, 1, keepdims=True), share, whole))
    return np.concatenate([*parts, g.static], -1).astype(np.float64)
