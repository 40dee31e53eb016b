"""Are synthetic patients plausible, varied, and are rare values among them?

Precision, recall, density and coverage compare neighbourhoods of the pooled vectors
[s, mean_t X] of n real (x) and n synthetic (y) patients: r(x) is the distance of x to
its k-th nearest neighbour among the real ones, and B(x) the ball of that radius.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import gammaln

from jaxehr.core.cohort import Dataset
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
from jaxehr.metrics.membership import clopper_pearson
from jaxehr.metrics.mmd import squared_distances
from jaxehr.metrics.people import as_many
from jaxehr.metrics.pooled import fit_frame, group_sums, profile, vectors
from jaxehr.metrics.views import distinct, too_few

NEIGHBOURS = 5
BLOCK = 512  # rows of a block of distances
RARE = 0.01
ALL_EQUAL = "all real patients are equal"
NO_RARE = "no value that fewer than 1 % of real patients have"
SHARES = {
    "precision": (
        "Precision",
        "Share of synthetic patients in the neighbourhood of some real patient: are "
        "they plausible?",
    ),
    "recall": (
        "Recall",
        "Share of real patients in the neighbourhood of some synthetic patient: is "
        "every kind of patient there?",
    ),
    "coverage": (
        "Coverage",
        "Share of real patients with a synthetic patient in their neighbourhood; "
        "outliers among synthetic patients do not raise it.",
    ),
}


class Hits(NamedTuple):
    """What the balls of n real (x) and m synthetic (y) patients hold.

    The fields `_by` count, for each patient of the other side, the hits that rest on
    this patient alone.
    """

    precision: np.ndarray  # Bool [m], y is in some B(x)
    recall: np.ndarray  # Bool [n], x is in some B(y)
    coverage: np.ndarray  # Bool [n], some y is in B(x)
    density: np.ndarray  # [m], number of B(x) that hold y, over k
    precision_by: np.ndarray  # Int [n]
    recall_by: np.ndarray  # Int [m]
    coverage_by: np.ndarray  # Int [m]
    density_by: np.ndarray  # [n], number of y in B(x), over k


def prdc_definitions() -> dict[str, Definition]:
    """Three shares and the density."""
    how = f" Pooled over time; {NEIGHBOURS} nearest neighbours."
    source = {"recall": "[kynkaanniemi2019]", "precision": "[kynkaanniemi2019]"}
    names = {
        name: Definition(
            title, text + how, "higher", 1.0, source.get(name, "[naeem2020]")
        )
        for name, (title, text) in SHARES.items()
    }
    names["density"] = Definition(
        "Density",
        "Number of neighbourhoods of real patients that hold a synthetic patient, over "
        "the number expected: below 1 implausible, above 1 crowded in the middle."
        + how,
        "target",
        1.0,
        "[naeem2020]",
    )
    return names


def prdc(config: MetricConfig = DEFAULT) -> Metric:
    """Precision, recall, density and coverage of pooled vectors."""
    names = prdc_definitions()

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        rng = generator(key)
        train, holdout, synthetic = drawn_vectors(rng, real, config.pooled_rows)
        if not_varied(holdout):
            return undefined(names, ALL_EQUAL)
        size = len(holdout)
        found, floor = (
            neighbourhoods(holdout, synthetic),
            neighbourhoods(holdout, train),
        )
        detail = {"rows": size, "neighbours": NEIGHBOURS}
        out = {}
        for name in SHARES:
            hits = getattr(found, name)
            ends = share_interval(hits, getattr(found, f"{name}_by"))
            reference = float(getattr(floor, name).mean())
            out[name] = Value(float(hits.mean()), reference, *ends, "", detail)
        value, reference = float(found.density.mean()), float(floor.density.mean())
        spread = (
            1.96 * float((found.density.var() + found.density_by.var()) / size) ** 0.5
        )
        low, high = max(value - spread, 0.0), value + spread
        out["density"] = Value(value, reference, low, high, "", detail)
        return out

    return Metric(run, "fidelity", names, sparse=True)


def drawn_vectors(
    rng: np.random.Generator, real: Comparison, most: int
) -> list[np.ndarray]:
    """Vectors of random patients, as many of each data set: float64 [n, D]."""
    profiles = [profile(data) for data in real]
    frame, counts = fit_frame(*profiles), [len(p.share) for p in profiles]
    size = min(most, *counts)
    return [
        vectors(frame, p, rng.permutation(n)[:size]).astype(np.float64)
        for p, n in zip(profiles, counts, strict=True)
    ]


def not_varied(rows: np.ndarray) -> bool:
    """Whether all rows are equal."""
    return bool(np.ptp(rows, axis=0).max(initial=0.0) == 0.0)


def share_interval(hits: np.ndarray, by: np.ndarray) -> tuple[float, float]:
    """95 % interval of a share of hits over the drawing of both sides.

    The exact interval of the share, widened by the jackknife over the other: without
    one of its patients, `by` hits are lost (the radii are kept, which is cautious).
    """
    value, ends = float(hits.mean()), clopper_pearson(int(hits.sum()), len(hits))
    other = 1.96 * float(((by - by.mean()) ** 2).sum()) ** 0.5 / len(hits)
    low, high = (math.hypot(value - end, other) for end in ends)
    return max(value - low, 0.0), min(value + high, 1.0)


def neighbourhoods(real: np.ndarray, synthetic: np.ndarray) -> Hits:
    """Balls of rows [n, D] and [m, D]; distances are made a block at a time.

    A distance equal to a radius counts as inside, up to rounding, so that equal
    patients are in each other's balls.
    """
    slack = 1e-10 * max((real**2).sum(1).max(), (synthetic**2).sum(1).max(), 1e-300)
    around_real, around_synthetic = radii(real) + slack, radii(synthetic) + slack
    n, m = len(real), len(synthetic)
    inside, holders = np.zeros(m, int), np.zeros(m, int)
    near, covered = np.zeros(n, int), np.zeros(n, int)
    recall_by, coverage_by = np.zeros(m, int), np.zeros(m, int)
    for first in range(0, n, BLOCK):
        rows = slice(first, first + BLOCK)
        distance = squared_distances(real[rows], synthetic)
        held = distance <= around_real[rows, None]
        inside += held.sum(0)
        holders += np.arange(n)[rows] @ held
        covered[rows], alone = alone_in(held)
        coverage_by += alone
        near[rows], alone = alone_in(distance <= around_synthetic)
        recall_by += alone
    return Hits(
        inside > 0,
        near > 0,
        covered > 0,
        inside / NEIGHBOURS,
        np.bincount(holders[inside == 1], minlength=n),
        recall_by,
        coverage_by,
        covered / NEIGHBOURS,
    )


def alone_in(held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bool [b, m]: the hits of each row [b]; the rows whose only hit is y [m]."""
    count = held.sum(1)
    return count, held[count == 1].sum(0)


