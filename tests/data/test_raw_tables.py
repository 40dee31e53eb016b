"""What files of a user hold beside numbers: codes, marks, ids, odd types, units."""

import decimal
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_tables import STATIC, TEMPORAL, cells, options, write

from jaxehr.api import read_tables
from jaxehr.core.checks import InputError
from jaxehr.data.assemble import assemble, disassemble
from jaxehr.data.infer import infer_schema
from jaxehr.data.meds_export import save_meds
from jaxehr.data.schema_json import schema_to_json
from jaxehr.data.schema_rows import schema_table
from jaxehr.data.store import load_cohort, save_cohort
from jaxehr.data.tables import TablesOptions, read


def one_column(folder, values, **changes):
    """Options of a static file of an id and the column x."""
    rows = [["pid", "x"], *[[i, value] for i, value in enumerate(values)]]
    return TablesOptions(static=write(folder / "x.csv", rows), id="pid", **changes)


def parquet(folder, columns, name="s.parquet"):
    pq.write_table(pa.table(columns), folder / name)
    return str(folder / name)


def test_a_path_may_be_an_object(tmp_path):
    chosen = options(tmp_path, label="")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(schema_to_json(infer_schema(chosen))))
    paths = map(pathlib.Path, (chosen.static, chosen.temporal))
    data = read_tables(*paths, id="pid", time="hour", schema=schema)
    assert data.provenance["files"]["schema"] == "schema.json"


# Bounds


def test_no_extreme_of_a_patient_is_in_the_schema(tmp_path):
    values = [[i, -1.5 + i / 4, 20 + i, 0.25 * i, i - 3] for i in range(40)]
    path = write(tmp_path / "s.csv", [["pid", "a", "b", "c", "d"], *values])
    data = read(TablesOptions(static=path, id="pid"))
    bounds = {f.name: (f.lower, f.upper) for f in data.schema.static}
    nothing, zero = (None, None), (0.0, None)
    assert bounds == {"a": nothing, "b": zero, "c": zero, "d": nothing}
    shown = {row[0]: row[4] for row in schema_table(data.schema, data)}
    assert shown["a"] == "-1.5 .. 8.25"
    assert shown["b"] == "20 .. 59 (>= 0)"


# Texts among numbers


def test_numbers_with_leading_zeros_are_codes(tmp_path):
    feature = read(one_column(tmp_path, ["007", "01234", "12", "0", "007"])).schema
    assert feature.static[0].categories == ("0", "007", "01234", "12")
    labels = [["pid", "x", "y"], *[[i, i / 8, f"0{i % 2}"] for i in range(30)]]
    path = write(tmp_path / "s.csv", labels)
    label = read(TablesOptions(static=path, id="pid", label="y")).schema.label
    assert (label.classes, label.dtype) == (("00", "01"), "string")
    plain = read(one_column(tmp_path, ["0", "0.5", "-0.25", "10", "0"])).schema
    assert plain.static[0].kind == "numeric"
    times = [["pid", "hour", "x"], *[[1, f"{t:02}", t / 4] for t in range(12)]]
    found = read(options(tmp_path, None, times, label=""))  # times are numbers
    assert (found.schema.time_dtype, found.schema.num_steps) == ("int64", 12)
    with pytest.raises(InputError, match=r"got 30 \(e.g. '00'; numbers with leading"):
        read(one_column(tmp_path, [f"{i:02}" for i in range(30)]))


ODD = [
    (["0", "1", "NULL"] * 5, "5 of 15 rows are bad. Not a number: 'NULL'. Add"),
    ([*map(str, range(30)), "."], "as 30 of 31 are, got '.' at data row 31"),
    (["1", "2", "3", r"\N", "None"], r"Not a number: 'None', '.*N'. Add"),
    (["007", "008", "NULL"], "Not a number: 'NULL'"),
    (["36,6", "37", "38,25"], "decimal point .* got '36,6' at data row 1"),
    (["1,234", "", "NULL", "2,345"], "Write 36.6 for 36,6 and 1234 for 1,234"),
    (
        ["0.5", "<0.1", "2", "<0.1"],
        "limits of what .* got '<0.1' at data row 2.* 0.05",
    ),
    (["NaN", "a", "1", "2", "3"], "as 3 of 5 are, got 'NaN' .* number: 'NaN', 'a'"),
]


