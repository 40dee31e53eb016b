"""MMD, correlations, total variation: brute force, both ends, monotone, undefined."""

import re

import jax
import numpy as np
import pytest
from builders import compared, schema, simulate

from jaxehr.core.cohort import make_cohort, take
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.fidelity import correlation, tvd
from jaxehr.metrics.mmd import gap_of_steps, mmd
from jaxehr.metrics.views import fit_lens, sequences_of_numbers

KEY = jax.random.key(0)
SMALL = MetricConfig(mmd_rows=300, draws=3, resamples=50)
ALL = {"mmd": mmd, "correlation_mae": correlation, "tvd": tvd}


def number(name, synthetic, config=SMALL, **options):
    return ALL[name](config).run(KEY, compared(synthetic, **options))[name]


def test_mmd_squared_is_the_double_loop():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(12, 3)), rng.normal(size=(12, 3)) + 0.5
    both = [*a, *b]
    pairs = [np.sum((both[i] - both[j]) ** 2) for i in range(24) for j in range(i)]
    kernel = lambda x, y: np.exp(-np.sum((x - y) ** 2) / np.median(pairs))
    mean = lambda u, v: np.mean([[kernel(x, y) for y in v] for x in u])
    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    np.testing.assert_allclose(gap_of_steps(a, b).biased, expected, rtol=1e-10)


def test_mmd_of_a_sample_with_itself_is_zero():
    a = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_allclose(gap_of_steps(a, a).biased, 0.0, atol=1e-12)
    np.testing.assert_allclose(gap_of_steps(a, a[::-1]).biased, 0.0, atol=1e-12)


def test_mmd_of_equal_laws_has_the_known_floor():
    """E[MMD^2] = 2 (1 - E k(x, y)) / n for the biased estimate of equal laws."""
    rng = np.random.default_rng(1)
    n, dim = 300, 60
    draws = []
    for _ in range(8):
        a, b = rng.normal(size=(2, n, dim))
        draws.append(gap_of_steps(a, b).biased)
    # |x - y|^2 is close to its median in 60 dimensions: E k = exp(-1)
    expected = 2 * (1 - np.exp(-1)) / n
    np.testing.assert_allclose(np.mean(draws), expected, rtol=0.05)


def test_correlation_error_equals_numpy():
    synthetic = simulate(3, noise=3.0)
    real = compared(synthetic)
    found = correlation(SMALL).run(KEY, real)["correlation_mae"]
    lens = fit_lens(*real)

    def corr(data):
        x, valid = sequences_of_numbers(lens, data)
        return np.corrcoef(x[valid].astype(float), rowvar=False)

    upper = np.triu_indices(4, 1)
    expected = np.abs(corr(synthetic) - corr(real.holdout))[upper].mean()
    np.testing.assert_allclose(found.value, expected, rtol=1e-6)
    expected = np.abs(corr(real.train) - corr(real.holdout))[upper].mean()
    np.testing.assert_allclose(found.reference, expected, rtol=1e-6)


def test_a_column_that_is_constant_among_synthetic_patients_correlates_with_nothing():
    synthetic = simulate(3)
    numeric = synthetic.cohort.temporal.numeric.copy()
    numeric[..., 0] = 4.5
    table = synthetic.cohort.temporal._replace(numeric=numeric)
    cohort = synthetic.cohort
    cohort = make_cohort(cohort.static, table, cohort.length, cohort.label)
    flat, real = synthetic._replace(cohort=cohort), compared(synthetic)
    found = correlation(SMALL).run(KEY, real._replace(synthetic=flat))
    lens = fit_lens(*real)
    x, valid = sequences_of_numbers(lens, real.holdout)
    truth = np.corrcoef(x[valid].astype(float), rowvar=False)[0, 1:]
    value = found["correlation_mae"].detail["per_feature"]["x0"]
    # x0 beside the three others; imputed steps differ a little
    np.testing.assert_allclose(value, np.abs(truth).mean(), atol=0.05)


