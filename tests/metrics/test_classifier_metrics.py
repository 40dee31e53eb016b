"""Networks and two-sample tests: padding, both ends, seeds, undefined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import compared, simulate

from jaxehr.metrics.classifiers import NETWORKS, Rows, classifier, cut_validation
from jaxehr.metrics.discriminability import (
    c2st_boosting,
    c2st_logistic,
    c2st_lstm,
    c2st_mlp,
    draw_pair,
)
from jaxehr.metrics.evaluate import MetricConfig

KEY = jax.random.key(0)
FAST = MetricConfig(seeds=2, epochs=5, mlp_epochs=10)
TESTS = {
    "c2st_logistic": c2st_logistic,
    "c2st_boosting": c2st_boosting,
    "c2st_mlp": c2st_mlp,
    "c2st_lstm": c2st_lstm,
}


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


def test_training_and_test_rows_are_disjoint_and_balanced():
    people = [np.arange(300), np.arange(100), np.arange(200)]
    pairs = draw_pair(np.random.default_rng(0), people, 90)
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
    for name in ("c2st_logistic", "c2st_boosting"):
        run = TESTS[name](FAST).run
        assert run(KEY, real) == run(KEY, real)
    run = c2st_logistic(FAST).run
    copied = run(KEY, real._replace(synthetic=real.train))["c2st_logistic"]
    assert abs(copied.value - 0.5) < 0.12


@pytest.mark.parametrize("name", TESTS)
def test_two_sample_tests_undefined(name):
    value = TESTS[name](FAST).run(KEY, compared(simulate(3, 30), count=60))[name]
    assert value.value is None
    assert "fewer than 50" in value.reason
