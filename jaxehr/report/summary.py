"""The numbers behind the figures, in NumPy: shares, bands, correlations, choices.

A column is an array with NaN where nothing was observed; padding is not observed.
Codes are floats there.
"""

import warnings
from typing import Literal, NamedTuple

import numpy as np

from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Table,
    column_order,
    numeric_features,
    valid_steps,
)

Part = Literal["static", "temporal"]
MAX_FEATURES = 12
MAX_BINS = 48
# Fewer observations than this are not summarised: they would show single people.
MIN_OBSERVATIONS = 10


def features_of(data: Dataset, part: Part) -> tuple[Feature, ...]:
    return data.schema.static if part == "static" else data.schema.temporal


def column(data: Dataset, part: Part, index: int) -> np.ndarray:
    """Feature `index` in schema order, [N] or [N, T], NaN where missing."""
    features = features_of(data, part)
    table: Table = getattr(data.cohort, part)
    is_numeric, position = column_order(features)[index]
    source = table.numeric if is_numeric else table.codes
    seen = position + (0 if is_numeric else len(numeric_features(features)))
    values = np.asarray(source[..., position], np.float64)
    return np.where(np.asarray(table.observed[..., seen], bool), values, np.nan)


def observed_values(data: Dataset, part: Part, index: int) -> np.ndarray:
    """The observed values of one feature, pooled over patients and steps."""
    values = column(data, part, index)
    return values[np.isfinite(values)]


def bin_edges(feature: Feature, samples: list[np.ndarray]) -> np.ndarray:
    """Bins that both sides share; whole numbers sit in the middle of theirs.

    The range runs from the lowest 0.5 % to the highest 99.5 % point of either side.
    """
    filled = [sample for sample in samples if sample.size]
    low = min((np.quantile(s, 0.005) for s in filled), default=0.0)
    high = max((np.quantile(s, 0.995) for s in filled), default=1.0)
    if feature.kind == "integer":
        low, high = np.floor(low), np.ceil(high)
        width = np.ceil((high - low + 1) / MAX_BINS)
        count = int(np.ceil((high - low + 1) / width))
        return low - 0.5 + width * np.arange(count + 1)
    grain = _grain(filled[0]) if filled else 0.0
    if grain and high > low:
        width = grain * max(1.0, np.round((high - low) / (36 * grain)))
        first = np.round(low / grain) * grain - width / 2
        return first + width * np.arange(int(np.ceil((high - first) / width)) + 1)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, 36 + 1)


def _grain(sample: np.ndarray) -> float:
    """The step to which most values are rounded (0: none); bins must respect it."""
    for grain in (1.0, 0.5, 0.1):
        scaled = sample / grain
        if np.mean(np.abs(scaled - np.round(scaled)) < 1e-6) > 0.5:
            return grain
    return 0.0


def bin_shares(sample: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of `sample` per bin; what lies outside counts in the end bins."""
    middle = (edges[:-1] + edges[1:]) / 2
    counts, _ = np.histogram(np.clip(sample, middle[0], middle[-1]), edges)
    return counts / max(sample.size, 1)


def code_shares(sample: np.ndarray, cardinality: int) -> np.ndarray:
    counts = np.bincount(sample.astype(int), minlength=cardinality)
    return counts / max(sample.size, 1)


def shares(
    feature: Feature, samples: list[np.ndarray]
) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Bin edges (None for a coded feature) and one vector of shares a sample."""
    if not feature.is_numeric:
        return None, [code_shares(s, feature.cardinality) for s in samples]
    edges = bin_edges(feature, samples)
    return edges, [bin_shares(s, edges) for s in samples]


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Total variation distance 1/2 sum |p - q|: the share that would have to move."""
    return float(np.abs(first - second).sum() / 2)


def missing_by_step(data: Dataset, index: int) -> np.ndarray:
    """Share of patients still present for whom the feature is missing, [T]."""
    valid = valid_steps(data.cohort)
    seen = np.isfinite(column(data, "temporal", index))
    return _ratio((valid & ~seen).sum(0), valid.sum(0))


def missing_overall(data: Dataset, part: Part, index: int) -> float:
    """Share missing over all valid cells; NaN without any."""
    missing = ~np.isfinite(column(data, part, index))
    if part == "temporal":
        missing = missing[valid_steps(data.cohort)]
    return float(_ratio(missing.sum(), missing.size))


def _ratio(count: np.ndarray | int, total: np.ndarray | int) -> np.ndarray:
    count, total = np.asarray(count, float), np.asarray(total, float)
    return np.where(total > 0, count / np.maximum(total, 1), np.nan)


class Band(NamedTuple):
    """Mean and 10-90 % range over patients, each [T]; NaN where too few observed."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(values: np.ndarray) -> Band:
    """Summary over patients of `values` [N, T]."""
    enough = np.isfinite(values).sum(0) >= MIN_OBSERVATIONS
    empty = np.full(values.shape[1], np.nan)
    low, mean, high = empty.copy(), empty.copy(), empty.copy()
    if enough.any():
        kept = values[:, enough]
        mean[enough] = np.nanmean(kept, axis=0)
        low[enough], high[enough] = np.nanquantile(kept, [0.1, 0.9], axis=0)
    return Band(mean, low, high)


def correlations(columns: list[np.ndarray]) -> np.ndarray:
    """Pearson correlation over the cells where both are observed; else NaN."""
    flat = [values.ravel() for values in columns]
    result = np.eye(len(flat))
    for i, first in enumerate(flat):
        for j in range(i):
            both = np.isfinite(first) & np.isfinite(flat[j])
            result[i, j] = result[j, i] = _pearson(first[both], flat[j][both])
    return result


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    if first.size < MIN_OBSERVATIONS:
        return np.nan
    a, b = first - first.mean(), second - second.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else np.nan


def largest(scores: list[float], count: int = MAX_FEATURES) -> list[int]:
    """Positions of the `count` largest scores, in their old order; NaN comes first.

    A feature that cannot be compared (absent on one side) is one to look at.
    """
    ranks = np.nan_to_num(np.asarray(scores, float), nan=np.inf)
    return sorted(np.argsort(-ranks, kind="stable")[:count].tolist())


def band_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Mean absolute difference of the mean curves, in real standard deviations."""
    scale = np.nanstd(real) if np.isfinite(real).any() else np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a curve of NaN only
        gap = np.nanmean(np.abs(band(real).mean - band(synthetic).mean))
    return float(gap / scale) if scale > 0 else float(gap)
