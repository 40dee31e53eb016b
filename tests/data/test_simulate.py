"""The simulated cohort against its own law; tolerances are 4 standard errors."""

import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import valid_steps
from jaxehr.data.simulate import SimulateOptions, law, simulate
from jaxehr.data.store import load_cohort, save_cohort

N, STEPS = 6000, 12
FULL = SimulateOptions(n=N, steps=STEPS, missing=0.0, variable_length=False)


@pytest.fixture(scope="module")
def full():
    return simulate(FULL).cohort


@pytest.fixture(scope="module")
def masked():
    return simulate(SimulateOptions(n=N, steps=STEPS, missing=0.3, classes=3)).cohort


def near(sample: np.ndarray, truth: float, spread: float = 0.0) -> None:
    """The mean of independent numbers [n] is the truth within 4 standard errors."""
    error = max(spread, sample.std()) / np.sqrt(len(sample))
    assert abs(sample.mean() - truth) < 4 * error + 1e-12


def test_prevalence_and_vitals_follow_the_law(full):
    truth = law(FULL)
    near(full.label == 1, 0.3)
    for y in (0, 1):
        vitals = full.temporal.numeric[full.label == y][..., :3]
        for d in range(3):
            near(vitals[:, 5, d], truth.vital_mean[y, d])
            deviation = vitals[:, 5, d] - truth.vital_mean[y, d]
            near(deviation**2, truth.vital_std**2)


def test_correlations_over_time_and_features_follow_the_law(full):
    truth = law(FULL)
    vitals = full.temporal.numeric[..., :3]
    u = (vitals - truth.vital_mean[full.label][:, None]) / truth.vital_std
    for lag in (1, 3, 10):
        near(u[:, 0, 1] * u[:, lag, 1], truth.autocorrelation[lag])
    near(u[:, 7, 0] * u[:, 7, 2], truth.cross_correlation)
    weight = full.static.numeric[:, 1]
    male = full.static.codes[:, 0]
    w = (weight - truth.weight_mean[male]) / truth.weight_std
    near(w, 0.0)
    near(w * u[:, 4, 0], truth.weight_vital_correlation)
    near(male, truth.male)


def test_counts_labs_rhythm_and_statics_follow_the_law(full):
    truth = law(FULL)
    count, lab = full.temporal.numeric[..., 3], full.temporal.numeric[..., 4]
    rhythm = full.temporal.codes[..., 0]
    near((lab == 0).ravel(), truth.lab_zero)
    near(np.log(lab[lab > 0]), truth.lab_log_mean)
    for y in (0, 1):
        rows = full.label == y
        near(count[rows].ravel(), truth.count_rate[y])
        near((count[rows].ravel() - truth.count_rate[y]) ** 2, truth.count_rate[y])
        near(full.static.numeric[rows, 0], truth.age_mean[y])
        for state in range(3):
            near(rhythm[rows, -1] == state, truth.stationary[y, state])
            now, after = rhythm[rows, :-1].ravel(), rhythm[rows, 1:].ravel()
            for other in range(3):
                near(after[now == state] == other, truth.transition[y, state, other])
    for unit in range(4):
        near(full.static.codes[:, 1] == unit, truth.unit_shares[unit])


def test_missing_values_and_lengths_follow_the_law(masked):
    options = SimulateOptions(n=N, steps=STEPS, missing=0.3, classes=3)
    truth = law(options)
    near(masked.static.observed[:, 1], 0.7)
    seen = masked.temporal.observed[:, 0]
    for column in range(6):
        near(seen[:, column], 0.7)
    for y in range(3):
        near(masked.label == y, truth.prevalence[y])
        near(masked.length[masked.label == y], truth.length_mean[y])
        first = masked.temporal.numeric[masked.label == y, 0, 0]
        known = seen[masked.label == y, 0]
        near(first[known], truth.vital_observed_mean[y, 0])
    assert not (masked.temporal.observed & ~valid_steps(masked)[..., None]).any()


def test_the_stationary_law_is_kept_by_the_chain():
    truth = law(SimulateOptions(classes=4))
    for p, matrix in zip(truth.stationary, truth.transition):
        np.testing.assert_allclose(matrix.sum(1), 1.0, atol=1e-12)
        np.testing.assert_allclose(p @ matrix, p, atol=1e-12)


def test_fewer_patients_are_the_first_of_more():
    few, more = (simulate(SimulateOptions(n=n, steps=5, seed=3)) for n in (7, 40))
    pairs = zip(
        (*few.cohort.static, *few.cohort.temporal, *few.cohort[2:]),
        (*more.cohort.static, *more.cohort.temporal, *more.cohort[2:]),
    )
    for left, right in pairs:
        np.testing.assert_array_equal(left, right[:7])
    other = simulate(SimulateOptions(n=7, steps=5, seed=4))
    assert (other.cohort.temporal.numeric != few.cohort.temporal.numeric).any()


@pytest.mark.parametrize(
    "options",
    [
        SimulateOptions(n=5, steps=1),
        SimulateOptions(n=5, steps=4, static=False, numeric=0),
        SimulateOptions(n=30, steps=4, classes=3, missing=0.5),
    ],
)
def test_a_simulated_cohort_can_be_saved_and_loaded(options, tmp_path):
    data = simulate(options)
    save_cohort(data, tmp_path / "c")
    again = load_cohort(tmp_path / "c")
    assert again.schema == data.schema
    np.testing.assert_array_equal(
        again.cohort.temporal.numeric, data.cohort.temporal.numeric
    )
    np.testing.assert_array_equal(again.cohort.has_static, data.cohort.has_static)


def test_options_out_of_range_are_refused():
    with pytest.raises(InputError, match="n must be positive, got 0"):
        SimulateOptions(n=0)
    with pytest.raises(InputError, match=r"missing must lie in \[0.0, 0.5\], got 0.6"):
        SimulateOptions(missing=0.6)
    with pytest.raises(
        InputError, match=r"classes must be at least 2, .* got 1, 3 and 0"
    ):
        SimulateOptions(classes=1)
