"""Utility: scikit-learn by hand, both ends, the copy, reading, undefined."""

import dataclasses

import jax
import numpy as np
import pytest
from builders import compared, schema, simulate, sparse_pair
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import take
from jaxehr.core.contracts import Comparison, Value
from jaxehr.metrics.evaluate import MetricConfig, comparison, run_metrics
from jaxehr.metrics.fidelity import generator
from jaxehr.metrics.learners import Learner
from jaxehr.metrics.resampling import FEW_PERSONS
from jaxehr.metrics.subgroups import NO_GROUP
from jaxehr.metrics.utility import (
    below,
    networks,
    picks,
    pooled_family,
    see_pooled,
    tstr,
    utility,
    utility_forest,
    utility_logistic,
)
from jaxehr.metrics.utility_values import NO_SLOPE, verdict

KEY = jax.random.key(0)
SMALL = MetricConfig(trees=30, resamples=50, seeds=2, epochs=5)
EFFECT = {"effect": 6.0}
POOLED = {"forest": utility_forest, "logistic": utility_logistic}


def with_label(data, label):
    cohort = data.cohort._replace(label=np.broadcast_to(label, data.ids.shape))
    return data._replace(cohort=cohort)


def flipped(data):
    return with_label(data, 1 - data.cohort.label)


@pytest.mark.parametrize("name", POOLED)
def test_the_numbers_are_scikit_learns(name):
    real = compared(simulate(3, 200), count=200)
    found = POOLED[name](SMALL).run(KEY, real)
    key_rows, key_fit, _ = jax.random.split(KEY, 3)
    key_one = jax.random.fold_in(jax.random.fold_in(key_fit, 0), 0)
    state = int(generator(key_one).integers(0, 2**31 - 1))
    rows, chance = picks(key_rows, 200, 1, 0)[0], {}
    label = real.holdout.cohort.label
    for side in ("synthetic", "train"):
        see = see_pooled(getattr(real, side), *real)
        table, test = see(getattr(real, side)), see(real.holdout)
        model = LogisticRegression(solver="newton-cholesky")
        if name == "forest":
            model = RandomForestClassifier(30, min_samples_leaf=3, random_state=state)
        model.fit(table.x[rows], table.label[rows])
        chance[side] = model.predict_proba(test.x)[:, 1]
    for number, score in {
        "auroc": roc_auc_score,
        "aupr": average_precision_score,
        "brier": brier_score_loss,
    }.items():
        value = found[f"{name}_{number}"]
        expected = [score(label, chance[side]) for side in ("synthetic", "train")]
        np.testing.assert_allclose(value[:2], expected, rtol=1e-4)
        assert value.low < value.value < value.high
    for number in ("auroc", "aupr"):
        value, lost = found[f"{name}_{number}"], found[f"{name}_{number}_loss"]
        np.testing.assert_allclose(lost.value, value.reference - value.value)
        paired = value.detail["above_reference_interval"]
        np.testing.assert_allclose(paired, (-lost.high, -lost.low))
        assert lost.low < lost.value < lost.high
    slope = found[f"{name}_slope"]
    assert slope.low < slope.value < slope.high
    np.testing.assert_allclose(slope.detail["mean_chance"], chance["synthetic"].mean())
    np.testing.assert_allclose(slope.detail["prevalence"], label.mean())


