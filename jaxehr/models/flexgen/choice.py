"""Whether patients whose missing part is imputed train the diffusion, or stay out.

They bring what they have, and a part in which only the map's share of the dependence is
left. What weighs more is measured: a short training with them and one of the complete
patients alone are judged by one loss, that of complete patients held out, in the
coordinates of one whitening. Challenge 2012 A, 1,000 steps, loss on 3,993 patients of B
with nobody missing / all / complete alone: 60 % without temporal part .3441 / .3454 /
.3441, 40 % without each .3440 / .3457 / .3477.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.cohort import Cohort
from jaxehr.diffusion.whitening import Whitening, fit_whitening, no_whitening
from jaxehr.models.flexgen import alignment, latent
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.latent import Latents
from jaxehr.models.flexgen.records import presence
from jaxehr.ot.config import AlignmentConfig
from jaxehr.training.stages import Stages

PILOT = 4  # a pilot takes this part (a quarter) of the steps
FEWEST = 50  # complete patients, to learn from and held out, for a choice


class Choice(NamedTuple):
    """What the diffusion learns from, and how a missing part is drawn meanwhile.

    Attributes:
      rows: of the patients. judged: held out. config: of `alignment.complete`.
      told: for the diagnostics.
    """

    rows: Latents
    judged: Latents | None
    config: AlignmentConfig
    told: dict[str, Any]


def pilots(
    config: FlexgenConfig, cohort: Cohort, valid: Cohort | None
) -> dict[str, int]:
    """The stages of a choice with their steps; none where there is nothing to choose:
    nobody lacks a part, or too few do not."""
    wanted = config.train_on == "chosen" and config.alignment.method != "complete"
    if not wanted or config.order == "alternating" or valid is None:
        return {}
    whole = [whole_of(people) for people in (cohort, valid)]
    if whole[0].all() or min(have.sum() for have in whole) < FEWEST:
        return {}
    steps = max(config.train.steps // PILOT, 1)
    return {"pilot-all": steps, "pilot-complete": steps}


def whole_of(cohort: Cohort) -> np.ndarray:
    """Bool [N]: who has both parts."""
    return presence(cohort, "static") & presence(cohort, "temporal")


def complete_only(rows: Latents) -> Latents:
    """The patients who have both parts."""
    both = np.asarray(rows.has_static) & np.asarray(rows.has_temporal)
    each = rows._replace(common=None)
    return jax.tree.map(lambda leaf: leaf[both], each)._replace(common=rows.common)


def choose(
    stages: Stages,
    config: FlexgenConfig,
    num_classes: int,
    key: jax.Array,
    rows: Latents,
    judged: Latents,
) -> Choice:
    """Trains both pilots and takes the better one's patients.

    Args:
      rows: all patients who have a part. judged: the same of people held out.
    """
    key_white, key_train = jax.random.split(key)
    alone = dataclasses.replace(config.alignment, method="complete")
    whole, held = complete_only(rows), complete_only(judged)
    whitening = whiten(config, alone, key_white, whole)
    losses, whole_runs = {}, True
    for name, people, how in (
        ("all", rows, config.alignment),
        ("complete", whole, alone),
    ):
        stage = f"pilot-{name}"
        every = max(stages.plan[stage] // 10, 1)
        trained = stages.run(
            stage,
            key_train,  # the same noise for both
            objective(config, how, num_classes, whitening),
            people,
            dataclasses.replace(config.train, eval_every=every),
            valid=held,
        )
        losses[name] = float(trained.state.best_loss)
        # Cut short by the time that is allowed, two pilots are no longer comparable.
        whole_runs &= int(trained.state.step) == stages.plan[stage]
    better = whole_runs and losses["complete"] < losses["all"]
    kept = "complete" if better else "all"
    told = {"kept": kept, "loss": losses, "patients": len(held.label)}
    if kept == "all":
        return Choice(rows, judged, config.alignment, told)
    return Choice(whole, held, alone, told)


def objective(
    config: FlexgenConfig, how: AlignmentConfig, classes: int, whitening: Whitening
) -> Any:
    """The diffusion's objective with a missing part drawn as `how` says."""
    draw = functools.partial(alignment.complete, how)
    return latent.objective(config, classes, whitening, draw)


def whiten(
    config: FlexgenConfig, how: AlignmentConfig, key: jax.Array, rows: Latents
) -> Whitening:
    """Whitening of one draw of the completed latents; the identity if not wanted.

    Deviation: the paper's schedule ends at abar = .77 but sampling starts from pure
    noise, which loses the main directions of correlated latents; white ones lose
    nothing. Without `config.whiten` this is as in the paper.
    """
    draw = jax.jit(functools.partial(alignment.complete, how))
    z = draw(key, jax.tree.map(np.asarray, rows))
    return fit_whitening(np.asarray(z)) if config.whiten else no_whitening(z.shape[1])


def left_out(config: FlexgenConfig, diagnostics: dict[str, Any]) -> bool:
    """Whether only complete patients trained the diffusion."""
    chosen = diagnostics.get("training", {}).get("kept", "all")
    return config.alignment.method == "complete" or chosen == "complete"


def in_words(told: dict[str, Any]) -> str:
    """One line for the one who trains."""
    one, both = told["loss"]["complete"], told["loss"]["all"]
    who = "complete patients alone" if told["kept"] == "complete" else "all patients"
    return (
        f"{who} train the diffusion: loss of {told['patients']} complete patients held "
        f"out {one:.4f} without those who lack a part, {both:.4f} with them"
    )
