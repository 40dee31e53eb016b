"""Classifier two-sample tests: can a classifier tell synthetic from real patients?

AUC 0.5: it cannot. Real patients are the hold-out, so a model that copies its training
patients gains nothing. [lopezpaz2017]; classifiers as in [cdmt2026, Sec. 5.1], and
gradient boosting [friedman2001], which finds thresholds and interactions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.classifiers import Rows
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.importance import used_most
from jaxehr.metrics.learners import (
    BOOSTING,
    LOGISTIC,
    MOST_COLUMNS,
    Learner,
    network,
)
from jaxehr.metrics.people import cut, mixed
from jaxehr.metrics.ranking import counts_of, roc_area
from jaxehr.metrics.views import Place, fit_lens, flat, flat_places, sequences, too_few

TEST_SHARE = 0.3
View = Callable[[Comparison], tuple[Rows, list[Place]]]


class Jobs(NamedTuple):
    """Rows of the stacked table (train, hold-out, synthetic) that each seed sees."""

    train: np.ndarray  # Int [S, n]
    test: np.ndarray  # Int [S, m]


def two_sample(
    name: str,
    title: str,
    learner: Learner,
    view: View,
    config: MetricConfig,
    explained: bool = False,
    note: str = "",
) -> Metric:
    """AUC over seeds, beside real training patients against the hold-out.

    Args:
      view: the stacked table, and the places of its columns.
      explained: whether the detail says what the classifier used most.
      note: a sentence for the definition.
    """
    names = {name: definition(title, config, note)}

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        (table, places), people = view(real), [data.groups for data in real]
        if table.x.shape[-1] == 0:
            return undefined(names, "no column that varies")
        size = min(map(len, people))
        size = min(size, config.max_rows or size)
        rng, seeds = generator(key), config.seeds
        jobs = draw_jobs(rng, people, size, seeds)
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        keys = fold(jax.random.fold_in(key, 1), np.arange(2 * seeds) % seeds)
        models = learner.fit(config, keys, 2, table, jobs.train)
        chance = learner.chance(2, models, table, jobs.test)[..., 1]
        if not np.isfinite(chance).all():
            return undefined(names, "the classifier diverged")
        drawn = zip(table.label[jobs.test], chance, strict=True)
        areas = [float(roc_area(*counts_of(label, p))) for label, p in drawn]
        detail: dict[str, Any] = {"rows_per_side": size}
        if explained:
            own = jax.tree.map(lambda leaf: leaf[:seeds], models)
            tests = jobs.test[:seeds]
            detail["used_most"] = used_most(
                rng, learner, own, table, tests, places, real.schema
            )
        return {name: over_seeds(areas[:seeds], areas[seeds:], detail)}

    return Metric(run, "discriminability", names)


def definition(title: str, config: MetricConfig, note: str) -> Definition:
    """What a two-sample test says."""
    bound = f" At most {config.max_rows:,} of each." if config.max_rows else ""
    return Definition(
        title,
        "AUC of a classifier that tells synthetic from real hold-out patients, mean "
        f"over seeds; 0.5 = it cannot. Without the label.{bound}{note}",
        "target",
        0.5,
        "[lopezpaz2017]",
    )


def draw_jobs(
    rng: np.random.Generator, people: list[np.ndarray], size: int, seeds: int
) -> Jobs:
    """Synthetic against hold-out for each seed, then training against hold-out."""
    pairs = [draw_pair(rng, people, size) for _ in range(seeds)]
    both = [Jobs(*map(np.stack, zip(*side))) for side in zip(*pairs)]
    return Jobs(*map(np.concatenate, zip(*both)))


def draw_pair(
    rng: np.random.Generator, people: list[np.ndarray], size: int
) -> tuple[Jobs, Jobs]:
    """One seed: `size` patients of each set, 70/30 in each; the hold-out is shared.

    Args:
      people: whose stay each row is, of train, hold-out and synthetic patients.
    """
    starts = np.cumsum([0, *map(len, people)])
    train, holdout, synthetic = (
        deal(rng, person, size, start)
        for person, start in zip(people, starts[:3], strict=True)
    )

    def pair(other: Jobs) -> Jobs:
        learn, test = map(np.concatenate, zip(other, holdout, strict=True))
        return Jobs(rng.permutation(learn), test)

    return pair(synthetic), pair(train)


def deal(rng: np.random.Generator, person: np.ndarray, size: int, start: int) -> Jobs:
    """`size` rows of one set, numbered from `start`; nobody is on both sides.

    A side that gets fewer rows than its share, for people are not cut, has a few twice.
    """
    # Equal synthetic patients may be on both: they are separate draws, and only who has
    # seen the patient whom a collapsed generator draws again and again can tell.
    rows, test = mixed(rng, person), round(TEST_SHARE * size)
    middle = cut(person[rows], round(TEST_SHARE * len(rows)))
    return Jobs(
        start + np.resize(rows[middle:], size - test),
        start + np.resize(rows[:middle], test),
    )


def over_seeds(found: Any, reference: Any, detail: dict[str, Any]) -> Value:
    """Mean AUC over seeds; Student's interval of the mean, at most 1; none of one seed.

    It holds the choice of rows only, not the drawing of the patients themselves.
    """
    detail = detail | {
        "std": float(np.std(found)),
        "std_reference": float(np.std(reference)),
        "per_seed": list(map(float, found)),
        "per_seed_reference": list(map(float, reference)),
    }
    value, floor = float(np.mean(found)), float(np.mean(reference))
    if len(found) == 1:
        return Value(value, floor, detail=detail)
    quantile = float(stats.t.ppf(0.975, len(found) - 1))
    spread = quantile * float(np.std(found, ddof=1)) / len(found) ** 0.5
    low, high = max(value - spread, 0.0), min(value + spread, 1.0)
    return Value(value, floor, low, high, "", detail)


def stack(real: Comparison, x: list[np.ndarray], length: list[np.ndarray]) -> Rows:
    """One table: train, hold-out, synthetic; label 0 = hold-out."""
    label = [np.full(len(d.ids), side, np.int32) for d, side in zip(real, (1, 0, 1))]
    return Rows(*map(np.concatenate, (x, length, label)))


def flat_table(real: Comparison) -> tuple[Rows, list[Place]]:
    """All steps side by side."""
    lens = fit_lens(*real)
    x = [flat(lens, data) for data in real]
    table = stack(real, x, [np.ones(len(part), np.int32) for part in x])
    return table, flat_places(lens)


def sequence_table(real: Comparison) -> tuple[Rows, list[Place]]:
    """Step after step."""
    lens = fit_lens(*real)
    parts = [sequences(lens, data) for data in real]
    return stack(real, [p.x for p in parts], [p.length for p in parts]), []


def c2st_logistic(config: MetricConfig = DEFAULT) -> Metric:
    """Two-sample test by logistic regression on all steps side by side."""
    title = "Two-sample test, logistic"
    return two_sample("c2st_logistic", title, LOGISTIC, flat_table, config, True)


def c2st_boosting(config: MetricConfig = DEFAULT) -> Metric:
    """Two-sample test by gradient boosting on all steps side by side."""
    name, title = "c2st_boosting", "Two-sample test, boosting"
    note = f" Of more than {MOST_COLUMNS:,} columns those whose means differ most."
    return two_sample(name, title, BOOSTING, flat_table, config, True, note)


def c2st_mlp(config: MetricConfig = DEFAULT) -> Metric:
    """Two-sample test by a network 128-64 on all steps side by side."""
    title = "Two-sample test, network"
    return two_sample("c2st_mlp", title, network("mlp"), flat_table, config)


def c2st_lstm(config: MetricConfig = DEFAULT) -> Metric:
    """Two-sample test by an LSTM over the steps."""
    title = "Two-sample test, LSTM"
    return two_sample("c2st_lstm", title, network("lstm"), sequence_table, config)
