"""Membership by shadow models: the likelihood ratio attack [carlini2022].

S models are trained together, each on a random half of the real patients, so that of
every patient i there are losses l_is of models that learned from i ("in") and of models
that did not ("out"). A model under attack gives the loss l_i; with normal laws of one
variance for all patients,

    score_i = log N(l_i; mean_i,in, v) - log N(l_i; mean_i,out, v).

Losses are centred for each model first. Shadow models come in pairs that share out the
patients; a shadow model is attacked with the other pairs.

N patients, n of them under attack.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.contracts import Attacked, Comparison, Metric, Scored, Value
from jaxehr.metrics.adversarial import proportion
from jaxehr.metrics.attacks import (
    FALSE_ALARMS,
    Interval,
    all_in_place,
    definitions,
    measure,
)
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.model_loss import (
    CONTROL,
    HOLDS,
    Pool,
    halves,
    losses,
    pool_of,
    rows_of,
    unfit,
)
from jaxehr.metrics.ranking import ranks, roc_area

NOT_TOGETHER = "this kind of model cannot train shadow models together; cdmt can"
PREFIXES = ("membership_shadow", "membership_shadow_run")


class Task(NamedTuple):
    """Whom shadow models learn from, and for how long."""

    asked: np.ndarray  # Int [n]: rows of the pool
    person: np.ndarray  # Int [n], from 0; stays of one person are on one side
    judged: np.ndarray | None  # rows of the pool that choose the best weights
    steps: int  # optimiser steps; 0 = those of the model


class Shadows(NamedTuple):
    """What S shadow models say of n patients."""

    losses: np.ndarray  # [S, n]
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
    of = lambda params: losses(key_loss, model, params, people, config.loss_draws)
    return Shadows(np.stack([of(params) for params in fitted]), inside)


def likelihood_ratio(
    found: np.ndarray, inside: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """The score [n] of the losses `target` [n] from shadow losses and sides [S, n]."""
    found = found - found.mean(1, keepdims=True)
    target = target - target.mean()
    means = [
        np.where(side, found, 0.0).sum(0) / np.maximum(side.sum(0), 1)
        for side in (inside, ~inside)
    ]
    left = found - np.where(inside, *means)
    variance = (left**2).sum() / max(left.size - 2 * len(target), 1)
    squares = [(target - mean) ** 2 for mean in means]
    return (squares[1] - squares[0]) / max(2.0 * variance, 1e-300)


def leave_out(shadows: Shadows, other: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores [S, n] of every shadow model as target, and who is called a member.

    The pair of the target is left out. With `other` membership is read off the pair
    that comes so many later, which is left out too: nothing can be learned of it.
    """
    count = len(shadows.losses)
    pair = np.arange(count) // 2
    scores, members = [], []
    for target in range(count):
        partner = (target + 2 * other) % count
        kept = (pair != pair[target]) & (pair != pair[partner])
        scores.append(
            likelihood_ratio(
                shadows.losses[kept], shadows.inside[kept], shadows.losses[target]
            )
        )
        members.append(shadows.inside[partner])
    return np.stack(scores), np.stack(members)


def over_records(
    rng: np.random.Generator,
    scores: np.ndarray,
    members: np.ndarray,
    person: np.ndarray,
    resamples: int,
) -> dict[str, Interval]:
    """The numbers of `attacks.measure` over all models and patients [S, n].

    Intervals from resampled people; that of the TPR is at least the exact one of a
    proportion of patients.
    """
    place, size = ranks(scores.reshape(-1))
    label, people = members.reshape(-1), int(person.max()) + 1

    def numbers(times: np.ndarray) -> np.ndarray:
        weight = np.tile(times[person], len(scores))
        side = lambda chosen: np.bincount(place[chosen], weight[chosen], size)
        return from_counts(side(label), side(~label))

    value = numbers(np.ones(people))
    drawn = [
        numbers(rng.multinomial(people, np.full(people, 1.0 / people)))
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975], 0)
    exact = proportion(float(value[2]), scores.shape[1])
    low[2], high[2] = min(low[2], exact.low), max(high[2], exact.high)
    low, high = np.minimum(low, value), np.maximum(high, value)
    names = ("advantage", "auroc", "tpr")
    triples = zip(value.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: Interval(*one) for name, one in zip(names, triples, strict=True)}


def from_counts(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Advantage, AUROC, TPR at 1 % FPR from counts at each score [R], ascending."""
    hits, alarms = (np.cumsum(side[::-1]) for side in (positive, negative))
    half = np.interp((hits[-1] + alarms[-1]) / 2, hits + alarms, hits)
    rest = (hits[-1] + alarms[-1]) / 2 - half
    allowed = np.searchsorted(alarms, FALSE_ALARMS * alarms[-1], "right")
    surely = hits[allowed - 1] if allowed else 0.0
    return np.array(
        [
            half / hits[-1] - rest / alarms[-1],
            roc_area(positive, negative),
            surely / hits[-1],
        ]
    )


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
        if reason := unfit(real, model):
            return undefined(names, reason)
        if model.model.fit_many is None:
            return undefined(names, NOT_TOGETHER)
        keys, rng = jax.random.split(key, 3), generator(key)
        pool = pool_of(real, model)
        tasks = tasks_of(rng, real, pool, config)
        whole, control = (
            train_shadows(k, model, pool, task, config) for k, task in zip(keys, tasks)
        )
        three = [
            over_records(rng, *leave_out(found, other), task.person, config.resamples)
            for found, other, task in (
                (whole, 0, tasks[0]),
                (whole, 1, tasks[0]),
                (control, 0, tasks[1]),
            )
        ]
        people = rows_of(pool.cohort, tasks[0].asked)
        own = losses(keys[2], model, model.params, people, config.loss_draws)
        scores = likelihood_ratio(whole.losses, whole.inside, own)
        members, others = np.split(scores, [len(pool.learned)])
        if keep:
            keep(Scored(pool.learned, members, others))
        size = min(len(members), len(others), config.pooled_rows)
        sides = [rng.permutation(side)[:size] for side in (members, others)]
        against = [measure(rng, *sides), measure(rng, *halves(rng, others)), three[2]]
        values = all_in_place(PREFIXES[0], three, len(scores))
        return values | all_in_place(PREFIXES[1], against, size)

    return Metric(run, "privacy", names, sparse=True, takes=("model", "keep"))


def tasks_of(
    rng: np.random.Generator, real: Comparison, pool: Pool, config: MetricConfig
) -> tuple[Task, Task]:
    """The attack: all patients that the model learned from or never saw. The control:
    a few, for long."""
    person = np.concatenate([real.train.groups, real.holdout.groups])
    asked = np.concatenate([pool.learned, pool.held])
    few = rng.permutation(pool.learned)[: 2 * CONTROL]
    judged = pool.judged if len(pool.judged) else None
    return (
        Task(asked, numbered(person[asked]), judged, config.shadow_steps),
        Task(few, numbered(person[few]), None, config.control_steps),
    )


def numbered(person: np.ndarray) -> np.ndarray:
    """People as numbers 0, 1, ... in the order they come, whatever their names."""
    first, place = np.unique(person, return_index=True, return_inverse=True)[1:]
    return np.argsort(np.argsort(first))[place.reshape(-1)]
