"""Singling out: a condition read off the synthetic patients that fits one person.

Conditions that fit exactly one synthetic patient are tried on the training patients;
the same conditions on as many hold-out patients, from whom nothing can leak, give the
rate at which conditions of this weight single someone out by chance.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.adversarial import difference
from jaxehr.metrics.attacks import Interval, constant, in_place, records
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.membership import clopper_pearson
from jaxehr.metrics.views import too_few

TRIES = 1000  # conditions that are drawn
LEAST = 20  # conditions that fit one synthetic patient
EQUAL, ABOVE, BELOW = 0, 1, 2
KINDS = ("univariate", "multivariate")


class Condition(NamedTuple):
    """All of x[column] (=, >=, <=) value."""

    column: np.ndarray  # Int [c]
    operator: np.ndarray  # Int [c]
    value: np.ndarray  # [c]


def matches(condition: Condition, rows: np.ndarray) -> int:
    """How many rows [N, D] fit."""
    fits = np.ones(len(rows), bool)
    for column, operator, value in zip(*condition, strict=True):
        x = rows[:, column]
        if operator == EQUAL:
            fits &= x == value
        else:
            fits &= x >= value if operator == ABOVE else x <= value
    return int(fits.sum())


def univariate(rng: np.random.Generator, rows: np.ndarray) -> list[Condition]:
    """The largest and the smallest value of each column, and values drawn."""
    one = lambda *parts: Condition(*(np.asarray([part]) for part in parts))
    found = []
    for column in rng.permutation(rows.shape[1])[: TRIES // 4]:
        found.append(one(column, ABOVE, rows[:, column].max()))
        found.append(one(column, BELOW, rows[:, column].min()))
    while len(found) < TRIES:
        column, row = rng.integers(rows.shape[1]), rng.integers(len(rows))
        found.append(one(column, EQUAL, rows[row, column]))
    return found


def multivariate(rng: np.random.Generator, rows: np.ndarray) -> list[Condition]:
    """A patient drawn, some columns of it: on its side of the median or beyond.

    Each column keeps a quarter of the patients on average; log_4 N columns leave one.
    """
    count = min(math.ceil(math.log(len(rows), 4)), rows.shape[1])
    median, found = np.median(rows, 0), []
    for _ in range(TRIES):
        row = rows[rng.integers(len(rows))]
        column = rng.choice(rows.shape[1], count, replace=False)
        operator = np.where(row[column] >= median[column], ABOVE, BELOW)
        found.append(Condition(column, operator, row[column]))
    return found


def distinct(conditions: list[Condition]) -> list[Condition]:
    """Each condition once."""
    key = lambda c: tuple(sorted(zip(*(part.tolist() for part in c), strict=True)))
    return list({key(c): c for c in conditions}.values())


def definitions() -> dict[str, Definition]:
    """The share of conditions that single out, and what is left over chance."""
    found = {}
    for kind in KINDS:
        threat = (
            "Threat model: the attacker sees the synthetic patients only and states a "
            f"{kind} condition that fits one of them."
        )
        found[f"singling_out_{kind}"] = Definition(
            f"Singling out, {kind}",
            f"{threat} Share of such conditions that fit exactly one training patient.",
            "lower",
            0.0,
            "[giomi2023]",
        )
        found[f"singling_out_{kind}_advantage"] = Definition(
            f"Singling out, {kind}: advantage",
            f"{threat} Share that fit exactly one training patient, less the share "
            "that fit exactly one of as many hold-out patients.",
            "lower",
            0.0,
            "[giomi2023]",
        )
    return found


class Sides(NamedTuple):
    """The patients conditions are read from, and those they are tried on."""

    seen: np.ndarray
    train: np.ndarray
    others: np.ndarray


def rates(
    rng: np.random.Generator, kind: str, sides: Sides
) -> tuple[Interval, Interval] | None:
    """Success on training patients, and that less the success on others; None where
    too few conditions fit one patient."""
    draw = univariate if kind == "univariate" else multivariate
    drawn = distinct(draw(rng, sides.seen))
    kept = [c for c in drawn if matches(c, sides.seen) == 1]
    if len(kept) < LEAST:
        return None
    found = []
    for rows in (sides.train, sides.others):
        hits = sum(matches(c, rows) == 1 for c in kept)
        ends = clopper_pearson(hits, len(kept))
        found.append(Interval(hits / len(kept), *ends))
    return found[0], difference(found[0], found[1])


def singling_out(config: MetricConfig = DEFAULT) -> Metric:
    """Conditions on one column and on several, tried on training patients."""
    names = definitions()

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        train, holdout, synthetic = records(real)
        varies = np.ptp(train, 0) > 0
        if constant(train):
            return undefined(names, "no column that varies among the real patients")
        train, holdout, synthetic = (
            rows[:, varies] for rows in (train, holdout, synthetic)
        )
        rng = generator(key)
        mixed = rng.permutation(len(holdout))
        asked, fresh = (holdout[part] for part in np.array_split(mixed, 2))
        size = min(len(asked), len(train), config.pooled_rows)
        members = train[rng.permutation(len(train))[:size]]
        seen = {
            "synthetic": synthetic[rng.permutation(len(synthetic))],
            "fresh": fresh,
            "leak": members,
        }
        out = {}
        for kind in KINDS:
            found = [
                rates(rng, kind, Sides(table, members, asked[:size]))
                for table in seen.values()
            ]
            out |= both(kind, found, size)
        return out

    return Metric(run, "privacy", names, sparse=True)


def both(kind: str, found: list[Any], size: int) -> dict[str, Value]:
    """The two numbers of one kind of condition."""
    names = (f"singling_out_{kind}", f"singling_out_{kind}_advantage")
    if any(one is None for one in found):
        return undefined(
            names, f"fewer than {LEAST} {kind} conditions fit exactly one patient"
        )
    return {
        name: in_place([one[i] for one in found], size, nothing)
        for i, (name, nothing) in enumerate(zip(names, (None, 0.0), strict=True))
    }
