"""What metrics see: imputation by hand, scaling, masks, padding, nothing else."""

import numpy as np
from builders import schema, simulate

from jaxehr.core.cohort import Feature, Table, take
from jaxehr.metrics import views


def test_imputation_by_hand():
    nan = np.nan
    x = np.array([[nan, 1.0, nan, 3.0], [nan, nan, nan, nan], [2.0, nan, nan, 9.0]])
    seen = ~np.isnan(x)
    table = Table(np.nan_to_num(x)[..., None], np.zeros((3, 4, 0)), seen[..., None])
    found = views.imputed(table, np.ones((3, 4), bool), np.array([7.0]))[..., 0]
    # row 0: the mean 2 before the first value; row 1: the training mean
    expected = [[2, 1, 1, 3], [7, 7, 7, 7], [2, 2, 2, 9]]
    np.testing.assert_array_equal(found, expected)


def test_training_numbers_have_mean_0_and_deviation_1():
    data = simulate(0)
    lens = views.fit_lens(data)
    x, valid = views.sequences_of_numbers(lens, data)
    temporal = x[valid][:, :3].astype(float)
    np.testing.assert_allclose(temporal.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(temporal.std(0), 1, atol=1e-5)


def test_padding_is_zero_and_changes_nothing():
    data = simulate(0)
    lens = views.fit_lens(data)
    cohort = data.cohort
    valid = np.arange(8)[None, :] < cohort.length[:, None]
    noisy = np.where(valid[..., None], cohort.temporal.numeric, 99.0)
    dirty = data._replace(
        cohort=cohort._replace(temporal=cohort.temporal._replace(numeric=noisy))
    )
    for view in (views.flat, lambda *a: views.sequences(*a).x, views.flat_numbers):
        np.testing.assert_array_equal(view(lens, data), view(lens, dirty))
    rows = views.sequences(lens, data)
    assert (rows.x[~valid] == 0).all()
    np.testing.assert_array_equal(rows.length, cohort.length)


def test_widths_of_the_views():
    data = simulate(0)
    lens = views.fit_lens(data)
    # temporal: 3 numbers, 3 codes + 1 binary, 5 masks; static: 1 + 1, 2 masks
    assert views.sequences(lens, data).x.shape == (400, 8, 12 + 4)
    assert views.flat(lens, data).shape == (400, 8 * 12 + 4 + 1)  # and the length
    full = simulate(0, missing=0.0, ragged=False)
    lens = views.fit_lens(full)
    assert views.sequences(lens, full).x.shape == (400, 8, 7 + 2)
    assert views.flat(lens, full).shape == (400, 8 * 7 + 2)


def test_a_mask_that_only_synthetic_data_need_is_there_for_all():
    full, holes = simulate(0, missing=0.0), simulate(1, missing=0.2)
    lens = views.fit_lens(full, holes)
    assert lens.temporal.masked.all()
    assert views.flat(lens, full).shape == views.flat(lens, holes).shape


def test_without_temporal_or_static_part():
    law = schema(steps=0)
    data = simulate(0, law=law)
    lens = views.fit_lens(data)
    assert views.sequences(lens, data).x.shape == (400, 1, 4)
    assert views.flat(lens, data).shape == (400, 4)
    law = schema(static=False)
    data = simulate(0, law=law)
    assert views.sequences(views.fit_lens(data), data).x.shape == (400, 8, 12)


def test_constant_columns_become_zero_not_infinite():
    data = simulate(0)
    table = data.cohort.temporal
    numeric = table.numeric.copy()
    numeric[..., 0] = np.where(table.observed[..., 0], 0.1, 0.0)
    cohort = data.cohort._replace(temporal=table._replace(numeric=numeric))
    data = data._replace(cohort=cohort)
    x = views.step_numbers(views.fit_lens(data), data)
    np.testing.assert_allclose(x[..., 0], 0, atol=1e-6)


def test_ids_and_order_play_no_part():
    data = simulate(0)
    order = np.random.default_rng(0).permutation(400)
    shuffled = take(data, order)
    shuffled = shuffled._replace(ids=np.arange(400), groups=np.arange(400))
    one, other = views.fit_lens(data), views.fit_lens(shuffled)
    np.testing.assert_allclose(
        views.flat(one, data)[order], views.flat(other, shuffled), atol=1e-5
    )


def test_codes_are_one_hot_where_observed():
    features = (Feature(name="s", kind="categorical", categories=("a", "b", "c")),)
    table = Table(
        np.zeros((4, 0)), np.array([[0], [2], [1], [0]]), np.ones((4, 1), bool)
    )
    table.observed[3] = False
    everyone = np.ones(4, bool)
    part = views.fit_part(features, [(table, everyone)])
    found = views.columns(part, table, everyone)
    expected = [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(found, expected)
