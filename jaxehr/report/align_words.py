"""An alignment in plain words: can it be trusted, what was used, how well it fills."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from jaxehr.report import words

METHODS = {
    "fused": "alignment (fused)",
    "gromov": "alignment without pairs (gromov)",
    "signed": "alignment of the paper (signed)",
    "ridge": "ridge on complete patients",
    "procrustes": "rotation (procrustes)",
    "bures": "Gaussian transport (bures)",
    "knn": "nearest complete patients (knn)",
    "class-mean": "mean of the class",
    "mean": "mean of all patients",
}
USED = {  # what `align` says of a direction
    "mean": "the mean of all patients",
    "ridge on pairs": "ridge on complete patients",
    "map of the coupling": "a linear map learned from the matches",
    "coupling (sample)": "a record drawn from the matches",
    "coupling (barycentric)": "the average of the matches",
    "none": "nothing",
}
POOR, BEATEN, AGREES = 0.95, 1.1, 0.2  # limits of the doubts
WEIGHED = "map, transported rows weigh "
PARTS = ("static", "temporal")
WAYS = {"forward": "static", "backward": "temporal"}  # what the direction fills in
VERDICTS = {
    "ok": "The alignment settled on a plan of which record goes with which",
    "collapsed": "The alignment collapsed: beyond the label it does not say which "
    "temporal record belongs to which static one",
    "not_converged": "The alignment had not settled when it was stopped",
    "failed": "The alignment failed: the calculation broke down",
}
DOUBTFUL = "it was used all the same: read the results with care"
MARKS = {
    "ok": "settled",
    "collapsed": "collapsed",
    "not_converged": "not converged",
    "failed": "failed",
    "none": "no alignment",
}


class Errors(NamedTuple):
    """NRMSE of each method that has one, by the part that was hidden."""

    patients: int | None
    static: dict[str, float]
    temporal: dict[str, float]


def is_number(value: Any) -> TypeGuard[float]:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def shown(value: Any) -> str:
    """A number in three digits, text as it is, "not given" for neither."""
    if is_number(value):
        return words.number(value)
    return value if isinstance(value, str) and value else "not given"


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def method_of(diagnostics: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The method that the run was trained with; "" where it is not known."""
    config = mapping(mapping(run.get("config")).get("alignment"))
    found = diagnostics.get("method") or config.get("method")
    return found if isinstance(found, str) else ""


def errors_of(diagnostics: Mapping[str, Any]) -> Errors:
    """What `hidden` holds, without what is not a number."""
    hidden, found = mapping(diagnostics.get("hidden")), ({}, {})
    for method, each in hidden.items():
        for part, into in zip(PARTS, found, strict=True):
            value = mapping(each).get(part)
            if is_number(value):
                into[method] = float(value)
    count = hidden.get("patients")
    return Errors(int(count) if is_number(count) else None, *found)


def status_of(diagnostics: Mapping[str, Any]) -> str:
    """One of the states that we know, or "unknown"."""
    status = diagnostics.get("status")
    return status if isinstance(status, str) and status in MARKS else "unknown"


def verdict(diagnostics: Mapping[str, Any], method: str) -> list[str]:
    """Sentences: the status, what imputes, and what that is worth."""
    status = status_of(diagnostics)
    if method == "complete":
        return [
            "No alignment was made: the model learned from complete patients only "
            "(method complete), and it cannot fill in a missing part."
        ]
    if status == "none":
        other = METHODS.get(method, method or "another method")
        first = f"No alignment was needed: {other} fills in the missing part directly."
    else:
        first = state_sentence(diagnostics)
    parts = [first, used_sentence(diagnostics, method), worth(diagnostics, method)]
    return [part for part in parts if part] + doubts(diagnostics, method)