def test_tvd_by_hand():
    synthetic = simulate(3, missing=0.0)
    real = compared(synthetic, missing=0.0)
    codes = synthetic.cohort.temporal.codes.copy()
    codes[..., 1] = 1  # `on` is 1 everywhere, in real data with chance 0.3
    table = synthetic.cohort.temporal._replace(codes=codes)
    synthetic = synthetic._replace(cohort=synthetic.cohort._replace(temporal=table))
    found = tvd(SMALL).run(KEY, real._replace(synthetic=synthetic))["tvd"]
    share = np.arange(8)[None] < real.holdout.cohort.length[:, None]
    expected = 1 - real.holdout.cohort.temporal.codes[..., 1][share].mean()
    per_feature = found.detail["per_feature"]
    np.testing.assert_allclose(per_feature["on"], expected, rtol=1e-9)
    assert set(per_feature) == {"state", "on", "sex"}
    np.testing.assert_allclose(found.value, np.mean(list(per_feature.values())))


def test_tvd_sees_the_pattern_of_missing_values():
    found = number("tvd", simulate(3, missing=0.5))
    detail = found.detail["per_feature"]
    # 0.5 against 0.1, sampling error sqrt(0.25 / 2400) = 0.01 each
    np.testing.assert_allclose(detail["x0 is missing"], 0.4, atol=0.04)
    np.testing.assert_allclose(detail["age is missing"], 0.4, atol=0.1)
    assert detail["state"] < 0.1


@pytest.mark.parametrize("name", ALL)
def test_a_fresh_draw_of_the_law_is_as_good_as_the_reference(name):
    value = number(name, simulate(3))
    assert value.value < 2 * value.reference
    assert value.low <= value.reference <= value.high


@pytest.mark.parametrize("name", ALL)
def test_the_hold_out_itself_is_ideal(name):
    real = compared(simulate(2))  # the builder's hold-out
    config = MetricConfig(mmd_rows=1000, resamples=20)
    value = ALL[name](config).run(KEY, real)[name]
    np.testing.assert_allclose(value.value, 0.0, atol=1e-7)


@pytest.mark.parametrize("name", ["mmd", "correlation_mae"])
def test_more_noise_is_worse(name):
    values = [number(name, simulate(3, noise=s)).value for s in (0.0, 2.0, 5.0, 12.0)]
    assert values == sorted(values)
    assert values[-1] > 4 * values[0]


def test_independent_columns_have_a_bad_correlation_error():
    value = number("correlation_mae", simulate(3, scramble=True))
    assert value.low > 2 * value.reference


def test_the_order_of_patients_plays_no_part():
    synthetic = simulate(3, noise=2.0)
    mixed = take(synthetic, np.random.default_rng(0).permutation(400))
    config = MetricConfig(mmd_rows=1000, resamples=2)
    for name in ALL:
        one, other = number(name, synthetic, config), number(name, mixed, config)
        np.testing.assert_allclose(one.value, other.value, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "law", "reason"),
    [
        ("mmd", schema(static=False, numeric=0), "no numeric column"),
        ("correlation_mae", schema(static=False, numeric=1), r"1 numeric column\(s\)"),
        ("tvd", schema(static=False, coded=False), "no coded column"),
    ],
)
def test_undefined_by_the_schema(name, law, reason):
    synthetic = simulate(3, 60, law, missing=0.0)
    value = number(name, synthetic, law=law, count=60, missing=0.0)
    assert value.value is None
    assert re.search(reason, value.reason)


@pytest.mark.parametrize("name", ALL)
def test_too_few_patients(name):
    value = number(name, simulate(3, 49), count=60)
    assert value.value is None
    assert "fewer than 50 patients in one of the data sets (49)" in value.reason


@pytest.mark.parametrize("name", ["mmd", "correlation_mae"])
def test_constant_numbers(name):
    def flat(data):
        table = data.cohort.temporal
        numeric = np.where(table.observed[..., :3], 3.3, 0.0)
        cohort = data.cohort._replace(temporal=table._replace(numeric=numeric))
        return data._replace(cohort=cohort)

    law = schema(static=False)
    real = [flat(simulate(i, 60, law)) for i in range(3)]
    value = ALL[name](SMALL).run(KEY, compared(real[2])._make(real))[name]
    assert value.value is None
    assert "constant" in value.reason or "vary" in value.reason