@pytest.mark.parametrize("name", POOLED)
def test_a_copy_loses_nothing_and_flipped_labels_everything(name):
    real = compared(simulate(3, 200, **EFFECT), count=200, **EFFECT)
    same = POOLED[name](SMALL).run(KEY, real._replace(synthetic=real.train))
    for number in ("auroc", "aupr", "brier", "slope"):
        assert same[f"{name}_{number}"].value == same[f"{name}_{number}"].reference
    for number in ("auroc_loss", "aupr_loss", "subgroup_loss"):
        np.testing.assert_allclose(same[f"{name}_{number}"][:4], 0.0, atol=1e-12)
    assert same[f"{name}_auroc_loss"].detail["verdict"] == "non-inferior"
    bad = real._replace(synthetic=flipped(real.train))
    found = POOLED[name](SMALL).run(KEY, bad)
    area = found[f"{name}_auroc"]
    np.testing.assert_allclose(area.value + area.reference, 1.0, atol=0.05)
    assert found[f"{name}_auroc_loss"].detail["verdict"] == "inferior"
    assert found[f"{name}_brier"].low > found[f"{name}_brier"].reference
    assert found[f"{name}_slope"].value < 0
    assert found[f"{name}_trts"].value < 0.5
    assert found[f"{name}_gain"].value < 0


@pytest.mark.parametrize("name", POOLED)
def test_training_on_both_may_be_left_out_and_changes_no_other_number(name):
    real = compared(simulate(3, 200), count=200)
    full = POOLED[name](SMALL).run(KEY, real)
    less = POOLED[name](dataclasses.replace(SMALL, augment=0)).run(KEY, real)
    assert set(full) - set(less) == {f"{name}_gain"}
    assert all(less[number][:4] == full[number][:4] for number in less)


def test_shuffled_labels_leave_nothing_to_learn():
    real = compared(simulate(3, 400, **EFFECT), **EFFECT)
    label = np.random.default_rng(0).permutation(real.train.cohort.label)
    shuffled = real._replace(synthetic=with_label(real.synthetic, label))
    found = utility_logistic(SMALL).run(KEY, shuffled)
    assert abs(found["logistic_trts"].value - 0.5) < 0.1
    assert abs(found["logistic_slope"].value) < found["logistic_slope"].reference / 2
    assert found["logistic_brier"].low > found["logistic_brier"].reference
    assert found["logistic_subgroup_loss"].low > 0


def test_patients_that_are_too_easy_are_seen_by_the_way_back():
    real = compared(simulate(3, 400), count=400)
    easy = simulate(3, 400, effect=6.0)
    good, found = (
        utility_logistic(SMALL).run(KEY, real._replace(synthetic=data))["logistic_trts"]
        for data in (real.synthetic, easy)
    )
    assert good.detail["above_reference_interval"][0] < 0
    assert found.value > found.reference + 0.1
    assert found.detail["above_reference_interval"][0] > 0
    np.testing.assert_allclose(
        found.detail["above_reference"], found.value - found.reference
    )


def test_added_patients_help_where_real_ones_are_few():
    law = schema(numeric=30)
    real = compared(simulate(3, 1000, law, effect=2.0), effect=2.0)
    few = real._replace(train=take(real.train, np.arange(60)))
    config = dataclasses.replace(SMALL, augment=10.0)
    found = utility_logistic(config).run(KEY, few)["logistic_gain"]
    assert found.detail["real"] == 60
    assert found.detail["synthetic"] == 600
    assert found.low > 0
    both, alone = found.detail["trained_on_both"], found.detail["trained_on_real"]
    np.testing.assert_allclose(both - alone, found.value)
    text = utility_logistic(config).names["logistic_gain"].text
    assert "10 times as many" in text


def test_all_sides_train_by_the_steps_of_the_real_one():
    """Else more patients would be better patients; passes by how many there are."""
    passes = {}

    def fit(config, keys, classes, table, rows):
        passes[rows.shape[1]] = config.epochs
        return rows

    chance = lambda classes, models, table, rows: np.ones((*rows.shape, classes))
    family = pooled_family("fake", "nothing", Learner(fit, chance))
    config = dataclasses.replace(SMALL, epochs=12, batch_size=50)
    real = compared(simulate(3, 600), count=200)
    utility(family, config).run(KEY, real)
    # 180, 540 and 360 train: 3, 10 and 7 steps a pass
    assert passes == {200: 12, 600: 4, 400: 5}
    made = utility(family, config).run(KEY, real._replace(synthetic=real.train))
    assert passes[200] == 12
    assert made["fake_auroc"].value == made["fake_auroc"].reference


