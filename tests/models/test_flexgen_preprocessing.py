"""What is encoded comes back: values, counts, codes, gaps, presence, sparse tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flexgen_cohorts import config, encoded
from small_cohorts import cohort, schema, sparse_cohort, sparse_schema

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import valid_steps
from jaxehr.data import packed
from jaxehr.models.flexgen import preprocessing
from jaxehr.models.flexgen.layout import make_layout
from jaxehr.models.flexgen.preprocessing import decode, encode, records, take


def assert_equal(found, wanted, rtol=0.0):
    for part in ("static", "temporal"):
        a, b = getattr(found, part), getattr(wanted, part)
        np.testing.assert_array_equal(a.observed, b.observed)
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_allclose(a.numeric, b.numeric, rtol=rtol, atol=0)
    for name in ("has_static", "has_temporal", "length", "label"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


CASES = {
    "all": {},
    "counts": {"integers": "count"},
    "fixed length": {"variable": False},
    "nothing missing": {"missing": 0.0},
    "mostly missing": {"missing": 0.8},
    "three classes": {"classes": 3},
    "no label": {"classes": 0},
    "no masks": {"masks": False, "missing": 0.0, "variable": False},
}


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case):
    """Rounded values, integers and codes exactly; doubles to float32 of their score."""
    fields = dict(CASES[case])
    draw = {k: fields.pop(k) for k in ("missing", "variable") if k in fields}
    made = schema(classes=fields.pop("classes", 2))
    people = cohort(made, **draw)
    layout, fitted, data = encoded(made, config(**fields), people)
    found = decode(fitted, layout, data)
    assert_equal(found, people, rtol=1e-5)
    np.testing.assert_array_equal(found.static.numeric, people.static.numeric)


def test_columns_stand_by_kind():
    """hr, rhythm (3), ward (constant), lab, vent (binary) -> hr, lab, vent, rhythm."""
    made = schema()
    people = cohort(made)
    layout, _, data = encoded(made, config(), people)
    part, block, raw = layout.temporal, data.temporal, people.temporal
    assert part.groups == ((2, 1), (3, 1))
    assert (part.num_normal, part.num_counts, part.num_binary) == (2, 0, 1)
    assert part.num_outputs == 2 + 1 + 5 + 3
    np.testing.assert_array_equal(block.codes[..., 0], raw.codes[..., 2])
    np.testing.assert_array_equal(block.codes[..., 1], raw.codes[..., 0])
    # observed of the table: hr, lab, rhythm, ward, vent
    np.testing.assert_array_equal(block.observed, raw.observed[..., [0, 1, 4, 2, 3]])
    seen = raw.observed[..., 0]
    z = block.numeric[..., 0][seen]
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-5)
    assert (block.numeric.dtype, block.codes.dtype) == (np.float32, np.int8)


def test_counts_follow_the_normal_columns_and_start_at_zero():
    made = schema(temporal=schema().static + schema().temporal)
    people = cohort(made)
    layout, fitted, data = encoded(made, config(integers="count"), people)
    assert layout.temporal.numeric_order == (1, 2, 0)  # age is the count
    seen = people.temporal.observed[..., 0]
    age = people.temporal.numeric[..., 0]
    wanted = age[seen] - age[seen].min()
    np.testing.assert_array_equal(data.temporal.counts[..., 0][seen], wanted)
    np.testing.assert_allclose(fitted["temporal"]["count_mean"], wanted.mean())
    assert not data.temporal.counts[..., 0][~seen].any()
    low = people._replace(
        temporal=people.temporal._replace(numeric=people.temporal.numeric - 100.0)
    )
    assert (encode(fitted, layout, low).temporal.counts >= 0).all()
    assert_equal(decode(fitted, layout, data), people, rtol=1e-5)


def test_what_is_missing_or_padding_is_not_read():
    """Other values there, NaN included: the same bits."""
    made = schema()
    people = cohort(made)
    layout, fitted, data = encoded(made, config(integers="count"), people)

    def spoil(table):
        count = table.numeric.shape[-1]
        hidden = ~table.observed
        return table._replace(
            numeric=np.where(hidden[..., :count], np.nan, table.numeric),
            codes=np.where(hidden[..., count:], 1, table.codes),
        )

    other = people._replace(
        static=spoil(people.static), temporal=spoil(people.temporal)
    )
    found = encode(fitted, layout, other)
    jax.tree.map(np.testing.assert_array_equal, found, data)
    refitted = preprocessing.fit(made, layout, config(integers="count"), other)
    jax.tree.map(np.testing.assert_array_equal, refitted, fitted)


def test_columns_never_or_always_missing_stay_so():
    made = schema()
    people = cohort(made, variable=False)
    people.temporal.observed[..., 0] = True
    people.temporal.observed[..., 1] = False
    layout, fitted, data = encoded(made, config(), people)
    flipped = data.temporal._replace(observed=~data.temporal.observed)
    found = decode(fitted, layout, data._replace(temporal=flipped))
    assert found.temporal.observed[..., 0].all()
    assert not found.temporal.observed[..., 1].any()


def test_without_masks_nothing_is_missing_but_what_always_was():
    made = schema()
    people = cohort(made)
    people.temporal.observed[..., 1] = False
    layout, fitted, data = encoded(made, config(masks=False), people)
    found = decode(fitted, layout, data)
    valid = valid_steps(people)
    assert found.temporal.observed[valid][:, [0, 2, 3, 4]].all()
    assert not found.temporal.observed[..., 1].any()
    assert not found.temporal.observed[~valid].any()
    assert found.static.observed[people.has_static].all()
    assert not found.static.observed[~people.has_static].any()


def test_drawn_values_stay_inside_the_training_range():
    made = schema()
    people = cohort(made, variable=False)
    layout, fitted, data = encoded(made, config(integers="count"), people)
    static = data.static._replace(counts=np.full_like(data.static.counts, 1e6))
    temporal = data.temporal._replace(numeric=np.full_like(data.temporal.numeric, -30))
    found = decode(fitted, layout, data._replace(static=static, temporal=temporal))
    seen = people.static.observed[:, 0]
    ages = found.static.numeric[:, 0][seen]
    assert (ages == people.static.numeric[:, 0][seen].max()).all()
    seen = people.temporal.observed[..., 0]
    values = found.temporal.numeric[..., 0][seen]
    assert (values == people.temporal.numeric[..., 0][seen].min()).all()


def test_a_patient_without_temporal_part_has_no_step():
    made = schema()
    people = cohort(made, variable=False)
    layout, fitted, data = encoded(made, config(), people)
    gone = data._replace(has_temporal=np.zeros(60, bool))
    found = decode(fitted, layout, gone)
    assert not found.length.any()
    assert not found.temporal.observed.any()


def test_presence_and_lengths_count_patients():
    made = schema()
    people = cohort(made)
    _, fitted, data = encoded(made, config(), people)
    counts = fitted["presence"]
    assert counts.shape == (2, 2, 2)
    both = (people.label == 1) & people.has_static & people.has_temporal
    assert counts[1, 1, 1] == both.sum()
    assert counts.sum() == 60
    wanted = np.bincount(people.length, minlength=5)
    np.testing.assert_array_equal(fitted["temporal"]["lengths"], wanted)
    some = records(data, "static")
    np.testing.assert_array_equal(some.label, people.label[people.has_static])
    assert len(records(data, "temporal").length) == people.has_temporal.sum()


def test_sparse_round_trip():
    made = sparse_schema()
    thin, _ = sparse_cohort(made)
    layout, fitted, data = encoded(made, config(), thin)
    found = decode(fitted, layout, data)
    jax.tree.map(np.testing.assert_array_equal, found.temporal, thin.temporal)
    every = take(
        layout.temporal, records(data, "temporal", np.arange(40)), jnp.arange(40)
    )
    drawn = data._replace(temporal=jax.tree.map(np.asarray, every.block))
    found = decode(fitted, layout, drawn)
    jax.tree.map(np.testing.assert_array_equal, found.temporal, thin.temporal)


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_a_sparse_batch_is_the_dense_batch(density):
    made = sparse_schema()
    thin, whole = sparse_cohort(made, density=density)
    layout, fitted, data = encoded(made, config(), thin)
    again = preprocessing.fit(made, layout, config(), whole)
    jax.tree.map(np.testing.assert_array_equal, again, fitted)
    rows = jnp.array([3, 0, 1, 20, 3])
    chosen = np.flatnonzero(thin.has_temporal)
    sparse_batch = take(layout.temporal, records(data, "temporal", chosen), rows)
    dense = records(encode(fitted, layout, whole), "temporal", chosen)
    dense_batch = take(layout.temporal, dense, rows)
    jax.tree.map(np.testing.assert_array_equal, sparse_batch, dense_batch)
    assert sparse_batch.block.observed.shape[-1] == 0


def test_a_sparse_cohort_under_a_dense_model():
    made = sparse_schema()
    thin, whole = sparse_cohort(made)
    layout, fitted, data = encoded(made, config(), whole)
    found = encode(fitted, layout, thin)
    jax.tree.map(np.testing.assert_array_equal, found, data)


def test_refused():
    made = schema()
    with pytest.raises(InputError, match="no static feature"):
        make_layout(made.replace(static=()), config())
    with pytest.raises(InputError, match="no temporal feature"):
        make_layout(made.replace(temporal=()), config())
    with pytest.raises(InputError, match=r"'hr' is not binary \(4 of 5"):
        make_layout(made, config(), sparse=True)


def test_sparse_refusals(monkeypatch):
    made = sparse_schema()
    thin, whole = sparse_cohort(made)
    layout, fitted, _ = encoded(made, config(), thin)
    whole.temporal.observed[0, 0, :3] = False
    with pytest.raises(InputError, match="3 temporal values of this cohort"):
        encode(fitted, layout, whole)
    monkeypatch.setattr(packed, "MOST_ONES", 7)
    with pytest.raises(
        InputError, match=f"at most 7 .* got {len(thin.temporal.cells)}"
    ):
        encode(fitted, layout, thin)
