"""What else the synthetic patients give away of a person: a hidden value, and which
static record belongs to which course over time.

Both are scored record by record and compared with hold-out patients, from whom nothing
can leak: what is learned of them too is knowledge about the population.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.cohort import Dataset, coded_features, numeric_features
from jaxehr.core.contracts import Comparison, Definition, Metric, Value
from jaxehr.metrics.attacks import (
    NO_COLUMN,
    Interval,
    Scores,
    Tables,
    by_role,
    constant,
    definitions,
    in_place,
    labels,
    learned_from,
    roles_of,
    three_times,
)
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.fidelity import generator, undefined
from jaxehr.metrics.membership import clopper_pearson
from jaxehr.metrics.neighbours import nearest
from jaxehr.metrics.pooled import Frame, Profile, fit_frame, profile, vectors
from jaxehr.metrics.views import too_few

SECRETS = 8  # columns that are hidden one after the other, the label first
CUTS = (0.2, 0.4, 0.6, 0.8)
LINKS = 10  # nearest synthetic patients of each part that may be the same
UNKNOWN = -1


class Blocks(NamedTuple):
    """Patient vectors and which column of them belongs to what."""

    rows: tuple[np.ndarray, ...]  # [N, D]: train, hold-out, synthetic
    static: np.ndarray  # Int [D]: number of the static feature, -1 for none
    temporal: np.ndarray  # Bool [D]
    label: np.ndarray  # Bool [D]


def blocks_of(real: Comparison) -> Blocks:
    """Vectors of `jaxehr.metrics.pooled`, the label one-hot behind them."""
    profiles = [profile(data) for data in real]
    frame = fit_frame(*profiles)
    both = zip(profiles, real, strict=True)
    rows = tuple(np.concatenate([vectors(frame, p), labels(d)], -1) for p, d in both)
    owner = static_owner(frame, profiles[0])
    width, classes = rows[0].shape[1], labels(real.train).shape[1]
    place = np.arange(width)
    static = np.full(width, -1)
    static[: len(owner)] = owner
    temporal = (place >= len(owner)) & (place < width - classes)
    return Blocks(rows, static, temporal, place >= width - classes)


def static_owner(frame: Frame, whole: Profile) -> np.ndarray:
    """The static feature behind each static column of `vectors`."""
    found = whole.static.columns.source
    if whole.static.seen is not None:
        found = np.concatenate([found, np.flatnonzero(frame.masked[0])])
    return found.astype(int)


class Secret(NamedTuple):
    """One hidden column."""

    name: str
    values: tuple[np.ndarray, ...]  # Int [N] of the three sets; -1 = not known
    hidden: np.ndarray  # Bool [D]: columns the attacker does not see


def secrets_of(real: Comparison, blocks: Blocks) -> list[Secret]:
    """The label, then static columns in their order, that vary among training rows."""
    found = []
    if real.schema.label is not None:
        codes = tuple(np.asarray(data.cohort.label, int) for data in real)
        found.append(Secret(real.schema.label.name, codes, blocks.label))
    numbers = numeric_features(real.schema.static)
    features = (*numbers, *coded_features(real.schema.static))
    for i, feature in enumerate(features):
        values = static_codes(real, i, len(numbers))
        found.append(Secret(feature.name, values, blocks.static == i))
    varies = lambda v: len(np.unique(v[v != UNKNOWN])) > 1
    return [s for s in found if varies(s.values[0])][:SECRETS]


def static_codes(real: Comparison, i: int, numbers: int) -> tuple[np.ndarray, ...]:
    """Codes of static feature i; of a number, the fifth of the training values."""
    cut = None

    def codes(data: Dataset) -> np.ndarray:
        nonlocal cut
        table = data.cohort.static
        seen = np.asarray(table.observed[:, i], bool)
        if i >= numbers:
            return np.where(seen, table.codes[:, i - numbers], UNKNOWN)
        values = table.numeric[:, i]
        if cut is None:
            cut = np.quantile(values[seen], CUTS) if seen.any() else np.zeros(0)
        return np.where(seen, np.searchsorted(np.unique(cut), values), UNKNOWN)

    return tuple(codes(data) for data in real)


def guesses(secret: Secret, rows: Tables, values: Tables, kind: str) -> list[Any]:
    """(right, known, distance) of members and others: the value of the patient seen
    that is nearest in all other columns."""
    shown = np.where(secret.hidden, 0.0, 1.0).astype(np.float32)
    has = values.seen[kind] != UNKNOWN
    if not has.any():
        has = np.ones(len(has), bool)  # every guess is "not known", which is wrong
    table, answer = rows.seen[kind][has] * shown, values.seen[kind][has]
    found = []
    for asked, truth in (
        (rows.members, values.members),
        (rows.others, values.others),
    ):
        near = nearest(asked * shown, table)
        known = truth != UNKNOWN
        right = (answer[near.row[:, 0]] == truth) & known
        found.append((right, known, near.distance[:, 0]))
    return found


def attribute_definitions() -> dict[str, Definition]:
    threat = (
        "the attacker knows all of a record but one value (the label or a static "
        "column; a number by its fifth) and guesses that of the nearest synthetic "
        "patient."
    )
    found = definitions(
        "attribute_inference",
        "Attribute inference",
        f"{threat} A record scores by the share of its values guessed right, then by "
        "the distance.",
        "",
    )
    found["attribute_inference_success"] = Definition(
        "Attribute inference: success",
        f"Threat model: {threat} Share of guesses about training patients that are "
        "right, mean over the hidden columns; the reference is the same about hold-out "
        "patients, from the same synthetic ones.",
        "lower",
        0.0,
    )
    return found


def attribute_inference(config: MetricConfig = DEFAULT) -> Metric:
    """A hidden value, guessed from the nearest synthetic patient."""
    names = attribute_definitions()

    def run(
        key: jax.Array, real: Comparison, *, learned: np.ndarray | None = None
    ) -> dict[str, Value]:
        real = learned_from(real, learned)
        if reason := too_few(*real):
            return undefined(names, reason)
        blocks = blocks_of(real)
        secrets = secrets_of(real, blocks)
        if not secrets or blocks.rows[0].shape[1] <= int(secrets[0].hidden.sum()):
            return undefined(names, "no label and no static column that varies")
        most = min(config.pooled_rows, config.mmd_rows)  # one search a hidden column
        roles = roles_of(generator(key), real, most)
        rows = by_role(roles, *blocks.rows)
        success: dict[str, list[dict[str, Interval]]] = {}

        def scores(kind: str) -> tuple[np.ndarray, np.ndarray]:
            sides: list[list[Any]] = [[], []]
            for secret in secrets:
                values = by_role(roles, *secret.values)
                for side, found in zip(sides, guesses(secret, rows, values, kind)):
                    side.append(found)
            success[kind] = [
                {
                    s.name: share(right, known)
                    for s, (right, known, _) in zip(secrets, side, strict=True)
                    if known.any()
                }
                for side in sides
            ]
            members, others = (combined(side) for side in sides)
            return members, others

        key = jax.random.fold_in(key, 1)
        out = three_times(key, "attribute_inference", roles, scores)
        count = len(roles.members)
        out["attribute_inference_success"] = success_value(success, count)
        return out

    return Metric(run, "privacy", names, sparse=True, takes=("learned",))


def share(right: np.ndarray, known: np.ndarray) -> Interval:
    hits, count = int(right.sum()), int(known.sum())
    return Interval(hits / count, *clopper_pearson(hits, count))


def combined(found: list[Any]) -> np.ndarray:
    """Share of the known values guessed right, less a little for the distance."""
    right = np.sum([r for r, _, _ in found], 0)
    known = np.sum([k for _, k, _ in found], 0)
    far = np.mean([d for _, _, d in found], 0)
    # Below 1e-3, less than one guess of SECRETS counts.
    return right / np.maximum(known, 1) - 1e-3 * far / (1.0 + far)


def success_value(success: dict[str, list[dict[str, Interval]]], count: int) -> Value:
    """Mean over columns; the ends are means of exact ends, so wider than 95 %.

    Args:
      success: kind of patients seen -> (members, others) -> column -> right guesses.
      count: how many members are asked about.
    """
    (members, others), (copied, _) = success["synthetic"], success["leak"]
    names = [name for name in members if name in others]
    if not names:
        return Value(None, reason="no hidden value is known of hold-out patients")
    three = [
        Interval(*map(float, np.mean([side[name][:3] for name in names], 0)))
        for side in (members, others, copied)
    ]
    value = in_place(three, count)
    value.detail["by_column"] = {name: list(members[name][:3]) for name in names}
    return value


def scores_link(static: Tables, temporal: Tables) -> Scores:
    """Less the smallest sum of ranks of one patient seen that is among the LINKS
    nearest by static values and by course; -2 LINKS if there is none."""

    def scores(kind: str) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for side in ("members", "others"):
            rows = [
                nearest(getattr(part, side), part.seen[kind], LINKS).row
                for part in (static, temporal)
            ]
            found.append(linked(*rows))
        return found[0], found[1]

    return scores


def linked(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """-(rank in a + rank in b) of the best row number in both lists [N, k]."""
    same = a[:, :, None] == b[:, None, :]
    ranks = np.arange(a.shape[1])[:, None] + np.arange(b.shape[1])[None, :]
    return -np.where(same, ranks, 2 * LINKS).min((1, 2)).astype(float)


def linkability(config: MetricConfig = DEFAULT) -> Metric:
    """Which static record belongs to which course, through the synthetic patients."""
    names = definitions(
        "linkability",
        "Linkability of the two parts",
        "the attacker holds static records and courses over time apart, and joins two "
        f"that have a synthetic patient in common among their {LINKS} nearest.",
        "",
    )

    def run(
        key: jax.Array, real: Comparison, *, learned: np.ndarray | None = None
    ) -> dict[str, Value]:
        real = learned_from(real, learned)
        if reason := too_few(*real):
            return undefined(names, reason)
        blocks = blocks_of(real)
        parts = {"static": blocks.static >= 0, "temporal": blocks.temporal}
        roles = roles_of(generator(key), real, config.pooled_rows)
        tables = []
        for name, chosen in parts.items():
            rows = [r[:, chosen] for r in blocks.rows]
            if constant(rows[0]):
                return undefined(names, f"{name} part: {NO_COLUMN}")
            tables.append(by_role(roles, *rows))
        scores = scores_link(*tables)
        return three_times(jax.random.fold_in(key, 1), "linkability", roles, scores)

    return Metric(run, "privacy", names, sparse=True, takes=("learned",))