def test_networks_learn_from_real_patients_but_not_from_flipped_ones():
    options = {"law": schema(static=False), **EFFECT}
    good = simulate(3, **options)
    real = compared(good, **options)
    made = {"good": good, "flipped": flipped(good), "copy": real.train}
    run = tstr(SMALL).run
    out = {name: run(KEY, real._replace(synthetic=d)) for name, d in made.items()}
    mean = {name: found["tstr_mean"] for name, found in out.items()}
    assert mean["good"].value > 0.8
    assert mean["good"].reference > 0.8
    assert mean["flipped"].value < 0.2
    # the reference does not know the synthetic data of equal size
    references = [value.reference for value in mean.values()]
    np.testing.assert_allclose(references, references[0], atol=1e-6)
    assert mean["copy"].value == mean["copy"].reference
    np.testing.assert_allclose(out["copy"]["tstr_mean_loss"][:4], 0.0, atol=1e-9)
    each = [out["good"][f"tstr_{name}"].value for name in networks().learners]
    np.testing.assert_allclose(mean["good"].value, np.mean(each))
    assert len(mean["good"].detail["per_seed"]) == SMALL.seeds
    assert set(out["good"]) == set(tstr(SMALL).names)
    brier = out["good"]["neural_brier"]
    assert set(brier.detail["per_classifier"]) == set(networks().learners)
    assert out["good"]["neural_trts"].value > 0.8
    assert out["flipped"]["neural_trts"].value < 0.2


def test_static_data_alone_are_enough_and_sides_may_differ_in_size():
    law = schema(steps=0)
    real = compared(simulate(3, 80, law), law, 120)
    found = utility_logistic(SMALL).run(KEY, real)
    assert found["logistic_auroc"].value > 0.5
    assert found["logistic_gain"].detail["synthetic"] == 80
    again = utility_logistic(SMALL).run(KEY, real._replace(synthetic=real.train))
    assert found["logistic_auroc"].reference == again["logistic_auroc"].reference


def test_several_classes_and_sparse_tables():
    law = schema(classes=3)
    found = utility_forest(SMALL).run(KEY, compared(simulate(3, 120, law), count=120))
    assert found["forest_auroc"].value > 0.55
    assert found["forest_slope"].reason == "a slope needs a label of two classes"
    assert 0 < found["forest_brier"].value < 0.25
    pairs = [sparse_pair(i) for i in range(3)]
    sparse, dense = (
        utility_forest(SMALL).run(KEY, Comparison(*side))
        for side in zip(*pairs, strict=True)
    )
    assert sparse["forest_auroc"].value > 0.7
    for name in ("forest_auroc", "forest_gain", "forest_trts", "forest_slope"):
        np.testing.assert_allclose(sparse[name].value, dense[name].value, atol=1e-9)


def test_no_number_depends_on_order_or_ids_and_equal_keys_give_equal_numbers():
    real, synthetic, held = (simulate(i, 120) for i in (1, 3, 2))
    rng, metrics = np.random.default_rng(0), {"forest": utility_forest(SMALL)}

    def mixed(data):
        data = take(data, rng.permutation(120))
        return data._replace(ids=np.arange(120), groups=data.groups[::-1])

    run = lambda *data: run_metrics(KEY, comparison(*data), metrics)
    one = [(r.name, r.value) for r in run(real, synthetic, held)]
    assert [(r.name, r.value) for r in run(real, synthetic, held)] == one
    other = run(*map(mixed, (real, synthetic, held)))
    assert [(r.name, r.value) for r in other] == one


