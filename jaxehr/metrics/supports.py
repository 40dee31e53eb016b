"""Alpha-precision and beta-recall: typical and outlying patients apart [alaa2022].

The alpha-support of a data set is the ball around its mean that holds the share alpha
of its patients. Vectors are [s, mean_t X] of n real (x) and n synthetic (y) patients.
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
from jaxehr.metrics.neighbours import nearest
from jaxehr.metrics.views import too_few


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
        draws = rng.integers(0, len(holdout), (config.resamples, len(holdout)))
        out = {}
        for name, levels in zip(names, (typical_levels, covered_levels)):
            found = levels(holdout, synthetic)
            value = float(agreement(found))
            reference = float(agreement(levels(holdout, train)))
            spread = 1.96 * float(agreement(found[draws]).std())
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


def from_centre(rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.sqrt(((rows - centre) ** 2).sum(1))


def typical_levels(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """The alpha from which on each synthetic patient is in the real support: [m]."""
    centre = real.mean(0)
    ordered = np.sort(from_centre(real, centre))
    distance = from_centre(synthetic, centre)
    sides = [np.searchsorted(ordered, distance, side) for side in ("left", "right")]
    return np.mean(sides, axis=0) / len(real)


def covered_levels(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """The beta from which on the synthetic support stands for each real patient: [n].

    It does when it holds the nearest synthetic patient, and that is no farther than the
    k-th nearest other real patient; 1 where it is farther.
    """
    reach = nearest(real, real, NEIGHBOURS, exclude_self=True).distance[:, -1]
    found = nearest(real, synthetic)
    distance = from_centre(synthetic, synthetic.mean(0))
    level = (rankdata(distance) - 0.5) / len(synthetic)
    return np.where(found.distance[:, 0] <= reach, level[found.row[:, 0]], 1.0)
