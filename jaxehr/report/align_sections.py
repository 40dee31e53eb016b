"""Sections of the page of an alignment, each with how to read it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxehr.report import align_words as said
from jaxehr.report import coupling, words
from jaxehr.report.page import Grid, Rows, Section

# Key of the diagnostics, name, how to read it.
NUMBERS = (
    ("rows_source", "Temporal records coupled", "A sample where there are many."),
    ("rows_target", "Static records coupled", ""),
    ("dropped_source", "Temporal records left out", "Of a class that the static "
     "records lack, or without any direction in latent space."),
    ("dropped_target", "Static records left out", "The same, the other way round."),
    ("outer_iterations", "Outer iterations", "Rounds until the plan stood still."),
    ("sinkhorn_iterations", "Sinkhorn iterations", "Steps inside all rounds."),
    ("moment_change", "Change in the last round", "Should be below 0.01."),
    ("moment_drift", "Change on records drawn anew", "Where there are too many records "
     "for one plan: how far it moves on a sample that it was not learned from; should "
     "be below 0.2."),
    ("marginal_error", "Marginal error", "How far the plan is from using every record "
     "by its weight; should be below 0.01."),
    ("mass", "Total mass", "Should be 1."),
    ("information", "Information beyond the label", "0: any two patients of a class "
     "go together (below 0.05: collapsed). 1: every record has one partner."),
    ("epsilon", "Regularisation epsilon", "A larger one blurs the plan."),
    ("rho", "Regularisation rho", "Epsilon in units of sigma_ref; from 1 on the plan "
     "is a blur."),
    ("sigma_ref", "Spread sigma_ref", "How much the cost of matching varies; near 0 "
     "there is nothing to match by."),
)  # fmt: skip
FRUITLESS = ("collapsed", "failed")  # states without a plan worth using
OPTIONAL = ("moment_drift",)  # left out where there is nothing to tell


def percent(share: Any) -> str:
    return f"{100 * share:.1f} %" if said.is_number(share) else "not given"


def three(value: Any) -> str:
    """An error with three decimals, so that a column lines up."""
    return f"{value:.3f}" if said.is_number(value) else "not given"


def hidden_parts(diagnostics: Mapping[str, Any], method: str) -> Section:
    """Errors of imputation on parts that were hidden on purpose."""
    title = "How well is a hidden part filled in?"
    errors, pictures, rows = said.errors_of(diagnostics), [], []
    for part, other in (("static", "temporal"), ("temporal", "static")):
        found = ordered(getattr(errors, part), method)
        if found:
            alt = ", ".join(f"{name} {value:.2f}" for name, value in found)
            alt = f"{part.capitalize()} part filled in from the {other} part: {alt}."
            heading = f"{part.capitalize()} part, from the {other} part"
            pictures.append(
                coupling.error_bars(heading, found, method, f"hidden-{part}", alt)
            )
    if not pictures:
        text = "Not measured: too few complete patients to hide parts of some of them, "
        text += "or the model fills in nothing."
        return Section("hidden", title, [text], [])
    both = [*ordered(errors.static, method), *ordered(errors.temporal, method)]
    order = list(dict.fromkeys(name for name, _ in both))
    many = "" if errors.patients is None else f" of {errors.patients:,} patients each"
    text = [
        f"The static or the temporal part{many} was hidden, filled in, and compared "
        "with the truth. Bars left of the dashed line beat guessing the mean of all "
        "patients; 0.7 means an error 30 % smaller."
        + (" The chosen method is in colour." if method in order else ""),
        "If a grey bar is shorter, the simple alternative fills in better on these "
        "data. If all bars are near 1, one part says little about the other, and no "
        "method can fill it in: imputed values then show what is usual, not what this "
        "patient had. The error is that of the model's summary (latent) of the part.",
    ]
    for name in order:
        label = said.METHODS.get(name, name)
        label += ", chosen" if name == method else ""
        values = [three(getattr(errors, part).get(name)) for part in said.PARTS]
        rows.append([label, *values])
    head = ["Method", "Static part hidden", "Temporal part hidden"]
    table = Rows("Error of filled-in parts, 1 = mean", head, rows)
    return Section("hidden", title, text, [Grid(pictures, "large"), table])


def ordered(found: dict[str, float], method: str) -> list[tuple[str, float]]:
    """The chosen method first, the others by their error."""
    return sorted(found.items(), key=lambda item: (item[0] != method, item[1]))


def weights(diagnostics: Mapping[str, Any], method: str) -> Section | None:
    """Cross-validation on complete patients, and the weight of the matches."""
    cv, rows = said.mapping(diagnostics.get("cv")), []
    for way, part in said.WAYS.items():
        found = said.mapping(cv.get(way))
        if found:
            errors = [three(found.get(key)) for key in ("mean", "ridge", "map")]
            chosen = [said.shown(found.get(key)) for key in ("weight", "penalty")]
            rows.append([f"{part} part", *errors, *chosen])
    if not rows or method not in ("fused", "gromov", "signed", ""):
        return None
    text = [
        "Complete patients were set aside in turn, and the map from one part to the "
        "other was learned from the rest: from complete patients alone (ridge), and "
        "with the matches of the alignment added at several weights. A weight above 0 "
        "was kept where it made the error smaller by more than chance; 0 means that "
        "complete patients alone are used."
    ]
    aside, used = " set aside", said.plan_used(diagnostics)
    if not used and said.status_of(diagnostics) in FRUITLESS:
        text = [
            "Complete patients were set aside in turn, and the map from one part to "
            "the other was learned from the rest. The alignment adds nothing: complete "
            "patients alone are used."
        ]
    elif used and method == "signed":
        aside = ""
        text = [
            "The paper's map is learned from the matches alone; nothing is chosen. Its "
            "error is that on all complete patients; ridge is measured on those set "
            "aside in turn, and learned from the rest."
        ]
    told = [
        f"Missing {part} parts are filled in by {what}."
        for part, what in said.used_for(diagnostics).items()
    ]
    head = ["Filled in", "Mean", "Ridge on complete patients", "Map",
            "Weight of matches", "Penalty"]  # fmt: skip
    table = Rows(f"Error on complete patients{aside}, 1 = mean", head, rows)
    return Section("weights", "What the matches add", text + told, [table])


def class_names(run: Mapping[str, Any], count: int) -> list[str]:
    """Names of `count` classes, from the run where it has them."""
    names = [str(name) for name in run.get("classes") or []]
    return names if len(names) == count else [f"class {k}" for k in range(count)]


def coupled(diagnostics: Mapping[str, Any], run: Mapping[str, Any]) -> Section | None:
    """The heat map of the coupling."""
    heat = coupling.matrix(diagnostics.get("heat"))
    if heat is None:
        return None
    mass = class_mass(diagnostics)
    names = class_names(run, 0 if mass is None else len(mass))
    top = float(coupling.against_chance(heat).max())
    alt = (
        f"Coupling of temporal records (rows) and static records (columns) in "
        f"{heat.shape[0]} by {heat.shape[1]} blocks"
        + (f", sorted by class: {', '.join(names)}" if names else "")
        + f"; the densest block is matched {words.number(top)} times as often as by "
        "chance."
    )
    if said.is_number(diagnostics.get("label_agreement")):
        alt += f" {percent(diagnostics['label_agreement'])} lies within one class."
    text = [
        "Each row is a group of temporal records, each column one of static records; "
        "the stronger the colour, the more often the two are matched: no colour is "
        "never, 1 on the scale is as often as by chance. Dashed lines part the classes "
        "of the label.",
        "Good: colour only in the boxes on the diagonal, where both records are of one "
        "class, and inside the boxes a pattern. Bad: colour outside of the boxes "
        "(matched across classes), or one even shade (anyone with anyone).",
    ]
    by = str(run.get("label") or "class")
    picture = coupling.heat_map(heat, mass, names, by, alt)
    return Section(
        "coupling", "Who is matched with whom", text, [Grid([picture], "large")]
    )


def class_mass(diagnostics: Mapping[str, Any]) -> np.ndarray | None:
    """Mass by class of both records, [C, C] with C > 1; None where it is not given."""
    mass = coupling.matrix(diagnostics.get("class_mass"))
    if mass is None or mass.shape[0] != mass.shape[1] or len(mass) < 2:
        return None
    return mass


def classes(diagnostics: Mapping[str, Any], run: Mapping[str, Any]) -> Section | None:
    """Class-by-class mass, and agreement of the label against chance."""
    mass = class_mass(diagnostics)
    agreement, chance = (diagnostics.get(f"label_{k}") for k in ("agreement", "chance"))
    if mass is None and not said.is_number(agreement):
        return None
    text = [
        f"Records of one class are matched with each other in {percent(agreement)} of "
        f"the plan; matching at random gives {percent(chance)}. Near 100 %: patients "
        "are matched within their class. Near chance: the match ignores the class.",
    ]
    blocks = []
    if mass is not None:
        names = class_names(run, len(mass))
        rows = [
            [name, *map(percent, row.tolist()), percent(float(row.sum()))]
            for name, row in zip(names, mass)
        ]
        rows.append(["all", *map(percent, mass.sum(0).tolist()), percent(1.0)])
        label = str(run.get("label") or "class")
        head = [f"Temporal, {label}", *(f"static: {name}" for name in names), "all"]
        caption = f"Share of the plan by {label} of both records"
        blocks = [Rows(caption, head, rows)]
    return Section("classes", "Does the match keep the class?", text, blocks)


def objective(diagnostics: Mapping[str, Any]) -> Section | None:
    """Gromov-Wasserstein objective of the plan, the product plan and every start."""
    plan, product = diagnostics.get("gw_plan"), diagnostics.get("gw_product")
    starts = diagnostics.get("gw_starts")
    starts = list(starts) if isinstance(starts, list | tuple) else []
    named = [("Matching at random (product plan)", product), ("The plan", plan)]
    named += [(f"Start {k}", value) for k, value in enumerate(starts, 1)]
    if not any(said.is_number(value) for _, value in named):
        return None
    share = lambda value: (
        percent(value / product)
        if said.is_number(value) and said.is_number(product) and product > 0
        else "not given"
    )
    rows = [[name, said.shown(value), share(value)] for name, value in named]
    text = [
        "The objective says how much the distances between patients change when each "
        "is replaced by its match: 0 if not at all. Lower is better, and well below "
        "the product plan means that structure was found. Starts are attempts of the "
        "search on a sample; the lowest is kept. Starts that differ much show that "
        "there are several ways to match, and that a wrong one could have been taken.",
    ]
    head = ["", "Objective", "Of the product plan"]
    table = Rows("Gromov-Wasserstein objective", head, rows)
    return Section("objective", "The search for the plan", text, [table])


def latents(diagnostics: Mapping[str, Any]) -> Section | None:
    """What the latents of both parts hold, before anything is aligned."""
    told = diagnostics.get("latents")
    if not isinstance(told, Mapping):
        return None  # a run of before this was told
    rows = [
        [
            f"{name} part",
            f"{part.get('active')} of {part.get('coordinates')}",
            said.shown(part.get("nats")),
        ]
        for name, part in told.items()
        if isinstance(part, Mapping)
    ]
    if not rows:
        return None
    text = [
        "A coordinate that says nothing of a patient (a mean divergence from the "
        "standard normal law below 0.01 nats) is idle. Where all are, the autoencoder "
        "has collapsed, and nothing can be aligned or imputed by it: lower the weight "
        "of the divergence (--kl-weight) or train the autoencoders longer.",
    ]
    head = ["", "Active coordinates", "Nats a patient"]
    table = Rows("What the latents hold", head, rows)
    return Section("latents", "The latents", text, [table])


def numbers(diagnostics: Mapping[str, Any]) -> Section | None:
    """Every number of the calculation with how to read it."""
    rows, reason = [], diagnostics.get("reason")
    text = [f"Why this state: {reason}."] if isinstance(reason, str) and reason else []
    if any(said.is_number(diagnostics.get(key)) for key in ("epsilon", "sigma_ref")):
        rows += [
            [name, said.shown(diagnostics.get(key)), text]
            for key, name, text in NUMBERS
            if key not in OPTIONAL or said.is_number(diagnostics.get(key))
        ]
    if not rows and not text:
        return None
    head = ["Quantity", "Value", "How to read it"]
    table = Rows("The calculation in numbers", head, rows, numeric=False)
    return Section("numbers", "The calculation", text, [table] if rows else [])