@pytest.mark.parametrize(("values", "message"), ODD)
def test_odd_texts_among_numbers_are_named_with_a_way_out(tmp_path, values, message):
    with pytest.raises(InputError, match=message) as raised:
        read(one_column(tmp_path, values))
    assert "--text-columns" in str(raised.value)
    assert "\n" not in str(raised.value)
    words = read(one_column(tmp_path, values, text_columns=("x",), max_categories=40))
    found = words.schema.static[0]
    assert (found.dtype, len(found.categories)) == ("string", len({*values} - {""}))


def test_missing_values_have_the_texts_of_the_options(tmp_path):
    values = ["0.5", "NULL", "2", ".", r"\N", "", "0.25"]
    chosen = one_column(tmp_path, values, missing_values=("NULL", ".", r"\N"))
    data = read(chosen)
    assert data.schema.static[0].kind == "numeric"
    assert data.cohort.static.observed[:, 0].sum() == 3
    assert data.cohort.static.numeric[[0, 2, 6], 0].tolist() == [0.5, 2, 0.25]
    words = read(one_column(tmp_path, ["NA", "EU", "AS"], missing_values=()))
    assert words.schema.static[0].categories == ("AS", "EU", "NA")
    for odd in ("1", "NaN"):  # no column of numbers
        more = read(one_column(tmp_path, [odd, "a", "b", odd, odd]))
        assert more.schema.static[0].categories == (odd, "a", "b")
    groups = read(one_column(tmp_path, ["<65", ">=65", "<65"]))
    assert groups.schema.static[0].kind == "binary"
    with pytest.raises(InputError, match="unknown column 'z'; known: pid, x"):
        read(one_column(tmp_path, values, text_columns=("z",)))


def test_spaces_make_no_category_and_no_stay(tmp_path):
    rows = [["pid", "x", "y"], ["a ", "F", " NA "], ["b", "F ", 2], [" c", " M", " "]]
    times = [["pid", "t", "z"], ["a", 0, "1 "], [" a", 1, " 2.5"], ["b", 0, "NA"]]
    static, temporal = (
        write(tmp_path / f"{name}.csv", table)
        for name, table in (("s", rows), ("t", times))
    )
    data = read(TablesOptions(static=static, temporal=temporal, id="pid", time="t"))
    assert data.ids.tolist() == ["a", "b", "c"]
    assert data.schema.static[0].categories == ("F", "M")
    assert data.cohort.static.observed[:, 1].tolist() == [False, True, False]
    assert data.cohort.temporal.numeric[0, :, 0].tolist() == [1, 2.5]


def test_texts_of_missing_values_are_missing_in_parquet_too(tmp_path):
    words = pa.array(["F", "NA", "", "M ", " F"])
    columns = {"pid": range(5), "x": words, "y": words.dictionary_encode()}
    chosen = {"static": parquet(tmp_path, columns), "id": "pid"}
    data = read(TablesOptions(**chosen))
    for feature, seen in zip(data.schema.static, data.cohort.static.observed.T):
        assert feature.categories == ("F", "M")
        assert seen.tolist() == [True, False, False, True, True]
    data = read(TablesOptions(**chosen, missing_values=("F", "M")))
    assert data.schema.static[0].categories == ("NA",)
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema_to_json(data.schema)))
    with pytest.raises(InputError, match="'NA' is a category there and a missing"):
        read(TablesOptions(**chosen, schema=str(path)))


def test_padded_ids_of_parquet_are_those_of_csv(tmp_path):
    rows = [["pid", "x"], ["a", 1.5], ["bcd", 2.5]]
    static = write(tmp_path / "s.csv", rows)
    columns = {"pid": ["a  ", "bcd"], "t": [0, 0], "z": [0.5, 1.5]}
    temporal = parquet(tmp_path, columns)
    chosen = TablesOptions(static=static, temporal=temporal, id="pid", time="t")
    assert read(chosen).ids.tolist() == ["a", "bcd"]


@pytest.mark.parametrize("name", ["x[1]", "x*", "x?"])
def test_a_name_is_no_pattern(tmp_path, name):
    for stem, value in ((name, 0.5), ("x1", 1.5)):
        path = write(tmp_path / f"{stem}.csv", [["pid", "x"], [1, value], [2, 3.25]])
        pq.write_table(pa.table({"pid": [1, 2], "x": [value, 3.25]}), f"{path}.parquet")
    for ending in (".csv", ".csv.parquet"):
        data = read(TablesOptions(static=str(tmp_path / name) + ending, id="pid"))
        assert data.cohort.static.numeric[:, 0].tolist() == [0.5, 3.25]


