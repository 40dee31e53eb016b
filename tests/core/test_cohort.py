"""Schemas refuse nonsense; tables and cohorts are cut and joined without loss."""

import jax
import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Label,
    Schema,
    Table,
    clear_missing,
    coded_features,
    column_order,
    concatenate,
    empty_table,
    make_cohort,
    num_patients,
    numeric_features,
    take,
    valid_steps,
)
from jaxehr.core.keys import patient_keys

FEATURES = (
    Feature(name="sex", kind="binary", categories=("f", "m"), dtype="string"),
    Feature(name="age", kind="integer", dtype="int64"),
    Feature(name="site", kind="constant", categories=("x",), dtype="string"),
    Feature(name="weight", kind="numeric"),
)


def numeric(name, **fields):
    return Feature(name=name, kind="numeric", **fields)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"kind": "real"}, "unknown kind 'real'; known: numeric"),
        ({"kind": "numeric", "aggregate": "sum"}, "unknown aggregate 'sum'"),
        ({"kind": "numeric", "categories": (1,)}, "'x': numeric has no categories"),
        (
            {"kind": "numeric", "lower": 2.0, "upper": 1.0},
            "lower 2.0 exceeds upper 1.0",
        ),
        ({"kind": "categorical", "categories": (1, 1)}, "'x': categories repeat"),
        ({"kind": "binary", "categories": (1, 2, 3)}, "'binary' with 3 categories"),
        ({"kind": "constant", "categories": ()}, "'constant' with 0 categories"),
        ({"kind": "categorical", "categories": (1,)}, "'categorical' with 1 categor"),
    ],
)
def test_feature_refuses(fields, match):
    with pytest.raises(InputError, match=match):
        Feature(name="x", **fields)


@pytest.mark.parametrize(
    ("kind", "categories", "dtype"),
    [
        ("numeric", (), "double"),
        ("integer", (), "int64"),
        ("binary", (False, True), "bool"),
        ("categorical", [1, 2, 3], "int64"),
        ("categorical", (0.5, 1), "double"),
        ("categorical", np.array(["a", "b"]), "string"),
    ],
)
def test_a_dtype_that_is_not_named_suits_the_column(kind, categories, dtype):
    """Else a run would train to its end and could not be loaded."""
    made = Feature(name="x", kind=kind, categories=categories)
    assert (made.dtype, made.categories) == (dtype, tuple(categories))
    hash(made)
    if len(categories) > 1:
        assert Label(name="x", classes=categories).dtype == dtype


@pytest.mark.parametrize(
    ("kind", "dtype", "categories", "match"),
    [
        ("numeric", "string", (), "numeric 'x': dtype must be one of float, double"),
        (
            "integer",
            "real",
            (),
            "integer 'x': dtype must be one of .* got 'real'",
        ),
        ("binary", "int64", ("f", "m"), "'x': categories 'f', 'm' are not all values"),
        ("binary", "double", (0, np.inf), "categories 0, inf are not all values"),
        ("binary", "int8", (0, 300), "categories 0, 300 are not all values of .*int8"),
        ("binary", "int64", (False, True), "categories False, True are not all"),
        ("binary", "", ("f", 1), "categories 'f', 1 are not all values of dtype 'str"),
        ("binary", "", (None, 1), "categories None, 1 are not all values"),
    ],
)
def test_a_dtype_that_does_not_suit_is_refused(kind, dtype, categories, match):
    with pytest.raises(InputError, match=match):
        Feature(name="x", kind=kind, dtype=dtype, categories=categories)


def test_dtypes_of_ids_and_times():
    grid = {"temporal": [numeric("x")], "num_steps": 2}
    assert Schema(**grid).temporal == (numeric("x"),)
    assert Schema(**grid).time_dtype == "int64"
    assert Schema(**grid, step=0.5).time_dtype == "double"
    with pytest.raises(InputError, match=r"'int64' cannot hold start 0.0 and step 0.5"):
        Schema(**grid, step=0.5, time_dtype="int64")
    with pytest.raises(
        InputError, match=r"id 'id': dtype must be one of .* got 'float"
    ):
        Schema(**grid, id_dtype="float")
    with pytest.raises(InputError, match="label 'y': dtype must be one of"):
        Label(name="y", classes=(0, 1), dtype="int")


@pytest.mark.parametrize("classes", [(), (1,), (1, 1), (0, 1, 1)])
def test_label_needs_two_classes(classes):
    with pytest.raises(InputError, match=r"label 'died' has \d class\(es\)"):
        Label(name="died", classes=classes)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({}, "no feature"),
        ({"temporal": (numeric("a"),)}, "num_steps 0 and step 1.0 must be positive"),
        ({"temporal": (numeric("a"),), "num_steps": 2, "step": 0.0}, "step 0.0"),
        ({"static": (numeric("a"), numeric("a"))}, r"\['a'\] occur more than once"),
        ({"static": (numeric("id"),)}, r"\['id'\] occur"),
        ({"static": (numeric("a"),), "group": "a"}, r"\['a'\] occur"),
        (
            {"static": (numeric("a"),), "label": Label(name="a", classes=(0, 1))},
            r"\['a'\] occur",
        ),
        ({"temporal": (numeric("time"),), "num_steps": 2}, r"\['time'\] occur"),
    ],
)
def test_schema_refuses(fields, match):
    with pytest.raises(InputError, match=match):
        Schema(**fields)


def test_one_name_may_be_static_and_temporal():
    schema = Schema(static=(numeric("a"),), temporal=(numeric("a"),), num_steps=2)
    assert schema.num_classes == 0
    assert hash(schema) == hash(schema.replace(num_steps=2))


