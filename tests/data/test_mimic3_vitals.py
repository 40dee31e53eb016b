"""TimeDiff's MIMIC-III cohort: rules on invented rows, the demo against plain SQL."""

import gzip
import json
import os
import signal
import subprocess
import sys
import tarfile

import duckdb
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from mimic3_tables import ADMISSIONS, ICUSTAYS, chart, write_tables

from jaxehr.cli import main
from jaxehr.core.checks import InputError
from jaxehr.data.mimic3 import Mimic3Options, read

HR, SBP, ARTERIAL, FAHRENHEIT, CELSIUS, SPO2 = (
    220045,
    220179,
    220050,
    223761,
    223762,
    220277,
)
GLUCOSE, CAREVUE = 220621, 211
ROWS = [
    (111, GLUCOSE, "02:00:00", "90", ""),  # no feature, but the first charttime
    (111, HR, "02:10:00", "60", "bpm"),
    (111, HR, "02:30:00", "61", "bpm"),  # half past 0 is hour 0, but 02:00 is nearer
    (111, HR, "03:20:00", "70", "bpm"),  # hour 1, 20 minutes late
    (111, HR, "02:40:00", "71", "bpm"),  # hour 1, 20 minutes early: the earlier counts
    (111, SBP, "02:40:00", "100", "mmHg"),
    (111, ARTERIAL, "02:40:00", "111", "mmHg"),  # mean with the line above
    (111, FAHRENHEIT, "02:40:00", "98.6", "?F"),
    (111, CELSIUS, "02:40:00", "37.1", "?C"),
    (
        111,
        HR,
        "03:30:00",
        "0",
        "bpm",
    ),  # half past 1 is hour 2 (even); 0 is out of range
    (111, SPO2, "2101-01-02 02:30:00", "100", "%"),  # 24.5 h is hour 24; 100 is kept
    (111, SPO2, "2101-01-02 02:30:01", "90", "%"),  # past it
    (111, CAREVUE, "02:00:00", "88", "BPM"),  # not a MetaVision item
    (121, HR, "10:00:00", "80", "bpm"),
    (211, HR, "10:00:00", "90", "bpm"),
    (211, 220180, "10:00:00", "60", "mmHg"),
    (211, 220181, "10:00:00", "75", "mmHg"),
    (211, 224690, "10:00:00", "18", "insp/min"),
]


@pytest.fixture
def folder(tmp_path):
    return write_tables(tmp_path / "mimic", CHARTEVENTS=chart(ROWS))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    return read([write_tables(folder, CHARTEVENTS=chart(ROWS))])


def values(data, stay, name):
    """{hour: value} of one variable of one stay."""
    at = [f.name for f in data.schema.temporal].index(name)
    row = data.ids.tolist().index(stay)
    table = data.cohort.temporal
    hours = np.flatnonzero(table.observed[row, :, at])
    return {int(hour): float(table.numeric[row, hour, at]) for hour in hours}


def test_rules_of_the_cohort(expected):
    data = expected
    assert data.ids.tolist() == [111, 121, 211]
    assert data.groups.tolist() == [1, 1, 2]
    assert data.cohort.length.tolist() == [25, 25, 25]
    assert values(data, 111, "heart_rate") == {1: 71.0}
    assert values(data, 111, "sbp") == {1: 105.5}
    assert values(data, 111, "temp") == {1: 37.05}
    assert values(data, 111, "spo2") == {24: 100.0}
    assert values(data, 121, "heart_rate") == {0: 80.0}
    assert data.cohort.label.tolist() == [0, 1, 0]
    counts = data.provenance["variables"]["heart_rate"]
    assert counts == {"values": 7, "implausible": 1}


def test_label_of_the_first_admission_as_published(folder):
    data = read([folder], Mimic3Options(label_as_timediff=True))
    assert data.cohort.label.tolist() == [0, 0, 0]


