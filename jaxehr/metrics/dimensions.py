"""Dimension-wise agreement: does each column have the right share or mean?

[flexgen2024, Table 2] compares the probability of every feature, over patients and
time bins, between real and synthetic data and calls the result R^2 and correlation;
its code computes Pearson's. Here: the share of each value of a coded column among
observed values, the share of missing values, and the mean of each number on a scale
where the 1 % and the 99 % quantile of the real training values are 0 and 1, so that a
number weighs like a share.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import (
    GROUPS,
    Distance,
    from_sums,
    generator,
    groups_of,
    undefined,
)
from jaxehr.metrics.people import as_many
from jaxehr.metrics.pooled import (
    Columns,
    any_missing,
    group_sums,
    profile,
    value_range,
)
from jaxehr.metrics.views import too_few

PARTS = ("static", "temporal")
SUFFIX = {"": "both parts", "_static": "static part", "_temporal": "temporal part"}
LEAST_COLUMNS = 3
AGREEMENT: tuple[str, ...] = ("r2_pearson", "r2_score", "rmse")


class Scale(NamedTuple):
    """How the sums of one part become numbers in about [0, 1]."""

    columns: Columns
    low: np.ndarray  # [numbers]
    span: np.ndarray  # [numbers]
    masked: np.ndarray  # Bool [F]: has missing values somewhere


def definitions() -> dict[str, Definition]:
    """Three numbers for both parts together and for each."""
    what = (
        "over the shares of values, shares of missing values and scaled means of all "
        "columns ({}), pooled over patients and valid steps"
    )
    kinds = {
        "pearson": ("R², correlation", "Squared Pearson correlation", "higher", 1.0),
        "score": (
            "R², score",
            "1 - sum of squared errors / sum of squares around the real mean",
            "higher",
            1.0,
        ),
        "rmse": ("RMSE", "Root of the mean squared error", "lower", 0.0),
    }
    found = {}
    for suffix, part in SUFFIX.items():
        for kind, (title, text, direction, ideal) in kinds.items():
            name = "rmse" if kind == "rmse" else f"r2_{kind}"
            found[f"dimension_{name}{suffix}"] = Definition(
                f"Dimension-wise {title}, {part}",
                f"{text} {what.format(part)}.",
                direction,
                ideal,
                "[flexgen2024, Sec. 5.1]",
            )
    return found


def dimensions(config: MetricConfig = DEFAULT) -> Metric:
    """R^2 and RMSE of the columns' shares and means, synthetic against hold-out."""
    names = definitions()
    bounds = {name: (0.0, 1.0) for name in names if "pearson" in name}
    bounds |= {name: (-np.inf, 1.0) for name in names if "score" in name}

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        profiles = [profile(data) for data in real]
        scales = {}
        for part in PARTS:
            tables = [getattr(p, part) for p in profiles]
            low, span = value_range(real.train, part)
            masked = any_missing(tables)
            scales[part] = Scale(tables[0].columns, low, span, masked)
        rng, sets = generator(key), {}
        for name, data in (even or as_many(rng, real))._asdict().items():
            group, whole = groups_of(rng, data.groups), profile(data)
            sets[name] = {
                part: group_sums(getattr(whole, part), group, GROUPS) for part in PARTS
            }
        distance = lambda a, b: compare(scales, a, b)
        key = jax.random.fold_in(key, 1)
        out = from_sums(key, sets, distance, config.resamples, bounds)
        for part in PARTS:
            if not scales[part].columns.names:
                absent = [name for name in names if name.endswith(part)]
                out |= undefined(absent, f"no {part} column that varies")
        return out

    return Metric(run, "fidelity", names, sparse=True, takes=("even",))


def levels(scale: Scale, sums: dict[str, np.ndarray]) -> np.ndarray:
    """Scaled means, shares of values, shares of missing values: [D + masked].

    NaN where a column is observed nowhere.
    """
    count, seen = scale.columns.numbers, np.asarray(sums["seen"], float)
    over = seen[scale.columns.source]
    mean = np.where(over > 0, sums["total"], np.nan) / np.maximum(over, 1.0)
    mean[:count] = (mean[:count] - scale.low) / scale.span
    missing = 1.0 - seen[scale.masked] / max(float(sums["steps"]), 1.0)
    return np.concatenate([mean, missing])


def level_names(scale: Scale) -> list[str]:
    """The names of `levels`."""
    absent = np.asarray(scale.columns.features, object)[scale.masked]
    return [*scale.columns.names, *(f"{name} is missing" for name in absent)]


def compare(scales: dict[str, Scale], synthetic: Any, real: Any) -> Distance:
    """The nine numbers, and the error of every column.

    A column that is observed on one side only counts by its share of missing values.
    """
    pairs, detail = {}, {}
    for part, scale in scales.items():
        a, b = levels(scale, real[part]), levels(scale, synthetic[part])
        pairs[f"_{part}"] = (a, b)
        error = zip(level_names(scale), b - a, strict=True)
        shown = {name: float(e) for name, e in error if np.isfinite(e)}
        detail[f"dimension_rmse_{part}"] = shown
    pairs[""] = tuple(map(np.concatenate, zip(*pairs.values())))
    numbers = {}
    for suffix, (a, b) in pairs.items():
        both = np.isfinite(a) & np.isfinite(b)
        for name, value in agreement(a[both], b[both]).items():
            numbers[f"dimension_{name}{suffix}"] = value
    return Distance(numbers, detail)


def agreement(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    """Squared Pearson correlation, 1 - SSE / SST, RMSE of two vectors [D].

    NaN for fewer than three columns; R^2 also where one side does not vary.
    """
    found: dict[str, float] = dict.fromkeys(AGREEMENT, float("nan"))
    if len(real) < LEAST_COLUMNS:
        return found
    square = float(((synthetic - real) ** 2).sum())
    a, b = real - real.mean(), synthetic - synthetic.mean()
    spread, other = float(a @ a), float(b @ b)
    found["rmse"] = (square / len(real)) ** 0.5
    if spread > 1e-12:
        found["r2_score"] = 1.0 - square / spread
        if other > 1e-12:
            found["r2_pearson"] = float(a @ b) ** 2 / (spread * other)
    return found
