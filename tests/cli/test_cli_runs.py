"""Runs, sampling, evaluation, progress: what is refused and what is said."""

import itertools
import json
import shutil
import socket

import pytest
from cli_tools import SMALL, TABLES

from jaxehr import progress
from jaxehr.cli import main
from jaxehr.core.checks import InputError
from jaxehr.core.configs import replace
from jaxehr.data.store import load_cohort
from jaxehr.runs.folder import FORMAT, PARAMS, RUN_FILE, load_run
from jaxehr.runs.training import train_run

# Runs


def test_training_into_a_folder_of_another_run(made, run, refused):
    words = ["train", "cdmt", made / "cohort", "--out", "run", *SMALL]
    line = refused([*words, "--hidden", "5", "--seed", "3"], "run: holds another run")
    assert "config.hidden: 4 -> 5" in line
    assert "seed: 0 -> 3" in line
    assert len(line) < 400


def test_training_into_a_foreign_folder(made, here, refused):
    (here / "full").mkdir()
    (here / "full" / "metrics.jsonl").write_text("precious")
    (here / "full" / "checkpoints").mkdir()
    words = ["train", "cdmt", made / "cohort", *SMALL, "--out"]
    refused([*words, "full"], "full: is not empty and not a run")
    refused([*words, "s.csv"], "s.csv: is a file")


def test_a_refusal_by_the_model_leaves_no_run_folder(here, refused):
    words = "prepare tables --static s.csv --temporal t.csv --id pid --time hour"
    table = "".join(f"{i},{i % 7}.5,{i % 2}\n" for i in range(40))
    (here / "s.csv").write_text("pid,age,died\n" + table)
    (here / "t.csv").write_text("pid,hour,hr\n1,0,80.5\n2,0,81.5\n3,0,60.5\n")
    assert main([*words.split(), "--label", "died", "--out", "cohort"]) == 0
    words = ["train", "cdmt", "cohort", "--out", "deep/run", *SMALL]
    refused([*words, "--mode", "unconditional"], "vote over time steps")


def test_the_same_command_again_changes_nothing(made, run, capsys):
    before = (run / "params.npz").read_bytes()
    words = ["train", "cdmt", str(made / "cohort"), "--out", str(run), *SMALL]
    assert main(words) == 0
    assert "trained, 4 steps of 64 patients" in capsys.readouterr().out
    assert (run / "params.npz").read_bytes() == before


def test_new_steps_take_the_end_of_an_old_training_away(made, here):
    """Its parameters would else stand beside the numbers of later steps."""
    words = ["train", "cdmt", str(made / "cohort"), "--out", "longer", *SMALL]
    assert main([*words, "--steps", "9999", "--max-minutes", "1e-9"]) == 0
    assert (here / "longer" / PARAMS).is_file()

    def stop(step, told):
        raise KeyboardInterrupt

    run, data = load_run("longer"), load_cohort(made / "cohort")
    more = replace(run.config, {"train": {"max_minutes": 0.0}})
    with pytest.raises(KeyboardInterrupt):
        train_run("cdmt", data, "longer", more, callbacks=[stop])
    with pytest.raises(InputError, match="training has not ended"):
        load_run("longer")


def test_a_run_that_was_killed_at_its_first_file_goes_on(made, here):
    (here / "first").mkdir()
    (here / "first" / f".{RUN_FILE}.x1y2").write_text('{"form')
    words = ["train", "cdmt", str(made / "cohort"), "--out", "first", *SMALL]
    assert main(words) == 0


def test_what_training_says(made):
    first, second, last = (made / "out.txt").read_text().splitlines()
    assert "people to learn from" in first
    assert "4 steps of 64" in first  # chosen for the cohort
    assert second.startswith("estimate: 4 steps of ")
    assert "MiB" in second
    assert "trained, 4 steps of 64 patients; next: jaxehr sample" in last
    shown = (made / "errors.txt").read_text().splitlines()
    assert shown[-1].startswith("training: 4/4  ")
    assert "loss" in shown[-1]


