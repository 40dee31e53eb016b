"""The audit of a release: `audit.html`, offline, and `audit.json`.

The releasable form holds numbers over all patients only: no id, no distance, nothing of
a single patient, no origin of the real data.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxehr.core.contracts import Comparison, Result
from jaxehr.core.files import Kind, PathLike, new_folder, write_json, write_text
from jaxehr.metrics.release import BOUNDS, DIAGNOSTICS, Verdict
from jaxehr.report import provenance, words
from jaxehr.report.json_out import metric_entry, plain
from jaxehr.report.page import Lines, Rows, Section
from jaxehr.report.style import look
from jaxehr.report.template import template

PAGE, NUMBERS = "audit.html", "audit.json"
AUDIT = Kind(
    "audit",
    (PAGE, NUMBERS),
    NUMBERS,
    lambda said: {"title", "passed", "verdicts", "metrics"} <= set(said),
)
TITLE = "May the synthetic patients be released?"
# Of the details of a number, what says nothing of single patients.
AGGREGATES = (
    "records",
    "count",
    "reference_interval",
    "leaky_generator",
    "leaky_generator_interval",
    "leaky_generator_caught",
    "fresh_sample_caught",
    "chance",
    "control",
)


class Findings(NamedTuple):
    """What an audit found."""

    comparison: Comparison
    results: list[Result]
    verdicts: list[Verdict]
    # The most exposed training patients: id, attack, share of hold-out patients at
    # least as exposed, nearest synthetic patient and its distance.
    exposed: list[dict[str, Any]]
    # Attack -> training patients who stand out more than every hold-out patient, and
    # how many would by chance.
    beyond: Mapping[str, tuple[int, float]]
    run: Mapping[str, Any]  # the model that was given, of `describe_run`, or empty
    notes: list[str]

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts)


def write_audit(path: PathLike, found: Findings, *, releasable: bool = False) -> None:
    """Writes the folder `path` with `audit.html` and `audit.json`, or nothing.

    An older folder of this kind is replaced, any other refused.

    Raises:
      InputError: `path` is not an audit or holds more, or cannot be written.
    """
    if releasable:
        found = without_records(found)
    with new_folder(path, replaces=AUDIT) as folder:
        write_text(folder / PAGE, render(found, releasable))
        write_json(folder / NUMBERS, document(found, releasable))


def without_records(found: Findings) -> Findings:
    """The findings without anything of single patients or of where they come from.

    Notes stay: they speak of cohorts, and counts are all that they hold of patients.
    """
    results = []
    for result in found.results:
        detail = result.value.detail or {}
        kept = {name: detail[name] for name in AGGREGATES if name in detail}
        results.append(result._replace(value=result.value._replace(detail=kept)))
    made = found.comparison.synthetic.provenance
    said = {"model": made["model"]} if "model" in made else {}
    train, holdout, synthetic = found.comparison
    return found._replace(
        comparison=Comparison(
            train._replace(provenance={}),
            holdout._replace(provenance={}),
            synthetic._replace(provenance=said),
        ),
        results=results,
        exposed=[],
        run={k: found.run[k] for k in ("model", "config") if k in found.run},
    )


def document(found: Findings, releasable: bool) -> dict[str, Any]:
    """The content of audit.json."""
    content = {
        "title": TITLE,
        "passed": found.passed,
        "verdict": sentence(found),
        "releasable": releasable,
        "verdicts": [verdict._asdict() for verdict in found.verdicts],
        "metrics": [metric_entry(result) for result in found.results],
        "beyond_every_holdout_patient": {
            name: {"patients": count, "by_chance": chance}
            for name, (count, chance) in found.beyond.items()
        },
        "sizes": provenance.sizes(found.comparison),
        "run": {k: v for k, v in found.run.items() if k not in ("schedule", "losses")},
        "versions": provenance.versions(),
        "notes": found.notes,
    }
    if not releasable:
        content["most_exposed"] = found.exposed
    return plain(content)


def render(found: Findings, releasable: bool) -> str:
    """The page as text."""
    with look():
        parts = [limits(found), attacks(found), standing_out(found)]
        parts += [] if releasable else [exposed(found)]
        parts += [
            provenance.made(found.comparison, found.results, found.run),
            caveats(found),
        ]
    held = words.held(found.results) or "the synthetic patients"
    return template("audit.html.j2").render(
        title=TITLE,
        about=words.size_sentence(found.comparison, found.run),
        held=held,
        model=found.run.get("model", "") if "the model" in held else "",
        passed=found.passed,
        verdict=sentence(found),
        releasable=releasable,
        sections=parts,
    )


def sentence(found: Findings) -> str:
    """The verdict, and how many patients are copies."""
    failed = [v for v in found.verdicts if not v.passed]
    if not failed:
        count = len(found.verdicts)
        limits = "The one limit is" if count == 1 else f"All {count} limits are"
        text = f"Passed. {limits} kept."
    else:
        names = ", ".join(dict.fromkeys(verdict.name for verdict in failed))
        count = f"{len(failed)} of {len(found.verdicts)}"
        text = f"Failed. {count} limits not kept: {names}."
    return f"{text} {words.copies_sentence(found.results)}".rstrip()


def limits(found: Findings) -> Section:
    """The policy and what became of it."""
    rows = [
        [
            verdict.name,
            f"{BOUNDS[verdict.bound]} at most {words.number(verdict.limit)}",
            words.number(verdict.reached),
            "pass" if verdict.passed else f"FAIL: {verdict.reason}",
        ]
        for verdict in found.verdicts
    ]
    text = [
        "What is not defined, or measured by an attack that does not even see its "
        "control, counts as failed.",
    ]
    head = ["Number", "Limit", "Reached", "Verdict"]
    table = Rows("The limits of the policy", head, rows, numeric=False)
    return Section("limits", "Limits", text, [table])


def attacks(found: Findings) -> Section:
    """Every number with its interval and its controls."""
    rows = []
    for result in found.results:
        value, detail = result.value, result.value.detail or {}
        title = result.definition.title
        if result.name in DIAGNOSTICS:
            title += " (diagnostic)"
        if not words.is_defined(result):
            rows.append([title, f"not defined: {value.reason}", "", "", "", ""])
            continue
        rows.append(
            [
                title,
                words.number(value.value),
                words.interval(result),
                words.number(value.reference),
                caught(detail.get("leaky_generator_caught"), detail.get("control", "")),
                caught(detail.get("fresh_sample_caught")),
            ]
        )
    text = [
        f"Every attack is made twice more: on its control, {words.CONTROL}, whom it "
        "must catch, or it has no power on these data; and on fresh real patients, "
        "whom it must not; by chance one number in 40 says so.",
    ]
    head = [
        "Attack",
        "Value",
        "95 % interval",
        "Real against real",
        "Control caught",
        "Fresh caught",
    ]
    table = Rows("All numbers", head, rows)
    return Section("attacks", "Attacks and their controls", text, [table])


def caught(value: bool | None, otherwise: str = "") -> str:
    return otherwise if value is None else "yes" if value else "no"


def standing_out(found: Findings) -> Section:
    """How many training patients stand out more than every hold-out patient."""
    titles = titles_of(found)
    rows = [
        [titles.get(name, name), count, words.number(chance)]
        for name, (count, chance) in found.beyond.items()
    ]
    text = [
        "Training patients whom an attack suspects more than every hold-out patient, "
        "and how many there would be if nothing were learned of single patients.",
    ]
    head = ["Attack", "Training patients", "By chance"]
    blocks = [Rows("Beyond every hold-out patient", head, rows)] if rows else []
    return Section("beyond", "Who stands out", text, list(blocks))


def exposed(found: Findings) -> Section:
    """The most exposed training patients by id; for the internal page only."""
    titles = titles_of(found)
    rows = [
        [
            entry["id"],
            titles.get(entry["attack"], entry["attack"]),
            words.number(entry["share"]),
            entry["nearest_synthetic"],
            words.number(entry["distance"]),
        ]
        for entry in found.exposed
    ]
    text = [
        "The training patients whom the attacks suspect most, the attack that does, "
        "and the share of hold-out patients it suspects as much. Some patient always "
        "comes first: compare with the chance above before leaving anyone out.",
    ]
    head = [
        "Training patient",
        "Attack",
        "Hold-out patients as exposed",
        "Nearest synthetic patient",
        "Distance",
    ]
    table = Rows("Most exposed training patients", head, rows, numeric=False)
    return Section("exposed", "The most exposed", text, [table] if rows else [])


def titles_of(found: Findings) -> dict[str, str]:
    """Family of an attack -> its title, without the number."""
    return {
        r.name.removesuffix("_auroc"): r.definition.title.split(":")[0]
        for r in found.results
    }


def caveats(found: Findings) -> Section:
    """What an audit does not show."""
    items = [
        *found.notes,
        "That these attacks fail does not show that a stronger one would, nor does it "
        "bound the risk of a single patient.",
        "The policy is a decision, not a finding; the limits are those of its authors.",
        "An audit holds for these synthetic patients. Others from the same model, or "
        "the model itself, need their own.",
    ]
    return Section("caveats", "Limits of use", [], [Lines(items)])
