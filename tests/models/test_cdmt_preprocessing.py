"""What is encoded comes back: values, atoms, codes, missing values, presence."""

import copy

import jax
import numpy as np
import pytest
from cdmt_builders import config, fitted_model
from small_cohorts import STATIC, TEMPORAL, assert_cohorts, cohort, schema

from jaxehr.core.cohort import Feature, valid_steps
from jaxehr.core.sparse import from_dense
from jaxehr.data import transforms
from jaxehr.models.cdmt import preprocessing
from jaxehr.models.cdmt.preprocessing import decode, encode, vote
from jaxehr.models.cdmt.shards import record_kind


def back_and_forth(people, made, **fields):
    model, fitted, encoded = fitted_model(made, config(**fields), people)
    return decode(fitted, model.layout, encoded), encoded, fitted


CASES = {
    "all": {},
    "fixed length": {"variable": False},
    "nothing missing": {"missing": 0.0},
    "mostly missing": {"missing": 0.8},
    "static only": {"temporal": ()},
    "temporal only": {"static": ()},
    "three classes": {"classes": 3},
    "no label": {"classes": 0},
}


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case):
    """Rounded values, integers, zeros and codes exactly; doubles to float32 of z."""
    fields = dict(CASES[case])
    draw = {k: fields.pop(k) for k in ("missing", "variable") if k in fields}
    made = schema(**fields)
    people = cohort(made, **draw)
    found, _, _ = back_and_forth(people, made)
    assert_cohorts(found, people, rtol=1e-5)
    if made.temporal:  # column 0 has one decimal, column 1 is 0 or a double
        a, b = found.temporal.numeric, people.temporal.numeric
        np.testing.assert_array_equal(a[..., 0], b[..., 0])
        np.testing.assert_array_equal(a[..., 1] == 0, b[..., 1] == 0)
    if made.static:
        np.testing.assert_array_equal(found.static.numeric, people.static.numeric)


def test_encoded_columns_are_standardised():
    """Over the observed values: mean 0, variance 1 (design rule 5)."""
    made = schema()
    people = cohort(made, count=400)
    _, encoded, _ = back_and_forth(people, made)
    seen = people.temporal.observed[..., :2]
    for column in range(2):
        z = encoded.numeric[..., column][seen[..., column]]
        np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-5)
    assert encoded.numeric.dtype == np.float32
    assert encoded.codes.dtype == np.int8


def test_codes_take_the_bytes_of_their_column_whoever_is_encoded():
    wide = Feature(name="drug", kind="categorical", categories=tuple(range(300)))
    made = schema(temporal=(TEMPORAL[0], wide))
    people = cohort(made)
    people.temporal.codes[:] = 5
    model, fitted, encoded = fitted_model(made, config(), people)
    assert (encoded.codes.dtype, encoded.static_codes.dtype) == (np.int32, np.int8)
    kind = record_kind(made, model.layout, fitted)
    assert all(
        kind[name].base == leaf.dtype for name, leaf in encoded._asdict().items()
    )


def test_coded_block():
    made = schema()
    people = cohort(made)
    _, encoded, _ = back_and_forth(people, made)
    valid, seen = valid_steps(people), people.temporal.observed
    np.testing.assert_array_equal(encoded.codes[..., 2:] == 1, ~seen & valid[..., None])
    rhythm = seen[..., 2]  # observed: hr, lab, rhythm, ward, vent
    np.testing.assert_array_equal(
        encoded.codes[..., 0][rhythm], people.temporal.codes[..., 0][rhythm]
    )
    assert not encoded.codes[~valid].any()
    assert not encoded.numeric[~valid].any()


def test_without_masks_gaps_are_filled():
    made = schema()
    people = cohort(made)
    found, encoded, _ = back_and_forth(people, made, masks=False)
    assert encoded.codes.shape[-1] == 2
    valid = valid_steps(people)
    assert found.temporal.observed[valid].all()
    assert not found.temporal.observed[~valid].any()
    assert found.static.observed[people.has_static].all()
    assert not found.static.observed[~people.has_static].any()
    seen = people.temporal.observed[..., 0]
    np.testing.assert_array_equal(
        found.temporal.numeric[..., 0][seen], people.temporal.numeric[..., 0][seen]
    )


def test_a_column_never_or_always_missing_stays_so():
    made = schema()
    people = cohort(made, variable=False)
    people.temporal.observed[..., 0] = True
    people.temporal.observed[..., 1] = False
    model, fitted, encoded = fitted_model(made, config(), people)
    flipped = encoded._replace(codes=1 - np.minimum(encoded.codes, 1))
    found = decode(fitted, model.layout, flipped)
    assert found.temporal.observed[..., 0].all()
    assert not found.temporal.observed[..., 1].any()