@pytest.mark.parametrize("files", ["*", "state/**/d/*"])
def test_damaged_checkpoints(files, made, run, refused):
    (run / "params.npz").unlink()
    for path in (run / "checkpoints" / "4").rglob("*"):
        if path.is_file() and path.relative_to(run / "checkpoints" / "4").match(files):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    words = ["train", "cdmt", made / "cohort", "--out", "run", *SMALL]
    refused(words, "run/checkpoints", "damaged", "rain into another folder")


@pytest.mark.parametrize(
    ("file", "change", "texts"),
    [
        ("params.npz", lambda b: b[: len(b) // 2], ["params.npz", "damaged"]),
        ("params.npz", lambda b: b[:1500] + b"xyzt" + b[1504:], ["params.npz"]),
        ("params.npz", lambda b: b"", ["params.npz", "damaged"]),
        ("params.npz", None, ["training has not ended", "jaxehr train"]),
        ("run.json", lambda b: b[: len(b) // 2], ["run.json", "not valid JSON"]),
        ("run.json", lambda b: b"[1]", ["run.json"]),
        ("run.json", lambda b: b.replace(b'"hidden": 4', b'"hidden": 5'), ["edited"]),
        (
            "run.json",
            lambda b: b.replace(b'"hidden": 4', b'"hidden": "x"'),
            ["damaged"],
        ),
        ("run.json", lambda b: b.replace(b'"hidden"', b'"hiden"'), ["hiden"]),
        (
            "run.json",
            lambda b: b.replace(b'"format": %d' % FORMAT, b'"format": 9'),
            [f"9, this version reads {FORMAT}"],
        ),
        ("run.json", lambda b: b.replace(b'"cdmt"', b'"gpt"'), ["'gpt'", "cdmt"]),
        ("run.json", None, ["not a run folder"]),
    ],
)
def test_damaged_runs(file, change, texts, run, refused):
    path = run / file
    if change is None:
        path.unlink()
    else:
        before = path.read_bytes()
        path.write_bytes(change(before))
        assert path.read_bytes() != before
    refused(["sample", "run", "--n", "2", "--out", "out"], "run", *texts)


# Sampling and evaluation


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ("run --n 2 --label 7", ["unknown class of label 'outcome' '7'; known: 0, 1"]),
        ("free --n 2 --label 1", ["--mode conditional"]),
        ("free --n 2 --balance", ["--mode conditional"]),
        ("free --n 2 --guidance 2", ["guidance needs a model", "--mode conditional"]),
        ("run --n 2 --guidance -3", ["guidance must be at least -1"]),
        ("run --n 2 --solver rk4", ["'rk4'", "euler", "heun"]),
        ("run --n 2 --steps 0", ["steps must be positive"]),
        ("run --n -4", ["n must be positive"]),
        ("run --n 2 --schema s.csv", ["--schema names rules", "add --enforce-rules"]),
        ("run --n 2 --enforce-rules --schema s.csv", ["s.csv: not valid JSON"]),
        ("run --n 2 --out full --overwrite", ["full: already exists and is no cohort"]),
    ],
)
def test_wrong_sampling(words, texts, made, here, refused):
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("precious")
    name, *rest = words.split()
    refused(["sample", made / name, "--out", "out", *rest], *texts)


def test_no_command_uses_the_network(made, here, monkeypatch, capsys):
    def blocked(*_, **__):
        raise AssertionError("a socket was opened")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    words = ["prepare", "simulate", "--n", "120", "--steps", "3", "--numeric", "1"]
    assert main([*words, "--out", "c"]) == 0
    assert main(["train", "cdmt", "c", "--out", "r", *SMALL]) == 0
    words = ["sample", "r", "--n", "60", "--steps", "3", "--label", "1"]
    assert main([*words, "--out", "s"]) == 0
    provenance = json.loads((here / "s" / "provenance.json").read_text())
    assert provenance["sampling"]["steps"] == 3
    assert main([*words, "--out", "s", "--overwrite"]) == 0
    words = ["evaluate", "--real", "c", "--synthetic", "s", "--quick", "--run", "r"]
    capsys.readouterr()
    assert main([*words, "--metrics", "tvd,acf", "--out", "e"]) == 0
    shown = capsys.readouterr().out
    assert "tvd" in shown
    assert "e/report.html: open it in a browser" in shown
    assert (here / "e" / "metrics.json").is_file()


def test_real_patients_are_not_replaced_by_synthetic_ones(made, here, refused):
    shutil.copytree(made / "cohort", here / "real")
    words = ["sample", made / "run", "--n", "5", "--out", "real", "--overwrite"]
    refused(words, "real: already exists and is no cohort of synthetic patients")


def test_cohorts_in_each_others_place_are_refused(made, here, refused):
    drawn = here / "drawn"
    shutil.copytree(made / "cohort", drawn)
    (drawn / "provenance.json").write_text('{"kind": "synthetic"}')
    pair = ["--real", drawn, "--synthetic", made / "cohort", "--out", "e"]
    for command in ("evaluate", "audit"):
        refused([command, *pair], f"--real {drawn}: holds synthetic patients; name")
    pair[1:4] = [made / "cohort", "--synthetic", drawn]
    refused(["evaluate", *pair, "--holdout", drawn], f"--holdout {drawn}: holds synth")


def test_sampling_with_rules(made, here, refused, capfd):
    shutil.copytree(made / "cohort", here / "ruled")
    path = here / "ruled" / "schema.json"
    content = json.loads(path.read_text())
    content["rules"] = [{"rule": "order", "columns": ["weight", "vital_0"]}]
    path.write_text(json.dumps(content))
    words = ["sample", str(made / "run"), "--n", "60", "--steps", "3"]
    rules = ["--enforce-rules", "--schema", "ruled/schema.json"]
    assert main([*words, *rules, "--out", "s"]) == 0
    counts = json.loads((here / "s" / "provenance.json").read_text())["rules"]
    assert counts["broken_before"]["weight >= vital_0"]["patients"] > 0
    told = f"60 synthetic patients, {counts['patients_changed']} changed to keep rules"
    assert told in capfd.readouterr().out
    words = ["evaluate", "--real", "ruled", "--holdout", "ruled", "--synthetic", "s"]
    words += ["--run", str(made / "run"), "--metrics", "rules", "--out", "e"]
    assert main(words) == 0
    (metric,) = json.loads((here / "e" / "metrics.json").read_text())["metrics"]
    assert metric["value"] == 0.0 < metric["reference"]
    content["static"] = content["static"][1:]
    path.write_text(json.dumps(content))
    words = ["sample", made / "run", "--n", "6", *rules, "--out", "other"]
    refused(words, "schemas of the run and ruled/schema.json differ")


def test_evaluation_of_other_columns(made, here, refused):
    assert main(TABLES) == 0
    words = ["evaluate", "--real", made / "cohort", "--out", "e"]
    refused([*words, "--synthetic", "out"], "differ", "'weight'")
    cohort = made / "cohort"
    words = ["evaluate", "--real", "out", "--synthetic", "out", "--out", "e"]
    refused([*words, "--run", made / "run"], "was trained on other columns")
    shutil.copytree(cohort, here / "edited")
    path = here / "edited" / "schema.json"
    path.write_text(path.read_text().replace('"paced"', '"pacing"'))
    words = ["evaluate", "--real", cohort, "--synthetic", "edited", "--out", "e"]
    refused(words, "'rhythm'", "paced")


def test_the_table_shows_every_kind_of_number(capsys):
    from jaxehr.commands.evaluate import show
    from jaxehr.core.contracts import Definition, Result, Value

    plain = Definition("A", "", "lower", 0.0)
    paired = Definition("B", "", "target", None)
    show(
        [
            Result("a", "fidelity", plain, Value(0.25, 0.125)),
            Result("b", "temporal", paired, Value(2.0, 3.0)),
            Result("c", "utility", plain, Value(None, reason="no label")),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "0.2500", "0.1250", "lower", "(0)"]
    assert lines[2].split() == ["b", "2.0000", "3.0000", "target", "(real)"]
    assert lines[3].split() == ["c", "-", "-", "no", "label"]


# Progress


def test_the_progress_line_shows_the_time_left(monkeypatch, capsys):
    clock = itertools.count(100.0, 20.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Progress("training", 100) as bar:
        bar.update(0)
        bar.update(10, "loss 1")
        bar.update(50)
        bar.update(100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 10/100  3:00 left  loss 1",
        "training: 50/100  0:40 left",
        "training: 100/100  in 1:00",
    ]
    assert progress.clock(3725) == "1:02:05"
