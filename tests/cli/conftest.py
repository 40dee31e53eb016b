"""A cohort, a run, and the check that a command is refused."""

import contextlib
import io
import pathlib
import shutil

import pytest
from cli_tools import SMALL, STATIC, TEMPORAL, listing, noise

from jaxehr.cli import main


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