def test_steps_queries_and_hashes_are_recorded(expected, folder):
    made = expected.provenance
    again = read([folder]).provenance
    assert made == again  # the text of the queries too
    assert made["steps"][0] == {
        "step": "ICU stays with an admission",
        "rows": 3,
        "patients": 2,
        "stays": 3,
    }
    assert [row["rows"] for row in made["steps"]] == [3, 17, 17, 16, 6]
    assert "220179" in made["queries"]["CHARTEVENTS"]
    assert set(made["files"]) == {"ADMISSIONS", "CHARTEVENTS", "ICUSTAYS"}
    assert len(made["files"]["ICUSTAYS"]["ICUSTAYS.csv"]) == 64


@pytest.mark.parametrize("form", ["CSV.GZ", "parquet", "parts", "upper", "semicolon"])
def test_forms_of_the_tables(folder, expected, form):
    for path in sorted(folder.glob("*.csv")):
        text = path.read_text()
        path.unlink()
        if form == "CSV.GZ":
            path.with_suffix(".CSV.GZ").write_bytes(gzip.compress(text.encode()))
        elif form == "upper":
            head, _, rest = text.partition("\n")
            (folder / path.name.lower()).write_text(head.upper() + "\n" + rest)
        elif form == "semicolon":
            path.write_text(text.replace(",", ";"))
        else:
            path.write_text(text)
            table = pyarrow.csv.read_csv(path)
            path.unlink()
            target = path.with_suffix(".parquet")
            if form == "parts":
                target.mkdir()
                pq.write_table(table.slice(0, 2), target / "part-0.parquet")
                pq.write_table(table.slice(2), target / "part-1.parquet")
            else:
                pq.write_table(table, target)
    found = read([folder])
    np.testing.assert_array_equal(found.ids, expected.ids)
    for one, other in zip(found.cohort.temporal, expected.cohort.temporal):
        np.testing.assert_array_equal(one, other)


def test_parts_of_the_split_are_disjoint_and_whole(folder):
    parts = [
        set(read([folder], Mimic3Options(part=part, test_fraction=0.5)).ids.tolist())
        for part in ("train", "test")
    ]
    assert parts[0] | parts[1] == {111, 121, 211}
    assert not parts[0] & parts[1]
    assert ({111, 121} <= parts[0]) or ({111, 121} <= parts[1])
    with pytest.raises(InputError, match="part 'test' holds none of 3 stays"):
        read([folder], Mimic3Options(part="test", test_fraction=1e-9, split_by="stay"))


def test_options_are_checked():
    with pytest.raises(
        InputError, match="test_fraction must lie between 0 and 1, got 2"
    ):
        Mimic3Options(test_fraction=2)
    with pytest.raises(InputError, match=r"like 2GB or 500MB, got '2'"):
        Mimic3Options(memory_limit="2")


BAD = {
    "missing table": (
        {"ICUSTAYS": None},
        r"table ICUSTAYS is missing; looked for ICUSTAYS.csv, ICUSTAYS.csv.gz",
    ),
    "cell": (
        {"CHARTEVENTS": chart([*ROWS, (111, HR, "02:10:00", "high", "bpm")])},
        "CHARTEVENTS.csv: column 'valuenum': values must be numbers, got high "
        f"at data row {len(ROWS) + 1}; 1 rows",
    ),
    "time": (
        {"CHARTEVENTS": chart([*ROWS, (111, HR, "noon", "60", "bpm")])},
        "column 'charttime': values must be times .* got 2101-01-01 noon "
        f"at data row {len(ROWS) + 1}; 1 rows are bad",
    ),
    "units": (
        {"CHARTEVENTS": chart([*ROWS, (111, CELSIUS, "02:10:00", "37", "?F")])},
        "mixed units: item 223762 has 1 values in '.F'; known: .c",
    ),
    "duplicates": (
        {"CHARTEVENTS": chart(ROWS) + chart(ROWS)[:2]},
        "duplicate rows: each row_id may occur once, but 2 occur up to 2 times, e.g. 0",
    ),
    "repeated stay": (
        {"ICUSTAYS": ICUSTAYS + ICUSTAYS[:1], "CHARTEVENTS": chart(ROWS)},
        "ICUSTAYS.csv: duplicate rows: each icustay_id .* e.g. 111",
    ),
    "order": (
        {
            "ICUSTAYS": [row.replace("2101-03-05", "2101-02-05") for row in ICUSTAYS],
            "CHARTEVENTS": chart(ROWS),
        },
        "timestamps out of order: outtime is before intime; 1 rows .* icustay_id 121",
    ),
    "flag": (
        {"ADMISSIONS": [row[:-1] + "7" for row in ADMISSIONS]},
        "'hospital_expire_flag': values must be 0 or 1; 3 rows .* hadm_id 11",
    ),
    "strangers": (
        {"ICUSTAYS": [row.replace("2101", "2107") for row in ICUSTAYS]},
        "17 of 17 rows lie outside their stay",
    ),
    "empty": (
        {"CHARTEVENTS": chart([(111, CAREVUE, "02:00:00", "88", "BPM")])},
        "no patient is left after the step 'charted vital signs'; before it .* 2",
    ),
    "no common stay": (
        {"CHARTEVENTS": chart([(999, HR, "02:00:00", "88", "bpm")])},
        "no patient is left after the step 'of a stay in ICUSTAYS'; before it .* 1",
    ),
}


