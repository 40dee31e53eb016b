"""Maximum mean discrepancy, two views: all numbers at all steps, and pooled vectors.

`mmd` compares numbers at every step with the kernel of the CDMT report; `mmd_pooled`
compares whole patients without the order of time [flexgen2024, Table 2], whose scale
the paper leaves open.

n synthetic (or training) patients a, m hold-out patients b.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import NO_NUMBERS, generator, undefined
from jaxehr.metrics.pooled import fit_frame, profile, vectors
from jaxehr.metrics.views import fit_lens, flat_numbers, too_few

WIDTHS = (4.0, 2.0, 1.0, 0.5, 0.25)  # x median distance; each half of the one before


class Sums(NamedTuple):
    """A kernel [n, m], summed up."""

    rows: np.ndarray  # [n], means
    columns: np.ndarray  # [m]
    mean: float  # over pairs of different patients
    square: float  # of the kernel without the means of rows and columns, over the same


class Gap(NamedTuple):
    """MMD^2, and what its variance follows from."""

    biased: float
    unbiased: float
    first: np.ndarray  # [n], mean k(a, a') - mean k(a, b)
    second: np.ndarray  # [m], mean k(a, b) - mean k(b, b')
    noise: float  # its variance for equal laws
    shared: float  # twice what the hold-out alone adds to that


def mmd(config: MetricConfig = DEFAULT) -> Metric:
    """Squared maximum mean discrepancy of the flattened numerics, and its root."""
    names = {
        "mmd_squared": Definition(
            "MMD squared",
            "Distance of the joint distributions of all numbers at all steps, kernel "
            "exp(-|a - b|^2 / median); biased: its floor, the reference, is above 0.",
            "lower",
            0.0,
            "[gretton2012, Eq. 5]",
        ),
        "mmd": Definition(
            "MMD", "The root of MMD squared.", "lower", 0.0, "[gretton2012, Eq. 5]"
        ),
    }

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        lens = fit_lens(*real)
        train, holdout, synthetic = (flat_numbers(lens, data) for data in real)
        if train.shape[1] == 0:
            return undefined(names, NO_NUMBERS)
        rng, sizes = generator(key), [len(train), len(holdout), len(synthetic)]
        size = min(config.mmd_rows, *sizes)
        draw = lambda x: x[rng.permutation(len(x))[:size]].astype(np.float64)
        found, reference = [], []
        for _ in range(1 if size == max(sizes) else config.draws):
            part = draw(holdout)
            found.append(gap_of_steps(draw(synthetic), part))
            reference.append(gap_of_steps(draw(train), part))
        if not np.isfinite([one.biased for one in found + reference]).all():
            return undefined(names, "all numbers are constant")
        given = found, reference, share_of(len(found), size, min(sizes))
        return {
            "mmd_squared": over_draws(*given),
            "mmd": over_draws(*given, root=True),
        }

    return Metric(run, "fidelity", names)


def gap_of_steps(a: np.ndarray, b: np.ndarray) -> Gap:
    """Of rows [n, D] and [m, D], k = exp(-|x - y|^2 / h), h the median over the pairs
    of the pooled rows; NaN if half of the rows are equal."""
    pooled, count = np.concatenate([a, b]), len(a)
    distance = squared_distances(pooled, pooled)
    np.fill_diagonal(distance, 0.0)
    median = np.median(distance[np.triu_indices(len(pooled), 1)])
    if median < 1e-12:  # numbers have unit variance: this is rounding noise
        median = np.nan
    kernel = np.exp(distance / -median)
    within = [kernel[:count, :count], kernel[count:, count:]]
    one, other = (summed(part, own=True) for part in within)
    return gap(one, other, summed(kernel[:count, count:]))


def summed(kernel: np.ndarray, own: bool = False) -> Sums:
    """Sums of a kernel [n, m]; `own`: between patients of one set, n = m."""
    rows, columns = kernel.mean(1), kernel.mean(0)
    total = float(rows.mean())
    square = np.vdot(kernel, kernel) / kernel.size - (rows**2).mean()
    square = float(square - (columns**2).mean() + total**2)
    if own:
        n, alone = len(kernel), np.diag(kernel)
        total = (n**2 * total - alone.sum()) / (n * (n - 1))
        alone = alone - rows - columns + rows.mean()
        square = (n**2 * square - (alone**2).sum()) / (n * (n - 1))
    return Sums(rows, columns, float(total), max(float(square), 0.0))


def gap(a: Sums, b: Sums, across: Sums) -> Gap:
    """MMD^2 from the kernel within both sets and between them.

    Its variance for equal laws is 2 tr S^2, S the covariance of the difference of the
    mean embeddings [gretton2012].
    """
    n, m = len(a.rows), len(b.rows)
    biased = a.rows.mean() + b.rows.mean() - 2 * across.mean
    noise = 2 * (a.square / n**2 + b.square / m**2 + 2 * across.square / (n * m))
    return Gap(
        max(float(biased), 0.0),
        a.mean + b.mean - 2 * across.mean,
        a.rows - across.rows,
        across.columns - b.rows,
        noise,
        4 * b.square / m**2,
    )


def variances(made: Gap, real: Gap) -> tuple[float, float]:
    """Of MMD^2, and of its difference to that of real patients, over drawing all anew.

    For a difference d of mean embeddings it is 4 d S d + 2 tr S^2. With d from the
    sample the first term is 4 tr S^2 too large on average, which is taken off. It is
    not below that of equal laws; the width of the kernel is taken as given.
    """
    n, m, others = len(made.first), len(made.second), len(real.first)
    alone = made.first.var() / n + made.second.var() / m
    both = made.first.var() / n + real.first.var() / others
    both += (made.second - real.second).var() / m
    noise = made.noise + real.noise - (made.shared + real.shared) / 2
    least = lambda linear, noise: float(max(4 * linear - noise, noise))
    return least(alone, made.noise), least(both, noise)


def share_of(draws: int, size: int, fewest: int) -> float:
    """Variance of a mean over draws of `size` of `fewest` patients, over that of one.

    Two draws have `size` / `fewest` of their patients in common.
    """
    return 1 / draws + (1 - 1 / draws) * size / fewest


def over_draws(
    made: Sequence[Gap],
    real: Sequence[Gap],
    share: float,
    *,
    unbiased: bool = False,
    root: bool = False,
) -> Value:
    """Mean over draws; its interval and that of the difference to the reference.

    Ends are those of MMD^2 and, for its root, their roots.
    """

    def scaled(squared: Any) -> np.ndarray:
        floor = np.asarray(squared) if unbiased else np.maximum(squared, 0.0)
        return np.sqrt(floor) if root else floor

    values, floors = (
        scaled([one.unbiased if unbiased else one.biased for one in side])
        for side in (made, real)
    )
    value, floor = float(values.mean()), float(floors.mean())
    each = [variances(*pair) for pair in zip(made, real, strict=True)]
    reach = 1.96 * np.sqrt(share * np.mean(each, axis=0))
    centre = value**2 if root else value
    low, high = (scaled(centre + sign * reach) for sign in (-1, 1))
    detail = {
        "rows": len(made[0].first),
        "per_draw": values.tolist(),
        "per_draw_reference": floors.tolist(),
        "above_reference": value - floor,
        "above_reference_interval": [float(low[1]) - floor, float(high[1]) - floor],
    }
    return Value(value, floor, float(low[0]), float(high[0]), "", detail)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|x - y|^2 of rows [n, D] and [m, D]: [n, m], not below 0."""
    distance = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return np.maximum(distance, 0.0, out=distance)


