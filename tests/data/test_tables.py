"""Two tables of a user: inferred kinds and grid, exact values, and every refusal."""

import csv
import gzip
import json
import math

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxehr.core.checks import InputError
from jaxehr.data.assemble import disassemble
from jaxehr.data.infer import infer_schema
from jaxehr.data.raw_tables import open_tables
from jaxehr.data.schema_json import schema_to_json
from jaxehr.data.schema_rows import HEADER, schema_table
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.tables import TablesOptions, read

STATIC = [
    ["pid", "age", "sex", "height", "site", "died"],
    *[
        [i, 30 + i, "FM"[i % 2], 150.5 + i if i != 2 else "", "north", int(i % 3 == 0)]
        for i in range(1, 13)
    ],
]
TEMPORAL = [
    ["pid", "hour", "hr", "gcs", "rhythm", "vent"],
    *[
        [i, t, 70 + i + t / 4, 3 + (i + t) % 12, ("sr", "af", "pm")[(i + t) % 3], t % 2]
        for i in range(1, 12)
        for t in range(4)
    ],
]


def write(path, rows):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return str(path)


def cells(rows, changes):
    """A copy of `rows` with {(row, column): value} changed; row 0 is the header."""
    rows = [list(row) for row in rows]
    for (row, column), value in changes.items():
        rows[row][column] = value
    return rows


def options(folder, static=STATIC, temporal=TEMPORAL, **changes) -> TablesOptions:
    values = {"id": "pid", "time": "hour", "label": "died", **changes}
    if static:
        values["static"] = write(folder / "s.csv", static)
    if temporal:
        values["temporal"] = write(folder / "t.csv", temporal)
    return TablesOptions(**values)


def test_kinds_categories_bounds_and_grid_are_inferred(tmp_path):
    schema = infer_schema(options(tmp_path))
    found = {f.name: (f.kind, f.dtype) for f in (*schema.static, *schema.temporal)}
    assert found == {
        "age": ("integer", "int64"),
        "sex": ("binary", "string"),
        "height": ("numeric", "double"),
        "site": ("constant", "string"),
        "hr": ("numeric", "double"),
        "gcs": ("integer", "int64"),
        "rhythm": ("categorical", "string"),
        "vent": ("binary", "int64"),
    }
    age, sex, height, _ = schema.static
    for feature in (age, height):  # no extreme of a patient
        assert (feature.lower, feature.upper) == (0.0, None)
    assert sex.categories == ("F", "M")
    assert schema.temporal[2].categories == ("af", "pm", "sr")
    assert (schema.start, schema.step, schema.num_steps) == (0.0, 1.0, 4)
    assert (schema.id_dtype, schema.time_dtype) == ("int64", "int64")
    assert schema.label.classes == (0, 1)


def test_the_cohort_writes_the_tables_it_was_read_from(tmp_path):
    data = read(options(tmp_path))
    assert data.cohort.length.tolist() == [4] * 11 + [0]
    assert data.ids.tolist() == list(range(1, 13))
    static, temporal = disassemble(data)
    assert [list(row.values()) for row in static.to_pylist()] == [
        [value if value != "" else None for value in row] for row in STATIC[1:]
    ]
    assert [list(row.values()) for row in temporal.to_pylist()] == TEMPORAL[1:]


@pytest.mark.parametrize("ending", ["csv.gz", "parquet"])
def test_other_file_formats_give_the_same_cohort(tmp_path, ending):
    data = simulate(SimulateOptions(n=60, steps=5, seed=2))
    paths = []
    for name, table in zip(("static", "temporal"), disassemble(data)):
        path = tmp_path / f"{name}.{ending}"
        paths.append(str(path))
        if ending == "parquet":
            pq.write_table(table, path)
        else:
            rows = [
                ["" if v is None else v for v in r.values()] for r in table.to_pylist()
            ]
            write(path, [table.column_names, *rows])
    names = {"id": "id", "time": "time", "label": "outcome"}
    again = read(TablesOptions(static=paths[0], temporal=paths[1], **names))
    for left, right in zip(disassemble(data), disassemble(again)):
        assert left.column_names == right.column_names
        assert left.equals(right)


