"""MEDS: reading of every kind of code, the round trip, valid files, refusals."""

import datetime
import json

import meds
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_cohorts import sparse_cohort, sparse_schema

from jaxehr.cli import main
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, Table
from jaxehr.data.meds import MedsOptions, read
from jaxehr.data.meds_export import save_meds
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import save_cohort

DAY = datetime.datetime(2101, 5, 1)
BORN = datetime.datetime(2051, 5, 1)


def at(hours):
    return DAY + datetime.timedelta(hours=hours)


EVENTS = [
    (1, None, "SEX//F", None, None),
    (1, None, "WEIGHT", 70.5, None),
    (1, BORN, "MEDS_BIRTH", None, None),
    (1, at(0), "ADMIT", None, None),
    (1, at(1), "HR", 60.0, None),
    (1, at(1.5), "HR", 80.0, None),
    (1, at(2), "RHYTHM", None, "SR"),
    (1, at(9), "HR", 99.0, None),  # past the window
    (1, at(99), "MEDS_DEATH", None, None),
    (2, None, "SEX//M", None, None),
    (2, at(-5), "HR", 50.0, None),
    (2, at(0), "ADMIT", None, None),
    (2, at(0), "RHYTHM", None, "AF"),
    (2, at(1), "HR", 0.1, None),
    (3, None, "SEX//M", None, None),  # no dated code
]


def write(folder, events=EVENTS, splits=("train", "train", "held_out"), part="train"):
    names = [field.name for field in meds.DataSchema.schema()]
    columns = dict(zip(names, map(list, zip(*events))))
    table = pa.table(columns, meds.DataSchema.schema())
    (folder / "data" / part).mkdir(parents=True)
    pq.write_table(table, folder / "data" / part / "0.parquet")
    (folder / "metadata").mkdir(exist_ok=True)
    found = pa.table({"subject_id": [1, 2, 3], "split": list(splits)})
    pq.write_table(found, folder / "metadata/subject_splits.parquet")
    return folder


SOME = {"hours": 4, "min_share": 0.0}


@pytest.fixture
def dataset(tmp_path):
    return write(tmp_path / "meds")


def test_codes_become_features(dataset):
    data = read([dataset], MedsOptions(**SOME, start="ADMIT", label="MEDS_DEATH"))
    kinds = {f.name: (f.kind, f.categories) for f in data.schema.temporal}
    assert kinds == {"HR": ("numeric", ()), "RHYTHM": ("binary", ("AF", "SR"))}
    assert {f.name: f.categories for f in data.schema.static} == {
        "age": (),
        "SEX": ("F", "M"),
        "WEIGHT": (),
    }
    assert data.ids.tolist() == [1, 2]
    np.testing.assert_array_equal(
        data.cohort.temporal.numeric[..., 0],
        [[0, 70, 0, 0], [0, np.float32(0.1), 0, 0]],
    )
    assert data.cohort.static.numeric[0].tolist() == pytest.approx([50, 70.5], abs=0.01)
    assert data.schema.label.name == "MEDS_DEATH"
    assert data.cohort.label.tolist() == [1, 0]


def test_time_zero_without_a_start_and_subjects_without_series(dataset):
    data = read([dataset], MedsOptions(**SOME))
    assert data.ids.tolist() == [1, 2, 3]
    assert data.cohort.length.tolist() == [4, 4, 0]
    assert data.schema.label is None
    hr = [f.name for f in data.schema.temporal if f.is_numeric].index("HR")
    assert data.cohort.temporal.numeric[1, 0, hr] == 50.0


def test_with_a_start_only_its_subjects_need_a_class(tmp_path):
    """Subject 3 has no ADMIT, and so no class, person or part in static columns."""
    some = [(n, None, f"JAXEHR//LABEL//ill//{n % 2}", None, None) for n in (1, 2)]
    some += [(n, None, f"JAXEHR//PERSON//{n}", None, None) for n in (1, 2)]
    odd = [(3, None, "SEX//X", None, None), (3, None, "SIZE//L", None, None)]
    events = [row for row in EVENTS if row[0] != 3] + some + odd
    folder = write(tmp_path / "some", events)
    data = read([folder], MedsOptions(**SOME, start="ADMIT"))
    assert data.ids.tolist() == data.groups.tolist() == [1, 2]
    assert data.cohort.label.tolist() == [1, 0]
    found = {f.name: f.categories for f in data.schema.static}
    assert found == {"age": (), "SEX": ("F", "M"), "WEIGHT": ()}
    with pytest.raises(InputError, match="each of 3 subjects needs one class; 1 have"):
        read([folder], MedsOptions(**SOME))


