"""Floor and ceiling against what they promise; refusals of the recipe."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from scipy import stats
from small_cohorts import cohort, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import recipe
from jaxehr.baselines.bootstrap import bootstrap
from jaxehr.baselines.copula import CopulaConfig, copula
from jaxehr.baselines.independent import IndependentConfig, independent
from jaxehr.baselines.recipe import Drawing, Sampling
from jaxehr.baselines.vae import vae
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Feature,
    Schema,
    Table,
    empty_table,
    make_cohort,
)
from jaxehr.core.sparse import SparseTable
from jaxehr.registry import find, model_entry

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


@pytest.mark.parametrize("factory", [independent, copula])
def test_codes_that_nobody_has_are_not_drawn(factory):
    """5 of 200 units, as often as in training; of `b` nobody has a value."""
    names = tuple(f"u{i}" for i in range(200))
    units = [
        Feature(name=name, kind="categorical", categories=names) for name in ("a", "b")
    ]
    made, rng = Schema(static=tuple(units)), np.random.default_rng(0)
    codes = rng.choice([3, 50, 51, 120, 199], (300, 2), p=[0.1, 0.2, 0.3, 0.3, 0.1])
    seen = np.array([[True, False]]).repeat(300, 0)
    static = Table(np.zeros((300, 0)), codes, seen)
    none, zero = empty_table((300, 0), ()), np.zeros(300, int)
    model = factory(made)
    params = model.fit(KEY, make_cohort(static, none, zero, zero))
    found = model.sample(KEY, params, None, 1000).static.codes
    counts = [np.bincount(c, minlength=200) for c in (codes[:, 0], found[:, 0])]
    assert set(np.flatnonzero(counts[1])) == set(np.flatnonzero(counts[0]))
    used = np.stack(counts)[:, counts[0] > 0]
    assert stats.chi2_contingency(used).pvalue > 1e-3


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


# ---- recipe


def test_a_pattern_can_be_chosen():
    model = independent(MADE)
    params = model.fit(KEY, people())
    draw = lambda how: model.sample(KEY, params, None, 40, options=Drawing(missing=how))
    assert draw("none").has_temporal.all()
    assert not draw("static").has_static.any()
    assert not draw("temporal").length.any()
    counts = params["fitted"]["presence"]
    assert counts.sum() == (people().has_static | people().has_temporal).sum()


@pytest.mark.parametrize("name", ["independent", "bootstrap", "copula", "halo", "cdtd"])
def test_what_is_only_drawn_takes_no_decode(name):
    fields = dataclasses.fields(find(model_entry(name).sampling))
    assert "decode" not in {field.name for field in fields}


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
    with pytest.raises(InputError, match="none of 300 patients has any value to learn"):
        model.fit(KEY, nothing)
    with pytest.raises(InputError, match="300 patients has any value to validate on"):
        vae(MADE).fit(KEY, people(), valid=nothing)
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
