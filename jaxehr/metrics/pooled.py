"""Patients without the order of time: static values, and means over the valid steps.

The vectors [s, mean_t X] of [flexgen2024]. Sparse tables are never made dense: what is
kept of a patient is one number a column.

N patients, T steps, F features, D columns (one for a number or a binary feature, K for
a categorical one with K values, none for a constant one).
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Table,
    coded_features,
    numeric_features,
    valid_steps,
)
from jaxehr.core.sparse import SparseTable

RANGE = (0.01, 0.99)  # quantiles of the real values that stand for 0 and 1


class Columns(NamedTuple):
    """What the columns of one table are: numbers first, then values of codes."""

    names: tuple[str, ...]  # [D]
    source: np.ndarray  # Int [D], the feature (numbers first) behind each column
    numbers: int  # so many columns are numbers
    features: tuple[str, ...]  # [F] names, numbers first


class Pooled(NamedTuple):
    """Sums over the valid steps of each patient; a static table has one step."""

    columns: Columns
    total: Any  # [N, D] array or CSR: sum of the numbers, steps with the value
    seen: np.ndarray | None  # [N, F] steps where observed; None = at every valid step
    steps: np.ndarray  # [N] valid steps


class Profile(NamedTuple):
    """One data set, pooled."""

    static: Pooled
    temporal: Pooled
    share: np.ndarray  # [N] length of the stay over the length of the grid


def profile(data: Dataset) -> Profile:
    """Sums of both tables."""
    cohort, schema = data.cohort, data.schema
    everyone = np.ones(len(cohort.label), bool)
    if isinstance(cohort.temporal, SparseTable):
        temporal = pool_sparse(schema.temporal, cohort.temporal)
    else:
        temporal = pool(schema.temporal, cohort.temporal, valid_steps(cohort))
    static = pool(schema.static, cohort.static, everyone)
    share = np.asarray(cohort.length) / max(schema.num_steps, 1)
    return Profile(static, temporal, share)


def columns_of(features: tuple[Feature, ...]) -> Columns:
    """The columns of a table, numbers first."""
    numbers, coded = numeric_features(features), coded_features(features)
    names = [f.name for f in numbers]
    source = list(range(len(numbers)))
    for i, feature in enumerate(coded, start=len(numbers)):
        for code in codes_of(feature):
            value = f"{feature.name} = {feature.categories[code]}"
            names.append(feature.name if feature.kind == "binary" else value)
            source.append(i)
    ordered = tuple(f.name for f in (*numbers, *coded))
    return Columns(tuple(names), np.asarray(source, int), len(numbers), ordered)


def codes_of(feature: Feature) -> range:
    """The codes that get a column."""
    first = {"binary": 1, "constant": 1}.get(feature.kind, 0)
    return range(first, feature.cardinality)


def pool(features: tuple[Feature, ...], table: Table, valid: np.ndarray) -> Pooled:
    """Sums of a dense table [N, F] or [N, T, F]; `valid` is Bool [N] or [N, T]."""
    columns = columns_of(features)
    over = tuple(range(1, valid.ndim))
    seen = np.asarray(table.observed, bool) & valid[..., None]
    count = columns.numbers
    parts = [np.where(seen[..., :count], table.numeric, 0.0).sum(over)]
    for i, feature in enumerate(coded_features(features)):
        here = seen[..., count + i]
        for code in codes_of(feature):
            found = (table.codes[..., i] == code) & here
            parts.append(found.sum(over)[:, None].astype(np.float64))
    total = np.concatenate(parts, -1)
    return Pooled(columns, total, seen.sum(over), valid.sum(over))


def pool_sparse(features: tuple[Feature, ...], table: SparseTable) -> Pooled:
    """Sums of a sparse table: how many steps of a patient hold a 1, as CSR."""
    shape = (len(table.length), table.features)
    column = table.cells % max(table.features, 1)
    ones = np.ones(len(table.cells), np.float32)
    offsets = table.offsets.copy()  # SciPy sums duplicates in place
    total = scipy.sparse.csr_array((ones, column, offsets), shape=shape)
    total.sum_duplicates()
    return Pooled(columns_of(features), total, None, np.asarray(table.length))


def group_sums(pooled: Pooled, group: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Sums over the patients of each group: total [G, D], seen [G, F], steps [G]."""
    size = len(group)
    ones = np.ones(size)
    member = scipy.sparse.csr_array((ones, (group, np.arange(size))), (count, size))
    total = member @ pooled.total
    if scipy.sparse.issparse(total):
        total = total.toarray()
    steps = member @ pooled.steps
    shape = (count, len(pooled.columns.features))
    seen = np.broadcast_to(steps[:, None], shape)
    if pooled.seen is not None:
        seen = member @ pooled.seen
    return {"total": total, "seen": np.asarray(seen, float), "steps": steps}


