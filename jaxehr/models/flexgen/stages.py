"""Several trainings in a row as one: one count of steps, one clock, one folder."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxehr.core.cohort import Cohort, map_patients
from jaxehr.core.contracts import Callback, Objective
from jaxehr.training.config import TrainConfig
from jaxehr.training.loop import Trained, train
from jaxehr.training.steps import TrainState

MODALITIES = ("static", "temporal")
# Of the time that is allowed; an alternating training has many stages turn-k.
SHARES = {"static": 1.0, "temporal": 6.0, "latent": 3.0, "turn": 3.0}
SPENT = 1e-6  # minutes: no time is left


@dataclasses.dataclass
class Stages:
    """Runs the stages of one training; `plan` names them all, with their steps."""

    plan: dict[str, int]
    callbacks: Sequence[Callback] = ()
    checkpoint: str | None = None
    announce: Callable[[str], None] | None = None
    seconds: float = 0.0
    done: tuple[str, ...] = ()

    def run(
        self,
        name: str,
        key: jax.Array,
        objective: Objective,
        data: Any,
        config: TrainConfig,
        *,
        valid: Any | None = None,
        start: TrainState | None = None,
    ) -> Trained:
        """One stage; its steps are those of the plan."""
        ended = self.continued(name)
        minutes = SPENT if ended else self.minutes(name, config)
        config = dataclasses.replace(config, steps=self.plan[name], max_minutes=minutes)
        told = None if ended else self.announce
        trained = train(
            key,
            objective,
            data,
            config=config,
            valid=valid,
            callbacks=[self.callback(name)] if self.callbacks else (),
            checkpoint=f"{self.checkpoint}/{name}" if self.checkpoint else None,
            announce=(lambda text: told(f"{name}: {text}")) if told else None,
            start=start,
        )
        self.seconds += trained.seconds
        self.done = (*self.done, name)
        return trained

    def continued(self, name: str) -> bool:
        """Whether a later stage has a checkpoint, made with what this one ended in.

        More of `max_minutes` then goes to the later ones: were this one to go on, they
        would go on from another model.
        """
        if not self.checkpoint:
            return False
        later = list(self.plan)[list(self.plan).index(name) + 1 :]
        folders = (pathlib.Path(self.checkpoint) / other for other in later)
        found = (path for folder in folders for path in folder.glob("*"))
        return any(path.name.isdigit() for path in found)

    def minutes(self, name: str, config: TrainConfig) -> float:
        """This stage's share of what is left of `max_minutes`; 0 = no limit."""
        if not config.max_minutes:
            return 0.0
        weigh = lambda name: SHARES[name.partition("-")[0]] * (self.plan[name] > 0)
        left = sum(weigh(other) for other in self.plan if other not in self.done)
        rest = max(config.max_minutes - self.seconds / 60.0, SPENT)
        return rest * weigh(name) / max(left, 1e-6)

    def callback(self, name: str) -> Callback:
        """Steps and seconds counted from the start of the first stage."""
        names = list(self.plan)
        place = names.index(name)
        before = sum(self.plan[other] for other in names[:place])
        after = sum(self.plan[other] for other in names[place + 1 :])
        seconds = self.seconds

        def tell(step: int, metrics: dict[str, float]) -> None:
            told = metrics | {
                "stage": float(place),
                "seconds": metrics["seconds"] + seconds,
                "steps_left": metrics["steps_left"] + after,
            }
            for callback in self.callbacks:
                callback(before + step, told)

        return tell


def presence(cohort: Cohort, which: str) -> np.ndarray:
    """Bool [N]: who has the modality."""
    return np.asarray(getattr(cohort, f"has_{which}"))


def rows_of(cohort: Cohort, rows: np.ndarray) -> Cohort:
    """The patients `rows` of a cohort."""
    return map_patients(lambda leaf: np.asarray(leaf)[rows], cohort)
