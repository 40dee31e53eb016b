"""Challenge readers: every quirk of the files in invented sets, and the real sets."""

import lzma
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import column_order
from jaxehr.data import physionet2012, physionet2019

HEAD = "Time,Parameter,Value\n"
FIRST = """00:00,RecordID,1
00:00,Age,54
00:00,Gender,-1
00:00,Height,-1
00:00,ICUType,4
00:00,Weight,80
00:00,Weight,82
00:07,HR,73
00:07,HR,75
00:30,,7
01:30,HR,0
01:40,HR,80
01:59,pH,735
02:10,MechVent,1
47:59,Temp,-17.8
48:00,HR,99
"""
# The descriptors are sorted among the observations of 00:00, as in the real set a.
SECOND = """00:00,RecordID,2
00:00,Age,70
00:00,Gender,1
00:00,HR,90
00:00,Height,170
00:00,ICUType,2
00:00,Weight,-1
00:30,pH,7.4
"""
THIRD = """00:00,RecordID,3
00:00,Age,33
00:00,Gender,0
00:00,Height,160
00:00,ICUType,1
00:00,Weight,55
"""
OUTCOMES = """RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death
1,6,1,5,-1,0
2,16,8,8,-23,1
3,21,11,19,575,0
"""
Options = physionet2012.Physionet2012Options
Hourly = physionet2019.Physionet2019Options


