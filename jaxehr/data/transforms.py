"""Quantile-to-normal transform of numeric features, with atoms, exactly invertible.

With F the distribution function of the observed training values of a feature, a value v
that occurs often (an atom: zeros, rounded values) owns the segment [F(v-), F(v)] of the
unit interval; it is mapped to the middle of its segment, and the inverse maps the whole
segment back to v. Other values are knots at the middle of their own step, with straight
lines between knots:
  u = (F(x-) + F(x)) / 2,   z = (Phi^-1(u) - mean) / std,   x = Q(Phi(std z + mean)),
where mean and std are those of Phi^-1(u) over the observed training values, so that z
has mean 0 and variance 1 exactly (README, Deviations: scaling of numbers).
scikit-learn's QuantileTransformer, in contrast, sends an atom at the lowest value to
-5.2, which makes a zero-inflated column two far-apart points.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from jaxehr.core.checks import InputError, within
from jaxehr.core.cohort import Feature

MOST_DECIMALS = 6


class QuantileNormal(NamedTuple):
    """Parameters of D features; rows of `levels` and `values` are padded to K knots."""

    levels: Any  # Float [D, K]: u of the knots, not decreasing
    values: Any  # Float [D, K]: x of the knots, not decreasing; an atom has two
    size: Any  # Int   [D]: knots in use
    count: Any  # Int   [D]: observed training values
    mean: Any  # Float [D]: of Phi^-1(u) over the observed training values
    std: Any  # Float [D]: likewise; 1 for a constant feature
    decimals: Any  # Int   [D]: the inverse is rounded to so many; -1 = not rounded
    lower: Any  # Float [D]: the inverse is clipped to [lower, upper]
    upper: Any  # Float [D]
    single: Any = False  # Bool [D]: the values are those of 32 bits; False in old runs


def fit_quantile_normal(
    values: np.ndarray,
    observed: np.ndarray,
    features: tuple[Feature, ...],
    max_knots: int = 1000,
) -> QuantileNormal:
    """Fits the transform on the training values.

    Args:
      values: Float [N, D]; observed: Bool [N, D], False = ignored. A feature without
        any observed value becomes the constant 0.
      features: the D numeric features; `integer` ones come back as integers, and
        bounds, where given, replace the training range.
      max_knots: knots of the continuous part; a value whose share exceeds 1 / max_knots
        is an atom, as is every value when there are few and they repeat.

    Raises:
      InputError: an observed value is not finite, or shapes disagree.
    """
    values, observed = np.asarray(values, np.float64), np.asarray(observed, bool)
    if values.shape != observed.shape or values.shape[1:] != (len(features),):
        raise InputError(
            f"values {values.shape}, observed {observed.shape} and {len(features)} "
            "features disagree; [N, D], [N, D] and D are needed."
        )
    tallies = [tally(values[:, d], observed[:, d]) for d in range(len(features))]
    return fit_tallies(tallies, features, max_knots)


class Tally(NamedTuple):
    """How often each value of a column was observed; adds up over parts of the data."""

    values: np.ndarray  # Float, ascending, each once; no -0.0
    counts: np.ndarray  # Int


def tally(values: np.ndarray, observed: np.ndarray) -> Tally:
    """The tally of values [N] where Bool [N] `observed`."""
    return Tally(*np.unique(values[observed] + 0.0, return_counts=True))


def add_tallies(one: Tally, other: Tally) -> Tally:
    """The tally of two parts together: the same whatever the parts are."""
    joined = np.concatenate([one.values, other.values])
    values, place = np.unique(joined, return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, place, np.concatenate([one.counts, other.counts]))
    return Tally(values, counts)


def as_single(found: Tally) -> Tally:
    """The tally with its values as 32 bits hold them."""
    values, place = np.unique(found.values.astype(np.float32), return_inverse=True)
    counts = np.bincount(place, found.counts, len(values)).astype(np.int64)
    return Tally(values.astype(np.float64), counts)


def fit_tallies(
    tallies: Sequence[Tally], features: tuple[Feature, ...], max_knots: int = 1000
) -> QuantileNormal:
    """`fit_quantile_normal` from the tallies of the D columns."""
    within("max_knots", max_knots, 4, 10**6)
    rows = []
    for found, feature in zip(tallies, features, strict=True):
        bad = ~np.isfinite(found.values)
        if bad.any():
            raise InputError(
                f"feature {feature.name!r}: {found.counts[bad].sum()} of "
                f"{found.counts.sum()} observed values are not finite."
            )
        rows.append(_fit_one(found, feature, max_knots))
    longest = max((len(row[0]) for row in rows), default=1)
    stack = [
        np.stack(
            [np.pad(row[part], (0, longest - len(row[part])), "edge") for row in rows]
        )
        if rows
        else np.zeros((0, longest))
        for part in (0, 1)
    ]
    scalars = np.array([row[2:] for row in rows], np.float64).reshape(len(rows), 7).T
    size = np.array([len(row[0]) for row in rows], np.int64)
    (levels, knots), (count, mean, std, decimals, lower, upper, single) = stack, scalars
    return QuantileNormal(
        levels,
        knots,
        size,
        count.astype(np.int64),
        mean,
        std,
        decimals.astype(np.int64),
        lower,
        upper,
        single.astype(bool),
    )


def forward(params: QuantileNormal, values: np.ndarray) -> np.ndarray:
    """z [..., D] of values [..., D], in the float dtype of `values`; always finite."""
    values = np.asarray(values)
    z = np.empty(values.shape, np.float64)
    for d in range(values.shape[-1]):
        x = _round(params, d, values[..., d].astype(np.float64))
        u = _levels(params, d, x)
        z[..., d] = (ndtri(u) - params.mean[d]) / params.std[d]
    return z.astype(np.result_type(values.dtype, np.float32))


def inverse(params: QuantileNormal, z: np.ndarray) -> np.ndarray:
    """Values float64 [..., D] of z [..., D]: rounded, and inside the bounds."""
    z = np.asarray(z, np.float64)
    values = np.empty(z.shape, np.float64)
    for d in range(z.shape[-1]):
        knots = slice(0, int(params.size[d]))
        u = ndtr(z[..., d] * params.std[d] + params.mean[d])
        x = np.interp(u, params.levels[d, knots], params.values[d, knots])
        x = _round(params, d, x)
        values[..., d] = np.clip(x, params.lower[d], params.upper[d])
    return values


def _fit_one(found: Tally, feature: Feature, max_knots: int) -> tuple[Any, ...]:
    """(levels, values) of one feature, and its fields from `count` on."""
    single = feature.dtype == "float"
    found = as_single(found) if single else found
    (distinct, counts), n = found, int(found.counts.sum())
    if not n:
        zero = np.zeros(1)
        return zero + 0.5, zero, 0, 0.0, 1.0, -1, *_bounds(feature, 0.0, 0.0), single
    top = np.cumsum(counts) / n
    bottom = (np.cumsum(counts) - counts) / n
    middle = (bottom + top) / 2
    atom = (counts > 1) & (counts > n / max_knots)
    if 2 * len(distinct) <= max_knots and n >= 2 * len(distinct):
        atom[:] = True
    kept = atom | _spread(middle, ~atom, max_knots)
    # An atom has a knot at either end of its segment, any other knot one in the middle.
    repeats = np.where(atom, 2, 1)[kept]
    values = np.repeat(distinct[kept], repeats)
    levels = np.repeat(np.where(atom, bottom, middle)[kept], repeats)
    last = np.cumsum(repeats) - 1
    levels[last] = np.where(atom, top, middle)[kept]
    decimals = 0 if feature.kind == "integer" else _decimals(distinct, single)
    bounds = _bounds(feature, distinct[0], distinct[-1])
    knots = QuantileNormal(
        levels[None],
        values[None],
        [len(levels)],
        [n],
        [0.0],
        [1.0],
        [decimals],
        *bounds,
    )
    normal = ndtri(_levels(knots, 0, distinct))
    mean = np.average(normal, weights=counts)
    variance = np.average((normal - mean) ** 2, weights=counts)
    std = np.sqrt(variance) if len(distinct) > 1 else 1.0
    return levels, values, n, mean, std, decimals, *bounds, single


def _levels(params: QuantileNormal, d: int, x: np.ndarray) -> np.ndarray:
    """u of x: the middle of the knots equal to x, else on the line between two."""
    size = int(params.size[d])
    knots, levels = params.values[d][:size], params.levels[d][:size]
    left, right = np.searchsorted(knots, x, "left"), np.searchsorted(knots, x, "right")
    hit = right > left
    below = np.clip(np.where(hit, left, left - 1), 0, size - 1)
    above = np.clip(np.where(hit, right - 1, left), 0, size - 1)
    width = knots[above] - knots[below]
    part = np.where(width > 0, (x - knots[below]) / np.where(width > 0, width, 1), 0.5)
    u = levels[below] + part * (levels[above] - levels[below])
    edge = 0.5 / max(int(params.count[d]), 1)
    return np.clip(u, edge, 1 - edge)


def _spread(middle: np.ndarray, free: np.ndarray, most: int) -> np.ndarray:
    """Which of the `free` values become knots: about `most`, spread over u and over z.

    Half of them lie evenly in u and half evenly in z = Phi^-1(u), so that the tails of
    a large sample keep their shape. The lowest and highest are always among them.
    """
    index = np.flatnonzero(free)
    if len(index) > most:
        low, high = middle[index[0]], middle[index[-1]]
        even = np.linspace(low, high, most // 2)
        tails = ndtr(np.linspace(ndtri(low), ndtri(high), most - most // 2))
        at = np.searchsorted(middle[index], np.concatenate([even, tails]))
        at = np.union1d(at.clip(0, len(index) - 1), [0, len(index) - 1])
        index = index[at]
    kept = np.zeros(len(middle), bool)
    kept[index] = True
    return kept


def _decimals(distinct: np.ndarray, single: bool) -> int:
    """Smallest d <= 6 with every value a multiple of 10^-d; -1 when there is none.

    Values of 32 bits are compared as such: 36.6 is then 36.599998.
    """
    dtype = np.float32 if single else np.float64
    for d in range(MOST_DECIMALS + 1):
        rounded = np.round(distinct, d)
        if np.array_equal(rounded.astype(dtype), distinct.astype(dtype)):
            return d
    return -1


def _round(params: QuantileNormal, d: int, x: np.ndarray) -> np.ndarray:
    """x with the decimals of feature d, and as its dtype holds it."""
    decimals = int(params.decimals[d])
    x = np.round(x, decimals) + 0.0 if decimals >= 0 else x
    single = np.broadcast_to(params.single, np.shape(params.decimals))[d]
    return x.astype(np.float32).astype(np.float64) if single else x


def _bounds(feature: Feature, low: float, high: float) -> tuple[float, float]:
    """The bounds of the feature; the training range where it has none."""
    lower = low if feature.lower is None else feature.lower
    upper = high if feature.upper is None else feature.upper
    return float(lower), float(upper)
