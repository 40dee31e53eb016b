"""Fidelity over time: autocorrelation, time warping, transitions [cdmt2026, Table 3].

The paper names these metrics without formulas; the definitions here are ours.
N patients, T steps, D numeric columns; only steps before the end of a stay count.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.blocks import blocks_of
from jaxehr.core.cohort import Dataset, valid_steps
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import (
    GROUPS,
    NO_CODES,
    NO_NUMBERS,
    Distance,
    from_sums,
    generator,
    groups_of,
    nanmean,
    undefined,
)
from jaxehr.metrics.people import as_many
from jaxehr.metrics.views import (
    Coded,
    coded_columns,
    fit_lens,
    numeric_names,
    step_numbers,
    too_few,
)
from jaxehr.training.sharding import compiled_rows

MAX_LAG = 24
BLOCK = 128  # pairs that are warped at once on one device
ONE_STEP = "the time grid has one step only"


def why_not(real: Comparison, steps: int, numeric: bool) -> str:
    """The reason why a temporal metric is not defined, or an empty text."""
    if not real.schema.temporal:
        return "no temporal part"
    if real.schema.num_steps < steps:
        return ONE_STEP
    if numeric and not any(f.is_numeric for f in real.schema.temporal):
        return NO_NUMBERS
    return too_few(*real)


def acf(config: MetricConfig = DEFAULT) -> Metric:
    """Mean squared difference of the mean autocorrelations, lags 1 to min(T-1, 24)."""
    names = {
        "acf_mse": Definition(
            "Autocorrelation error",
            "Squared difference of the autocorrelations, averaged over patients, then "
            "lags up to 24 steps and columns; patients in whom a column does not vary "
            "are left out, and a column that varies in no synthetic patient counts as "
            "the worst there is.",
            "lower",
            0.0,
            "[cdmt2026, Table 3]",
        )
    }

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := why_not(real, 2, True):
            return undefined(names, reason)
        lens, rng = fit_lens(*real), generator(key)
        columns = numeric_names(lens.temporal)
        sets = {}
        for name, data in (even or as_many(rng, real))._asdict().items():
            group = groups_of(rng, data.groups)
            values, seen = autocorrelations(
                step_numbers(lens, data), np.asarray(data.cohort.length)
            )
            sets[name] = [sum_groups(values, group), sum_groups(seen, group)]
        distance = lambda a, b: acf_distance(columns, a, b)
        return from_sums(jax.random.fold_in(key, 1), sets, distance, config.resamples)

    return Metric(run, "temporal", names, takes=("even",))


def autocorrelations(
    x: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Autocorrelations of every row and column with the biased normalisation.

    r_k = sum_{t < n - k} (x_t - m)(x_{t+k} - m) / sum_t (x_t - m)^2, n valid steps.

    Args:
      x: [N, T, D]; length: Int [N].

    Returns:
      (values, seen), both [N, lags, D]; values are 0 where not defined: the row does
      not vary, or the lag is not below the length.
    """
    steps = x.shape[1]
    lags = np.arange(1, min(steps - 1, MAX_LAG) + 1)
    valid = (np.arange(steps)[None, :] < length[:, None])[..., None]
    x = np.where(valid, x.astype(np.float64), 0.0)
    largest = np.abs(x).max(1)
    centred = x - x.sum(1, keepdims=True) / np.maximum(length, 1)[:, None, None]
    centred = np.where(valid, centred, 0.0)
    power = (centred**2).sum(1)  # [N, D]
    varies = power > 1e-12 * np.maximum(largest**2, 1e-12) * length[:, None]
    products = [(centred[:, k:] * centred[:, :-k]).sum(1) for k in lags]
    values = np.stack(products, 1) / np.where(varies, power, 1.0)[:, None]
    seen = varies[:, None, :] & (lags[None, :, None] < length[:, None, None])
    return np.where(seen, values, 0.0), seen.astype(np.float64)


