"""Singling out: a condition read off the synthetic patients that fits one person.

Conditions that fit exactly one synthetic patient are tried on all N training patients
and on M hold-out patients, from whom nothing can leak. If nothing leaks, each of these
N + M people is as likely as any other to be the only one of them whom a condition
fits: N/M times as many conditions single out a training patient as a hold-out patient,
whatever the weights of the conditions. What goes beyond that is leaked.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.adversarial import difference
from jaxehr.metrics.attacks import (
    Interval,
    constant,
    in_place,
    learned_from,
    records,
)
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.membership import clopper_pearson
from jaxehr.metrics.people import People, halves, mixed, numbered, picked
from jaxehr.metrics.views import too_few

TRIES = 4000  # conditions that are drawn
NARROW = 2  # columns more than leave one patient: hardly anybody fits by chance
LEAST = 20  # conditions that fit one synthetic patient
EQUAL, ABOVE, BELOW = 0, 1, 2
KINDS = ("univariate", "multivariate")


class Condition(NamedTuple):
    """All of x[column] (=, >=, <=) value."""

    column: np.ndarray  # Int [c]
    operator: np.ndarray  # Int [c]
    value: np.ndarray  # [c]


def fitting(condition: Condition, rows: np.ndarray) -> np.ndarray:
    """The numbers of the rows [N, D] that fit."""
    found: Any = slice(None)
    for column, operator, value in zip(*condition, strict=True):
        x = rows[:, column][found]
        if operator == EQUAL:
            fits = x == value
        else:
            fits = x >= value if operator == ABOVE else x <= value
        fits = np.flatnonzero(fits)
        found = fits if isinstance(found, slice) else found[fits]
    return found


def who_fits(condition: Condition, people: People) -> np.ndarray:
    """The people, one of whose stays fits."""
    return np.unique(people.person[fitting(condition, people.rows)])


def univariate(
    rng: np.random.Generator, rows: np.ndarray, people: int
) -> list[Condition]:
    """The largest and the smallest value of each column, and values drawn."""
    del people  # how many there are plays no part
    one = lambda *parts: Condition(*(np.asarray([part]) for part in parts))
    found = []
    for column in rng.permutation(rows.shape[1])[: TRIES // 4]:
        found.append(one(column, ABOVE, rows[:, column].max()))
        found.append(one(column, BELOW, rows[:, column].min()))
    while len(found) < TRIES:
        column, row = rng.integers(rows.shape[1]), rng.integers(len(rows))
        found.append(one(column, EQUAL, rows[row, column]))
    return found


def multivariate(
    rng: np.random.Generator, rows: np.ndarray, people: int
) -> list[Condition]:
    """A patient drawn, some columns of it: on its side of the median or beyond.

    Each column keeps a quarter of the patients on average; log_4 N columns leave one
    of N, of the training patients (`people`) if these are more than the rows.
    """
    count = math.ceil(math.log(max(len(rows), people), 4)) + NARROW
    count = min(count, rows.shape[1])
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
            f"{threat} Share that fit a training patient and nobody else of the real "
            "ones, less the share that do so by chance: that of conditions that fit a "
            "hold-out patient and nobody else, times training over hold-out patients.",
            "lower",
            0.0,
            "[giomi2023]",
        )
    return found


class Sides(NamedTuple):
    """The patients conditions are read from, and those they are tried on."""

    seen: np.ndarray
    train: People
    others: People


def rates(
    rng: np.random.Generator, kind: str, sides: Sides
) -> tuple[Interval, Interval] | None:
    """Success on training patients, and what is left of it over chance; None where too
    few conditions fit one patient."""
    draw = univariate if kind == "univariate" else multivariate
    sizes = [np.unique(side.person).size for side in (sides.train, sides.others)]
    drawn = distinct(draw(rng, sides.seen, sizes[0]))
    kept = [c for c in drawn if len(fitting(c, sides.seen)) == 1]
    if len(kept) < LEAST:
        return None
    hits, members, others = 0, [], []  # who fits alone of all real people
    for condition in kept:
        one, other = (who_fits(condition, s) for s in (sides.train, sides.others))
        hits += len(one) == 1
        if len(one) == 1 and not len(other):
            members.append(one[0])
        if len(other) == 1 and not len(one):
            others.append(other[0])
    count, ratio = len(kept), sizes[0] / sizes[1]
    over = difference(share_of(members, count), chance_of(others, count, ratio))
    return Interval(hits / count, *clopper_pearson(hits, count)), over


def together(people: list[int]) -> float:
    """How many conditions go together, for they fit the same person: sum of squares of
    the conditions of each over their sum; 1 if each fits another one."""
    count = np.unique(people, return_counts=True)[1]
    return float((count**2).sum() / count.sum()) if count.size else 1.0


def share_of(people: list[int], count: int) -> Interval:
    """The share of `count` conditions that fit one of `people`, with an interval that
    counts conditions that go together as one."""
    share, alone = len(people) / count, max(round(count / together(people)), 1)
    return Interval(share, *clopper_pearson(round(share * alone), alone))


def chance_of(people: list[int], count: int, ratio: float) -> Interval:
    """The same times `ratio`; the exact interval of a Poisson number."""
    size = together(people)
    hits, unit = len(people) / size, ratio * size / count
    low = stats.chi2.ppf(0.025, 2 * hits) / 2 if hits else 0.0
    high = stats.chi2.ppf(0.975, 2 * hits + 2) / 2
    return Interval(hits * unit, float(low) * unit, float(high) * unit)


def singling_out(config: MetricConfig = DEFAULT) -> Metric:
    """Conditions on one column and on several, tried on training patients."""
    del config  # the conditions are few enough for all patients
    names = definitions()

    def run(
        key: jax.Array, real: Comparison, *, learned: np.ndarray | None = None
    ) -> dict[str, Value]:
        real = learned_from(real, learned)
        if reason := too_few(*real):
            return undefined(names, reason)
        train, holdout, synthetic = records(real)
        varies = np.ptp(train, 0) > 0
        if constant(train):
            return undefined(names, "no column that varies among the real patients")
        rng, found = generator(key), {kind: [] for kind in KINDS}
        train, holdout = (
            People(np.asfortranarray(rows[:, varies]), numbered(data.groups))
            for rows, data in zip((train, holdout), real[:2], strict=True)
        )
        for sides in releases(rng, train, holdout, synthetic[:, varies]):
            for kind in KINDS:
                found[kind].append(rates(rng, kind, sides))
        people, out = np.unique(train.person).size, {}
        for kind in KINDS:
            out |= both(kind, found[kind], people)
        return out

    return Metric(run, "privacy", names, sparse=True, takes=("learned",))


def releases(
    rng: np.random.Generator, train: People, holdout: People, synthetic: np.ndarray
) -> Iterator[Sides]:
    """The synthetic patients, fresh ones, copies: one after the other, for tables are
    large."""
    yield Sides(np.asfortranarray(rng.permutation(synthetic)), train, holdout)
    asked, fresh = halves(rng, holdout.person)
    half = picked(holdout, asked)
    half = half._replace(rows=np.asfortranarray(half.rows))
    yield Sides(np.asfortranarray(holdout.rows[fresh]), train, half)
    # As large a release; that of copies holds all training patients if it can
    size = len(train.rows)
    order = mixed(rng, train.person)[: len(synthetic)]
    copied = np.concatenate([train.rows[order], synthetic[size:]])
    yield Sides(np.asfortranarray(rng.permutation(copied)), train, holdout)


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
