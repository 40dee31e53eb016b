"""Do intervals cover at their nominal rate? Simulated with NumPy, many repetitions.

A rate of 0.95 over R repetitions has the standard error sqrt(0.95 * 0.05 / R); the
tolerance is three of them, and what the kind of interval is known to fall short by.
"""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxehr.metrics.adversarial import difference, proportion
from jaxehr.metrics.attacks import auroc_interval, measure
from jaxehr.metrics.coverage import neighbourhoods, share_interval
from jaxehr.metrics.discriminability import over_seeds
from jaxehr.metrics.fidelity import GROUPS, Distance, from_sums
from jaxehr.metrics.membership import clopper_pearson
from jaxehr.metrics.mmd import (
    gap_of_steps,
    median_distance,
    over_draws,
    pooled_gaps,
    share_of,
)
from jaxehr.metrics.supports import agreement, covered_levels, draws, typical_levels
from jaxehr.metrics.temporal import pair_error

NOMINAL, PATIENTS = 0.95, 200
KEYS = [jax.random.key(i) for i in range(150)]


def least(repetitions, short=0.0):
    """The smallest rate that is no sign against NOMINAL - short."""
    return NOMINAL - short - 3 * (NOMINAL * (1 - NOMINAL) / repetitions) ** 0.5


def rate(low, high, truth):
    """How often the intervals hold the truth."""
    return float(((np.array(low) <= truth) & (truth <= np.array(high))).mean())


@pytest.mark.parametrize("count", [10, 100, 400])
def test_exact_intervals_of_shares_cover_for_every_share(count):
    """No simulation: the binomial law is summed."""
    hits = np.arange(count + 1)
    low, high = np.array([clopper_pearson(k, count) for k in hits]).T
    for share in np.linspace(0.0, 1.0, 41):
        inside = (low <= share) & (share <= high)
        assert stats.binom.pmf(hits, count, share)[inside].sum() >= NOMINAL - 1e-12


def grouped(rng, rows):
    """Sums [GROUPS, ...] of rows [N, ...] in random groups."""
    group = rng.permutation(len(rows)) % GROUPS
    sums = np.zeros((GROUPS, *rows.shape[1:]))
    np.add.at(sums, group, rows)
    return sums


# The deviation of 60 draws of 100 groups is 2 % too small, and known to 9 % only
SHORT = 0.02


def distances(draw, distance, bounds=None):
    """Value, low, high, reference of `from_sums`: [repetitions] each."""
    found = []
    for i, key in enumerate(KEYS):
        rng, sets = np.random.default_rng(i), {}
        for side in ("train", "holdout", "synthetic"):
            sets[side] = grouped(rng, draw(rng, side == "synthetic"))
        one = lambda a, b: Distance({"d": float(distance(a, b))}, {})
        value = from_sums(key, sets, one, 60, bounds)["d"]
        found.append((value.value, value.low, value.high, value.reference))
    return np.array(found).T


def numbers(shift, columns=1):
    """1 and normal numbers, whose mean is shifted among synthetic patients."""
    return lambda rng, made: np.concatenate(
        [np.ones((PATIENTS, 1)), rng.normal(made * shift, 1, (PATIENTS, columns))], 1
    )


def mean_gap(a, b):
    return a[1:] / a[0] - b[1:] / b[0]


def mean_distance(a, b):
    return np.abs(mean_gap(a, b)).mean()


def test_the_bootstrap_over_groups_covers_a_difference_of_means():
    signed = lambda a, b: mean_gap(a, b)[0]
    _, low, high, _ = distances(numbers(0.3), signed, {"d": (-np.inf, np.inf)})
    assert rate(low, high, 0.3) >= least(len(low), SHORT)
    # as wide as repeated samples scatter: sqrt(2 / 200) = 0.1
    width = (high - low).mean() / (2 * 1.96)
    np.testing.assert_allclose(width, (2 / PATIENTS) ** 0.5, rtol=0.05)


