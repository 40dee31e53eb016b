"""Alpha-precision and beta-recall: typical and outlying patients apart [alaa2022].

The alpha-support of a data set is the ball around its mean that holds the share alpha
of its patients. Vectors are [s, mean_t X] of n real (x) and m synthetic (y) patients.
Patients of both are drawn with replacement, W times; the first draw has each once.
Deviations: the authors first learn an embedding whose supports are balls, and take the
nearest patient for the k-th nearest, with which equal laws reach a recall of 1/2 only.
"""

import jax
import numpy as np
from scipy.stats import rankdata

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.coverage import ALL_EQUAL, NEIGHBOURS, drawn_vectors, not_varied
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.mmd import squared_distances
from jaxehr.metrics.neighbours import nearest
from jaxehr.metrics.views import too_few

# Numbers of real patients [W, n] and of synthetic ones [W, m]
Drawn = tuple[np.ndarray, ...]
SIDES = "left", "right"
MOST_NEAR = 8  # the chance that none of them is drawn is below exp(-8)


def alpha_precision(config: MetricConfig = DEFAULT) -> Metric:
    """Both curves against the diagonal: 1 - 2 integral |P(alpha) - alpha|."""
    how = " Pooled over time; 1 less twice the area between curve and diagonal."
    names = {
        "alpha_precision": Definition(
            "Alpha-precision",
            "Are synthetic patients as typical as real ones? Share of them within the "
            "ball that holds the share alpha of real ones." + how,
            "higher",
            1.0,
            "[alaa2022]",
        ),
        "beta_recall": Definition(
            "Beta-recall",
            "Do typical synthetic patients stand for as many real ones? Share of real "
            "patients whose nearest synthetic one is among the share beta of most "
            f"typical, and as near as their {NEIGHBOURS} nearest real ones." + how,
            "higher",
            1.0,
            "[alaa2022]",
        ),
    }

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        rng = generator(key)
        train, holdout, synthetic = drawn_vectors(rng, real, config.pooled_rows)
        if not_varied(holdout):
            return undefined(names, ALL_EQUAL)
        drawn = draws(rng, len(holdout), len(synthetic), config.resamples)
        once = draws(rng, len(holdout), len(train), 0)
        out = {}
        for name, levels in zip(names, (typical_levels, covered_levels)):
            value, *others = agreement(levels(holdout, synthetic, drawn)).tolist()
            reference = float(agreement(levels(holdout, train, once))[0])
            spread = 1.96 * float(np.std(others))
            low, high = max(value - spread, 0.0), min(value + spread, 1.0)
            detail = {"rows": len(holdout)}
            out[name] = Value(value, reference, low, high, "", detail)
        return out

    return Metric(run, "fidelity", names, sparse=True)


def agreement(levels: np.ndarray) -> np.ndarray:
    """1 - 2 integral_0^1 |P(a) - a| da, P(a) the share of `levels` [..., n] up to a.

    The integral is the distance of the quantiles: sum_i int |u_(i) - p| dp over the p
    from (i - 1) / n to i / n.
    """
    count = levels.shape[-1]
    ordered, ends = np.sort(levels, -1), np.arange(count + 1) / count
    signed = lambda z: z * np.abs(z) / 2  # its derivative is |z|
    parts = signed(ends[1:] - ordered) - signed(ends[:-1] - ordered)
    return 1.0 - 2.0 * parts.sum(-1)


def draws(rng: np.random.Generator, n: int, m: int, resamples: int) -> Drawn:
    """All patients once, and as many as they are with replacement."""
    return tuple(
        np.vstack([np.arange(size), rng.integers(0, size, (resamples, size))])
        for size in (n, m)
    )


def centres(rows: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Means of the drawn rows, [W, D]."""
    size = len(rows)
    counts = np.stack([np.bincount(one, minlength=size) for one in drawn])
    return counts @ rows / size


def from_centres(rows: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Distances of all rows [n, D] to each centre [W, D]: [W, n]."""
    zero = middle[0]  # smaller numbers, smaller rounding errors
    return np.sqrt(squared_distances(middle - zero, rows - zero))


def typical_levels(real: np.ndarray, synthetic: np.ndarray, drawn: Drawn) -> np.ndarray:
    """The alpha from which on each synthetic patient is in the real support: [W, m]."""
    middle = centres(real, drawn[0])
    inner, outer = (
        np.take_along_axis(from_centres(side, middle), rows, 1)
        for side, rows in zip((real, synthetic), drawn, strict=True)
    )
    pairs = list(zip(np.sort(inner, 1), outer, strict=True))
    sides = [[np.searchsorted(*pair, side) for pair in pairs] for side in SIDES]
    return np.mean(sides, axis=0) / len(real)


def covered_levels(real: np.ndarray, synthetic: np.ndarray, drawn: Drawn) -> np.ndarray:
    """The beta from which on the synthetic support stands for real patients: [W, n].

    It does when it holds the nearest synthetic patient, and that is no farther than the
    k-th nearest other real patient; 1 where it is farther. That distance is not drawn
    anew: patients who are drawn twice would be their own neighbours.
    """
    reach = nearest(real, real, NEIGHBOURS, exclude_self=True).distance[:, -1]
    near = nearest(real, synthetic, MOST_NEAR)
    distance = from_centres(synthetic, centres(synthetic, drawn[1]))
    out, every = [], np.arange(len(real))
    for own, made, far in zip(*drawn, distance, strict=True):
        level = np.full(len(synthetic), np.nan)
        level[made] = (rankdata(far[made]) - 0.5) / len(synthetic)
        first = np.isnan(level[near.row]).argmin(1)  # the nearest who was drawn
        found = level[near.row[every, first]]
        reached = (near.distance[every, first] <= reach) & np.isfinite(found)
        out.append(np.where(reached, found, 1.0)[own])
    return np.stack(out)