def test_codes_with_an_underscore_are_texts(tmp_path):
    values = ["1_1", "1_2", "2_1", "1_1", "2_2"]
    found = read(one_column(tmp_path, values)).schema.static[0]
    assert (found.dtype, found.categories) == ("string", ("1_1", "1_2", "2_1", "2_2"))
    chosen = one_column(tmp_path, ["1", "2", "1", "2", "1"])
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema_to_json(infer_schema(chosen))))
    for odd in ("0x1", "1_1", "1.5"):
        changed = one_column(tmp_path, ["1", odd, "2"], schema=str(path))
        with pytest.raises(InputError, match=f"unknown category; .* got '{odd}'"):
            read(changed)


# Ids


def test_stays_of_one_file_only_are_counted(tmp_path, capsys):
    from jaxehr.cli import main

    static = [row[:5] for row in STATIC[:1] + STATIC[3:]]  # ids 3 to 12
    chosen = options(tmp_path, static, label="")
    data = read(chosen)
    assert data.provenance["unmatched"] == {"static": 1, "temporal": 2}
    words = ["prepare", "tables", "--static", chosen.static, "--id", "pid"]
    words += ["--temporal", chosen.temporal, "--time", "hour"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "12 patients" in said
    assert said.endswith("; only in static: 1 stays, only in temporal: 2\n")
    assert read(options(tmp_path, None, label="")).provenance["unmatched"] == {}


def test_files_without_a_common_id_are_refused(tmp_path):
    static = [STATIC[0], *[[f"P{row[0]}", *row[1:]] for row in STATIC[1:]]]
    for label in ("", "died"):
        with pytest.raises(
            InputError,
            match=r"s.csv and .*t.csv: column 'pid': no id is in both, e.g. "
            "'P1' there and '1' here",
        ):
            read(options(tmp_path, static, label=label))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array([True, False]), "ids must be whole numbers or text, got the type bo"),
        (pa.array([1, 2], pa.timestamp("s")), "got the type timestamp"),
        (pa.array([b"a", b"b"]), "got the type binary"),
        (
            pa.array([1.0, 2.5]),
            "ids must be whole numbers or text, got 2.5 at data row 2",
        ),
        (pa.array([1.0, np.nan]), "ids must be whole numbers or text, got nan"),
        (pa.array([1.0, 1e300]), r"ids must be int64, got 1e\+300 at data row 2"),
        (
            pa.array([1, 2**63], pa.uint64()),
            "ids must be int64, got 9223372036854775808",
        ),
    ],
)
def test_ids_of_other_types_are_refused(tmp_path, ids, message):
    path = parquet(tmp_path, {"pid": ids, "x": [0.5, 1.5]})
    with pytest.raises(InputError, match=message) as raised:
        read(TablesOptions(static=path, id="pid"))
    assert "\n" not in str(raised.value)
    times = parquet(tmp_path, {"pid": ids, "t": [0, 1], "x": [0.5, 1.5]}, "t.parquet")
    with pytest.raises(InputError, match=message):
        read(TablesOptions(temporal=times, time="t", id="pid"))


def test_whole_doubles_are_ids_and_equal_text(tmp_path):
    path = parquet(tmp_path, {"pid": [3.0, 7.0], "x": [0.5, 1.5]})
    assert read(TablesOptions(static=path, id="pid")).ids.tolist() == [3, 7]
    times = {"pid": pa.array(["7", "a"]), "t": [0, 1], "y": [0.5, 1.5]}
    times = parquet(tmp_path, times, "t.parquet")
    data = read(TablesOptions(static=path, temporal=times, time="t", id="pid"))
    assert data.ids.tolist() == ["3", "7", "a"]


def test_fractions_are_no_ids_of_an_edited_schema(tmp_path):
    content = schema_to_json(infer_schema(options(tmp_path)))
    (tmp_path / "schema.json").write_text(json.dumps(content))
    static = cells(STATIC, {(2, 0): 1.5})
    with pytest.raises(InputError, match=r"ids must be int64, got '1.5' at data row 2"):
        read(options(tmp_path, static, schema=str(tmp_path / "schema.json")))