def test_parquet_types_are_kept(tmp_path):
    table = pa.table(
        {
            "id": pa.array(["a", "b", "c"], pa.large_string()),
            "flag": pa.array([True, None, False]),
            "small": pa.array([1, 2, 3], pa.int8()),
            "single": pa.array([0.1, 0.2, None], pa.float32()),
            "word": pa.array(["x", "y", "z"]).dictionary_encode(),
            "exact": pa.array([1, 2, 3], pa.int64()).cast(pa.decimal128(21, 2)),
            "zero": pa.array([0.0, 1.0, None]),
        }
    )
    pq.write_table(table, tmp_path / "s.parquet")
    data = read(TablesOptions(static=str(tmp_path / "s.parquet"), id="id"))
    kinds = {f.name: (f.kind, f.dtype) for f in data.schema.static}
    assert kinds["flag"] == ("binary", "bool")
    assert kinds["small"] == ("categorical", "int8")
    assert kinds["single"] == ("numeric", "float")
    assert kinds["exact"] == ("integer", "double")
    assert kinds["zero"] == ("binary", "double")
    again = disassemble(data)[0]
    for name in table.column_names:
        kept = table[name].cast("string" if name == "word" else again[name].type)
        assert again[name].equals(kept), name
    assert data.schema.id_dtype == "large_string"


def test_labels_come_from_a_third_file_and_stays_from_either_table(tmp_path):
    labels = write(
        tmp_path / "l.csv", [["pid", "y"], *[[i, "ab"[i % 2]] for i in range(9)]]
    )
    static = [row[:3] for row in STATIC[:1] + STATIC[3:6]]  # ids 3, 4, 5
    temporal = [TEMPORAL[0]] + [
        [*row[:2], *row[2:]] for row in TEMPORAL[1:] if row[0] in (1, 2, 4, 6, 7, 8)
    ]
    temporal += [[0, 0, 70.5, 3, "sr", 0]]
    data = read(options(tmp_path, static, temporal, label="y", labels=labels))
    assert data.ids.tolist() == [3, 4, 5, 1, 2, 6, 7, 8, 0]
    assert data.cohort.has_static.tolist() == [True] * 3 + [False] * 6
    assert data.cohort.has_temporal.tolist() == [False, True, False] + [True] * 6
    assert data.cohort.label.tolist() == [i % 2 for i in data.ids]


def test_one_table_alone_makes_a_cohort_and_groups_are_read(tmp_path):
    data = read(options(tmp_path, static=None, label=""))
    assert data.ids.tolist() == list(range(1, 12))
    assert data.schema.static == ()
    rows = [
        ["pid", "person", "age"],
        ["01", "p1", 3.5],
        ["02", "p1", 4.25],
        ["03", "p2", 5],
    ]
    path = write(tmp_path / "one.csv", rows)
    data = read(TablesOptions(static=path, id="pid", group="person"))
    assert data.ids.tolist() == ["01", "02", "03"]
    assert data.groups.tolist() == ["p1", "p1", "p2"]
    assert data.schema.id_dtype == "string"


def test_dated_rows_are_binned_by_mean_and_last(tmp_path):
    rows = [
        ["pid", "hour", "hr", "rhythm"],
        [1, 0.2, 60.0, "sr"],
        [1, 0.9, 70.5, "af"],
        [1, 2.5, 81.0, ""],
        [2, 1.0, 90.0, "sr"],
    ]
    data = read(options(tmp_path, None, rows, label="", step=1))
    assert data.schema.num_steps == 3
    assert data.cohort.length.tolist() == [3, 2]
    assert data.cohort.temporal.numeric[..., 0].tolist() == [[65.25, 0, 81], [0, 90, 0]]
    assert data.cohort.temporal.codes[0, :, 0].tolist() == [0, 0, 0]  # af
    assert data.cohort.temporal.observed[0].tolist() == [
        [True, True],
        [False, False],
        [True, False],
    ]
    short = read(options(tmp_path, None, rows, label="", step=1, hours=2))
    assert short.cohort.length.tolist() == [1, 2]


def test_hours_set_the_window_of_a_regular_grid(tmp_path):
    data = read(options(tmp_path, hours=2))
    assert data.schema.num_steps == 2
    assert data.cohort.length.tolist() == [2] * 11 + [0]
    assert data.provenance["outside"] == {"rows": 22, "stays": 0}
    rule = "hours 2.5 must be a whole multiple of step 1"
    with pytest.raises(InputError, match=rule):
        read(options(tmp_path, hours=2.5))
    data = read(options(tmp_path, hours=6))  # longer than any stay
    assert data.schema.num_steps == 6
    assert data.provenance["outside"] == {"rows": 0, "stays": 0}


