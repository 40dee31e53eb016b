"""How long and when: lengths of stay, runs of a state, first occurrence of an event.

Definitions are ours: largest differences of cumulative shares, between 0 and 1. Coded
columns and the patterns of missing values count, as in total variation. N patients, T
steps, K values.
"""

from collections.abc import Callable

import jax
import numpy as np

from jaxehr.core.cohort import valid_steps
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import (
    GROUPS,
    NO_CODES,
    Distance,
    from_sums,
    generator,
    groups_of,
    nanmean,
    undefined,
)
from jaxehr.metrics.marginals import by_column, largest_gap, shares
from jaxehr.metrics.people import as_many
from jaxehr.metrics.temporal import why_not
from jaxehr.metrics.views import Coded, coded_columns, fit_lens, too_few

Count = Callable[[Coded, np.ndarray], np.ndarray]


def length_of_stay(config: MetricConfig = DEFAULT) -> Metric:
    """Area between the distributions of the lengths of stay, in steps."""
    name = "length_error"
    definition = Definition(
        "Length of stay error",
        "How far lengths of stay must be moved on average, in time steps (Wasserstein "
        "distance).",
        "lower",
        0.0,
        "[vallender1974]",
    )

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if not real.schema.temporal:
            return undefined([name], "no temporal part")
        if reason := too_few(*real):
            return undefined([name], reason)
        steps, rng, sets = real.schema.num_steps, generator(key), {}
        if all((np.asarray(d.cohort.length) == steps).all() for d in real):
            return undefined([name], "all stays have the length of the time grid")
        for side, data in (even or as_many(rng, real))._asdict().items():
            length = np.asarray(data.cohort.length, int)
            sets[side] = by_group(groups_of(rng, data.groups), length, steps + 1)
        moved = lambda a, b: Distance(
            {name: float(np.abs(shares(a) - shares(b)).sum())}, {}
        )
        return from_sums(jax.random.fold_in(key, 1), sets, moved, config.resamples)

    return Metric(run, "temporal", {name: definition}, sparse=True, takes=("even",))


def by_group(group: np.ndarray, code: np.ndarray, size: int) -> np.ndarray:
    """How often each code below `size` stands in each group: [GROUPS, size]."""
    found = np.bincount(group * size + code, minlength=GROUPS * size)
    return found.reshape(GROUPS, size).astype(np.float64)


def durations(config: MetricConfig = DEFAULT) -> Metric:
    """Largest gaps between the distributions of run lengths, for each state."""
    text = (
        "Largest difference of the cumulative shares of run lengths: for how many "
        "steps in a row a coded column keeps a value, or a column stays missing. A "
        "run ends with the stay or where the column is not observed;"
    )
    return each_state("run_length", "Run length error", text, runs, config)


def first_event(config: MetricConfig = DEFAULT) -> Metric:
    """Largest gaps between the distributions of the step of the first occurrence."""
    text = (
        "Largest difference of the shares of patients in whom a value of a coded "
        "column has occurred by a step (never counts as later than the last step); "
        "being missing or measured for the first time are events too;"
    )
    return each_state("first_event", "Time to first event error", text, firsts, config)


def each_state(
    name: str, title: str, text: str, count: Count, config: MetricConfig
) -> Metric:
    """A metric from counts of times [GROUPS, K, times] by state of each column."""
    names = {
        name: Definition(
            title, f"{text} mean over values, then columns.", "lower", 0.0
        ),
        f"{name}_worst": Definition(
            f"{title}, worst column",
            f"{text} the column with the largest mean over its values.",
            "lower",
            0.0,
        ),
    }

    def run(
        key: jax.Array, real: Comparison, *, even: Comparison | None = None
    ) -> dict[str, Value]:
        if reason := why_not(real, 2, False):
            return undefined(names, reason)
        lens, rng, sets = fit_lens(*real), generator(key), {}
        for side, data in (even or as_many(rng, real))._asdict().items():
            group, valid = groups_of(rng, data.groups), valid_steps(data.cohort)
            coded = coded_columns(lens.temporal, data.cohort.temporal, valid)
            sets[side] = {c.name: count(c, group) for c in coded}
        if not sets["train"]:
            return undefined(names, NO_CODES)
        distance = lambda a, b: by_column(name, {c: state_gap(a[c], b[c]) for c in a})
        bounds = dict.fromkeys(names, (0.0, 1.0))
        key = jax.random.fold_in(key, 1)
        return from_sums(key, sets, distance, config.resamples, bounds)

    return Metric(run, "temporal", names, takes=("even",))


def runs(column: Coded, group: np.ndarray) -> np.ndarray:
    """Runs of each value by length: [GROUPS, K, T + 1].

    A run is cut by a step where the column is not seen.
    """
    patients, steps = column.codes.shape
    state = np.where(column.seen, column.codes, -1)
    ends = np.full((patients, 1), -1)
    # One long row; the -1 between patients belongs to no run
    line = np.concatenate([state, ends], 1).reshape(-1)
    starts = np.flatnonzero(np.diff(line, prepend=-2))
    length = np.diff(starts, append=len(line))
    value = line[starts]
    kept = value >= 0
    owner = group[starts[kept] // (steps + 1)]
    size = steps + 1
    code = value[kept] * size + length[kept]
    return by_group(owner, code, column.cardinality * size).reshape(GROUPS, -1, size)


def firsts(column: Coded, group: np.ndarray) -> np.ndarray:
    """Patients by the step of the first occurrence: [GROUPS, K, T + 1], T = never."""
    steps = column.codes.shape[1]
    counts = np.zeros((GROUPS, column.cardinality, steps + 1))
    for value in range(column.cardinality):
        here = (column.codes == value) & column.seen
        step = np.where(here.any(1), here.argmax(1), steps)
        counts[:, value] = by_group(group, step, steps + 1)
    return counts


def state_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the values of the largest gap of times [K, times]."""
    times = np.arange(a.shape[1])
    gaps = [
        largest_gap((times, shares(p)), (times, shares(q)))
        for p, q in zip(a, b, strict=True)
    ]
    return nanmean(gaps)
