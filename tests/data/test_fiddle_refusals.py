"""Damaged or contradictory folders of FIDDLE are refused in one line."""

import json
import shutil

import numpy as np
import pytest
from fiddle_release import POPULATION, population, write_matrix, write_release

from jaxehr.core.checks import InputError
from jaxehr.data.fiddle import FiddleOptions, read


@pytest.fixture
def release(tmp_path):
    return write_release(tmp_path)


def object_array(folder):
    write_matrix(folder, "X", data=np.array([1, "x", 1, 1], object))


def truncated(folder):
    path = folder / "X.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(folder):
    """Damages the compressed bytes of the first array, not the directory."""
    content = bytearray((folder / "s.npz").read_bytes())
    content[100:110] = b"\xff" * 10
    (folder / "s.npz").write_bytes(content)


def single_array(folder):
    with (folder / "X.npz").open("wb") as stream:
        np.save(stream, np.ones(3))


def names(content):
    return lambda folder: (folder / "X.feature_names.json").write_text(content)


def too_wide(folder):
    write_matrix(folder, "X", shape=np.array([3, 2**20, 2**11]))
    content = json.dumps([str(i) for i in range(2**11)])
    (folder / "X.feature_names.json").write_text(content)


BAD_FILES = [
    (too_wide, r"1048576 steps x 2048 columns are too many; at most 2147483647"),
    (truncated, r"X\.npz: not a readable npz file"),
    (flipped, r"s\.npz: not a readable npz file"),
    (object_array, r"X\.npz: not a readable npz file \(data has the type object"),
    (single_array, r"X\.npz: not a readable npz file"),
    (lambda f: (f / "s.npz").write_bytes(b""), r"s\.npz: not a readable npz file"),
    (lambda f: (f / "s.npz").unlink(), r"s\.npz: no such file"),
    (lambda f: (f / "X.feature_names.json").unlink(), r"X\.feature_names\.json: no su"),
    (names("["), r"X\.feature_names\.json: not valid JSON"),
    (names('["a"]'), r"a list of 3 names is needed, .* X\.npz, got 1 values"),
    (names('{"a": 1}'), r"a list of 3 names is needed, .* got something else"),
    (names('["a", "a", "b"]'), r"column name\(s\) \['a'\] occur more than once"),
    (lambda f: write_matrix(f, "X", coords=None), r"array\(s\) 'coords' missing"),
    (
        lambda f: write_matrix(f, "X", shape=np.array([3, 2])),
        r"shape \[3, 2\], coords \[3, 4\] and data \[4\] are no sparse array of 3 dim",
    ),
    (
        lambda f: write_matrix(f, "X", shape=np.array([3, 1, 3])),
        r"coords of dimension 1 must lie in \[0, 1\), got 1",
    ),
    (
        lambda f: write_matrix(f, "X", fill_value=np.array(1.0)),
        r"X\.npz: fill_value must be 0, got 1\.0",
    ),
    (
        lambda f: write_matrix(f, "X", data=np.array([1, 1, 7.5, np.nan])),
        r"values must be 0 or 1, got 7\.5 \(2 of 4 are bad\)\. Run FIDDLE",
    ),
    (
        lambda f: write_matrix(f, "s", shape=np.array([4, 2])),
        r"s\.npz: has 4 rows, but .*ARF_4h\.csv 3 stays",
    ),
]


@pytest.mark.parametrize(("damage", "message"), BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(release, damage, message):
    damage(release / "features" / "ARF_4h")
    with pytest.raises(InputError, match=message) as raised:
        read([release])
    assert "\n" not in str(raised.value)


BAD_POPULATIONS = [
    ("", r"ARF_4h\.csv: not a readable CSV file"),
    ("stay,ARF_LABEL\n1,0\n", r"no column 'ID'; there are: 'stay', 'ARF_LABEL'"),
    (POPULATION + "3,,1\n", r"every ID must occur once; 3 occurs twice \(1 repeat\)"),
    ("ID,ARF_LABEL\n3,0\n7,1\n", r"has 3 rows, but .* 2 stays"),
    ("ID,ARF_LABEL\n3,0\n7,\n12,1\n", r"'ARF_LABEL': 1 of 3 cells are empty.* row 2"),
    ("ID,ARF_LABEL\n3,0\n,1\n12,1\n", r"'ID': 1 of 3 cells are empty"),
    ("ID,ARF_LABEL\n3,0\n7,0\n12,0\n", r"label 'ARF_LABEL' has 1 class"),
    ("ID,died\n3,0\n7,0\n12,1\n", r"no single column ends in _LABEL; .* 'ID', 'died'"),
]


@pytest.mark.parametrize(("text", "message"), BAD_POPULATIONS)
def test_a_bad_population_is_refused_in_one_line(release, text, message):
    population(release).write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read([release])
    assert "\n" not in str(raised.value)


def test_a_listed_stay_without_a_label_is_refused(release):
    folder = release / "features" / "ARF_4h"
    (folder / "IDs.csv").write_text("ID\n3\n7\n13\n")
    with pytest.raises(InputError, match=r"label missing for 1 of 3 stays, .* ID 13"):
        read([release])


def test_folders_that_do_not_tell_what_to_read_are_refused(release, tmp_path):
    other = release / "features" / "Shock_4h"
    with pytest.raises(InputError, match=r"unknown task in .* 'Shock_4h'; known: ARF_"):
        read([release], FiddleOptions(task="Shock_4h"))
    with pytest.raises(InputError, match="'Shock_4h'; known: ARF_4h"):
        read([release / "features" / "ARF_4h"], FiddleOptions(task="Shock_4h"))
    shutil.copytree(release / "features" / "ARF_4h", other)
    with pytest.raises(InputError, match="several tasks; name one: ARF_4h, Shock_4h"):
        read([release])
    with pytest.raises(InputError, match=r"Shock_4h: no population file \(Shock_4h"):
        read([release], FiddleOptions(task="Shock_4h"))
    lost = FiddleOptions(task="ARF_4h", population=str(tmp_path / "no.csv"))
    with pytest.raises(InputError, match=r"no\.csv: no such population file"):
        read([release], lost)
    with pytest.raises(InputError, match=r"neither .* nor prep/icustays"):
        read([release], FiddleOptions(task="ARF_4h", partition=("test",)))
    (tmp_path / "FIDDLE_eicu" / "features").mkdir(parents=True)
    with pytest.raises(InputError, match=r"several data sets .'FIDDLE_eicu', 'FIDD"):
        read([tmp_path])
    with pytest.raises(InputError, match="features: no task in it"):
        read([tmp_path / "FIDDLE_eicu"])
    with pytest.raises(InputError, match=r"neither features/<task>/X[.]npz .* nor X"):
        read([release / "population"])
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="one folder is read at a time, got 2"):
        read([release, release])
