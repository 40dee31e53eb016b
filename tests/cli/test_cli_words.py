"""The words of the shell: help, lists, wrong flags and values."""

import contextlib
import io
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from cli_tools import shell

from jaxehr import cli, registry
from jaxehr.cli import main
from jaxehr.commands.demo import check_size
from jaxehr.core.checks import InputError

# Starting, help, lists


def test_help_does_not_import_jax():
    code = "import sys; from jaxehr.cli import main; main(['--help']); "
    code += "print('jax' in sys.modules or 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "False"
    assert shell("--help").returncode == 0


def test_the_package_is_the_command_too():
    words = [sys.executable, "-m", "jaxehr", "--version"]
    found = subprocess.run(words, capture_output=True, text=True)
    assert found.stdout == shell("--version").stdout


@pytest.mark.parametrize(
    "words",
    [
        "",
        "prepare",
        "train",
        "train cdmt",
        "sample",
        "impute",
        "evaluate",
        "audit",
        "report",
        "report alignment",
        "list",
        "demo",
    ],
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


def test_help_of_sample_shows_the_options_of_the_run_only(here, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "400")
    (here / "run").mkdir()
    (here / "run" / "run.json").write_text('{"model": "flexgen"}')
    for words, shown, hidden in (
        ("sample", "`jaxehr sample RUN --help` shows the options of", "--products"),
        ("sample run", "--missing", "--products"),
    ):
        with pytest.raises(SystemExit):
            main([*words.split(), "--help"])
        text = capsys.readouterr().out
        assert shown in text
        assert hidden not in text


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
        ("prepare simulate --out full", ["full: already exists"]),
        ("prepare tables --out x", ["missing: --id"]),
        ("prepare tables --id pid --out x", ["give --static, --temporal or both"]),
        ("prepare physionet2012 --out x", ["name at least one folder or archive"]),
        ("prepare physionet2012 no --out x", ["no: no such file or folder"]),
        ("train", ["name a model", "cdmt"]),
        ("train cdmt", ["missing: COHORT --out RUN"]),
        ("train gpt c --out x", ["unknown model 'gpt'; known: cdmt"]),
        ("train cdmt --out x", ["missing: COHORT"]),
        ("train cdmt c", ["missing: --out RUN"]),
        ("train cdmt no --out x", ["no: no such folder"]),
        ("train cdmt full --out x", ["full: not a cohort folder", "jaxehr prepare"]),
        ("train cdmt c --out x --preset big", ["unknown preset 'big'", "paper-mimic3"]),
        ("train cdmt c --out x --preset", ["'--preset'"]),
        ("train copula c --out x --preset small", ["copula has no presets; leave"]),
        ("train cdmt c --out x --mode odd", ["'odd'", "conditional", "unconditional"]),
        ("train cdmt c --out x --hidden 0", ["hidden must be positive, got 0"]),
        ("train cdmt c --out x --steps -1", ["steps must not be negative, got -1"]),
        ("train cdmt c --out x --seed -1", ["seed must lie in [0, 4294967295]"]),
        ("train cdmt c --out x --holdout-fraction 2", ["[0.0, 0.9], got 2.0"]),
        ("train cdmt c --out x --lr 1", ["Unrecognized", "--lr"]),
        (
            "sample",
            ["missing: RUN --n INT --out COHORT", "see `jaxehr sample RUN --help`"],
        ),
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
        (
            "evaluate --real no --synthetic no --out full",
            ["full: already exists and is"],
        ),
        (
            "evaluate --real c --synthetic c --out x --remember s.csv",
            ["--remember s.csv: must be a folder"],
        ),
        (
            "evaluate --real c --synthetic c --out x --remember m --distributed",
            ["leave it or --distributed out"],
        ),
        ("evaluate --real c --synthetic c --out x --rows -1", ["--rows must not be"]),
        ("audit", ["missing: --real COHORT --synthetic COHORT"]),
        ("audit --real no --synthetic no", ["no: no such folder"]),
        ("audit --real no --synthetic no --out full", ["full: already exists and is"]),
        ("audit --real no --synthetic no --policy p", ["p: no such file"]),
        ("audit --real no --synthetic no --policy s.csv", ["s.csv: not valid JSON"]),
        ("audit --real no --synthetic no --run no", ["no: not a run folder"]),
        ("audit --real no --synthetic no --seed -1", ["seed must lie in"]),
        ("audit --real c --synthetic c --shadow 16", ["--shadow attacks the model"]),
        ("audit --real c --synthetic c --shadow-steps 9", ["belongs to --shadow"]),
        ("audit --real c --synthetic c --run r --shadow 7", ["at least 8, got 7"]),
        ("impute", ["missing: RUN COHORT --out COHORT"]),
        ("impute no c --out x --draws 0", ["draws must be positive, got 0"]),
        ("impute no c --out full", ["full: already exists"]),
        ("report", ["name a report", "alignment"]),
        ("report losses", ["unknown report 'losses'; known: alignment"]),
        ("report alignment", ["missing: RUN"]),
        ("report alignment no", ["no: not a run folder", "jaxehr train"]),
        ("report alignment full", ["full: not a run folder"]),
        ("report alignment r --model x", ["Unrecognized", "--model"]),
        ("list colours", ["unknown group to list 'colours'", "metrics"]),
        ("demo --out full", ["full: is not empty and holds no demo"]),
        ("demo --steps 0", ["steps must be positive"]),
        (
            "train timediff c --out x --backbone transformer --hidden 51",
            ["hidden 51 must be even"],
        ),
        ("train cdmt c --out x --label-drop 1", ["label_drop must lie in [0.0, 0.99]"]),
        (
            "train cdmt c --out x --categorical mask --embedding-bias",
            ["embedding_bias is one of embeddings"],
        ),
    ],
)
def test_wrong_words_are_one_line(words, texts, here, refused):
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("precious")
    refused(words.split(), *texts)


