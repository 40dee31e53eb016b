"""Two-sample tests and TSTR: scikit-learn, both ends, seeds, undefined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import compared, schema, simulate
from sklearn.metrics import roc_auc_score

from jaxehr.metrics import utility
from jaxehr.metrics.classifiers import NETWORKS, Rows, area, classifier, cut_validation
from jaxehr.metrics.discriminability import (
    c2st_logistic,
    c2st_lstm,
    c2st_mlp,
    draw_pair,
)
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.utility import tstr

KEY = jax.random.key(0)
FAST = MetricConfig(seeds=2, epochs=5, mlp_epochs=10)
TESTS = {"c2st_logistic": c2st_logistic, "c2st_mlp": c2st_mlp, "c2st_lstm": c2st_lstm}


@pytest.mark.parametrize("name", ["lstm", "bilstm", "transformer", "cnnlstm"])
def test_padding_never_reaches_a_prediction(name):
    steps = 101 if name == "cnnlstm" else 9  # long grids are pooled
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, steps, 3)).astype(np.float32)
    length = jnp.array([1, 4, steps - 1, steps])
    found = classifier(name, 3)
    rows = Rows(jnp.asarray(x), length, jnp.zeros(4, int))
    params = found.objective.init(KEY, rows)
    logits = found.logits(params, rows)
    assert logits.shape == (4, 3)
    padding = np.arange(steps)[None, :] >= np.asarray(length)[:, None]
    dirty = rows._replace(x=jnp.asarray(np.where(padding[..., None], 1e3, x)))
    np.testing.assert_allclose(found.logits(params, dirty), logits, atol=1e-5)


def test_classifiers_are_built_once():
    for name in NETWORKS:
        assert classifier(name, 2) is classifier(name, 2)


def test_area_equals_scikit_learn():
    rng = np.random.default_rng(0)
    label, chance = rng.integers(0, 3, 200), rng.dirichlet([1, 1, 1], 200)
    expected = roc_auc_score(label, chance, multi_class="ovr", average="macro")
    np.testing.assert_allclose(area(label, chance), expected, rtol=1e-12)
    two = chance[:, :2] / chance[:, :2].sum(1, keepdims=True)
    expected = roc_auc_score(label == 1, two[:, 1])
    np.testing.assert_allclose(area((label == 1) * 1, two), expected)
    # a class that is absent is left out, not NaN
    kept = label < 2
    ones = [roc_auc_score(label[kept] == k, chance[kept, k]) for k in (0, 1)]
    np.testing.assert_allclose(area(label[kept], chance[kept]), np.mean(ones))
    assert np.isnan(area(label, chance * np.nan))


def test_training_and_test_rows_are_disjoint_and_balanced():
    pairs = draw_pair(np.random.default_rng(0), [300, 100, 200], 90)
    for (learn, test), other in zip(pairs, [(400, 600), (0, 300)], strict=True):
        assert not np.intersect1d(learn, test).size
        for rows, count in ((learn, 63), (test, 27)):
            assert ((rows >= 300) & (rows < 400)).sum() == count
            assert ((rows >= other[0]) & (rows < other[1])).sum() == count
    first, last = cut_validation(np.arange(40).reshape(2, 20))
    assert first.shape == (2, 18)
    assert last.shape == (2, 2)


@pytest.mark.parametrize("name", TESTS)
def test_equal_laws_cannot_be_told_apart_and_shifted_ones_can(name):
    metric = TESTS[name](FAST)
    value = metric.run(KEY, compared(simulate(3)))[name]
    # 120 + 120 test patients: standard error 1 / sqrt(12 * 60) = 0.037, times 3
    assert abs(value.value - 0.5) < 0.12
    assert abs(value.reference - 0.5) < 0.12
    value = metric.run(KEY, compared(simulate(3, shift=4.0)))[name]
    assert value.value > 0.8
    assert len(value.detail["per_seed"]) == FAST.seeds


def test_equal_seeds_give_equal_numbers_and_a_copy_of_training_data_no_gain():
    real = compared(simulate(3))
    run = c2st_logistic(FAST).run
    assert run(KEY, real) == run(KEY, real)
    copied = run(KEY, real._replace(synthetic=real.train))["c2st_logistic"]
    assert abs(copied.value - 0.5) < 0.12


def test_utility_of_real_noise_and_reversed_labels():
    law = schema(static=False)
    options = {"law": law, "effect": 6.0}
    good = simulate(3, **options)
    real = compared(good, **options)
    flipped = good._replace(cohort=good.cohort._replace(label=1 - good.cohort.label))
    blind = simulate(3, law=law, effect=0.0)
    out = {
        name: tstr(FAST).run(KEY, real._replace(synthetic=data))
        for name, data in {"good": good, "flipped": flipped, "blind": blind}.items()
    }
    assert out["good"]["tstr_mean"].value > 0.8
    assert out["good"]["tstr_mean"].reference > 0.8
    assert out["flipped"]["tstr_mean"].value < 0.2
    assert 0.2 < out["blind"]["tstr_mean"].value < 0.8
    # the reference does not know the synthetic data of equal size
    references = {out[name]["tstr_mean"].reference for name in out}
    assert max(references) - min(references) < 1e-6
    mean = out["good"]["tstr_mean"]
    each = [v.value for k, v in out["good"].items() if k != "tstr_mean"]
    np.testing.assert_allclose(mean.value, np.mean(each))
    assert len(mean.detail["per_seed"]) == 3 * FAST.seeds


def test_three_classes_and_sets_of_different_sizes(monkeypatch):
    monkeypatch.setattr(utility, "CLASSIFIERS", {"cnnlstm": "one is enough"})
    law = schema(static=False, classes=3)
    options = {"law": law, "effect": 6.0}
    real = compared(simulate(3, 300, **options), **options)
    value = tstr(MetricConfig(seeds=1, epochs=8)).run(KEY, real)["tstr_mean"]
    assert value.value > 0.7
    assert value.reference > 0.7


def test_static_data_alone_are_enough(monkeypatch):
    monkeypatch.setattr(utility, "CLASSIFIERS", {"bilstm": "one is enough"})
    law = schema(steps=0)
    real = compared(simulate(3, law=law), law)
    out = tstr(MetricConfig(seeds=1, epochs=2)).run(KEY, real)
    assert 0 <= out["tstr_mean"].value <= 1


def with_label(data, label):
    return data._replace(
        cohort=data.cohort._replace(label=np.full_like(data.ids, label))
    )


def test_utility_undefined():
    law = schema(label=False)
    real = compared(simulate(3, 60, law), law, 60)
    assert tstr(FAST).run(KEY, real)["tstr_mean"].reason == "no label"
    real = compared(simulate(3, 60), count=60)
    for place, name in zip(real._fields, ("training", "hold-out", "synthetic")):
        broken = real._replace(**{place: with_label(getattr(real, place), 1)})
        for value in tstr(FAST).run(KEY, broken).values():
            assert value.value is None
            assert value.reason == f"one class only in the {name} data"


@pytest.mark.parametrize("name", TESTS)
def test_two_sample_tests_undefined(name):
    value = TESTS[name](FAST).run(KEY, compared(simulate(3, 30), count=60))[name]
    assert value.value is None
    assert "fewer than 50" in value.reason
