"""NNAA and MIR, the two privacy numbers of TimeDiff [timediff2023].

Patients are flattened series with their static columns and the label; d is the
Euclidean distance to the nearest row. T training, H hold-out, S synthetic rows.
"""

import math

import jax
import numpy as np

from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.attacks import (
    NO_COLUMN,
    Interval,
    by_role,
    constant,
    in_place,
    labels,
    learned_from,
    roles_of,
)
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.membership import clopper_pearson
from jaxehr.metrics.neighbours import nearest
from jaxehr.metrics.people import (
    People,
    at_most,
    halfway,
    joined,
    mixed,
    numbered,
    one_each,
    picked,
)
from jaxehr.metrics.views import fit_lens, flat, too_few

NEAR_SHARE = 0.1  # of the range of distances: called a training patient
SOURCE = "[timediff2023]"


def rows_of(real: Comparison) -> list[np.ndarray]:
    """Flattened patients, float32 [N, D], constant columns left out.

    Numbers are standardised with the training patients.
    """
    # Deviation: TimeDiff fills gaps with -1 and scales each data set by itself, which
    # hides a shift between them.
    lens = fit_lens(*real)
    rows = [np.concatenate([flat(lens, data), labels(data)], -1) for data in real]
    varies = np.ptp(np.concatenate(rows), 0) > 0
    return [r[:, varies] for r in rows]


def accuracy(
    real: People, synthetic: People, most: int | None = None, taken: int | None = None
) -> tuple[Interval, int]:
    """AA(T, S) = 1/2 [mean 1(d_TS > d_TT) + mean 1(d_ST > d_SS)].

    Own points are excluded inside a set; 0 = copies, 0.5 = alike, 1 = apart. One stay
    of a person is asked, and the nearest row is one of all.

    Args:
      most: people who are asked on each side; None = all.
      taken: only people of the first rows of `real`, so many, are asked; None = all.

    Returns:
      The accuracy, and how many real people were asked.
    """
    # Deviation: TimeDiff draws as many rows of each side, so that few copies meet their
    # original. Among N and M rows of one law the nearest one is of the own kind with
    # chance (N - 1) / (N + M - 1) and (M - 1) / (N + M - 1), on average 1/2 for all
    # sizes if equal distances count a half (TimeDiff: not at all).
    shares, counts = [], []
    for own, other, size in ((real, synthetic, taken), (synthetic, real, None)):
        asked = one_each(own.person, np.arange(len(own.rows))[:size])[:most]
        table = np.concatenate([own.rows[asked], np.delete(own.rows, asked, 0)])
        across = nearest(own.rows[asked], other.rows).distance[:, 0]
        within = nearest(table[: len(asked)], table, exclude_self=True).distance[:, 0]
        tied = np.isclose(across, within, rtol=1e-5, atol=1e-6)  # up to rounding
        farther = (tied / 2 + ((across > within) & ~tied)).mean()
        shares.append(proportion(float(farther), len(asked)))
        counts.append(len(asked))
    return mean_of(*shares), counts[0]


def in_their_place(train: People, holdout: People) -> tuple[People, int]:
    """The training rows with hold-out people in the place of as many of them; how many
    rows, the first, are theirs.

    For synthetic patients of another law AA depends on how many real rows there are.
    So both real sides are equally large, and nothing but who is asked tells them apart:
    if nothing leaks, people of both sides could change places.

    Args:
      train, holdout: in random order, the stays of a person side by side.
    """
    come = at_most(holdout.person, len(train.rows))
    gone = at_most(train.person, len(holdout.rows))
    rest = picked(train, slice(gone, None))
    return joined(picked(holdout, slice(come)), rest), come


