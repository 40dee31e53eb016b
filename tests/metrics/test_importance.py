"""Permutation importance names what was planted."""

import jax
import numpy as np
import pytest
from builders import compared, schema, simulate

from jaxehr.metrics import importance, learners
from jaxehr.metrics.discriminability import c2st_boosting, c2st_logistic
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.views import fit_lens, flat, flat_places

KEY = jax.random.key(0)
FAST = MetricConfig(seeds=2, resamples=10)
TESTS = {"c2st_logistic": c2st_logistic, "c2st_boosting": c2st_boosting}
LAW = schema(steps=6).replace(start=2.0, step=4.0)


def shifted(data, column, step, by=6.0):
    table = data.cohort.temporal
    numeric = table.numeric.copy()
    numeric[:, step, column] += by * table.observed[:, step, column]
    temporal = table._replace(numeric=numeric)
    return data._replace(cohort=data.cohort._replace(temporal=temporal))


def unseen(data, column, step, share=0.7):
    table, rng = data.cohort.temporal, np.random.default_rng(9)
    observed = table.observed.copy()
    observed[:, step, column] &= rng.random(len(observed)) > share
    numeric = np.where(observed[..., : table.numeric.shape[2]], table.numeric, 0.0)
    temporal = table._replace(observed=observed, numeric=numeric)
    return data._replace(cohort=data.cohort._replace(temporal=temporal))


def used(name, synthetic):
    options = {"law": LAW, "ragged": False}
    value = TESTS[name](FAST).run(KEY, compared(synthetic, **options))[name]
    return value, value.detail["used_most"]


@pytest.mark.parametrize("name", TESTS)
def test_a_value_that_differs_at_one_time_is_found_first(name):
    made = shifted(simulate(3, law=LAW, ragged=False), 1, 3)
    value, found = used(name, made)
    assert value.value > 0.8
    assert next(iter(found["by_feature"])) == "x1"
    assert next(iter(found["by_time"])) == "14 h"
    assert next(iter(found["by_place"])) == "x1 at 14 h"
    losses = list(found["by_place"].values())
    assert losses == sorted(losses, reverse=True)
    assert len(losses) <= 10
    assert losses[0] > max(0.2, 2 * losses[1])


@pytest.mark.parametrize("name", TESTS)
def test_values_that_are_missing_too_often_are_found_first(name):
    made = unseen(simulate(3, law=LAW, ragged=False), 2, 4)
    _, found = used(name, made)
    assert next(iter(found["by_feature"])) == "x2"
    assert next(iter(found["by_place"])) == "x2 is missing at 18 h"


def test_static_columns_and_the_length_have_names_too():
    options = {"law": schema(steps=0)}
    made = simulate(3, **options)
    static = made.cohort.static
    older = static._replace(numeric=static.numeric + 30 * static.observed[:, :1])
    made = made._replace(cohort=made.cohort._replace(static=older))
    found = c2st_logistic(FAST).run(KEY, compared(made, **options))["c2st_logistic"]
    used = found.detail["used_most"]
    assert used["by_time"] == {}
    assert next(iter(used["by_place"])) == "age"
    assert set(used["by_place"]) == {"age", "age is missing", "sex", "sex is missing"}
    every = simulate(0), simulate(1)
    names = {place.feature for place in flat_places(fit_lens(*every))}
    assert "length of stay" in names


def test_places_stand_beside_their_columns():
    data = simulate(0, 100)
    lens = fit_lens(data)
    x, places = flat(lens, data), flat_places(lens)
    assert len(places) == x.shape[1]
    table = data.cohort.temporal
    for column, place in enumerate(places):
        if place.step is not None and place.feature == "x2" and place.missing:
            gone = ~table.observed[:, place.step, 2]
            valid = place.step < np.asarray(data.cohort.length)
            np.testing.assert_array_equal(x[:, column], gone & valid)


def test_of_many_features_those_that_differ_most_are_shuffled(monkeypatch):
    monkeypatch.setattr(importance, "EXAMINED", 2)
    made = shifted(simulate(3, law=LAW, ragged=False), 0, 5)
    _, found = used("c2st_logistic", made)
    assert len(found["by_feature"]) == len(found["by_time"]) == 2
    assert next(iter(found["by_place"])) == "x0 at 22 h"


def test_boosting_and_importance_are_bounded_on_wide_tables(monkeypatch):
    made = shifted(simulate(3, law=LAW, ragged=False), 0, 5)
    whole, _ = used("c2st_boosting", made)
    monkeypatch.setattr(learners, "MOST_COLUMNS", 3)
    monkeypatch.setattr(importance, "MOST_CELLS", 1)
    value, found = used("c2st_boosting", made)
    assert value != whole
    assert value.value > 0.8
    assert next(iter(found["by_place"])) == "x0 at 22 h"
    assert "more than 1,500 columns" in c2st_boosting().names["c2st_boosting"].text


def test_shuffling_leaves_the_rows_as_they_were():
    x = np.random.default_rng(0).normal(size=(6, 3))
    before, order = x.copy(), np.arange(6)[::-1]
    area = lambda rows: float(rows[0, 0])
    found = importance.losses(area, x, order, {"a": [1, 2], "b": [0]})
    np.testing.assert_array_equal(x, before)
    assert found == {"a": 0.0, "b": x[0, 0] - x[5, 0]}