def test_ids_of_a_damaged_shard_are_refused(tmp_path):
    save_cohort(read(options(tmp_path)), tmp_path / "cohort", shards=2)
    path = tmp_path / "cohort" / "shards" / "00000" / "static.parquet"
    table = pq.read_table(path)
    broken = pa.array([f"p{i}" for i in range(len(table))])
    pq.write_table(table.set_column(0, "pid", broken), path)
    with pytest.raises(InputError, match="ids must be int64, got the type string"):
        load_cohort(tmp_path / "cohort")


# Time


def test_the_unit_of_the_time_is_kept(tmp_path):
    data = read(options(tmp_path, time_unit="min"))
    assert data.schema.time_unit == "min"
    assert read(options(tmp_path)).schema.time_unit == "h"
    save_meds(data, tmp_path / "meds")
    times = pq.read_table(tmp_path / "meds" / "data")["time"].drop_null().to_numpy()
    assert times.max() - times.min() == np.timedelta64(3 * 60, "s")
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema_to_json(data.schema)))
    assert read(options(tmp_path, schema=str(path))).schema.time_unit == "min"
    with pytest.raises(InputError, match="time unit is 'min' there and 'd' in the opt"):
        read(options(tmp_path, schema=str(path), time_unit="d"))


@pytest.mark.parametrize("step", [0, 1])
def test_hours_have_to_be_those_of_the_schema(tmp_path, step):
    path = tmp_path / "schema.json"
    for steps in (4, 2):  # of times 0 to 3
        schema = infer_schema(options(tmp_path, step=step, hours=steps))
        path.write_text(json.dumps(schema_to_json(schema)))
        chosen = {"schema": str(path), "step": step}
        data = read(options(tmp_path, hours=steps, **chosen))
        assert data.cohort.length.max() == steps
        other = 6 - steps
        with pytest.raises(
            InputError,
            match=rf"the window is {steps} h there \({steps} steps\) and {other} in",
        ):
            read(options(tmp_path, hours=other, **chosen))
    schema = infer_schema(options(tmp_path, step=step))
    path.write_text(json.dumps(schema_to_json(schema)))
    again = read(options(tmp_path, hours=48, **chosen))  # nothing is after 4 h
    assert again.schema.num_steps == 4


def test_rows_of_one_time_are_binned(tmp_path):
    rows = [["pid", "hour", "hr"], [1, 0.5, 60.5], [1, 0.5, 70.5], [2, 1, 81.25]]
    chosen = options(tmp_path, None, rows, label="", step=1)
    data = read(chosen)
    assert data.cohort.temporal.numeric[:, :, 0].tolist() == [[65.5, 0], [0, 81.25]]
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema_to_json(data.schema)))
    again = read(options(tmp_path, None, rows, label="", step=1, schema=str(path)))
    np.testing.assert_array_equal(again.cohort.temporal[0], data.cohort.temporal[0])
    with pytest.raises(
        InputError,
        match=r"duplicate .* Pass --step to bin them\. Every variable needs",
    ):
        read(options(tmp_path, None, rows, label=""))


def test_a_grid_that_needs_too_much_memory_is_refused(tmp_path):
    rows = cells(TEMPORAL, {(2, 1): 900_000, (7, 1): 800_000})
    with pytest.raises(
        InputError,
        match=r"12 stays of 900001 steps need 0.9 GB, more than --memory-limit 500MB; "
        r"the longest is id '1' with the time 900000 at data row 2. Correct it, or",
    ):
        read(options(tmp_path, temporal=rows, step=1, memory_limit="500MB"))
    with pytest.raises(InputError, match=r"memory_limit must be a size .* got 'much'"):
        options(tmp_path, memory_limit="much")


# Types of Parquet files


def test_nan_in_parquet_has_its_own_way_out(tmp_path):
    path = parquet(tmp_path, {"pid": [1, 2, 3], "x": [0.5, np.nan, 1.5]})
    with pytest.raises(InputError, match=r"got nan at .* Write null for a missing va"):
        read(TablesOptions(static=path, id="pid"))