@pytest.mark.parametrize("aggregate", ["mean", "nearest"])
def test_what_a_window_leaves_out_is_told(tmp_path, aggregate, capsys):
    from jaxehr.cli import main

    rows = [["pid", "hour", "hr"], *[[i, t, i + t / 4] for i in (1, 2) for t in (0, 1)]]
    rows += [[1, 1.75, 3.5], [1, 2.5, 3], [3, 5, 70.5], [3, 7, 71], [2, 6, 1]]
    content = infer_schema(options(tmp_path, None, rows, label="", step=1, hours=2))
    content = schema_to_json(content)
    content["temporal"][0]["aggregate"] = aggregate
    (tmp_path / "e.json").write_text(json.dumps(content))
    chosen = {"step": 1, "schema": str(tmp_path / "e.json")}
    chosen = options(tmp_path, None, rows, label="", **chosen)
    late = int(aggregate == "nearest")  # 1.75 belongs to 2
    data = read(chosen)
    assert data.provenance["outside"] == {"rows": 4 + late, "stays": 1}
    assert data.cohort.length.tolist() == [2, 2, 0]
    words = ["prepare", "tables", "--temporal", chosen.temporal, "--id", "pid"]
    words += ["--time", "hour", "--step", "1", "--schema", chosen.schema]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    told = f"; {4 + late} rows lie outside the window and are left out, 1 stays have"
    assert told in said


def test_an_edited_schema_takes_the_place_of_the_inferred_one(tmp_path):
    content = schema_to_json(infer_schema(options(tmp_path)))
    content["static"][0] |= {"kind": "numeric", "dtype": "double", "unit": "years"}
    content["temporal"][2]["categories"] = ["sr", "af", "pm", "vf"]
    del content["static"][3]
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(content))
    data = read(options(tmp_path, schema=str(path)))
    assert [f.name for f in data.schema.static] == ["age", "sex", "height"]
    assert data.schema.static[0].unit == "years"
    assert data.cohort.temporal.codes[0, 0, 0] == 1  # stay 1, hour 0: af
    content["temporal"][2]["categories"] = ["sr", "af"]
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError,
        match=r"t.csv: .*'rhythm': unknown category; known: 'sr'"
        r", 'af', got 'pm' at data row 2 \(id 1\); 15 of 44",
    ):
        read(options(tmp_path, schema=str(path)))
    with pytest.raises(
        InputError, match=r"schema.json: step is 1.0 there and 2 in the opt"
    ):
        read(options(tmp_path, schema=str(path), step=2))
    content["temporal"][2]["name"] = "rythm"
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"column 'rythm' of the schema is missing; there"
    ):
        read(options(tmp_path, schema=str(path)))


def test_an_edited_schema_bounds_and_types_the_raw_values(tmp_path):
    content = schema_to_json(infer_schema(options(tmp_path)))
    path = tmp_path / "schema.json"
    cases = [
        (
            0,
            {"upper": 80.0},
            r"'hr': values must lie in \[0.0, 80.0\], got '80.25' at da",
        ),
        (
            0,
            {"kind": "integer"},
            r"'hr': values must be integers, got '71.25' at data row 2",
        ),
        (
            2,
            {"kind": "numeric", "dtype": "double", "categories": []},
            "finite numbers, got",
        ),
    ]
    for place, change, message in cases:
        edited = json.loads(json.dumps(content))
        edited["temporal"][place] |= change
        path.write_text(json.dumps(edited))
        with pytest.raises(InputError, match=message):
            read(options(tmp_path, schema=str(path)))


def test_the_schema_is_shown_as_rows_for_review(tmp_path):
    data = read(options(tmp_path))
    rows = schema_table(data.schema, data)
    assert all(len(row) == len(HEADER) for row in rows)
    shown = {row[0]: row[1:] for row in rows}
    assert shown["height"] == [
        "static",
        "numeric",
        "double",
        "151.5 .. 162.5 (>= 0)",
        "8.3%",
        "",
    ]
    assert shown["rhythm"][3:5] == ["'af', 'pm', 'sr'", "0.0%"]
    assert shown["died"][:2] == ["label", ""]
    assert schema_table(data.schema)[0][4:6] == ["(>= 0)", ""]