def test_splits_and_feature_map(dataset, tmp_path):
    chosen = tmp_path / "features.json"
    chosen.write_text(json.dumps({"heart": ["HR", "PULSE"]}))
    data = read([dataset], MedsOptions(**SOME, split="train", features=str(chosen)))
    assert data.ids.tolist() == [1, 2]
    assert [f.name for f in data.schema.temporal] == ["heart"]
    steps = [row["step"] for row in data.provenance["steps"]]
    wanted = ["events", "of the split train", "dated", "of the features asked for"]
    assert steps[:4] == wanted
    chosen.write_text("[]")
    with pytest.raises(InputError, match=r"must be \{feature: \[code, ...\], ...\}"):
        read([dataset], MedsOptions(**SOME, features=str(chosen)))


def test_a_feature_map_moves_nobody(dataset, tmp_path):
    """Time 0, age, people and label are those of all codes."""
    chosen = tmp_path / "features.json"
    chosen.write_text(json.dumps({"heart": ["HR"], "sex": ["SEX//F", "SEX//M"]}))
    for more in ({}, {"start": "ADMIT", "label": "MEDS_DEATH"}):
        whole = read([dataset], MedsOptions(**SOME, **more))
        data = read([dataset], MedsOptions(**SOME, **more, features=str(chosen)))
        np.testing.assert_array_equal(data.ids, whole.ids)
        np.testing.assert_array_equal(data.cohort.label, whole.cohort.label)
        assert {"age"} <= {f.name for f in data.schema.static} <= {"age", "sex"}
        ages = [d.cohort.static.numeric[:, 0] for d in (data, whole)]
        np.testing.assert_array_equal(*ages)
        hearts = [column(data, "temporal", "heart"), column(whole, "temporal", "HR")]
        assert hearts[0] == hearts[1]


def test_round_trip_keeps_values_times_and_labels(tmp_path):
    cohort = simulate(SimulateOptions(n=60, steps=5, missing=0.3))
    numeric = cohort.cohort.temporal.numeric.astype(np.float32).astype(np.float64)
    fixed = cohort.cohort.static.numeric.astype(np.float32).astype(np.float64)
    parts = cohort.cohort
    parts = parts._replace(
        temporal=Table(numeric, *parts.temporal[1:]),
        static=Table(fixed, *parts.static[1:]),
    )
    first = cohort._replace(cohort=parts)
    save_cohort(first, tmp_path / "cohort")
    words = ["export", "meds", str(tmp_path / "cohort"), "--out", str(tmp_path / "a")]
    assert main(words) == 0
    options = MedsOptions(hours=5, min_share=0.0)
    second = read([tmp_path / "a"], options)
    assert second.ids.tolist() == first.ids.tolist()
    for name in ("length", "label", "has_temporal"):
        np.testing.assert_array_equal(
            getattr(second.cohort, name), getattr(first.cohort, name)
        )
    for part in ("static", "temporal"):
        named = {f.name: f for f in getattr(second.schema, part)}
        for feature in getattr(first.schema, part):
            mine, theirs = (
                column(first, part, feature.name),
                column(second, part, feature.name),
            )
            assert named[feature.name].is_numeric == feature.is_numeric
            np.testing.assert_array_equal(mine, theirs)
    assert second.schema.label.name == first.schema.label.name
    save_meds(second, tmp_path / "b")
    tables = [pq.read_table(tmp_path / name / "data") for name in "ab"]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(("step", "unit"), [(0.5, "s"), (1 / 7, "h"), (1e-4, "d")])
def test_steps_of_no_whole_seconds_come_back(tmp_path, step, unit):
    data = simulate(SimulateOptions(n=20, steps=40))
    schema = data.schema.replace(step=step, time_unit=unit, time_dtype="double")
    save_meds(data._replace(schema=schema), tmp_path / "out")
    hours = step * {"s": 1 / 3600, "h": 1, "d": 24}[unit]
    some = MedsOptions(hours=40 * hours, bin_hours=hours, min_share=0.0)
    again = read([tmp_path / "out"], some)
    np.testing.assert_array_equal(again.cohort.length, data.cohort.length)
    for feature in data.schema.temporal:
        if not feature.is_numeric:
            names = [column(d, "temporal", feature.name) for d in (data, again)]
            assert names[0] == names[1]


