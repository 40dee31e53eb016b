"""Hidden modalities: exact counts, disjoint, reproducible, nothing else touched."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, take, valid_steps
from jaxehr.core.sparse import SparseTable, from_dense
from jaxehr.data.discretize import DiscretizeOptions, discretize
from jaxehr.data.missing import drop_entries, drop_modalities
from jaxehr.data.simulate import SimulateOptions, simulate

DENSE = simulate(SimulateOptions(n=101, steps=3, numeric=1, missing=0.0))
SPARSE = discretize(DENSE, DiscretizeOptions(holdout_fraction=0.0))


@pytest.mark.parametrize("data", [DENSE, SPARSE], ids=["table", "sparse"])
@given(p=st.floats(0, 1), q=st.floats(0, 1), seed=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_counts_are_exact_and_everybody_keeps_a_part(data, p, q, seed):
    q = q * (1 - p)
    made, hidden = drop_modalities(data, p, q, seed)
    both = int((data.cohort.has_static & data.cohort.has_temporal).sum())
    assert hidden.static.sum() == round(p * both)
    assert hidden.temporal.sum() == min(round(q * both), both - round(p * both))
    assert not (hidden.static & hidden.temporal).any()
    had = data.cohort
    np.testing.assert_array_equal(
        made.cohort.has_static, had.has_static & ~hidden.static
    )
    np.testing.assert_array_equal(
        made.cohort.has_temporal, had.has_temporal & ~hidden.temporal
    )
    assert (made.cohort.has_static | made.cohort.has_temporal).all()


@pytest.mark.parametrize("data", [DENSE, SPARSE], ids=["table", "sparse"])
def test_what_is_not_hidden_is_untouched(data):
    made, hidden = drop_modalities(data, 0.3, 0.4, 5)
    kept = ~(hidden.static | hidden.temporal)
    parts = [take(one, kept).cohort for one in (made, data)]
    jax.tree.map(np.testing.assert_array_equal, *parts)
    assert type(made.cohort.temporal) is type(data.cohort.temporal)
    assert not made.cohort.static.observed[hidden.static].any()
    assert not np.asarray(made.cohort.static.codes)[hidden.static].any()
    assert not made.cohort.length[hidden.temporal].any()
    lost = take(made, hidden.static).cohort.temporal
    had = take(data, hidden.static).cohort.temporal
    jax.tree.map(np.testing.assert_array_equal, lost, had)
    if isinstance(made.cohort.temporal, SparseTable):
        assert not made.cohort.temporal.counts[hidden.temporal].any()
        np.testing.assert_array_equal(made.cohort.temporal.length, made.cohort.length)
    else:
        assert not made.cohort.temporal.observed[hidden.temporal].any()
    assert made.provenance["dropped"]["patients"] == [
        hidden.static.sum(),
        hidden.temporal.sum(),
    ]
    np.testing.assert_array_equal(made.cohort.label, data.cohort.label)


def test_the_same_seed_meets_the_same_patients_in_any_order():
    order = np.random.default_rng(0).permutation(101)
    for seed in (0, 1):
        one = drop_modalities(DENSE, 0.2, 0.3, seed)[1]
        two = drop_modalities(take(DENSE, order), 0.2, 0.3, seed)[1]
        np.testing.assert_array_equal(one.static[order], two.static)
        np.testing.assert_array_equal(one.temporal[order], two.temporal)
    other = drop_modalities(DENSE, 0.2, 0.3, 0)[1]
    assert (one.static != other.static).any()


def test_a_larger_share_takes_more_of_the_same_patients():
    few, more = (drop_modalities(DENSE, p, p, 0)[1] for p in (0.1, 0.4))
    assert (few.static <= more.static).all()
    assert (few.temporal <= more.temporal).all()


def test_patients_with_one_part_only_keep_it():
    made, _ = drop_modalities(DENSE, 0.5, 0.5, 0)
    again, hidden = drop_modalities(made, 0.5, 0.5, 1)
    assert not hidden.static.any()
    assert not hidden.temporal.any()
    jax.tree.map(np.testing.assert_array_equal, made.cohort, again.cohort)


def test_the_choice_does_not_depend_on_the_label():
    """The share of the label among the hidden is that of all within 4 sd."""
    count = 4000
    ids = np.arange(count)
    label = (ids % 7 == 0).astype(int)
    table = from_dense(np.ones((count, 1, 1), int), np.ones(count))
    one = take(SPARSE, np.zeros(count, int))
    cohort = one.cohort._replace(
        temporal=table, has_temporal=np.ones(count, bool), length=table.length
    )
    data = Dataset(SPARSE.schema, cohort._replace(label=label), ids, ids, {})
    hidden = drop_modalities(data, 0.25, 0.25, 3)[1]
    sd = np.sqrt(label.mean() * (1 - label.mean()) / hidden.static.sum())
    for mask in hidden:
        assert mask.sum() == 1000
        assert abs(label[mask].mean() - label.mean()) < 4 * sd


def test_refusals():
    with pytest.raises(InputError, match=r"static 0\.7 and temporal 0\.4: together at"):
        drop_modalities(DENSE, 0.7, 0.4)
    with pytest.raises(InputError, match=r"drop static: must lie in .*, got 1\.5"):
        drop_modalities(DENSE, 1.5, 0.0)
    with pytest.raises(InputError, match=r"drop temporal: must .* got -0\.1"):
        drop_modalities(DENSE, 0.5, -0.1)


def test_entries_are_hidden_with_their_chance_and_nothing_else():
    data = simulate(SimulateOptions(n=600, steps=3, numeric=2, missing=0.2))
    few, more = (drop_entries(data, share, seed=1) for share in (0.1, 0.3))
    for share, made in ((0.1, few), (0.3, more)):
        for part in ("static", "temporal"):
            had, has = (getattr(d.cohort, part).observed for d in (data, made))
            assert not (has & ~had).any()
            kept = has[had].mean()
            assert abs(kept - (1 - share)) < 4 * np.sqrt(share / had.sum())
            table = getattr(made.cohort, part)
            count = table.numeric.shape[-1]
            old = getattr(data.cohort, part).numeric
            np.testing.assert_array_equal(
                table.numeric, np.where(has[..., :count], old, 0.0)
            )
        np.testing.assert_array_equal(made.cohort.label, data.cohort.label)
        np.testing.assert_array_equal(made.cohort.length, data.cohort.length)
    assert not (more.cohort.temporal.observed & ~few.cohort.temporal.observed).any()
    rows = np.array([7, 3])
    alone = drop_entries(take(data, rows), 0.3, seed=1)
    for one, two in zip(
        jax.tree.leaves(alone.cohort),
        jax.tree.leaves(take(more, rows).cohort),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    other = drop_entries(data, 0.3, seed=2).cohort.temporal.observed
    assert (other != more.cohort.temporal.observed).any()


def test_binary_columns_of_one_variable_are_hidden_together():
    made = drop_entries(SPARSE, 0.3, seed=1)
    assert made.schema == SPARSE.schema
    for part in ("static", "temporal"):
        table, groups = getattr(made.cohort, part), {}
        for place, feature in enumerate(getattr(SPARSE.schema, part)):
            name = feature.name.split("_value_")[0].split("_mask")[0]
            groups.setdefault(name, []).append(place)
        assert max(map(len, groups.values())) >= 4
        for places in groups.values():
            seen = table.observed[..., places]
            assert (seen == seen[..., :1]).all()
    valid = valid_steps(made.cohort)
    assert abs(made.cohort.temporal.observed[valid].mean() - 0.7) < 0.1
    codes = np.where(made.cohort.temporal.observed, SPARSE.cohort.temporal.codes, 0)
    np.testing.assert_array_equal(made.cohort.temporal.codes, codes)


@pytest.mark.parametrize("data", [DENSE, SPARSE], ids=["table", "sparse"])
def test_hidden_entries_are_filled_with_what_is_common(data):
    """Nothing is missing; what was not hidden stays, the rest is one value a column."""
    hidden, made = (drop_entries(data, 0.3, seed=1, fill=f) for f in (False, True))
    for part in ("static", "temporal"):
        old, few, full = (getattr(d.cohort, part) for d in (data, hidden, made))
        np.testing.assert_array_equal(full.observed, old.observed)
        count = old.numeric.shape[-1]
        for place in range(old.observed.shape[-1]):
            leaf, at = ("numeric", place) if place < count else ("codes", place - count)
            one, two = (np.asarray(getattr(t, leaf))[..., at] for t in (old, full))
            kept = few.observed[..., place]
            np.testing.assert_array_equal(one[kept], two[kept])
            lost = old.observed[..., place] & ~kept
            usual = (
                one[kept].mean() if place < count else np.bincount(one[kept]).argmax()
            )
            np.testing.assert_allclose(two[lost], usual)


def test_a_share_of_entries_lies_between_nothing_and_all():
    with pytest.raises(InputError, match=r"must lie in \[0, 1\]"):
        drop_entries(DENSE, 1.1)
