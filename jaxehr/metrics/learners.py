"""Ways to learn classes from rows: networks, a forest, boosting, logistic regression.

All have one interface, so that utility and two-sample tests differ only in the rows.
S trainings, n and m rows, K classes.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from joblib import parallel_config
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from jaxehr.metrics.classifiers import (
    Rows,
    apply_classifiers,
    cut_validation,
    fit_classifiers,
)
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.fidelity import generator
from jaxehr.metrics.memory import digest, remembered

# It goes on with another solver, as it should; two lines for each would hide the rest.
warnings.filterwarnings("ignore", "The inner solver of NewtonCholeskySolver")
MIN_LEAF = 3
# A quarter of scikit-learn's bins, half of its leaves: a third of the time, as good.
BINS, LEAVES = 63, 15
MOST_COLUMNS = 1500  # that boosting sees


class Learner(NamedTuple):
    """Trains S times on rows of one table, and predicts rows of another."""

    # (config, keys [S], classes, table, rows [S, n]) -> models, arrays with S in front
    fit: Callable[[MetricConfig, jax.Array, int, Rows, np.ndarray], Any]
    # (classes, models, table, rows [S, m]) -> chances [S, m, K]
    chance: Callable[[int, Any, Rows, np.ndarray], np.ndarray]


def network(name: str) -> Learner:
    """A network of `jaxehr.metrics.classifiers`; the best pass on 10 % counts."""

    def fit(
        config: MetricConfig,
        keys: jax.Array,
        classes: int,
        table: Rows,
        rows: np.ndarray,
    ) -> Any:
        epochs = config.mlp_epochs if name == "mlp" else config.epochs

        def learn(chosen: np.ndarray) -> Any:
            cut = cut_validation(rows[chosen])
            asked = keys[chosen], name, classes, table, cut, config, epochs
            return fit_classifiers(*asked)

        every = np.arange(len(rows))
        if not config.remember:
            return learn(every)
        steps = config.batch_size, config.learning_rate, epochs
        names = [
            digest((name, classes, *steps), keys[i], table, rows[i]) for i in every
        ]
        return remembered(config.remember, names, learn)

    def chance(classes: int, models: Any, table: Rows, rows: np.ndarray) -> np.ndarray:
        return apply_classifiers(models, name, classes, table, rows)

    return Learner(fit, chance)


def scikit(build: Callable[[MetricConfig, int, int], Any]) -> Learner:
    """A classifier of scikit-learn; `build` gets the seed and the size of a solution.

    Trees of a forest grow on all cores. Else there is one thread: where cores are
    shared the threads of OpenMP and BLAS wait for each other longer than they work,
    and what several threads add up differs in the last digits.
    """

    def fit(
        config: MetricConfig,
        keys: jax.Array,
        classes: int,
        table: Rows,
        rows: np.ndarray,
    ) -> np.ndarray:
        models = np.empty(len(rows), object)
        size = table.x.shape[1] * (classes if classes > 2 else 1)
        with threadpool_limits(1), parallel_config("threading", n_jobs=-1):
            for i, chosen in enumerate(rows):
                seed = int(generator(keys[i]).integers(0, 2**31 - 1))
                model = build(config, seed, size)
                models[i] = model.fit(table.x[chosen], table.label[chosen])
        return models

    def chance(classes: int, models: Any, table: Rows, rows: np.ndarray) -> np.ndarray:
        out = np.zeros((*rows.shape, classes))
        with threadpool_limits(1):
            for i, chosen in enumerate(rows):
                known = np.asarray(models[i].classes_, int)
                out[i][:, known] = models[i].predict_proba(table.x[chosen])
        return out

    return Learner(fit, chance)


def build_logistic(config: MetricConfig, seed: int, size: int) -> LogisticRegression:
    # Newton needs the matrix of second derivatives: far faster while that is small.
    solver = "newton-cholesky" if size <= 1000 else "lbfgs"
    return LogisticRegression(C=1.0, max_iter=1000, solver=solver)


def build_forest(config: MetricConfig, seed: int, size: int) -> RandomForestClassifier:
    return RandomForestClassifier(
        config.trees, min_samples_leaf=MIN_LEAF, max_features="sqrt", random_state=seed
    )


def build_boosting(config: MetricConfig, seed: int, size: int) -> Any:
    """Of more than `MOST_COLUMNS` columns those whose means differ most."""
    model = HistGradientBoostingClassifier(
        early_stopping=False,  # pyright: ignore[reportArgumentType]
        max_bins=BINS,
        max_leaf_nodes=LEAVES,
        random_state=seed,
    )
    if size <= MOST_COLUMNS:
        return model
    return make_pipeline(SelectKBest(gap_of_means, k=MOST_COLUMNS), model)


def gap_of_means(x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Difference of the means of two classes in standard deviations, [D]."""
    gap = np.abs(x[label == 1].mean(0) - x[label == 0].mean(0))
    return gap / (x.std(0) + 1e-9)


LOGISTIC = scikit(build_logistic)
FOREST = scikit(build_forest)
BOOSTING = scikit(build_boosting)
