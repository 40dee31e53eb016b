"""The sections a governance board reads first: use, subgroups, attacks, plausibility.

All of them follow from the results alone; a section whose metrics were not computed is
left out.
"""

from collections.abc import Mapping
from typing import Any

from jaxehr.core.contracts import Comparison, Result
from jaxehr.report import figures, words
from jaxehr.report.page import Grid, Rows, Section
from jaxehr.report.template import metric_row

UTILITY = ("neural", "forest", "logistic")  # families of classifiers, the first counts
SIDES = ("train", "holdout", "synthetic")


def detail_of(result: Result) -> Mapping[str, Any]:
    return result.value.detail or {}


def by_name(results: list[Result]) -> dict[str, Result]:
    return {result.name: result for result in results if words.is_defined(result)}


def sections(comparison: Comparison, results: list[Result]) -> list[Section]:
    """All of them in the order of the page."""
    every = [
        utility(results),
        privacy(results),
        told_apart(results),
        plausibility(comparison, results),
    ]
    return [section for section in every if section is not None]


def utility(results: list[Result]) -> Section | None:
    """What is lost by training on synthetic patients, for whom, and how sure it is."""
    found = by_name(results)
    rows = [
        use_row(found[name.removesuffix("_loss")], result)
        for name, result in found.items()
        if "verdict" in detail_of(result)
    ]
    if not rows:
        return None
    margin = next(d["margin"] for r in results if "margin" in (d := detail_of(r)))
    text = [
        "The same classifier is trained once on synthetic and once on real patients; "
        "both are tested on the same real hold-out patients. Loss: AUROC after real "
        "less AUROC after synthetic training. Non-inferior: the whole interval of the "
        f"loss lies below {margin:g}; not shown: it reaches across, or there is none.",
    ]
    head = [
        "Classifier",
        "Synthetic",
        "Interval",
        "Real",
        "Loss",
        "Interval",
        "Verdict",
    ]
    blocks: list[Any] = [Rows("Train on synthetic, test on real", head, rows)]
    for family in UTILITY:
        if result := found.get(f"{family}_subgroup_loss"):
            text.append(largest_sentence(result))
            blocks.append(subgroup_table(result))
            break
    return Section("utility", "Does it serve in place of real patients?", text, blocks)


def use_row(area: Result, loss: Result) -> list[Any]:
    """A classifier: both areas, the loss, the verdict."""
    title = area.definition.title.partition(", ")[2]
    return [
        title[:1].upper() + title[1:],
        words.number(area.value.value),
        words.interval(area),
        words.number(area.value.reference),
        words.number(loss.value.value),
        words.interval(loss),
        detail_of(loss)["verdict"],
    ]


def largest_sentence(result: Result) -> str:
    worst = detail_of(result)["largest"]
    return (
        f"Of the subgroups, {worst} loses most: {words.number(result.value.value)} "
        f"({words.interval(result)}). The intervals hold for all subgroups at once."
    )


def subgroup_table(result: Result) -> Rows:
    """A line for each group of static values."""
    share = lambda value: figures.percent(value) if isinstance(value, float) else ""
    rows = []
    for group in detail_of(result)["groups"]:
        shown = [share(group[key]) for key in ("prevalence", "synthetic_prevalence")]
        if group["reason"]:
            reason = group["reason"].replace("fewer than", "under")
            for words_too_many in (" hold-out patients", " tested patients"):
                reason = reason.replace(words_too_many, "")  # or it is a wide column
            measured = ["", "", "", f"none: {reason}"]
        else:
            ends = f"{words.number(group['low'])} to {words.number(group['high'])}"
            measured = [
                words.number(group[key])
                for key in ("trained_on_real", "trained_on_synthetic", "loss")
            ] + [ends]
        rows.append([group["group"], group["patients"], *shown, *measured])
    head = ["Subgroup", "Held out", "Label, real", "Label, synthetic"]
    head += ["AUROC, real", "AUROC, synthetic", "Loss", "Joint interval"]
    return Rows("Subgroups", head, rows)


