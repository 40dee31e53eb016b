"""Utility within groups of patients: by sex, by age, by every static column.

A model trained on synthetic patients may serve most patients and fail a few; the loss
is looked at group by group, with intervals that hold for all groups at once.
"""

import re
from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.cohort import Dataset, Feature, column_order, numeric_features
from jaxehr.core.contracts import Value
from jaxehr.metrics.resampling import (
    FEW_PERSONS,
    MIN_PERSONS,
    Measure,
    Trial,
    fewest,
    mean_training,
    scores,
)
from jaxehr.metrics.views import MIN_PATIENTS

AGE = re.compile(r"(?<![a-z])age(?![a-z])", re.IGNORECASE)
MOST_DECADES = 12
NO_GROUP = f"no group of {MIN_PATIENTS} hold-out patients, {MIN_PERSONS} of every class"


class Group(NamedTuple):
    """Patients alike in one static column."""

    name: str
    chosen: np.ndarray  # Bool [M], among the hold-out
    label: np.ndarray  # Int [n], of synthetic patients alike


def groups_of_patients(
    train: Dataset, holdout: Dataset, synthetic: Dataset
) -> list[Group]:
    """Values of coded static columns; decades of an age; thirds of other numbers.

    Thirds are those of the training patients. Who lacks the value is a group too.
    """
    found, label = [], np.asarray(synthetic.cohort.label)
    for index, feature in enumerate(train.schema.static):
        if feature.kind == "constant":
            continue
        real, held, made = (
            static_values(d, index) for d in (train, holdout, synthetic)
        )
        for name, low, high in bands(feature, real):
            inside = lambda x, low=low, high=high: (x >= low) & (x < high)
            found.append(Group(name, inside(held), label[inside(made)]))
        if np.isnan(held).any():
            missing = f"{feature.name} is missing"
            found.append(Group(missing, np.isnan(held), label[np.isnan(made)]))
    return found


def static_values(data: Dataset, index: int) -> np.ndarray:
    """Numbers or codes of a static column, NaN where missing: float64 [N]."""
    table = data.cohort.static
    is_numeric, position = column_order(data.schema.static)[index]
    values = (table.numeric if is_numeric else table.codes)[:, position]
    first = 0 if is_numeric else len(numeric_features(data.schema.static))
    return np.where(table.observed[:, first + position], values, np.nan)


def bands(feature: Feature, train: np.ndarray) -> list[tuple[str, float, float]]:
    """Name, lower end and upper end (excluded) of each group of a column."""
    name, values = feature.name, train[np.isfinite(train)]
    if not feature.is_numeric:
        called = enumerate(feature.categories)
        return [(f"{name} = {value}", code, code + 1) for code, value in called]
    if not values.size:
        return []
    first, last = (int(end // 10) for end in (values.min(), values.max()))
    decades = AGE.search(name) and last - first < MOST_DECADES
    cuts = np.unique(np.quantile(values, (1 / 3, 2 / 3)))
    if decades:
        cuts = 10 * np.arange(first + 1, last + 1)
    if not cuts.size:
        return []
    low, high = (
        [f"{cut:.4g}" for cut in ends] for ends in (cuts, cuts - bool(decades))
    )
    middle = [f"{name} {a} to {b}" for a, b in zip(low, high[1:])]
    called = [f"{name} below {low[0]}", *middle, f"{name} from {low[-1]}"]
    ends = [-np.inf, *cuts, np.inf]
    return [*zip(called, ends, ends[1:])]


def largest_loss(
    measure: Measure,
    tested: Trial,
    chance: tuple[np.ndarray, np.ndarray],
    groups: list[Group],
) -> Value:
    """The largest loss over the groups; the detail has a line for each.

    With loss l and standard deviation s over the draws in each group, the interval is
    l +- q s, q the 95 % quantile over the draws of the largest |l* - l| / s over the
    groups: it covers all groups at once, so the largest may be picked.

    Args:
      chance: of models trained on real and on synthetic patients, each [C, S, M, K].
    """
    table, draws = [], []
    for group in groups:
        line = described(tested, group, chance[0].shape[-1])
        if not line["reason"]:
            own = tested.of(group.chosen)
            real, synthetic = (
                mean_training(own, scores(measure, own, p[:, :, group.chosen]))
                for p in chance
            )
            line["trained_on_synthetic"] = float(synthetic[0])
            line["trained_on_real"] = float(real[0])
            draws.append(real - synthetic)
        table.append(line)
    if not draws:
        return Value(None, reason=NO_GROUP, detail={"groups": table})
    lost, low, high = together(np.stack(draws))
    defined = [line for line in table if not line["reason"]]
    for line, *ends in zip(defined, lost, low, high, strict=True):
        line |= dict(zip(("loss", "low", "high"), map(float, ends)))
    worst = int(np.argmax(lost))
    detail = {"largest": defined[worst]["group"], "groups": table}
    ends = float(low[worst]), float(high[worst])
    return Value(float(lost[worst]), 0.0, *ends, "", detail)


def together(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and the ends of their joint 95 % intervals, from draws [G, W]: [G] each.

    A draw in which a group lacks a class does not count for that group.
    """
    value, others = draws[:, 0], draws[:, 1:]
    spread = np.ma.masked_invalid(others).std(axis=1).filled(0.0)
    scale = np.where(spread > 0, spread, 1.0)
    apart = np.abs(others - value[:, None]) / scale[:, None]
    reach = np.quantile(np.nan_to_num(apart).max(0), 0.95) * spread
    return value, value - reach, value + reach


def described(tested: Trial, group: Group, classes: int) -> dict[str, Any]:
    """Numbers of patients, shares of the classes, and why there is no loss."""
    label, reason = tested.label[group.chosen], ""
    if len(label) < MIN_PATIENTS:
        reason = f"fewer than {MIN_PATIENTS} hold-out patients"
    elif len(np.unique(label)) < 2:
        reason = "one class only"
    elif not tested.drawn or fewest(label, tested.groups[group.chosen]) < MIN_PERSONS:
        reason = FEW_PERSONS
    return {
        "group": group.name,
        "patients": len(label),
        "prevalence": prevalence(label, classes),
        "synthetic_patients": len(group.label),
        "synthetic_prevalence": prevalence(group.label, classes),
        "reason": reason,
    }


def prevalence(label: np.ndarray, classes: int) -> float | list[float] | None:
    """Share of class 1; of more classes the share of each; of few patients none."""
    if len(label) < MIN_PATIENTS:
        return None
    share = np.bincount(np.asarray(label, int), minlength=classes) / len(label)
    return float(share[1]) if classes == 2 else share.tolist()
