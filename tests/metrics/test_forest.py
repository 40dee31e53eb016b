"""Random forest: scikit-learn by hand, both ends, bootstrap, undefined."""

import jax
import numpy as np
from builders import compared, schema, simulate, sparse_pair
from jaxehr.metrics.forest import bootstrap, compared_areas, rows_of, utility_forest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxehr.core.contracts import Comparison
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.fidelity import generator

KEY = jax.random.key(0)
SMALL = MetricConfig(trees=30, resamples=50)


def flipped(data):
    cohort = data.cohort._replace(label=1 - data.cohort.label)
    return data._replace(cohort=cohort)


def test_the_areas_are_scikit_learns():
    real = compared(simulate(3, 200), count=200)
    found = utility_forest(SMALL).run(KEY, real)
    side, label = rows_of(real.synthetic, real), real.holdout.cohort.label
    state = int(generator(KEY).integers(0, 2**31 - 1))
    model = RandomForestClassifier(30, min_samples_leaf=3, random_state=state)
    model.fit(side.train, real.synthetic.cohort.label)
    chance = model.predict_proba(side.test)[:, 1]
    areas = roc_auc_score(label, chance), average_precision_score(label, chance)
    for name, expected in zip(("auroc", "aupr"), areas, strict=True):
        value = found[f"forest_{name}"]
        np.testing.assert_allclose(value.value, expected, rtol=1e-9)
        assert value.low < value.value < value.high
        lost = found[f"forest_{name}_loss"]
        np.testing.assert_allclose(lost.value, value.reference - value.value)
        assert lost.low < lost.value < lost.high


def test_training_patients_lose_nothing_and_flipped_labels_everything():
    real = compared(simulate(3, 200), count=200)
    same = utility_forest(SMALL).run(KEY, real._replace(synthetic=real.train))
    for name in ("auroc", "aupr"):
        assert same[f"forest_{name}"].value == same[f"forest_{name}"].reference
        ends = same[f"forest_{name}_loss"][:4]
        np.testing.assert_allclose(ends, 0.0, atol=1e-12)
    bad = real._replace(synthetic=flipped(real.train))
    found = utility_forest(SMALL).run(KEY, bad)["forest_auroc"]
    np.testing.assert_allclose(found.value + found.reference, 1.0, atol=0.05)


def test_the_interval_has_the_known_width():
    """Scores of pure noise: the standard error of AUROC is that of Mann-Whitney."""
    rng = np.random.default_rng(0)
    label, score = np.arange(400) % 2, rng.random(400)
    chance = np.stack([1 - score, score], -1)
    weight = bootstrap(rng, 400, 400)
    found = compared_areas(label, [chance, chance[::-1]], weight)["forest_auroc"]
    expected = 2 * 1.96 * np.sqrt((400 + 1) / (12 * 200 * 200))
    np.testing.assert_allclose(found.high - found.low, expected, rtol=0.15)


def test_three_classes_and_sparse_tables():
    law = schema(classes=3)
    found = utility_forest(SMALL).run(KEY, compared(simulate(3, 120, law), count=120))
    assert found["forest_auroc"].value > 0.55
    pairs = [sparse_pair(i) for i in range(3)]
    sparse, dense = (
        utility_forest(SMALL).run(KEY, Comparison(*side))
        for side in zip(*pairs, strict=True)
    )
    np.testing.assert_allclose(
        sparse["forest_auroc"].value, dense["forest_auroc"].value, atol=1e-9
    )
    assert sparse["forest_auroc"].value > 0.7


def test_undefined():
    law = schema(label=False)
    found = utility_forest(SMALL).run(KEY, compared(simulate(3, 60, law), count=60))
    assert all(value.reason == "no label" for value in found.values())
    one = simulate(3, 60)
    one = one._replace(cohort=one.cohort._replace(label=0 * one.cohort.label))
    found = utility_forest(SMALL).run(KEY, compared(one, count=60))
    assert "one class only in the synthetic data" in found["forest_aupr"].reason
