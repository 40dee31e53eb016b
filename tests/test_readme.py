"""The README's Python runs, its citations exist, its commands are known."""

import pathlib
import re
import shlex

import pytest

from jaxehr.cli import COMMANDS
from jaxehr.registry import SOURCES

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_python_example_runs_in_under_15_lines(tmp_path, monkeypatch):
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) < 15
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "report" / "report.html").is_file()


def test_every_citation_has_a_reference():
    listed = set(re.findall(r"^- \[(\w+\d{4})\]", TEXT, re.MULTILINE))
    cited = set()
    for path in (ROOT / "jaxehr").rglob("*.py"):
        cited |= set(
            re.findall(r"\[(?:[^\]]*; )?([a-z]+\d{4})[,;\]]", path.read_text())
        )
        cited |= set(re.findall(r"; ([a-z]+\d{4})[,\]]", path.read_text()))
    assert cited <= listed, cited - listed


@pytest.mark.parametrize("line", [c for b in blocks("sh") for c in b.splitlines()])
def test_shell_commands_exist(line):
    words = shlex.split(line, comments=True)
    while "jaxehr" in words:
        words = words[words.index("jaxehr") + 1 :]
        assert words[0] in COMMANDS
        if words[0] == "prepare":
            assert words[1] in SOURCES