BAD_TEMPORAL = [
    (
        {(3, 2): "high"},
        r"t.csv: column 'hr': .* numbers as 43 of 44 are, got 'high' at data row 3",
    ),
    ({(3, 2): "NaN"}, r"'hr': values must be finite, got 'NaN' at data row 3"),
    ({(3, 2): "inf"}, r"'hr': values must be finite, got 'inf' at data row 3"),
    (
        {(2, 1): 0},
        r"duplicate \(pid, hour\): .* got 2 rows for \(1, 0\), e.g. data rows 1 and 2",
    ),
    ({(2, 1): -1}, r"times must not be negative, got '-1' at data row 2 \(id 1\)"),
    ({(2, 1): ""}, r"needs a time, got None at data row 2"),
    ({(2, 1): "noon"}, r"times must be numbers, got 'noon' at data row 2"),
    (
        {(2, 1): 1.37},
        r"not on a regular grid \(smallest difference 0.37, 5 .* pass --step",
    ),
    ({(2, 1): 5000}, r"not on a regular grid .* e.g. 5000"),
    ({(2, 0): ""}, r"needs an id, got None at data row 2"),
    ({(i, 2): "" for i in range(1, 45)}, r"'hr': all 44 values are missing"),
    (
        {(i, 4): f"r{i}" for i in range(1, 45)},
        r"'rhythm': at most 20 categories .* got 44",
    ),
    ({(2, 0): 99}, r"label or group missing for 1 stay\(s\) of .*t.csv, e.g. id 99"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_TEMPORAL)
def test_a_bad_temporal_cell_is_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as raised:
        read(options(tmp_path, temporal=cells(TEMPORAL, changes)))
    assert "\n" not in str(raised.value)


BAD_STATIC = [
    ({(2, 0): 1}, r"s.csv: column 'pid': one row a stay is allowed, got 2 rows with 1"),
    ({(2, 5): ""}, r"label missing, got None at data row 2 \(id 2\); 1 of 12"),
    ({(i, 5): 1 for i in range(1, 13)}, r"label 'died' has 1 class\(es\) \[1\]"),
    ({(i, 1): "" for i in range(1, 13)}, r"'age': all 12 values are missing"),
    ({(2, 0): ""}, r"needs an id, got None at data row 2"),
    (
        {(0, 5): "dead"},
        r"column\(s\) 'died' missing; there are: 'pid', 'age', .*'dead'",
    ),
    ({(0, 0): "id"}, r"s.csv: column\(s\) 'pid' missing; there are: 'id'"),
    ({(0, 1): "SEX"}, r"column\(s\) 'SEX', 'sex' occur more than once"),
    ({(0, 1): ""}, r"column 2 of 6 has no name"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_STATIC)
def test_a_bad_static_cell_is_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read(options(tmp_path, static=cells(STATIC, changes)))


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.csv: no such file"):
        read(TablesOptions(static=str(tmp_path / "nowhere.csv"), id="pid"))
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(
        InputError, match=r"ending must be one of .csv, .csv.gz, .parquet"
    ):
        read(TablesOptions(static=str(tmp_path / "a.xlsx"), id="pid"))
    for content, message in (
        ("", "empty table; a header and one row are needed"),
        ("pid,age\n", "empty table; at least one row is needed"),
        ("pid,age\n1,2\n1,2,3\n", r"\(line 3 has 3 cells and the header 2; put cells"),
        ("pid,age\n1\n", r"\(line 2 has 1 cells and the header 2; put cells"),
        ('pid,age\n1,"2\n', r"\(the quote that begins in line 2 does not end\)"),
        ("pid,name\n1,ä\n".encode("latin-1"), "text is not UTF-8; save it as UTF-8"),
        ("pid,näme\n1,a\n".encode("utf-16"), "text is not UTF-8; save it as UTF-8"),
    ):
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(InputError, match=message) as raised:
            read(TablesOptions(static=str(tmp_path / "a.csv"), id="pid"))
        assert "\n" not in str(raised.value)
    for name in ("a.parquet", "a.csv.gz"):
        (tmp_path / name).write_bytes(b"PAR1 but not really")
        with pytest.raises(InputError, match=f"{name}: not a readable table"):
            read(TablesOptions(static=str(tmp_path / name), id="pid"))


def test_names_that_queries_cannot_hold_are_refused(tmp_path):
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"pid": [1, 2], "x": [1, 2], "X": [3, 4]}), path)
    with pytest.raises(InputError, match=r"s.parquet: column\(s\) 'x', 'X' occur more"):
        read(TablesOptions(static=str(path), id="pid"))
    pq.write_table(pa.table({"pid": [1, 2], "__index_level_0__": [0, 1]}), path)
    with pytest.raises(InputError, match="'__index_level_0__' has no name; write the"):
        read(TablesOptions(static=str(path), id="pid"))
    for name in ("jaxehr_row", "jaxehr_bin"):
        message = f"'{name}': names that begin with jaxehr_ are taken; rename them"
        with pytest.raises(InputError, match=message):
            read(options(tmp_path, static=cells(STATIC, {(0, 1): name})))


