"""The model card: a page of Markdown without any record, for whoever takes the data."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxehr.core.contracts import Comparison, Result
from jaxehr.report import provenance, words
from jaxehr.report.json_out import seeds
from jaxehr.report.nature import model_of, nature
from jaxehr.report.page import Lines
from jaxehr.report.template import metric_row, template

MOST = 60  # columns that are named


def card(
    comparison: Comparison,
    results: list[Result],
    run: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """The text of model_card.md."""
    versions = provenance.versions()
    named = {"run": run} | {
        name: data.provenance for name, data in zip(comparison._fields, comparison)
    }
    found = {name: value for name, value in seeds(named).items() if value is not None}
    (limits,) = provenance.limits(results, notes).blocks
    assert isinstance(limits, Lines)
    defined = [r for r in results if words.is_defined(r) and r.group != "privacy"]
    seconds = run.get("seconds")
    return template("card.md.j2", escape=False).render(
        model=model_of(comparison.synthetic, run) or "a model that was not named",
        nature=nature(comparison.synthetic, run),
        steps=run.get("steps"),
        seconds=f"{seconds / 60:.0f} minutes" if seconds else "",
        machine=run.get("machine"),
        about=words.size_sentence(comparison, run),
        seeds=", ".join(f"{k} {v}" for k, v in found.items()) or "not known",
        versions=versions,
        version_text=", ".join(f"{k} {v}" for k, v in versions.items()),
        verdict=" ".join(words.verdict(results)),
        rows=[metric_row(result) for result in defined],
        privacy=words.privacy_sentence(results),
        copies=words.copies_sentence(results),
        attacks=[
            metric_row(r) | {"control": words.control(r)}
            for r in words.attacks(results)
        ],
        control=words.CONTROL,
        attackers=words.attackers(words.attacks(results)),
        origin=origin(comparison),
        columns=columns(comparison),
        limits=limits.items,
    )


def origin(comparison: Comparison) -> str:
    """Where the real patients come from, as their provenance says."""
    found = comparison.train.provenance
    text = str(found.get("source") or found.get("kind") or "not named")
    return text.replace("_", " ")


def columns(comparison: Comparison) -> str:
    """All names, static ones first."""
    schema = comparison.schema
    names = [feature.name for feature in (*schema.static, *schema.temporal)]
    shown = ", ".join(names[:MOST])
    return shown + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