def test_errors_are_the_same_line_in_every_encoding(capsys):
    words = ["prepare", "simulate", "--n", "abc", "--out", "x"]
    assert main(words) == 2
    line = capsys.readouterr().err
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "cp1252")):
        assert main(words) == 2
    assert capsys.readouterr().err == line
    assert "--n INT: invalid literal" in line


def test_a_full_device_is_one_line(monkeypatch, capsys):
    def full(words):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(cli, "dispatch", full)
    assert main(["train"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "out of memory; use a smaller cohort, --batch-size or --chunk-rows" in line


@pytest.mark.parametrize(
    ("signum", "word"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")],
)
def test_a_signal_that_duckdb_makes_an_error_of(signum, word, monkeypatch, capsys):
    def query(words):
        try:
            signal.raise_signal(signum)
        except BaseException:
            raise RuntimeError("Query interrupted") from None

    monkeypatch.setattr(cli, "dispatch", query)
    # A job in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        handler = signal.getsignal(signum)
        assert main(["prepare"]) == 128 + signum
        assert signal.getsignal(signum) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == f"jaxehr: error: {word}\n"


def test_a_lost_partner_is_one_line_with_its_reason(monkeypatch, capsys):
    def lost(words):
        raise ValueError("Gloo: connection closed by peer [::1]\nat somewhere.cc")

    monkeypatch.setattr(cli, "dispatch", lost)
    monkeypatch.setattr(cli, "partner_lost", lambda error: True)
    assert main(["train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("JAX says: Gloo: connection closed by peer [::1]")


def test_a_demo_of_another_size_is_refused():
    check_size(pathlib.Path("d"), {"options": {"n": 5}}, 5)
    with pytest.raises(InputError, match="d: holds a demo of 5 people; take --n 5"):
        check_size(pathlib.Path("d"), {"options": {"n": 5}}, 6)
