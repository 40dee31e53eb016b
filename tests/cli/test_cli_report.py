"""`jaxehr report alignment`: runs that have a page, and runs that are refused."""

import json

import numpy as np
import pytest

from jaxehr.cli import main

DIAGNOSTICS = {
    "status": "ok",
    "method": "fused",
    "heat": [[0.4, 0.1], [0.1, 0.4]],
    "class_mass": [[0.4, 0.1], [0.1, 0.4]],
    "label_agreement": 0.8,
    "label_chance": 0.5,
    "hidden": {"patients": 30, "fused": {"static": 0.7, "temporal": 0.8}},
}


@pytest.fixture
def aligned(here):
    """A run folder as `train flexgen` leaves it, with these diagnostics."""
    from jaxehr.data.simulate import SimulateOptions, simulate
    from jaxehr.models.flexgen.config import FlexgenConfig
    from jaxehr.runs import Run, describe, save_run

    data, config = simulate(SimulateOptions(n=40, steps=3)), FlexgenConfig()
    info = describe("flexgen", data, config, 0, 0.2)
    parts = {"fitted": {"x": np.zeros(1)}, "weights": {"x": np.zeros(1)}}

    def save(diagnostics, name="aligned"):
        params = parts if diagnostics is None else parts | {"diagnostics": diagnostics}
        save_run(Run("flexgen", config, data.schema, params, info), here / name)
        return here / name

    return save


def as_text(diagnostics):
    return np.array(json.dumps(diagnostics))


def test_the_page_lies_in_the_run_and_is_replaced_when_asked(aligned, here, capsys):
    run = aligned(as_text(DIAGNOSTICS))
    assert main(["report", "alignment", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "aligned/alignment/alignment.html: open it in a browser" in shown
    page = run / "alignment" / "alignment.html"
    text = page.read_text(encoding="utf-8")
    assert "The alignment settled on a plan" in text
    assert ">static: 0<" in text  # the classes of the cohort
    found = json.loads((run / "alignment" / "alignment.json").read_text())
    assert found["diagnostics"] == DIAGNOSTICS
    assert found["run"]["label"] == "outcome"
    page.unlink()
    assert main(["report", "alignment", str(run), "--overwrite"]) == 0
    assert page.read_text(encoding="utf-8") == text
    assert main(["report", "alignment", str(run), "--out", "elsewhere"]) == 0
    assert (here / "elsewhere" / "alignment.html").is_file()


def test_a_run_without_alignment_says_so_on_the_page(aligned):
    run = aligned(as_text({"status": "none", "method": "complete", "hidden": {}}))
    assert main(["report", "alignment", str(run)]) == 0
    text = (run / "alignment" / "alignment.html").read_text(encoding="utf-8")
    assert "No alignment was made" in text
    assert "method complete" in text


@pytest.mark.parametrize("words", [None, np.array("{"), np.array("[1]")])
def test_a_run_without_diagnostics(words, aligned, refused):
    run = aligned(words)
    refused(["report", "alignment", run], "no readable diagnostics", "train it anew")


def test_runs_and_folders_that_are_refused(run, here, aligned, refused):
    refused(["report", "alignment", "run"], "run: model cdmt aligns nothing", "flexgen")
    (run / "params.npz").unlink()
    refused(["report", "alignment", "run"], "training has not ended", "jaxehr train")
    found = aligned(as_text(DIAGNOSTICS))
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("precious")
    (found / "alignment").mkdir()
    (found / "alignment" / "alignment.json").write_text("{}")
    refused(["report", "alignment", found], "alignment: already exists; choose another")
    words = ["report", "alignment", found, "--out"]
    refused([*words, "full", "--overwrite"], "full: already exists and is no report")
    refused([*words, "s.csv"], "s.csv: is a file")


def test_help_lists_the_reports(capsys):
    assert main(["report", "--help"]) == 0
    assert "alignment  how static and temporal" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["report", "alignment", "--help"])
    assert "--overwrite" in capsys.readouterr().out
