"""Imputation by hand: LOCF, then the patient, then the training cohort."""

import numpy as np

from jaxehr.core.cohort import Feature, Schema, Table, make_cohort, valid_steps
from jaxehr.data.impute import (
    fit_fill,
    impute,
    impute_codes,
    impute_numeric,
    locf,
)

NAN = np.nan


def gaps(rows):
    values = np.array(rows, float)[..., None]
    return np.nan_to_num(values, nan=-99.0), ~np.isnan(values)


def test_numeric_takes_last_then_patient_then_training():
    rows = [[NAN, 2, NAN, 4, NAN], [NAN] * 5, [7, NAN, NAN, NAN, 9]]
    values, observed = gaps(rows)
    valid = np.ones((3, 5), bool)
    valid[2, 3:] = False
    filled = impute_numeric(values, observed, valid, np.array([50.0]))[..., 0]
    expected = [[3, 2, 2, 4, 4], [50] * 5, [7, 7, 7, 0, 0]]
    np.testing.assert_array_equal(filled, expected)


def test_codes_take_last_then_patient_then_training():
    values, observed = gaps([[NAN, 2, 1, NAN, 2], [NAN, 2, 1, NAN, NAN], [NAN] * 5])
    codes = np.where(observed, values, 0).astype(int)
    valid = np.ones((3, 5), bool)
    filled = impute_codes(codes, observed, valid, np.array([3]), (4,))[..., 0]
    # The second patient has one 1 and one 2: the lowest of the most frequent.
    expected = [[2, 2, 1, 1, 2], [1, 2, 1, 1, 1], [3] * 5]
    np.testing.assert_array_equal(filled, expected)


def test_carrying_forward_equals_a_plain_loop():
    draw = np.random.default_rng(0)
    values, observed = draw.normal(size=(6, 9, 3)), draw.random((6, 9, 3)) < 0.3
    carried, known = locf(values, observed)
    for n, d in np.ndindex(6, 3):
        last = None
        for t in range(9):
            last = values[n, t, d] if observed[n, t, d] else last
            assert known[n, t, d] == (last is not None)
            assert last is None or carried[n, t, d] == last


def small_cohort():
    schema = Schema(
        static=(
            Feature(name="a", kind="numeric"),
            Feature(name="s", kind="binary", categories=(0, 1)),
        ),
        temporal=(Feature(name="x", kind="numeric"),),
        num_steps=2,
    )
    static = Table(
        np.array([[1.0], [0], [3]]),
        np.array([[1], [0], [1]]),
        np.array([[True, True], [False, False], [True, True]]),
    )
    seen = np.array([[[True], [False]], [[True], [True]], [[False], [False]]])
    temporal = Table(
        np.array([[[4.0], [0]], [[6], [8]], [[0], [0]]]), np.zeros((3, 2, 0), int), seen
    )
    lengths = np.array([2, 2, 0])
    return schema, make_cohort(static, temporal, lengths, np.zeros(3, int))


def test_static_is_filled_from_train_and_observed_is_kept():
    schema, cohort = small_cohort()
    filled = impute(schema, cohort)
    np.testing.assert_array_equal(filled.static.numeric[:, 0], [1, 2, 3])
    np.testing.assert_array_equal(filled.static.codes[:, 0], [1, 1, 1])
    np.testing.assert_array_equal(
        filled.temporal.numeric[..., 0], [[4, 4], [6, 8], [0, 0]]
    )
    np.testing.assert_array_equal(filled.static.observed, cohort.static.observed)
    assert not filled.temporal.numeric[~valid_steps(cohort)].any()


def test_fill_is_fitted_on_train_only():
    schema, cohort = small_cohort()
    fill = fit_fill(cohort.temporal, ())
    np.testing.assert_allclose(fill.numeric, [6.0])
    first = [leaf[:1] for leaf in cohort.static]
    assert fit_fill(Table(*first), (2,)).numeric.tolist() == [1.0]
    train = cohort._replace(static=Table(*first))
    assert impute(schema, cohort, train).static.numeric[1, 0] == 1.0


def test_never_observed_gives_zero():
    table = Table(np.ones((2, 1)), np.ones((2, 1), int), np.zeros((2, 2), bool))
    fill = fit_fill(table, (3,))
    assert fill.numeric.tolist() == [0.0]
    assert fill.codes.tolist() == [0]
