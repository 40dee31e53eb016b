"""Classifiers trained on real and synthetic patients together, tested on real ones.

T(S+R)TR [cdmt2026, Table 7]: r % of the real patients, filled up with synthetic ones
to the size of all; and all real patients with 100, 200 and 300 % synthetic ones on top.
Two simple alternatives stand beside each: the real part alone, and all real patients.
Everything fitted, scaling and imputation included, is fitted on those who train.
All make as many optimiser steps as training on all real patients.

Which real patients are kept is drawn once, the smaller parts being within the larger
ones, and all trainings see the same; another key draws other ones.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxehr.core.cohort import Dataset, take
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.resampling import auroc, mean_training, measured, scores, trial
from jaxehr.metrics.utility import (
    Side,
    below,
    networks,
    no_label,
    picks,
    predict_sides,
    see_pooled,
)
from jaxehr.metrics.utility_values import CDMT, ONE_CLASS, Family
from jaxehr.metrics.views import too_few


class Mixture(NamedTuple):
    """Who trains, in percent of the number of real training patients."""

    real: int
    synthetic: int = 0

    @property
    def name(self) -> str:
        return f"augmentation_{self.real}_{self.synthetic}"

    @property
    def title(self) -> str:
        return f"{self.real} % real and {self.synthetic} % synthetic"


ALL = Mixture(100)
MIXTURES = (
    *(Mixture(percent, 100 - percent) for percent in (10, 25, 50)),
    *(Mixture(100, percent) for percent in (100, 200, 300)),
)
WANTED = tuple(dict.fromkeys((ALL, *(Mixture(m.real) for m in MIXTURES), *MIXTURES)))


def augmentation(config: MetricConfig = DEFAULT) -> Metric:
    """T(S+R)TR by three networks over the steps."""
    return augmented(networks(), config)


def augmented(family: Family, config: MetricConfig) -> Metric:
    """T(S+R)TR by a family of classifiers."""
    names = definitions(family, config)
    seeds = family.trainings or config.seeds

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real) or no_label(real):
            return undefined(names, reason)
        key_order, key_rows, key_fit, key_draws = jax.random.split(key, 4)
        found = training_sets(key_order, real, config.max_rows)
        reasons = {m: text for m, text in found.items() if isinstance(text, str)}
        sets = {m: data for m, data in found.items() if not isinstance(data, str)}
        if ALL in reasons:
            return undefined(names, reasons[ALL])
        sides = [side_of(key_rows, family, real, data, seeds) for data in sets.values()]
        if sides[0].train.x.shape[-1] == 0:
            return undefined(names, "no column that varies")
        chances = predict(key_fit, family, real.schema.num_classes, sides, config)
        if not np.isfinite(chances).all():
            return undefined(names, "a classifier diverged")
        held = trial(generator(key_draws), real.holdout, seeds, config.resamples)
        areas = {
            mixture: mean_training(held, scores(auroc, held, chance))
            for mixture, chance in zip(sets, chances, strict=True)
        }
        return values(sets, reasons, areas)

    return Metric(run, "utility", names, sparse=family.view is see_pooled)


def definitions(family: Family, config: MetricConfig) -> dict[str, Definition]:
    """Two numbers a mixture: the area, and what synthetic patients add to it."""
    most = f" At most {config.max_rows:,} real patients, drawn at random."
    bound = most if config.max_rows else ""
    found = {}
    for mixture in MIXTURES:
        kept = "all" if mixture.real == 100 else f"{mixture.real} % of the"
        who = f"{kept} real patients and {mixture.synthetic} % synthetic ones"
        found[mixture.name] = Definition(
            f"Train on {mixture.title}",
            f"AUROC on real hold-out patients of {family.title}, trained on {who} (of "
            f"the number of all); the reference is trained on all real ones.{bound}",
            "higher",
            1.0,
            CDMT,
        )
        found[f"{mixture.name}_gain"] = Definition(
            f"Gain by synthetic patients, {mixture.title}",
            "The same, less the AUROC of training on these real patients alone; the "
            "reference adds the other real ones. Paired bootstrap over hold-out "
            "patients and trainings.",
            "higher",
            0.0,
            CDMT,
        )
    return found


def training_sets(
    key: jax.Array, real: Comparison, most: int
) -> dict[Mixture, Dataset | str]:
    """Who trains, by mixture; or the reason why there are not enough patients."""
    key_real, key_made = jax.random.split(key)
    label = np.asarray(real.train.cohort.label)
    order = in_all_parts(generator(key_real), label)[: most or len(label)]
    drawn = generator(key_made).permutation(len(real.synthetic.ids))
    count = len(order)

    def of(mixture: Mixture) -> Dataset | str:
        kept = round(mixture.real * count / 100)
        added = round((mixture.real + mixture.synthetic) * count / 100) - kept
        if len(np.unique(label[order[:kept]])) < 2:
            return f"one class only in {mixture.real} % of the training data"
        if added > len(drawn):
            return f"{added} synthetic patients are needed, there are {len(drawn)}"
        chosen = take(real.train, order[:kept])
        if not added:
            return chosen
        return below(chosen, take(real.synthetic, drawn[:added]))

    return {mixture: of(mixture) for mixture in WANTED}


def in_all_parts(rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """A random order of patients whose first r % hold about r % of every class."""
    place = np.zeros(len(label))
    for code in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == code))
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")


def side_of(
    key: jax.Array, family: Family, real: Comparison, train: Dataset, seeds: int
) -> Side:
    """All of `train` in another order for each training, and the hold-out."""
    see = family.view(train, *real)
    rows = picks(key, len(train.ids), seeds, 0)
    return Side(see(train), rows, [see(real.holdout)])


def predict(
    key: jax.Array,
    family: Family,
    classes: int,
    sides: list[Side],
    config: MetricConfig,
) -> np.ndarray:
    """Chances of the hold-out [sides, C, S, M, K]; the first side is all real ones."""
    full, found = sides[0].rows.shape[1], []
    for i, learner in enumerate(family.learners.values()):
        key_one = jax.random.fold_in(key, i)
        tested = predict_sides(key_one, learner, classes, sides, config, full)
        found.append([chance for (chance,) in tested])
    return np.asarray(found).swapaxes(0, 1)


def values(
    sets: dict[Mixture, Dataset],
    reasons: dict[Mixture, str],
    areas: dict[Mixture, np.ndarray],
) -> dict[str, Value]:
    """Every number of `definitions` from areas [W]."""
    out, full = {}, areas[ALL]
    for mixture in MIXTURES:
        alone = Mixture(mixture.real)
        names = mixture.name, f"{mixture.name}_gain"
        if reason := reasons.get(alone) or reasons.get(mixture):
            out |= undefined(names, reason)
            continue
        both, kept = areas[mixture], areas[alone]
        count = len(sets[alone].ids)
        detail = {
            "real": count,
            "synthetic": len(sets[mixture].ids) - count,
            "trained_on_these_real": float(kept[0]),
            "trained_on_all_real": float(full[0]),
        }
        out[names[0]] = measured(both, full, ONE_CLASS, detail)
        out[names[1]] = measured(both - kept, full - kept, ONE_CLASS, detail)
    return out
