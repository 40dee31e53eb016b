"""MIMIC-III's static + temporal cohorts: rules on invented rows, the demo by SQL."""

import json
import tarfile

import duckdb
import numpy as np
import pytest
from mimic3_tables import write_tables
from small_cohorts import assert_cohorts

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import column_order
from jaxehr.data import parts, shards
from jaxehr.data.mimic3 import Mimic3Options, open_parts, read
from jaxehr.data.store import load_cohort, save_parts


def admission(number, dead="", flag=0):
    return (
        f"{number},{number},{number}0,2101-01-01 00:00:00,2101-01-09 00:00:00,{dead},"
        f"EMERGENCY,ER,Private,WHITE,{flag}"
    )


def stay(number, days=4, source="metavision", ward=7, admission=None):
    return (
        f"{number},{number},{admission or number * 10},{number}00,{source},MICU,MICU,7,"
        f"{ward},2101-01-01 02:00:00,2101-01-0{1 + days} 02:00:00"
    )


# People 1, 2, 3 stay in; the others fall out, each by one rule.
STAYS = [stay(1), stay(2), stay(3), stay(4, source="carevue"), stay(5), stay(6, days=1)]
STAYS += [stay(7), "9,7,70,701,metavision,MICU,MICU,7,7,2101-01-06 02:00:00,"]
STAYS += [stay(8, ward=9), stay(9)]
BORN = {5: 2090, 3: 1801}
PEOPLE = [
    f"{n},{n},{'FM'[n % 2]},{BORN.get(n, 2051)}-01-01 02:00:00" for n in range(1, 10)
]
ADMITTED = [admission(n) for n in range(1, 9)]
ADMITTED[1] = admission(2, dead="2101-01-08 00:00:00", flag=1)
ADMITTED += [admission(9, dead="2101-01-02 00:00:00", flag=1)]
DAY = "2101-01-01"
CHARTED = [
    f"1,1,10,100,220045,{DAY} 02:00:00,60,60,bpm,0",
    f"2,1,10,100,220045,{DAY} 02:50:00,70,70,bpm,0",
    f"3,1,10,100,220045,{DAY} 02:50:00,70,70,bpm,0",  # told twice
    f"4,1,10,100,220045,{DAY} 03:10:00,80,80,bpm,1",  # an error
    f"5,2,20,200,220045,{DAY} 03:10:00,90,90,bpm,",
    f"6,3,30,300,220045,{DAY} 01:10:00,90,90,bpm,",  # before the stay
    f"7,1,10,100,220048,{DAY} 02:10:00,SR,,,0",
    f"8,1,10,100,220048,{DAY} 02:20:00,AF,,,0",  # the last one counts
    f"9,2,20,200,220048,{DAY} 02:20:00,SR,,,0",
    f"10,2,20,200,220339,{DAY} 09:00:00,5,5,cmH2O,0",
    f"11,3,30,300,224000,{DAY} 05:00:00,1,1,x,0",
]
OTHER = {
    "LABEVENTS": [
        f"1,1,10,50813,{DAY} 04:00:00,2,2,mmol/L",
        f"2,2,20,50813,{DAY} 04:00:00,3,3,MMOL/L",
        f"3,3,30,50813,{DAY} 04:00:00,30,30,mg/dL",  # another unit
    ],
    "INPUTEVENTS_MV": [
        f"1,100,{DAY} 03:00:00,{DAY} 03:01:00,225158,50,ml,,Stopped",
        f"2,100,{DAY} 03:00:00,{DAY} 03:01:00,225158,99,ml,,Rewritten",
    ],
    "OUTPUTEVENTS": [f"1,100,{DAY} 03:00:00,226559,40,ml,"],
    "PROCEDUREEVENTS_MV": [f"1,300,{DAY} 03:00:00,{DAY} 05:00:00,225792"],
    "MICROBIOLOGYEVENTS": [f"1,2,{DAY} 02:30:00,70012", "2,2,,70012"],
    "DATETIMEEVENTS": [f"1,200,{DAY} 02:30:00,225754"],
    "D_ITEMS": ["220045,Heart Rate", "220048,Rhythm", "70012,BLOOD CULTURE"],
    "D_LABITEMS": ["50813,Lactate"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tables = {"ADMISSIONS": ADMITTED, "ICUSTAYS": STAYS, "PATIENTS": PEOPLE}
    place = tmp_path_factory.mktemp("mimic3-tasks")
    return write_tables(place, **tables, CHARTEVENTS=CHARTED, **OTHER)


@pytest.fixture(scope="module")
def mortality(folder):
    return read([folder], Mimic3Options(task="mortality48", min_share=0.0))


def cells(data, name):
    """{(stay, hour): value} of a temporal feature."""
    names = [f.name for f in data.schema.temporal]
    feature = data.schema.temporal[names.index(name)]
    is_numeric, at = column_order(data.schema.temporal)[names.index(name)]
    table = data.cohort.temporal
    values = table.numeric if is_numeric else table.codes
    seen = table.observed[..., at + (0 if is_numeric else table.numeric.shape[-1])]
    found = {}
    for row, hour in zip(*np.nonzero(seen)):
        value = values[row, hour, at]
        value = value if is_numeric else feature.categories[value]
        found[int(data.ids[row]), int(hour)] = value
    return found


def test_steps_leave_out_each_for_its_rule(mortality):
    steps = {row["step"]: row["stays"] for row in mortality.provenance["steps"]}
    assert list(steps.values()) == [10, 9, 8, 6, 5, 4, 3, 3, 3, 3]
    assert list(steps)[4] == "without a transfer"
    assert mortality.ids.tolist() == [100, 200, 300]
    assert mortality.groups.tolist() == [1, 2, 3]
    assert mortality.cohort.label.tolist() == [0, 1, 0]
    assert mortality.cohort.length.tolist() == [48, 48, 48]


def test_a_transferred_stay_is_no_other_stay_of_the_admission(tmp_path):
    """extract_subjects.py drops transfers first, then admissions of several stays."""
    again = (
        "4,1,10,101,metavision,MICU,SICU,7,7,2101-01-06 02:00:00,2101-01-07 00:00:00"
    )
    twice = (
        "5,2,20,201,metavision,MICU,MICU,7,7,2101-01-06 02:00:00,2101-01-07 00:00:00"
    )
    stays = [stay(1), stay(2), stay(3), again, twice]
    tables = {"ADMISSIONS": ADMITTED, "ICUSTAYS": stays, "PATIENTS": PEOPLE}
    write_tables(tmp_path, **tables, CHARTEVENTS=CHARTED, **OTHER)
    data = read([tmp_path], Mimic3Options(task="mortality48", min_share=0.0))
    assert data.ids.tolist() == [100, 300]


def test_events_of_every_table(mortality):
    # Exact duplicates count once: (60 + 70) / 2.
    assert cells(mortality, "Heart Rate [220045]") == {(100, 0): 65.0, (200, 1): 90.0}
    assert cells(mortality, "Rhythm [220048]") == {(100, 0): "AF", (200, 0): "SR"}
    assert cells(mortality, "Lactate [50813]") == {(100, 2): 2.0, (200, 2): 3.0}
    assert cells(mortality, "225158") == {(100, 1): 50.0}
    assert cells(mortality, "226559") == {(100, 1): 40.0}
    assert cells(mortality, "225792") == {(300, 1): "done", (300, 2): "done"}
    assert cells(mortality, "BLOOD CULTURE [70012]") == {(200, 0): "done"}
    assert cells(mortality, "225754") == {(200, 0): "done"}


def test_what_lasts_is_spread_over_its_hours(tmp_path):
    """Stays begin at 02:00 and the window of arf4 ends at 06:00."""
    given = [
        ("02:30", "15:30", 7, 26, "ml", 2, ""),  # 13 h, past the window
        ("01:30", "03:00", 8, 3, "ml", 2, ""),  # from before the stay
        ("01:00", "02:00", 8, 5, "ml", 2, ""),  # over when it begins
        ("03:10", "03:11", 7, 9, "ml", "", ""),  # at once
        ("03:20", "05:20", 9, 4, "mEq.", "", ""),  # an additive, without a rate
        ("03:20", "05:20", 9, -4, "mEq.", 2, ""),
        ("04:00", "03:00", 9, 100, "mEq.", 2, ""),
        ("02:00", "02:00", 6, 7, "ml", 2, ""),
    ]
    rows = [
        f"{n},100,{DAY} {start}:00,{DAY} {end}:00,{','.join(map(str, rest))}"
        for n, (start, end, *rest) in enumerate(given)
    ]
    done = [
        f"1,100,{DAY} 01:00:00,{DAY} 03:30:00,5",
        f"2,200,{DAY} 05:30:00,2101-01-09 00:00:00,5",
        f"3,200,{DAY} 00:30:00,{DAY} 02:00:00,5",
    ]
    tables = {"ADMISSIONS": ADMITTED, "ICUSTAYS": STAYS, "PATIENTS": PEOPLE}
    tables |= OTHER | {"CHARTEVENTS": [], "INPUTEVENTS_MV": rows}
    write_tables(tmp_path, **tables | {"PROCEDUREEVENTS_MV": done})
    data = read([tmp_path], Mimic3Options(task="arf4", min_share=0.0))
    assert cells(data, "7/h") == {(100, hour): 2.0 for hour in range(4)}
    assert cells(data, "8/h") == {(100, 0): 2.0}
    assert cells(data, "9/h") == {(100, hour): 2.0 for hour in (1, 2, 3)}
    assert cells(data, "7") == {(100, 1): 9.0}
    assert cells(data, "6") == {(100, 0): 7.0}
    assert cells(data, "5") == {(100, 0): "done", (100, 1): "done", (200, 3): "done"}
    units = {f.name: f.unit for f in data.schema.temporal}
    assert (units["7"], units["7/h"], units["9/h"]) == ("ml", "ml/h", "mEq./h")


def test_static_columns(mortality):
    names = [f.name for f in mortality.schema.static]
    assert names[:2] == ["gender", "admission_type"]
    table = mortality.cohort.static
    np.testing.assert_allclose(table.numeric[:, 0], [50, 50, 91.4], atol=0.01)
    np.testing.assert_array_equal(table.numeric[:, 1], [2, 2, 2])
    assert table.codes[:, 0].tolist() == [1, 0, 1]


def test_arf_excludes_early_onsets_and_labels_late_ones(folder):
    data = read([folder], Mimic3Options(task="arf4", min_share=0.0))
    # 300 is ventilated after one hour; PEEP of 200 comes after seven.
    assert data.ids.tolist() == [100, 200, 600, 700, 800, 900]
    assert data.cohort.label.tolist() == [0, 1, 0, 0, 0, 0]
    assert data.schema.num_steps == 4


def test_who_comes_ventilated_is_not_without_onset(tmp_path):
    times = [(100, "01:30"), (200, "06:00")]
    ventilated = [f"1,{n},{DAY} {t}:00,{DAY} 09:00:00,225792" for n, t in times]
    peep = [f"20,3,30,300,220339,{DAY} 01:59:59,5,5,cmH2O,0", CHARTED[0], CHARTED[4]]
    wrong = [f"21,6,60,600,220339,{DAY} 03:00:00,5,5,cmH2O,1"]  # an error
    tables = {"ADMISSIONS": ADMITTED, "ICUSTAYS": STAYS, "PATIENTS": PEOPLE}
    tables |= OTHER | {"PROCEDUREEVENTS_MV": ventilated, "CHARTEVENTS": peep + wrong}
    write_tables(tmp_path, **tables)
    data = read([tmp_path], Mimic3Options(task="arf4", min_share=0.0))
    assert data.ids.tolist() == [200, 600, 700, 800, 900]
    assert data.cohort.label.tolist() == [1, 0, 0, 0, 0]


def test_flags_of_errors_may_be_doubles(folder, mortality, tmp_path):
    """As in Parquet files in which a missing flag made the column floating."""
    for path in folder.glob("*.csv"):
        flag = {"CHARTEVENTS": "error", "OUTPUTEVENTS": "iserror"}.get(path.stem)
        text = f"* REPLACE ({flag}::DOUBLE AS {flag})" if flag else "*"
        duckdb.sql(
            f"COPY (SELECT {text} FROM read_csv('{path}')) "
            f"TO '{tmp_path / path.stem}.parquet'"
        )
    data = read([tmp_path], Mimic3Options(task="mortality48", min_share=0.0))
    name = "Heart Rate [220045]"
    assert cells(data, name) == cells(mortality, name)


def test_choice_of_variables(folder):
    options = Mimic3Options(task="mortality48", min_share=0.5, max_categories=1)
    data = read([folder], options)
    assert [f.name for f in data.schema.temporal] == [
        "Heart Rate [220045]",
        "Lactate [50813]",
    ]
    notes = data.provenance["variables"]
    assert notes["too rare"] == 7
    assert notes["too many values"] == 1
    options = Mimic3Options(task="mortality48", items=("50813",), max_variables=1)
    assert len(read([folder], options).schema.temporal) == 1
    with pytest.raises(InputError, match=r"unknown item\(s\) '77': no event in the"):
        read([folder], Mimic3Options(task="mortality48", items=("50813", "77")))
    with pytest.raises(
        InputError, match="no variable is left of 10: none has a value in"
    ):
        read([folder], Mimic3Options(task="mortality48", min_share=1.0))


def test_options_of_another_task_are_refused():
    with pytest.raises(InputError, match="label_as_timediff is for the task vitals24"):
        Mimic3Options(task="arf4", label_as_timediff=True)
    with pytest.raises(InputError, match="min_share chooses variables, but those of"):
        Mimic3Options(min_share=0.2)


DEMO = """
WITH icu AS (
  SELECT *, count(*) FILTER (first_careunit = last_careunit
    AND first_wardid = last_wardid) OVER (PARTITION BY hadm_id) AS n
  FROM '{csv}/ICUSTAYS.csv'
), stays AS (
  SELECT icu.* FROM icu JOIN '{csv}/PATIENTS.csv' USING (subject_id)
  JOIN '{csv}/ADMISSIONS.csv' AS a USING (hadm_id)
  WHERE dbsource = 'metavision' AND date_diff('year', dob, intime) > 18 AND n = 1
    AND date_diff('second', intime, outtime) >= 48 * 3600
    AND first_careunit = last_careunit AND first_wardid = last_wardid
    AND (deathtime IS NULL OR deathtime >= intime + INTERVAL 48 HOUR)
), beats AS (
  SELECT icustay_id, date_diff('second', intime, charttime::TIMESTAMP) // 3600 AS hour,
    avg(v) AS v
  FROM (SELECT DISTINCT icustay_id::INT AS icustay_id, charttime, valuenum::DOUBLE AS v
    FROM read_csv('{csv}/CHARTEVENTS.csv', all_varchar=true, quote='"')
    WHERE itemid = '220045' AND error = '0' AND icustay_id IS NOT NULL)
  JOIN stays USING (icustay_id)
  WHERE charttime::TIMESTAMP >= intime
    AND charttime::TIMESTAMP < intime + INTERVAL 48 HOUR
  GROUP BY 1, 2
)
SELECT (SELECT count(*) FROM stays), count(*), avg(v) FROM beats
"""


@pytest.fixture(scope="module")
def demo(data_dir, tmp_path_factory):
    """The folder with the tables of the demo."""
    folder = tmp_path_factory.mktemp("demo")
    with tarfile.open(data_dir / "mimic3-demo/mimic-iii-demo-1.4.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/csv"))


def test_demo_against_plain_sql(demo):
    data = read([demo], Mimic3Options(task="mortality48", max_variables=20))
    found = cells(data, "Heart Rate [220045]")
    expected = duckdb.sql(DEMO.format(csv=demo)).fetchall()[0]
    assert (len(data.ids), len(found)) == expected[:2]
    assert expected[0] == 28
    np.testing.assert_allclose(np.mean(list(found.values())), expected[2], rtol=1e-12)


DEMO_ARF = """
WITH stays AS (
  SELECT icustay_id, intime, outtime FROM '{csv}/ICUSTAYS.csv'
  JOIN '{csv}/PATIENTS.csv' USING (subject_id)
  JOIN '{csv}/ADMISSIONS.csv' USING (hadm_id)
  WHERE dbsource = 'metavision' AND outtime >= intime + INTERVAL 4 HOUR
    AND (intime >= dob + INTERVAL 18 YEAR)
), signs AS (
  SELECT icustay_id::INT AS icustay_id, charttime::TIMESTAMP AS t
  FROM read_csv('{csv}/CHARTEVENTS.csv', all_varchar=true, quote='"')
  WHERE itemid = '220339' AND TRY_CAST(valuenum AS DOUBLE) IS NOT NULL
    AND icustay_id IS NOT NULL AND error IS DISTINCT FROM '1'
  UNION ALL
  SELECT icustay_id, starttime FROM '{csv}/PROCEDUREEVENTS_MV.csv'
  WHERE itemid IN (225792, 225794)
), onset AS (
  SELECT icustay_id, min(t) AS t FROM signs JOIN stays USING (icustay_id)
  WHERE t <= outtime GROUP BY 1
)
SELECT icustay_id, (t IS NOT NULL)::INT FROM stays LEFT JOIN onset USING (icustay_id)
WHERE t IS NULL OR t >= intime + INTERVAL 4 HOUR ORDER BY 1
"""


def test_demo_of_arf4_against_plain_sql(demo):
    """Who is in the cohort and who fails later, stay by stay."""
    data = read([demo], Mimic3Options(task="arf4", max_variables=5))
    expected = duckdb.sql(DEMO_ARF.format(csv=demo)).fetchall()
    assert list(zip(data.ids.tolist(), data.cohort.label.tolist())) == expected
    assert 0 < sum(label for _, label in expected) < len(expected)
    assert data.schema.num_steps == 4


def test_shards_hold_the_same_cohort(demo, tmp_path):
    options = Mimic3Options(task="mortality48", max_variables=20, part="train")
    data = read([demo], options)
    with open_parts([demo], options, 3) as made:
        save_parts(made, tmp_path / "cohort")
    again = load_cohort(tmp_path / "cohort")
    assert (
        len(json.loads((tmp_path / "cohort/shards.json").read_text())["patients"]) == 3
    )
    assert again.schema == data.schema
    assert again.provenance["steps"] == data.provenance["steps"]
    np.testing.assert_array_equal(again.ids, data.ids)
    np.testing.assert_array_equal(again.groups, data.groups)
    assert_cohorts(again.cohort, data.cohort)


def test_a_part_may_lack_a_variable_in_any_number_of_shards(folder, mortality):
    """Item 225792 is of stay 300 alone, so that the part without that stay lacks it."""
    fields = {"task": "mortality48", "min_share": 0.0, "test_fraction": 0.5}
    sizes = []
    for part in ("train", "test"):
        options = Mimic3Options(part=part, **fields)
        for number in (1, 2):
            with open_parts([folder], options, number) as made:
                data = [piece.data for piece in made.pieces]
            assert data[0].schema == mortality.schema
            sizes.append(sum(len(piece.ids) for piece in data))
    assert sizes[0] == sizes[1] > 0
    assert sizes[2] == sizes[3] == 3 - sizes[0] > 0


def test_a_cohort_in_memory_is_filled_block_by_block(demo, monkeypatch):
    options = Mimic3Options(task="mortality48", max_variables=20)
    data = read([demo], options)
    size = shards.dense_bytes(data.schema, len(data.ids))
    monkeypatch.setattr(shards, "SHARD_BYTES", size // 4)
    sizes = []
    plain = parts.assemble
    monkeypatch.setattr(
        parts,
        "assemble",
        lambda schema, static, *rest, **more: (
            sizes.append(len(static)) or plain(schema, static, *rest, **more)
        ),
    )
    again = read([demo], options)
    assert len(sizes) >= 3
    assert sum(sizes) == len(data.ids)
    np.testing.assert_array_equal(again.ids, data.ids)
    assert_cohorts(again.cohort, data.cohort)