def write(folder: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def stays(tmp_path) -> pathlib.Path:
    texts = {"1.txt": HEAD + FIRST, "2.txt": HEAD + SECOND, "3.txt": HEAD + THIRD[:-1]}
    (tmp_path / "Outcomes-a.txt").write_text(OUTCOMES)
    return write(tmp_path / "set-a", texts)


def column(data, part, name):
    """Values of one feature with NaN where missing."""
    features = getattr(data.schema, part)
    table = getattr(data.cohort, part)
    position = [f.name for f in features].index(name)
    is_numeric, at = column_order(features)[position]
    values = (table.numeric if is_numeric else table.codes)[..., at].astype(float)
    seen = table.observed[..., at + (0 if is_numeric else table.numeric.shape[-1])]
    return np.where(seen, values, np.nan)


def test_2012_survives_every_quirk(stays):
    data = physionet2012.read([stays])
    assert [f.name for f in data.schema.temporal] == [
        name
        for name in physionet2012.PARAMETERS
        if name in ("HR", "MechVent", "pH", "Weight")
    ]
    assert data.ids.tolist() == [1, 2, 3]
    assert data.cohort.label.tolist() == [0, 1, 0]
    assert data.cohort.length.tolist() == [48, 48, 0]
    nan = np.nan
    np.testing.assert_array_equal(column(data, "static", "Weight"), [80, nan, 55])
    np.testing.assert_array_equal(column(data, "static", "Height"), [nan, 170, 160])
    np.testing.assert_array_equal(column(data, "static", "Gender"), [nan, 1, 0])
    np.testing.assert_array_equal(column(data, "static", "ICUType"), [3, 1, 0])
    hr = column(data, "temporal", "HR")
    np.testing.assert_array_equal(hr[0, :3], [74, 80, nan])
    assert np.isnan(hr[0, 3:]).all()
    assert hr[1, 0] == 90
    np.testing.assert_array_equal(column(data, "temporal", "Weight")[:2, 0], [82, nan])
    np.testing.assert_array_equal(
        column(data, "temporal", "MechVent")[0, 1:3], [nan, 0]
    )
    assert np.isnan(column(data, "temporal", "pH")[0]).all()
    counts = data.provenance["parameters"]
    assert counts["HR"] == {"rows": 6, "missing": 0, "implausible": 1, "kept": 5}
    assert counts["pH"]["implausible"] == counts["Temp"]["implausible"] == 1
    assert counts["static Weight"]["missing"] == counts["unknown"]["rows"] == 1


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.xz"])
def test_2012_archives_equal_the_folder(stays, ending):
    archive = stays.parent / f"set-a{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as stream:
            for file in stays.iterdir():
                stream.write(file, f"set-a/{file.name}")
    else:
        with tarfile.open(archive, f"w:{ending[-2:]}") as stream:
            stream.add(stays, "set-a")
    expected, found = physionet2012.read([stays]), physionet2012.read([archive])
    assert found.schema == expected.schema
    for a, b in zip(found.cohort.temporal, expected.cohort.temporal):
        np.testing.assert_array_equal(a, b)
    for file in stays.iterdir():
        file.unlink()
    whole = physionet2012.read([stays.parent])  # a folder of archives
    np.testing.assert_array_equal(whole.ids, expected.ids)


def test_2012_outcomes_inside_a_zip_and_by_name(stays):
    outcomes = stays.parent / "Outcomes-a.txt"
    moved = outcomes.rename(stays.parent / "labels.csv")
    with zipfile.ZipFile(stays.parent / "set.zip", "w") as stream:
        stream.write(stays / "2.txt", "set/2.txt")
        stream.write(stays / "1.txt", "set/1.txt")
        stream.write(moved, "set/Outcomes-a.txt")
    assert physionet2012.read([stays.parent / "set.zip"]).cohort.label.tolist() == [
        0,
        1,
    ]
    named = physionet2012.read([stays], Options(outcomes=str(moved), variables=("HR",)))
    assert named.cohort.label.tolist() == [0, 1, 0]


def test_2012_several_sets_and_other_aggregates(stays):
    other = write(stays.parent / "set-b", {"2.txt": (stays / "2.txt").read_text()})
    (stays / "2.txt").unlink()
    options = Options(
        hours=4, bin_hours=2, variables=("HR",), aggregate="last", static=()
    )
    data = physionet2012.read([stays, other], options)
    assert data.ids.tolist() == [1, 2, 3]
    assert data.cohort.has_static.sum() == 0
    hr = column(data, "temporal", "HR")
    np.testing.assert_array_equal(hr[:2], [[80, np.nan], [90, np.nan]])


def test_2012_refusals(stays):
    def refused(match, paths=(stays,), **options):
        with pytest.raises(InputError, match=match):
            physionet2012.read(paths, Options(**options))

    refused(r"nowhere: no such file or folder", [stays.parent / "nowhere"])
    refused(r"labels.txt: a folder or an archive", [write_file(stays, "labels.txt")])
    refused("no path given", [])
    refused("RecordID 1 occurs 2 times .3 repeat", [stays, stays])
    refused("known: HR, MechVent, pH, Weight", variables=("HR", "Albumin"))
    refused("unknown variable of Challenge 2012 'Pulse'", variables=("Pulse",))
    refused("unknown static variable of Challenge 2012 'x'", static=("x",))
    refused("unknown aggregate 'sum'", aggregate="sum")
    refused("unknown label in Outcomes-a.txt 'death'; known: SAPS-I", label="death")
    refused("elsewhere: no such Outcomes file", outcomes="elsewhere")
    many = "".join(f"{k},{k}\n" for k in range(20))
    path = write_file(stays, "many.csv", "RecordID,SOFA\n" + many)
    refused("'SOFA' has 20 different values", outcomes=str(path), label="SOFA")
    path = write_file(stays, "some.csv", "RecordID,y\n1,0\n2,\n3,1\n")
    refused("label 'y': integers are needed", outcomes=str(path), label="y")
    path = write_file(stays, "few.csv", "RecordID,y\n1,0\n2,1\n")
    refused("missing for 1 of 3 stays, e.g. RecordID 3", outcomes=str(path), label="y")
    path = write_file(stays, "torn.csv", "RecordID,y\n1,0\n2,1,1\n")
    refused("torn.csv: .*Expected 2 columns", outcomes=str(path), label="y")
    (stays.parent / "Outcomes-a.txt").unlink()
    refused("no Outcomes file: looked for Outcomes-a.txt in and beside")


def write_file(folder, name, text=""):
    path = folder.parent / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("00:00,HR,fast\n", r"4.txt: .*invalid value 'fast'"),
        ("0,HR,70\n", "4.txt: Time must be HH:MM, got '0'; 1 rows are bad"),
        ("00:00,HR\n", "4.txt: .*Expected 3 columns, got 2"),
    ],
)
def test_2012_a_bad_row_is_named_with_its_file(stays, text, match):
    (stays / "4.txt").write_text(HEAD + text)
    write_file(stays, "Outcomes-b.txt", OUTCOMES + "4,1,1,1,1,0\n")
    with pytest.raises(InputError, match=match):
        physionet2012.read([stays])


@pytest.mark.parametrize(
    ("byte", "value", "match"),
    [(0, 1, "encrypted, password required"), (2, 9, "compression method is not")],
)
def test_a_zip_that_python_cannot_open(stays, byte, value, match):
    """A password, and Deflate64: written into both headers of every member."""
    path = stays.parent / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(stays / "1.txt", "1.txt")
    content = bytearray(path.read_bytes())
    content[6 + byte] = content[content.index(b"PK\x01\x02") + 8 + byte] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"set.zip: cannot be read as .*{match}"):
        physionet2012.read([path])


def test_damaged_archive_missing_column_and_empty_folder(stays):
    broken = stays.parent / "set.tar.xz"
    broken.write_bytes(lzma.compress(b"x" * 5000)[:-20])
    with pytest.raises(InputError, match=r"set.tar.xz: cannot be read as an archive"):
        physionet2012.read([broken])
    (stays / "4.txt").write_text("Time,Parameter\n00:00,HR\n")
    with pytest.raises(InputError, match=r"4.txt: column.s. \['Value'\] missing"):
        physionet2012.read([stays])
    empty = write(stays.parent / "empty", {"a.md": ""})
    with pytest.raises(InputError, match="no archive"):
        physionet2012.read([empty])
    with zipfile.ZipFile(stays.parent / "none.zip", "w") as stream:
        stream.writestr("a.md", "")
    with pytest.raises(InputError, match=r"none.zip: no file named like"):
        physionet2012.read([stays.parent / "none.zip"])


