"""The numbers behind the figures, against closed forms."""

import numpy as np
import pytest
from report_samples import make_dataset

from jaxehr.core.cohort import Feature
from jaxehr.report import summary
from jaxehr.report.fitting import noise_level, read_noise
from jaxehr.report.patients import gaps

INTEGER = Feature(name="n", kind="integer")
NUMERIC = Feature(name="x", kind="numeric")


def test_whole_numbers_get_one_bin_each():
    edges, (first, second) = summary.shares(
        INTEGER, [np.array([1.0, 1.0, 2.0, 4.0]), np.array([4.0])]
    )
    np.testing.assert_array_equal(edges, [0.5, 1.5, 2.5, 3.5, 4.5])
    np.testing.assert_array_equal(first, [0.5, 0.25, 0, 0.25])
    np.testing.assert_array_equal(second, [0, 0, 0, 1])
    assert summary.distance(first, second) == 0.75


@pytest.mark.parametrize("grain", [1.0, 0.5, 0.1])
def test_bins_of_rounded_values_hold_equally_many_of_them(grain):
    values = grain * np.arange(-200, 900)
    edges = summary.bin_edges(NUMERIC, [values, values + 0.013])
    inner = np.histogram(values, edges)[0][1:-2]
    assert np.ptp(inner) == 0


def test_shares_sum_to_one_with_values_outside_the_range():
    values = np.random.default_rng(0).standard_cauchy(5000)
    _, (share,) = summary.shares(NUMERIC, [values])
    assert share.sum() == pytest.approx(1)


def test_missing_counts_only_steps_before_the_length():
    data = make_dataset(0, missing=0.3)
    rate, steps = np.zeros(6), np.arange(6)
    for step in steps:
        present = data.cohort.length > step
        rate[step] = 1 - data.cohort.temporal.observed[present, step, 0].mean()
    np.testing.assert_allclose(summary.missing_by_step(data, 0), rate)
    assert 0.2 < summary.missing_overall(data, "temporal", 0) < 0.4


def test_correlation_uses_the_pairs_that_are_seen():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 200))
    second[:50] = np.nan
    expected = np.corrcoef(first[50:], second[50:])[0, 1]
    matrix = summary.correlations([first, second, np.ones(200)])
    assert matrix[0, 1] == pytest.approx(expected)
    assert np.isnan(matrix[0, 2])


def test_band_leaves_out_steps_with_few_patients():
    values = np.tile(np.arange(21.0)[:, None], (1, 3))
    values[9:, 1] = np.nan
    found = summary.band(values)
    np.testing.assert_allclose(found.mean, [10, np.nan, 10])
    np.testing.assert_allclose(found.low, [2, np.nan, 2])
    np.testing.assert_allclose(found.high, [18, np.nan, 18])


def test_largest_keeps_schema_order_and_what_cannot_be_compared():
    assert summary.largest([0.1, np.nan, 0.3, 0.2], 3) == [1, 2, 3]


def test_noise_level_meets_the_published_values():
    # rho 7, 0.002 to 80 at t = 0, 1/4, 1/2, 3/4, 1
    found = noise_level(np.linspace(0, 1, 5), 7.0, 0.002, 80.0)
    np.testing.assert_allclose(found, [0.002, 0.1698, 2.5152, 17.5278, 80], rtol=3e-4)


def test_rho_is_found_from_sigma_alone():
    rho = np.array([[1.5, 7.0], [3.0, 20.0], [9.0, 45.0]])
    t = np.linspace(0, 1, 51)
    sigma = noise_level(t[:, None, None], rho, 0.002, 80.0)
    noise = read_noise({"t": t, "sigma": sigma, "names": ["a", "b"]}, (None, None))
    np.testing.assert_allclose(noise.rho, rho, rtol=1e-5)
    linear = np.linspace(0.1, 1, 51)[:, None, None] * np.ones((1, 3, 2))
    bent = np.where(t[:, None, None] < 0.5, 0.1, linear)
    assert read_noise({"t": t, "sigma": bent}, (None, None)).rho is None


def test_every_missing_step_is_marked_even_a_single_one():
    seen = np.array([False, True, False, False, True, False])
    at = 10.0 + 2.0 * np.arange(6)
    assert gaps(seen, at, 2.0) == [(9.0, 2.0), (13.0, 4.0), (19.0, 2.0)]
    assert gaps(np.ones(6, bool), at, 2.0) == []