def test_too_little_memory_or_space_later_on_is_refused(tmp_path):
    message = r"s.csv, .*t.csv: cannot be prepared \(no space\); free memory and space"
    with pytest.raises(InputError, match=message), open_tables(options(tmp_path)):
        raise duckdb.OutOfMemoryException("no\n space")


def test_dates_and_large_grids_are_refused(tmp_path):
    table = pa.table({"pid": [1, 2], "born": pa.array([1, 2], pa.date32())})
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(
        InputError, match=r"'born': the type date32\[day\] is not supported"
    ):
        read(TablesOptions(static=str(tmp_path / "s.parquet"), id="pid"))
    times = pa.array([1, 2], pa.timestamp("s"))
    pq.write_table(pa.table({"pid": [1, 2], "hour": times}), tmp_path / "t.parquet")
    with pytest.raises(
        InputError, match=r"times must be numbers, got the type timestamp"
    ):
        read(TablesOptions(temporal=str(tmp_path / "t.parquet"), id="pid", time="hour"))
    rows = cells(TEMPORAL, {(2, 1): 4e9})
    with pytest.raises(
        InputError, match=r"12 stays of 4000000001 steps need .*pass --hours"
    ):
        read(options(tmp_path, temporal=rows, step=1))


def test_labels_that_do_not_match_the_stays_are_refused(tmp_path):
    static = [row[:3] for row in STATIC]
    for ids, message in (
        (
            range(1, 14),
            r"l.csv: column 'pid': every id has to occur .* got 13 at data row 13",
        ),
        (range(1, 12), r"l.csv: label missing for 1 of 12 stays, e.g. id 12"),
        ([*range(1, 13), 1], r"l.csv: column 'pid': one row a stay is allowed, got 2"),
    ):
        labels = write(tmp_path / "l.csv", [["pid", "y"], *[[i, i % 2] for i in ids]])
        with pytest.raises(InputError, match=message):
            read(options(tmp_path, static=static, label="y", labels=labels))


def test_ids_of_another_type_are_refused(tmp_path):
    content = schema_to_json(infer_schema(options(tmp_path)))
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"s.csv: column 'pid': ids must be int64, got 'x'"
    ):
        read(options(tmp_path, static=cells(STATIC, {(2, 0): "x"}), schema=str(path)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give --static, --temporal or both"),
        ({"temporal": "t.csv"}, "--temporal needs --time"),
        ({"static": "s.csv", "time": "hour"}, "--hours belong to --temporal"),
        ({"static": "s.csv", "step": 1}, "--hours belong to --temporal"),
        ({"static": "s.csv", "labels": "l.csv"}, "--labels needs --label"),
        (
            {"temporal": "t.csv", "time": "h", "label": "y"},
            "needs --static or --labels",
        ),
        ({"temporal": "t.csv", "time": "h", "group": "g"}, "--group needs --static"),
        ({"static": "s.csv", "step": -1}, "finite and not negative, got -1 and 0"),
        (
            {"static": "s.csv", "missing_values": "NA"},
            r"missing_values must be a tuple, such as \('NA',\)",
        ),
        ({"static": "s.csv", "text_columns": "ward"}, "text_columns must be a tuple"),
        ({"static": "s.csv", "step": math.nan}, "finite and not negative, got nan"),
        ({"static": "s.csv", "hours": math.inf}, "not negative, got 0 and inf"),
        (
            {"static": "s.csv", "max_categories": 0},
            "max_categories must be positive, got 0",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        TablesOptions(id="pid", **values)


def test_no_sorted_order_is_lost_on_many_rows(tmp_path):
    """Row numbers and order survive DuckDB's parallel scan of a longer file."""
    count = 30_000
    order = np.random.default_rng(0).permutation(count)
    rows = [["pid", "x"], *[[int(i), i / 8] for i in order]]
    rows[20_001][1] = "bad"
    path = write(tmp_path / "s.csv", rows)
    with pytest.raises(InputError, match="got 'bad' at data row 20001; 1 of 30000"):
        read(TablesOptions(static=path, id="pid"))
    rows[20_001][1] = 0.5
    data = read(TablesOptions(static=write(tmp_path / "s.csv", rows), id="pid"))
    np.testing.assert_array_equal(data.ids, order)