def value_range(data: Dataset, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Where 0 and 1 lie for the numbers of one part: low [numbers], span [numbers].

    The 1 % and 99 % quantiles of the observed values; the smallest and the largest
    where these are equal, and a span of 1 where all values are.
    """
    table = getattr(data.cohort, part)
    lows, spans = [], []
    if isinstance(table, SparseTable):
        return np.zeros(0), np.ones(0)
    for i in range(table.numeric.shape[-1]):
        values = table.numeric[..., i][table.observed[..., i]]
        low, high = np.quantile(values, RANGE) if values.size else (0.0, 1.0)
        if low == high:
            low, high = values.min(), values.max()
        lows.append(low)
        spans.append(high - low if high > low else 1.0)
    return np.asarray(lows, float), np.asarray(spans, float)


class Frame(NamedTuple):
    """How patient vectors are made; fitted on one data set."""

    fill: tuple[np.ndarray, np.ndarray]  # static, temporal: means over patients
    scale: tuple[np.ndarray, np.ndarray]  # standard deviations; 1 where constant
    masked: tuple[np.ndarray, np.ndarray]  # Bool [F]: missing somewhere
    lengths_vary: bool


def fit_frame(train: Profile, *others: Profile) -> Frame:
    """Means and deviations of `train`; `others` only decide which masks count."""
    every = (train, *others)
    fill, scale, masked = [], [], []
    for part in ("static", "temporal"):
        means, seen = person_means(getattr(train, part))
        count = np.maximum(seen.sum(0), 1)
        mean = np.where(seen, means, 0.0).sum(0) / count
        square = np.where(seen, (means - mean) ** 2, 0.0).sum(0) / count
        std = np.sqrt(square)
        largest = np.abs(np.where(seen, means, 0.0)).max(0, initial=0.0)
        fill.append(mean)
        scale.append(np.where(std > 1e-9 * np.maximum(largest, 1e-300), std, 1.0))
        masked.append(any_missing([getattr(p, part) for p in every]))
    vary = any((p.share != 1.0).any() for p in every if p.temporal.columns.features)
    return Frame(tuple(fill), tuple(scale), tuple(masked), vary)


def any_missing(tables: list[Pooled]) -> np.ndarray:
    """Bool [F]: the feature is missing at a valid step of someone."""
    found = np.zeros(len(tables[0].columns.features), bool)
    for table in tables:
        if table.seen is not None:
            found |= (table.seen < table.steps[:, None]).any(0)
    return found


def person_means(pooled: Pooled) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each number over the steps where it was seen; whether there is one."""
    count = pooled.columns.numbers
    if pooled.seen is None or not count:
        return np.zeros((len(pooled.steps), 0)), np.zeros((len(pooled.steps), 0), bool)
    seen = pooled.seen[:, :count]
    return pooled.total[:, :count] / np.maximum(seen, 1), seen > 0


def vectors(frame: Frame, whole: Profile, rows: Any = slice(None)) -> np.ndarray:
    """[s, mean_t X] of the patients `rows`: float32 [n, static + temporal columns].

    Numbers are standardised means of what was observed (the training mean where
    nothing was); a code is the share of valid steps with each value, 0 where missing;
    then the share of missing steps of every feature that is missing somewhere, and the
    length of the stay if it varies.
    """
    parts = []
    for i, pooled in enumerate(whole[:2]):
        count = pooled.columns.numbers
        picked = Pooled(
            pooled.columns,
            pooled.total[rows],
            None if pooled.seen is None else pooled.seen[rows],
            pooled.steps[rows],
        )
        means, seen = person_means(picked)
        centred = np.where(seen, means - frame.fill[i], 0.0)
        parts.append(centred / frame.scale[i])
        total = picked.total
        if scipy.sparse.issparse(total):
            total = total.toarray()
        steps = np.maximum(picked.steps, 1)[:, None]
        parts.append(total[:, count:] / steps)
        if frame.masked[i].any() and picked.seen is not None:
            absent = 1.0 - picked.seen[:, frame.masked[i]] / steps
            parts.append(absent)
    if frame.lengths_vary:
        parts.append(whole.share[rows][:, None])
    return np.concatenate([part.astype(np.float32) for part in parts], -1)


def vector_names(frame: Frame, whole: Profile) -> list[str]:
    """The names of the columns of `vectors`."""
    names = []
    for part, pooled, masked in zip(("static", "temporal"), whole[:2], frame.masked):
        names += [f"{part} {name}" for name in pooled.columns.names]
        if pooled.seen is not None:
            absent = np.asarray(pooled.columns.features, object)[masked]
            names += [f"{part} {name} is missing" for name in absent]
    return names + (["length"] if frame.lengths_vary else [])
