"""Neighbourhoods against scikit-learn; rare values against plain counting."""

import jax
import numpy as np
import pytest
from builders import simulate
from scipy.stats import hypergeom
from sklearn.neighbors import NearestNeighbors

from jaxehr.core.cohort import Dataset, Feature, Schema, Table, empty_table, make_cohort
from jaxehr.metrics import coverage
from jaxehr.metrics.coverage import (
    NEIGHBOURS,
    neighbourhoods,
    occurs,
    prdc,
    radii,
    rare_categories,
)
from jaxehr.metrics.evaluate import MetricConfig, comparison, run_metrics

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=20)


@pytest.mark.parametrize("block", [7, 512])
def test_neighbourhoods_are_those_of_scikit_learn(monkeypatch, block):
    monkeypatch.setattr(coverage, "BLOCK", block)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), 0.3 + 1.2 * rng.normal(size=(50, 3))
    reach = [
        NearestNeighbors(n_neighbors=NEIGHBOURS).fit(z).kneighbors()[0][:, -1]
        for z in (x, y)
    ]
    np.testing.assert_allclose(np.sqrt(radii(x)), reach[0])
    apart = np.linalg.norm(x[:, None] - y[None], axis=-1)
    found = neighbourhoods(x, y)
    held = apart <= reach[0][:, None]
    np.testing.assert_array_equal(found.precision, held.any(0))
    np.testing.assert_array_equal(found.coverage, held.any(1))
    np.testing.assert_array_equal(found.recall, (apart <= reach[1]).any(1))
    np.testing.assert_allclose(found.density, held.sum(0) / NEIGHBOURS)
    np.testing.assert_allclose(found.density_by, held.sum(1) / NEIGHBOURS)
    without = lambda hits, side: np.delete(hits, i, side).any(side)
    for i in range(50):  # hits that are lost without y_i
        lost = held.any(1).sum() - without(held, 1).sum()
        assert found.coverage_by[i] == lost
        near = apart <= reach[1]
        assert found.recall_by[i] == near.any(1).sum() - without(near, 1).sum()
    for i in range(60):  # without x_i
        assert found.precision_by[i] == held.any(0).sum() - without(held, 0).sum()


def test_density_of_equal_laws_is_one_and_coverage_as_known():
    """E density = 1; E coverage = 1 - prod_{i < k} (n - 1 - i) / (2 n - 1 - i)."""
    rng, n = np.random.default_rng(1), 200
    density, covered = [], []
    for _ in range(30):
        x, y = rng.normal(size=(2, n, 4))
        found = neighbourhoods(x, y)
        density.append(found.density.mean())
        covered.append(found.coverage.mean())
    i = np.arange(NEIGHBOURS)
    expected = 1 - np.prod((n - 1 - i) / (2 * n - 1 - i))
    error = lambda draws: 4 * np.std(draws, ddof=1) / len(draws) ** 0.5
    np.testing.assert_allclose(np.mean(density), 1.0, atol=error(density) + 1 / n)
    np.testing.assert_allclose(np.mean(covered), expected, atol=error(covered))


def test_equal_patients_lie_in_each_others_balls():
    x = np.repeat(1e6 + np.random.default_rng(2).normal(size=(10, 3)), 8, axis=0)
    found = neighbourhoods(x, x[::-1])
    for hits in (found.precision, found.recall, found.coverage):
        assert hits.all()


def test_one_copied_patient_is_precise_but_covers_nobody():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 3))
    found = neighbourhoods(x, np.repeat(x[:1], 300, axis=0))
    assert found.precision.all()
    assert found.coverage.mean() < 0.1
    assert found.recall.mean() < 0.1


def test_all_real_patients_equal():
    data = [simulate(i, 60) for i in (1, 3, 2)]

    def flat(one):
        cohort = one.cohort
        law = Schema(static=(Feature(name="age", kind="numeric"),))
        table = Table(np.ones((60, 1)), np.zeros((60, 0), int), np.ones((60, 1), bool))
        steps = empty_table((60, 0), ())
        cohort = make_cohort(table, steps, np.zeros(60), np.zeros(60))
        return one._replace(schema=law, cohort=cohort)

    results = run_metrics(KEY, comparison(*map(flat, data)), {"prdc": prdc(SMALL)})
    assert {r.value.reason for r in results} == {"all real patients are equal"}