def test_any_code_of_a_sampled_mask_decides():
    made = schema()
    people = cohort(made, variable=False)
    model, fitted, encoded = fitted_model(made, config(), people)
    codes = np.zeros_like(encoded.codes)
    codes[..., 2] = 1  # "hr missing"
    found = decode(fitted, model.layout, encoded._replace(codes=codes))
    assert not found.temporal.observed[..., 0].any()
    assert not found.temporal.numeric[..., 0].any()
    assert found.temporal.observed[..., 1:].all()


def test_zeros_keep_their_share():
    """Normal scores of the model's ideal output: P(lab = 0) as in training, 4 s.e."""
    made = schema(static=())
    people = cohort(made, count=400, missing=0.0, variable=False)
    model, fitted, encoded = fitted_model(made, config(), people)
    knots = transforms.QuantileNormal(**fitted["temporal"]["quantile"])
    draws = np.random.default_rng(1).normal(size=encoded.numeric.shape)
    z = (draws - knots.mean) / knots.std
    found = decode(fitted, model.layout, encoded._replace(numeric=z))
    share = lambda c: (c.temporal.numeric[..., 1] == 0).mean()
    error = np.sqrt(0.4 * 0.6 / z[..., 1].size)
    assert abs(share(found) - share(people)) < 4 * error


def test_values_stay_inside_the_training_range():
    made = schema()
    people = cohort(made, variable=False)
    model, fitted, encoded = fitted_model(made, config(), people)
    far = encoded._replace(numeric=np.full_like(encoded.numeric, -30.0))
    found = decode(fitted, model.layout, far)
    seen = found.temporal.observed[..., 0]
    lowest = people.temporal.numeric[..., 0][people.temporal.observed[..., 0]].min()
    assert (found.temporal.numeric[..., 0][seen] == lowest).all()


def test_label_by_vote():
    made = schema(classes=3)
    people = cohort(made, variable=False)
    found, encoded, _ = back_and_forth(people, made, mode="unconditional")
    assert_cohorts(found, people, rtol=1e-5)
    label = np.broadcast_to(people.label[:, None], encoded.codes.shape[:2])
    np.testing.assert_array_equal(encoded.codes[..., -1], label)


def test_votes_by_hand():
    made = schema(classes=3)
    layout = fitted_model(made, config(mode="unconditional"), cohort(made))[0].layout
    codes = np.array([[2, 2, 1, 0], [1, 2, 2, 2], [2, 0, 0, 2], [1, 1, 2, 2]])
    length = np.array([4, 1, 4, 3])
    assert vote(codes, length, layout).tolist() == [2, 1, 0, 1]


def test_frames_count_patients():
    made = schema(classes=3)
    people = cohort(made)
    frames = preprocessing.count_frames(made, people)
    assert frames.shape == (3, 2, 5)
    assert frames.sum() == 60
    here = (people.label == 1) & people.has_static & (people.length == 2)
    assert frames[1, 1, 2] == here.sum()
    np.testing.assert_array_equal(frames.sum((1, 2)), np.bincount(people.label))


def test_frequencies_count_valid_steps_once_more_than_seen():
    made = schema()
    people = cohort(made)
    _, encoded, fitted = back_and_forth(people, made)
    shares = fitted["frequency"]["temporal"]
    codes = encoded.codes[valid_steps(people)][:, 0]
    counts = np.bincount(codes, minlength=3)
    np.testing.assert_allclose(shares[0], (counts + 1) / (counts.sum() + 3))
    np.testing.assert_allclose(shares.sum(-1), 1.0)
    assert not shares[1, 2:].any()


def test_encoding_others_changes_nothing():
    made = schema()
    people = cohort(made)
    model, fitted, _ = fitted_model(made, config(), people)
    before = copy.deepcopy(fitted)
    other = cohort(made, seed=9)
    encode(fitted, model.layout, other)
    jax.tree.map(np.testing.assert_array_equal, fitted, before)


def test_a_patient_is_encoded_alone():
    """The code of one patient does not depend on who stands beside."""
    made = schema()
    people = cohort(made)
    model, fitted, encoded = fitted_model(made, config(), people)
    rows = np.array([7, 3])
    part = jax.tree.map(lambda leaf: leaf[rows], people)
    few = encode(fitted, model.layout, part)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[rows]), few, encoded)


def test_no_patient_with_a_static_part():
    made = schema(static=STATIC[:2], temporal=TEMPORAL[:2])
    people = cohort(made)
    people.static.observed[:] = False
    people = people._replace(has_static=np.zeros(60, bool))
    found, _, fitted = back_and_forth(people, made)
    assert not found.has_static.any()
    assert fitted["static_share"] > 0


def test_a_sparse_cohort_is_encoded_like_its_dense_form():
    binary = (Feature(name="x", kind="binary", categories=(0, 1), dtype="int64"),)
    made = schema(temporal=binary)
    dense = cohort(made, missing=0.0)
    packed = dense._replace(temporal=from_dense(dense.temporal.codes, dense.length))
    found = [fitted_model(made, config(), one)[2] for one in (dense, packed)]
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