def three_numbers(
    train: People, holdout: People, synthetic: People, most: int
) -> dict[str, tuple[Interval, int]]:
    """The numbers of `nnaa`, and how many real people each of them asked."""
    trained = accuracy(train, synthetic, most)
    real, taken = in_their_place(train, holdout)
    held = accuracy(real, synthetic, most, taken)
    loss = difference(held[0], trained[0]), held[1]
    return {"nnaa_train": trained, "nnaa_holdout": held, "nnaa_loss": loss}


def proportion(value: float, count: int) -> Interval:
    """A share of `count` with its exact interval, hits rounded."""
    return Interval(value, *clopper_pearson(round(value * count), count))


def mean_of(a: Interval, b: Interval) -> Interval:
    """(a + b) / 2 of two proportions, interval by [newcombe1998, Method 10]."""
    value = (a.value + b.value) / 2
    low = value - math.hypot(a.value - a.low, b.value - b.low) / 2
    high = value + math.hypot(a.high - a.value, b.high - b.value) / 2
    return Interval(value, low, high)


def difference(a: Interval, b: Interval) -> Interval:
    """a - b of two proportions, interval by [newcombe1998, Method 10]."""
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, low, high)


def nnaa_definitions() -> dict[str, Definition]:
    what = (
        "Share of patients whose nearest neighbour is of their own kind, synthetic "
        "against {}; 0 = copies, 0.5 = cannot be told apart."
    )
    threat = (
        "Threat model: whoever sees the synthetic patients notices that they lie "
        "nearer to training than to new patients."
    )
    replaced = (
        "training patients, as many of whom as there are hold-out patients are "
        "replaced by these, who are asked"
    )
    found = {
        f"nnaa_{name}": Definition(
            f"Nearest-neighbour accuracy, {title}",
            what.format(real),
            "target",
            0.5,
            SOURCE,
        )
        for name, title, real in (
            ("train", "training", "training patients"),
            ("holdout", "hold-out", replaced),
        )
    }
    found["nnaa_loss"] = Definition(
        "Nearest-neighbour privacy loss",
        f"{threat} Accuracy against hold-out less that against training patients; "
        "above 0 the training patients are nearer.",
        "lower",
        0.0,
        SOURCE,
    )
    return found


def nnaa(config: MetricConfig = DEFAULT) -> Metric:
    """Nearest-neighbour adversarial accuracy on training and hold-out patients."""
    names, most = nnaa_definitions(), config.pooled_rows

    def run(
        key: jax.Array, real: Comparison, *, learned: np.ndarray | None = None
    ) -> dict[str, Value]:
        real = learned_from(real, learned)
        if reason := too_few(*real):
            return undefined(names, reason)
        rows = rows_of(real)
        if constant(rows[0]):
            return undefined(names, NO_COLUMN)
        rng = generator(key)
        train, holdout, synthetic = (
            picked(People(r, numbered(data.groups)), mixed(rng, data.groups))
            for r, data in zip(rows, real, strict=True)
        )
        half, size = halfway(holdout.person), len(train.rows)
        one, other = (picked(holdout, s) for s in (slice(half), slice(half, None)))
        copied = picked(train, rng.permutation(size)[: len(synthetic.rows)])
        leak = joined(copied, picked(synthetic, slice(size, None)))
        leak = picked(leak, rng.permutation(len(leak.rows)))
        found = three_numbers(train, holdout, synthetic, most)
        reference = three_numbers(train, one, other, most)
        control = three_numbers(train, holdout, leak, most)
        out = {}
        for name, (value, asked) in found.items():
            three = [value, reference[name][0], control[name][0]]
            nothing = 0.0 if name == "nnaa_loss" else None
            out[name] = in_place(three, asked, nothing)
            if name != "nnaa_loss":  # copies lie below the reference
                low = three[2].high < three[1].value
                out[name].detail["leaky_generator_caught"] = bool(low)
        out["nnaa_holdout"].detail.pop("leaky_generator_caught")
        out["nnaa_loss"].detail["absolute"] = abs(found["nnaa_loss"][0].value)
        return out

    return Metric(run, "privacy", names, takes=("learned",))


