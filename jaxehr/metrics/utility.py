"""Train on synthetic, test on real (TSTR), beside train on real, test on real (TRTR).

Classifiers learn the label: three networks [cdmt2026, Sec. 5.1], a random forest
[flexgen2024, Table 3] and a logistic regression [fiddle2020]. Each is trained once on
synthetic and once on real patients, and one of a family on both, all by as many steps;
every number follows from what these models predict of real hold-out and of synthetic
patients. Everything fitted, scaling and imputation included, is fitted on the side that
trains.
S trainings, n rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxehr.core.cohort import Dataset, concatenate, take
from jaxehr.core.contracts import Comparison, Metric, Value
from jaxehr.metrics.classifiers import Rows, join, with_steps_of
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.learners import FOREST, LOGISTIC, Learner, network
from jaxehr.metrics.pooled import fit_frame, profile, vectors
from jaxehr.metrics.resampling import aupr, auroc, trial
from jaxehr.metrics.subgroups import groups_of_patients
from jaxehr.metrics.utility_values import (
    Area,
    Family,
    Judged,
    Predicted,
    definitions,
    values,
)
from jaxehr.metrics.views import fit_lens, sequences, too_few

See = Callable[[Dataset], Rows]


class Side(NamedTuple):
    """Patients to learn from, those of each training, and patients to predict."""

    train: Rows
    rows: np.ndarray  # Int [S, n]
    tests: list[Rows]


def tstr(config: MetricConfig = DEFAULT) -> Metric:
    """Utility by three networks over the steps."""
    return utility(networks(), config)


def utility_forest(config: MetricConfig = DEFAULT) -> Metric:
    """Utility by a random forest on pooled patients."""
    return utility(pooled_family("forest", "random forest", FOREST), config)


def utility_logistic(config: MetricConfig = DEFAULT) -> Metric:
    """Utility by a logistic regression on pooled patients."""
    return utility(pooled_family("logistic", "logistic regression", LOGISTIC), config)


def networks() -> Family:
    """Three networks and their mean."""
    titles = {
        "bilstm": "bidirectional LSTM",
        "transformer": "Transformer",
        "cnnlstm": "convolutions and LSTM",
    }
    areas = {
        f"tstr_{name}": Area(auroc, [i], title, f"a network ({title})")
        for i, (name, title) in enumerate(titles.items())
    }
    what = "three networks (mean)"
    areas["tstr_mean"] = Area(auroc, [0, 1, 2], "mean of networks", what)
    learners = {name: network(name) for name in titles}
    return Family("neural", what, learners, see_sequences, areas, 2)


def pooled_family(name: str, title: str, learner: Learner) -> Family:
    """One classifier of vectors [s, mean_t X]."""
    what = f"a {title} on static values and means over time"
    areas = {
        f"{name}_auroc": Area(auroc, [0], f"{name}, AUROC", what),
        f"{name}_aupr": Area(aupr, [0], f"{name}, AUPR", what),
    }
    # With all patients every training is the same, or nearly so for many trees.
    return Family(name, what, {name: learner}, see_pooled, areas, 0, trainings=1)


def see_sequences(train: Dataset, *every: Dataset) -> See:
    """Steps through a lens fitted on `train`."""
    lens = fit_lens(train, *every)
    return lambda data: Rows(*sequences(lens, data), data.cohort.label)


def see_pooled(train: Dataset, *every: Dataset) -> See:
    """Vectors in a frame fitted on `train`; masks stand for what any data set lacks."""
    frame = fit_frame(profile(train), *map(profile, every))

    def see(data: Dataset) -> Rows:
        x = vectors(frame, profile(data))
        return Rows(x, np.ones(len(x), np.int32), data.cohort.label)

    return see


def utility(family: Family, config: MetricConfig) -> Metric:
    """All numbers of a family of classifiers."""
    names = definitions(family, config)

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real) or no_label(real):
            return undefined(names, reason)
        key_rows, key_fit, key_draws = jax.random.split(key, 3)
        seeds = family.trainings or config.seeds
        rows = [picks(key_rows, len(data.ids), seeds, config.max_rows) for data in real]
        made = take(real.synthetic, rows[2][0])
        sides = sides_of(key_rows, family, real, made, rows, config.augment)
        if sides[0].train.x.shape[-1] == 0:
            return undefined(names, "no column that varies")
        predicted = predict(key_fit, family, real.schema.num_classes, sides, config)
        if not all(np.isfinite(chance).all() for chance in predicted):
            return undefined(names, "a classifier diverged")
        rng = generator(key_draws)
        held = trial(rng, real.holdout, seeds, config.resamples)
        tried = trial(rng, made, seeds, len(held.patients) - 1)
        drawn = held.trainings[: len(tried.patients)]
        tried = tried._replace(trainings=drawn)
        groups = groups_of_patients(*real)
        used = rows[0].shape[1]
        trained = sides[-1].rows.shape[1]  # on both, if any classifier is
        added = {"real": used, "synthetic": trained - used}
        judged = Judged(predicted, held, tried, groups, added)
        return values(family, config, judged)

    return Metric(run, "utility", names, sparse=family.view is see_pooled)


def no_label(real: Comparison) -> str:
    """The reason why no classifier can be trained or tested, or an empty text."""
    if real.schema.label is None:
        return "no label"
    for name, data in zip(("training", "hold-out", "synthetic"), real, strict=True):
        if len(np.unique(data.cohort.label)) < 2:
            return f"one class only in the {name} data"
    return ""


def picks(key: jax.Array, count: int, trainings: int, most: int) -> np.ndarray:
    """Rows of each training in random order, at most `most` (0 = all): Int [S, n].

    Data sets of one size give the same rows, so that a copy gives the same numbers.
    """
    each = [generator(jax.random.fold_in(key, i)) for i in range(trainings)]
    return np.stack([rng.permutation(count)[: most or count] for rng in each])


def sides_of(
    key: jax.Array,
    family: Family,
    real: Comparison,
    made: Dataset,
    rows: list[np.ndarray],
    share: float,
) -> list[Side]:
    """Training on synthetic patients, on real ones, and on both if `share` is not 0.

    Args:
      made: synthetic patients to test on.
      rows: of each training, in each data set.
      share: synthetic patients for each real one in training on both.
    """
    trained, _, drawn = rows
    more = len(real.train.ids) + drawn[:, : round(share * trained.shape[1])]
    rng = generator(jax.random.fold_in(key, len(trained)))
    both = rng.permuted(np.concatenate([trained, more], 1), axis=1)

    def side(train: Dataset, rows: np.ndarray, *tests: Dataset) -> Side:
        see = family.view(train, *real)
        return Side(see(train), rows, [see(data) for data in tests])

    sides = [
        side(real.synthetic, drawn, real.holdout),
        side(real.train, trained, real.holdout, made),
    ]
    if share:
        sides.append(side(below(real.train, real.synthetic), both, real.holdout))
    return sides


def below(first: Dataset, second: Dataset) -> Dataset:
    """The patients of both."""
    cohort = concatenate([first.cohort, second.cohort])
    join = lambda a, b: np.concatenate([np.asarray(a, str), np.asarray(b, str)])
    ids, groups = join(first.ids, second.ids), join(first.groups, second.groups)
    return first._replace(cohort=cohort, ids=ids, groups=groups)


def predict(
    key: jax.Array,
    family: Family,
    classes: int,
    sides: list[Side],
    config: MetricConfig,
) -> Predicted:
    """Trains every classifier on each side once; all predictions of interest."""
    found = []
    for i, learner in enumerate(family.learners.values()):
        chosen = sides if i == family.augmented else sides[:2]
        key_one = jax.random.fold_in(key, i)
        full = sides[1].rows.shape[1]
        found.append(predict_sides(key_one, learner, classes, chosen, config, full))
    stack = lambda side, test: np.stack([each[side][test] for each in found])
    both = [chances[0] for chances in found[family.augmented][2:]]
    return Predicted(stack(0, 0), stack(1, 0), stack(1, 1), np.asarray(both))


def predict_sides(
    key: jax.Array,
    learner: Learner,
    classes: int,
    sides: list[Side],
    config: MetricConfig,
    full: int,
) -> list[list[np.ndarray]]:
    """Chances [S, M, K] by side and test; every side starts from the same keys.

    Sides of one size train in one program, so that the seeds of both fill all devices.
    All make as many optimiser steps as `config` says for `full` patients.
    """
    seeds, sizes = len(sides[0].rows), [side.rows.shape[1] for side in sides]
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(seeds))
    found: list[list[np.ndarray]] = [[] for _ in sides]
    for size in sorted(set(sizes)):
        alike = [i for i, own in enumerate(sizes) if own == size]
        table = join([sides[i].train for i in alike])
        first = np.cumsum([0, *(len(sides[i].train.label) for i in alike)])
        rows = [sides[i].rows + start for i, start in zip(alike, first)]
        each = keys[np.arange(seeds * len(alike)) % seeds]
        equal = with_steps_of(config, full, size)
        models = learner.fit(equal, each, classes, table, np.concatenate(rows))
        for place, i in enumerate(alike):
            part = slice(place * seeds, (place + 1) * seeds)
            own = jax.tree.map(lambda leaf, part=part: leaf[part], models)
            for test in sides[i].tests:
                every = np.tile(np.arange(len(test.label)), (seeds, 1))
                found[i].append(learner.chance(classes, own, test, every))
    return found