def test_the_bound_on_patients_holds_and_is_stated():
    config = dataclasses.replace(SMALL, max_rows=60)
    metric = utility_logistic(config)
    found = metric.run(KEY, compared(simulate(3, 200), count=200))
    detail = found["logistic_gain"].detail
    assert (detail["real"], detail["synthetic"]) == (60, 60)
    assert "at most 60 random patients" in metric.names["logistic_auroc"].text
    free = utility_logistic(dataclasses.replace(config, max_rows=0))
    assert "at most" not in free.names["logistic_auroc"].text
    rows = picks(KEY, 200, 3, 60)
    assert rows.shape == (3, 60)
    assert all(len(set(row)) == 60 for row in rows)
    np.testing.assert_array_equal(np.sort(picks(KEY, 50, 1, 60)[0]), np.arange(50))


def test_verdicts():
    loss = lambda low, high: Value(0.01, 0.0, low, high)
    assert verdict(loss(-0.01, 0.02), 0.03) == "non-inferior"
    assert verdict(loss(0.04, 0.06), 0.03) == "inferior"
    assert verdict(loss(0.01, 0.05), 0.03) == "not shown"
    assert verdict(loss(None, None), 0.03) == "not shown"
    assert "below 0.05" in (
        utility_forest(MetricConfig(margin=0.05)).names["forest_auroc_loss"].text
    )
    with pytest.raises(InputError, match="margin must be positive, got 0"):
        MetricConfig(margin=0.0)


def few_ill(data, ill):
    """Patients of whom `ill` alone are of class 1."""
    rows = np.flatnonzero(data.cohort.label)[:ill]
    return with_label(data, np.isin(np.arange(len(data.ids)), rows).astype(int))


def test_few_hold_out_patients_of_a_class_give_numbers_but_nothing_is_shown():
    real = compared(simulate(3, 200), count=200)
    held = real._replace(holdout=few_ill(real.holdout, 9))
    found = utility_logistic(SMALL).run(KEY, held)
    lost = found["logistic_auroc_loss"]
    assert lost.detail["verdict"] == "not shown"
    assert lost.detail["no_interval"] == FEW_PERSONS
    assert found.pop("logistic_subgroup_loss").reason == NO_GROUP
    for value in found.values():
        assert value.value is not None
        assert value.low is value.high is None
    made = real._replace(synthetic=few_ill(real.synthetic, 9))
    found = utility_logistic(SMALL).run(KEY, made)
    assert found["logistic_trts"].low is None
    assert found["logistic_auroc"].low is not None


def test_both_sides_one_below_the_other():
    first, second = simulate(0, 60), simulate(1, 70)
    both = below(first, second._replace(ids=second.ids.astype(str)))
    assert len(both.ids) == len(both.groups) == len(both.cohort.label) == 130
    np.testing.assert_array_equal(both.cohort.length[60:], second.cohort.length)


@pytest.mark.parametrize("metric", [utility_forest, tstr])
def test_undefined(metric):
    law = schema(label=False)
    real = compared(simulate(3, 60, law), law, 60)
    found = metric(SMALL).run(KEY, real)
    assert {value.reason for value in found.values()} == {"no label"}
    real = compared(simulate(3, 60), count=60)
    for place, name in zip(real._fields, ("training", "hold-out", "synthetic")):
        broken = real._replace(**{place: with_label(getattr(real, place), 1)})
        for value in metric(SMALL).run(KEY, broken).values():
            assert value.value is None
            assert value.reason == f"one class only in the {name} data"


def test_chances_that_are_all_equal_have_no_slope():
    law = schema(static=False, steps=1, numeric=1, coded=False)
    made = simulate(3, 60, law, missing=0.0)
    table = made.cohort.temporal
    still = table._replace(numeric=np.ones_like(table.numeric))
    made = made._replace(cohort=made.cohort._replace(temporal=still))
    found = utility_logistic(SMALL).run(KEY, compared(made, count=60, missing=0.0))
    assert found["logistic_auroc"].value == 0.5
    assert found["logistic_slope"].reason == NO_SLOPE
