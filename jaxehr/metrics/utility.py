"""Train on synthetic, test on real (TSTR), beside train on real, test on real (TRTR).

Three classifiers learn the label from the numbers, masks, codes and static columns
[cdmt2026, Sec. 5.1]; the test patients are the real hold-out. Everything fitted,
scaling and imputation included, is fitted on the side that trains.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxehr.core.cohort import Dataset
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.classifiers import (
    Rows,
    area,
    cut_validation,
    fit_classifiers,
    join,
)
from jaxehr.metrics.discriminability import over_seeds
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.views import fit_lens, sequences, too_few

CLASSIFIERS = {
    "bilstm": "bidirectional LSTM",
    "transformer": "Transformer",
    "cnnlstm": "convolutions and LSTM",
}


class Side(NamedTuple):
    """Rows to train on, and the hold-out seen through their lens."""

    table: Rows
    test: Rows


def tstr(config: MetricConfig = DEFAULT) -> Metric:
    """AUC on real hold-out patients of classifiers trained on synthetic ones."""
    text = (
        "AUC on real hold-out patients of a classifier trained on synthetic ones ({}), "
        "mean over seeds; the reference is trained on real ones."
    )
    names = {
        f"tstr_{name}": Definition(
            f"Train on synthetic, {title}",
            text.format(title),
            "higher",
            1.0,
            "[esteban2017]",
        )
        for name, title in CLASSIFIERS.items()
    }
    names["tstr_mean"] = Definition(
        "Train on synthetic, mean",
        text.format("mean of all classifiers"),
        "higher",
        1.0,
        "[esteban2017]",
    )

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real) or no_label(real):
            return undefined(names, reason)
        sides = [side_of(real.synthetic, real), side_of(real.train, real)]
        if sides[0].table.x.shape[-1] == 0:
            return undefined(names, "no column that varies")
        out, classes = {}, real.schema.num_classes
        for i, name in enumerate(CLASSIFIERS):
            key_one = jax.random.fold_in(key, i)
            areas = areas_of(key_one, name, classes, sides, config)
            if not np.isfinite(areas).all():
                return undefined(names, f"the classifier {name} diverged")
            out[f"tstr_{name}"] = over_seeds(areas[0], areas[1], {})
        found = [value.detail for value in out.values()]
        every = [
            [v for detail in found for v in detail[kind]]
            for kind in ("per_seed", "per_seed_reference")
        ]
        out["tstr_mean"] = over_seeds(every[0], every[1], {})
        return out

    return Metric(run, "utility", names)


def no_label(real: Comparison) -> str:
    """The reason why no classifier can be trained or tested, or an empty text."""
    if real.schema.label is None:
        return "no label"
    for name, data in zip(("training", "hold-out", "synthetic"), real, strict=True):
        if len(np.unique(data.cohort.label)) < 2:
            return f"one class only in the {name} data"
    return ""


def side_of(train: Dataset, real: Comparison) -> Side:
    """Rows of `train` and of the hold-out through a lens fitted on `train`."""
    lens = fit_lens(train, *real)
    labelled = lambda data: Rows(*sequences(lens, data), data.cohort.label)
    return Side(labelled(train), labelled(real.holdout))


def areas_of(
    key: jax.Array, name: str, classes: int, sides: list[Side], config: MetricConfig
) -> np.ndarray:
    """AUC [sides, seeds]; every side starts from the same initial weights.

    Sides of one size train in one program, so that the seeds of both fill all devices.
    """
    sizes = [len(side.table.label) for side in sides]
    sizes = [min(size, config.max_rows or size) for size in sizes]
    rng = generator(jax.random.fold_in(key, config.seeds))
    args = (key, rng, name, classes)
    if len(set(sizes)) == 1:
        return train_sides(*args, sides, sizes[0], config)
    each = [
        train_sides(*args, [s], n, config) for s, n in zip(sides, sizes, strict=True)
    ]
    return np.concatenate(each)


def train_sides(
    key: jax.Array,
    rng: np.random.Generator,
    name: str,
    classes: int,
    sides: list[Side],
    size: int,
    config: MetricConfig,
) -> np.ndarray:
    """AUC [sides, seeds]; each seed trains on `size` random patients of its side."""
    seeds = np.tile(np.arange(config.seeds), len(sides))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(seeds)
    rows, tests = [], []
    first = test = 0
    for side in sides:
        count, held = len(side.table.label), len(side.test.label)
        for _ in range(config.seeds):
            rows.append(first + rng.permutation(count)[:size])
            tests.append(test + np.arange(held))
        first, test = first + count, test + held
    chance = fit_classifiers(
        keys,
        name,
        classes,
        join([side.table for side in sides]),
        cut_validation(np.stack(rows)),
        tests=(join([side.test for side in sides]), np.stack(tests)),
        config=config,
        epochs=config.epochs,
    )
    label = sides[0].test.label
    return np.array([area(label, p) for p in chance]).reshape(len(sides), config.seeds)
