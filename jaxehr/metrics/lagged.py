"""How numbers follow one another: correlations of one with another some steps later.

The definition is ours. D numeric temporal columns, imputed and standardised as for the
correlation error.
"""

import jax
import numpy as np

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import (
    Distance,
    correlation_error,
    from_sums,
    generator,
    groups_of,
    moments,
    nanmean,
    undefined,
)
from jaxehr.metrics.people import as_many
from jaxehr.metrics.temporal import why_not
from jaxehr.metrics.views import fit_lens, numeric_names, step_numbers

LAGS = (1, 3, 6)  # steps


def lag_correlation(config: MetricConfig = DEFAULT) -> Metric:
    """Mean absolute difference of corr(x_i(t), x_j(t + k)) over i, j and lags k."""
    name = "lag_correlation_mae"
    lags = ", ".join(map(str, LAGS[:-1])) + f" and {LAGS[-1]}"
    definition = Definition(
        "Lagged correlation error",
        "Mean absolute difference of the correlations of a number with each number "
        f"(itself included) {lags} steps later, over all valid steps.",
        "lower",
        0.0,
    )

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := why_not(real, 2, True):
            return undefined([name], reason)
        lens, rng, sets = fit_lens(*real), generator(key), {}
        columns = numeric_names(lens.temporal)
        for side, data in (even or as_many(rng, real))._asdict().items():
            x, length = step_numbers(lens, data), np.asarray(data.cohort.length)
            sets[side] = lagged(x, length, groups_of(rng, data.groups))
        distance = lambda a, b: lag_distance(name, columns, a, b)
        return from_sums(jax.random.fold_in(key, 1), sets, distance, config.resamples)

    # Without a numeric column, as in a sparse table, no table is looked at.
    return Metric(run, "temporal", {name: definition}, sparse=True, takes=("even",))


def lagged(
    x: np.ndarray, length: np.ndarray, group: np.ndarray
) -> dict[str, np.ndarray]:
    """Lag -> moments [GROUPS, 1 + 2 D, 1 + 2 D] of (x_t, x_{t+k}), both steps valid.

    Args:
      x: [N, T, D]; length: Int [N]; group: Int [N].
    """
    steps = x.shape[1]
    sums = {}
    for lag in (lag for lag in LAGS if lag < steps):
        both = np.concatenate([x[:, :-lag], x[:, lag:]], -1)
        valid = np.arange(lag, steps)[None, :] < length[:, None]
        sums[str(lag)] = moments(both, valid, group)
    return sums


def lag_distance(
    name: str, columns: list[str], a: dict[str, np.ndarray], b: dict[str, np.ndarray]
) -> Distance:
    """Over the pairs that vary on the real side b; by the earlier column in detail."""
    count = len(columns)
    errors = [correlation_error(a[lag], b[lag])[:count, count:] for lag in a]
    error = np.stack(errors)  # [lags, earlier, later]
    rows = {c: nanmean(error[:, i]) for i, c in enumerate(columns)}
    detail = {column: value for column, value in rows.items() if np.isfinite(value)}
    return Distance({name: nanmean(error)}, {name: detail})
