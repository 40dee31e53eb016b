"""`jaxehr report alignment RUN`: what a run learned, as an offline page."""

import json
import pathlib
from typing import Any

import tyro

from jaxehr.commands.flags import flag, read_flags
from jaxehr.commands.outputs import check_output
from jaxehr.core.checks import InputError, known
from jaxehr.devices import configure

USAGE = """usage: jaxehr report alignment RUN [--out DIR] [--overwrite]

What a run learned, as a page for the browser and a JSON file.

reports:
  alignment  how static and temporal records were matched, and how well a
             missing part is filled in (flexgen)

`jaxehr report alignment --help` shows the options.
"""
REPORTS = ("alignment",)
DESCRIBED = ("config", "machine", "seed", "patients", "drop", "versions")


def run(words: list[str]) -> int:
    if words and words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if not words:
        raise InputError(f"report: name a report; known: {', '.join(REPORTS)}.")
    known("report", words[0], REPORTS)
    return alignment(words[1:])


def alignment(words: list[str]) -> int:
    fields = [
        flag(
            "run",
            pathlib.Path,
            "A run folder of a model that aligns (flexgen).",
            metavar="RUN",
            positional=True,
        ),
        flag(
            "out",
            pathlib.Path | None,
            "The folder to make, with alignment.html and alignment.json; by default "
            "alignment inside of RUN.",
            None,
            metavar="DIR",
        ),
        flag(
            "overwrite",
            tyro.conf.FlagCreatePairsOff[bool],
            "Replace an older report of this kind.",
            False,
        ),
    ]
    text = "Show how the two parts of records were matched, and what that is worth."
    arguments = read_flags("jaxehr report alignment", text, fields, words)
    configure()
    from jaxehr.report.alignment import ALIGNMENT, write_alignment
    from jaxehr.runs import load_run

    found = load_run(arguments.run)
    diagnostics = diagnostics_of(found, arguments.run)
    out = arguments.out or arguments.run / "alignment"
    check_output(out, ALIGNMENT if arguments.overwrite else None)
    write_alignment(out, diagnostics, describe(found), overwrite=arguments.overwrite)
    print(f"{out / 'alignment.html'}: open it in a browser")
    return 0


def diagnostics_of(found: Any, folder: pathlib.Path) -> dict[str, Any]:
    """What the training of a run said of its alignment.

    Raises:
      InputError: the model aligns nothing, or the run does not hold the diagnostics.
    """
    if found.name != "flexgen":
        raise InputError(
            f"{folder}: model {found.name} aligns nothing; give a run of flexgen."
        )
    try:
        diagnostics = json.loads(str(found.params.get("diagnostics")))
    except json.JSONDecodeError:
        diagnostics = None
    if not isinstance(diagnostics, dict):
        raise InputError(
            f"{folder}: holds no readable diagnostics of the alignment; train it anew."
        )
    return diagnostics


def describe(found: Any) -> dict[str, Any]:
    """What the page shows of the run."""
    label = found.schema.label
    described: dict[str, Any] = {"model": found.name}
    if label is not None:
        described |= {"label": label.name, "classes": list(map(str, label.classes))}
    return described | {k: found.info[k] for k in DESCRIBED if k in found.info}
