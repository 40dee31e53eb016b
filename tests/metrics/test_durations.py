"""Lagged correlations, runs, first events, lengths: plain loops and hand-made stays."""

import itertools

import jax
import numpy as np
from builders import compared, simulate
from scipy import stats

from jaxehr.metrics.durations import (
    durations,
    first_event,
    firsts,
    length_of_stay,
    runs,
)
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.fidelity import GROUPS
from jaxehr.metrics.lagged import LAGS, lag_correlation
from jaxehr.metrics.views import Coded, fit_lens, step_numbers

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=20)


def column(rows, cardinality=2):
    """Codes from strings; "." = not observed."""
    codes = np.asarray([[0 if c == "." else int(c) for c in row] for row in rows])
    seen = np.asarray([[c != "." for c in row] for row in rows])
    return Coded("x", codes, seen, cardinality)


def test_runs_by_hand():
    found = runs(column(["0011", "1.11", "....", "1111"]), np.asarray([0, 0, 1, 2]))
    assert found.shape == (GROUPS, 2, 5)
    np.testing.assert_array_equal(found[0], [[0, 0, 1, 0, 0], [0, 1, 2, 0, 0]])
    np.testing.assert_array_equal(found[2], [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    assert found.sum() == 5


def test_runs_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("012."), 7)) for _ in range(40)]
    expected = np.zeros((3, 8))
    for row in rows:
        for value, run in itertools.groupby(row):
            if value != ".":
                expected[int(value), len(list(run))] += 1
    found = runs(column(rows, 3), rng.integers(0, GROUPS, 40)).sum(0)
    np.testing.assert_array_equal(found, expected)


def test_first_occurrences_by_hand():
    found = firsts(column(["0011", ".100", "0000", "...."]), np.zeros(4, int))[0]
    np.testing.assert_array_equal(found, [[2, 0, 1, 0, 1], [0, 1, 1, 0, 2]])


def test_columns_that_alternate_have_other_runs_and_other_first_events():
    synthetic = simulate(3, missing=0.0, ragged=False)
    codes = synthetic.cohort.temporal.codes.copy()
    codes[..., 1] = np.arange(8) % 2
    table = synthetic.cohort.temporal._replace(codes=codes)
    cohort = synthetic.cohort._replace(temporal=table)
    real = compared(synthetic._replace(cohort=cohort), missing=0.0, ragged=False)
    held = real.holdout.cohort.temporal.codes[..., 1]
    found = durations(SMALL).run(KEY, real)
    share, rows = [], ["".join(map(str, row)) for row in held]
    for value in "01":
        lengths = [
            len(list(r))
            for row in rows
            for v, r in itertools.groupby(row)
            if v == value
        ]
        share.append(1 - np.mean(np.asarray(lengths) == 1))  # ours are all 1
    per_feature = found["run_length"].detail["per_feature"]
    np.testing.assert_allclose(per_feature["on"], np.mean(share))
    assert found["run_length_worst"].detail["per_feature"] == {"on": per_feature["on"]}
    assert found["run_length"].low > found["run_length"].reference
    event = first_event(SMALL).run(KEY, real)["first_event"].detail["per_feature"]
    # 0 is there at once and 1 a step later; held out with chances 0.7 and 0.3 a step
    at_once = [1 - (held[:, 0] == 0).mean(), (held[:, 0] == 1).mean()]
    never_by_1 = 1 - (held[:, :2] == 1).any(1).mean()
    expected = np.mean([at_once[0], max(at_once[1], never_by_1)])
    np.testing.assert_allclose(event["on"], expected)


def test_lengths_of_stay_are_scipys():
    real = compared(simulate(3))
    found = length_of_stay(SMALL).run(KEY, real)["length_error"]
    length = [np.asarray(data.cohort.length) for data in real]
    expected = stats.wasserstein_distance(length[2], length[1])
    np.testing.assert_allclose(found.value, expected)
    np.testing.assert_allclose(
        found.reference, stats.wasserstein_distance(length[0], length[1])
    )


def test_lagged_correlations_equal_numpy():
    real = compared(simulate(3, noise=2.0))
    found = lag_correlation(SMALL).run(KEY, real)["lag_correlation_mae"]
    lens = fit_lens(*real)

    def matrices(data):
        x, length = step_numbers(lens, data).astype(float), data.cohort.length
        out = []
        for lag in LAGS:
            rows = [
                np.concatenate([x[i, t], x[i, t + lag]])
                for i in range(len(x))
                for t in range(length[i] - lag)
            ]
            out.append(np.corrcoef(np.asarray(rows), rowvar=False)[:3, 3:])
        return np.asarray(out)

    expected = np.abs(matrices(real.synthetic) - matrices(real.holdout)).mean()
    np.testing.assert_allclose(found.value, expected, rtol=1e-6)
    assert set(found.detail["per_feature"]) == {"x0", "x1", "x2"}
