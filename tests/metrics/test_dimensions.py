"""Dimension-wise R^2: brute force, both ends, sparse as dense, undefined."""

import jax
import numpy as np
import pytest
from builders import compared, schema, simulate, sparse_pair
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

from jaxehr.core.cohort import take
from jaxehr.core.contracts import Comparison
from jaxehr.metrics.dimensions import agreement, dimensions
from jaxehr.metrics.evaluate import MetricConfig

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=50)


def run(real, config=SMALL):
    return dimensions(config).run(KEY, real)


def test_agreement_is_scipys_and_scikit_learns():
    rng = np.random.default_rng(0)
    real = rng.random(30)
    synthetic = real + 0.1 * rng.normal(size=30)
    found = agreement(real, synthetic)
    np.testing.assert_allclose(found["r2_pearson"], pearsonr(real, synthetic)[0] ** 2)
    np.testing.assert_allclose(found["r2_score"], r2_score(real, synthetic))
    np.testing.assert_allclose(found["rmse"], np.sqrt(((real - synthetic) ** 2).mean()))
    # Pearson forgives a scale and a shift, the score does not
    moved = agreement(real, 0.5 * real + 0.3)
    np.testing.assert_allclose(moved["r2_pearson"], 1.0)
    assert moved["r2_score"] < 0.8


def vector(data, train):
    """Shares, missing shares and scaled means of the temporal part, the slow way."""
    table, cohort = data.cohort.temporal, data.cohort
    valid = np.arange(8) < cohort.length[:, None]
    found, base = [], train.cohort.temporal
    for i in range(3):
        seen = table.observed[..., i] & valid
        values = base.numeric[..., i][base.observed[..., i]]
        low, high = np.quantile(values, (0.01, 0.99))
        found.append((table.numeric[..., i][seen].mean() - low) / (high - low))
    for i, codes in ((0, (0, 1, 2)), (1, (1,))):
        seen = table.observed[..., 3 + i] & valid
        found += [np.mean(table.codes[..., i][seen] == code) for code in codes]
    found += [1 - table.observed[..., i][valid].mean() for i in range(5)]
    return np.array(found)


def test_the_numbers_are_those_of_the_slow_way():
    synthetic = simulate(3, shift=2.0, missing=0.3)
    real = compared(synthetic)
    found = run(real)
    vectors = [vector(data, real.train) for data in real]
    for i, name in ((2, "value"), (0, "reference")):
        a, b = vectors[1], vectors[i]
        pick = lambda key, name=name: getattr(found[f"dimension_{key}_temporal"], name)
        np.testing.assert_allclose(pick("r2_pearson"), pearsonr(a, b)[0] ** 2)
        np.testing.assert_allclose(pick("r2_score"), r2_score(a, b))
        np.testing.assert_allclose(pick("rmse"), np.sqrt(((a - b) ** 2).mean()))
    detail = found["dimension_rmse_temporal"].detail["per_feature"]
    names = ["x0", "x1", "x2", "state = a", "state = b", "state = c", "on"]
    names += [f"{name} is missing" for name in ("x0", "x1", "x2", "state", "on")]
    assert list(detail) == names
    np.testing.assert_allclose(list(detail.values()), vectors[2] - vectors[1])


def test_the_hold_out_itself_is_ideal_and_noise_is_worse():
    found = run(compared(simulate(2)))
    for name, value in found.items():
        ideal = 0.0 if "rmse" in name else 1.0
        np.testing.assert_allclose(value.value, ideal, atol=1e-9)
    errors = [
        run(compared(simulate(3, shift=s)))["dimension_rmse"].value
        for s in (0.0, 1.0, 3.0, 9.0)
    ]
    assert errors == sorted(errors)
    bad = run(compared(simulate(3, shift=9.0)))
    assert bad["dimension_r2_score"].high < bad["dimension_r2_score"].reference


def test_a_fresh_draw_of_the_law_is_as_good_as_the_reference():
    for name, value in run(compared(simulate(3))).items():
        if "static" not in name:
            assert value.low <= value.reference <= value.high, name


def test_intervals_cover_the_number_of_the_law():
    """The 95 % interval of RMSE holds the number of two large samples."""
    law = schema(steps=4, numeric=2)
    large = [simulate(i, 20_000, law, shift=s) for i, s in ((90, 0), (91, 1.5))]
    truth = run(Comparison(simulate(92, 20_000, law), *large))["dimension_rmse"].value
    inside = []
    for seed in range(20):
        sets = [simulate(100 + 3 * seed + i, 200, law) for i in range(2)]
        moved = simulate(102 + 3 * seed, 200, law, shift=1.5)
        value = run(Comparison(*sets, moved))["dimension_rmse"]
        inside.append(value.low <= truth <= value.high)
    # 19 expected; fewer than 16 of 20 has chance 0.003 at 95 %
    assert sum(inside) >= 16


def test_sparse_and_dense_tables_give_equal_numbers():
    pairs = [sparse_pair(i) for i in range(3)]
    sparse, dense = (run(Comparison(*side)) for side in zip(*pairs, strict=True))
    for name in sparse:
        np.testing.assert_allclose(sparse[name][:4], dense[name][:4], rtol=1e-6)


def test_the_order_of_patients_plays_no_part():
    synthetic = simulate(3, shift=1.0)
    mixed = take(synthetic, np.random.default_rng(0).permutation(400))
    one, other = run(compared(synthetic)), run(compared(mixed))
    for name in one:
        np.testing.assert_allclose(one[name].value, other[name].value, rtol=1e-9)


def test_undefined():
    law = schema(static=False)
    found = run(compared(simulate(3, 60, law), count=60))
    assert found["dimension_rmse_static"].reason == "no static column that varies"
    assert found["dimension_rmse_temporal"].value is not None
    assert found["dimension_rmse"].value is not None
    few = run(compared(simulate(3, 49), count=60))
    assert all("fewer than 50 patients" in value.reason for value in few.values())
    assert np.isnan(agreement(np.ones(5), np.arange(5.0))["r2_score"])
    assert np.isnan(agreement(np.arange(5.0), np.ones(5))["r2_pearson"])
    assert np.isnan(agreement(np.arange(2.0), np.arange(2.0))["rmse"])


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_a_column_observed_on_one_side_only_is_left_out(missing):
    synthetic = simulate(3, missing=missing)
    seen = synthetic.cohort.temporal.observed.copy()
    seen[..., 0] = False
    table = synthetic.cohort.temporal._replace(observed=seen)
    synthetic = synthetic._replace(cohort=synthetic.cohort._replace(temporal=table))
    found = run(compared(synthetic))["dimension_rmse_temporal"]
    assert "x0" not in found.detail["per_feature"]
    assert found.detail["per_feature"]["x0 is missing"] > 0.8
