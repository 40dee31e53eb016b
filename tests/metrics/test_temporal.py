"""Autocorrelation, time warping, transitions: plain loops, both ends, undefined."""

import re

import jax
import numpy as np
import pytest
from builders import compared, schema, simulate

from jaxehr.core.cohort import take
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.temporal import (
    acf,
    autocorrelations,
    dtw,
    transition,
    transition_error,
    warping_distances,
)

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=30, pairs=500)
ALL = {
    "acf_mse": acf,
    "dtw_multivariate": dtw,
    "dtw_univariate": dtw,
    "transition_distance": transition,
    "transition_mae": transition,
}


def number(name, synthetic, **options):
    return ALL[name](SMALL).run(KEY, compared(synthetic, **options))[name]


def plain_dtw(x, y):
    table = np.full((len(x) + 1, len(y) + 1), np.inf)
    table[0, 0] = 0.0
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            before = min(table[i, j], table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = np.sqrt(np.sum((a - b) ** 2)) + before
    return table[-1, -1]


def test_warping_equals_the_plain_loop_for_any_lengths():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12, 7, 3)).astype(np.float32)
    n, m = rng.integers(1, 8, (2, 12))
    n[0], m[0], n[1], m[1] = 7, 7, 1, 7
    joint, single = warping_distances(x, y, n, m)
    pairs = list(zip(x, y, n, m, strict=True))
    expected = [plain_dtw(a[:i], b[:j]) for a, b, i, j in pairs]
    np.testing.assert_allclose(joint, expected, rtol=1e-5)
    expected = [
        [plain_dtw(a[:i, d, None], b[:j, d, None]) for d in range(3)]
        for a, b, i, j in pairs
    ]
    np.testing.assert_allclose(single, expected, rtol=1e-5)


def test_warping_is_that_of_dtaidistance():
    """Its default is the root of squared costs; ours, "euclidean", adds distances."""
    dtw_ndim = pytest.importorskip("dtaidistance.dtw_ndim")
    dtw_1d = pytest.importorskip("dtaidistance.dtw")
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 10, 9, 3))
    n, m = rng.integers(1, 10, (2, 10))
    joint, single = warping_distances(x, y, n, m)
    for i in range(10):
        a, b = x[i, : n[i]], y[i, : m[i]]
        expected = dtw_ndim.distance(a, b, inner_dist="euclidean")
        np.testing.assert_allclose(joint[i], expected, rtol=1e-5)
        for d in range(3):
            column = a[:, d].copy(), b[:, d].copy()
            expected = dtw_1d.distance(*column, inner_dist="euclidean")
            np.testing.assert_allclose(single[i, d], expected, rtol=1e-5)


def test_warping_is_symmetric_zero_on_itself_and_ignores_repeats():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 5, 6, 2)).astype(np.float32)
    full = np.full(5, 6)
    there, _ = warping_distances(x, y, full, full)
    back, _ = warping_distances(y, x, full, full)
    np.testing.assert_allclose(there, back, rtol=1e-6)
    itself, _ = warping_distances(x, x, full, full)
    np.testing.assert_allclose(itself, 0.0, atol=1e-6)
    slow, padded = np.repeat(x, 2, 1), np.pad(x, ((0, 0), (0, 6), (0, 0)))
    stretched, _ = warping_distances(slow, padded, 2 * full, full)
    np.testing.assert_allclose(stretched, 0.0, atol=1e-6)


def test_autocorrelation_equals_its_formula():
    rng = np.random.default_rng(0)
    x, length = rng.normal(size=(4, 9, 2)), np.array([9, 6, 1, 9])
    x[3, :, 1] = 2.5  # does not vary
    values, seen = autocorrelations(x, length)
    assert values.shape == (4, 8, 2)
    for row, n in enumerate(length):
        for d in range(2):
            series = x[row, :n, d] - x[row, :n, d].mean()
            for k in range(1, 9):
                defined = k < n and (row, d) != (3, 1)
                assert seen[row, k - 1, d] == defined
                expected = 0.0
                if defined:
                    expected = (series[k:] * series[:-k]).sum() / (series**2).sum()
                np.testing.assert_allclose(values[row, k - 1, d], expected, atol=1e-12)


def test_autocorrelation_of_white_noise_is_minus_one_over_n():
    """The autocorrelations of a centred series sum to -1/2."""
    n = 10
    x = np.random.default_rng(0).normal(size=(20_000, n, 1))
    values, _ = autocorrelations(x, np.full(20_000, n))
    np.testing.assert_allclose(values.sum(1), -0.5, atol=1e-9)
    # E r_k = -(n - k) / (n (n - 1)) for exchangeable series; error 0.3 / sqrt(20,000)
    expected = -(n - np.arange(1, n)) / (n * (n - 1))
    np.testing.assert_allclose(values.mean(0)[:, 0], expected, atol=0.009)


def test_transitions_by_hand():
    """Real states stay with chance 0.8 + 0.2 / 3; synthetic ones are independent."""
    law = schema(static=False)
    synthetic = simulate(3, 2000, law, scramble=True, missing=0.0, ragged=False)
    real = compared(synthetic, count=2000, missing=0.0, ragged=False)
    out = transition(SMALL).run(KEY, real)
    rows = np.full((3, 3), 0.2 / 3) + 0.8 * np.eye(3)
    gap = rows - 1 / 3
    # 14,000 transitions: the standard error of an entry is about 0.007
    found = out["transition_distance"].detail["per_feature"]["state"]
    np.testing.assert_allclose(found, np.sqrt((gap**2).sum()), atol=0.03)
    found = out["transition_mae"].detail["per_feature"]["state"]
    np.testing.assert_allclose(found, np.abs(gap).mean(), atol=0.01)
    assert set(out["transition_mae"].detail["per_feature"]) == {"state", "on"}


