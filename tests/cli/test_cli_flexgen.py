"""flexgen from the shell: train with hidden parts, sample, impute, the page."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxehr.cli import main

HIDDEN = 20  # patients who lose each part before `impute`
SMALL = "--preset small --latent 4 --hidden 8 --hidden-sequence 4 --width 16 --steps 4"
SMALL = f"{SMALL} --autoencoder-epochs 1 --batch-size 64 --diffusion-steps 5".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort, a run that did not see 30 % of each part, and what it said."""
    folder = tmp_path_factory.mktemp("flexgen")
    cohort, run = str(folder / "cohort"), str(folder / "run")
    # 0.4 of 320 people keep both parts; a fifth of fewer than 100 is not measured.
    words = ["prepare", "simulate", "--n", "400", "--steps", "3", "--numeric", "1"]
    assert main([*words, "--out", cohort]) == 0
    words = ["--drop-static", ".3", "--drop-temporal", ".3", "--out", run]
    assert main(["train", "flexgen", cohort, *SMALL, *words]) == 0
    return folder


def test_everyone_has_both_parts_when_nothing_is_to_be_missing(folder):
    from jaxehr.data.store import load_cohort

    words = ["sample", folder / "run", "--n", "50", "--missing", "none"]
    assert main([*map(str, words), "--out", str(folder / "made")]) == 0
    made = load_cohort(folder / "made").cohort
    assert len(made.label) == 50
    assert made.has_static.all()
    assert made.has_temporal.all()


@pytest.fixture
def lacking(folder):
    """The first people of the cohort, some without a static, some without a temporal
    part."""
    from jaxehr.core.cohort import make_cohort, take
    from jaxehr.data.store import load_cohort, save_cohort

    data = take(load_cohort(folder / "cohort"), np.arange(3 * HIDDEN))
    static, length = data.cohort.static, data.cohort.length.copy()
    seen = static.observed.copy()
    seen[:HIDDEN], length[HIDDEN : 2 * HIDDEN] = False, 0
    static = static._replace(observed=seen)
    cohort = make_cohort(static, data.cohort.temporal, length, data.cohort.label)
    data = data._replace(cohort=cohort)
    save_cohort(data, folder / "lacking", overwrite=True)
    return data


def test_missing_parts_are_drawn_and_the_rest_stays(folder, lacking, capsys):
    from jaxehr.data.store import load_cohort

    words = ["impute", folder / "run", folder / "lacking", "--draws", "2"]
    assert main([*map(str, words), "--out", str(folder / "whole")]) == 0
    told = f"2 draw(s) of the static part of {HIDDEN} and the temporal part of {HIDDEN}"
    assert told in capsys.readouterr().out
    assert sorted(p.name for p in (folder / "whole" / "draws").iterdir()) == [
        "001",
        "002",
    ]
    first, one, two = (
        load_cohort(folder / "whole" / name).cohort
        for name in (".", "draws/001", "draws/002")
    )
    before = lacking.cohort
    for made in (first, one, two):
        assert made.has_static.all()
        assert made.has_temporal.all()
        np.testing.assert_array_equal(made.label, before.label)
        for part in ("static", "temporal"):
            has = getattr(before, f"has_{part}")
            for a, b in zip(getattr(made, part), getattr(before, part), strict=True):
                np.testing.assert_array_equal(a[has], b[has])
    np.testing.assert_array_equal(first.static.numeric, one.static.numeric)
    assert (one.static.numeric != two.static.numeric).any()
    table = pq.read_table(folder / "whole" / "spread.parquet").to_pydict()
    ids = {str(lacking.ids[row]) for row in range(2 * HIDDEN)}
    assert {str(name) for name in table[lacking.schema.id]} == ids
    assert set(table["present"]) <= {0.5, 1.0}


def test_the_page_compares_every_method_on_hidden_parts(folder):
    from jaxehr.report.align_words import METHODS

    assert main(["report", "alignment", str(folder / "run")]) == 0
    page = (folder / "run" / "alignment" / "alignment.html").read_text("utf-8")
    found = json.loads((folder / "run" / "alignment" / "alignment.json").read_text())
    errors = found["diagnostics"]["hidden"]
    names = {"fused", "ridge", "bures", "knn", "class-mean"}
    assert set(errors) == {"patients"} | names
    for name in names:
        assert METHODS[name] in page
        assert f"{name} {errors[name]['static']:.2f}" in page
        assert f"{name} {errors[name]['temporal']:.2f}" in page