def test_the_bootstrap_over_groups_covers_a_distance_far_from_zero():
    _, low, high, _ = distances(numbers(1.0, 10), mean_distance)
    assert rate(low, high, 1.0) >= least(len(low), SHORT)


@pytest.mark.parametrize("columns", [1, 10])
def test_distances_of_equal_laws_cover_what_equal_samples_give_and_not_zero(columns):
    """A distance of samples is above that of the laws; its reference is as much so.

    The reader compares with the reference: false alarms are few.
    """
    found = distances(numbers(0, columns), mean_distance)
    calm(*found)
    if columns == 10:
        assert rate(*found[1:3], 0.0) < 0.2


def test_so_does_the_largest_gap_between_distributions():
    cuts = stats.norm.ppf(np.linspace(0.01, 0.99, 60))
    cells = lambda rng, _: (
        np.searchsorted(cuts, rng.normal(size=(PATIENTS, 1))) == np.arange(61)
    ).astype(float)
    shares = lambda sums: np.cumsum(sums) / sums.sum()
    calm(*distances(cells, lambda a, b: np.abs(shares(a) - shares(b)).max()))


def calm(value, low, high, reference):
    """Intervals hold the mean of such distances; few lie above their reference."""
    for mean in (value.mean(), reference.mean()):
        assert rate(low, high, mean) >= least(len(value), SHORT)
    alarms = (low > reference).mean()
    assert alarms <= 0.025 + 3 * (0.025 * 0.975 / len(value)) ** 0.5


@pytest.mark.parametrize(("count", "shift"), [(50, 0.0), (100, 0.0), (100, 1.0)])
def test_the_interval_of_an_area_covers(count, shift):
    rng, truth = np.random.default_rng(0), stats.norm.cdf(shift / 2**0.5)
    found = [
        auroc_interval(rng.normal(shift, 1, count), rng.normal(0, 1, count))
        for _ in range(1000)
    ]
    # normal quantiles of an estimated error: short by 1 to 2 % at 50 to 100 patients
    assert least(1000, 0.02) <= rate(*zip(*found), truth) < 0.975


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_of_an_advantage_covers(shift):
    rng, truth = np.random.default_rng(0), 2 * stats.norm.cdf(shift / 2) - 1
    draw = lambda mean: rng.normal(mean, 1, 100)
    found = [measure(rng, draw(shift), draw(0.0)) for _ in range(300)]
    ends_of = [(f["advantage"].low, f["advantage"].high) for f in found]
    assert rate(*zip(*ends_of), truth) >= least(300)
    if shift == 0.0:  # the chance beside the TPR: at most 2.5 % of no-leaks are called
        called = np.mean([f["tpr"].chance < 0.025 for f in found])
        assert called <= 0.025 + 3 * (0.025 * 0.975 / 300) ** 0.5


@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.9, 0.8), (0.05, 0.02)])
def test_the_interval_of_a_difference_of_shares_covers(p, q):
    rng, count = np.random.default_rng(0), 100
    pairs = zip(rng.binomial(count, p, 300), rng.binomial(count, q, 300), strict=True)
    found = [
        difference(proportion(a / count, count), proportion(b / count, count))
        for a, b in pairs
    ]
    assert rate(*zip(*((f.low, f.high) for f in found)), p - q) >= least(300)


@pytest.mark.parametrize("draws", [2, 5, 20])
def test_the_interval_over_draws_covers_its_mean(draws):
    rng, found = np.random.default_rng(0), []
    for _ in range(1000):
        value = over_seeds(rng.normal(0.5, 0.05, draws), np.zeros(draws), {})
        found.append((value.low, value.high))
    assert rate(*zip(*found), 0.5) >= least(1000)