def privacy(results: list[Result]) -> Section | None:
    """Every number of every attack beside both controls; who the attacker is."""
    made = words.attacks(results)
    if not made:
        return None
    rows = []
    for result in made:
        shown = metric_row(result)
        cells = [shown[name] for name in ("value", "interval", "reference")]
        rows.append([result.definition.title, *cells, words.control(result)])
    head = ["Attack", "Synthetic", "Interval", "Fresh real patients", "Control"]
    text = [
        "Each attack is made three times: on the synthetic patients or the model; on "
        "fresh real patients in their place, who give nothing away (success of "
        "attribute inference: about hold-out patients instead); and, as a control, on "
        f"{words.CONTROL}, whom it has to recognise, or it is too weak to show "
        "anything.",
    ]
    attackers = [list(pair) for pair in words.attackers(made)]
    blocks = [
        Rows("What attacks learn of training patients", head, rows),
        Rows("Who attacks", ["Attack", "The attacker"], attackers, numeric=False),
    ]
    return Section("privacy", "Privacy by attack", text, blocks)


def told_apart(results: list[Result]) -> Section | None:
    """What a classifier goes by that tells synthetic from real patients."""
    found = [r for r in by_name(results).values() if "used_most" in detail_of(r)]
    if not found:
        return None
    best = max(found, key=lambda r: abs((r.value.value or 0.5) - 0.5))
    used = detail_of(best)["used_most"]
    titles = {"by_feature": "variable", "by_time": "time step", "by_place": "both"}
    pictures = [
        figures.losses(f"told-{name}", used[name], f"By {title}")
        for name, title in titles.items()
        if used.get(name)
    ]
    text = [
        f"{best.definition.title}: AUC {words.number(best.value.value)} (0.5 = it "
        "cannot tell). The values of a variable, of a time step or of both are "
        "shuffled over the patients; the bars show how much of the AUC goes. Look "
        "first at what stands first; bars near 0 are noise.",
    ]
    return Section("told", "Why are they told apart?", text, [Grid(pictures, "medium")])


def plausibility(comparison: Comparison, results: list[Result]) -> Section | None:
    """How often each rule is broken, and what sampling changed to keep it."""
    result = by_name(results).get("rule_violations")
    if result is None:
        return None
    rows = [
        [rule, *(violations(sides[side]) for side in SIDES)]
        for rule, sides in detail_of(result)["per_rule"].items()
    ]
    made, real = (result.value.value or 0.0, result.value.reference or 0.0)
    text = [
        "Share of the places where a rule applies that break it, and patients with at "
        "least one. Real records break rules too: the aim is not to do so more often. "
        f"Synthetic patients with any violation: {figures.percent(made)} "
        f"({words.interval(result)}), real ones {figures.percent(real)}.",
    ]
    head = ["Rule", "Real, training", "Real, held out", "Synthetic"]
    blocks: list[Any] = [Rows("Rules and bounds of the schema", head, rows)]
    if changed := comparison.synthetic.provenance.get("rules"):
        text.append(
            "The rules were enforced after sampling (--enforce-rules): of "
            f"{changed['patients']:,} patients {changed['patients_changed']:,} had "
            f"values changed ({sum(changed['values_changed'].values()):,} in all)."
        )
        before = [
            [rule, *(f"{found[key]:,}" for key in ("cells", "patients"))]
            for rule, found in changed["broken_before"].items()
        ]
        head = ["Rule", "Values", "Patients"]
        blocks += [Rows("Broken before the rules were enforced", head, before)]
    return Section("rules", "Plausibility", text, blocks)


def violations(side: Mapping[str, Any]) -> str:
    """Share of places and number of patients that break a rule."""
    if side["share"] is None:
        return "does not apply"
    return f"{figures.percent(side['share'])} ({side['patients']:,})"