@pytest.mark.parametrize("changed", BAD)
def test_bad_tables_are_refused(tmp_path, changed):
    tables, message = BAD[changed]
    folder = write_tables(tmp_path, **({"CHARTEVENTS": chart(ROWS)} | tables))
    with pytest.raises(InputError, match=message):
        read([folder])


def test_a_bad_cell_is_told_with_its_part_and_row(folder, tmp_path):
    """The first one in the file, of a quoted cell over two lines too."""
    lines = chart([*ROWS, (111, HR, "02:10:00", "high", "bpm")] * 2)
    lines.insert(0, lines[0].replace(",bpm,", ',"b\npm",'))
    tables = {"CHARTEVENTS": lines}
    message = rf"CHARTEVENTS.csv: .* got high at data row {len(ROWS) + 2}; 2 rows are"
    with pytest.raises(InputError, match=message):
        read([write_tables(tmp_path / "csv", **tables)])
    other = write_tables(tmp_path / "parquet", CHARTEVENTS=lines)
    table = duckdb.sql(
        f"FROM read_csv('{other}/CHARTEVENTS.csv', all_varchar=true, header=true)"
    ).to_arrow_table()
    (other / "CHARTEVENTS.csv").unlink()
    (other / "CHARTEVENTS.parquet").mkdir()
    for name, part in (("a", table[:5]), ("b", table[5:])):
        pq.write_table(part, other / f"CHARTEVENTS.parquet/{name}.parquet")
    with pytest.raises(
        InputError, match=rf"b.parquet: .* got high at data row {len(ROWS) - 3}; 2 rows"
    ):
        read([other])