def mir_definitions() -> dict[str, Definition]:
    threat = (
        "Threat model: the attacker holds complete records and calls those a training "
        "patient that lie within 0.1 of the range of distances to the nearest "
        "synthetic one. F1 of these calls, as many training as hold-out patients; "
        "calling everyone gives 2/3"
    )
    return {
        "mir": Definition(
            "Membership inference risk",
            f"{threat}. Both sides are scaled by their own range.",
            "lower",
            0.0,
            SOURCE,
        ),
        "mir_common": Definition(
            "Membership inference risk, common scale",
            f"{threat}. Both sides are scaled by one range (ours): the separate "
            "ranges tell members from others without any attacker.",
            "lower",
            0.0,
        ),
    }


def risk_with_chance(
    rng: np.random.Generator,
    members: np.ndarray,
    others: np.ndarray,
    common: bool,
    resamples: int,
) -> Interval:
    """`risk`, and how often mixed members and others give as much or more.

    The interval does not hold the range of the distances, which is that of extremes.
    """
    found, count = risk(members, others, common), len(members)
    mixed, reached = np.concatenate([members, others]), 0
    for _ in range(resamples):
        mixed = rng.permutation(mixed)
        near = called(mixed[:count], mixed[count:], common)
        reached += f_score(*(float(side.mean()) for side in near)) >= found.value
    return found._replace(chance=(1 + reached) / (1 + resamples))


def called(
    members: np.ndarray, others: np.ndarray, common: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Bool [n] each: who is called a training patient."""
    every = np.concatenate([members, others])

    def near(distance: np.ndarray) -> np.ndarray:
        over = every if common else distance
        return distance - over.min() <= NEAR_SHARE * float(np.ptp(over))

    return near(members), near(others)


def f_score(true: float, false: float) -> float:
    """F1 of two equally large sides from the true and the false positive rate."""
    return 2 * true / (true + false + 1)


def risk(members: np.ndarray, others: np.ndarray, common: bool) -> Interval:
    """F1 = 2 t / (t + f + 1) of true and false positive rates t, f.

    The interval takes both rates at the ends of their exact intervals, so it is wider
    than 95 %.
    """
    t, f = (
        Interval(float(near.mean()), *shares(near))
        for near in called(members, others, common)
    )
    ends = f_score(t.low, f.high), f_score(t.high, f.low)
    return Interval(f_score(t.value, f.value), *ends)


def shares(hits: np.ndarray) -> tuple[float, float]:
    return clopper_pearson(int(hits.sum()), len(hits))


def mir(config: MetricConfig = DEFAULT) -> Metric:
    """Membership inference risk with TimeDiff's rule, and with a common scale."""
    names = mir_definitions()

    def run(
        key: jax.Array, real: Comparison, *, learned: np.ndarray | None = None
    ) -> dict[str, Value]:
        real = learned_from(real, learned)
        if reason := too_few(*real):
            return undefined(names, reason)
        # TimeDiff scales to [0, 1] by column; standardised columns do the same work.
        rows = rows_of(real)
        if constant(rows[0]):
            return undefined(names, NO_COLUMN)
        rng = generator(key)
        # Deviation: all synthetic patients are searched, not as many as are asked; a
        # sample of them hides copies.
        tables = by_role(roles_of(rng, real, config.pooled_rows), *rows)
        far = lambda rows, table: nearest(rows, table).distance[:, 0] ** 2
        found = {
            kind: (far(tables.members, table), far(tables.others, table))
            for kind, table in tables.seen.items()
        }
        out = {}
        for name in names:
            common = name == "mir_common"
            risks = [
                risk_with_chance(rng, *found[kind], common, config.resamples)
                for kind in ("synthetic", "fresh")
            ]
            risks.append(risk(*found["leak"], common))
            out[name] = in_place(risks, len(tables.members))
        return out

    return Metric(run, "privacy", names, takes=("learned",))
