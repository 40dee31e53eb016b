"""Rows and sums over time come back; what is fitted, filled, counted and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from small_cohorts import (
    assert_cohorts,
    cohort,
    complete,
    schema,
    sparse_cohort,
    sparse_schema,
)

from jaxehr.baselines.forms import rows
from jaxehr.baselines.forms.layout import without_gaps
from jaxehr.baselines.forms.rows import FLAT, SUMS, deal
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature, Table, rows_of
from jaxehr.core.sparse import SparseTable
from jaxehr.data.impute import Fill
from jaxehr.data.mixed import code_counts

BINARY = (Feature(name="x", kind="binary", categories=(0, 1), dtype="int64"),)


def fitted_form(form, made, people, conditional=True):
    """(fitted, layout, data) of a cohort on itself."""
    fitted = form.fit(made, people, conditional)
    layout = form.layout(made, fitted)
    return fitted, layout, form.encode(fitted, layout, people)


def back(form, made, people, conditional=True, mode=True):
    """Encoded, taken, finished and decoded; label and length are drawn again."""
    fitted, layout, data = fitted_form(form, made, people, conditional)
    count = len(people.label)
    drawn = form.take(layout, data, jnp.arange(count))
    drawn = drawn._replace(label=drawn.label * conditional, length=0 * drawn.length)
    keys = jax.random.split(jax.random.key(1), count)
    done = jax.tree.map(np.asarray, form.finish(layout, keys, drawn, mode))
    return form.decode(fitted, layout, done), layout


CASES = {
    "all": {},
    "fixed length": {"variable": False},
    "nothing missing": {"missing": 0.0},
    "static only": {"temporal": (), "variable": False},
    "temporal only": {"static": (), "variable": False},
    "three classes": {"classes": 3},
    "no label": {"classes": 0},
}


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_rows_come_back(case, conditional):
    """Rounded values, integers, zeros and codes exactly; doubles to float32 of z."""
    fields = dict(CASES[case])
    draw = {k: fields.pop(k) for k in ("missing", "variable") if k in fields}
    made, people = schema(**fields), cohort(schema(**fields), **draw)
    people = complete(people) if made.static and made.temporal else people
    found, layout = back(FLAT, made, people, conditional)
    assert_cohorts(found, people, rtol=1e-5)
    assert ("label" in layout.extra) is bool(made.num_classes and not conditional)
    assert ("length" in layout.extra) is draw.get("variable", True)
    assert layout.classes == (made.num_classes if conditional else 0)
    assert FLAT.text(layout).startswith("one row a patient: ")


def test_columns_of_a_row():
    made = schema()
    people = complete(cohort(made, count=400))
    fitted, layout, data = fitted_form(FLAT, made, people)
    part = layout.parts[0]
    assert layout.numbers == 1 + 4 * 2 == data.numeric.shape[1]
    assert len(layout.cardinalities) == len(part.names) == data.codes.shape[1]
    assert part.names[:3] == ("unit", "rhythm at 0", "vent at 0")
    assert part.names[-2:] == ("vent at 3 missing", "length")
    assert data.codes.dtype == np.int8
    assert (data.codes < np.array(layout.cardinalities)).all()
    # Every column of its own: mean 0 and variance 1 of the values that are observed.
    place = [f.name for f in part.numeric].index("hr at 2")
    z = data.numeric[people.temporal.observed[:, 2, 0], place]
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-5)
    assert fitted["row"]["quantile"]["levels"].shape[0] == layout.numbers


def test_padding_looks_like_the_last_step():
    made = schema()
    people = complete(cohort(made))
    _, layout, data = fitted_form(FLAT, made, people)
    names = layout.parts[0].names
    last = people.length - 1
    missing = ~people.temporal.observed[np.arange(len(last)), last, 0]
    column = data.codes[:, names.index("hr at 3 missing")]
    np.testing.assert_array_equal(column, missing)


def test_padding_does_not_count_in_what_fills_a_gap():
    """Mean 100 of three values, whatever the 44 steps behind the end look like."""
    values, seen = np.zeros((2, 48, 1)), np.zeros((2, 48, 1), bool)
    values[0, 1:4, 0], seen[0, 1:4] = [80.0, 100.0, 120.0], True
    codes = np.zeros((2, 48, 0), np.int32)
    fill = Fill(np.array([7.0]), np.zeros(0, np.int32))
    found = without_gaps(Table(values, codes, seen), np.array([4, 0]), fill, ())
    wanted = [100.0, 80.0, 100.0, *[120.0] * 45]
    np.testing.assert_allclose(found.numeric[0, :, 0], wanted)
    np.testing.assert_array_equal(found.observed[0, :, 0], np.arange(48) > 0)
    np.testing.assert_array_equal(found.numeric[1], 7.0)  # a patient without steps
    assert not found.observed[1].any()


def test_frequencies_count_what_is_known():
    """And `known_values` of encoded patients finds the same."""
    made = schema()
    people = complete(cohort(made))
    fitted, layout, data = fitted_form(FLAT, made, people)
    numbers, known = rows.known_values(layout, data.codes, data.length)
    row = rows.side_by_side(people.static, people.temporal)
    np.testing.assert_array_equal(numbers, row.observed[:, : layout.numbers])
    counts = code_counts(layout.cardinalities, data.codes, known)
    np.testing.assert_array_equal(counts, fitted["counts"])
    names, shares = layout.parts[0].names, fitted["frequency"]
    seen = people.temporal.observed[:, 2, 2]
    counts = np.bincount(people.temporal.codes[seen, 2, 0], minlength=3) + 1
    np.testing.assert_allclose(
        shares[names.index("rhythm at 2")][:3], counts / counts.sum()
    )
    there = people.length > 2
    hidden = (~people.temporal.observed[:, 2, 0] & there).sum() + 1
    share = shares[names.index("hr at 2 missing")][1]
    np.testing.assert_allclose(share, hidden / (there.sum() + 2))
    np.testing.assert_allclose(shares.sum(1), 1.0)


def test_only_columns_that_are_missing_sometimes_have_a_mask():
    made = schema()
    people = cohort(made, variable=False)
    people.temporal.observed[..., 0] = True
    people.temporal.observed[..., 1] = False
    _, layout, data = fitted_form(FLAT, made, people)
    names = layout.parts[0].names
    assert not [name for name in names if name.startswith(("hr", "lab"))]
    found, _ = back(FLAT, made, people)
    assert found.temporal.observed[..., 0].all()
    assert not found.temporal.observed[..., 1].any()
    assert np.isfinite(data.numeric).all()


def test_a_patient_is_encoded_alone():
    made = schema()
    people = complete(cohort(made))
    fitted, layout, data = fitted_form(FLAT, made, people)
    few = FLAT.encode(fitted, layout, rows_of(people, np.array([7, 3])))
    for one, two in zip(few, data, strict=True):
        np.testing.assert_array_equal(one, two[[7, 3]])


def test_a_length_that_training_did_not_have_is_the_next_longer():
    assert rows.length_codes((2, 5, 9), np.array([1, 2, 3, 9, 11])).tolist() == [
        0,
        0,
        1,
        2,
        2,
    ]


# ---- sums


@pytest.mark.parametrize("mode", [True, False])
def test_sums_of_a_sparse_table_keep_every_count(mode):
    made = sparse_schema()
    thin, whole = sparse_cohort(made, count=40)
    keep = thin.length > 0
    thin, whole = rows_of(thin, keep), rows_of(whole, keep)
    found, layout = back(SUMS, made, thin, mode=mode)
    assert isinstance(found.temporal, SparseTable)
    np.testing.assert_array_equal(found.length, thin.length)
    np.testing.assert_array_equal(found.static.codes, thin.static.codes)
    np.testing.assert_array_equal(
        found.temporal.codes.sum(1), whole.temporal.codes.sum(1)
    )
    assert "11 columns summed over time" in SUMS.text(layout)
    dense, _ = back(SUMS, made, whole, mode=mode)
    np.testing.assert_array_equal(dense.temporal.codes, found.temporal.codes)
    assert not isinstance(dense.temporal, SparseTable)


def test_sums_are_packed_until_a_batch_is_taken():
    made = sparse_schema()
    thin, whole = sparse_cohort(made)
    _, layout, data = fitted_form(SUMS, made, thin)
    batch = SUMS.take(layout, data, jnp.array([5, 0]))
    steps = np.maximum(whole.length[[5, 0]], 1)[:, None]
    wanted = whole.temporal.codes[[5, 0]].sum(1) / steps
    np.testing.assert_allclose(batch.sums, wanted, rtol=1e-6)
    assert batch.numeric.shape == (2, 1)


def test_counts_are_dealt_out_evenly_and_keep_their_mean():
    """Chi-square of 4,000 draws of 1.5 ones in 3 of 5 steps; the mean within 4 s.e."""
    keys = jax.random.split(jax.random.key(0), 4000)
    one = lambda key: deal(5, False, key, jnp.array([0.5]), jnp.int32(3))
    ones = np.asarray(jax.jit(jax.vmap(one))(keys))[..., 0]
    assert not ones[:, 3:].any()
    counts = ones.sum(1)
    assert set(counts) == {1, 2}
    assert abs(counts.mean() - 1.5) < 4 * 0.5 / np.sqrt(4000)
    places = ones[counts == 1].sum(0)[:3]
    assert stats.chisquare(places).pvalue > 1e-3
    nearest = deal(5, True, keys[0], jnp.array([0.45, 0.7, 2.0, -1.0]), jnp.int32(3))
    assert np.asarray(nearest).sum(0).tolist() == [1, 2, 3, 0]


# ---- refusals


def test_what_rows_refuse(monkeypatch):
    made = schema()
    people = complete(cohort(made))
    with pytest.raises(InputError, match=r"'hr' is not \(4 of 5 are not\). Use --rows"):
        SUMS.fit(made, people, True)
    binary = schema(temporal=BINARY)
    gaps = complete(cohort(binary))
    missing = int((~gaps.temporal.observed[..., 0]).sum() - (4 - gaps.length).sum())
    with pytest.raises(InputError, match=f"{missing} temporal values are missing"):
        SUMS.fit(binary, gaps, True)
    monkeypatch.setattr(rows, "MOST_COLUMNS", 20)
    with pytest.raises(InputError, match=r"has 23 columns \(4 steps of 5\), at most"):
        FLAT.fit(made, people, True)