def test_columns_by_kind():
    assert [f.name for f in numeric_features(FEATURES)] == ["age", "weight"]
    assert [f.name for f in coded_features(FEATURES)] == ["sex", "site"]
    order = ((False, 0), (True, 0), (False, 1), (True, 1))
    assert column_order(FEATURES) == order


def table(seed, *shape):
    rng = np.random.default_rng(seed)
    return Table(
        rng.normal(size=(*shape, 2)),
        rng.integers(1, 3, (*shape, 2)).astype(np.int32),
        rng.random((*shape, 4)) < 0.7,
    )


def cohort(seed=0, count=5, steps=3):
    rng = np.random.default_rng(seed + 100)
    length = rng.integers(0, steps + 1, count)
    static = table(seed, count)
    static.observed[0] = False
    return make_cohort(
        static, table(seed, count, steps), length, rng.integers(2, size=count)
    )


def test_make_cohort_clears_padding_and_missing():
    made = cohort()
    seen = made.temporal.observed
    assert not seen[~valid_steps(made)].any()
    assert not made.temporal.numeric[~seen[..., :2]].any()
    assert not made.temporal.codes[~seen[..., 2:]].any()
    np.testing.assert_array_equal(made.has_temporal, made.length > 0)
    np.testing.assert_array_equal(made.has_static, made.static.observed.any(-1))
    assert not made.has_static[0]


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"label": [0, 1, 0, 1, 0.7]}, r"label: .* whole .* got 0.7 in row 4"),
        ({"label": [0, 1, 0, 1, -1]}, r"label: .* got -1 in row 4"),
        (
            {"label": [0, 1, 0, 1, np.nan]},
            r"label: .* got nan in row 4",
        ),
        ({"label": list("01010")}, r"label: must be an array \[5\] of whole numbers"),
        ({"label": [0, 1]}, r"label: must be an array \[5\] .* got int64 \[2\]"),
        ({"length": [0, 1, 2, 3, 4]}, r"length: .* in \[0, 3\], got 4 in row 4"),
        ({"length": [0, 1, 2, 3, 0.5]}, r"length: .* whole .* got 0.5 in row 4"),
        (
            {"length": [[3]] * 5},
            r"length: must be an array \[5\] .* got int64 \[5, 1\]",
        ),
        (
            {"static": table(0, 5)._replace(codes=np.full((5, 2), 0.5))},
            r"codes: must be whole, got 0.5 in row \d",
        ),
        (
            {"static": table(0, 4)},
            r"static: observed: must be an array \[5, any\] .* got bool \[4, 4\]",
        ),
        (
            {"static": Table([[0.0]] * 5, [[0]] * 5, [[True, True]] * 5)},
            r"static: observed: must be an array .* got list",
        ),
        (
            {"temporal": table(0, 5)},
            r"temporal: observed: must be an array .* got bool \[5, 4\]",
        ),
        (
            {"temporal": table(0, 5, 3)._replace(codes=np.zeros((5, 3, 1), int))},
            r"temporal: .* 3 columns, but observed 4",
        ),
    ],
)
def test_make_cohort_refuses_what_it_would_have_to_cut(fields, match):
    parts = {
        "static": table(0, 5),
        "temporal": table(0, 5, 3),
        "length": [0, 1, 2, 3, 3],
        "label": np.zeros(5),  # whole numbers of any dtype are taken
    }
    assert num_patients(make_cohort(**parts)) == 5
    with pytest.raises(InputError, match=match):
        make_cohort(**(parts | fields))


def test_valid_steps_by_hand():
    made = cohort()._replace(length=np.array([0, 1, 2, 3, 3]))
    assert valid_steps(made).tolist() == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
        [True, True, True],
        [True, True, True],
    ]


def test_clear_missing_drops_nan():
    dirty = Table(np.array([[np.nan, 1.0]]), np.array([[7]]), np.zeros((1, 3), bool))
    clean = clear_missing(dirty._replace(observed=np.array([[False, True, False]])))
    assert clean.numeric.tolist() == [[0.0, 1.0]]
    assert clean.codes.tolist() == [[0]]


def test_empty_table():
    empty = empty_table((2, 3), FEATURES)
    shapes = [leaf.shape for leaf in empty]
    assert shapes == [(2, 3, 2), (2, 3, 2), (2, 3, 4)]
    assert not empty.observed.any()


def test_take_of_concatenate_gives_the_parts_back():
    parts = [cohort(0), cohort(1, count=4)]
    whole = concatenate(parts)
    assert num_patients(whole) == 9
    ids = np.arange(9)
    data = Dataset(Schema(static=FEATURES), whole, ids, ids, {})
    for rows, part in (
        (np.arange(5), parts[0]),
        (np.arange(9) >= 5, parts[1]),
        ([4, 0], take(data, np.array([4, 0])).cohort),
    ):
        found = take(data, np.asarray(rows))
        assert num_patients(found.cohort) == len(found.ids)
        jax.tree.map(np.testing.assert_array_equal, found.cohort, part)
    np.testing.assert_array_equal(take(data, np.array([4, 0])).ids, [4, 0])


def test_patient_keys_depend_on_the_number_only():
    key = jax.random.key(3)
    keys = patient_keys(key, np.array([7, 0, 7]))
    wanted = [jax.random.fold_in(key, i) for i in (7, 0, 7)]
    np.testing.assert_array_equal(
        jax.random.key_data(keys), [jax.random.key_data(k) for k in wanted]
    )