PSV = "HR|Temp|EtCO2|Age|Gender|Unit1|Unit2|HospAdmTime|ICULOS|SepsisLabel\n"
SMALL = {"variables": ("HR", "Temp"), "hours": 4}


@pytest.fixture
def hourly(tmp_path) -> pathlib.Path:
    texts = {
        "p000002.psv": "NaN|NaN|NaN|60|0|NaN|NaN|-3.5|1|0\n"
        "80|36|NaN|60|0|NaN|NaN|-3.5|2|0\n"
        "NaN|NaN|NaN|60|0|NaN|NaN|-3.5|3|0\n",
        "p000001.psv": "70|NaN|NaN|50.5|1|1|0|-1|1|0\n"
        "72|99|NaN|50.5|1|1|0|-1|2|0\n"
        + "74|NaN|NaN|50.5|1|1|0|-1|3|0\n" * 3
        + "76|NaN|NaN|50.5|1|1|0|-1|6|1\n",
    }
    texts = {name: PSV + text for name, text in texts.items()}
    return write(tmp_path / "training_setA", texts)


def test_2019_rows_are_hours(hourly):
    data = physionet2019.read([hourly], Hourly(**SMALL))
    assert data.ids.tolist() == ["p000001", "p000002"]
    assert data.cohort.length.tolist() == [4, 3]
    assert data.cohort.label.tolist() == [1, 0]
    nan = np.nan
    hr = column(data, "temporal", "HR")
    np.testing.assert_array_equal(hr, [[70, 72, 74, 74], [nan, 80, nan, nan]])
    np.testing.assert_array_equal(column(data, "temporal", "Temp")[1, :2], [nan, 36])
    np.testing.assert_array_equal(column(data, "static", "Age"), [50.5, 60])
    np.testing.assert_array_equal(column(data, "static", "Unit1"), [1, nan])
    assert data.provenance["variables"]["Temp"] == {"values": 2, "implausible": 1}


def test_2019_wider_bins_no_static_and_short_stays(hourly):
    third = (hourly / "p000001.psv").read_text().replace("|1\n", "|0\n")
    (hourly / "p000003.psv").write_text(third)
    options = Hourly(variables=("HR",), hours=6, bin_hours=3, static=(), min_hours=4)
    data = physionet2019.read([hourly.parent], options)
    assert data.schema.static == ()
    assert data.ids.tolist() == ["p000001", "p000003"]
    assert data.cohort.label.tolist() == [1, 0]
    np.testing.assert_allclose(column(data, "temporal", "HR")[0], [72, 224 / 3])
    assert data.provenance["stays_left_out"] == 1


def test_2019_refusals(hourly):
    def refused(match, **options):
        with pytest.raises(InputError, match=match):
            physionet2019.read([hourly], Hourly(**(SMALL | options)))

    refused("variable 'EtCO2' has no value", variables=("HR", "EtCO2"))
    refused(r"column.s. \['SBP'\] missing", variables=("HR", "SBP"))
    refused("no stay has 9 hours or more", min_hours=9)
    refused("unknown variable of Challenge 2019 'Pulse'", variables=("Pulse",))
    refused("unknown static variable of Challenge 2019 'x'", static=("x",))
    refused("unknown label of Challenge 2019 'death'", label="death")
    refused("unknown aggregate 'sum'", aggregate="sum")
    refused("min_hours must not be negative, got -1", min_hours=-1)
    with pytest.raises(InputError, match="p000001 occurs 2 times"):
        physionet2019.read([hourly, hourly], Hourly(**SMALL))
    # Sepsis begins at hour 5, outside the window of 4: no positive is left.
    by_hours = physionet2019.read([hourly], Hourly(label="sepsis-by-hours", **SMALL))
    assert by_hours.cohort.label.tolist() == [0, 0]


def test_2012_set_a_has_the_published_counts(data_dir):
    data = physionet2012.read([data_dir / "physionet2012" / "set-a.tar.xz"])
    assert data.cohort.label.shape == (4000,)
    assert data.cohort.label.sum() == 554
    assert len(data.schema.temporal) == 37
    assert (data.cohort.length == 0).sum() == 3


def test_2019_set_a_has_the_published_counts(data_dir):
    path = data_dir / "physionet2019" / "training_setA.tar.xz"
    data = physionet2019.read([path])
    assert data.cohort.label.shape == (20_336,)
    assert data.cohort.label.sum() == 1790
    assert (data.cohort.length == 24).sum() == 15_837
