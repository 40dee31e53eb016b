"""Membership by the loss of the model itself [yeom2018]: who holds the weights asks
how well the model knows a patient.

There is no synthetic patient in this attack. Its reference sets one half of the
hold-out against the other; its control is the same kind of model, trained for long on
a few patients, which has to know them.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.cohort import Cohort, concatenate, map_patients
from jaxehr.core.contracts import (
    Attacked,
    Comparison,
    Metric,
    Params,
    Scored,
    Value,
)
from jaxehr.metrics.attacks import all_in_place, definitions, measure
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.views import MIN_PATIENTS, too_few

CONTROL = 64  # patients that the control is trained on
NO_CONTROL = "none: this kind of model cannot be trained anew on a few patients"
HOLDS = "the attacker holds the trained model and complete records"


class Pool(NamedTuple):
    """Real patients by what the model did with them; rows of `cohort`."""

    cohort: Cohort  # training patients as in the comparison, then hold-out patients
    learned: np.ndarray  # Int: the model learned from them
    judged: np.ndarray  # Int: they chose its best weights
    held: np.ndarray  # Int: it never saw them


def pool_of(real: Comparison, model: Attacked) -> Pool:
    """The training and the hold-out patients of a comparison."""
    held = len(model.learned) + np.arange(len(real.holdout.ids))
    return Pool(
        concatenate([real.train.cohort, real.holdout.cohort]),
        np.flatnonzero(model.learned),
        np.flatnonzero(~model.learned),
        held,
    )


def unfit(real: Comparison, model: Attacked) -> str:
    """Why the model cannot be attacked, or an empty text."""
    if model.model.loss is None:
        return "this kind of model has no loss of single patients"
    if model.learned.sum() < MIN_PATIENTS:
        return f"the model learned from fewer than {MIN_PATIENTS} patients"
    return too_few(real.train, real.holdout)


def losses(
    key: jax.Array, model: Attacked, params: Params, people: Cohort, draws: int
) -> np.ndarray:
    """The loss of each patient [N] under `params`; lower = better known."""
    assert model.model.loss is not None
    return np.asarray(model.model.loss(key, params, people, draws=draws), float)


def rows_of(people: Cohort, rows: np.ndarray) -> Cohort:
    return map_patients(lambda leaf: np.asarray(leaf)[rows], people)


def halves(
    rng: np.random.Generator, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two random halves, equally large."""
    half = len(scores) // 2
    scores = rng.permutation(scores)
    return scores[:half], scores[half : 2 * half]


def control(
    keys: jax.Array, model: Attacked, pool: Pool, config: MetricConfig
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores of a few patients under a model overfitted on them, and of as many others;
    None = the model cannot be trained so. `pool` is in random order."""
    if model.model.fit_many is None:
        return None
    few, others = pool.learned[:CONTROL], pool.held[:CONTROL]
    size = min(len(few), len(others))
    fitted = model.model.fit_many(
        keys[:1],
        model.params,
        pool.cohort,
        few[None, :size],
        steps=config.control_steps,
    )[0]
    asked = rows_of(pool.cohort, np.concatenate([few[:size], others[:size]]))
    found = losses(keys[1], model, fitted, asked, config.loss_draws)
    return -found[:size], -found[size:]


def membership_loss(config: MetricConfig = DEFAULT) -> Metric:
    """Membership by the model's own loss of a patient."""
    names = definitions(
        "membership_loss",
        "Membership, loss of the model",
        f"{HOLDS}, and calls a record that the model denoises well a training patient. "
        "The control is the same network trained for long on a few patients.",
        "[yeom2018]",
    )

    def run(
        key: jax.Array, real: Comparison, *, model: Attacked, keep: Any = None
    ) -> dict[str, Value]:
        if reason := unfit(real, model):
            return undefined(names, reason)
        keys, rng = jax.random.split(key, 3), generator(key)
        pool = pool_of(real, model)
        pool = pool._replace(
            learned=rng.permutation(pool.learned), held=rng.permutation(pool.held)
        )
        size = min(len(pool.learned), len(pool.held), config.pooled_rows)
        asked = pool.learned if keep else pool.learned[:size]
        people = rows_of(pool.cohort, np.concatenate([asked, pool.held[:size]]))
        found = -losses(keys[0], model, model.params, people, config.loss_draws)
        members, others = found[: len(asked)], found[len(asked) :]
        if keep:
            keep(Scored(asked, members, others))
        overfitted = control(keys[1:], model, pool, config)
        sides = (members[:size], others), halves(rng, others), overfitted
        three = [None if side is None else measure(rng, *side) for side in sides]
        values = all_in_place("membership_loss", three, size)
        if three[-1] is None:
            for value in values.values():
                value.detail["control"] = NO_CONTROL
        return values

    return Metric(run, "privacy", names, sparse=True, takes=("model", "keep"))
