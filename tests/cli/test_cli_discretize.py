"""`prepare fiddle` and `prepare SOURCE --discretize fiddle`."""

import json

import numpy as np
import pytest

from jaxehr.cli import main
from jaxehr.core.sparse import SparseTable
from jaxehr.data.store import load_cohort

SIMULATE = ["prepare", "simulate", "--n", "150", "--steps", "3", "--numeric", "1"]
FORM = ["--discretize", "fiddle"]


def release(folder):
    """Two stays in the layout of the PhysioNet release."""
    features = folder / "features" / "ARF_4h"
    features.mkdir(parents=True)
    for stem, shape in (("s", (2, 1)), ("X", (2, 4, 2))):
        coords = np.zeros((len(shape), 1), int)
        np.savez(features / f"{stem}.npz", data=[1], coords=coords, shape=shape)
        names = [f"{stem}{i}" for i in range(shape[-1])]
        (features / f"{stem}.feature_names.json").write_text(json.dumps(names))
    (folder / "population").mkdir()
    table = "ID,partition,ARF_LABEL\n1,train,0\n2,test,1\n"
    (folder / "population" / "ARF_4h.csv").write_text(table)
    return str(folder)


def test_prepare_fiddle_says_which_split_the_data_have(here, capsys):
    words = ["prepare", "fiddle", release(here / "made"), "--task", "ARF_4h"]
    assert main([*words, "--out", "all"]) == 0
    said = capsys.readouterr().out
    assert "2 patients, 1 static and 2 temporal features, 4 steps of 1 h" in said
    assert "(6.2% ones); label ARF_LABEL (0: 1, 1: 1)" in said
    assert "partition in ARF_4h.csv (test 1, train 1)" in said
    assert said.endswith("; persons unknown: split by stay\n")
    assert main([*words, "--partition", "train,val", "--out", "train"]) == 0
    assert load_cohort("train").ids.tolist() == [1]


def test_any_source_takes_the_form_of_fiddle(here, capsys):
    first, second = ["--discretize", "fiddle"], ["--discretize-like", "a"]
    assert main([*SIMULATE, *first, "--out", "a"]) == 0
    assert "bins fitted on" in capsys.readouterr().out
    data = load_cohort("a")
    assert isinstance(data.cohort.temporal, SparseTable)
    assert main([*SIMULATE, *first, *second, "--seed", "1", "--out", "b"]) == 0
    assert load_cohort("b").schema == data.schema
    assert load_cohort("b").provenance["discretize"]["like"] == "a"
    assert main([*SIMULATE, *first, "--discretize-holdout", "0", "--out", "c"]) == 0
    assert load_cohort("c").provenance["discretize"]["fitted_on"] == 150


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--discretize", "binary"], "invalid choice 'binary'"),
        (["--discretize-like", "plain"], "--discretize-like needs --discretize fiddle"),
        (["--discretize-holdout", "0"], "--discretize-holdout needs --discretize fidd"),
        (
            [*FORM, "--discretize-like", "plain", "--discretize-holdout", "0"],
            "leave --discretize-holdout out",
        ),
        (["--discretize", "fiddle", "--discretize-like", "plain"], "was not made with"),
        (["--discretize", "fiddle", "--discretize-like", "no"], "no: no such folder"),
        (["--discretize", "fiddle", "--discretize-holdout", "1"], "[0.0, 0.99], got 1"),
    ],
)
def test_wrong_words_are_one_line(here, refused, words, text):
    assert main([*SIMULATE, "--out", "plain"]) == 0
    refused([*SIMULATE, *words, "--out", "out"], text)


def test_wrong_folders_of_fiddle_are_one_line(here, refused):
    folder = release(here / "made")
    words = ["prepare", "fiddle", folder, "--out", "out"]
    refused([*words, "--task", "ARF_12h"], "'ARF_12h'; known: ARF_4h")
    refused([*words, "--discretize", "fiddle"], "the cohort is binary already")
    refused([*words, "--partition", "valid"], "unknown partition 'valid'")
    refused([*words, "--partition", "val"], "no stay is in 'val'")
    (here / "made" / "features" / "ARF_4h" / "X.npz").write_bytes(b"PK\3\4")
    refused(words, "X.npz: not a readable npz file")
