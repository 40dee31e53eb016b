"""Classifier two-sample tests: can a classifier tell synthetic from real patients?

AUC 0.5: it cannot. Real patients are the hold-out, so a model that copies its training
patients gains nothing. [lopezpaz2017]; classifiers as in [cdmt2026, Sec. 5.1].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.classifiers import Rows, area, cut_validation, fit_classifiers
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.views import fit_lens, flat, sequences, too_few

TEST_SHARE = 0.3


class Jobs(NamedTuple):
    """Rows of the stacked table (train, hold-out, synthetic) that each seed sees."""

    train: np.ndarray  # Int [S, n]
    test: np.ndarray  # Int [S, m]


# (config, key, table, jobs) -> probability of "synthetic" on the test rows [S, m]
Judge = Callable[[MetricConfig, jax.Array, Rows, Jobs], np.ndarray]


def two_sample(name: str, title: str, judge: Judge, view: Any, config: Any) -> Metric:
    """A metric from a judge: AUC over seeds, beside real training against hold-out."""
    names = {
        name: Definition(
            title,
            "AUC of a classifier that tells synthetic from real hold-out patients, "
            "mean over seeds; 0.5 = it cannot. Without the label.",
            "target",
            0.5,
            "[lopezpaz2017]",
        )
    }

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := too_few(*real):
            return undefined(names, reason)
        table, sizes = view(real), [len(data.ids) for data in real]
        if table.x.shape[-1] == 0:
            return undefined(names, "no column that varies")
        size = min(*sizes, *([config.max_rows] if config.max_rows else []))
        rng = generator(key)
        pairs = [draw_pair(rng, sizes, size) for _ in range(config.seeds)]
        # first synthetic against hold-out, then training against hold-out
        both = [Jobs(*map(np.stack, zip(*side))) for side in zip(*pairs)]
        jobs = Jobs(*map(np.concatenate, zip(*both)))
        chance = judge(config, jax.random.fold_in(key, 1), table, jobs)
        if not np.isfinite(chance).all():
            return undefined(names, "the classifier diverged")
        areas = [
            area(table.label[rows], p)
            for rows, p in zip(jobs.test, chance, strict=True)
        ]
        found, reference = areas[: config.seeds], areas[config.seeds :]
        return {name: over_seeds(found, reference, {"rows_per_side": size})}

    return Metric(run, "discriminability", names)


def draw_pair(
    rng: np.random.Generator, sizes: list[int], size: int
) -> tuple[Jobs, Jobs]:
    """One seed: `size` patients of each set, 70/30 in each; the hold-out is shared."""
    starts = np.cumsum([0, *sizes])
    parts = [starts[i] + rng.permutation(sizes[i])[:size] for i in range(3)]
    train, holdout, synthetic = parts
    test = round(TEST_SHARE * size)

    def pair(other: np.ndarray) -> Jobs:
        learn = np.concatenate([other[test:], holdout[test:]])
        return Jobs(
            rng.permutation(learn), np.concatenate([other[:test], holdout[:test]])
        )

    return pair(synthetic), pair(train)


def over_seeds(found: Any, reference: Any, detail: dict[str, Any]) -> Value:
    """Mean AUC over seeds; the interval is that of the mean, in [0, 1]."""
    mean, std = float(np.mean(found)), float(np.std(found))
    spread = 1.96 * std / max(len(found) - 1, 1) ** 0.5
    detail = detail | {
        "std": std,
        "std_reference": float(np.std(reference)),
        "per_seed": list(map(float, found)),
        "per_seed_reference": list(map(float, reference)),
    }
    low, high = max(mean - spread, 0.0), min(mean + spread, 1.0)
    return Value(mean, float(np.mean(reference)), low, high, "", detail)


def stack(real: Comparison, x: list[np.ndarray], length: list[np.ndarray]) -> Rows:
    """One table: train, hold-out, synthetic; label 0 = hold-out."""
    label = [np.full(len(d.ids), side, np.int32) for d, side in zip(real, (1, 0, 1))]
    return Rows(*map(np.concatenate, (x, length, label)))


def flat_table(real: Comparison) -> Rows:
    lens = fit_lens(*real)
    x = [flat(lens, data) for data in real]
    return stack(real, x, [np.ones(len(part), np.int32) for part in x])


def sequence_table(real: Comparison) -> Rows:
    lens = fit_lens(*real)
    parts = [sequences(lens, data) for data in real]
    return stack(real, [p.x for p in parts], [p.length for p in parts])


def logistic_judge(
    config: MetricConfig, key: jax.Array, table: Rows, jobs: Jobs
) -> np.ndarray:
    """scikit-learn's logistic regression, L2 with C = 1."""
    # Newton needs the matrix of second derivatives: far faster while that is small.
    solver = "newton-cholesky" if table.x.shape[1] <= 1000 else "lbfgs"

    def one(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        model = LogisticRegression(C=1.0, max_iter=1000, solver=solver)
        model.fit(table.x[train], table.label[train])
        return model.predict_proba(table.x[test])[:, 1]

    return np.stack([one(*rows) for rows in zip(*jobs, strict=True)])


def neural_judge(name: str) -> Judge:
    """A classifier of `jaxehr.metrics.classifiers`; the best pass on 10 % counts."""

    def judge(
        config: MetricConfig, key: jax.Array, table: Rows, jobs: Jobs
    ) -> np.ndarray:
        epochs = config.mlp_epochs if name == "mlp" else config.epochs
        seeds = jax.vmap(lambda i: jax.random.fold_in(key, i))(
            np.arange(len(jobs.train)) % config.seeds
        )
        chance = fit_classifiers(
            seeds,
            name,
            2,
            table,
            cut_validation(jobs.train),
            tests=(table, jobs.test),
            config=config,
            epochs=epochs,
        )
        return chance[..., 1]

    return judge


def c2st_logistic(config: MetricConfig = DEFAULT) -> Metric:
    """Two-sample test by logistic regression on all steps side by side."""
    title = "Two-sample test, logistic"
    return two_sample("c2st_logistic", title, logistic_judge, flat_table, config)


def c2st_mlp(config: MetricConfig = DEFAULT) -> Metric:
    """Two-sample test by a network 128-64 on all steps side by side."""
    title = "Two-sample test, network"
    return two_sample("c2st_mlp", title, neural_judge("mlp"), flat_table, config)


def c2st_lstm(config: MetricConfig = DEFAULT) -> Metric:
    """Two-sample test by an LSTM over the steps."""
    title = "Two-sample test, LSTM"
    return two_sample("c2st_lstm", title, neural_judge("lstm"), sequence_table, config)