def state_sentence(diagnostics: Mapping[str, Any]) -> str:
    """How the alignment ended, and whether its plan is used although it is poor."""
    status = status_of(diagnostics)
    if status not in VERDICTS:
        return "Whether the alignment worked is not recorded in this run."
    if status == "ok" or not used_of(diagnostics):
        return f"{VERDICTS[status]}."
    end = DOUBTFUL if plan_used(diagnostics) else "it was not used"
    return f"{VERDICTS[status]}; {end}."


def used_of(diagnostics: Mapping[str, Any]) -> dict[str, str]:
    """What fills in each part, as `align` says it, where the diagnostics say so."""
    used = diagnostics.get("used")
    found = dict.fromkeys(WAYS, used) if isinstance(used, str) else mapping(used)
    given = {part: found.get(way) for way, part in WAYS.items()}
    return {
        part: text for part, text in given.items() if isinstance(text, str) and text
    }


def plan_used(diagnostics: Mapping[str, Any]) -> bool:
    """Whether the matches of the plan take part in filling in."""
    used = used_of(diagnostics).values()
    return any(text.startswith(("map", "coupling")) for text in used)


def used_for(diagnostics: Mapping[str, Any]) -> dict[str, str]:
    """What fills in each part, in plain words, where the diagnostics say so."""
    told = {}
    for part, text in used_of(diagnostics).items():
        if text.startswith(WEIGHED):
            weight = text.removeprefix(WEIGHED)
            text = "a linear map learned from complete patients and from matches "
            text += f"(weight {weight})"
        told[part] = USED.get(text, METHODS.get(text, text))
    return told


def used_sentence(diagnostics: Mapping[str, Any], method: str) -> str:
    """What fills in each part, where it is not simply the method asked for."""
    told = used_for(diagnostics)
    same = set(told.values())
    if not told or same == {METHODS.get(method)}:
        return ""
    if len(told) == len(PARTS) and len(same) == 1:
        return f"Missing parts are filled in by {same.pop()}."
    each = [f"Missing {part} parts are filled in by {told[part]}." for part in told]
    return " ".join(each)


def worth(diagnostics: Mapping[str, Any], method: str) -> str:
    """The error on hidden parts beside the best simple alternative."""
    errors, told = errors_of(diagnostics), []
    for part in PARTS:
        found = getattr(errors, part)
        if method in found:
            text = f"{found[method]:.2f} for {part} parts"
            others = alternatives(found, method)
            if others:
                text += (
                    f" (best simple alternative: {others[0][0]}, {others[0][1]:.2f})"
                )
            told.append(text)
    if not told:
        return ""
    text = "Parts hidden on purpose were filled in with an error of "
    return f"{text}{' and '.join(told)}, where 1 is guessing the mean."


def alternatives(found: Mapping[str, float], method: str) -> list[tuple[str, float]]:
    """The other methods, the best first."""
    others = [(name, value) for name, value in found.items() if name != method]
    return sorted(others, key=lambda item: item[1])


def doubts(diagnostics: Mapping[str, Any], method: str) -> list[str]:
    """What speaks against the result although the calculation went well."""
    errors, poor, beaten = errors_of(diagnostics), [], {}
    for part in PARTS:
        found = getattr(errors, part)
        others = alternatives(found, method)
        if found.get(method, 0.0) > POOR:
            poor.append(part)
        if method in found and others and found[method] > BEATEN * others[0][1]:
            beaten.setdefault(others[0][0], []).append(part)
    told = []
    if poor:
        parts = " and ".join(poor).capitalize()
        told.append(f"{parts} parts are filled in hardly better than by the mean.")
    for name, parts in beaten.items():
        told.append(
            f"For {' and '.join(parts)} parts {name} is clearly better: train with "
            f"--method {name}."
        )
    agreement, chance = (diagnostics.get(f"label_{k}") for k in ("agreement", "chance"))
    if not plan_used(diagnostics):
        return told
    if not (is_number(agreement) and is_number(chance) and chance < 1):
        return told
    if (agreement - chance) / (1 - chance) < AGREES:
        told.append("The plan hardly keeps the class of the label.")
    return told
