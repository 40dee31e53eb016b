"""Maximum mean discrepancy, two views: all numbers at all steps, and pooled vectors.

`mmd` compares numbers at every step with the kernel of the CDMT report; `mmd_pooled`
compares whole patients without the order of time [flexgen2024, Table 2], whose scale
the paper leaves open.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import NO_NUMBERS, generator, undefined
from jaxehr.metrics.pooled import fit_frame, profile, vectors
from jaxehr.metrics.views import fit_lens, flat_numbers, too_few

WIDTHS = (4.0, 2.0, 1.0, 0.5, 0.25)  # x median distance; each half of the one before


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
        rng = generator(key)
        size = min(config.mmd_rows, len(train), len(holdout), len(synthetic))
        draw = lambda x: x[rng.permutation(len(x))[:size]].astype(np.float64)
        values, references = [], []
        whole = size == max(len(train), len(holdout), len(synthetic))
        for _ in range(1 if whole else config.draws):
            part = draw(holdout)
            values.append(mmd_squared(draw(synthetic), part))
            references.append(mmd_squared(draw(train), part))
        if not np.isfinite([*values, *references]).all():
            return undefined(names, "all numbers are constant")
        detail = {"rows": size, "per_draw": values, "per_draw_reference": references}
        root, floor = np.sqrt(values), np.sqrt(references)
        return {
            "mmd_squared": from_draws(values, references, detail),
            "mmd": from_draws(root, floor, {"rows": size}),
        }

    return Metric(run, "fidelity", names)


def mmd_squared(a: np.ndarray, b: np.ndarray) -> float:
    """Biased MMD^2 of rows [n, D] and [m, D]; NaN if half of the rows are equal.

    mean k(a, a') + mean k(b, b') - 2 mean k(a, b), k = exp(-|x - y|^2 / h), h the
    median over the pairs of the pooled rows.
    """
    pooled, count = np.concatenate([a, b]), len(a)
    distance = squared_distances(pooled, pooled)
    np.fill_diagonal(distance, 0.0)
    median = np.median(distance[np.triu_indices(len(pooled), 1)])
    if median < 1e-12:  # numbers have unit variance: this is rounding noise
        return float("nan")
    kernel = np.exp(distance / -median)
    within = kernel[:count, :count].mean() + kernel[count:, count:].mean()
    return float(max(within - 2 * kernel[:count, count:].mean(), 0.0))


def from_draws(
    values: Any, references: Any, detail: dict[str, Any], least: float = 0.0
) -> Value:
    """Means over draws; Student's interval of the mean, none for a single draw.

    It holds the choice of rows only, not the drawing of the patients themselves.
    """
    value, reference = float(np.mean(values)), float(np.mean(references))
    if len(values) == 1:
        return Value(value, reference, detail=detail)
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    spread = quantile * float(np.std(values, ddof=1)) / len(values) ** 0.5
    low, high = max(value - spread, least), value + spread
    return Value(value, reference, low, high, "", detail)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|x - y|^2 of rows [n, D] and [m, D]: [n, m], not below 0."""
    distance = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return np.maximum(distance, 0.0, out=distance)


class Discrepancy(NamedTuple):
    """MMD^2 of two samples under kernels of several widths."""

    unbiased: float  # the kernel of width 1 x median
    biased: float
    biased_sum: float  # all widths added


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
            found.append(discrepancy(synthetic, holdout, median))
            reference.append(discrepancy(train, holdout, median))
        return pooled_values(found, reference, size)

    return Metric(run, "fidelity", names, sparse=True)


def median_distance(rows: np.ndarray) -> float:
    """Median of |x - y| over the pairs of different rows; rounding noise is 0."""
    distance = squared_distances(rows, rows)
    square = float(np.median(distance[np.triu_indices(len(rows), 1)]))
    return square**0.5 if square > 1e-9 * max((rows**2).sum(1).max(), 1e-9) else 0.0


def discrepancy(a: np.ndarray, b: np.ndarray, median: float) -> Discrepancy:
    """MMD^2 of rows [n, D] and [m, D] with Gaussian kernels of widths x `median`."""
    within_a, within_b = (kernel_sums(x, x, median) for x in (a, b))
    across = kernel_sums(a, b, median) / (len(a) * len(b))
    n, m = len(a), len(b)
    biased = within_a / n**2 + within_b / m**2 - 2 * across
    # k(x, x) = 1 is left out
    unbiased = (within_a - n) / (n * (n - 1)) + (within_b - m) / (m * (m - 1))
    unbiased -= 2 * across
    at = WIDTHS.index(1.0)
    return Discrepancy(
        float(unbiased[at]), max(float(biased[at]), 0.0), max(float(biased.sum()), 0.0)
    )


def kernel_sums(a: np.ndarray, b: np.ndarray, median: float) -> np.ndarray:
    """Sum over all pairs of exp(-|x - y|^2 / (2 (w median)^2)), for each width w."""
    kernel = squared_distances(a, b)
    if a is b:
        np.fill_diagonal(kernel, 0.0)
    kernel /= -2 * (WIDTHS[0] * median) ** 2
    np.exp(kernel, out=kernel)
    sums = []
    for _ in WIDTHS:
        sums.append(kernel.sum())
        for _ in range(2):  # k^4 has half the width
            np.square(kernel, out=kernel)
    return np.asarray(sums)


def pooled_values(
    found: list[Discrepancy], reference: list[Discrepancy], size: int
) -> dict[str, Value]:
    """The three numbers over draws."""
    values, floor = np.asarray(found, float), np.asarray(reference, float)
    columns = {
        "mmd_pooled_squared": (values[:, 0], floor[:, 0], -np.inf),
        "mmd_pooled": (np.sqrt(values[:, 1]), np.sqrt(floor[:, 1]), 0.0),
        "mmd_pooled_kernels": (np.sqrt(values[:, 2]), np.sqrt(floor[:, 2]), 0.0),
    }
    out = {}
    for name, (one, other, least) in columns.items():
        detail = {"rows": size, "per_draw": list(map(float, one))}
        detail["per_draw_reference"] = list(map(float, other))
        out[name] = from_draws(one, other, detail, least)
    return out
