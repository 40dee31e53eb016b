"""Distributions of single numbers and rank correlations against SciPy."""

import jax
import numpy as np
import pytest
from builders import compared, simulate
from scipy import stats

from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.fidelity import spearman
from jaxehr.metrics.marginals import (
    area_between,
    cut_points,
    ks,
    largest_gap,
    quantiles,
    shares,
    spread_of,
    tails,
    wasserstein,
)
from jaxehr.metrics.views import fit_lens, sequences_of_numbers

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=60)


@pytest.mark.parametrize("digits", [12, 1])
def test_distances_are_scipys(digits):
    rng = np.random.default_rng(0)
    a = np.round(rng.normal(size=300), digits)
    b = np.round(rng.exponential(size=170), digits)
    sides = spread_of(a), spread_of(b)
    expected = stats.ks_2samp(a, b).statistic  # pyright: ignore
    np.testing.assert_allclose(largest_gap(*sides), expected)
    np.testing.assert_allclose(area_between(*sides), stats.wasserstein_distance(a, b))
    chance = [0.01, 0.05, 0.95, 0.99]
    expected = np.quantile(a, chance, method="inverted_cdf")
    np.testing.assert_allclose(quantiles(sides[0]), expected)


def test_columns_use_observed_values_in_training_deviations():
    synthetic = simulate(3, shift=2.0, missing=0.3)
    real = compared(synthetic)
    pick = lambda d: d.cohort.temporal.numeric[..., 1][
        d.cohort.temporal.observed[..., 1]
    ]
    train, held, made = map(pick, real)
    ours = {f.__name__: f(SMALL).run(KEY, real) for f in (ks, wasserstein, tails)}
    by_name = lambda name, key: ours[name][key].detail["per_feature"]["x1"]
    expected = stats.ks_2samp(made, held).statistic  # pyright: ignore
    np.testing.assert_allclose(by_name("ks", "ks"), expected)
    expected = stats.wasserstein_distance(made, held) / train.std()
    np.testing.assert_allclose(by_name("wasserstein", "wasserstein"), expected)
    # AR(1) with a common part, shifted by 2 of a standard deviation of about 2.9
    np.testing.assert_allclose(expected, 2.0 / train.std(), atol=0.15)
    gap = np.subtract(*(np.quantile(x, [0.01, 0.05, 0.95, 0.99]) for x in (made, held)))
    expected = np.abs(gap).mean() / train.std()
    np.testing.assert_allclose(by_name("tails", "tail_error"), expected, atol=0.05)
    per_feature = ours["ks"]["ks"].detail["per_feature"]
    assert set(per_feature) == {"x0", "x1", "x2", "age"}
    worst = ours["ks"]["ks_worst"]
    column = max(per_feature, key=per_feature.get)
    assert worst.detail["per_feature"] == {column: per_feature[column]}
    np.testing.assert_allclose(worst.value, max(per_feature.values()))


def test_cut_points_are_close_to_the_exact_distances():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=20_000), rng.standard_t(3, size=20_000)
    cuts = cut_points([spread_of(a), spread_of(b)])
    bins = lambda x: np.bincount(np.searchsorted(cuts, x), minlength=len(cuts))
    coarse = [(cuts, shares(bins(x))) for x in (a, b)]
    exact = spread_of(a), spread_of(b)
    assert abs(largest_gap(*coarse) - largest_gap(*exact)) < 2 / len(cuts)
    np.testing.assert_allclose(area_between(*coarse), area_between(*exact), rtol=0.02)
    for side, truth in zip(coarse, exact, strict=True):
        # up to the next cut
        np.testing.assert_allclose(quantiles(side), quantiles(truth), rtol=0.04)


def test_the_interval_is_as_wide_as_new_patients_would_make_it():
    """The spread of values over fresh real and synthetic patients is 1/3.92 of it."""
    draws = []
    for seed in range(20):
        real = compared(simulate(3 + 2 * seed, 300, shift=1.5), count=300)
        held = simulate(4 + 2 * seed, 300)
        found = wasserstein(SMALL).run(KEY, real._replace(holdout=held))["wasserstein"]
        draws.append([found.value, found.high - found.low])
    spread, width = np.std(np.asarray(draws)[:, 0], ddof=1), np.mean(draws, 0)[1]
    # 20 draws: the standard error of a standard deviation is 16 %
    np.testing.assert_allclose(width / 3.92, spread, rtol=0.45)


def test_rank_correlations_are_scipys():
    synthetic = simulate(3, noise=3.0)
    real = compared(synthetic)
    found = spearman(SMALL).run(KEY, real)["spearman_mae"]
    lens = fit_lens(*real)

    def matrix(data):
        x, valid = sequences_of_numbers(lens, data)
        return stats.spearmanr(x[valid]).statistic  # pyright: ignore

    upper = np.triu_indices(4, 1)
    for side, value in ((real.synthetic, found.value), (real.train, found.reference)):
        expected = np.abs(matrix(side) - matrix(real.holdout))[upper].mean()
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_a_monotone_map_of_all_data_moves_no_rank_correlation():
    def skewed(data):
        table = data.cohort.temporal
        table = table._replace(numeric=np.exp(table.numeric) * table.observed[..., :3])
        return data._replace(cohort=data.cohort._replace(temporal=table))

    real = compared(simulate(3, noise=3.0, missing=0.0), missing=0.0)
    one = spearman(SMALL).run(KEY, real)["spearman_mae"]
    other = spearman(SMALL).run(KEY, real._make(map(skewed, real)))["spearman_mae"]
    np.testing.assert_allclose(one.value, other.value, atol=2e-3)  # float32 ties
