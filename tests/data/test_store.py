"""Cohort folders: exact round trips, and refusals of bad tables and folders."""

import dataclasses
import json
import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import arrow_types, datasets, schemas

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Label,
    Schema,
    empty_table,
    make_cohort,
)
from jaxehr.core.sparse import SparseTable, from_dense
from jaxehr.data.assemble import assemble, disassemble
from jaxehr.data.schema_json import same_columns, schema_from_json, schema_to_json
from jaxehr.data.store import load_cohort, save_cohort

PATIENCE = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck)
)


def assert_same(a: Dataset, b: Dataset) -> None:
    assert a.schema == b.schema
    assert a.provenance == b.provenance
    one, two = a.cohort, b.cohort
    pairs = [*zip(one.static, two.static), *zip(one.temporal, two.temporal)]
    pairs += [*zip(one[2:], two[2:]), (a.ids, b.ids), (a.groups, b.groups)]
    for left, right in pairs:
        assert left.dtype.kind == right.dtype.kind
        np.testing.assert_array_equal(left, right)
        if left.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(left), np.signbit(right))


@PATIENCE
@given(datasets())
def test_a_cohort_folder_is_read_back_exactly_and_rewritten_byte_for_byte(data):
    with tempfile.TemporaryDirectory() as folder:
        first, second = pathlib.Path(folder, "a"), pathlib.Path(folder, "b")
        save_cohort(data, first)
        again = load_cohort(first)
        assert_same(data, again)
        assert data.groups.dtype == again.groups.dtype or data.groups.dtype.kind == "U"
        save_cohort(again, second)
        for path in first.iterdir():
            assert path.read_bytes() == (second / path.name).read_bytes()


@PATIENCE
@given(datasets())
def test_the_tables_have_the_columns_order_and_types_of_the_schema(data):
    static, temporal = disassemble(data)
    wanted_static, wanted_temporal = arrow_types(data.schema)
    if data.schema.group:
        static = static.drop([data.schema.group])
    assert static.schema == wanted_static
    assert temporal.schema == wanted_temporal
    assert temporal.num_rows == data.cohort.length.sum()
    assert_same(
        data,
        assemble(data.schema, *disassemble(data), data.provenance, allow_missing=True),
    )


@PATIENCE
@given(schemas())
def test_the_schema_passes_through_json_text(schema):
    text = json.dumps(schema_to_json(schema))
    assert schema_from_json(json.loads(text), "schema.json") == schema


SCHEMA = Schema(
    static=(
        Feature(name="age", kind="integer", dtype="int8"),
        Feature(name="sex", kind="binary", dtype="string", categories=("F", "M")),
    ),
    temporal=(
        Feature(name="hr", kind="numeric", lower=0.0, upper=300.0),
        Feature(name="state", kind="categorical", dtype="int64", categories=(3, 4, 5)),
    ),
    num_steps=4,
    label=Label(name="died", classes=(0, 1)),
    group="person",
)
STATIC = pa.table(
    {
        "id": [7, 5, 6],
        "person": [1, 1, 2],
        "age": pa.array([30, None, None], pa.int8()),
        "sex": pa.array(["F", "M", None]).dictionary_encode(),
        "died": [0, 1, 1],
    }
)
TEMPORAL = pa.table(
    {
        "id": [7, 7, 5],
        "time": [0, 2, 1],
        "hr": [80.0, None, 99.5],
        "state": [3, None, 5],
    }
)


def change(table: pa.Table, name: str, values) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, [values])


def test_absent_rows_and_null_rows_become_missing_steps_and_modalities():
    data = assemble(SCHEMA, STATIC, TEMPORAL, {})
    cohort = data.cohort
    assert cohort.length.tolist() == [3, 2, 0]
    assert cohort.has_static.tolist() == [True, True, False]
    assert cohort.has_temporal.tolist() == [True, True, False]
    assert cohort.temporal.numeric[:, :, 0].tolist() == [
        [80.0, 0, 0, 0],
        [0, 99.5, 0, 0],
        [0, 0, 0, 0],
    ]
    assert cohort.temporal.codes[1, 1, 0] == 2
    assert data.groups.tolist() == [1, 1, 2]
    temporal = disassemble(data)[1]
    assert temporal["time"].to_pylist() == [0, 1, 2, 0, 1]
    assert temporal["hr"].to_pylist() == [80.0, None, None, None, 99.5]