def coded(seed, count, shares):
    """A static column of the values 0, 1, ... with these chances."""
    rng = np.random.default_rng(seed)
    feature = Feature(
        name="code", kind="categorical", categories=tuple(range(len(shares)))
    )
    codes = rng.choice(len(shares), (count, 1), p=shares)
    table = Table(np.zeros((count, 0)), codes, np.ones((count, 1), bool))
    steps = empty_table((count, 0), ())
    cohort = make_cohort(table, steps, np.zeros(count), np.zeros(count))
    ids = np.arange(count) + 10_000 * seed
    return Dataset(Schema(static=(feature,)), cohort, ids, ids, {})


LAW = np.asarray([0.5, 0.47] + [0.006] * 5)
RARE = {"rare": rare_categories(SMALL)}


def rare(synthetic, held=2, size=1000):
    real = comparison(coded(1, size, LAW), synthetic, coded(held, size // 2, LAW))
    return {r.name: r.value for r in run_metrics(KEY, real, RARE)}


def test_rare_values_by_hand():
    made, held = coded(3, 800, LAW), coded(2, 500, LAW)
    found = rare(made)
    owners = [
        np.bincount(d.cohort.static.codes[:, 0], minlength=7) for d in (made, held)
    ]
    train = np.bincount(coded(1, 1000, LAW).cohort.static.codes[:, 0], minlength=7)
    chosen = np.flatnonzero(train < 10)
    assert 0 < len(chosen) <= 5
    by_name = found["rare_category_coverage"].detail["per_feature"]
    assert set(by_name) == {f"code = {k}" for k in chosen}
    chance = [1 - hypergeom(800, owners[0][k], 500).pmf(0) for k in chosen]
    np.testing.assert_allclose(list(by_name.values()), chance, rtol=1e-9)
    value = found["rare_category_coverage"]
    np.testing.assert_allclose(value.value, np.mean(chance))
    np.testing.assert_allclose(value.reference, np.mean(owners[1][chosen] > 0))
    level = [np.log((o[chosen] + 0.5) / (o.sum() + 1)) for o in owners]
    error = found["rare_category_error"]
    np.testing.assert_allclose(error.value, np.abs(level[0] - level[1]).mean())


def test_a_copy_has_the_rare_values_and_a_model_without_them_has_none():
    copy = rare(coded(2, 500, LAW))
    assert (
        copy["rare_category_coverage"].value == copy["rare_category_coverage"].reference
    )
    assert copy["rare_category_error"].value == 0.0
    none = rare(coded(3, 500, np.asarray([0.5, 0.5] + [0.0] * 5)))
    assert none["rare_category_coverage"].value == 0.0
    assert (
        none["rare_category_coverage"].high < none["rare_category_coverage"].reference
    )
    error = none["rare_category_error"]
    assert error.low > error.reference


def test_fewer_rare_values_are_worse_and_so_are_too_many():
    law = lambda each: np.asarray([0.5, 0.5 - 5 * each] + [each] * 5)
    found = [rare(coded(3, 4000, law(each)), size=4000) for each in (0.006, 0.002, 0.0)]
    for name, sign in (("rare_category_coverage", -1), ("rare_category_error", 1)):
        values = [sign * side[name].value for side in found]
        assert values == sorted(values)
    many = rare(coded(3, 4000, law(0.09)))["rare_category_error"]
    assert many.low > many.reference


def test_chances_of_few_others():
    side = {"patients": np.asarray(10.0), "owners": np.asarray([0.0, 1.0, 6.0, 10.0])}
    np.testing.assert_allclose(occurs(side, 5), [0.0, 0.5, 1.0, 1.0], atol=1e-12)