def test_decimals_become_integers_or_doubles(tmp_path):
    draw = [decimal.Decimal(i) / 4 for i in range(40)]
    whole = [decimal.Decimal(i) for i in range(40)]
    columns = {
        "pid": pa.array(whole, pa.decimal128(12, 0)),
        "a": pa.array(draw, pa.decimal128(12, 2)),
        "b": pa.array(whole, pa.decimal128(12, 0)),
        "c": pa.array([value % 2 for value in whole], pa.decimal128(5, 0)),
        "d": pa.array([value % 2 for value in whole], pa.decimal128(5, 1)),
    }
    data = read(TablesOptions(static=parquet(tmp_path, columns), id="pid", label="c"))
    kinds = {f.name: (f.kind, f.dtype) for f in data.schema.static}
    assert kinds == {
        "a": ("numeric", "double"),
        "b": ("integer", "int64"),
        "d": ("binary", "double"),
    }
    assert data.schema.id_dtype == "int64"
    assert data.schema.label.classes == (0, 1)
    np.testing.assert_array_equal(data.cohort.static.numeric[:, 0], np.arange(40) / 4)


@pytest.mark.parametrize("step", [0, 0.1])
def test_times_of_32_bits_are_the_decimals_they_show(tmp_path, step):
    grid = np.arange(100) / 10
    columns = {
        "pid": np.repeat([1, 2], 100),
        "t": pa.array(np.tile(grid, 2), pa.float32()),
        "x": np.arange(200) + 0.5,
    }
    path = parquet(tmp_path, columns, "t.parquet")
    chosen = TablesOptions(temporal=path, time="t", id="pid", step=step)
    data = read(chosen)
    assert data.cohort.temporal.observed.sum() == 200
    assert data.schema.time_dtype == "double"
    save_cohort(data, tmp_path / "cohort")
    again = load_cohort(tmp_path / "cohort")
    np.testing.assert_array_equal(again.cohort.temporal[0], data.cohort.temporal[0])
    table = pq.read_table(tmp_path / "cohort" / "temporal.parquet")
    assert table["t"].to_pylist() == grid.tolist() * 2


def test_a_grid_of_halves_keeps_its_32_bits(tmp_path):
    times = pa.array([0, 0.5, 1.5], pa.float32())
    path = parquet(tmp_path, {"pid": [1, 1, 1], "t": times, "x": [0.5, 1, 2]})
    schema = read(TablesOptions(temporal=path, time="t", id="pid")).schema
    assert (schema.time_dtype, schema.step, schema.num_steps) == ("float", 0.5, 4)
    thirds = schema.replace(step=1 / 3, num_steps=3000)  # an edited schema
    at = pa.array([0, 1 / 3, 2999 / 3], pa.float32())
    static = pa.table({"pid": [1]})
    rows = pa.table({"pid": [1, 1, 1], "t": at, "x": [0.5, 1, 2]})
    data = assemble(thirds, static, rows, {})
    assert np.flatnonzero(data.cohort.temporal.observed[0]).tolist() == [0, 1, 2999]
    again = assemble(thirds, *disassemble(data), {})
    np.testing.assert_array_equal(again.cohort.length, data.cohort.length)
    off = rows.set_column(1, "t", pa.array([0, 1 / 3, 999.5], pa.float32()))
    with pytest.raises(InputError, match=r"multiples of 0.333333 from 0, got 999.5"):
        assemble(thirds, static, off, {})


LARGE = 123456789012345678


@pytest.mark.parametrize("places", ["", ".0", "0"])
def test_integers_that_doubles_round_are_refused(tmp_path, places):
    values = [LARGE + i for i in range(12)]
    rule = r"integers must lie in \[-2\*\*53, 2\*\*53\], got .*12345678.* at data row"
    with pytest.raises(InputError, match=rule):
        read(one_column(tmp_path, [f"-{value}{places}" for value in values]))
    path = parquet(tmp_path, {"pid": list(range(12)), "x": values})
    with pytest.raises(InputError, match=rule + " 1 .id 0.; 12 of 12"):
        read(TablesOptions(static=path, id="pid"))
    exact = [2**53 - i for i in range(12)]
    data = read(one_column(tmp_path, exact))
    assert data.cohort.static.numeric[:, 0].astype(int).tolist() == exact
    few = [LARGE, LARGE + 1] * 6  # codes are no numbers
    assert read(one_column(tmp_path, few)).schema.static[0].categories == tuple(few[:2])
