"""Writes the report: one offline page, all numbers, model card, Croissant metadata."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxehr.core.cohort import num_patients, take
from jaxehr.core.contracts import Comparison, Result
from jaxehr.core.files import Kind, PathLike, new_folder, write_json, write_text
from jaxehr.core.sparse import SparseTable
from jaxehr.metrics.evaluate import with_dense_table
from jaxehr.report import evidence, provenance, sections, words
from jaxehr.report.card import card
from jaxehr.report.croissant import croissant
from jaxehr.report.json_out import document, plain
from jaxehr.report.page import Section
from jaxehr.report.style import look
from jaxehr.report.template import metric_row, template

PAGE, NUMBERS = "report.html", "metrics.json"
CARD, CROISSANT = "model_card.md", "croissant.json"
REPORT = Kind(
    "report",
    (PAGE, NUMBERS, CARD, CROISSANT),
    NUMBERS,
    lambda said: {"title", "metrics", "sizes", "versions"} <= set(said),
)
DRAWN_CELLS = 100_000_000  # of a temporal table, for the pictures


def write_report(
    path: PathLike,
    comparison: Comparison,
    results: list[Result],
    *,
    run: Mapping[str, Any] | None = None,
    title: str = "How close are the synthetic patients to real ones?",
    notes: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> None:
    """Writes the folder `path`: the page report.html, every number in metrics.json,
    model_card.md, and croissant.json for catalogues.

    The page needs no network and no script, and the same input gives the same bytes. A
    folder of an earlier report is replaced, any other refused.

    Args:
      run: the model, every key optional: `model`, `config`, `steps`, `seconds`,
        `machine`, `label`, `sampler`, `losses` (mappings with `step`, `loss`,
        `valid_loss`) and `schedule` (part -> `rho` [T][D] or [1][D], and `names`).
      notes: sentences to stand at the top, and first among the limits of use.
      files: SHA-256 of the files of the synthetic cohort, from `croissant.hashes`.

    Raises:
      InputError: `path` is not a report or holds more, or cannot be written.
    """
    run, notes = dict(run or {}), list(notes)
    with new_folder(path, replaces=REPORT) as folder:
        write_text(folder / PAGE, render(comparison, results, run, title, notes))
        write_json(folder / NUMBERS, document(comparison, results, run, title, notes))
        write_text(folder / CARD, card(comparison, results, run, notes))
        described = croissant(comparison.synthetic, results, run, files or {})
        write_json(folder / CROISSANT, plain(described))


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
        leading = evidence.sections(comparison, results)
        parts = page_sections(comparison, results, run, notes)
    return template("report.html.j2").render(
        title=title,
        about=" ".join([words.size_sentence(comparison, run), *notes]),
        model=run.get("model", ""),
        verdict=words.verdict(results),
        privacy=words.privacy_sentence(results),
        copies=words.copies_sentence(results),
        untried=words.untried_sentence(results),
        headlines=[metric_row(result) for result in words.headlines(results)],
        groups=groups,
        leading=leading,
        sections=parts,
    )


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
