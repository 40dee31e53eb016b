"""The shell: every refusal is one clear line with exit code 2 and leaves nothing."""

import contextlib
import io
import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import sys
import time

import pytest

from jaxehr import progress, registry
from jaxehr.cli import main

SMALL = ["--hidden", "4", "--num-layers", "1", "--steps", "4"]
STATIC = "pid,age,sex,died\n1,50.5,F,0\n2,61,M,1\n3,70,F,0\n4,44,M,1\n"
TEMPORAL = "pid,hour,hr,state\n1,0,80.5,a\n1,1,81,b\n2,0,,a\n2,1,90,b\n4,0,75,b\n"
TEMPORAL += "".join(f"3,{i},{60 + i}.5,{'ab'[i % 2]}\n" for i in range(30))
TABLES = "prepare tables --static s.csv --temporal t.csv --id pid --time hour"
TABLES = f"{TABLES} --label died --out out".split()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Compiled programs are not kept in the user's folder."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    yield
    del os.environ["JAX_COMPILATION_CACHE_DIR"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> pathlib.Path:
    """An empty working folder with the two tables."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.csv").write_text(STATIC)
    (tmp_path / "t.csv").write_text(TEMPORAL)
    return tmp_path


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> pathlib.Path:
    """A cohort, a trained run, and an unconditional run (refused before it draws)."""
    folder = tmp_path_factory.mktemp("made")
    cohort, run = str(folder / "cohort"), str(folder / "run")
    words = ["prepare", "simulate", "--n", "120", "--steps", "3", "--numeric", "1"]
    assert main([*words, "--out", cohort]) == 0
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        assert main(["train", "cdmt", cohort, *SMALL, "--out", run]) == 0
    (folder / "out.txt").write_text(out.getvalue())
    (folder / "errors.txt").write_text(errors.getvalue())

    from jaxehr.runs import load_run, save_run

    found = load_run(run)
    config = found.info["config"] | {"mode": "unconditional"}
    save_run(found._replace(info=found.info | {"config": config}), folder / "free")
    return folder


@pytest.fixture
def run(made, here) -> pathlib.Path:
    """A copy of the run that a test may damage."""
    shutil.copytree(made / "run", here / "run")
    return here / "run"


@pytest.fixture
def refused(capfd):
    """Checks that a command is refused: code 2, one line, and nothing left behind."""

    def check(words, *texts, folder="."):
        before = listing(folder)
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, errors = capfd.readouterr()
        assert code == 2, (code, out, errors)
        lines = [line for line in errors.splitlines() if not noise(line)]
        assert len(lines) == 1, errors
        assert lines[0].startswith("jaxehr: error: ")
        for text in texts:
            assert str(text) in lines[0]
        assert listing(folder) == before
        return lines[0]

    return check


def noise(line: str) -> bool:
    """What XLA logs by itself."""
    return line.startswith(("WARNING: All log", "E0000", "I0000", "W0000"))


def listing(folder) -> list[str]:
    return sorted(str(path) for path in pathlib.Path(folder).rglob("*"))


def shell(*words, limit=None, **options):
    """The command in a process of its own."""
    prepare = None
    if limit is not None:
        prepare = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    command = [sys.executable, "-m", "jaxehr.cli", *map(str, words)]
    options = {"capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run(command, preexec_fn=prepare, check=False, **options)


# Starting, help, lists


def test_help_is_fast_and_does_not_import_jax():
    code = "import sys; from jaxehr.cli import main; main(['--help']); "
    code += "print('jax' in sys.modules or 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "False"
    seconds = []
    for _ in range(3):  # the machine may be busy: the best of three
        start = time.monotonic()
        assert shell("--help").returncode == 0
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    "words",
    ["", "prepare", "train", "train cdmt", "sample", "evaluate", "list", "demo"],
)
def test_help_fits_80_columns(words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):  # tyro shows the help of a command
        assert main([*words.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: jaxehr {words}".rstrip())
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("source", registry.SOURCES)
def test_each_source_has_help(source, capsys):
    with pytest.raises(SystemExit):
        main(["prepare", source, "--help"])
    text = capsys.readouterr().out
    assert "--out COHORT" in text
    assert "options options" not in text


def test_every_field_of_the_model_is_a_documented_flag(monkeypatch, capsys):
    import dataclasses

    from jaxehr.models.cdmt.config import CdmtConfig
    from jaxehr.training.config import TrainConfig

    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["train", "cdmt", "--help"])
    text = "\n".join(line.strip("│") for line in capsys.readouterr().out.splitlines())
    parts = re.split(r"\n *--", text)[1:]
    entries = {part.split()[0].strip(","): part for part in parts}
    kinds = (CdmtConfig, TrainConfig)
    names = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    for name in names:
        if name != "train":
            entry = entries[name.replace("_", "-")]
            assert "(default:" in entry
            assert len(entry.partition("(default:")[0].split()) > 3  # type and text


def test_a_preset_changes_the_defaults(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        main(["train", "cdmt", "--preset", "small", "--help"])
    text = capsys.readouterr().out
    (row,) = [line for line in text.splitlines() if "--hidden INT" in line]
    assert "(default: 32)" in row


def test_list_shows_each_metric_with_its_titles(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (*registry.MODELS, *registry.SOURCES, *registry.METRICS):
        (line,) = [line for line in lines if line.split()[0] == name]
        assert len(line.split()) > 1
    assert main(["list", "models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(registry.MODELS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("jaxehr 0")


# Words of the shell


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ("dance", ["unknown command 'dance'", "prepare, train, sample"]),
        ("prepare", ["name a source", "physionet2012"]),
        ("prepare mimic9 --out x", ["unknown source 'mimic9'", "simulate"]),
        ("prepare simulate", ["missing: --out COHORT"]),
        ("prepare simulate --n", ["'--n'"]),
        ("prepare simulate --n abc --out x", ["--n INT", "'abc'"]),
        ("prepare simulate --n 0 --out x", ["n must be positive, got 0"]),
        ("prepare simulate --missing 2 --out x", ["[0.0, 0.5], got 2.0"]),
        ("prepare simulate --nn 3 --out x", ["Unrecognized", "--nn"]),
        ("prepare simulate --out s.csv", ["s.csv: is a file"]),
        ("prepare simulate --out s.csv/x", ["s.csv is a file"]),
        ("prepare simulate --out full", ["full: is not empty and not ours"]),
        ("prepare tables --out x", ["missing: --id"]),
        ("prepare tables --id pid --out x", ["give --static, --temporal or both"]),
        ("prepare physionet2012 --out x", ["name at least one folder or archive"]),
        ("prepare physionet2012 no --out x", ["no: no such file or folder"]),
        ("train", ["name a model", "cdmt"]),
        ("train gpt c --out x", ["unknown model 'gpt'; known: cdmt"]),
        ("train cdmt --out x", ["missing: COHORT"]),
        ("train cdmt c", ["missing: --out RUN"]),
        ("train cdmt no --out x", ["no: no such folder"]),
        ("train cdmt full --out x", ["full: not a cohort folder", "jaxehr prepare"]),
        ("train cdmt c --out x --preset big", ["unknown preset 'big'", "paper-mimic3"]),
        ("train cdmt c --out x --preset", ["'--preset'"]),
        ("train cdmt c --out x --mode odd", ["'odd'", "conditional", "unconditional"]),
        ("train cdmt c --out x --hidden 0", ["hidden must be positive, got 0"]),
        ("train cdmt c --out x --steps -1", ["steps must not be negative, got -1"]),
        ("train cdmt c --out x --seed -1", ["seed must lie in [0, 4294967295]"]),
        ("train cdmt c --out x --holdout-fraction 2", ["[0.0, 0.9], got 2.0"]),
        ("train cdmt c --out x --lr 1", ["Unrecognized", "--lr"]),
        ("sample", ["missing: RUN --n INT --out COHORT"]),
        ("sample no --n 1 --out x", ["no: not a run folder", "jaxehr train"]),
        ("sample full --n 1 --out x", ["full: not a run folder"]),
        ("sample no --n 0 --out x", ["n must be positive, got 0"]),
        ("sample no --n 1 --label a --balance --out x", ["--label and --balance"]),
        ("evaluate", ["missing: --real COHORT --synthetic COHORT --out REPORT"]),
        (
            "evaluate --real c --synthetic c --out x --metrics fid",
            ["unknown metric 'fid'", *registry.METRICS],
        ),
        ("evaluate --real no --synthetic no --out x", ["no: no such folder"]),
        ("evaluate --real no --synthetic no --out full", ["full: is not empty"]),
        ("list colours", ["unknown group to list 'colours'", "metrics"]),
        ("demo --out full", ["full: is not empty and holds no demo"]),
        ("demo --steps 0", ["steps must be positive"]),
    ],
)
def test_wrong_words_are_one_line(words, texts, here, refused):
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("precious")
    refused(words.split(), *texts)


# Tables


@pytest.mark.parametrize(
    ("file", "old", "new", "texts"),
    [
        ("s.csv", "died", "dead", ["s.csv", "'died'", "missing"]),
        ("t.csv", "pid,", "id,", ["t.csv", "'pid'", "missing"]),
        ("t.csv", "1,1,81,b", "1,0,81,b", ["duplicate", "1"]),
        ("t.csv", "2,1,90", "2,1,ninety", ["t.csv", "'hr'", "ninety", "row 4"]),
        ("t.csv", "2,1,90", "2,1,inf", ["t.csv", "'hr'", "inf", "row 4"]),
        ("t.csv", "2,1,90", "2,1,nan", ["t.csv", "'hr'", "nan", "row 4"]),
        ("t.csv", "1,1,81", "1,-1,81", ["t.csv", "'hour'", "-1"]),
        ("t.csv", "4,0,75", "9,0,75", ["9"]),
        ("s.csv", "3,70,F,0", "3,70,F,", ["label", "missing"]),
        ("s.csv", None, STATIC.replace(",1\n", ",0\n"), ["label", "1 class"]),
        ("s.csv", None, "pid,age,sex,died\n", ["s.csv", "empty table"]),
        ("s.csv", None, "", ["s.csv", "empty"]),
        ("t.csv", None, "pid,hour,hr\n1,0,\n2,0,\n3,0,\n4,0,\n", ["'hr'", "missing"]),
        ("t.csv", None, "remove", ["t.csv: no such file"]),
    ],
)
def test_bad_tables_are_one_line(file, old, new, texts, here, refused):
    path = here / file
    if new == "remove":
        path.unlink()
    else:
        assert old is None or old in path.read_text()
        path.write_text(new if old is None else path.read_text().replace(old, new))
    refused(TABLES, *texts)


def test_the_schema_is_shown_and_comes_back_edited(here, capfd, refused):
    assert main(TABLES) == 0
    shown = capfd.readouterr().out
    assert "missing" in shown  # the heading
    assert "2.9%" in shown  # one of 35 heart rates
    assert "schema.json" in shown
    schema = json.loads((here / "out" / "schema.json").read_text())
    (rate,) = [f for f in schema["temporal"] if f["name"] == "hr"]
    rate |= {"kind": "numeric", "dtype": "double", "unit": "bpm"}
    rate |= {"lower": 0.0, "upper": 300.0, "categories": []}
    rate.pop("categories")
    (here / "edited.json").write_text(json.dumps(schema))
    words = [*TABLES[:-1], "again", "--schema", "edited.json"]
    assert main(words) == 0
    assert "bpm" in capfd.readouterr().out
    again = json.loads((here / "again" / "schema.json").read_text())
    assert again == schema
    (here / "t.csv").write_text(TEMPORAL.replace(",a\n", ",z\n", 1))
    words[words.index("again")] = "third"
    refused(words, "unknown category", "'state'", "z")


def test_lists_have_commas_and_leave_paths_alone():
    from jaxehr.commands.prepare import parse

    words = ["--variables", "HR,Temp", "one", "two", "--static=", "--out", "x"]
    found = parse("physionet2012", words)
    assert found.options.variables == ("HR", "Temp")
    assert found.options.static == ()
    assert found.paths == ["one", "two"]
    found = parse("physionet2012", ["one", "--out", "x", "--static", ""])
    assert found.options.static == ()


# Folders


def test_names_with_spaces_and_other_scripts(here):
    out = here / "Kohorte ä 群" / "1 [x]"
    assert main([*TABLES[:-1], str(out)]) == 0
    assert (out / "schema.json").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(here, refused):
    (here / "locked").mkdir(mode=0o500)
    refused([*TABLES[:-1], "locked/out"], "locked/out", "not writable")


def test_a_folder_that_cannot_be_made(here, refused):
    refused([*TABLES[:-1], "/proc/none/out"], "/proc/none/out", "cannot be written")


def test_nothing_is_replaced_unasked(here, refused):
    assert main(TABLES) == 0
    refused(TABLES, "out: already exists; choose another folder")


def test_a_full_disk(here):
    before = listing(here)
    words = ["prepare", "simulate", "--n", "2000", "--out", "deep/out"]
    found = shell(*words, limit=20_000, cwd=here)
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith("jaxehr: error: deep/out: cannot be written (")
    assert "File too large" in line
    left = [path for path in listing(here) if path not in before]
    assert left in ([], [str(here / "deep")])


def test_a_disk_that_fills_up_in_training(made, here):
    before = listing(here)
    words = ["train", "cdmt", made / "cohort", "--out", "deep/run", *SMALL]
    found = shell(*words, limit=30_000, cwd=here)
    assert found.returncode == 2, found.stderr
    *shown, line = found.stderr.splitlines()
    assert all(text.startswith("training: ") for text in shown), found.stderr
    assert line.startswith("jaxehr: error: deep/run/checkpoints: cannot be written (")
    assert "File too large" in line
    assert listing(here) == before


def test_output_that_nobody_reads():
    read, write = os.pipe()
    os.close(read)
    found = shell(
        "list", "sources", stdout=write, stderr=subprocess.PIPE, capture_output=False
    )
    os.close(write)
    assert found.returncode == 141  # as `cat` and `ls` end
    assert found.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_output_to_a_full_device():
    with open("/dev/full", "w") as full:
        found = shell(
            "list", "sources", stdout=full, stderr=subprocess.PIPE, capture_output=False
        )
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert "No space left on device" in line


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
            lambda b: b.replace(b'"format": 1', b'"format": 9'),
            ["9, this version reads 1"],
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
        ("run --n 2 --out full --overwrite", ["full: is not empty and not ours"]),
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
