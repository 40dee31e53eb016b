"""FIDDLE's release and output folders: exact values, order of stays, refusals."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from fiddle_release import NAMES, ONES, population, write_matrix, write_release

from jaxehr.core.checks import InputError
from jaxehr.core.sparse import SparseTable, density
from jaxehr.data import fiddle_files
from jaxehr.data.fiddle import FiddleOptions, read, task_name
from jaxehr.data.store import load_cohort, save_cohort


@pytest.fixture
def release(tmp_path):
    return write_release(tmp_path)


def test_rows_are_the_stays_in_ascending_order_of_id(release):
    data = read([release])
    assert data.ids.tolist() == [3, 7, 12]
    assert data.cohort.label.tolist() == [1, 0, 0]
    assert data.schema.label.name == "ARF_LABEL"
    assert [f.name for f in data.schema.static] == NAMES["s"]
    assert data.cohort.static.codes.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert data.cohort.static.observed.all()
    dense = np.zeros((3, 2, 3), int)
    dense[ONES["X"]] = 1
    np.testing.assert_array_equal(data.cohort.temporal.codes, dense)
    assert (data.schema.num_steps, data.schema.step) == (2, 2.0)  # 4 h in 2 steps
    assert data.provenance["aliases"]["temporal"] == {"B": ["~{C}"]}
    assert data.provenance["partition"] is None


def test_empty_last_rows_and_columns_are_kept(release):
    """`shape` counts, not the largest coordinate."""
    folder = release / "features" / "ARF_4h"
    write_matrix(folder, "X", shape=np.array([3, 3, 3]))
    names = ["AGE", "SEX", "never"]
    write_matrix(folder, "s", shape=np.array([3, 3]))
    (folder / "s.feature_names.json").write_text(json.dumps(names))
    data = read([release])
    assert data.cohort.temporal.steps == 3
    assert data.cohort.length.tolist() == [3, 3, 3]
    assert data.cohort.static.codes.shape == (3, 3)


def test_the_order_of_coords_and_their_integer_type_do_not_matter(release):
    folder = release / "features" / "ARF_4h"
    wanted = read([release]).cohort
    coords = np.array(ONES["X"])[:, ::-1]
    for kind in (np.uint8, np.int64):
        write_matrix(folder, "X", coords=coords.astype(kind))
        found = read([release]).cohort
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7])
def test_blocks_of_any_size_give_the_same(release, monkeypatch, size):
    folder = release / "features" / "ARF_4h"
    wanted = read([release]).cohort
    monkeypatch.setattr(fiddle_files, "BLOCK", size)
    for coords in (np.array(ONES["X"]), np.array(ONES["X"])[:, ::-1]):
        for order in "CF":
            write_matrix(folder, "X", coords=np.array(coords, order=order))
            found = read([release]).cohort
            jax.tree.map(np.testing.assert_array_equal, found, wanted)
    write_matrix(folder, "X", data=np.array([1, 0, 1, 1]))
    assert read([release]).cohort.temporal.counts.tolist() == [1, 1, 1]


def test_no_ones_at_all(release):
    folder = release / "features" / "ARF_4h"
    empty = np.zeros((3, 0), np.int64)
    write_matrix(folder, "X", coords=empty, data=np.zeros(0))
    assert read([release]).cohort.temporal.counts.tolist() == [0, 0, 0]


def test_explicit_zeros_and_a_missing_fill_value_are_accepted(release):
    folder = release / "features" / "ARF_4h"
    write_matrix(folder, "X", data=np.array([1, 0, 1, 1]), fill_value=None)
    assert read([release]).cohort.temporal.counts.tolist() == [1, 1, 1]


def test_old_folder_names(release):
    assert task_name("outcome=ARF,T=4.0,dt=1.0") == "ARF_4h"
    assert task_name("benchmark,outcome=mortality,T=48.0,dt=1.0") == "mortality_48h"
    assert task_name("outcome=Shock,T=720.0,dt=60.0") == "Shock_12h"
    features, people = release / "features", release / "population"
    (features / "ARF_4h").rename(features / "outcome=ARF,T=4.0,dt=1.0")
    folder = features / "outcome=ARF,T=4.0,dt=1.0"
    for stem, names in NAMES.items():
        (folder / f"{stem}.feature_names.json").unlink()
        (folder / f"{stem}.feature_names.txt").write_text("\n".join(names) + "\n")
    (people / "ARF_4h.csv").rename(people / "ARF_4.0h.csv")
    data = read([release], FiddleOptions(task="ARF_4h"))
    assert data.provenance["task"] == "ARF_4h"
    assert data.cohort.label.tolist() == [1, 0, 0]


def test_partition_of_the_population_file_is_selected(release):
    text = "ID,stay,partition,mortality_LABEL,y_true\n"
    text += "3,a,train,1,1\n12,b,test,0,0\n7,c,val,0,0\n"
    population(release).write_text(text)
    for part, ids in (("train,val", [3, 7]), ("test", [12]), ("all", [3, 7, 12])):
        data = read([release], FiddleOptions(partition=tuple(part.split(","))))
        assert data.ids.tolist() == ids
        assert data.schema.label.name == "mortality_LABEL"
        assert data.provenance["partition"] == {
            "source": "ARF_4h.csv",
            "stays": {"test": 1, "train": 1, "val": 1},
        }
    with pytest.raises(InputError, match="unknown partition 'valid'; known: train"):
        FiddleOptions(partition=("valid",))
    with pytest.raises(InputError, match="name train, val, test, or all"):
        FiddleOptions(partition=())
    population(release).write_text(text.replace("test", "train"))
    with pytest.raises(InputError, match=r"no stay is in 'test'; ARF_4h\.csv has 'tr"):
        read([release], FiddleOptions(partition=("test",)))


def test_persons_and_partition_of_the_table_of_stays(release):
    (release / "prep").mkdir()
    table = "SUBJECT_ID,ICUSTAY_ID,partition\n50,3,train\n50,7,test\n51,12,val\n"
    (release / "prep" / "icustays_MV.csv").write_text(table)
    data = read([release], FiddleOptions(partition=("train", "test")))
    assert data.groups.tolist() == [50, 50]
    assert data.schema.group == "person"
    assert data.provenance["partition"]["source"] == "prep/icustays_MV.csv"


def test_persons_are_known_whole_or_not_at_all(release):
    assert read([release]).provenance["persons"] == "unknown: split by stay"
    (release / "prep").mkdir()
    path = release / "prep" / "icustays.csv"
    path.write_text("SUBJECT_ID,ICUSTAY_ID\n50,3\n50,7\n")
    with pytest.raises(
        InputError,
        match=r"icustays\.csv: person missing for 1 of 3 stays, e\.g\. ID 12",
    ):
        read([release])
    path.write_text("SUBJECT_ID,ICUSTAY_ID\n50,3\n50,7\n51,12\n51,x\n")  # ids as text
    data = read([release])
    assert data.groups.tolist() == [50, 50, 51]
    assert data.provenance["persons"] == "person"
    path.with_name("icustays_MV.csv").write_text("SUBJECT_ID,ICUSTAY_ID\n50,3\n")
    assert read([release]).groups.tolist() == [50, 50, 51]  # the file that has all
    path.with_name("icustays_MV.csv").unlink()
    path.write_text("SUBJECT_ID,ICUSTAY_ID\n50,300\n")  # of other stays
    assert read([release]).schema.group is None


def test_output_folder_without_a_population(release, tmp_path):
    folder = tmp_path / "output"
    shutil.copytree(release / "features" / "ARF_4h", folder)
    for ending in (".npz", ".feature_names.json"):
        (folder / f"s{ending}").rename(folder / f"S{ending}")
    (folder / "IDs.csv").write_text("ID\n3\n7\n12\n")
    ranges = 'ID,t_range\n3,"[0.0, 60.0)"\n3,"[60.0, 120.0)"\n'
    (folder / "X.ID,t_range.csv").write_text(ranges)
    data = read([folder])
    assert data.schema.label is None
    assert data.schema.step == 1.0  # 60 minutes
    options = FiddleOptions(population=str(population(release)))
    assert read([folder], options).cohort.label.tolist() == [1, 0, 0]
    with pytest.raises(InputError, match=r"no population file .* --population FILE"):
        read([folder], FiddleOptions(label="died"))
    (folder / "X.ID,t_range.csv").write_text("ID,t_range\n3,4\n")
    with pytest.raises(InputError, match=r"t_range\.csv: no time range like"):
        read([folder])
    (folder / "IDs.csv").write_text("ID\n7\n3\n12\n")
    with pytest.raises(InputError, match=r"IDs\.csv: IDs must ascend"):
        read([folder])


def test_text_ids_sort_as_text(release):
    population(release).write_text("ID,ARF_LABEL\nb,0\nc10,1\na,1\n")
    data = read([release])
    assert data.ids.tolist() == ["a", "b", "c10"]
    assert data.cohort.label.tolist() == [1, 0, 1]


def test_a_fiddle_cohort_folder_is_read_back(release, tmp_path):
    data = read([release])
    save_cohort(data, tmp_path / "cohort")
    again = load_cohort(tmp_path / "cohort")
    assert again.schema == data.schema
    jax.tree.map(np.testing.assert_array_equal, again.cohort, data.cohort)


def test_labels_by_name_and_with_many_values(release):
    rows = "".join(f"{i},{i % 2},{i}\n" for i in range(3))
    population(release).write_text("ID,died,code\n" + rows)
    data = read([release], FiddleOptions(label="died"))
    assert data.cohort.label.tolist() == [0, 1, 0]
    with pytest.raises(InputError, match=r"unknown label column .* 'dead'; known: ID"):
        read([release], FiddleOptions(label="dead"))
    folder = release / "features" / "ARF_4h"
    for stem, size in (("s", (11, 2)), ("X", (11, 2, 3))):
        write_matrix(folder, stem, shape=np.array(size))
    rows = "".join(f"{i},{i}\n" for i in range(11))
    population(release).write_text("ID,ARF_LABEL\n" + rows)
    with pytest.raises(InputError, match="'ARF_LABEL' has 11 different values"):
        read([release])


def test_the_toy_release(data_dir):
    folder = data_dir / "fiddle-example" / "toy_physionet_layout"
    data = read([folder], FiddleOptions(task="ARF_4h"))
    features = pathlib.Path(folder, "FIDDLE_mimic3", "features", "ARF_4h")
    with np.load(features / "X.npz") as archive:
        dense = np.zeros(archive["shape"], int)
        dense[tuple(archive["coords"])] = archive["data"]
    assert dense.shape == (120, 4, 113)
    assert isinstance(data.cohort.temporal, SparseTable)
    np.testing.assert_array_equal(data.cohort.temporal.codes, dense)
    assert data.cohort.static.codes.shape == (120, 13)
    assert abs(density(data.cohort.temporal) - dense.mean()) < 1e-12
    assert (data.schema.num_steps, data.schema.step) == (4, 1.0)
    sizes = data.provenance["partition"]["stays"]
    assert sizes == {"train": 84, "val": 18, "test": 18}
    assert data.groups[:2].tolist() == [500001, 600002]
    # one-hot groups of the names: at most one age bin a stay
    ages = [i for i, f in enumerate(data.schema.static) if f.name.startswith("AGE")]
    assert (data.cohort.static.codes[:, ages].sum(1) == 1).all()


def test_the_output_of_fiddle(data_dir):
    data = read([data_dir / "fiddle-example" / "small_test" / "output-2"])
    assert data.ids.tolist() == [1, 2, 3, 4]
    assert data.cohort.temporal.codes.shape == (4, 4, 14)
    assert data.cohort.static.codes.shape == (4, 4)
    assert data.schema.label is None