def discrepancies(rng, count, columns, shift, size, draws):
    """MMD of steps, pooled MMD^2, root of five kernels, of one triple of data sets."""
    train, holdout, made = rng.normal(size=(3, count, columns))
    found = []
    for _ in range(draws):
        a, b, c = (rng.permutation(x)[:size] for x in (made + shift, train, holdout))
        median = median_distance(c)
        each = [(gap_of_steps(x, c), *pooled_gaps(x, c, median)) for x in (a, b)]
        found.append(list(zip(*each, strict=True)))
    kinds = {"root": True}, {"unbiased": True}, {"root": True}
    for sides, kind in zip(zip(*found, strict=True), kinds, strict=True):
        made, real = zip(*sides, strict=True)
        yield over_draws(made, real, share_of(draws, size, count), **kind)


@pytest.mark.parametrize(
    ("columns", "shift", "size", "draws"),
    [(1, 0.0, 60, 1), (20, 0.0, 60, 1), (20, 0.0, 30, 4), (5, 0.8, 60, 1)],
)
def test_maximum_mean_discrepancy_covers_what_such_samples_give(
    columns, shift, size, draws
):
    """Student's over draws of rows alone called 5 to 13 % of equal laws different."""
    sets = [np.random.default_rng(i) for i in range(150)]
    found = [list(discrepancies(rng, 60, columns, shift, size, draws)) for rng in sets]
    for values in zip(*found, strict=True):
        low, high = zip(*((v.low, v.high) for v in values), strict=True)
        assert rate(low, high, np.mean([v.value for v in values])) >= least(150, 0.03)
        gaps = [v.detail["above_reference_interval"] for v in values]
        low, high = zip(*gaps, strict=True)
        truth = np.mean([v.value - v.reference for v in values])
        assert rate(low, high, truth) >= least(150, 0.03)
        called = (np.array(low) > 0).mean()
        if shift:
            assert called > 0.9
        else:
            assert called <= 0.025 + 3 * (0.025 * 0.975 / 150) ** 0.5


@pytest.mark.parametrize("patients", [100, 1000])
def test_pairs_of_few_patients_are_not_taken_for_new_ones(patients):
    """E |x - y| = 2 / sqrt(pi); 500 pairs of 100 or 1,000 patients a side."""
    found = []
    for i in range(500):
        rng = np.random.default_rng(i)
        x, y = rng.normal(size=(2, patients))
        one, other = rng.choice(patients, (2, 500))
        values = np.abs(x[one] - y[other])
        half = 1.96 * pair_error(values, one, other)
        found.append((values.mean() - half, values.mean() + half))
    assert rate(*zip(*found), 2 / np.pi**0.5) >= least(500, 0.01)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_shares_of_neighbourhoods_cover_what_such_samples_give(shift):
    """Both sides are drawn anew; the interval of one alone covers 70 % at 0.7."""
    values, found = {}, {}
    for i in range(150):
        rng = np.random.default_rng(i)
        hits = neighbourhoods(rng.normal(size=(100, 4)), rng.normal(shift, 1, (100, 4)))
        for name in ("precision", "recall", "coverage"):
            one = getattr(hits, name)
            values.setdefault(name, []).append(one.mean())
            ends_of = share_interval(one, getattr(hits, f"{name}_by"))
            found.setdefault(name, []).append(ends_of)
    for name in found:
        assert rate(*zip(*found[name]), np.mean(values[name])) >= least(150, 0.01), name


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_agreement_of_supports_covers_what_such_samples_give(shift):
    """Both sides are drawn anew; the spread of one alone covers 73 to 93 %."""
    found = {"typical": [], "covered": []}
    for i in range(100):
        rng = np.random.default_rng(i)
        x, y = rng.normal(size=(200, 4)), rng.normal(shift, 1, (200, 4))
        drawn = draws(rng, 200, 200, 100)
        for name, levels in (("typical", typical_levels), ("covered", covered_levels)):
            value, *others = agreement(levels(x, y, drawn))
            found[name].append((value, 1.96 * np.std(others)))
    for name, pairs in found.items():
        value, half = np.array(pairs).T
        # the radii are not drawn anew
        covers = rate(value - half, value + half, value.mean())
        assert covers >= least(100, 0.03), name
