"""Floor, ceiling and copula against what they promise; refusals of the recipe."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats
from small_cohorts import cohort, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import copula as copula_module
from jaxehr.baselines import recipe
from jaxehr.baselines.bootstrap import bootstrap
from jaxehr.baselines.copula import CopulaConfig, copula, correlation, factor, scores
from jaxehr.baselines.independent import IndependentConfig, independent
from jaxehr.baselines.recipe import Sampling
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Feature,
    Label,
    Schema,
    Table,
    empty_table,
    make_cohort,
)
from jaxehr.core.sparse import SparseTable

KEY = jax.random.key(0)
MADE = schema()


@functools.cache
def people():
    return cohort(MADE, count=300)


@functools.cache
def made(factory, num=3000):
    model = factory(MADE)
    return model.sample(KEY, model.fit(KEY, people()), None, num)


# ---- floor


def test_the_floor_keeps_marginals():
    """Two-sample tests of hr at step 2 and of rhythm; zeros of lab within 4 s.e."""
    found, real = made(independent), people()
    seen = lambda c, at: (c.length > 2) & c.temporal.observed[:, 2, at]
    one, two = (c.temporal.numeric[seen(c, 0), 2, 0] for c in (found, real))
    assert stats.ks_2samp(one, two).pvalue > 1e-3
    rhythm = lambda c: c.temporal.codes[seen(c, 2), 2, 0]
    codes = [np.bincount(rhythm(c), minlength=3) for c in (found, real)]
    assert stats.chi2_contingency(codes).pvalue > 1e-3
    zero = [(c.temporal.numeric[seen(c, 1), 2, 1] == 0) for c in (found, real)]
    error = np.sqrt(0.24 * (1 / len(zero[0]) + 1 / len(zero[1])))
    assert abs(zero[0].mean() - zero[1].mean()) < 4 * error


def test_the_floor_knows_no_dependence():
    found = made(independent)
    both = found.temporal.observed[:, 0, 0] & found.temporal.observed[:, 1, 0]
    hr = found.temporal.numeric[both][:, :2, 0]
    assert abs(np.corrcoef(hr.T)[0, 1]) < 4 / np.sqrt(len(hr))
    static = found.has_static & found.static.observed[:, 0]
    age, label = found.static.numeric[static, 0], found.label[static]
    assert abs(np.corrcoef(age, label)[0, 1]) < 4 / np.sqrt(len(age))


def test_the_floor_of_a_sparse_table_has_independent_steps():
    """Counts of one column are binomial: mean and variance within 4 s.e."""
    wide = sparse_schema()
    thin, _ = sparse_cohort(wide, count=300)
    model = independent(wide)
    found = model.sample(KEY, model.fit(KEY, thin), None, 2000)
    assert isinstance(found.temporal, SparseTable)
    whole = found.length == wide.num_steps
    codes = found.temporal.codes[whole][..., 3]
    share = thin.temporal.codes[..., 3].sum() / thin.length.sum()
    error = np.sqrt(share * (1 - share) / codes.size)
    assert abs(codes.mean() - share) < 4 * error
    assert abs(np.corrcoef(codes[:, 0], codes[:, 1])[0, 1]) < 4 / np.sqrt(len(codes))


def test_flat_rows_of_a_sparse_table_come_back_sparse():
    wide = sparse_schema()
    thin, _ = sparse_cohort(wide, count=60)
    model = independent(wide, IndependentConfig(rows="flat"))
    params = model.fit(KEY, thin)
    assert isinstance(model.sample(KEY, params, 1, 5).temporal, SparseTable)
    assert "summed" not in str(params["input"])


# ---- ceiling


def test_copies_are_training_patients_of_their_class():
    found, real = made(bootstrap, 500), people()
    wide = lambda c: c.temporal.numeric.reshape(len(c.label), -1)
    rows = lambda c: np.concatenate(
        [c.static.numeric, c.static.codes, wide(c), c.label[:, None]], 1
    )
    known = {row.tobytes() for row in rows(real)}
    assert {row.tobytes() for row in rows(found)} <= known
    assert len({row.tobytes() for row in rows(found)}) > 150


def test_copies_of_a_sparse_table_stay_sparse():
    wide = sparse_schema()
    thin, _ = sparse_cohort(wide)
    model = bootstrap(wide)
    found = model.sample(KEY, model.fit(KEY, thin), 1, 30)
    assert isinstance(found.temporal, SparseTable)
    assert (found.label == 1).all()


# ---- copula


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


def test_correlations_of_codes_are_those_behind_them():
    """Within 0.06: first order in the correlation, 4,000 patients."""
    _, people = latent_cohort(4000, R)
    table = np.concatenate([people.static.numeric, people.static.codes], 1)
    np.testing.assert_allclose(correlation(table), R, atol=0.06)


def test_scores_are_conditional_means():
    rng = np.random.default_rng(1)
    x = rng.normal(size=20_000)
    binary = (x > 0.5).astype(float)
    found = scores(np.stack([x, binary], 1))
    inside = np.abs(x) < 2
    np.testing.assert_allclose(found[inside, 0], x[inside], atol=0.1)
    for value in (0, 1):
        wanted = x[binary == value].mean()
        np.testing.assert_allclose(found[binary == value, 1], wanted, atol=0.02)


def test_a_factor_of_the_nearest_correlation():
    bad = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    lower = factor(bad)
    np.testing.assert_allclose(np.diag(lower @ lower.T), 1.0)
    np.testing.assert_allclose(lower, np.tril(lower))
    np.testing.assert_allclose(factor(R) @ factor(R).T, R, atol=1e-12)


def test_the_copula_keeps_marginals_and_dependence():
    made, people = latent_cohort(3000, R)
    model = copula(made)
    found = model.sample(KEY, model.fit(KEY, people), None, 3000)
    table = lambda c: np.concatenate([c.static.numeric, c.static.codes], 1)
    one, two = stats.spearmanr(table(found))[0], stats.spearmanr(table(people))[0]
    assert np.abs(one - two).max() < 0.08
    for column in (0, 1):
        values = (c.static.numeric[:, column] for c in (found, people))
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


def test_a_correlation_that_is_too_large(monkeypatch):
    monkeypatch.setattr(copula_module, "MOST_COLUMNS", 5)
    with pytest.raises(InputError, match=r"of \d+ columns is too large.* sums"):
        copula(MADE, CopulaConfig(rows="flat")).fit(KEY, people())


# ---- recipe


def test_a_pattern_can_be_chosen():
    model = independent(MADE)
    params = model.fit(KEY, people())
    draw = lambda how: model.sample(
        KEY, params, None, 40, options=Sampling(missing=how)
    )
    assert draw("none").has_temporal.all()
    assert not draw("static").has_static.any()
    assert not draw("temporal").length.any()
    counts = params["fitted"]["presence"]
    assert counts.sum() == (people().has_static | people().has_temporal).sum()


def test_a_baseline_that_draws_the_label():
    """Its label is a column; parts are drawn by it; none can be asked for."""
    seen = recipe.Recipe(
        "free",
        IndependentConfig(),
        recipe.rows_form,
        *independent_parts(),
        conditional=False,
    )
    model = recipe.build(MADE, seen)
    params = model.fit(KEY, people())
    found = model.sample(KEY, params, None, 400)
    share = people().label.mean()
    assert abs(found.label.mean() - share) < 4 * np.sqrt(share * (1 - share) / 400)
    with pytest.raises(InputError, match="free draws the label itself"):
        model.sample(KEY, params, 1, 3)


def independent_parts():
    from jaxehr.baselines import independent as floor

    return floor.learn, floor.draw, recipe.no_stage


def test_what_the_recipe_refuses():
    model = independent(MADE)
    with pytest.raises(InputError, match="num must be positive, got 0"):
        model.sample(KEY, model.fit(KEY, people()), None, 0)
    no = np.zeros(300, bool)
    nothing = people()._replace(has_static=no, has_temporal=no)
    with pytest.raises(InputError, match="none of 300 patients has any value"):
        model.fit(KEY, nothing)
    with pytest.raises(InputError, match="unknown decode 'best'; known: sample, mode"):
        Sampling(decode="best")
    with pytest.raises(InputError, match="unknown missing 'all'; known: as-training"):
        Sampling(missing="all")
    for config in (IndependentConfig, CopulaConfig):
        with pytest.raises(InputError, match="unknown rows 'wide'; known: auto, flat"):
            config(rows="wide")


def test_blocks_are_smaller_for_wide_tables():
    assert recipe.rows_of_block(MADE) == 128
    wide = sparse_schema(columns=7307, steps=48)
    assert recipe.rows_of_block(wide) == 128
    assert recipe.rows_of_block(wide.replace(num_steps=4800)) == 16
