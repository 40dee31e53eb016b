"""What an alignment is worth: `alignment.html`, offline, and `alignment.json`."""

from collections.abc import Mapping
from typing import Any

from jaxehr.core.files import Kind, PathLike, new_folder, write_json, write_text
from jaxehr.report import align_sections as sections
from jaxehr.report import align_words as said
from jaxehr.report.align_sections import percent
from jaxehr.report.json_out import plain
from jaxehr.report.page import Lines, Rows, Section
from jaxehr.report.provenance import flatten, versions
from jaxehr.report.style import look
from jaxehr.report.template import template

PAGE, NUMBERS = "alignment.html", "alignment.json"
ALIGNMENT = Kind(
    "report of an alignment",
    (PAGE, NUMBERS),
    NUMBERS,
    lambda said: {"title", "status", "diagnostics"} <= set(said),
)
TITLE = "Can the missing part of a record be filled in?"


def write_alignment(
    path: PathLike,
    diagnostics: Mapping[str, Any],
    run: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes the folder `path` with `alignment.html` and `alignment.json`.

    Args:
      diagnostics: what `fit_alignment` returned; any key may be absent, None or NaN.
      run: every key optional: `model`, `config`, `label` (its name), `classes`, and
        whatever else should stand at the end of the page.
      overwrite: replace an older folder of this kind.

    Raises:
      InputError: `path` exists and may not be replaced, or cannot be written.
    """
    run = dict(run or {})
    with new_folder(path, replaces=ALIGNMENT if overwrite else None) as folder:
        write_text(folder / PAGE, render(diagnostics, run))
        write_json(folder / NUMBERS, document(diagnostics, run))


def document(diagnostics: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """The content of alignment.json: everything on the page, for programs."""
    method = said.method_of(diagnostics, run)
    return plain(
        {
            "title": TITLE,
            "status": said.status_of(diagnostics),
            "method": method,
            "verdict": " ".join(said.verdict(diagnostics, method)),
            "diagnostics": diagnostics,
            "run": run,
            "versions": versions(),
        }
    )


def render(diagnostics: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The page as text."""
    method = said.method_of(diagnostics, run)
    with look():
        every = [
            sections.hidden_parts(diagnostics, method),
            sections.weights(diagnostics, method),
            sections.coupled(diagnostics, run),
            sections.classes(diagnostics, run),
            sections.objective(diagnostics),
            sections.latents(diagnostics),
            sections.numbers(diagnostics),
            made(run),
            limits(diagnostics),
        ]
    return template("alignment.html.j2").render(
        title=TITLE,
        model=run.get("model", ""),
        verdict=said.verdict(diagnostics, method),
        good=said.status_of(diagnostics) in ("ok", "none")
        and not said.doubts(diagnostics, method),
        cards=cards(diagnostics, method),
        sections=[section for section in every if section is not None],
    )


def cards(diagnostics: Mapping[str, Any], method: str) -> list[dict[str, str]]:
    """The numbers at the top: state, both errors, agreement of the label."""
    status, errors = said.status_of(diagnostics), said.errors_of(diagnostics)
    name = said.METHODS.get(method, method) or "method not given"
    mark = said.MARKS.get(status, "not recorded")
    found = [{"title": "State", "value": mark, "text": f"Method: {name}."}]
    for part, other in (("static", "temporal"), ("temporal", "static")):
        value = getattr(errors, part).get(method)
        if value is not None:
            title = f"Error, {part} part filled in"
            text = f"From the {other} part. 1 is guessing the mean, 0 is perfect."
            found.append({"title": title, "value": f"{value:.2f}", "text": text})
    agreement, chance = (diagnostics.get(f"label_{k}") for k in ("agreement", "chance"))
    if said.is_number(agreement):
        text = "Of the plan couples records of one class"
        text += f"; {percent(chance)} by chance." if said.is_number(chance) else "."
        title = "Label agreement"
        found.append({"title": title, "value": percent(agreement), "text": text})
    return found


def made(run: Mapping[str, Any]) -> Section:
    """The run and the versions behind the page."""
    blocks = [
        Rows(caption, ["Field", "Value"], [list(p) for p in flatten(found)], False)
        for caption, found in (
            ("Model and machine", plain(run)),
            ("Versions", versions()),
        )
        if found
    ]
    return Section("made", "How the model was made", [], blocks)


def limits(diagnostics: Mapping[str, Any]) -> Section:
    """What this page does not show."""
    notes = diagnostics.get("notes")
    items = [str(note) for note in notes] if isinstance(notes, list | tuple) else []
    items += [
        "A match is not an identity: it couples records that look alike, not records "
        "of one person.",
        "A part that was filled in is a draw of what is plausible. It is no basis for "
        "the care of a person; use several draws (`jaxehr impute --draws`), and look "
        "at how far they lie apart.",
        "Errors are measured on patients who have both parts. Those who lack one may "
        "differ, and then the errors do not hold for them.",
    ]
    return Section("limits", "Limits of use", [], [Lines(items)])
