"""Models without training and with: the same commands; what report and help say."""

import json

import pytest

from jaxehr.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    words = ["prepare", "simulate", "--n", "150", "--steps", "3", "--numeric", "1"]
    assert main([*words, "--out", str(folder / "cohort")]) == 0
    return folder


def test_a_model_without_training(folder, capsys):
    cohort, run, made = (str(folder / name) for name in ("cohort", "run", "made"))
    words = ["train", "independent", cohort, "--out", run, "--drop-static", "0.2"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "held out; no training" in shown
    assert "independent: one row a patient: " in shown
    assert f"{run}: trained; next: jaxehr sample" in shown
    assert main(words) == 0  # again: nothing else
    words = ["sample", run, "--n", "60", "--label", "1", "--missing", "none"]
    assert main([*words, "--out", made]) == 0
    words = ["evaluate", "--real", cohort, "--synthetic", made, "--run", run]
    words += ["--quick", "--metrics", "tvd", "--out", str(folder / "report")]
    assert main(words) == 0
    told = json.loads((folder / "report" / "metrics.json").read_text())["run"]
    assert told["input"].startswith("one row a patient")
    assert told["steps"] is None
    assert "one row a patient" in (folder / "report" / "report.html").read_text()


def test_copies_have_no_options(folder, capsys):
    cohort, run, made = (str(folder / name) for name in ("cohort", "copy", "copies"))
    assert main(["train", "bootstrap", cohort, "--out", run]) == 0
    assert main(["sample", run, "--n", "5", "--out", made]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["train", "bootstrap", "--help"])
    assert "--preset" not in capsys.readouterr().out


def test_every_choice_of_a_trained_one_is_a_flag(folder, capsys):
    cohort, run = str(folder / "cohort"), str(folder / "vae")
    words = ["train", "vae", cohort, "--out", run, "--preset", "small", "--hidden", "8"]
    words += ["--latent", "2", "--steps", "3", "--batch-size", "32", "--rows", "flat"]
    assert main(words) == 0
    assert "trained, 3 steps of 32 patients" in capsys.readouterr().out
    info = json.loads((folder / "vae" / "run.json").read_text())
    assert info["config"]["latent"] == 2
    assert info["config"]["train"]["lr_schedule"] == "cosine"
    lines = (folder / "vae" / "metrics.jsonl").read_text().splitlines()
    assert {"kl", "reconstruction", "valid_loss"} <= set(json.loads(lines[-1]))


def test_sums_need_binary_columns(folder, refused):
    words = ["train", "vae", folder / "cohort", "--out", "out", "--rows", "sums"]
    refused(words, "sums over time need binary columns", "--rows flat")
