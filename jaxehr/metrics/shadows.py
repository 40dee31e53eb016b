"""Membership by shadow models: the likelihood ratio attack [carlini2022].

S models are trained together, each on a random half of the real patients, so that of
every patient i there are losses of models that learned from i ("in") and of models that
did not ("out"). With y a loss and normal laws of one variance v for all patients,

    score_i = log N(y_i; mean_i,in, v) - log N(y_i; mean_i,out, v).

Deviation: y is not the mean loss but the combination of the losses at all noise levels
that tells in from out best among the shadow models [fisher1936]; and as S is small, the
difference of a patient's means is shrunk to that of all patients [james1961].

Shadow models come in pairs that share out the patients; a shadow model is attacked with
the other pairs. N patients, n of them under attack, Q losses of each.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.contracts import Attacked, Comparison, Metric, Scored, Value
from jaxehr.metrics.adversarial import proportion
from jaxehr.metrics.attacks import (
    FALSE_ALARMS,
    NOTHING,
    Interval,
    all_in_place,
    definitions,
)
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.model_loss import (
    CONTROL,
    HOLDS,
    Pool,
    compared,
    in_two,
    losses_of,
    normal_scores,
    pool_of,
    rows_of,
    unfit,
)
from jaxehr.metrics.people import numbered
from jaxehr.metrics.ranking import counts_of, roc_area

RIDGE = 1e-3  # added to the covariance of the losses, of its mean variance
PREFIXES = ("membership_shadow", "membership_shadow_run")


class Task(NamedTuple):
    """Whom shadow models learn from, and for how long."""

    asked: np.ndarray  # Int [n]: rows of the pool
    person: np.ndarray  # Int [n], from 0; stays of one person are on one side
    judged: np.ndarray | None  # rows of the pool that choose the best weights
    steps: int  # optimiser steps; 0 = those of the model


class Shadows(NamedTuple):
    """What S shadow models say of n patients."""

    losses: np.ndarray  # [S, n, Q], normal scores inside a model
    inside: np.ndarray  # Bool [S, n]: who was learned from


def deal(rng: np.random.Generator, person: np.ndarray, shadows: int) -> np.ndarray:
    """Bool [S, n]: half of the people for each even shadow model, the rest for the
    next one; so everyone is inside half of them."""
    people = person.max() + 1
    inside = []
    for _ in range(shadows // 2):
        chosen = (rng.permutation(people) < people // 2)[person]
        inside += [chosen, ~chosen]
    return np.stack(inside)


def rows_inside(inside: np.ndarray) -> np.ndarray:
    """Int [S, m]: numbers of the patients inside; a few twice where it is fewer."""
    size = int(inside.sum(1).max())
    return np.stack([np.resize(np.flatnonzero(row), size) for row in inside])


def train_shadows(
    key: jax.Array, model: Attacked, pool: Pool, task: Task, config: MetricConfig
) -> Shadows:
    """Trains all of them in one program, and asks each about every patient."""
    assert model.model.fit_many is not None
    key_fit, key_deal, key_loss = jax.random.split(key, 3)
    inside = deal(generator(key_deal), task.person, config.shadows)
    fitted = model.model.fit_many(
        jax.random.split(key_fit, config.shadows),
        model.params,
        pool.cohort,
        task.asked[rows_inside(inside)],
        valid=task.judged,
        steps=task.steps,
    )
    people = rows_of(pool.cohort, task.asked)
    found = [losses_of(key_loss, model, params, people, config) for params in fitted]
    return Shadows(np.stack([normal_scores(losses) for losses in found]), inside)


class Fit(NamedTuple):
    """What pairs of shadow models say of n patients."""

    weight: np.ndarray  # [Q]: y = losses @ weight
    middle: np.ndarray  # [n]: between the mean inside and the mean outside
    gap: np.ndarray  # [n]: mean inside less mean outside, shrunk
    variance: float


def fit_pairs(shadows: Shadows) -> Fit:
    """Normal laws of y inside and outside for every patient."""
    weight = fisher(shadows)
    y, count = shadows.losses @ weight, len(shadows.losses) / 2
    (a, b), left = sides_of(y, shadows.inside)
    variance = max((left**2).sum() / ((2 * count - 2) * y.shape[1]), 1e-300)
    gap = a - b
    noise = variance * 2 / count  # of a gap, beside what patients differ by
    kept = max(1.0 - noise / max(gap.var(), 1e-300), 0.0)
    return Fit(weight, (a + b) / 2, gap.mean() + kept * (gap - gap.mean()), variance)


def likelihood_ratio(fit: Fit, losses: np.ndarray) -> np.ndarray:
    """Scores [n] of the losses [n, Q] of a model under attack."""
    return fit.gap * (losses @ fit.weight - fit.middle) / fit.variance


def sides_of(
    found: np.ndarray, inside: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Means [n, ...] over the models inside and outside, and what they leave."""
    side = inside.reshape(inside.shape + (1,) * (found.ndim - 2))
    a, b = ((found * w).sum(0) / w.sum(0) for w in (side, ~side))
    return (a, b), found - np.where(side, a, b)


def fisher(shadows: Shadows) -> np.ndarray:
    """C^-1 (mean in - mean out) [Q]; C is the covariance that both leave."""
    (a, b), left = sides_of(*shadows)
    width = left.shape[-1]
    flat, models = left.reshape(-1, width), len(left)
    covariance = flat.T @ flat / (len(flat) * (models - 2) / models)
    ridge = RIDGE * max(np.trace(covariance) / width, 1e-300) * np.eye(width)
    return np.linalg.solve(covariance + ridge, (a - b).mean(0))