def test_a_stay_only_in_the_temporal_table_lacks_the_static_part():
    schema = SCHEMA.replace(label=None, group=None)
    data = assemble(schema, STATIC.take([1, 2]), TEMPORAL, {}, allow_missing=True)
    assert data.ids.tolist() == [5, 6, 7]
    assert data.cohort.has_static.tolist() == [True, False, False]
    assert data.cohort.length.tolist() == [2, 0, 3]


def test_times_of_a_tenth_come_back_as_decimal_numbers():
    schema = SCHEMA.replace(step=0.1, time_dtype="double")
    data = assemble(schema, STATIC, change(TEMPORAL, "time", [0.0, 0.3, 0.2]), {})
    assert disassemble(data)[1]["time"].to_pylist()[:4] == [0.0, 0.1, 0.2, 0.3]


BAD_TEMPORAL = [
    (
        "time",
        [0, -1, 1],
        r"t\.csv: column 'time': .* in \[0, 3\], got -1 at data row 2 \(id 7\); 1 of 3",
    ),
    ("time", [0, 4, 1], r"times must lie in \[0, 3\], got 4"),
    ("time", [0, 0.5, 1], r"multiples of 1 from 0, got 0.5 at data row 2"),
    ("time", [0, 0, 1], r"duplicate, got 0 at data row 2 \(id 7\)"),
    ("time", [0, None, 1], r"needs a time, got None at data row 2"),
    ("time", ["0", "1", "noon"], r"values must be numbers, got 'noon' at data row 3"),
    ("time", pa.array([0, 1, 2], pa.timestamp("s")), r"got the type timestamp\[s\]"),
    ("id", [7, None, 5], r"needs an id, got None at data row 2"),
    ("id", ["7", "x", "5"], r"'id': ids must be int64, got the type string"),
    ("id", [7, 8, 5], r"label or group missing for 1 stay\(s\) of t\.csv, e\.g\. id 8"),
    (
        "hr",
        ["80", "high", None],
        r"'hr': values must be numbers, got 'high' at data row 2",
    ),
    ("hr", [80.0, float("nan"), 1.0], r"must be finite, got nan at data row 2"),
    ("hr", ["80", "1e999", None], r"must be finite, got inf at data row 2"),
    ("hr", [float("inf"), 1.0, 2.0], r"must be finite, got inf at data row 1"),
    ("hr", [80.0, 301.0, 1.0], r"\[0.0, 300.0\], got 301.0 at data row 2"),
    ("hr", [None, None, None], r"'hr': all 3 values are missing"),
    (
        "hr",
        [2**60, 1, 1],
        r"integers must lie in \[-2\*\*53, 2\*\*53\], got 1152921504606846976",
    ),
    ("hr", pa.array([0, 1, 2], pa.date32()), r"got the type date32"),
    ("state", [3, 4, 9], r"unknown category; known: 3, 4, 5, got 9 at data row 3"),
    ("state", ["3", "4", "a"], r"unknown category; known: 3, 4, 5, got 'a'"),
]


@pytest.mark.parametrize(("name", "values", "message"), BAD_TEMPORAL)
def test_a_bad_temporal_value_is_refused_with_its_place(name, values, message):
    table = change(TEMPORAL, name, values)
    with pytest.raises(InputError, match=message) as raised:
        assemble(SCHEMA, STATIC, table, {}, where=("s.csv", "t.csv"))
    assert "\n" not in str(raised.value)


BAD_STATIC = [
    (
        "id",
        [7, 5, 7],
        r"s\.csv: column 'id': .* got 2 rows with 7 \(first at data row 1\)",
    ),
    ("died", [0, None, 1], r"label missing, got None at data row 2 \(id 5\)"),
    ("died", [0, 2, 1], r"unknown category; known: 0, 1, got 2"),
    ("person", [1, None, 1], r"needs a group, got None"),
    (
        "person",
        [1.5, 2.0, 1.0],
        r"groups must be integers or text, got the type double",
    ),
    ("age", [1.0, 1.5, 2.0], r"values must be integers, got 1.5 at data row 2"),
    ("sex", ["F", "M", "male"], r"known: 'F', 'M', got 'male' at data row 3"),
]


@pytest.mark.parametrize(("name", "values", "message"), BAD_STATIC)
def test_a_bad_static_value_is_refused_with_its_place(name, values, message):
    table = change(STATIC, name, values)
    with pytest.raises(InputError, match=message):
        assemble(SCHEMA, table, TEMPORAL, {}, where=("s.csv", "t.csv"))


