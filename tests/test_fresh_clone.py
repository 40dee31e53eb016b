"""Both command lines of the README in a new clone with a new environment (slow)."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LINES = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.M)


@pytest.fixture
def clone(tmp_path):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not in a git checkout")
    subprocess.run(["git", "clone", "-q", str(ROOT), "new"], cwd=tmp_path, check=True)
    return tmp_path / "new"


def run(line: str, folder: pathlib.Path) -> str:
    """Runs one line in a shell without this process's environment of Python."""
    drop = ("PYTHONPATH", "VIRTUAL_ENV", "XLA_FLAGS", "PYTEST_ADDOPTS")
    environment = {k: v for k, v in os.environ.items() if k not in drop}
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_there_are_two_lines():
    assert len(LINES) == 2
    assert LINES[0].endswith("jaxehr demo")
    assert ".venv/bin/pytest" in LINES[1]


@pytest.mark.slow
def test_demo_from_nothing(clone):
    text = run(LINES[0], clone)
    assert "report.html" in text
    assert (clone / "jaxehr-demo" / "report" / "report.html").stat().st_size > 100_000
    assert (clone / "jaxehr-demo" / "synthetic" / "temporal.parquet").is_file()


@pytest.mark.slow
def test_tests_from_nothing(clone):
    assert " passed" in run(LINES[1], clone)
