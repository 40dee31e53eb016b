"""Membership by the losses of the model itself [yeom2018]: who holds the weights asks
how well the model knows a patient.

What training minimised is taken apart by noise level, for a model remembers patients at
levels between "nothing is hidden" and "nothing is left". Which levels tell, the
attacker learns from patients whose membership is known: a third of them for the next
third, in a ring, so that no third is judged by what was learned from itself and the
errors of any two are uncorrelated.

There is no synthetic patient in this attack. Its reference sets one half of the
hold-out against the other; its control is the same kind of model, trained for long on
a few patients, which has to know them.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression

from jaxehr.core.cohort import Cohort, concatenate, map_patients
from jaxehr.core.contracts import (
    Attacked,
    Comparison,
    GenerativeModel,
    Metric,
    Params,
    Scored,
    Value,
)
from jaxehr.metrics.attacks import Interval, all_in_place, definitions, measure
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.people import halfway, mixed
from jaxehr.metrics.views import MIN_PATIENTS, too_few

CONTROL = 64  # patients that the control is trained on
THIRDS = 3
PENALTY = 0.1  # C of scikit-learn's logistic regression
NO_CONTROL = "no control: this kind of model cannot be trained on a few patients"
HOLDS = "the attacker holds the trained model and complete records"


class Pool(NamedTuple):
    """Real patients by what the model did with them; rows of `cohort`."""

    cohort: Cohort  # training patients as in the comparison, then hold-out patients
    learned: np.ndarray  # Int: the model learned from them
    judged: np.ndarray  # Int: they chose its best weights
    held: np.ndarray  # Int: it never saw them; the stays of a person are side by side
    person: np.ndarray  # whose stay each row of `cohort` is


def pool_of(rng: np.random.Generator, real: Comparison, model: Attacked) -> Pool:
    """The training and the hold-out patients of a comparison, in random order."""
    held = len(model.learned) + mixed(rng, real.holdout.groups)
    return Pool(
        concatenate([real.train.cohort, real.holdout.cohort]),
        rng.permutation(np.flatnonzero(model.learned)),
        np.flatnonzero(~model.learned),
        held,
        np.concatenate([real.train.groups, real.holdout.groups]),
    )


def in_two(pool: Pool, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is known of the first of `pool.held` [m, ...], by two halves of people."""
    person = pool.person[pool.held[: len(others)]]
    middle = halfway(person)
    return others[:middle], others[middle:]


def unfit_kind(model: GenerativeModel, *, shadows: bool = False) -> str:
    """Why no model of its kind can be attacked, with shadow models or without; or an
    empty text."""
    if model.losses is None:
        return "this kind of model has no losses of single patients"
    if shadows and model.fit_many is None:
        return "this kind of model cannot train shadow models together; cdmt can"
    return ""


def unfit(real: Comparison, model: Attacked, *, shadows: bool = False) -> str:
    """Why the model cannot be attacked, or an empty text."""
    if reason := unfit_kind(model.model, shadows=shadows):
        return reason
    if model.learned.sum() < MIN_PATIENTS:
        return f"the model learned from fewer than {MIN_PATIENTS} patients"
    return too_few(real.train, real.holdout)


def losses_of(
    key: jax.Array,
    model: Attacked,
    params: Params,
    people: Cohort,
    config: MetricConfig,
) -> np.ndarray:
    """Losses [N, Q] under `params`."""
    assert model.model.losses is not None
    return model.model.losses(
        key,
        params,
        people,
        levels=config.loss_levels,
        repeats=config.loss_repeats,
    )


def rows_of(people: Cohort, rows: np.ndarray) -> Cohort:
    return map_patients(lambda leaf: np.asarray(leaf)[rows], people)


def suspicion(
    rng: np.random.Generator, members: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n], [m] of the losses [n, Q], [m, Q]; higher = "member".

    Logistic regression on one third scores the next one; scores are normal ones of the
    ranks inside a third.
    """
    count = len(members)
    rows, label = np.concatenate([members, others]), np.arange(count + len(others))
    label = label < count
    third = np.concatenate(
        [rng.permutation(len(side)) % THIRDS for side in (members, others)]
    )
    scores = np.zeros(len(rows))
    for known in range(THIRDS):
        asked = third == (known + 1) % THIRDS
        model = LogisticRegression(C=PENALTY, class_weight="balanced")
        model.fit(rows[third == known], label[third == known])
        scores[asked] = normal_scores(model.decision_function(rows[asked]))
    return scores[:count], scores[count:]


def together(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores of the ranks among all, [n, Q] and [m, Q]."""
    found = normal_scores(np.concatenate([members, others]))
    return found[: len(members)], found[len(members) :]


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Of the ranks along the first axis: without units, and alike for models that are
    trained for longer."""
    return stats.norm.ppf(stats.rankdata(values, axis=0) / (len(values) + 1.0))


def control(
    keys: jax.Array, model: Attacked, pool: Pool, config: MetricConfig
) -> tuple[np.ndarray, np.ndarray] | None:
    """Losses of a few patients under a model overfitted on them, and of as many others;
    None = the model cannot be trained so."""
    if model.model.fit_many is None:
        return None
    size = min(len(pool.learned), len(pool.held), CONTROL)
    few, others = pool.learned[:size], pool.held[:size]
    (fitted,) = model.model.fit_many(
        keys[:1], model.params, pool.cohort, few[None], steps=config.control_steps
    )
    asked = rows_of(pool.cohort, np.concatenate([few, others]))
    found = normal_scores(losses_of(keys[1], model, fitted, asked, config))
    return found[:size], found[size:]


def membership_loss(config: MetricConfig = DEFAULT) -> Metric:
    """Membership by the model's own losses of a patient."""
    names = definitions(
        "membership_loss",
        "Membership, losses of the model",
        f"{HOLDS}, knows of some whether they were trained on, and learns from the "
        "losses at every noise level to tell the others. The control is the same "
        "network trained for long on a few patients.",
        "[yeom2018]",
    )

    def run(
        key: jax.Array, real: Comparison, *, model: Attacked, keep: Any = None
    ) -> dict[str, Value]:
        if reason := unfit(real, model):
            return undefined(names, reason)
        keys, rng = jax.random.split(key, 3), generator(key)
        pool = pool_of(rng, real, model)
        count = min(len(pool.learned), config.pooled_rows)
        size = min(count, len(pool.held))
        asked = pool.learned if keep else pool.learned[:count]
        people = rows_of(pool.cohort, np.concatenate([asked, pool.held[:size]]))
        found = losses_of(keys[0], model, model.params, people, config)
        members, others = np.split(found, [len(asked)])
        overfitted = control(keys[1:], model, pool, config)
        few = together(members[:count], others)
        sides = few, in_two(pool, few[1]), overfitted
        scores = [suspicion(rng, *side) for side in sides if side is not None]
        three = [*(compared(rng, *side) for side in scores), None][:3]
        values = all_in_place("membership_loss", three, size)
        if overfitted is None:
            for value in values.values():
                value.detail["control"] = NO_CONTROL
        if keep:  # last, so that no number depends on it
            every = scores[0]
            if len(asked) > count:
                every = suspicion(rng, *together(members, others))
            keep(Scored(asked, *every))
        return values

    return Metric(run, "privacy", names, sparse=True, takes=("model", "keep"))


def compared(
    rng: np.random.Generator, members: np.ndarray, others: np.ndarray
) -> dict[str, Interval]:
    """`measure` of as many members as others, drawn at random."""
    size = min(len(members), len(others))
    return measure(rng, *(rng.permutation(side)[:size] for side in (members, others)))