def sum_groups(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums over the patients of each group: [N, ...] -> [GROUPS, ...]."""
    total = np.zeros((GROUPS, *values.shape[1:]))
    np.add.at(total, group, values)
    return total


def acf_distance(columns: list[str], a: list, b: list) -> Distance:
    """From the sums of autocorrelations and of their numbers, both [lags, D].

    Where a column varies within no patient of `a`, its error is the largest that there
    is, for autocorrelations lie in [-1, 1]: left out, it would help.
    """
    with np.errstate(invalid="ignore"):  # NaN where nothing was seen
        ours, real = a[0] / a[1], b[0] / b[1]
    still = (a[1] == 0).all(0)
    error = np.where(still, 1 + np.abs(real), ours - real) ** 2
    by_column = {n: nanmean(e) for n, e in zip(columns, error.T, strict=True)}
    detail = {name: value for name, value in by_column.items() if np.isfinite(value)}
    return Distance({"acf_mse": nanmean(error)}, {"acf_mse": detail})


def dtw(config: MetricConfig = DEFAULT) -> Metric:
    """Dynamic time warping between random pairs, without a window."""
    text = "Mean warped distance of random pairs of a synthetic and a real patient, {}."
    how = {
        "dtw_multivariate": "all numbers together, Euclidean cost at a step",
        "dtw_univariate": "each number by itself, absolute cost, mean over columns",
    }
    # Distances between independent patients are not 0: good data reach the reference.
    names = {
        name: Definition(
            f"Time warping, {name.split('_')[1]}",
            text.format(what) + " The ideal is the reference, not 0.",
            "target",
            None,  # pyright: ignore[reportArgumentType]
            "[sakoe1978]",
        )
        for name, what in how.items()
    }

    def run(key: jax.Array, real: Comparison) -> dict[str, Value]:
        if reason := why_not(real, 1, True):
            return undefined(names, reason)
        if not all((data.cohort.length > 0).any() for data in real):
            return undefined(names, "no patient with a step in one of the data sets")
        lens, rng = fit_lens(*real), generator(key)
        packed = [pick(rng, step_numbers(lens, d), d, config.pairs) for d in real]
        train, holdout, synthetic = packed
        out, columns = {}, numeric_names(lens.temporal)
        value, reference = warp(synthetic, holdout), warp(train, holdout)
        for name in names:
            pairs = value[name]  # [pairs, columns or 1]
            mean = pairs.mean(1)
            spread = 1.96 * pair_error(mean, synthetic.rows, holdout.rows)
            detail = {}
            if name == "dtw_univariate":
                by_column = pairs.mean(0).tolist()
                detail = {"per_feature": dict(zip(columns, by_column, strict=True))}
            centre = float(mean.mean())
            out[name] = Value(
                centre,
                float(reference[name].mean()),
                max(centre - spread, 0.0),
                centre + spread,
                "",
                detail,
            )
        return out

    return Metric(run, "temporal", names)


class Picked(NamedTuple):
    """Random patients with at least one step."""

    x: np.ndarray  # [pairs, T, D]
    length: np.ndarray  # Int [pairs]
    rows: np.ndarray  # Int [pairs]: their places in the data set


def pick(rng: np.random.Generator, x: np.ndarray, data: Dataset, pairs: int) -> Picked:
    length = np.asarray(data.cohort.length)
    chosen = rng.choice(np.flatnonzero(length > 0), pairs)
    return Picked(x[chosen], length[chosen], chosen)


def pair_error(values: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Standard error of the mean over pairs whose patients come again.

    With e the deviations, n^2 var = sum_i (sum of e of patient i)^2 over the patients
    of both sides - sum e^2: pairs that share a patient go together.

    Args:
      values: [n]; one, other: Int [n], the patients of each pair.
    """
    deviation = values - values.mean()
    alone = (deviation**2).sum()
    sums = [(np.bincount(rows, deviation) ** 2).sum() for rows in (one, other)]
    return float(max(sum(sums) - alone, alone)) ** 0.5 / len(values)


def warp(a: Picked, b: Picked) -> dict[str, np.ndarray]:
    """Both kinds of distance of all pairs, [pairs, 1] and [pairs, D]."""
    devices = jax.device_count()
    run, found = warping_program(devices), []
    for rows, kept in blocks_of(len(a.x), BLOCK * devices):
        told = run(a.x[rows], b.x[rows], a.length[rows], b.length[rows])
        found.append([np.asarray(leaf, np.float64)[kept] for leaf in told])
    joint, single = map(np.concatenate, zip(*found, strict=True))
    return {"dtw_multivariate": joint[:, None], "dtw_univariate": single}


@functools.lru_cache(maxsize=4)
def warping_program(devices: int) -> Any:
    """`warping_distances` of a block on each device, compiled."""
    return compiled_rows(warping_distances, devices, copied=0)


def warping_distances(
    x: jax.Array, y: jax.Array, n: jax.Array, m: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Of all columns together [pairs] and of each column by itself [pairs, D]."""
    apart = lambda z: jnp.moveaxis(z, 2, 1)[..., None]  # [pairs, D, T, 1]
    columns = jax.vmap(warping_distance, in_axes=(0, 0, None, None))
    single = jax.vmap(columns)(apart(x), apart(y), n, m)
    return jax.vmap(warping_distance)(x, y, n, m), single


def warping_distance(
    x: jax.Array, y: jax.Array, n: jax.Array, m: jax.Array
) -> jax.Array:
    """Dynamic time warping of x[:n] and y[:m], Euclidean cost, no window [sakoe1978].

    w(i, j) = |x_i - y_j| + min(w(i-1, j), w(i, j-1), w(i-1, j-1)), result w(n-1, m-1).
    One scan over the anti-diagonals k = i + j; a diagonal is computed at once.

    Args:
      x: [T, D]; y: [T, D]; n, m: valid steps, at least 1.
    """
    steps = x.shape[0]
    i = jnp.arange(steps)
    # y reversed between paddings: entry i of the slice at 2 T - 1 - k is y[k - i]
    blank = jnp.zeros((steps, y.shape[1]), y.dtype)
    mirrored = jnp.concatenate([blank, y[::-1], blank])
    infinite = jnp.full(steps, jnp.inf, x.dtype)
    shift = lambda w: jnp.concatenate([infinite[:1], w[:-1]])

    def diagonal(carry: tuple, k: jax.Array) -> tuple[tuple, None]:
        last, before, found = carry  # diagonals k - 1 and k - 2 by i
        other = jax.lax.dynamic_slice_in_dim(mirrored, 2 * steps - 1 - k, steps)
        cost = jnp.sqrt(jnp.sum((x - other) ** 2, -1))
        best = jnp.minimum(jnp.minimum(last, shift(last)), shift(before))
        best = jnp.where((i == 0) & (k == 0), 0.0, best)
        inside = (k - i >= 0) & (k - i < steps)
        now = jnp.where(inside, cost + best, jnp.inf)
        return (now, last, jnp.where(k == n + m - 2, now[n - 1], found)), None

    start = (infinite, infinite, jnp.zeros((), x.dtype))
    return jax.lax.scan(diagonal, start, jnp.arange(2 * steps - 1))[0][2]


def transition(config: MetricConfig = DEFAULT) -> Metric:
    """Differences of the transition matrices of coded columns and masks."""
    text = (
        "Difference of the row-normalised matrices of transitions, {}. A state that no "
        "synthetic patient goes through counts as the worst row there is."
    )
    names = {
        "transition_distance": Definition(
            "Transition distance",
            text.format("Frobenius norm, mean over columns"),
            "lower",
            0.0,
            "[cdmt2026, Table 3]",
        ),
        "transition_mae": Definition(
            "Transition error",
            text.format("mean absolute value of the entries, mean over columns"),
            "lower",
            0.0,
        ),
    }

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := why_not(real, 2, False):
            return undefined(names, reason)
        lens, rng = fit_lens(*real), generator(key)
        sets = {}
        for name, data in (even or as_many(rng, real))._asdict().items():
            cohort, group = data.cohort, groups_of(rng, data.groups)
            table, valid = cohort.temporal, valid_steps(cohort)
            coded = coded_columns(lens.temporal, table, valid)
            sets[name] = {c.name: transitions(c, group) for c in coded}
        if not sets["train"]:
            return undefined(names, NO_CODES)
        key = jax.random.fold_in(key, 1)
        return from_sums(key, sets, transition_error, config.resamples)

    return Metric(run, "temporal", names, takes=("even",))


def transitions(column: Coded, group: np.ndarray) -> np.ndarray:
    """Transitions between seen steps, from row to column: [GROUPS, K, K]."""
    size = column.cardinality
    both = column.seen[:, 1:] & column.seen[:, :-1]
    pair = column.codes[:, :-1] * size + column.codes[:, 1:]
    code = group[:, None] * size**2 + pair
    found = np.bincount(code[both], minlength=GROUPS * size**2)
    return found.reshape(GROUPS, size, size).astype(np.float64)


def transition_error(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> Distance:
    """Over the rows visited in b; a column without such rows is left out.

    A row that is not visited in a counts as the one farthest from that of b, which
    always goes where b goes least: left out, it would help.
    """
    frobenius, absolute = {}, {}
    for name in a:
        visited = b[name].sum(1) > 0
        if visited.any():
            p, q = (s[name][visited] for s in (a, b))
            count, q = p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
            worst = np.eye(q.shape[1])[q.argmin(1)]
            gap = np.where(count > 0, p / np.maximum(count, 1), worst) - q
            frobenius[name] = float(np.sqrt((gap**2).sum()))
            absolute[name] = float(np.abs(gap).mean())
    numbers = {"transition_distance": frobenius, "transition_mae": absolute}
    means = {k: nanmean(list(v.values())) for k, v in numbers.items()}
    return Distance(means, numbers)
