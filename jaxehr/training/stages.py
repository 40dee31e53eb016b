"""Several trainings in a row as one: one count of steps, one clock, one folder."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxehr.core.contracts import Callback, Objective
from jaxehr.training.config import TrainConfig
from jaxehr.training.loop import Trained, train
from jaxehr.training.sharding import agreed, leads
from jaxehr.training.steps import TrainState

SPENT = 1e-6  # minutes: no time is left


@dataclasses.dataclass
class Stages:
    """Runs the stages of one training.

    Attributes:
      plan: all of them in order, with their steps.
      shares: of the time that is allowed, by name up to a hyphen ("turn" of "turn-3");
        a stage that is not named has a share of 1.
    """

    plan: dict[str, int]
    callbacks: Sequence[Callback] = ()
    checkpoint: str | None = None
    announce: Callable[[str], None] | None = None
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
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
        would go on from another model. Process 0 of a job looks for all of them.
        """
        if not self.checkpoint:
            return False
        later = list(self.plan)[list(self.plan).index(name) + 1 :]
        folders = (pathlib.Path(self.checkpoint) / other for other in later)
        found = (path for folder in folders for path in folder.glob("*"))
        here = leads() and any(path.name.isdigit() for path in found)
        return bool(agreed(here)[0])

    def minutes(self, name: str, config: TrainConfig) -> float:
        """This stage's share of what is left of `max_minutes`; 0 = no limit."""
        if not config.max_minutes:
            return 0.0
        share = lambda name: self.shares.get(name.partition("-")[0], 1.0)
        weigh = lambda name: share(name) * (self.plan[name] > 0)
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
