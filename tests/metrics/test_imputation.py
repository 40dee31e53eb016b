"""Errors of imputations: closed forms, ends, sparse as dense, refusals."""

import numpy as np
import pytest
from builders import schema, simulate, sparse_pair
from sklearn.metrics import roc_auc_score

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Table, take
from jaxehr.core.sparse import take_rows
from jaxehr.metrics.imputation import baseline, coverage, imputation_error, nrmse


@pytest.mark.parametrize("draws", [2, 20])
def test_nrmse_of_posterior_draws_is_that_of_the_posterior_mean(draws):
    """x = r z + sqrt(1 - r^2) e: the error of E[x | z] is sqrt(1 - r^2), for any d."""
    rng, size, r = np.random.default_rng(0), 40_000, 0.8
    z, noise = rng.normal(size=size), np.sqrt(1 - r**2)
    truth = r * z + noise * rng.normal(size=size)
    drawn = r * z + noise * rng.normal(size=(draws, size))
    # relative standard error of a variance: sqrt(2 / n), of its root half of that,
    # a few times larger for two draws
    np.testing.assert_allclose(nrmse(truth, drawn, 0.0), noise, rtol=0.015)
    prior = rng.normal(size=(draws, size))
    np.testing.assert_allclose(nrmse(truth, prior, 0.0), 1.0, rtol=0.015)
    np.testing.assert_allclose(nrmse(truth, np.zeros((draws, size)), 0.0), 1.0)
    assert nrmse(truth, truth[None], 0.0) == 0.0


@pytest.mark.parametrize("draws", [19, 20, 100])
def test_draws_of_the_law_cover_ninety_per_cent(draws):
    rng = np.random.default_rng(1)
    truth, drawn = rng.normal(size=20_000), rng.normal(size=(draws, 20_000))
    np.testing.assert_allclose(coverage(truth, drawn), 0.9, atol=4 * 0.3 / 20_000**0.5)
    assert coverage(truth, 0.2 * drawn) < 0.5
    assert np.isnan(coverage(truth, drawn[:18]))


def test_a_value_that_no_draw_has_is_the_training_mean():
    truth, nothing = np.array([1.0, 2.0]), np.full((3, 2), np.nan)
    np.testing.assert_allclose(nrmse(truth, nothing, 0.0), 1.0)
    assert np.isnan(coverage(truth, nothing))
    assert np.isnan(nrmse(np.zeros(3), np.zeros((1, 3)), 0.0))


def hidden(seed=5, count=300):
    data = simulate(seed, count, missing=0.2)
    return data.schema, data.cohort


def errors(part="temporal", draws=None, truth=None):
    law, cohort = hidden()
    truth = truth or cohort
    draws = draws or [truth] * 3
    train = simulate(1, 400).cohort
    features = getattr(law, part)
    base = baseline(
        features, getattr(train, part), train.length if part == "temporal" else None
    )
    return imputation_error(
        features,
        getattr(truth, part),
        [getattr(d, part) for d in draws],
        base,
        length=truth.length if part == "temporal" else None,
        draw_lengths=[d.length for d in draws] if part == "temporal" else None,
    )


@pytest.mark.parametrize("part", ["static", "temporal"])
def test_the_truth_has_no_error_and_other_patients_no_skill(part):
    perfect = errors(part)["overall"]
    np.testing.assert_allclose(perfect["nrmse"], 0.0, atol=1e-7)
    np.testing.assert_allclose((perfect["brier_skill"], perfect["auroc"]), 1.0)
    draws = [hidden(20 + i)[1] for i in range(40)]
    none = errors(part, draws)
    np.testing.assert_allclose(none["overall"]["nrmse"], 1.0, atol=0.05)
    np.testing.assert_allclose(none["overall"]["brier_skill"], 0.0, atol=0.05)
    np.testing.assert_allclose(none["overall"]["auroc"], 0.5, atol=0.07)
    found = none["numeric"].values()
    np.testing.assert_allclose([n["coverage"] for n in found], 0.9, atol=0.05)


def test_columns_are_named_and_counted():
    found = errors()
    assert list(found["numeric"]) == ["x0", "x1", "x2"]
    assert list(found["coded"]) == ["state = a", "state = b", "state = c", "on"]
    cohort = hidden()[1]
    assert found["numeric"]["x1"]["n"] == cohort.temporal.observed[..., 1].sum()
    assert found["coded"]["on"]["n"] == cohort.temporal.observed[..., 4].sum()


def binary(codes, length=None):
    """A static table of binary columns."""
    codes = np.asarray(codes)
    return Table(np.zeros((len(codes), 0)), codes, np.ones(codes.shape, bool))


@pytest.mark.parametrize("draws", [4, 20])
def test_brier_skill_of_draws_is_that_of_the_chance(draws):
    """Draws with chance p(z): skill is Var(p) / Var(y), whatever their number."""
    rng, size = np.random.default_rng(0), 40_000
    chance = rng.choice([0.1, 0.3, 0.9], size)
    draw = lambda: binary((rng.random(size) < chance)[:, None].astype(int))
    law = schema().static[:1]
    truth, made = draw(), [draw() for _ in range(draws)]
    mean = chance.mean()
    base = baseline(law, truth)
    found = imputation_error(law, truth, made, base)["coded"]["sex"]
    np.testing.assert_allclose(
        found["brier_skill"], chance.var() / (mean * (1 - mean)), atol=0.02
    )
    votes = sum(m.codes[:, 0] for m in made)
    expected = roc_auc_score(truth.codes[:, 0], votes)
    np.testing.assert_allclose(found["auroc"], expected)


def test_sparse_and_dense_tables_give_equal_errors():
    sides = []
    for side in (0, 1):  # sparse, dense
        truth, *draws = (sparse_pair(i)[side].cohort for i in range(5))
        law = sparse_pair(0)[0].schema.temporal
        base = baseline(law, truth.temporal, truth.length)
        sides.append(
            imputation_error(
                law,
                truth.temporal,
                [d.temporal for d in draws],
                base,
                length=truth.length,
                draw_lengths=[d.length for d in draws],
            )
        )
    for name, found in sides[0]["coded"].items():
        np.testing.assert_allclose(
            list(found.values()), list(sides[1]["coded"][name].values()), rtol=1e-9
        )
    assert sides[0]["overall"]["nrmse"] is None


def test_an_empty_sparse_truth():
    data = sparse_pair(0)[0]
    nobody = take_rows(data.cohort.temporal, np.zeros(0, int))
    law = data.schema.temporal
    found = imputation_error(law, nobody, [nobody], baseline(law, nobody))
    assert found["overall"]["brier_skill"] is None


def test_refusals():
    data = simulate(0, 60)
    table, law = data.cohort.temporal, data.schema.temporal
    base = baseline(law, table, data.cohort.length)
    with pytest.raises(InputError, match=r"at least one draw .* got 0"):
        imputation_error(law, table, [], base, length=data.cohort.length)
    other = take(data, np.arange(50)).cohort.temporal
    with pytest.raises(InputError, match=r"shapes \[\(50, 8, 5\), \(60, 8, 5\)\]"):
        imputation_error(law, table, [other], base, length=data.cohort.length)
    with pytest.raises(InputError, match="needs the lengths of its stays"):
        baseline(law, table)