def pooled_definitions() -> dict[str, Definition]:
    """One kernel, unbiased and biased, and the sum of five."""
    rows = "Distance of the joint distributions of static values and means over time"
    one = "kernel exp(-|a - b|^2 / (2 median^2)), median of real distances"
    return {
        "mmd_pooled_squared": Definition(
            "MMD squared, pooled over time",
            f"{rows}; {one}; unbiased: 0 on average for equal laws, at most 2.",
            "lower",
            0.0,
            "[gretton2012, Eq. 3]",
        ),
        "mmd_pooled": Definition(
            "MMD, pooled over time",
            f"{rows}; {one}; root of the biased MMD squared, at most 1.41; its floor, "
            "the reference, is above 0.",
            "lower",
            0.0,
            "[gretton2012, Eq. 5]",
        ),
        "mmd_pooled_kernels": Definition(
            "MMD, pooled over time, five kernels",
            f"{rows}; five Gaussian kernels of widths 1/4, 1/2, 1, 2, 4 x median "
            "added; root of the biased MMD squared, at most 3.16.",
            "lower",
            0.0,
            "[li2023]",
        ),
    }


def mmd_pooled(config: MetricConfig = DEFAULT) -> Metric:
    """MMD of the vectors [s, mean_t X], one Gaussian kernel and a sum of five."""
    names = pooled_definitions()

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        profiles = [profile(data) for data in real]
        frame = fit_frame(*profiles)
        sizes = [len(p.share) for p in profiles]
        size, rng = min(config.pooled_rows, *sizes), generator(key)
        found, reference = [], []
        for _ in range(1 if size == max(sizes) else config.draws):
            train, holdout, synthetic = (
                vectors(frame, p, rng.permutation(n)[:size]).astype(np.float64)
                for p, n in zip(profiles, sizes, strict=True)
            )
            median = median_distance(holdout)
            if median == 0.0:
                return undefined(names, "half of the real patients are equal")
            found.append(pooled_gaps(synthetic, holdout, median))
            reference.append(pooled_gaps(train, holdout, median))
        share = share_of(len(found), size, min(sizes))
        one, five = zip(zip(*found), zip(*reference), strict=True)
        values = (
            over_draws(*one, share, unbiased=True),
            over_draws(*one, share, root=True),
            over_draws(*five, share, root=True),
        )
        return dict(zip(names, values, strict=True))

    return Metric(run, "fidelity", names, sparse=True)


def median_distance(rows: np.ndarray) -> float:
    """Median of |x - y| over the pairs of different rows; rounding noise is 0."""
    distance = squared_distances(rows, rows)
    square = float(np.median(distance[np.triu_indices(len(rows), 1)]))
    return square**0.5 if square > 1e-9 * max((rows**2).sum(1).max(), 1e-9) else 0.0


def pooled_gaps(a: np.ndarray, b: np.ndarray, median: float) -> tuple[Gap, Gap]:
    """Of rows [n, D] and [m, D]: the kernel of width `median`, and five added."""
    sides = kernel_sums(a, a, median), kernel_sums(b, b, median)
    one, five = map(gap, *sides, kernel_sums(a, b, median))
    return one, five


def kernel_sums(a: np.ndarray, b: np.ndarray, median: float) -> tuple[Sums, Sums]:
    """Of exp(-|x - y|^2 / (2 (w median)^2)), w = 1, and of the sum over all w."""
    kernel = squared_distances(a, b)
    if a is b:
        np.fill_diagonal(kernel, 0.0)
    kernel /= -2 * (WIDTHS[0] * median) ** 2
    np.exp(kernel, out=kernel)
    total, sums = np.zeros_like(kernel), {}
    for width in WIDTHS:
        total += kernel
        if width == 1.0:
            sums[width] = summed(kernel, own=a is b)
        for _ in range(2):  # k^4 has half the width
            np.square(kernel, out=kernel)
    return sums[1.0], summed(total, own=a is b)
