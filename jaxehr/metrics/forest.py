"""A random forest trained on synthetic patients, tested on real ones.

The protocol of [flexgen2024, Table 3]: features [s, mean_t X], the label predicted;
beside it the identical forest trained on real patients, and the difference with its
interval. What a vector holds (filling, scaling) is fitted on the side that trains.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from jaxehr.core.cohort import Dataset
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.pooled import fit_frame, profile, vectors
from jaxehr.metrics.ranking import average_precision, counts_of, roc_area
from jaxehr.metrics.utility import no_label
from jaxehr.metrics.views import too_few

MIN_LEAF = 3
AREAS: dict[str, tuple[Callable[..., np.ndarray], str]] = {
    "auroc": (roc_area, "AUROC"),
    "aupr": (average_precision, "AUPR"),
}


def definitions() -> dict[str, Definition]:
    """Both areas, and how much of each is lost against real training data."""
    forest = "of a random forest on static values and means over time"
    found = {}
    for name, (_, title) in AREAS.items():
        found[f"forest_{name}"] = Definition(
            f"Train on synthetic, forest, {title}",
            f"{title} on real hold-out patients {forest}, trained on synthetic "
            "patients; the reference is trained on real ones.",
            "higher",
            1.0,
            "[flexgen2024, Table 3]",
        )
        found[f"forest_{name}_loss"] = Definition(
            f"Loss of {title} against real training data, forest",
            f"{title} {forest} trained on real patients, less that of the same forest "
            "trained on synthetic ones; paired bootstrap over hold-out patients.",
            "lower",
            0.0,
        )
    return found


def utility_forest(config: MetricConfig = DEFAULT) -> Metric:
    """AUROC and AUPR of a random forest, synthetic against real training data."""
    names = definitions()

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real) or no_label(real):
            return undefined(names, reason)
        rng, chance = generator(key), []
        # One forest a side: between forests of 500 trees there is little difference.
        state = int(rng.integers(0, 2**31 - 1))
        for train in (real.synthetic, real.train):
            side = rows_of(train, real)
            if side.train.shape[1] == 0:
                return undefined(names, "no column that varies")
            label = np.asarray(train.cohort.label)
            classes = real.schema.num_classes
            chance.append(predict(side, label, classes, config.trees, state))
        weight = bootstrap(rng, len(real.holdout.ids), config.resamples)
        return compared_areas(np.asarray(real.holdout.cohort.label), chance, weight)

    return Metric(run, "utility", names, sparse=True)


class Side(NamedTuple):
    """Vectors to learn from and vectors of the hold-out, in one frame."""

    train: np.ndarray  # float32 [N, D]
    test: np.ndarray  # float32 [M, D]


def rows_of(train: Dataset, real: Comparison) -> Side:
    """The vectors of a side; masks stand for what is missing in any data set."""
    learned = profile(train)
    others = [learned if data is train else profile(data) for data in real]
    frame = fit_frame(learned, *others)
    return Side(vectors(frame, learned), vectors(frame, others[1]))


def predict(
    side: Side, label: np.ndarray, classes: int, trees: int, seed: int
) -> np.ndarray:
    """Chances of each class on the hold-out, [M, classes]."""
    model = RandomForestClassifier(
        trees,
        min_samples_leaf=MIN_LEAF,
        max_features="sqrt",
        random_state=seed,
        n_jobs=-1,
    )
    model.fit(side.train, label)
    model.set_params(n_jobs=1)  # threads add up in any order: other last digits
    chance = np.zeros((len(side.test), classes))
    chance[:, np.asarray(model.classes_, int)] = model.predict_proba(side.test)
    return chance


def bootstrap(rng: np.random.Generator, count: int, resamples: int) -> np.ndarray:
    """How often each patient is drawn: [1 + resamples, N]; first, each of them once."""
    drawn = rng.multinomial(count, np.full(count, 1 / count), resamples)
    return np.concatenate([np.ones((1, count)), drawn])


def compared_areas(
    label: np.ndarray, chance: list[np.ndarray], weight: np.ndarray
) -> dict[str, Value]:
    """Values from chances [M, classes] of the synthetic and the real side.

    Intervals are the 2.5 % and 97.5 % quantiles over resampled hold-out patients;
    resamples without one of the classes are left out.
    """
    out = {}
    for name, (area, _) in AREAS.items():
        synthetic, real = (class_mean(area, label, one, weight) for one in chance)
        value, reference = float(synthetic[0]), float(real[0])
        out[f"forest_{name}"] = Value(value, reference, *ends(synthetic[1:]))
        lost = real - synthetic  # [1 + resamples]
        out[f"forest_{name}_loss"] = Value(float(lost[0]), 0.0, *ends(lost[1:]))
    return out


def ends(draws: np.ndarray) -> tuple[float | None, float | None]:
    """The 95 % interval of bootstrap draws; none without a defined draw."""
    draws = draws[np.isfinite(draws)]
    if not draws.size:
        return None, None
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def class_mean(
    area: Callable[..., np.ndarray],
    label: np.ndarray,
    chance: np.ndarray,
    weight: np.ndarray,
) -> np.ndarray:
    """The area for class 1, or the mean over the classes in `label` against the rest.

    Args:
      chance: [M, classes]; weight: [W, M].

    Returns:
      [W].
    """
    chosen = [1] if chance.shape[1] == 2 else np.unique(label)
    each = [area(*counts_of(label == k, chance[:, k], weight)) for k in chosen]
    return np.mean(each, axis=0)
