"""The tutorials are executed, tell nothing of this machine, and run (slow)."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 400_000
# A file of this machine, the name of its user, an error or a progress bar.
STRANGE = re.compile(
    r"/(home|Users|root|tmp|work|var|usr|opt|private)/|[A-Z]:\\\\|site-packages|"
    r"Traceback|\\u001b"
)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_folder_holds_two_small_notebooks_and_no_data():
    assert [path.name for path in sorted(FOLDER.iterdir())] == [
        "missing_modality.ipynb",
        "two_csv_files.ipynb",
    ]
    for path in NOTEBOOKS:
        assert path.stat().st_size < MOST_BYTES


def test_every_cell_was_executed_in_order_without_an_error(notebook):
    cells = code_cells(notebook)
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    kinds = {out["output_type"] for cell in cells for out in cell["outputs"]}
    assert kinds == {"display_data", "execute_result", "stream"}
    shown = [out.get("data", {}) for cell in cells for out in cell["outputs"]]
    assert sum("image/png" in data for data in shown) >= 2


def test_no_path_and_no_bar_is_left(notebook):
    for cell in notebook["cells"]:
        for out in cell.get("outputs", []):
            out.get("data", {}).pop("image/png", None)
        found = STRANGE.search(json.dumps(cell))
        assert found is None, f"{cell['id']}: {found}"


def test_the_data_are_made_in_the_notebook_in_a_temporary_folder(notebook):
    code = ["".join(cell["source"]) for cell in code_cells(notebook)]
    assert "tempfile.TemporaryDirectory" in code[0]
    assert "os.chdir(work.name)" in code[0]
    assert "default_rng(" in code[1]
    written = set(re.findall(r'to_csv\(\s*"([\w.]+)"', "\n".join(code)))
    read = set(re.findall(r'"([\w./]+\.csv)"', "\n".join(code)))
    assert read == written
    assert "fetch" not in "\n".join(code)


def test_links_lead_somewhere(notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for target in re.findall(r"\]\(([^)#]+)\)", "".join(cell["source"])):
                assert (FOLDER / target).is_file(), target


def test_the_readme_links_each():
    text = (ROOT / "README.md").read_text()
    for path in NOTEBOOKS:
        assert f"({path.relative_to(ROOT).as_posix()})" in text


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path):
    pytest.importorskip("nbmake")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbmake", str(path)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "1 passed" in done.stdout
