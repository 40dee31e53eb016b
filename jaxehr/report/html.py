"""Writes the report: `report.html`, one offline page, and `metrics.json`."""

import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np

from jaxehr.core.cohort import num_patients, take
from jaxehr.core.contracts import Comparison, Result
from jaxehr.core.files import PathLike, new_folder, write_json, write_text
from jaxehr.core.sparse import SparseTable
from jaxehr.metrics.evaluate import with_dense_table
from jaxehr.report import provenance, sections, words
from jaxehr.report.json_out import document
from jaxehr.report.page import Section
from jaxehr.report.style import look

MARKER = "metrics.json"
DRAWN_CELLS = 100_000_000  # of a temporal table, for the pictures


def write_report(
    path: PathLike,
    comparison: Comparison,
    results: list[Result],
    *,
    run: Mapping[str, Any] | None = None,
    title: str = "How close are the synthetic patients to real ones?",
    notes: Sequence[str] = (),
) -> None:
    """Writes the folder `path` with `report.html` and `metrics.json`.

    The page needs no network and no script, and the same input gives the same bytes. A
    folder of an earlier report is replaced, any other refused.

    Args:
      run: the model, every key optional: `model`, `config`, `steps`, `seconds`,
        `machine`, `label`, `sampler`, `losses` (mappings with `step`, `loss`,
        `valid_loss`) and `schedule` (part -> `rho` [T][D] or [1][D], and `names`).
      notes: sentences to stand first among the limits of use.

    Raises:
      InputError: `path` exists and is not a report, or cannot be written.
    """
    run, notes = dict(run or {}), list(notes)
    with new_folder(path, marker=MARKER, overwrite=True) as folder:
        write_text(
            folder / "report.html", render(comparison, results, run, title, notes)
        )
        write_json(folder / MARKER, document(comparison, results, run, title, notes))


def render(
    comparison: Comparison,
    results: list[Result],
    run: Mapping[str, Any],
    title: str,
    notes: Sequence[str],
) -> str:
    """The page as text."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        group = words.GROUPS.get(result.group, result.group)
        groups.setdefault(group, []).append(metric_row(result))
    with look():
        parts = page_sections(comparison, results, run, notes)
    return template("report.html.j2").render(
        title=title,
        about=words.size_sentence(comparison),
        model=run.get("model", ""),
        verdict=words.count_readings(results) if results else "No metric was computed.",
        privacy=words.privacy_sentence(results),
        headlines=[metric_row(result) for result in words.headlines(results)],
        groups=groups,
        sections=parts,
    )


def template(name: str) -> jinja2.Template:
    """A page of ours; all of them fill the blocks of `page.html.j2`."""
    folder = importlib.resources.files("jaxehr.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: folder.joinpath(name).read_text(encoding="utf-8")
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def page_sections(
    comparison: Comparison,
    results: list[Result],
    run: Mapping[str, Any],
    notes: Sequence[str],
) -> list[Section]:
    """All sections after the table of metrics, in the order of the page."""
    shown, said = drawable(comparison)
    every = [
        sections.marginals(shown),
        sections.missingness(shown),
        sections.trajectories(shown),
        sections.over_time(shown),
        sections.correlations(shown),
        sections.lengths(comparison),
        sections.labels(comparison),
        sections.static(comparison),
        provenance.schedule(comparison, run),
        provenance.losses(run),
        provenance.made(comparison, results, run),
        provenance.limits(results, [*notes, *said]),
    ]
    return [section for section in every if section is not None]


def drawable(comparison: Comparison) -> tuple[Comparison, list[str]]:
    """The data with dense temporal tables, as the pictures need them.

    Of a sparse table that would be too large, patients drawn at random (fixed seed)
    are kept, and a sentence says so.
    """
    if not any(isinstance(d.cohort.temporal, SparseTable) for d in comparison):
        return comparison, []
    generator, made, said = np.random.default_rng(0), [], []
    for data in comparison:
        patients = num_patients(data.cohort)
        table = data.cohort.temporal
        cells = max(table.steps * table.features, 1)
        most = max(DRAWN_CELLS // cells, 1)
        if patients > most:
            rows = np.sort(generator.permutation(patients)[:most])
            data = take(data, rows)
            said.append(f"{most:,} of {patients:,}")
        made.append(with_dense_table(data))
    if said:
        said = [
            "The pictures over time show patients drawn at random, for the whole "
            f"tables are too large: {', '.join(said)}. The metrics see all of them."
        ]
    return Comparison(*made), said


def metric_row(result: Result) -> dict[str, Any]:
    """One metric in words, for the template."""
    reading = words.read(result)
    defined = words.is_defined(result)
    return {
        "name": result.name,
        "group": result.group,
        "title": result.definition.title,
        "text": result.definition.text,
        "value": words.number(result.value.value) if defined else "not defined",
        "interval": words.interval(result) if defined else "",
        "reference": words.number(result.value.reference),
        "direction": words.direction(result),
        "ideal": ""
        if result.definition.direction == "target"
        else words.number(result.definition.ideal),
        "mark": reading.mark,
        "gap": reading.gap,
        "sentence": reading.sentence,
    }
