"""The Gaussian copula against the laws that it promises to keep."""

import jax
import numpy as np
import pytest
from scipy import stats
from small_cohorts import cohort, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import copula as copula_module
from jaxehr.baselines.copula import CopulaConfig, copula, scores
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Feature,
    Label,
    Schema,
    Table,
    empty_table,
    make_cohort,
)
from jaxehr.diffusion import pairs

KEY = jax.random.key(0)


def latent_cohort(count, correlation):
    """Normal a and b, binary c (0.3) and d of three categories, from one Gaussian."""
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal(np.zeros(4), correlation, count)
    c = x[:, 2] > stats.norm.ppf(0.7)
    d = np.digitize(x[:, 3], [-0.5, 0.8])
    features = (
        Feature(name="a", kind="numeric"),
        Feature(name="b", kind="numeric"),
        Feature(name="c", kind="binary", categories=(0, 1)),
        Feature(name="d", kind="categorical", categories=("u", "v", "w")),
    )
    static = Table(
        np.stack([np.exp(x[:, 0]), x[:, 1]], 1),
        np.stack([c, d], 1).astype(int),
        np.ones((count, 4), bool),
    )
    none = empty_table((count, 0), ())
    label = (x[:, 0] + rng.normal(size=count) > 1).astype(int)
    outcome = Label(name="y", classes=(0, 1))
    people = make_cohort(static, none, np.zeros(count, int), label)
    return Schema(static=features, label=outcome), people


R = np.array(
    [[1, 0.6, 0.5, -0.4], [0.6, 1, 0.3, 0.2], [0.5, 0.3, 1, 0.1], [-0.4, 0.2, 0.1, 1]]
)


def correlation(table, seen):
    return pairs.correlation(scores(table, seen), seen)


def test_correlations_of_codes_are_those_behind_them():
    """Within 0.06: first order in the correlation, 4,000 patients."""
    _, people = latent_cohort(4000, R)
    table = np.concatenate([people.static.numeric, people.static.codes], 1)
    found = correlation(table, np.ones(table.shape, bool))
    np.testing.assert_allclose(found, R, atol=0.06)


def test_scores_are_conditional_means():
    rng = np.random.default_rng(1)
    x = rng.normal(size=20_000)
    binary = (x > 0.5).astype(float)
    found = scores(np.stack([x, binary], 1), np.ones((20_000, 2), bool))
    inside = np.abs(x) < 2
    np.testing.assert_allclose(found[inside, 0], x[inside], atol=0.1)
    for value in (0, 1):
        wanted = x[binary == value].mean()
        np.testing.assert_allclose(found[binary == value, 1], wanted, atol=0.02)


def test_correlations_are_those_of_patients_who_have_both():
    """Whatever stands in the gaps; within 4 s.e. of 400 pairs, the shrinkage below .01.

    A pair that nobody has is not correlated.
    """
    _, people = latent_cohort(4000, R)
    table = np.concatenate([people.static.numeric, people.static.codes], 1)
    seen = np.random.default_rng(1).random(table.shape) < [1.0, 0.1, 0.5, 1.0]
    seen[:, 3] = ~seen[:, 2]
    found = correlation(np.where(seen, table, 99.0), seen)
    assert abs(found[0, 1] - 0.6) < 4 * (1 - 0.6**2) / np.sqrt(400) + 0.01
    assert abs(found[0, 2] - 0.5) < 4 * 1.2 / np.sqrt(2000) + 0.01
    assert found[2, 3] == 0.0
    assert np.abs(correlation(np.where(seen, table, -3.0), seen) - found).max() == 0.0


def test_the_copula_keeps_marginals_and_dependence():
    """Those of the values that patients have; half of them lack b."""
    made, people = latent_cohort(3000, R)
    lacks = people.static._replace(observed=people.static.observed.copy())
    lacks.observed[::2, 1] = False
    model, people = copula(made), people._replace(static=lacks)
    found = model.sample(KEY, model.fit(KEY, people), None, 3000)
    seen = lambda c: c.static.observed.all(1)
    assert abs(seen(found).mean() - 0.5) < 4 * 0.5 / np.sqrt(3000)
    table = lambda c: np.concatenate([c.static.numeric, c.static.codes], 1)[seen(c)]
    one, two = stats.spearmanr(table(found))[0], stats.spearmanr(table(people))[0]
    assert np.abs(one - two).max() < 0.08
    for column in (0, 1):
        values = (c.static.numeric[seen(c), column] for c in (found, people))
        assert stats.ks_2samp(*values).pvalue > 1e-3
    assert (
        stats.chi2_contingency(
            [np.bincount(c.static.codes[:, 1], minlength=3) for c in (found, people)]
        ).pvalue
        > 1e-3
    )
    mean = lambda c, y: np.log(c.static.numeric[c.label == y, 0]).mean()
    for y in (0, 1):
        assert abs(mean(found, y) - mean(people, y)) < 0.12
        asked = model.sample(KEY, model.fit(KEY, people), y, 500)
        assert abs(mean(asked, y) - mean(people, y)) < 0.2


def test_the_copula_of_sums_keeps_their_quantiles():
    wide = sparse_schema()
    thin, _ = sparse_cohort(wide, count=400)
    model = copula(wide)
    found = model.sample(KEY, model.fit(KEY, thin), None, 400)
    some = lambda c: c.length > 0
    share = lambda c: c.temporal.codes[some(c)].sum(1) / c.length[some(c), None]
    error = 4 * share(thin).std(0) * np.sqrt(2 / 400)
    assert (np.abs(share(found).mean(0) - share(thin).mean(0)) < error).all()


def test_a_sum_that_few_patients_have_stays_as_rare():
    """4 of 2,000 patients have x0, within 4 s.e. of 20,000 synthetic ones."""
    made, rng = sparse_schema(columns=2, steps=1), np.random.default_rng(0)
    codes = (rng.random((2000, 1, 2)) < 0.3).astype(np.int32)
    codes[..., 0] = np.arange(2000)[:, None] < 4
    static = cohort(made, count=2000, missing=0.0).static
    there = Table(np.zeros((2000, 1, 0)), codes, np.ones(codes.shape, bool))
    people = make_cohort(static, there, np.ones(2000, int), rng.integers(2, size=2000))
    model = copula(made, CopulaConfig(rows="sums"))
    found = model.sample(KEY, model.fit(KEY, people), None, 20_000)
    share = found.temporal.codes.mean((0, 1))
    wanted = codes.mean((0, 1))
    error = np.sqrt(wanted * (1 - wanted) / 20_000)
    assert (np.abs(share - wanted) < 4 * error).all()


def test_a_correlation_that_is_too_large(monkeypatch):
    monkeypatch.setattr(copula_module, "MOST_COLUMNS", 5)
    with pytest.raises(InputError, match=r"of \d+ columns is too large.* sums"):
        copula(schema(), CopulaConfig(rows="flat")).fit(KEY, cohort(schema()))
