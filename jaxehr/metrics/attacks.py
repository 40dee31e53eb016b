"""Attacks that score records: which of them were training patients?

An attack gives every record a score, higher for "training patient". As many training
as hold-out records are asked. The same attack is made three times: on the synthetic
patients, on fresh real ones in their place (half of the hold-out; the reference, which
must not be caught), and on a release of the same size that copies training patients
(the control, which has to be). People are dealt out, not stays.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse
from scipy import stats

from jaxehr.core.cohort import Dataset, take
from jaxehr.core.contracts import Comparison, Definition, Metric, Scored, Value
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.membership import clopper_pearson, median_rule
from jaxehr.metrics.people import halfway, halves, mixed, one_each
from jaxehr.metrics.pooled import fit_frame, profile, vectors
from jaxehr.metrics.views import too_few

FALSE_ALARMS = 0.01
SIGNIFICANT = 0.025  # chance below which a number is worse than that of hold-out people
NOTHING = {"advantage": 0.0, "auroc": 0.5, "tpr": FALSE_ALARMS}  # is learned
NO_COLUMN = "no column that varies among the real patients"
Scores = Callable[[str], tuple[np.ndarray, np.ndarray]]


class Roles(NamedTuple):
    """Rows of each data set by what they are for."""

    members: np.ndarray  # training patients asked about, one stay of a person
    others: np.ndarray  # as many hold-out patients asked about
    fresh: np.ndarray  # stays of other hold-out people, who stand for synthetic ones
    middle: int  # the people of `fresh` before this place are others than those after
    table: np.ndarray  # synthetic patients the attacker sees: all
    leak: np.ndarray  # training patients that are copied: as many as synthetic ones


class Interval(NamedTuple):
    value: float
    low: float
    high: float
    chance: float | None = None  # P(as much or more) if members are like others


def roles_of(rng: np.random.Generator, real: Comparison, most: int) -> Roles:
    """At most `most` patients are asked about; half of the hold-out is kept fresh."""
    train, held = real.train.groups, real.holdout.groups
    everyone = mixed(rng, train)
    asked, fresh = halves(rng, held)
    members, others = one_each(train, everyone), one_each(held, asked)
    size = min(len(members), len(others), most)
    made = len(real.synthetic.ids)
    return Roles(
        members[:size],
        others[:size],
        fresh,
        halfway(held[fresh]),
        rng.permutation(made),
        rng.permutation(len(train))[:made],
    )


def learned_from(real: Comparison, learned: np.ndarray | None) -> Comparison:
    """Without the training patients who only chose the weights, where that is known.

    Args:
      learned: Bool [training patients], of `Attacked`; None = not known.
    """
    if learned is None:
        return real
    return real._replace(train=take(real.train, learned))


def measure(
    rng: np.random.Generator, members: np.ndarray, others: np.ndarray
) -> dict[str, Interval]:
    """Advantage, AUROC and TPR at 1 % FPR of scores [n] each; 95 % intervals.

    Advantage = TPR - FPR where the higher half is called training patients.
    """
    half = median_rule(rng, -members, -others)
    hits = recognised(rng, members, others)
    ends = clopper_pearson(hits, len(members))
    # The threshold is drawn too, which the interval does not hold: under chance the
    # members before the r-th of the others are negative hypergeometric.
    count, rank = len(others), int(FALSE_ALARMS * len(others)) + 1
    chance = stats.nhypergeom(len(members) + count, len(members), rank).sf(hits - 1)
    found = [2 * number - 1 for number in (half.accuracy, half.low, half.high)]
    return {
        "advantage": Interval(*found),
        "auroc": Interval(half.auroc, *auroc_interval(members, others)),
        "tpr": Interval(hits / len(members), *ends, float(chance)),
    }


def recognised(
    rng: np.random.Generator, members: np.ndarray, others: np.ndarray
) -> int:
    """How many members score above all but 1 % of the others; ties at random."""
    scores = np.concatenate([members, others])
    order = np.lexsort((rng.random(len(scores)), -scores))
    is_member = order < len(members)
    allowed = int(FALSE_ALARMS * len(others))
    return int(is_member[np.cumsum(~is_member) <= allowed].sum())


def auroc_interval(members: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """95 % interval of P(member > other) by its placements [delong1988]."""
    over = placements(members, others)
    under = 1.0 - placements(others, members)
    error = (over.var(ddof=1) / len(over) + under.var(ddof=1) / len(under)) ** 0.5
    area = float(over.mean())
    half = stats.norm.ppf(0.975) * error
    return max(area - half, 0.0), min(area + half, 1.0)


def placements(scores: np.ndarray, against: np.ndarray) -> np.ndarray:
    """For each score the share of `against` below it; equal ones count a half."""
    ordered = np.sort(against)
    below = np.searchsorted(ordered, scores, "left")
    upto = np.searchsorted(ordered, scores, "right")
    return (below + upto) / (2.0 * len(against))


def definitions(prefix: str, title: str, threat: str, source: str) -> dict:
    """Three numbers of one attack."""
    ours = f"Threat model: {threat}"
    return {
        f"{prefix}_advantage": Definition(
            f"{title}: advantage",
            f"{ours} True less false positive rate, the higher half of the scores "
            "called training patients; 0 = nothing learned.",
            "lower",
            0.0,
            source,
        ),
        f"{prefix}_auroc": Definition(
            f"{title}: AUROC",
            f"{ours} Area under the ROC curve, training against hold-out patients; "
            "below 0.5 is not better.",
            "lower",
            0.5,
            source,
        ),
        f"{prefix}_tpr": Definition(
            f"{title}: TPR at 1 % FPR",
            f"{ours} Share of training patients recognised where at most 1 % of the "
            "hold-out patients are called so by mistake; exact interval, given the "
            "threshold.",
            "lower",
            FALSE_ALARMS,
            source,
        ),
    }


def three_times(
    key: jax.Array, prefix: str, roles: Roles, scores: Scores
) -> dict[str, Value]:
    """The attack on synthetic, fresh and copied patients."""
    rng, kinds = generator(key), ("synthetic", "fresh", "leak")
    three = [measure(rng, *scores(kind)) for kind in kinds]
    return all_in_place(prefix, three, len(roles.members))


def all_in_place(
    prefix: str, three: Sequence[dict[str, Interval] | None], records: int
) -> dict[str, Value]:
    """`in_place` for every number of `measure`."""
    return {
        f"{prefix}_{name}": in_place(
            [found and found[name] for found in three], records, nothing
        )
        for name, nothing in NOTHING.items()
    }


def in_place(three: list[Any], records: int, nothing: float | None = None) -> Value:
    """The number with its reference, the controls in `detail`.

    Copies are caught if their interval lies above that of the reference; fresh patients
    are (and must not be) if theirs lies above `nothing`, the number of an attack that
    learns nothing, or if `chance` says so.

    Args:
      three: intervals of synthetic, fresh and copied patients; None = no control.
    """
    got, fresh, control = three
    detail = {"records": records, "reference_interval": [fresh.low, fresh.high]}
    if control is not None:
        detail |= {
            "leaky_generator": control.value,
            "leaky_generator_interval": [control.low, control.high],
            "leaky_generator_caught": bool(control.low > fresh.high),
        }
    if got.chance is not None:
        detail["chance"] = got.chance
    if fresh.chance is not None:
        detail["fresh_sample_caught"] = bool(fresh.chance < SIGNIFICANT)
    elif nothing is not None:
        detail["fresh_sample_caught"] = bool(fresh.low > nothing)
    return Value(got.value, fresh.value, got.low, got.high, "", detail)


class Tables(NamedTuple):
    """Patient vectors by role."""

    members: np.ndarray  # [n, D]
    others: np.ndarray  # [n, D]
    seen: dict[str, np.ndarray]  # what the attacker sees: synthetic, fresh, leak
    middle: int  # of the fresh ones, see `Roles`


def by_role(roles: Roles, train: Any, holdout: Any, synthetic: Any) -> Tables:
    """Rows [N, D] of the three data sets, dealt out.

    The leak is a release of the same size: copies, and where it is larger than the
    training data synthetic patients, among whom the copies have to be found.
    """
    made = synthetic[roles.table]
    seen = {
        "synthetic": made,
        "fresh": holdout[roles.fresh],
        "leak": stacked(train[roles.leak], made[len(roles.leak) :]),
    }
    return Tables(train[roles.members], holdout[roles.others], seen, roles.middle)


def stacked(one: Any, other: Any) -> Any:
    """Rows below rows, arrays or CSR."""
    if scipy.sparse.issparse(one):
        return scipy.sparse.csr_array(scipy.sparse.vstack([one, other]))
    return np.concatenate([one, other])


def records(real: Comparison) -> tuple[np.ndarray, ...]:
    """Standardised pooled vectors and the label one-hot, float32 [N, D] each."""
    profiles = [profile(data) for data in real]
    frame = fit_frame(*profiles)
    rows = []
    for whole, data in zip(profiles, real, strict=True):
        rows.append(np.concatenate([vectors(frame, whole), labels(data)], -1))
    return tuple(rows)


def labels(data: Dataset) -> np.ndarray:
    """The label one-hot, float32 [N, classes]; no column without a label."""
    codes = np.asarray(data.cohort.label)
    if data.schema.label is None:
        return np.zeros((len(codes), 0), np.float32)
    return np.eye(data.schema.num_classes, dtype=np.float32)[codes]


def constant(rows: Any) -> bool:
    """Whether all rows [N, D] are equal."""
    if scipy.sparse.issparse(rows):
        rows = rows.tocsc()
        ends = (rows.max(0) - rows.min(0)).toarray()
        return not ends.any()
    return rows.shape[1] == 0 or bool((np.ptp(rows, 0) == 0).all())


def attack(
    config: MetricConfig,
    names: dict[str, Definition],
    rows_of: Callable[[Comparison], Any],
    scores: Callable[[Tables], Scores],
) -> Metric:
    """A metric from the vectors of patients and the score of a record."""
    prefix = next(iter(names)).removesuffix("_advantage")

    def run(
        key: jax.Array,
        real: Comparison,
        *,
        keep: Any = None,
        learned: np.ndarray | None = None,
    ) -> dict[str, Value]:
        real = learned_from(real, learned)
        if reason := too_few(*real):
            return undefined(names, reason)
        rows = rows_of(real)
        if constant(rows[0]):
            return undefined(names, NO_COLUMN)
        roles = roles_of(generator(key), real, config.pooled_rows)
        if keep is not None:
            everyone = np.arange(len(real.train.ids))
            asked = by_role(roles._replace(members=everyone), *rows)
            places = everyone if learned is None else np.flatnonzero(learned)
            keep(Scored(places, *scores(asked)("synthetic")))
        chosen = scores(by_role(roles, *rows))
        return three_times(jax.random.fold_in(key, 1), prefix, roles, chosen)

    return Metric(run, "privacy", names, sparse=True, takes=("keep", "learned"))
