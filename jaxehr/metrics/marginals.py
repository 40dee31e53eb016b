"""Each number by itself: largest gap and area between distributions, and the tails.

Only observed values count, over all valid steps; they are standardised with the mean
and the standard deviation of the observed training values. The definitions for pooled
columns are ours. Values are exact; the intervals come from counts between CUTS values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.cohort import Dataset, Schema, numeric_features
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.core.sparse import SparseTable
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import (
    GROUPS,
    NO_NUMBERS,
    Distance,
    from_sums,
    generator,
    groups_of,
    nanmean,
    undefined,
)
from jaxehr.metrics.people import as_many
from jaxehr.metrics.views import TINY, distinct, too_few

CUTS = 512
TAILS = (0.01, 0.05, 0.95, 0.99)
SAME = 1e-6  # of a constant: rounding noise of generators in single precision
ABSENT = (
    "A column that no synthetic patient has counts as if all of its values lay at the "
    "far end of the real range."
)
UNSCALED = (
    "A column that is constant among training patients, and not the same constant "
    "among synthetic ones, has no deviation; it is left out, `metrics.json` names it, "
    "and the Kolmogorov-Smirnov distance judges it."
)
Spread = tuple[np.ndarray, np.ndarray]  # values ascending, share of data at or below
Gap = Callable[[Spread, Spread], float]


class Sample(NamedTuple):
    """The observed values of one column."""

    values: np.ndarray  # float64 [n]
    patient: np.ndarray  # Int [n]


def samples(data: Dataset) -> dict[str, Sample]:
    """Observed values of every numeric column; a sparse table has none."""
    cohort, schema = data.cohort, data.schema
    found: list[list[Sample]] = [[], []]
    for part, table in enumerate((cohort.temporal, cohort.static)):
        if isinstance(table, SparseTable):
            continue
        for i in range(table.numeric.shape[-1]):
            where = np.nonzero(table.observed[..., i])
            found[part].append(Sample(table.numeric[..., i][where], where[0]))
    names = distinct(
        [f.name for f in numeric_features(schema.temporal)],
        [f.name for f in numeric_features(schema.static)],
    )
    return dict(zip(names, found[0] + found[1], strict=True))


class Columns(NamedTuple):
    """Set -> column -> standardised values."""

    sets: dict[str, dict[str, Sample]]
    left_out: dict[str, str]  # no deviation is known of them: how they differ


def standardised(whole: Dataset, real: Comparison, free: bool) -> Columns:
    """The columns of `real` by means and deviations of the training patients `whole`.

    A column that is constant in `whole` is left out where synthetic patients hold that
    constant too. Where they do not, it is named, or `free`: only its mean is taken off.
    """
    out: dict[str, dict[str, Sample]] = {side: {} for side in real._fields}
    sets, left_out = {side: samples(d) for side, d in real._asdict().items()}, {}
    for column, train in samples(whole).items():
        seen = any(columns[column].values.size for columns in sets.values())
        if not train.values.size or not seen:
            continue
        mean, std = train.values.mean(), train.values.std()
        largest = np.abs(train.values).max()
        if std <= TINY * largest:
            made = np.abs(sets["synthetic"][column].values - mean)
            if made.size and made.max() <= SAME * (largest or 1.0):
                continue
            if not free:
                left_out[column] = "differs" if made.size else "is absent"
                continue
            std = 1.0
        for side, columns in sets.items():
            one = columns[column]
            out[side][column] = one._replace(values=(one.values - mean) / std)
    return Columns(out, left_out)


def by_column(name: str, of: dict[str, float], worst_text: str = "_worst") -> Distance:
    """Mean and largest of the defined numbers; the column of the largest is named."""
    of = {column: value for column, value in of.items() if np.isfinite(value)}
    if not of:
        return Distance({name: float("nan"), name + worst_text: float("nan")}, {})
    worst = max(of, key=lambda column: of[column])
    numbers = {name: nanmean(list(of.values())), name + worst_text: of[worst]}
    return Distance(numbers, {name: of, name + worst_text: {worst: of[worst]}})


def each_number(
    name: str,
    names: dict[str, Definition],
    gap: Gap,
    config: MetricConfig,
    bounds: dict[str, tuple[float, float]] | None = None,
    *,
    free: bool = False,
) -> Metric:
    """A metric that compares the distributions of every numeric column by `gap`.

    Args:
      free: the gap has no unit, so that a column without a deviation has one too.
    """

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        rng, whole = generator(key), real.train
        real = even or as_many(rng, real)
        sets, left_out = standardised(whole, real, free)
        if not sets["train"]:
            return undefined(names, why_none(real.schema, left_out))
        exact = {
            k: {c: spread_of(s.values) for c, s in v.items()} for k, v in sets.items()
        }
        apart = lambda a, b: by_column(name, {c: gap(a[c], b[c]) for c in a})
        truth = (
            apart(exact["synthetic"], exact["holdout"]),
            apart(exact["train"], exact["holdout"]),
        )
        cuts = {c: cut_points([exact[k][c] for k in sets]) for c in sets["train"]}
        sums = {}
        for side, data in real._asdict().items():
            group = groups_of(rng, data.groups)
            sums[side] = {c: binned(s, cuts[c], group) for c, s in sets[side].items()}
        coarse = lambda a, b: apart(
            *({c: (cuts[c], shares(side[c])) for c in side} for side in (a, b))
        )
        key = jax.random.fold_in(key, 1)
        out = from_sums(key, sums, coarse, config.resamples, bounds, truth)
        for value in out.values():
            if value.detail and left_out:
                absent = value.detail.get("left_out", [])
                value.detail["left_out"] = [*absent, *left_out]
        return out

    return Metric(run, "fidelity", names, sparse=True, takes=("even",))


def why_none(schema: Schema, left_out: dict[str, str]) -> str:
    """Why no column is left, from what `Columns` says."""
    if left_out:
        found = [f"{c} {how} among synthetic ones" for c, how in left_out.items()]
        return (
            "no deviation to measure by: constant among training patients, "
            f"{', '.join(found)}"
        )
    found = any(f.is_numeric for f in (*schema.static, *schema.temporal))
    return "no numeric column that varies" if found else NO_NUMBERS


def spread_of(values: np.ndarray) -> Spread:
    """The distinct values and the empirical distribution function at them."""
    distinct_values, count = np.unique(values, return_counts=True)
    return distinct_values, shares(count)


def shares(counts: np.ndarray) -> np.ndarray:
    """Cumulative shares; empty or zero counts stay zeros."""
    total = np.cumsum(counts, dtype=np.float64)
    return total / total[-1] if total.size and total[-1] > 0 else total


def cut_points(sides: list[Spread]) -> np.ndarray:
    """About CUTS values, dense in the tails of each side, with the largest of all."""
    chance = np.sin(np.pi / 2 * np.linspace(0, 1, CUTS // len(sides) + 1)) ** 2
    return np.unique(
        np.concatenate([quantiles(s, chance) for s in sides if not is_empty(s)])
    )


def binned(sample: Sample, cuts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Values up to each cut and above the one before, by group: [GROUPS, cuts]."""
    place = np.searchsorted(cuts, sample.values)
    code = group[sample.patient] * len(cuts) + place
    found = np.bincount(code, minlength=GROUPS * len(cuts))
    return found.reshape(GROUPS, -1).astype(np.float64)