@pytest.mark.parametrize("name", ALL)
def test_a_fresh_draw_of_the_law_is_as_good_as_the_reference(name):
    value = number(name, simulate(3))
    assert value.low <= value.reference <= value.high


@pytest.mark.parametrize("name", ["acf_mse", "transition_distance", "transition_mae"])
def test_the_hold_out_itself_is_ideal_and_shuffled_time_is_bad(name):
    np.testing.assert_allclose(number(name, simulate(2)).value, 0.0, atol=1e-12)
    value = number(name, simulate(3, scramble=True))
    assert value.low > 2 * value.reference


@pytest.mark.parametrize("name", ["acf_mse", "dtw_multivariate", "dtw_univariate"])
def test_more_noise_is_worse(name):
    values = [number(name, simulate(3, noise=s)).value for s in (0.0, 3.0, 9.0)]
    assert values == sorted(values)
    assert values[-1] > 1.5 * values[0]


@pytest.mark.parametrize("name", ["acf_mse", "transition_distance"])
def test_the_order_of_patients_plays_no_part(name):
    synthetic = simulate(3, noise=2.0)
    mixed = take(synthetic, np.random.default_rng(0).permutation(400))
    one, other = number(name, synthetic).value, number(name, mixed).value
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "law", "reason"),
    [
        ("acf_mse", schema(steps=0), "no temporal part"),
        ("acf_mse", schema(steps=1), "one step only"),
        ("acf_mse", schema(numeric=0), "no numeric column"),
        ("dtw_univariate", schema(numeric=0), "no numeric column"),
        ("dtw_multivariate", schema(steps=0), "no temporal part"),
        ("transition_mae", schema(steps=1), "one step only"),
        ("transition_mae", schema(coded=False), "no coded column"),
    ],
)
def test_undefined_by_the_schema(name, law, reason):
    value = number(name, simulate(3, 60, law, missing=0.0), count=60, missing=0.0)
    assert value.value is None
    assert re.search(reason, value.reason)


@pytest.mark.parametrize("name", ALL)
def test_too_few_patients(name):
    value = number(name, simulate(3, 20), count=60)
    assert value.value is None
    assert "fewer than 50" in value.reason


def test_rows_that_never_vary_leave_the_autocorrelation_undefined():
    def still(data):
        table = data.cohort.temporal
        numeric = np.broadcast_to(table.numeric[:, :1], table.numeric.shape)
        cohort = data.cohort._replace(temporal=table._replace(numeric=numeric))
        return data._replace(cohort=cohort)

    real = [still(simulate(i, 60, missing=0.0, ragged=False)) for i in range(3)]
    value = acf(SMALL).run(KEY, compared(real[2])._make(real))["acf_mse"]
    assert value.value is None
    assert "vary" in value.reason


def held_still(data):
    """x0 never changes within a patient; nobody is ever in the last state."""
    table = data.cohort.temporal
    numeric, codes = table.numeric.copy(), table.codes.copy()
    numeric[..., 0] = numeric[:, :1, 0]
    codes[..., 0] = np.minimum(codes[..., 0], 1)
    table = table._replace(numeric=numeric, codes=codes)
    return data._replace(cohort=data.cohort._replace(temporal=table))


def test_a_column_that_varies_in_no_synthetic_patient_is_the_worst():
    made = simulate(3, missing=0.0)
    real = compared(held_still(made), missing=0.0)
    value = acf(SMALL).run(KEY, real)["acf_mse"]
    table, length = real.holdout.cohort.temporal, real.holdout.cohort.length
    values, seen = autocorrelations(table.numeric[..., :1], length)
    truth = np.abs(values.sum(0) / seen.sum(0))
    expected = ((1 + truth) ** 2).mean()
    np.testing.assert_allclose(value.detail["per_feature"]["x0"], expected, rtol=1e-5)
    assert value.value > 10 * number("acf_mse", made, missing=0.0).value


def test_a_state_that_no_synthetic_patient_is_in_has_the_worst_row():
    a, b = ({"state": np.array(rows, float)} for rows in STATES)
    found = transition_error(a, b)
    # Row 0: (1, 0, 0) - (1/2, 1/2, 0). Row 2: (0, 1, 0) - (1/4, 0, 3/4). Row 1 is not
    # visited by real patients.
    square = 1 / 4 + 1 / 4 + 1 / 16 + 1 + 9 / 16
    np.testing.assert_allclose(found.numbers["transition_distance"], square**0.5)
    absolute = (1 / 2 + 1 / 2 + 1 / 4 + 1 + 3 / 4) / 6
    np.testing.assert_allclose(found.numbers["transition_mae"], absolute)
    made = simulate(3)
    worse, as_before = (number("transition_mae", d) for d in (held_still(made), made))
    assert worse.value > 3 * as_before.value


STATES = (
    [[4, 0, 0], [1, 1, 0], [0, 0, 0]],
    [[2, 2, 0], [0, 0, 0], [1, 0, 3]],
)


def test_patients_without_a_step_are_left_out_of_time_warping():
    data = simulate(3, 60)
    length = data.cohort.length.copy()
    length[:30] = 0
    empty = data._replace(cohort=data.cohort._replace(length=length))
    assert number("dtw_univariate", empty, count=60).value > 0
    none = data._replace(cohort=data.cohort._replace(length=0 * length))
    value = number("dtw_univariate", none, count=60)
    assert value.reason == "no patient with a step in one of the data sets"