def test_missing_repeated_and_empty_tables_are_refused():
    with pytest.raises(InputError, match=r"column\(s\) 'age' missing; there are: 'id'"):
        assemble(SCHEMA, STATIC.drop(["age"]), TEMPORAL, {})
    twice = STATIC.append_column("age", STATIC["age"])
    with pytest.raises(InputError, match=r"column\(s\) 'age' occur more than once"):
        assemble(SCHEMA, twice, TEMPORAL, {})
    with pytest.raises(InputError, match="static: empty table"):
        assemble(SCHEMA, STATIC.slice(0, 0), None, {})


def test_values_that_do_not_fit_their_dtype_are_not_written():
    data = assemble(SCHEMA, STATIC, TEMPORAL, {})
    cohort = data.cohort
    big = cohort.static._replace(numeric=cohort.static.numeric + 500.0)
    with pytest.raises(InputError, match="'age': values do not fit dtype 'int8'"):
        disassemble(data._replace(cohort=cohort._replace(static=big)))
    hot = cohort.temporal._replace(numeric=cohort.temporal.numeric * 10)
    with pytest.raises(
        InputError, match=r"finite and lie in \[0.0, 300.0\], got 800.0"
    ):
        disassemble(data._replace(cohort=cohort._replace(temporal=hot)))
    schema = SCHEMA.replace(id_dtype="int8")
    with pytest.raises(InputError, match="ids do not fit dtype 'int8'"):
        disassemble(data._replace(schema=schema, ids=np.array([1, 2, 300])))


def test_persons_without_a_column_are_not_lost(tmp_path):
    """They decide who is held out: the folder would hold other people."""
    data = assemble(SCHEMA, STATIC, TEMPORAL, {})
    one = data._replace(
        schema=SCHEMA.replace(group=None), groups=np.zeros(len(data.ids), int)
    )
    text = (
        r"groups of \d stay\(s\) are not their ids, .*schema.replace\(group='person'\)"
    )
    with pytest.raises(InputError, match=text):
        save_cohort(one, tmp_path / "cohort")
    assert not list(tmp_path.iterdir())
    named = one._replace(schema=SCHEMA.replace(group="person"))
    save_cohort(named, tmp_path / "cohort")
    np.testing.assert_array_equal(load_cohort(tmp_path / "cohort").groups, one.groups)


@pytest.fixture
def folder(tmp_path):
    save_cohort(assemble(SCHEMA, STATIC, TEMPORAL, {"source": "test"}), tmp_path / "c")
    return tmp_path / "c"