def between(a: Spread, b: Spread) -> tuple[np.ndarray, np.ndarray]:
    """All values of both, ascending, and the difference of the shares at them."""
    if a[0] is b[0]:
        return a[0], a[1] - b[1]
    grid = np.sort(np.concatenate([a[0], b[0]]), kind="stable")  # merges two runs
    return grid, share_at(a, grid) - share_at(b, grid)


def share_at(side: Spread, grid: np.ndarray) -> np.ndarray:
    """The distribution function of `side` at each value of `grid`."""
    padded = np.concatenate([[0.0], side[1]])
    return padded[np.searchsorted(side[0], grid, side="right")]


def is_empty(side: Spread) -> bool:
    return not side[1].size or side[1][-1] == 0


def largest_gap(a: Spread, b: Spread) -> float:
    """max |F - G|; 1 if one side has no value, NaN if neither has."""
    if is_empty(a) or is_empty(b):
        return float("nan") if is_empty(a) and is_empty(b) else 1.0
    return float(np.abs(between(a, b)[1]).max())


def area_between(a: Spread, b: Spread) -> float:
    """Integral of |F - G|; NaN if b has no value, `largest_of` b if only a has none."""
    if is_empty(a) or is_empty(b):
        return largest_of(area_between, b)
    grid, gap = between(a, b)
    return float((np.abs(gap[:-1]) * np.diff(grid)).sum())


