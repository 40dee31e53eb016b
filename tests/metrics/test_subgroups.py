"""Groups of patients, and the one in which synthetic patients mislead."""

import jax
import numpy as np
import pytest
from builders import compared, schema, simulate

from jaxehr.core.cohort import Feature
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.resampling import FEW_PERSONS, MIN_PERSONS, auroc, trial
from jaxehr.metrics.subgroups import (
    NO_GROUP,
    Group,
    bands,
    groups_of_patients,
    largest_loss,
    together,
)
from jaxehr.metrics.utility import utility_forest, utility_logistic

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=50, trees=50)


def number(name):
    return Feature(name=name, kind="numeric")


def test_bands_of_columns():
    sex = Feature(name="sex", kind="binary", categories=("f", "m"))
    assert bands(sex, np.array([0.0])) == [("sex = f", 0, 1), ("sex = m", 1, 2)]
    ages = np.array([18.0, 44.5, 61.0, np.nan])
    found = bands(number("Age"), ages)
    assert [name for name, _, _ in found] == [
        "Age below 20",
        "Age 20 to 29",
        "Age 30 to 39",
        "Age 40 to 49",
        "Age 50 to 59",
        "Age from 60",
    ]
    assert found[0][1:] == (-np.inf, 20)
    assert found[3][1:] == (40, 50)
    assert found[-1][1:] == (60, np.inf)
    thirds = bands(number("stage"), np.arange(1.0, 7.0))
    assert [name for name, _, _ in thirds] == [
        "stage below 2.667",
        "stage 2.667 to 4.333",
        "stage from 4.333",
    ]
    # ages in days are cut in thirds; a number nobody has gives no group
    assert len(bands(number("age"), np.arange(3000.0))) == 3
    assert bands(number("x"), np.array([np.nan])) == []
    assert bands(number("age"), np.array([61.0, 69.0])) == []


def test_every_patient_is_in_one_group_of_each_column():
    data = [simulate(i, 300) for i in range(3)]
    found = groups_of_patients(*data)
    for column in ("sex", "age"):
        own = [g for g in found if g.name.startswith(column)]
        np.testing.assert_array_equal(np.sum([g.chosen for g in own], axis=0), 1)
        assert sum(len(g.label) for g in own) == 300
    codes, seen = data[1].cohort.static.codes[:, 0], data[1].cohort.static.observed
    male = next(g for g in found if g.name == "sex = m")
    np.testing.assert_array_equal(male.chosen, (codes == 1) & seen[:, 1])


def flipped_in(data, rows):
    label = np.where(rows, 1 - data.cohort.label, data.cohort.label)
    return data._replace(cohort=data.cohort._replace(label=label))


def test_the_group_with_flipped_synthetic_labels_is_named():
    options = {"effect": 6.0, "missing": 0.0}
    real = compared(simulate(3, 600, **options), count=600, **options)
    good = utility_forest(SMALL).run(KEY, real)["forest_subgroup_loss"]
    assert good.low <= 0.0
    static = real.synthetic.cohort.static
    old = static.numeric[:, 0] >= 60
    bad = real._replace(synthetic=flipped_in(real.synthetic, old))
    found = utility_forest(SMALL).run(KEY, bad)["forest_subgroup_loss"]
    assert found.detail["largest"].startswith("age")
    assert found.low > 0.0
    assert int(found.detail["largest"].split()[-1]) >= 60
    lines = {line["group"]: line for line in found.detail["groups"]}
    worst = lines[found.detail["largest"]]
    assert worst["loss"] == found.value
    assert worst["trained_on_real"] - worst["trained_on_synthetic"] == found.value
    assert worst["patients"] >= 50
    reasons = {line["reason"] for line in lines.values()}
    assert reasons == {"", "fewer than 50 hold-out patients"}
    assert lines["sex = f"]["loss"] < worst["loss"]


def test_no_group_and_one_class():
    law = schema(static=False)
    found = utility_logistic(SMALL).run(KEY, compared(simulate(3, 60, law), count=60))
    assert found["logistic_subgroup_loss"].reason == NO_GROUP
    tested = trial(np.random.default_rng(0), simulate(0, 200), 1, 10)
    few = (tested.label == 0) | (np.cumsum(tested.label == 1) < MIN_PERSONS)
    groups = [
        Group("one", tested.label == 1, np.zeros(60, int)),
        Group("all", np.ones(200, bool), np.zeros(3, int)),
        Group("few", few, np.zeros(3, int)),
    ]
    chance = np.random.default_rng(1).dirichlet([1, 1], (1, 1, 200))
    lines = largest_loss(auroc, tested, (chance, chance), groups).detail["groups"]
    assert lines[0]["reason"] == "one class only"
    assert lines[0]["prevalence"] == 1.0
    assert lines[0]["synthetic_prevalence"] == 0.0
    assert lines[1]["synthetic_prevalence"] is None  # of three patients
    assert lines[2]["reason"] == FEW_PERSONS
    assert lines[1]["loss"] == lines[1]["low"] == lines[1]["high"] == 0.0


def test_several_classes_have_a_share_each():
    law = schema(classes=3)
    found = utility_logistic(SMALL).run(KEY, compared(simulate(3, 300, law), count=300))
    line = found["logistic_subgroup_loss"].detail["groups"][0]
    assert len(line["prevalence"]) == 3
    np.testing.assert_allclose(sum(line["prevalence"]), 1.0)


@pytest.mark.parametrize("count", [1, 10])
def test_joint_intervals_hold_for_all_groups_at_once(count):
    """Independent normal losses around 0: all intervals hold 0 in 95 % of cases."""
    rng, hits = np.random.default_rng(4), []
    for _ in range(400):
        value = rng.normal(size=(count, 1))
        draws = value + rng.normal(size=(count, 400))
        _, low, high = together(np.concatenate([value, draws], 1))
        hits.append(((low <= 0) & (high >= 0)).all())
    assert 0.91 <= np.mean(hits) <= 0.985  # 0.95 +- 3 sqrt(0.95 0.05 / 400)