def radii(rows: np.ndarray) -> np.ndarray:
    """Squared distance of every row to its k-th nearest other row: [n]."""
    found = np.empty(len(rows))
    for first in range(0, len(rows), BLOCK):
        block = rows[first : first + BLOCK]
        distance = squared_distances(block, rows)
        at = np.arange(len(block))
        distance[at, first + at] = np.inf
        kept = np.partition(distance, NEIGHBOURS - 1, axis=1)
        found[first : first + BLOCK] = kept[:, NEIGHBOURS - 1]
    return found


def rare_categories(config: MetricConfig = DEFAULT) -> Metric:
    """Values that fewer than 1 % of real patients ever have: are they there?"""
    rare = (
        "Values of coded columns that some, but fewer than 1 %, of the real training "
        "patients ever have (0 of a binary column is no value): "
    )
    names = {
        "rare_category_coverage": Definition(
            "Coverage of rare values",
            f"{rare}the share of them that occurs among as many synthetic patients as "
            "are held out, on average.",
            "higher",
            1.0,
        ),
        "rare_category_error": Definition(
            "Error of rare values",
            f"{rare}mean absolute difference of the logarithms of the shares of "
            "patients who have them; 0.69 is a factor of two.",
            "lower",
            0.0,
        ),
    }

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        rng, sums, columns = generator(key), {}, []
        share = owners(real.train, rng)[1]["owners"].sum(0) / len(real.train.ids)
        chosen = (share > 0) & (share < RARE)
        if not chosen.any():
            return undefined(names, NO_RARE)
        real = even or as_many(rng, real)
        for side, data in real._asdict().items():
            columns, sums[side] = owners(data, rng)
            sums[side]["owners"] = sums[side]["owners"][:, chosen]
        columns = [name for name, kept in zip(columns, chosen, strict=True) if kept]
        size = min(len(real.holdout.ids), len(real.synthetic.ids))
        apart = lambda a, b: rare_distance(columns, size, a, b)
        train, held, made = (
            {k: leaf.sum(0) for k, leaf in sums[s].items()} for s in Comparison._fields
        )
        floor = apart(train, held)
        floor.numbers["rare_category_coverage"] = float(occurs(held, size).mean())
        key, bounds = jax.random.fold_in(key, 1), {"rare_category_coverage": (0.0, 1.0)}
        truth = (apart(made, held), floor)
        return from_sums(key, sums, apart, config.resamples, bounds, truth)

    return Metric(run, "fidelity", names, sparse=True, takes=("even",))


def owners(
    data: Dataset, rng: np.random.Generator
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of values, and how many patients of each group ever have them.

    Returns:
      names [D] and {"owners": [GROUPS, D], "patients": [GROUPS]}.
    """
    group, whole = groups_of(rng, data.groups), profile(data)
    found, names = [], []
    for pooled in (whole.temporal, whole.static):
        count = pooled.columns.numbers
        has = pooled.total[:, count:] > 0
        has = has.astype(np.float64)
        sums = group_sums(pooled._replace(total=has), group, GROUPS)
        found.append(sums["total"])
        names.append(list(pooled.columns.names[count:]))
    patients = np.bincount(group, minlength=GROUPS).astype(np.float64)
    return distinct(*names), {"owners": np.hstack(found), "patients": patients}


def occurs(side: dict[str, np.ndarray], size: int) -> np.ndarray:
    """Chance that some of `size` patients, drawn without replacement, has each value.

    1 - C(N - m, n) / C(N, n) for m owners among N patients and n drawn.
    """
    total, having = float(side["patients"]), side["owners"]
    size = int(min(size, total))
    others = np.maximum(total - having, size)  # fewer others than drawn: certain
    without = gammaln(others + 1) - gammaln(others - size + 1)
    without -= gammaln(total + 1) - gammaln(total - size + 1)
    return np.where(total - having < size, 1.0, -np.expm1(np.minimum(without, 0.0)))


def rare_distance(
    names: list[str], size: int, a: dict[str, np.ndarray], b: dict[str, np.ndarray]
) -> Distance:
    """Coverage of `a`, and errors of the logarithms, with 1/2 added to each count."""
    level = lambda side: np.log((side["owners"] + 0.5) / (side["patients"] + 1.0))
    error, covered = np.abs(level(a) - level(b)), occurs(a, size)
    by_name = lambda values: dict(zip(names, map(float, values), strict=True))
    return Distance(
        {
            "rare_category_coverage": float(covered.mean()),
            "rare_category_error": float(error.mean()),
        },
        {
            "rare_category_coverage": by_name(covered),
            "rare_category_error": by_name(error),
        },
    )