def test_a_folder_is_replaced_only_when_asked(folder):
    data = load_cohort(folder)
    with pytest.raises(InputError, match="already exists"):
        save_cohort(data, folder)
    save_cohort(data._replace(provenance={"source": "again"}), folder, overwrite=True)
    assert load_cohort(folder).provenance == {"source": "again"}
    save_cohort(data, folder, overwrite=True, shards=2)
    save_cohort(data, folder, overwrite=True)
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"c: holds notes.txt, which is not of a"):
        save_cohort(data, folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "precious"


def test_no_folder_and_missing_files_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        load_cohort(tmp_path / "nowhere")
    (folder / "static.parquet").unlink()
    with pytest.raises(
        InputError, match=r"not a cohort folder \(static.parquet missing\)"
    ):
        load_cohort(folder)


def test_a_truncated_table_and_foreign_provenance_are_refused(folder):
    path = folder / "temporal.parquet"
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(
            InputError, match=r"temporal.parquet: not a readable Parquet"
        ):
            load_cohort(folder)
    path.write_bytes(whole)
    (folder / "provenance.json").write_text("[]")
    with pytest.raises(InputError, match=r"provenance.json: must be a JSON object"):
        load_cohort(folder)


def test_an_unknown_category_in_a_folder_is_refused_with_the_file(folder):
    path = folder / "temporal.parquet"
    table = pq.read_table(path)
    pq.write_table(change(table, "state", [8] * table.num_rows), path)
    with pytest.raises(
        InputError, match=r"temporal.parquet: column 'state': unknown cat"
    ):
        load_cohort(folder)


def edit(path, *keys, value) -> dict:
    content = schema_to_json(SCHEMA)
    spot = content
    for key in keys[:-1]:
        spot = spot[key]
    spot[keys[-1]] = value
    return content


BAD_SCHEMA = [
    (("version",), 2, "schema version must be 1, got 2"),
    (("extra",), 1, "s.json: unknown key.s. 'extra'; known: 'version'"),
    (("static",), {}, "'static' must be list, got {}"),
    (("static", 0), 3, r"static\[0\]: must be an object, got 3"),
    (("static", 0, "unti"), "y", r"static\[0\] \(age\): unknown key\(s\) 'unti'"),
    (("static", 0, "lower"), "low", "'lower' must be int or float or null, got 'low'"),
    (("static", 0, "kind"), "nominal", "unknown kind 'nominal'; known: numeric"),
    (("static", 0, "dtype"), "int9", "dtype must be one of int8, .*, got 'int9'"),
    (("static", 0, "dtype"), "string", "integer 'age': dtype must be one of int8"),
    (
        ("static", 1, "categories"),
        ["F", 1],
        "'sex': categories 'F', 1 are not all values",
    ),
    (
        ("static", 1, "categories"),
        ["F", None],
        "values must be text, numbers or true/fal",
    ),
    (("static", 1, "categories"), ["F"], "kind 'binary' with 1 categories"),
    (("temporal", 1, "name"), "hr", r"column name\(s\) \['hr'\] occur more than once"),
    (("label", "classes"), [1], r"label 'died' has 1 class\(es\)"),
    (("label", "classes"), [[1], 2], r"classes: values must be text"),
    (("time", "num_steps"), 1.5, "'num_steps' must be int, got 1.5"),
    (("time", "num_steps"), True, "'num_steps' must be int, got True"),
    (("time", "step"), 0.5, "'time': dtype 'int64' cannot hold start 0.0 and step 0.5"),
    (("time", "dtype"), "string", "time 'time': dtype must be one of"),
    (("id",), {"dtype": "int64"}, r"id: key\(s\) 'name' missing"),
]


@pytest.mark.parametrize(("keys", "value", "message"), BAD_SCHEMA)
def test_a_bad_edit_of_the_schema_is_refused_with_its_place(keys, value, message):
    content = edit(None, *keys, value=value)
    with pytest.raises(InputError, match=message) as raised:
        schema_from_json(content, "s.json")
    assert str(raised.value).startswith("s.json")


def test_a_foreign_object_is_no_schema():
    for value in ([], {"fields": []}):
        with pytest.raises(
            InputError, match=r"not a schema of jaxehr \(no key 'version'\)"
        ):
            schema_from_json(value, "s.json")


def test_infinite_categories_are_refused():
    content = edit(None, "temporal", 1, "dtype", value="double")
    content["temporal"][1]["categories"] = [1.0, float("inf")]
    with pytest.raises(InputError, match=r"categories 1.0, inf are not all values"):
        schema_from_json(content, "s.json")


def test_a_schema_written_by_hand_may_leave_out_what_has_a_default():
    value = {
        "version": 1,
        "id": {"name": "pid"},
        "static": [{"name": "age", "kind": "numeric"}],
        "temporal": [],
    }
    schema = schema_from_json(value, "s.json")
    assert schema == Schema(static=(Feature(name="age", kind="numeric"),), id="pid")


def test_schemas_that_differ_are_told_apart():
    same_columns(SCHEMA, SCHEMA.replace(id="stay", group=None))
    hr = SCHEMA.temporal[0]
    same_columns(SCHEMA, replace_hr(upper=10.0, unit="1/min"))
    cases = [
        (
            replace_hr(name="pulse"),
            "temporal column 'hr' only in real.*'pulse' only in syn",
        ),
        (replace_hr(dtype="float"), "column 'hr': dtype 'double' against 'float'"),
        (SCHEMA.replace(static=SCHEMA.static[::-1]), "in another order"),
        (SCHEMA.replace(num_steps=5), r"num_steps: 4 against 5 \(1 difference"),
        (SCHEMA.replace(label=None), "label: 'died' with classes .* against None"),
    ]
    for other, message in cases:
        with pytest.raises(InputError, match=message):
            same_columns(SCHEMA, other)
    with pytest.raises(InputError, match="unit 'mmHg' against '1/min'"):
        same_columns(replace_hr(unit="mmHg"), replace_hr(unit="1/min"))
    assert hr.unit == ""


def replace_hr(**changes) -> Schema:
    hr, state = SCHEMA.temporal
    return SCHEMA.replace(temporal=(dataclasses.replace(hr, **changes), state))


@st.composite
def sparse_datasets(draw):
    """A dataset with binary temporal columns of every dtype as a sparse table."""
    data = draw(datasets())
    count, steps = len(data.ids), data.schema.num_steps
    if not steps:
        steps = 2
    kinds = draw(st.lists(st.sampled_from(["int8", "string"]), min_size=1, max_size=3))
    features = tuple(
        Feature(
            name=f"x {k}",
            kind="binary",
            dtype=kind,
            categories=(0, 1) if kind == "int8" else ("no", "yes"),
        )
        for k, kind in enumerate(kinds)
    )
    cells = count * steps * len(features)
    drawn = draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    length = draw(st.lists(st.integers(0, steps), min_size=count, max_size=count))
    codes = np.array(drawn).reshape(count, steps, len(features))
    table = from_dense(codes, np.array(length))
    cohort = make_cohort(data.cohort.static, table, np.array(length), data.cohort.label)
    schema = data.schema.replace(temporal=features, num_steps=steps)
    return data._replace(schema=schema, cohort=cohort)


@PATIENCE
@given(sparse_datasets())
def test_a_sparse_cohort_is_read_back_exactly_and_rewritten_byte_for_byte(data):
    with tempfile.TemporaryDirectory() as folder:
        first, second = pathlib.Path(folder, "a"), pathlib.Path(folder, "b")
        save_cohort(data, first)
        assert not (first / "temporal.parquet").exists()
        again = load_cohort(first)
        assert isinstance(again.cohort.temporal, SparseTable)
        ends = lambda d: d._replace(
            cohort=d.cohort._replace(temporal=d.cohort.temporal[:3])
        )
        assert_same(ends(data), ends(again))
        assert data.cohort.temporal[3:] == again.cohort.temporal[3:]
        save_cohort(again, second)
        for path in first.iterdir():
            assert path.read_bytes() == (second / path.name).read_bytes()


@pytest.fixture
def sparse_folder(tmp_path):
    features = (Feature(name="x", kind="binary", dtype="int8", categories=(0, 1)),)
    schema = SCHEMA.replace(static=(), temporal=features, group=None)
    length = np.array([4, 0, 2])
    table = from_dense(np.ones((3, 4, 1), int), length)
    static = empty_table((3,), ())
    cohort = make_cohort(static, table, length, np.array([0, 1, 1]))
    ids = np.array([3, 1, 2])
    save_cohort(Dataset(schema, cohort, ids, ids, {}), tmp_path / "cohort")
    return tmp_path / "cohort"


def test_a_stay_without_any_static_value_has_a_row(sparse_folder):
    data = load_cohort(sparse_folder)
    assert data.ids.tolist() == [3, 1, 2]
    assert not data.cohort.has_static.any()
    assert data.cohort.has_temporal.tolist() == [True, False, True]


def rewrite(path, **changes):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


DAMAGE = [
    ({"offsets": None}, "temporal.npz: damaged or not ours .its arrays"),
    ({"cells": np.zeros(6, np.int64)}, "its arrays do not fit together"),
    ({"cells": np.zeros(6, np.int32)}, "its arrays do not fit together"),
    ({"shape": np.array([3, 4])}, "its arrays do not fit together"),
    ({"shape": np.array([3, 4, -1])}, "its arrays do not fit together"),
    ({"cells": np.array([1, "a"], object)}, "temporal.npz: damaged or not ours"),
    ({"shape": np.array([3, 5, 1])}, r"holds \(3, 5, 1\) patients, steps and columns"),
]


@pytest.mark.parametrize(("changes", "message"), DAMAGE)
def test_a_damaged_sparse_table_is_refused(sparse_folder, changes, message):
    rewrite(sparse_folder / "temporal.npz", **changes)
    with pytest.raises(InputError, match=message) as raised:
        load_cohort(sparse_folder)
    assert "\n" not in str(raised.value)


def test_a_truncated_sparse_table_is_refused(sparse_folder):
    path = sparse_folder / "temporal.npz"
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"temporal\.npz: damaged or not ours"):
            load_cohort(sparse_folder)


def test_two_temporal_tables_or_other_columns_are_refused(sparse_folder):
    schema = json.loads((sparse_folder / "schema.json").read_text())
    feature = schema["temporal"][0]
    feature |= {"kind": "categorical", "categories": [0, 1, 2]}
    (sparse_folder / "schema.json").write_text(json.dumps(schema))
    with pytest.raises(InputError, match=r"1 column\(s\) .* not binary, e\.g\. 'x'"):
        load_cohort(sparse_folder)
    (sparse_folder / "temporal.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds both temporal\.npz and temporal"):
        load_cohort(sparse_folder)
