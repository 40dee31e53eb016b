"""A toy in the place of a generative model, for attacks that look into one."""

import jax
import numpy as np

from jaxehr.core.cohort import Cohort
from jaxehr.core.contracts import Attacked, GenerativeModel

LEVELS = 4


def numbers(people: Cohort) -> np.ndarray:
    """A fingerprint of each patient that no two share."""
    return np.asarray(people.temporal.numeric, float).sum((1, 2))


class Toy:
    """Losses are noise about what a patient is like; patients whom it remembers have
    lower ones, by `memory`, at half of the levels."""

    def __init__(self, memory: float = 0.0, overfits: bool = True):
        self.memory, self.overfits = memory, overfits
        self.trained = []  # (rows, valid, steps) of every call of `fit_many`

    def losses(self, key, params, people, *, levels, repeats):
        known = numbers(people)
        kind = np.random.default_rng(7).normal(size=(2, levels))
        hard = np.sin(known[:, None] * 50 * kind[:1])  # of a patient, for every model
        seed = np.random.default_rng(np.asarray(params["seed"]).tolist())
        noise = np.sin(known[:, None] * 1e3 * (1 + seed.random((1, levels))))
        told = np.isin(known, params["remembered"])[:, None]
        return 3 * hard + noise - params["memory"] * told * (np.arange(levels) % 2)

    def fit_many(self, keys, params, people, rows, *, valid=None, steps=0):
        self.trained.append((rows, valid, steps))
        strength = 3.0 if steps and self.overfits else self.memory
        return [
            {
                "seed": jax.random.key_data(key),
                "remembered": numbers(people)[mine],
                "memory": strength,
            }
            for key, mine in zip(keys, rows, strict=True)
        ]

    def attacked(self, people: Cohort, learned: np.ndarray, together=True) -> Attacked:
        params = {
            "seed": np.array([5, 5]),
            "remembered": numbers(people)[: len(learned)][learned],
            "memory": self.memory,
        }
        nothing = lambda *_, **__: None
        model = GenerativeModel(
            nothing,
            nothing,
            losses=self.losses,
            fit_many=self.fit_many if together else None,
        )
        return Attacked(model, params, learned)