def test_bad_files_are_refused_by_the_command(folder, tmp_path, capsys):
    path = folder / "CHARTEVENTS.csv"
    whole = path.read_text()
    out = tmp_path / "cohort"

    def refused():
        assert main(["prepare", "mimic3", str(folder), "--out", str(out)]) == 2
        assert not out.exists()
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        return lines[0]

    head, _, rest = whole.partition("\n")
    path.write_text(head.replace("charttime", "when") + "\n" + rest)
    assert "CHARTEVENTS.csv: column(s) 'charttime' missing; there are:" in refused()
    path.write_text(head + "\n" + rest.replace(",", ";"))
    assert "cannot be read" in refused()
    path.write_text("")
    assert "empty table" in refused()
    path.unlink()
    packed = gzip.compress((whole * 300).encode())
    (folder / "CHARTEVENTS.csv.gz").write_bytes(packed[: len(packed) // 2])
    assert "GZIP" in refused()
    path.write_text(whole)
    assert "table CHARTEVENTS is there 2 times" in refused()
    (folder / "CHARTEVENTS.csv.gz").unlink()
    assert main(["prepare", "mimic3", str(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "charttime nearest to an hour: 6 rows, 2 patients, 3 stays" in printed
    steps = json.loads((out / "provenance.json").read_text())["steps"]
    assert [row["stays"] for row in steps] == [3, 3, 3, 3, 3]


def test_one_folder_is_needed(tmp_path):
    with pytest.raises(InputError, match="one folder with the tables is needed"):
        read([tmp_path / "absent"])


# The published notebook's rules in plain SQL, told once more and in another way.
DEMO = """
WITH listed AS (
  SELECT icustay_id AS stay, charttime::TIMESTAMP AS t, itemid::INT AS item,
    valuenum::DOUBLE AS v
  FROM read_csv('{csv}/CHARTEVENTS.csv', all_varchar=true, quote='"')
  WHERE icustay_id IS NOT NULL AND itemid IN ('220045','220179','220050','225309',
    '220180','220051','225310','220052','220181','225312','220210','224690','223761',
    '223762','220277','225664','220621','226537','224642')
), averaged AS (
  SELECT stay, t,
    avg(CASE WHEN item = 220045 AND v > 0 AND v < 300 THEN v END) AS heart_rate,
    avg(CASE WHEN item IN (220179, 220050, 225309) AND v > 0 AND v < 400 THEN v END)
      AS sbp,
    round(avg(CASE WHEN item = 223761 AND v > 70 AND v < 120 THEN (v - 32) / 1.8
      WHEN item = 223762 AND v > 10 AND v < 50 THEN v END), 2) AS temp,
    avg(CASE WHEN item = 220277 AND v > 0 AND v <= 100 THEN v END) AS spo2
  FROM listed GROUP BY stay, t
), timed AS (
  SELECT *, epoch(t - min(t) OVER (PARTITION BY stay)) / 3600 AS hours FROM averaged
), ranked AS (
  SELECT *, round_even(hours, 0) AS hour, row_number() OVER (
    PARTITION BY stay, round_even(hours, 0)
    ORDER BY abs(hours - round_even(hours, 0)), t) AS place
  FROM timed
)
SELECT count(DISTINCT stay), count(*), count(heart_rate), count(sbp), count(temp),
  count(spo2), avg(heart_rate), avg(sbp), avg(temp), avg(spo2)
FROM ranked WHERE place = 1 AND hour BETWEEN 0 AND 24
"""


@pytest.fixture(scope="session")
def demo(data_dir, tmp_path_factory):
    """The folder csv/ of the MIMIC-III demo."""
    folder = tmp_path_factory.mktemp("mimic3-demo")
    with tarfile.open(data_dir / "mimic3-demo/mimic-iii-demo-1.4.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/csv"))


def test_demo_against_plain_sql(demo):
    data = read([demo.parent.parent])
    expected = duckdb.sql(DEMO.format(csv=demo)).fetchall()[0]
    seen = data.cohort.temporal.observed
    at = [
        [f.name for f in data.schema.temporal].index(n)
        for n in ("heart_rate", "sbp", "temp", "spo2")
    ]
    means = [data.cohort.temporal.numeric[..., i][seen[..., i]].mean() for i in at]
    counts = [int(seen[..., i].sum()) for i in at]
    assert (len(data.ids), *counts) == (expected[0], *expected[2:6])
    assert data.provenance["steps"][-1]["rows"] == expected[1] == 1676
    np.testing.assert_allclose(means, expected[6:], rtol=1e-12)
    died = duckdb.sql(
        f"SELECT count(*) FROM '{demo}/ICUSTAYS.csv' JOIN '{demo}/ADMISSIONS.csv' "
        f"USING (hadm_id) WHERE hospital_expire_flag = 1 AND icustay_id IN "
        f"{tuple(data.ids.tolist())}"
    ).fetchall()[0][0]
    assert int(data.cohort.label.sum()) == died == 22


def test_a_terminated_run_leaves_nothing_and_starts_clean(folder, tmp_path):
    text = (folder / "CHARTEVENTS.csv").read_text()
    (folder / "CHARTEVENTS.csv").unlink()
    os.mkfifo(folder / "CHARTEVENTS.csv")  # a table that never comes
    words = ["prepare", "mimic3", str(folder), "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-m", "jaxehr.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:
        assert "ICU stays with an admission" in process.stdout.readline()
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        assert "terminated" in process.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["mimic"]
    (folder / "CHARTEVENTS.csv").unlink()
    (folder / "CHARTEVENTS.csv").write_text(text)
    assert main(words) == 0
