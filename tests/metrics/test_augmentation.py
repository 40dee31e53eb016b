"""Augmentation: scikit-learn by hand, what helps and what does not, who is kept."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from builders import compared, schema, simulate
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Label,
    Schema,
    Table,
    empty_table,
    make_cohort,
    take,
)
from jaxehr.core.contracts import Comparison
from jaxehr.metrics.augmentation import (
    ALL,
    MIXTURES,
    Mixture,
    augmentation,
    augmented,
    in_all_parts,
    predict,
    side_of,
    training_sets,
)
from jaxehr.metrics.evaluate import MetricConfig, comparison, run_metrics
from jaxehr.metrics.learners import LOGISTIC, Learner
from jaxehr.metrics.utility import networks, pooled_family, see_pooled

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=50, seeds=2, epochs=5)
FAMILY = pooled_family("logistic", "logistic regression", LOGISTIC)
LAW = Schema(
    static=tuple(Feature(name=f"s{i}", kind="numeric") for i in range(20)),
    label=Label(name="died", classes=(0, 1)),
)


def weak(seed, count):
    """Many columns that each say a little of the label: it takes patients to learn."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 20))
    chance = 1 / (1 + np.exp(-x @ np.linspace(-1, 1, 20) * 0.7))
    seen = np.ones((count, 20), bool)
    nothing = empty_table((count, 0), ())
    static, label = Table(x, np.zeros((count, 0), int), seen), rng.random(count)
    cohort = make_cohort(static, nothing, np.zeros(count, int), label < chance)
    ids = rng.permutation(count) + 1_000_000 * (seed + 1)
    return Dataset(LAW, cohort, ids, ids, {})


def few_and_many():
    """600 real patients, 1,800 synthetic ones of the same law, 600 held out."""
    return Comparison(weak(1, 600), weak(2, 600), weak(3, 1800))


def relabelled(data, label):
    return data._replace(cohort=data.cohort._replace(label=label))


def test_good_synthetic_patients_help_where_real_ones_are_few():
    found = augmented(FAMILY, SMALL).run(KEY, few_and_many())
    gain, area = found["augmentation_10_90_gain"], found["augmentation_10_90"]
    assert gain.low > 0
    assert (gain.detail["real"], gain.detail["synthetic"]) == (60, 540)
    alone = gain.detail["trained_on_these_real"]
    np.testing.assert_allclose(gain.value, area.value - alone)
    np.testing.assert_allclose(gain.reference, area.reference - alone)
    # As good as the real patients that they stand for
    assert area.low < area.reference < area.high
    assert found["augmentation_100_100_gain"].reference == 0.0
    sizes = found["augmentation_100_300"].detail
    assert (sizes["real"], sizes["synthetic"]) == (600, 1800)
    gains = [found[f"augmentation_{p}_{100 - p}_gain"].value for p in (10, 25, 50)]
    assert gains == sorted(gains, reverse=True)


def test_junk_is_no_gain():
    real, rng = few_and_many(), np.random.default_rng(0)
    label = real.synthetic.cohort.label
    for junk in (rng.permutation(label), 1 - label):
        bad = real._replace(synthetic=relabelled(real.synthetic, junk))
        found = augmented(FAMILY, SMALL).run(KEY, bad)
        for mixture in MIXTURES:
            assert found[f"{mixture.name}_gain"].value < 0, mixture
            assert found[mixture.name].value < found[mixture.name].reference, mixture


def test_the_numbers_are_scikit_learns():
    real = compared(simulate(3, 200), count=200)
    found = augmented(FAMILY, SMALL).run(KEY, real)
    sets = training_sets(jax.random.split(KEY, 4)[0], real, 0)
    for mixture, parts in {
        Mixture(25, 75): ("augmentation_25_75", "value"),
        Mixture(25): ("augmentation_25_75", "trained_on_these_real"),
        ALL: ("augmentation_25_75", "reference"),
        Mixture(100, 100): ("augmentation_100_100", "value"),
    }.items():
        see = see_pooled(sets[mixture], *real)
        table, test = see(sets[mixture]), see(real.holdout)
        model = LogisticRegression(solver="newton-cholesky").fit(table.x, table.label)
        expected = roc_auc_score(test.label, model.predict_proba(test.x)[:, 1])
        name, part = parts
        value = found[name]
        given = value._asdict().get(part, value.detail.get(part))
        np.testing.assert_allclose(given, expected, atol=1e-3)  # rows in another order