def leave_out(shadows: Shadows, other: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores [S, n] of every shadow model as target, and who is called a member.

    The pair of the target is left out. With `other` membership is read off the pair
    that comes so many later, which is left out too: nothing can be learned of it.
    """
    pairs = len(shadows.losses) // 2
    pair = np.arange(2 * pairs) // 2
    scores, members = [], []
    for target in range(pairs):
        partner = (target + other) % pairs
        kept = (pair != target) & (pair != partner)
        fit = fit_pairs(Shadows(shadows.losses[kept], shadows.inside[kept]))
        for side in range(2):
            losses = shadows.losses[2 * target + side]
            scores.append(likelihood_ratio(fit, losses))
            members.append(shadows.inside[2 * partner + side])
    return np.stack(scores), np.stack(members)


def over_records(
    rng: np.random.Generator,
    shadows: Shadows,
    person: np.ndarray,
    resamples: int,
    other: int = 0,
) -> dict[str, Interval]:
    """The numbers of `attacks.measure` over all models and patients.

    The whole attack is repeated on resampled people, for its weights are learned from
    them; the interval of the TPR is at least the exact one of a share of patients.
    """
    people, count = int(person.max()) + 1, len(person)

    def numbers(rows: np.ndarray) -> np.ndarray:
        drawn = Shadows(shadows.losses[:, rows], shadows.inside[:, rows])
        scores, members = leave_out(drawn, other)
        return from_counts(*counts_of(members.reshape(-1), scores.reshape(-1)))

    def resampled() -> np.ndarray:
        times = rng.multinomial(people, np.full(people, 1.0 / people))
        return np.repeat(np.arange(count), times[person])

    value = numbers(np.arange(count))
    drawn = [numbers(resampled()) for _ in range(resamples)]
    low, high = np.quantile([value, *drawn], [0.025, 0.975], 0)
    exact = proportion(float(value[2]), count)
    low[2], high[2] = min(low[2], exact.low), max(high[2], exact.high)
    low, high = np.minimum(low, value), np.maximum(high, value)
    triples = zip(value.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: Interval(*one) for name, one in zip(NOTHING, triples, strict=True)}


def from_counts(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Advantage, AUROC, TPR at 1 % FPR from counts at each score [R], ascending."""
    falling = [np.append(0.0, side[::-1]) for side in (positive, negative)]
    hits, alarms = np.cumsum(falling, -1)  # [R + 1]
    called = (hits[-1] + alarms[-1]) / 2
    half = np.interp(called, hits + alarms, hits)
    advantage = half / hits[-1] - (called - half) / alarms[-1]
    allowed = np.searchsorted(alarms, FALSE_ALARMS * alarms[-1], "right")
    surely = hits[allowed - 1] / hits[-1]
    return np.array([advantage, roc_area(positive, negative), surely])


def shadow_definitions() -> dict:
    threat = (
        f"{HOLDS}, knows how the model was trained, trains shadow models on records of "
        "the same population with and without each record, and compares the model's "
        "loss with both. The control: the same attack on networks trained for long on "
        "a few patients. "
    )
    source = "[carlini2022]"
    return definitions(
        PREFIXES[0],
        "Membership, shadow models",
        f"{threat}Every shadow model is attacked with the others.",
        source,
    ) | definitions(
        PREFIXES[1],
        "Membership, shadow models against the model",
        f"{threat}The model itself is attacked.",
        source,
    )


def membership_shadow(config: MetricConfig = DEFAULT) -> Metric:
    """Membership by shadow models; trains `config.shadows` of them, twice."""
    names = shadow_definitions()

    def run(
        key: jax.Array, real: Comparison, *, model: Attacked, keep: Any = None
    ) -> dict[str, Value]:
        if reason := unfit(real, model, shadows=True):
            return undefined(names, reason)
        keys, rng = jax.random.split(key, 3), generator(key)
        pool = pool_of(rng, real, model)
        tasks = tasks_of(pool, config)
        whole, control = (
            train_shadows(k, model, pool, task, config) for k, task in zip(keys, tasks)
        )
        if not all(np.isfinite(found.losses).all() for found in (whole, control)):
            return undefined(names, "a shadow model diverged")
        three = [
            over_records(rng, found, task.person, config.resamples, other)
            for found, other, task in (
                (whole, 0, tasks[0]),
                (whole, 1, tasks[0]),
                (control, 0, tasks[1]),
            )
        ]
        people = rows_of(pool.cohort, tasks[0].asked)
        own = losses_of(keys[2], model, model.params, people, config)
        scores = likelihood_ratio(fit_pairs(whole), normal_scores(own))
        members, others = np.split(scores, [len(pool.learned)])
        if keep:
            keep(Scored(pool.learned, members, others))
        sides = (members, others), in_two(pool, others)
        against = [compared(rng, *side) for side in sides]
        values = all_in_place(PREFIXES[0], three, len(scores))
        size = min(len(members), len(others))
        return values | all_in_place(PREFIXES[1], [*against, three[2]], size)

    return Metric(run, "privacy", names, sparse=True, takes=("model", "keep"))


def tasks_of(pool: Pool, config: MetricConfig) -> tuple[Task, Task]:
    """The attack: all patients that the model learned from or never saw. The control:
    a few, for long."""
    asked = np.concatenate([pool.learned, pool.held])
    few = pool.learned[: 2 * CONTROL]
    judged = pool.judged if len(pool.judged) else None
    return (
        Task(asked, numbered(pool.person[asked]), judged, config.shadow_steps),
        Task(few, numbered(pool.person[few]), None, config.control_steps),
    )
