"""Data put together by hand are refused with column, row and what is allowed."""

import numpy as np
import pytest
from small_cohorts import cohort, schema, sparse_cohort, sparse_schema

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, Feature, Schema, Table, empty_table, make_cohort
from jaxehr.data.dataset_checks import check_cohort, check_dataset

SCHEMA = schema()
IDS = np.arange(100, 160)


def people():
    return Dataset(SCHEMA, cohort(SCHEMA), IDS, IDS, {})


def changed(part, leaf, at, value):
    """The people with one cell changed and observed."""
    data = people()
    tables = {"static": data.cohort.static, "temporal": data.cohort.temporal}
    table = Table(*(np.array(leaf) for leaf in tables[part]))
    getattr(table, leaf)[at] = value
    numbers = table.numeric.shape[-1]
    column = at[-1] + (0 if leaf == "numeric" else numbers)
    table.observed[(*at[:-1], column)] = True
    length = np.maximum(data.cohort.length, np.where(np.arange(60) == at[0], 4, 0))
    parts = tables | {part: table}
    made = data.cohort._replace(**parts, length=length)
    presence = {"has_static": made.static.observed.any(-1), "has_temporal": length > 0}
    return data._replace(cohort=made._replace(**presence))


def test_sound_data_pass():
    check_dataset(people())
    for classes, variable in ((0, True), (3, False)):
        made = schema(classes=classes)
        check_cohort(made, cohort(made, variable=variable))
    for part in ("static", "temporal"):
        made = schema(**{part: ()})
        check_cohort(made, cohort(made))
    wide = sparse_schema()
    for one in sparse_cohort(wide):
        check_cohort(wide, one)
    text = IDS.astype(str)
    check_dataset(people()._replace(ids=text, groups=IDS // 2))


def test_a_bound_of_a_narrow_dtype_takes_its_own_rounding():
    """A float32 column holds 0.1 as 0.100000001."""
    narrow = Feature(name="x", kind="numeric", dtype="float", lower=0.1, upper=0.3)
    for value in (0.1, float(np.float32(0.1)), 0.3, float(np.float32(0.3))):
        table = Table(
            np.full((1, 1), value), np.zeros((1, 0), int), np.ones((1, 1), bool)
        )
        nothing = empty_table((1, 0), ())
        made = make_cohort(table, nothing, np.zeros(1, int), np.zeros(1, int))
        check_cohort(Schema(static=(narrow,)), made)


@pytest.mark.parametrize(
    ("part", "leaf", "at", "value", "message"),
    [
        (
            "temporal",
            "numeric",
            (7, 2, 0),
            np.nan,
            r"cohort: temporal column 'hr': observed values must be finite and lie in "
            r"\[0.0, inf\], got nan in row 7, step 2 .*; 1 of 240 are bad. Mark a miss",
        ),
        ("temporal", "numeric", (7, 2, 1), -np.inf, "'lab': .* got -inf in row 7"),
        ("temporal", "numeric", (7, 2, 0), -0.5, "'hr': .* got -0.5 in row 7, step 2"),
        (
            "static",
            "numeric",
            (9, 0),
            30.5,
            "'age': .* must be whole .* got 30.5 in row 9",
        ),
        ("static", "codes", (9, 0), 4, r"'unit': .* lie in \[0, 4\), got 4 in row 9 "),
        (
            "temporal",
            "codes",
            (7, 3, 2),
            -1,
            r"'vent': .* \[0, 2\), got -1 in row 7, st",
        ),
    ],
)
def test_a_bad_value_is_refused_with_its_place(part, leaf, at, value, message):
    with pytest.raises(InputError, match=message):
        check_dataset(changed(part, leaf, at, value))


def test_what_stands_beside_a_gap_does_not_count():
    data = people()
    for part in ("static", "temporal"):
        table = getattr(data.cohort, part)
        count = table.numeric.shape[-1]
        dirty = table._replace(
            numeric=np.where(table.observed[..., :count], table.numeric, np.nan),
            codes=np.where(table.observed[..., count:], table.codes, 99),
        )
        check_dataset(data._replace(cohort=data.cohort._replace(**{part: dirty})))


def put(name, at, value):
    """The cohort with one entry of an array [N] changed."""
    made = people().cohort
    array = np.array(getattr(made, name))
    array[at] = value
    return made._replace(**{name: array})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda: put("label", 5, -1),
            r"label: codes of classes must lie in \[0, 2\), got -1 in row 5 .* Leave",
        ),
        (lambda: put("label", 5, 2), r"label: .* \[0, 2\), got 2 in row 5"),
        (
            lambda: people().cohort._replace(label=np.full(60, 0.5)),
            r"label: must be an array \[any\] of integers, got float64 \[60\]",
        ),
        (
            lambda: put("length", 6, 5),
            r"length: lengths must lie in \[0, 4\], got 5 in r",
        ),
        (lambda: put("length", 6, -1), "length: lengths .* got -1 in row 6"),
        (lambda: put("has_static", 0, True), "has_static: .* got True in row 0"),
        (
            lambda: people().cohort._replace(length=[1] * 60),
            r"length: must be an array \[60\] of integers, got list",
        ),
        (
            lambda: people().cohort._replace(length=np.ones(59, int)),
            r"length: must be an array \[60\] of integers, got int64 \[59\]",
        ),
        (
            lambda: people().cohort._replace(static=empty_table((60,), ())),
            r"static: numeric: must be an array \[60, 1\] of numbers, got float64",
        ),
        (
            lambda: people().cohort._replace(temporal=None),
            "temporal: must be a Table, got NoneType",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(made, message):
    with pytest.raises(InputError, match=message):
        check_cohort(SCHEMA, made())


def test_observed_padding_is_refused():
    made = people().cohort
    row = int(np.flatnonzero(made.temporal.observed[:, 1].any(-1))[0])
    made = put("length", row, 1)
    with pytest.raises(
        InputError, match=f"from `length` on, got True in row {row}, st"
    ):
        check_cohort(SCHEMA, made)


def test_a_sparse_table_of_another_schema_or_length_is_refused():
    made = sparse_schema()
    thin, _ = sparse_cohort(made)
    with pytest.raises(InputError, match="do not fit together, or not the lengths"):
        check_cohort(made, thin._replace(length=np.minimum(thin.length, 2)))
    with pytest.raises(InputError, match=r"holds .* patients, steps and columns"):
        check_cohort(made.replace(temporal=made.temporal[:-1]), thin)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"ids": list(IDS)},
            r"ids: must be an array \[60\] of integers or text, got list",
        ),
        ({"groups": IDS[:-1]}, r"groups: must be an array \[60\] .* got int64 \[59\]"),
        ({"groups": IDS / 2}, "groups: must be .* integers or text, got float64"),
        (
            {"ids": np.where(IDS == 103, 100, IDS)},
            "ids: every stay has its own, got 100 in row 3 .* stays of one person",
        ),
        ({"provenance": None}, "provenance: must be a dict, got NoneType"),
        ({"schema": {}}, "schema: must be a Schema, got dict"),
    ],
)
def test_people_and_names_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        check_dataset(people()._replace(**fields))


def test_what_is_no_dataset_is_refused():
    with pytest.raises(InputError, match=r"^real: must be a Dataset, got tuple"):
        check_dataset((1, 2), "real")
