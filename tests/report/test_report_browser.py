"""The page in a real browser: drawn, quiet, and no wider than the screen."""

import pathlib
import shutil
import struct
import subprocess

import pytest
from alignment_samples import FOUR, made_up
from report_samples import RUN, results

from jaxehr.report import write_report
from jaxehr.report.alignment import write_alignment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# A phone is narrower than Chromium's smallest window, so the page stands in a frame.
FRAME = """<body style="margin:0"><iframe id="f" src="out/{page}"
 style="border:0;width:{width}px;height:900px"></iframe><script>
onload = () => {{ const d = document.getElementById('f').contentDocument;
 document.title = d.documentElement.scrollWidth + ' of {width}, text ' +
 Math.min(...[...d.querySelectorAll('svg text')].map(
 e => e.getBoundingClientRect().height)).toFixed(1); }}</script>"""


def chromium(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--allow-file-access-from-files",
            f"--user-data-dir={folder / 'profile'}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from report_samples import make_dataset

    from jaxehr.core.contracts import Comparison

    place = tmp_path_factory.mktemp("browser")
    sides = Comparison(make_dataset(0), make_dataset(1), make_dataset(2))
    write_report(place / "out", sides, results(), run=RUN)
    return place


@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_the_screen_without_errors(folder, width):
    look(folder, "report.html", width)


@pytest.mark.parametrize("width", [1280, 390])
def test_page_of_an_alignment_fits_too(tmp_path, width):
    write_alignment(tmp_path / "out", made_up(4, 60), FOUR)
    look(tmp_path, "alignment.html", width)


def look(folder, name, width):
    """Opens a page of `folder/out` and takes its picture; checks both."""
    page = folder / f"frame{width}.html"
    page.write_text(FRAME.format(width=width, page=name))
    picture = folder / f"{width}.png"
    done = chromium(
        folder,
        f"--window-size={max(width, 500)},900",
        "--virtual-time-budget=5000",
        "--dump-dom",
        page.as_uri(),
    )
    assert "CONSOLE" not in done.stderr
    title = done.stdout.split("<title>")[1].split("</title>")[0]
    assert title.startswith(f"{width} of {width}, ")
    assert float(title.rsplit(" ", 1)[1]) >= 8  # the smallest text, in pixels
    shot = chromium(
        folder,
        f"--window-size={max(width, 500)},900",
        f"--screenshot={picture}",
        page.as_uri(),
    )
    assert "CONSOLE" not in shot.stderr
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:]) == (max(width, 500), 900)