def tail_gap(a: Spread, b: Spread) -> float:
    """Mean absolute difference of the four quantiles; as the area without values."""
    if is_empty(a) or is_empty(b):
        return largest_of(tail_gap, b)
    return float(np.abs(quantiles(a) - quantiles(b)).mean())


def largest_of(gap: Gap, real: Spread) -> float:
    """The gap to values that all lie at an end of the range of the real ones, at the
    worse one; NaN if there are none.

    It stands for a column that no synthetic patient has: left out, it would help.
    """
    if is_empty(real):
        return float("nan")
    ends = quantiles(real, (1e-9, 1.0))
    return max(gap((end[None], np.ones(1)), real) for end in ends)


def quantiles(side: Spread, chance: Any = TAILS) -> np.ndarray:
    """The smallest values at or below which these shares lie."""
    # 1e-12: a share of 0.05 may be stored as 0.05 + rounding
    place = np.searchsorted(side[1], np.asarray(chance) - 1e-12)
    return side[0][np.minimum(place, len(side[0]) - 1)]


def defined(name: str, title: str, text: str, source: str) -> dict[str, Definition]:
    """Two numbers: the mean over the numeric columns and the worst of them."""
    lead = f"{text} Observed values over all valid steps; "
    return {
        name: Definition(f"{title}", f"{lead}mean over columns.", "lower", 0.0, source),
        f"{name}_worst": Definition(
            f"{title}, worst column",
            f"{lead}the column with the largest one, which `metrics.json` names.",
            "lower",
            0.0,
            source,
        ),
    }


def ks(config: MetricConfig = DEFAULT) -> Metric:
    """Kolmogorov-Smirnov distance max |F - G| of every number."""
    text = "Largest difference of the cumulative shares of a number, between 0 and 1."
    names = defined("ks", "Kolmogorov-Smirnov distance", text, "[massey1951]")
    bounds = dict.fromkeys(names, (0.0, 1.0))
    return each_number("ks", names, largest_gap, config, bounds, free=True)


def wasserstein(config: MetricConfig = DEFAULT) -> Metric:
    """First Wasserstein distance, the integral of |F - G|, in standard deviations."""
    text = (
        "How far values must be moved on average, in real standard deviations. "
        f"{ABSENT} {UNSCALED}"
    )
    names = defined("wasserstein", "Wasserstein distance", text, "[vallender1974]")
    return each_number("wasserstein", names, area_between, config)


def tails(config: MetricConfig = DEFAULT) -> Metric:
    """Errors of the 1, 5, 95 and 99 % quantiles, in standard deviations."""
    text = (
        "Mean absolute difference of the 1, 5, 95 and 99 % quantiles of a number, in "
        "real standard deviations: are very low and very high values as far out? "
        f"{ABSENT} {UNSCALED}"
    )
    names = defined("tail_error", "Tail error", text, "")
    return each_number("tail_error", names, tail_gap, config)