def test_smaller_parts_lie_within_larger_ones_and_hold_every_class():
    rng, label = np.random.default_rng(0), np.repeat([0, 1, 2], [160, 30, 10])
    order = in_all_parts(rng, label)
    np.testing.assert_array_equal(np.sort(order), np.arange(200))
    for share in (0.1, 0.25, 0.5):
        kept = np.bincount(label[order[: round(200 * share)]], minlength=3)
        np.testing.assert_allclose(kept, share * np.array([160, 30, 10]), atol=1)
    sets = training_sets(KEY, few_and_many(), 0)
    ids = [set(sets[Mixture(percent)].ids) for percent in (10, 25, 50, 100)]
    assert all(small < large for small, large in itertools.pairwise(ids))
    assert set(sets[Mixture(10, 90)].ids) > {str(name) for name in ids[0]}
    assert {len(sets[m].ids) for m in sets if m.real + m.synthetic == 100} == {600}


def test_the_bound_on_patients_is_that_of_all_real_ones():
    config = dataclasses.replace(SMALL, max_rows=100)
    metric = augmented(FAMILY, config)
    detail = metric.run(KEY, few_and_many())["augmentation_100_300"].detail
    assert (detail["real"], detail["synthetic"]) == (100, 300)
    assert "At most 100 real patients" in metric.names["augmentation_10_90"].text


def test_equal_keys_give_equal_numbers_whatever_the_order():
    real, rng = few_and_many(), np.random.default_rng(0)
    metrics = {"augmentation": augmented(FAMILY, SMALL)}
    mixed = [take(d, rng.permutation(len(d.ids))) for d in real]
    one, again, other = (
        [(r.name, r.value) for r in run_metrics(KEY, comparison(a, c, b), metrics)]
        for a, b, c in (real, real, mixed)
    )
    assert one == again == other


def test_too_few_patients_are_a_reason():
    real = compared(simulate(3, 150), count=200)
    found = augmented(FAMILY, SMALL).run(KEY, real)
    assert found["augmentation_25_75"].value is not None
    reason = "180 synthetic patients are needed, there are 150"
    assert found["augmentation_10_90"].reason == reason
    for number in ("augmentation_100_300", "augmentation_100_300_gain"):
        reason = "600 synthetic patients are needed, there are 150"
        assert found[number].reason == reason
    rare = (np.arange(200) < 4).astype(int)
    real = real._replace(train=relabelled(real.train, rare))
    found = augmented(FAMILY, SMALL).run(KEY, real)
    reason = "one class only in 10 % of the training data"
    assert found["augmentation_10_90_gain"].reason == reason
    assert found["augmentation_50_50"].value is not None


def test_every_training_makes_about_as_many_steps():
    """The passes over the patients, by how many there are; up to 256 are a step."""
    passes = {}

    def fit(config, keys, classes, table, rows):
        passes[rows.shape[1]] = config.epochs
        return rows

    chance = lambda classes, models, table, rows: np.ones((*rows.shape, classes))
    family = FAMILY._replace(learners={"fake": Learner(fit, chance)})
    config = dataclasses.replace(SMALL, epochs=12)
    augmented(family, config).run(KEY, few_and_many())
    assert passes == {60: 24, 150: 24, 300: 24, 600: 12, 1200: 6, 1800: 4, 2400: 3}


def test_networks_learn_from_parts_of_any_size():
    metric = augmentation(SMALL)
    assert set(metric.names) == set(augmented(FAMILY, SMALL).names)
    assert not metric.sparse
    law = schema(static=False, steps=2)
    real = compared(simulate(3, 60, law), law, 60)
    learners = {"cnnlstm": networks().learners["cnnlstm"]}
    family = networks()._replace(learners=learners)
    sets = training_sets(KEY, real, 0)
    chosen = [sets[mixture] for mixture in (ALL, Mixture(10))]
    sides = [side_of(KEY, family, real, data, 1) for data in chosen]
    config = dataclasses.replace(SMALL, epochs=1)
    chances = predict(KEY, family, 2, sides, config)
    assert chances.shape == (2, 1, 1, 60, 2)
    np.testing.assert_allclose(chances.sum(-1), 1.0, rtol=1e-5)
    assert not np.array_equal(chances[0], chances[1])


@pytest.mark.parametrize("broken", ["no label", "few"])
def test_undefined(broken):
    law = schema(label=broken != "no label")
    real = compared(simulate(3, 40 if broken == "few" else 60, law), law, 60)
    reasons = {v.reason for v in augmented(FAMILY, SMALL).run(KEY, real).values()}
    few = "fewer than 50 patients in one of the data sets (40)"
    assert reasons == {few if broken == "few" else broken}
