"""Marginal and joint fidelity: correlations, total variation [cdmt2026, Table 3].

The paper names these metrics without formulas; the definitions here are ours.

Correlation and total variation are functions of sums over patients. The patients are
put into random groups and the groups are resampled, which gives the interval. Such
distances are larger the smaller the samples are, so that as many synthetic as training
patients are compared with the hold-out (`jaxehr.metrics.people.as_many`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.stats import rankdata

from jaxehr.core.cohort import Dataset, valid_steps
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.people import as_many, numbered
from jaxehr.metrics.views import (
    Coded,
    Lens,
    coded_columns,
    distinct,
    everyone,
    fit_lens,
    numeric_names,
    sequences_of_numbers,
    too_few,
)

GROUPS = 100
NO_NUMBERS = "no numeric column"
NO_CODES = "no coded column and no column with missing values"


def generator(key: jax.Array) -> np.random.Generator:
    """NumPy's generator seeded by a JAX key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


class Distance(NamedTuple):
    """One number or several, from the sums of two data sets; details per feature."""

    numbers: dict[str, float]
    detail: dict[str, dict[str, float]]


def undefined(names: Any, reason: str) -> dict[str, Value]:
    return {name: Value(None, reason=reason) for name in names}


def groups_of(rng: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """Int [N]: the group of each stay; as many people in each, within one.

    Args:
      person: [N], `Dataset.groups`; the stays of a person are in one group.
    """
    number = numbered(person)
    return (rng.permutation(int(number.max(initial=-1)) + 1) % GROUPS)[number]


def from_sums(
    key: jax.Array,
    sets: dict[str, Any],
    distance: Callable[[Any, Any], Distance],
    resamples: int,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    exact: tuple[Distance, Distance] | None = None,
) -> dict[str, Value]:
    """Value, reference and interval of a distance between sums.

    Args:
      sets: train, holdout, synthetic -> pytree of arrays [GROUPS, ...] of sums.
      bounds: the range of a number; (0, infinity) where it is not named.
      exact: distance of the synthetic and of the training data to the hold-out, where
        the sums are too coarse for more than the interval.

    The interval is value +- 1.96 standard deviations over resampled groups, cut at the
    bounds: percentiles would be off, for a distance of resamples is larger than the
    distance. Columns with a reference but no value are named as left out.
    """
    if exact is None:
        total = {k: jax.tree.map(lambda leaf: leaf.sum(0), v) for k, v in sets.items()}
        held = total["holdout"]
        exact = distance(total["synthetic"], held), distance(total["train"], held)
    found, reference = exact
    rng, draws = generator(key), []
    for _ in range(resamples):
        pair = []
        for name in ("synthetic", "holdout"):
            weight = rng.multinomial(GROUPS, np.full(GROUPS, 1 / GROUPS))
            mean = lambda leaf, w=weight: np.tensordot(w, leaf, 1)
            pair.append(jax.tree.map(mean, sets[name]))
        draws.append(distance(*pair).numbers)
    out = {}
    for name, value in found.numbers.items():
        if not np.isfinite(value) or not np.isfinite(reference.numbers[name]):
            out[name] = Value(None, reason="too few columns that vary")
            continue
        spread = 1.96 * float(np.nanstd([draw[name] for draw in draws]))
        least, most = (bounds or {}).get(name, (0.0, np.inf))
        low, high = max(value - spread, least), min(value + spread, most)
        detail = columns_of(name, found, reference)
        out[name] = Value(value, reference.numbers[name], low, high, "", detail)
    return out


def columns_of(name: str, found: Distance, reference: Distance) -> dict | None:
    """The detail of a number: by column, and the columns that could not be compared."""
    if name not in found.detail:
        return None
    ours, theirs = found.detail[name], reference.detail[name]
    detail: dict[str, Any] = {"per_feature": ours}
    if ours.keys() < theirs.keys():  # the worst column alone may be another one
        detail["left_out"] = [column for column in theirs if column not in ours]
    return detail


def correlation(config: MetricConfig = DEFAULT) -> Metric:
    """Mean absolute difference of the Pearson correlations over pooled valid steps."""
    definition = Definition(
        "Correlation error",
        "Mean absolute difference of the correlations between pairs of numbers, "
        "over all valid steps; static numbers stand at each step.",
        "lower",
        0.0,
        "[cdmt2026, Table 3]",
    )
    return pairwise("correlation_mae", definition, lambda x, valid: x, config)


def spearman(config: MetricConfig = DEFAULT) -> Metric:
    """The same of rank correlations, for numbers with long tails."""
    definition = Definition(
        "Rank correlation error",
        "Mean absolute difference of Spearman's correlations between pairs of numbers, "
        "over all valid steps; a few extreme values do not decide it.",
        "lower",
        0.0,
        "[spearman1904]",
    )
    return pairwise("spearman_mae", definition, ranked, config)


def ranked(x: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Mid-ranks of each column among the valid steps: variance 1 without ties."""
    out = np.zeros(x.shape)
    for i in range(x.shape[2]):
        # Unit variance in training data: later digits are rounding noise, not order
        rank = rankdata(np.round(x[..., i][valid], 6))
        out[..., i][valid] = (rank / max(len(rank), 1) - 0.5) * 12**0.5
    return out


def pairwise(
    name: str,
    definition: Definition,
    view: Callable[[np.ndarray, np.ndarray], np.ndarray],
    config: MetricConfig,
) -> Metric:
    """Correlations of `view` of the numbers [N, T, D], synthetic against hold-out."""

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined([name], reason)
        lens = fit_lens(*real)
        columns = distinct(numeric_names(lens.temporal), numeric_names(lens.static))
        if len(columns) < 2:
            reason = f"{len(columns)} numeric column(s); two are needed"
            return undefined([name], reason)
        rng, sets = generator(key), {}
        for side, data in (even or as_many(rng, real))._asdict().items():
            x, valid = sequences_of_numbers(lens, data)
            group = groups_of(rng, data.groups)
            sets[side] = moments(view(x, valid), valid, group)
        distance = lambda a, b: correlation_distance(name, columns, a, b)
        return from_sums(jax.random.fold_in(key, 1), sets, distance, config.resamples)

    return Metric(run, "fidelity", {name: definition}, takes=("even",))


def moments(x: np.ndarray, valid: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums of [1, x][1, x]^T over the valid steps of each group: [GROUPS, 1+D, 1+D].

    Args:
      x: [N, T, D]; valid: Bool [N, T]; group: Int [N].
    """
    sums = np.zeros((GROUPS, x.shape[2] + 1, x.shape[2] + 1))
    for i in range(GROUPS):
        rows = x[group == i][valid[group == i]].astype(np.float64)
        rows = np.concatenate([np.ones((len(rows), 1)), rows], 1)
        sums[i] = rows.T @ rows
    return sums


def correlations(sums: np.ndarray) -> np.ndarray:
    """Pearson correlations [D, D] from sums; NaN beside a column that does not vary."""
    mean = sums[0, 1:] / max(sums[0, 0], 1.0)
    covariance = sums[1:, 1:] / max(sums[0, 0], 1.0) - np.outer(mean, mean)
    variance = np.diag(covariance)
    # Columns have unit variance in training data: below this it is rounding noise.
    variance = np.where(variance > 1e-9, variance, np.nan)
    return covariance / np.sqrt(np.outer(variance, variance))


def correlation_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|difference| of the correlations [D, D]; NaN beside a column constant in b.

    A column that is constant in a only correlates with nothing there: left out, it
    would make a better number than a poor one does.
    """
    one, other = correlations(a), correlations(b)
    return np.abs(np.where(np.isnan(one), 0.0, one) - other)


def correlation_distance(
    name: str, columns: list[str], a: np.ndarray, b: np.ndarray
) -> Distance:
    """Mean over the pairs that vary on the real side b; by column in the detail."""
    error = correlation_error(a, b)
    np.fill_diagonal(error, np.nan)
    rows = {n: nanmean(row) for n, row in zip(columns, error, strict=True)}
    detail = {column: value for column, value in rows.items() if np.isfinite(value)}
    return Distance({name: nanmean(error)}, {name: detail})


def nanmean(values: Any) -> float:
    """Mean of the values that are numbers; NaN without a warning if there is none."""
    values = np.asarray(values, float)
    seen = ~np.isnan(values)
    return float(values[seen].mean()) if seen.any() else float("nan")


def coded_pairs(lens: Lens, data: Dataset) -> list[Coded]:
    """Coded columns and masks of both tables; arrays are [N, T] or [N, 1]."""
    cohort = data.cohort
    steps = coded_columns(lens.temporal, cohort.temporal, valid_steps(cohort))
    static = coded_columns(lens.static, cohort.static, everyone(data))
    widen = lambda c: c._replace(codes=c.codes[:, None], seen=c.seen[:, None])
    both = steps + [widen(column) for column in static]
    names = distinct([c.name for c in steps], [c.name for c in static])
    return [c._replace(name=name) for c, name in zip(both, names, strict=True)]


def tvd(config: MetricConfig = DEFAULT) -> Metric:
    """Total variation distance of every coded column and mask, and their mean."""
    names = {
        "tvd": Definition(
            "Total variation",
            "1/2 sum |p - q| of the values of each coded column and each pattern of "
            "missing values, over all valid steps; mean over columns.",
            "lower",
            0.0,
            "[cdmt2026, Table 3]",
        )
    }

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        lens, rng = fit_lens(*real), generator(key)
        sets = {}
        for name, data in (even or as_many(rng, real))._asdict().items():
            group = groups_of(rng, data.groups)
            sets[name] = {c.name: counts(c, group) for c in coded_pairs(lens, data)}
        if not sets["train"]:
            return undefined(names, NO_CODES)
        key = jax.random.fold_in(key, 1)
        return from_sums(key, sets, total_variation, config.resamples)

    return Metric(run, "fidelity", names, takes=("even",))


def counts(column: Coded, group: np.ndarray) -> np.ndarray:
    """How often each value is seen in each group of patients: [GROUPS, cardinality]."""
    code = group[:, None] * column.cardinality + column.codes
    size = GROUPS * column.cardinality
    found = np.bincount(code[column.seen], minlength=size)
    return found.reshape(GROUPS, -1).astype(np.float64)


def total_variation(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> Distance:
    """1/2 sum |p - q| by column; 1 if one side has no value, 0 if neither has."""
    detail = {}
    for name in a:
        p, q = a[name], b[name]
        if p.sum() == 0 or q.sum() == 0:
            detail[name] = float(p.sum() != q.sum())
        else:
            detail[name] = float(np.abs(p / p.sum() - q / q.sum()).sum() / 2)
    return Distance({"tvd": nanmean(list(detail.values()))}, {"tvd": detail})
