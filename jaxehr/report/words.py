"""Numbers in words: how far a metric is from real data, and the verdict."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.cohort import Dataset, num_patients
from jaxehr.core.contracts import Comparison, Definition, Result, Value
from jaxehr.metrics.attacks import SIGNIFICANT
from jaxehr.metrics.release import COPIES, DIAGNOSTICS, bounded
from jaxehr.report.nature import nature

ARROWS = {
    "lower": "↓ lower is better",
    "higher": "↑ higher is better",
    "target": "→ closest to {ideal} is best",
}
GROUPS = {
    "fidelity": "Values and how they go together",
    "temporal": "Course over time",
    "missingness": "Which values are missing",
    "discriminability": "Can a classifier tell synthetic from real?",
    "utility": "Does a model trained on synthetic patients work on real ones?",
    "privacy": "Privacy: what attacks learn of training patients",
}
ON_MODEL = ("membership_loss", "membership_shadow")  # attacks on the model itself
CONTROL = (
    "copies of training patients (for attacks on the model: a model overfitted on a "
    "few of them)"
)
HEADLINE_GROUPS = ("utility", "discriminability", "fidelity", "temporal")


def direction(result: Result) -> str:
    """Arrow and words for which way is better."""
    definition = result.definition
    if definition.ideal is None:
        return "\N{RIGHTWARDS ARROW} closest to real against real is best"
    return ARROWS[definition.direction].format(ideal=number(definition.ideal))


def is_defined(result: Result) -> bool:
    value = result.value.value
    return value is not None and math.isfinite(value)


def number(value: Any) -> str:
    """Three significant digits, with a true minus sign."""
    if value is None or not math.isfinite(value):
        return "none"
    if value == 0:
        return "0"
    value = value if abs(value) >= 1000 else float(f"{value:.3g}")
    size = abs(value)
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size >= 1:
        text = f"{value:.3g}"
    elif size < 1e-5:
        text = f"{value:.1e}"
    else:
        text = f"{value:.{min(6, 2 - math.floor(math.log10(size)))}f}".rstrip("0")
    return text.replace("-", "\N{MINUS SIGN}")


def interval(result: Result) -> str:
    value = result.value
    if value.low is None or value.high is None:
        return ""
    return f"{number(value.low)} to {number(value.high)}"


def _badness(result: Result, value: float) -> float:
    """Distance on the bad side: the larger, the worse; no ideal = the reference is."""
    ideal = result.definition.ideal
    if ideal is None:
        return abs(value - (result.value.reference or 0.0))
    if result.definition.direction == "lower":
        return value - ideal
    if result.definition.direction == "higher":
        return ideal - value
    return abs(value - ideal)


class Reading(NamedTuple):
    """How one number compares with real against real."""

    mark: str  # "as real" | "differs" | "not shown" | "no reference" | "not defined"
    gap: str
    sentence: str


def read(result: Result) -> Reading:
    """Puts the number beside its reference; needs no threshold of our own.

    "as real": no worse than real against real, or the interval of the difference holds
    0. "not shown": worse, but too few patients were tested for an interval.
    """
    given = result.value
    value, reference = given.value, given.reference
    if value is None or not math.isfinite(value):
        reason = given.reason or "no reason was given"
        return Reading("not defined", "", f"Not defined: {reason}")
    if reference is None or not math.isfinite(reference):
        return Reading("no reference", "", "No real-against-real number to compare.")
    ratio, sentence = _difference(result.definition, value, reference)
    gap = ("+" if value > reference else "") + number(value - reference) + ratio
    if _badness(result, value) <= _badness(result, reference):
        return Reading("as real", gap, "No worse than real against real.")
    if why := (given.detail or {}).get("no_interval"):
        return Reading("not shown", gap, f"Worse, how surely is not known: {why}.")
    low, high = difference_interval(given)
    if low is not None and high is not None and low <= 0.0 <= high:
        text = "The interval of the difference holds 0: it is not clear."
        return Reading("as real", gap, text)
    return Reading("differs", gap, sentence)


def difference_interval(value: Value) -> list[float | None]:
    """Ends of value - reference: of both together where the detail has them.

    Tests on the same patients share most of their noise; the interval of the value
    alone would be too wide for the difference, or too narrow where it lacks the
    reference's.
    """
    detail, floor = value.detail or {}, value.reference or 0.0
    ends = [None if end is None else end - floor for end in (value.low, value.high)]
    return detail.get("above_reference_interval", ends)


def _difference(
    definition: Definition, value: float, reference: float
) -> tuple[str, str]:
    """The ratio for the table, and the difference as a sentence."""
    direction, ideal = definition.direction, definition.ideal
    if direction == "higher" and reference > 0:
        share = f"{100 * value / reference:.1f} %"
        return f" ({share})", f"Reaches {share} of what real data give."
    if direction == "lower" and reference > 0 and value >= 0:
        times = number(float(f"{value / reference:.2g}"))
        text = f"{times} times the real-against-real number."
        return f" ({times}\N{MULTIPLICATION SIGN})", text
    if ideal is None:
        return "", "Farther from real data than other real data are."
    return "", "Farther from the ideal than real against real."


def count_readings(results: list[Result]) -> str:
    """One sentence: how many numbers look like real data, differ, or are missing."""
    marks = [read(result).mark for result in results]
    parts = [
        f"{marks.count('as real')} of {len(marks)} metrics match real against real",
        f"{marks.count('differs')} differ",
    ]
    for mark, words in (
        ("not shown", "without an interval to tell"),
        ("no reference", "without a reference"),
        ("not defined", "not defined"),
    ):
        if mark in marks:
            parts.append(f"{marks.count(mark)} {words}")
    return ", ".join(parts) + "."


def verdict(results: list[Result]) -> list[str]:
    """The sentences at the top: use in place of real patients, then resemblance."""
    if not results:
        return ["No metric was computed."]
    losses = [r for r in results if "verdict" in (r.value.detail or {})]
    said = [use_sentence(_representative(losses))] if losses else []
    return [*said, count_readings(results)]


def use_sentence(loss: Result) -> str:
    """What is lost by training on synthetic patients, against the stated margin."""
    detail, kind = loss.value.detail, loss.definition.title.partition(", ")[2]
    shown = {
        "non-inferior": "Synthetic patients serve in place of real ones",
        "inferior": "Synthetic patients do not serve in place of real ones",
        "not shown": "Not shown: that synthetic patients serve in place of real ones",
    }[detail["verdict"]]
    low, high = (change(end) for end in (loss.value.high, loss.value.low))
    sure = f"95 % interval: {low} to {high}"
    if why := detail.get("no_interval"):
        sure = f"no interval: {why}"
    return (
        f"{shown}: after training on them, AUROC on real hold-out patients ({kind}) is "
        f"{change(loss.value.value)} than after training on real ones ({sure}; "
        f"margin {number(detail['margin'])})."
    )


def change(loss: float | None) -> str:
    """A loss of AUROC as "0.02 lower" or "0.02 higher"."""
    if loss is None:
        return "unknown"
    return f"{number(abs(loss))} {'higher' if loss < 0 else 'lower'}"


def attacks(results: list[Result]) -> list[Result]:
    """The numbers of attacks on privacy that are defined; copies and diagnostics are
    none."""
    others = (*DIAGNOSTICS, COPIES)
    return [
        r
        for r in results
        if r.group == "privacy" and r.name not in others and is_defined(r)
    ]


def copies_sentence(results: list[Result]) -> str:
    """How many synthetic patients are copies; "" = not more than hold-out patients."""
    for result in results:
        if result.name != COPIES or not is_defined(result):
            continue
        value, detail = result.value, result.value.detail
        share, fresh = value.value or 0.0, value.reference or 0.0
        if share > fresh:
            made = f"{detail['count']:,} of {detail['records']:,} synthetic patients"
            least = bounded(value, "max_sure_excess")
            by_chance = least is not None and least <= 0
            chance = ", no more than chance makes" if by_chance else ""
            return (
                f"{made} equal a training patient in every value "
                f"({number(100 * share)} %; of hold-out patients "
                f"{number(100 * fresh)} %{chance})."
            )
    return ""


def privacy_sentence(results: list[Result]) -> str:
    """How many attacks learn more than from fresh real patients; "" = none was made.

    Worse: the interval lies above that of the reference and above the ideal, and
    chance (given where the interval leaves something out) is below 2.5 %. An attack
    that misses its control shows nothing, and is named.
    """
    made = attacks(results)
    if not made:
        return ""
    worse, blind = [], []
    for result in made:
        value, detail = result.value, result.value.detail or {}
        top = detail.get("reference_interval", [0.0, value.reference or 0.0])[1]
        low = value.value if value.low is None else value.low
        beyond = low is not None and low > max(top, result.definition.ideal or 0.0)
        if beyond and detail.get("chance", 0.0) < SIGNIFICANT:
            worse.append(result.definition.title)
        if detail.get("leaky_generator_caught") is False:
            blind.append(result.definition.title)
    text = (
        f"{len(worse)} of {len(made)} numbers of attacks on privacy are worse than for "
        f"fresh real patients{': ' if worse else ''}{attack_names(worse)}."
    )
    if blind:
        text += f" Too weak to see even their control: {'; '.join(blind)}."
    return text


def held(results: list[Result]) -> str:
    """What the attackers held; "" where no attack was made."""
    on_model = {r.name.startswith(ON_MODEL) for r in attacks(results)}
    parts = {False: "the synthetic patients", True: "the model"}
    return " and ".join(text for part, text in parts.items() if part in on_model)


def untried_sentence(results: list[Result]) -> str:
    """Which stronger attackers were not tried."""
    other = {
        "the synthetic patients": "the model itself",
        "the model": "the synthetic patients",
    }.get(held(results))
    if other is None:
        return "Attackers stronger than these were not tried."
    return f"Other attackers, such as one who holds {other}, were not tried."


def control(result: Result) -> str:
    """What the attack makes of its control."""
    detail = result.value.detail or {}
    if "leaky_generator" not in detail:
        return "no control"
    caught = detail.get("leaky_generator_caught")
    return f"{number(detail['leaky_generator'])}{'' if caught else ', not recognised'}"


def threat(result: Result) -> str:
    """The sentence of a definition that says what the attacker holds."""
    text = result.definition.text.removeprefix("Threat model: ").split(". ")[0]
    return text[:1].upper() + text[1:].removesuffix(".") + "."


def attackers(results: list[Result]) -> list[tuple[str, str]]:
    """Every attack by name, and who makes it."""
    named = ((r.definition.title.split(":")[0], threat(r)) for r in results)
    return list(dict.fromkeys(named))


def attack_names(titles: list[str]) -> str:
    """Each attack once; a title is "attack: number"."""
    return "; ".join(dict.fromkeys(title.split(":")[0] for title in titles))


def headlines(results: list[Result]) -> list[Result]:
    """Three numbers: utility, the hardest detection test, and one of fidelity."""
    groups = [
        [r for r in results if r.group == group and is_defined(r)]
        for group in HEADLINE_GROUPS
    ]
    chosen = [_representative(members) for members in groups if members][:3]
    rest = [r for r in results if is_defined(r) and r not in chosen]
    order = [r.name for r in results]
    return (chosen + rest)[:3] if order else []


def _representative(members: list[Result]) -> Result:
    """The mean if there is one, else correlation, else the worst of the group."""
    for part in ("mean", "correlation"):
        for member in members:
            if part in member.name:
                return member
    return max(members, key=lambda r: _badness(r, r.value.value or 0.0))


def size_sentence(comparison: Comparison, run: Mapping[str, Any]) -> str:
    """What is compared, in plain words."""
    schema, kind = comparison.schema, nature(comparison.synthetic, run).rows
    sizes = [
        f"{num_patients(data.cohort):,}"
        for data in (comparison.synthetic, comparison.train, comparison.holdout)
    ]
    parts = []
    if schema.temporal:
        span = schema.num_steps * schema.step
        parts.append(
            f"{len(schema.temporal)} time-series variables at {schema.num_steps} steps "
            f"({span:g} {schema.time_unit})"
        )
    if schema.static:
        parts.append(f"{len(schema.static)} static variables")
    if schema.label is not None:
        parts.append(f"the label {schema.label.name!r}")
    return (
        f"{sizes[0]} {kind} are compared with real patients: {sizes[1]} "
        f"that a model may learn from and {sizes[2]} held out. "
        f"Compared are {', '.join(parts)}."
    )


def label_counts(data: Dataset) -> np.ndarray:
    return np.bincount(
        np.asarray(data.cohort.label, int), minlength=data.schema.num_classes
    )
