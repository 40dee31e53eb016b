"""Vectors without time: by hand, sparse as dense, ranges."""

import numpy as np
from builders import simulate, sparse_pair

from jaxehr.metrics.pooled import fit_frame, profile, value_range, vector_names, vectors


def test_vectors_are_the_loop_over_patients():
    data = simulate(0, 60)
    whole = profile(data)
    frame = fit_frame(whole)
    found = vectors(frame, whole)
    names = vector_names(frame, whole)
    assert len(names) == found.shape[1]
    at = {name: found[:, i] for i, name in enumerate(names)}
    table, length = data.cohort.temporal, data.cohort.length
    for i in range(60):
        steps = slice(0, length[i])
        seen = table.observed[i, steps]
        codes = table.codes[i, steps]
        for value, code in (("a", 0), ("b", 1), ("c", 2)):
            share = np.mean((codes[:, 0] == code) & seen[:, 3])
            np.testing.assert_allclose(at[f"temporal state = {value}"][i], share, 1e-6)
        np.testing.assert_allclose(
            at["temporal on"][i], np.mean((codes[:, 1] == 1) & seen[:, 4]), rtol=1e-6
        )
        np.testing.assert_allclose(
            at["temporal x1 is missing"][i], 1 - seen[:, 1].mean(), atol=1e-6
        )
        np.testing.assert_allclose(at["length"][i], length[i] / 8, rtol=1e-6)
        assert at["static age is missing"][i] == 1 - data.cohort.static.observed[i, 0]
    # a number: standardised means of what was observed
    means = np.array([
        table.numeric[i, : length[i], 2][table.observed[i, : length[i], 2]].mean()
        for i in range(60)
    ])  # fmt: skip
    expected = (means - means.mean()) / means.std()
    np.testing.assert_allclose(at["temporal x2"], expected, atol=1e-5)


def test_a_number_never_seen_is_the_mean_of_the_others():
    data = simulate(0, 60)
    seen = data.cohort.temporal.observed.copy()
    seen[7, :, 0] = False
    table = data.cohort.temporal._replace(observed=seen)
    data = data._replace(cohort=data.cohort._replace(temporal=table))
    whole = profile(data)
    frame = fit_frame(whole)
    column = vector_names(frame, whole).index("temporal x0")
    assert vectors(frame, whole)[7, column] == 0.0


def test_sparse_and_dense_tables_have_equal_vectors():
    pair = sparse_pair(0)
    profiles = [profile(data) for data in pair]
    before = sparse_pair(0)[0].cohort.temporal.offsets
    np.testing.assert_array_equal(pair[0].cohort.temporal.offsets, before)
    first, second = (vectors(fit_frame(p), p) for p in profiles)
    np.testing.assert_allclose(first, second, rtol=1e-6)
    assert first.shape[1] == 6 + 2 + 2 + 1  # columns, static, masks of static, length
    rows = np.array([5, 2])
    frame = fit_frame(profiles[0])
    np.testing.assert_allclose(vectors(frame, profiles[0], rows), first[rows])


def test_the_range_of_a_number():
    data = simulate(0, 400)
    table = data.cohort.temporal
    low, span = value_range(data, "temporal")
    for i in range(3):
        values = table.numeric[..., i][table.observed[..., i]]
        ends = np.quantile(values, (0.01, 0.99))
        np.testing.assert_allclose((low[i], low[i] + span[i]), ends)
    numeric = np.zeros_like(table.numeric)
    numeric[0, 0] = 2.0  # 99 % of the values are equal: smallest and largest count
    table = table._replace(numeric=numeric, observed=table.observed | True)
    rare = data._replace(cohort=data.cohort._replace(temporal=table))
    np.testing.assert_array_equal(value_range(rare, "temporal"), [[0] * 3, [2] * 3])
    table = table._replace(numeric=numeric * 0)
    same = data._replace(cohort=data.cohort._replace(temporal=table))
    np.testing.assert_array_equal(value_range(same, "temporal"), [[0] * 3, [1] * 3])
    assert value_range(sparse_pair(0)[0], "temporal")[0].size == 0
