"""From predictions to numbers of utility: areas, losses, calibration, gain.

C classifiers, S trainings, M hold-out patients, N synthetic ones, K classes, W draws.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.contracts import Definition, Value
from jaxehr.metrics.calibration import CUT, brier, recalibration
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.learners import Learner
from jaxehr.metrics.resampling import (
    Measure,
    Trial,
    aupr,
    auroc,
    mean_training,
    measured,
    scores,
)
from jaxehr.metrics.subgroups import Group, largest_loss

ESTEBAN, CDMT = "[esteban2017]", "[cdmt2026, Sec. 5]"
ONE_CLASS = "the hold-out holds one class only"
NO_SLOPE = "chances that are all equal, or that separate the classes, have no slope"


class Area(NamedTuple):
    """A number of TSTR: which area, of which classifiers, and the words for both."""

    measure: Measure
    chosen: list[int]
    title: str
    what: str


class Family(NamedTuple):
    """Classifiers that see the same rows."""

    name: str
    title: str  # in the words after "of"
    learners: dict[str, Learner]
    view: Callable[..., Any]  # (side that trains, all data) -> data set -> rows
    areas: dict[str, Area]  # each classifier in the same order, then others
    augmented: int  # the classifier that is also trained on both sides
    trainings: int = 0  # 0 = `MetricConfig.seeds`


class Predicted(NamedTuple):
    """Chances of each class, by what the classifiers were trained on."""

    synthetic: np.ndarray  # [C, S, M, K] of the hold-out
    real: np.ndarray  # [C, S, M, K] of the hold-out
    reverse: np.ndarray  # [C, S, N, K] trained on real, of synthetic patients
    both: np.ndarray  # [1, S, M, K] trained on both, of the hold-out; or empty


class Judged(NamedTuple):
    """All that the numbers follow from."""

    predicted: Predicted
    holdout: Trial
    synthetic: Trial
    groups: list[Group]
    added: dict[str, int]  # patients behind `predicted.both`


def definitions(family: Family, config: MetricConfig) -> dict[str, Definition]:
    """The numbers of a family in the order of the table."""
    most = f"Trained on at most {config.max_rows:,} random patients a side."
    bound = f" {most}" if config.max_rows else ""
    source = "[flexgen2024, Table 3]" if family.name == "forest" else ESTEBAN
    found = {}
    for name, area in family.areas.items():
        kind = "AUPR" if area.measure is aupr else "AUROC"
        found[name] = Definition(
            f"Train on synthetic, {area.title}",
            f"{kind} on real hold-out patients of {area.what}, trained on synthetic "
            f"ones; the reference is trained on real ones.{bound}",
            "higher",
            1.0,
            source,
        )
        margin = f" Non-inferior: the interval ends below {config.margin:g}."
        found[f"{name}_loss"] = Definition(
            f"Loss against real training data, {area.title}",
            f"{kind} of {area.what} trained on real patients, less that trained on "
            "synthetic ones; paired bootstrap over hold-out patients and trainings."
            f"{margin if area.measure is auroc else ''}",
            "lower",
            0.0,
        )
    return found | more_definitions(family, config)


def more_definitions(family: Family, config: MetricConfig) -> dict[str, Definition]:
    """What follows from the same models."""
    what, kind = family.title, family.name
    one = list(family.areas.values())[family.augmented].what
    times = "" if config.augment == 1.0 else f"{config.augment:g} times "
    trts = (
        f"AUROC on synthetic patients of {what}, trained on real ones; the reference "
        "is tested on real hold-out patients. Far above it: synthetic patients are too "
        "easy; far below: they do not show the label as real ones do."
    )
    score = (
        f"Mean squared error of the chances that {what}, trained on synthetic "
        "patients, gives real hold-out patients; the reference is trained on real ones."
    )
    slope = (
        "b of logit P(label) = a + b logit(p) among real hold-out patients, p the "
        f"chance, in [{CUT:g}, {1 - CUT:g}], from {what}, trained on synthetic "
        "ones. Below 1: too extreme; above 1: too timid."
    )
    subgroup = (
        "AUROC trained on real less trained on synthetic patients, within each value "
        "of a static column, decade of age or third of another number; the largest, of "
        f"{what}. The interval allows for the choice."
    )
    added = (
        f"AUROC on real hold-out patients of {one}, trained on real and {times}"
        "as many synthetic patients, less that trained on the real ones alone; paired "
        "as the loss; 0 = none."
    )
    table = {
        "trts": ("Train on real, test on synthetic", trts, "target", None, ESTEBAN),
        "brier": ("Brier score", score, "lower", 0.0, "[brier1950]"),
        "slope": ("Calibration slope", slope, "target", 1.0, "[cox1958]"),
        "subgroup_loss": ("Largest loss in a subgroup", subgroup, "lower", 0.0, ""),
    }
    if config.augment:
        title = "Gain by added synthetic patients"
        table["gain"] = (title, added, "higher", 0.0, CDMT)
    return {
        f"{kind}_{name}": Definition(f"{title}, {kind}", *rest)
        for name, (title, *rest) in table.items()
    }


def values(family: Family, config: MetricConfig, judged: Judged) -> dict[str, Value]:
    """Every number of `definitions`."""
    kind, made = family.name, judged.predicted
    sides = made.real, made.synthetic
    tested = judged.holdout
    found = areas(family, config, judged) | {
        f"{kind}_trts": reversed_area(family, judged),
        f"{kind}_brier": error_of_chances(family, judged),
        f"{kind}_slope": calibration_slope(judged),
        f"{kind}_subgroup_loss": largest_loss(auroc, tested, sides, judged.groups),
    }
    return found | ({f"{kind}_gain": gain(family, judged)} if len(made.both) else {})


def areas(family: Family, config: MetricConfig, judged: Judged) -> dict[str, Value]:
    """Areas after training on synthetic patients, and what they lose."""
    tested, out = judged.holdout, {}
    sides = judged.predicted.synthetic, judged.predicted.real
    found = {
        measure: [scores(measure, tested, side) for side in sides]
        for measure in {area.measure for area in family.areas.values()}
    }
    for name, area in family.areas.items():
        each = [side[area.chosen] for side in found[area.measure]]
        synthetic, real = (mean_training(tested, side) for side in each)
        detail: dict[str, Any] = {
            key: side[..., 0].mean(0).tolist()
            for key, side in zip(("per_seed", "per_seed_reference"), each)
        }
        out[name] = measured(synthetic, real, ONE_CLASS, detail)
        loss = measured(real - synthetic, 0.0, ONE_CLASS)
        if area.measure is auroc:
            said = {"margin": config.margin, "verdict": verdict(loss, config.margin)}
            loss = loss._replace(detail=(loss.detail or {}) | said)
        out[f"{name}_loss"] = loss
    return out


def verdict(loss: Value, margin: float) -> str:
    """Where the interval of a loss lies: below the margin, above it, or across."""
    if loss.high is not None and loss.high < margin:
        return "non-inferior"
    if loss.low is not None and loss.low > margin:
        return "inferior"
    return "not shown"


def by_classifier(family: Family, found: np.ndarray) -> dict[str, float]:
    """Means over trainings of scores [C, S, W] on the patients as they are."""
    return dict(zip(family.learners, found[..., 0].mean(1).tolist(), strict=True))


def reversed_area(family: Family, judged: Judged) -> Value:
    """AUROC on synthetic patients; the reference is drawn apart, of the hold-out."""
    made, tested = judged.synthetic, judged.holdout
    found = scores(auroc, made, judged.predicted.reverse)
    draws = mean_training(made, found)
    real = mean_training(tested, scores(auroc, tested, judged.predicted.real))
    detail = {"per_classifier": by_classifier(family, found)}
    return measured(draws, real[: len(draws)], ONE_CLASS, detail)


def error_of_chances(family: Family, judged: Judged) -> Value:
    """Brier score; of several classes the mean of each against the rest."""
    tested, made = judged.holdout, judged.predicted
    synthetic, real = (scores(brier, tested, p) for p in (made.synthetic, made.real))
    detail = {"per_classifier": by_classifier(family, synthetic)}
    reference = mean_training(tested, real)
    return measured(mean_training(tested, synthetic), reference, ONE_CLASS, detail)


def calibration_slope(judged: Judged) -> Value:
    """Slope of the logistic recalibration; the detail holds the intercepts."""
    tested, made = judged.holdout, judged.predicted
    if made.real.shape[-1] > 2:
        return Value(None, reason="a slope needs a label of two classes")
    fits = [recalibrated(tested, side) for side in (made.synthetic, made.real)]
    (intercept, slope), (reference_intercept, reference) = fits
    detail = {
        "intercept": float(intercept[0]),
        "reference_intercept": finite(reference_intercept[0]),
        "mean_chance": float(made.synthetic[..., 1].mean()),
        "reference_mean_chance": float(made.real[..., 1].mean()),
        "prevalence": float(np.mean(tested.label == 1)),
    }
    return measured(slope, reference, NO_SLOPE, detail)


def recalibrated(tested: Trial, chance: np.ndarray) -> list[np.ndarray]:
    """Intercept and slope [W], means over the trainings [C, S, M, 2]."""
    label = tested.label == 1
    one = lambda p: recalibration(label, p[:, 1], tested.patients)
    fits = np.stack([[one(p) for p in trainings] for trainings in chance])
    return [mean_training(tested, fits[:, :, i]) for i in range(2)]


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def gain(family: Family, judged: Judged) -> Value:
    """AUROC of training on both kinds of patients, less that on real ones alone."""
    tested, made = judged.holdout, judged.predicted
    alone = made.real[[family.augmented]]
    both, real = (
        mean_training(tested, scores(auroc, tested, p)) for p in (made.both, alone)
    )
    detail = judged.added | {
        "trained_on_both": float(both[0]),
        "trained_on_real": float(real[0]),
    }
    return measured(both - real, 0.0, ONE_CLASS, detail)