def test_persons_of_several_stays_come_back(tmp_path):
    data = simulate(SimulateOptions(n=40, steps=3))
    for kind in (int, str):
        groups = (data.ids // 2 + 1000).astype(kind)
        named = data._replace(schema=data.schema.replace(group="mrn"), groups=groups)
        out = tmp_path / kind.__name__
        save_meds(named, out)
        again = read([out], MedsOptions(hours=3, min_share=0.0))
        assert again.schema.group == "person"
        names = [f.name for f in (*again.schema.static, *again.schema.temporal)]
        assert not any("PERSON" in name for name in names)
        np.testing.assert_array_equal(again.ids, data.ids)
        np.testing.assert_array_equal(again.groups.astype(kind), groups)
    codes = [(1, None, "JAXEHR//PERSON//7", None, None)]
    with pytest.raises(InputError, match=r"each of 3 subjects .*PERSON//ID; 2 have no"):
        read([write(tmp_path / "some", [*EVENTS, *codes])], MedsOptions(**SOME))


def test_the_ones_of_a_sparse_cohort_become_codes(tmp_path):
    schema = sparse_schema(3, 4)
    thin, whole = sparse_cohort(schema, count=30)
    data = Dataset(schema, thin, np.arange(30), np.arange(30), {})
    save_cohort(data, tmp_path / "cohort")
    words = ["export", "meds", str(tmp_path / "cohort"), "--out", str(tmp_path / "a")]
    assert main(words) == 0
    again = read([tmp_path / "a"], MedsOptions(hours=4, min_share=0.0))
    np.testing.assert_array_equal(again.cohort.length, whole.length)
    found = {f.name: f.categories for f in again.schema.temporal}
    assert found == {"x0": ("done",), "x1": ("done",), "x2": ("done",)}
    order = [list(found).index(f"x{i}") for i in range(3)]
    seen = again.cohort.temporal.observed[..., order]
    np.testing.assert_array_equal(seen, whole.temporal.codes == 1)


def column(data, part, name):
    """Values as text, missing as the empty text."""
    from jaxehr.data.assemble import static_rows, temporal_rows

    rows = static_rows(data) if part == "static" else temporal_rows(data)
    return [
        "" if v is None else f"{v:.9g}" if isinstance(v, float) else str(v)
        for v in rows[name].to_pylist()
    ]


def test_exported_files_are_valid_meds(tmp_path):
    save_meds(
        simulate(SimulateOptions(n=20, steps=3)), tmp_path / "out", split="tuning"
    )
    events = pq.read_table(tmp_path / "out/data/tuning/0.parquet")
    meds.DataSchema.validate(events)
    splits = pq.read_table(tmp_path / "out" / meds.subject_splits_filepath)
    meds.SubjectSplitSchema.validate(splits)
    codes = pq.read_table(tmp_path / "out" / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(codes)
    assert set(codes["code"].to_pylist()) == set(events["code"].to_pylist())
    info = json.loads((tmp_path / "out" / meds.dataset_metadata_filepath).read_text())
    meds.DatasetMetadataSchema.validate(info)
    ids = np.array(events["subject_id"])
    times = events["time"].to_numpy()
    assert (np.diff(ids) >= 0).all()
    same = ids[1:] == ids[:-1]
    later = (times[1:] >= times[:-1]) | np.isnat(times[:-1])
    assert later[same].all()
    assert set(splits["split"].to_pylist()) == {"tuning"}


def test_bad_datasets_are_refused(dataset, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="not a MEDS dataset: no folder data/"):
        read([tmp_path])
    with pytest.raises(
        InputError, match=r"unknown split in .* 'tuning'; known: held_out"
    ):
        read([dataset], MedsOptions(split="tuning"))
    with pytest.raises(InputError, match="no event has the code 'DIED'"):
        read([dataset], MedsOptions(**SOME, label="DIED"))
    with pytest.raises(InputError, match="after the step 'with ICU'"):
        read([dataset], MedsOptions(**SOME, start="ICU"))
    twice = write(tmp_path / "twice", [*EVENTS, (3, None, "SEX//F", None, None)])
    with pytest.raises(InputError, match="label 'SEX': each of 3 subjects needs one"):
        read([twice], MedsOptions(**SOME, label="SEX"))
    labels = [(1, None, f"JAXEHR//LABEL//{name}//1", None, None) for name in "ab"]
    several = write(tmp_path / "several", [*EVENTS, *labels])
    with pytest.raises(InputError, match=r"several labels .*; name one: label"):
        read([several], MedsOptions(**SOME))
    (dataset / "metadata/subject_splits.parquet").unlink()
    with pytest.raises(InputError, match="no such file; split 'train' needs it"):
        read([dataset], MedsOptions(split="train"))
    part = dataset / "data/train/0.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["code"]), part)
    with pytest.raises(InputError, match=r"0.parquet: not valid MEDS: .*code"):
        read([dataset])
    part.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"0.parquet: not a readable Parquet file"):
        read([dataset])
    part.unlink()
    with pytest.raises(InputError, match="no Parquet file in this folder"):
        read([dataset])
    monkeypatch.setitem(__import__("sys").modules, "meds", None)
    with pytest.raises(InputError, match=r'pip install "jaxehr\[meds\]"'):
        read([dataset])
