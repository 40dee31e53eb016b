"""Membership by the nearest synthetic patient: three ways to say "near".

Scores and controls are those of `jaxehr.metrics.attacks`.
"""

from typing import Any

import numpy as np
import scipy.sparse

from jaxehr.core.contracts import Comparison, Metric
from jaxehr.metrics.attacks import (
    Scores,
    Tables,
    attack,
    definitions,
    labels,
    records,
)
from jaxehr.metrics.evaluate import DEFAULT, MetricConfig
from jaxehr.metrics.membership import nearest_hamming
from jaxehr.metrics.neighbours import nearest, unit
from jaxehr.metrics.pooled import Pooled, person_means, profile

QUINTILES = (0.2, 0.4, 0.6, 0.8)
NEAR = 1e-6  # a smaller distance counts as this


def quintile_records(real: Comparison) -> list[Any]:
    """CSR of zeros and ones [N, columns]: coded values that ever occur, the fifth of
    the training values that a number (its mean over time) falls into, the label."""
    profiles = [profile(data) for data in real]
    parts: list[list[Any]] = [[] for _ in real]
    for part in ("static", "temporal"):
        tables: list[Pooled] = [getattr(p, part) for p in profiles]
        cuts = None
        for i, pooled in enumerate(tables):
            means, seen = person_means(pooled)
            if cuts is None:
                cuts = [
                    np.unique(np.quantile(m[s], QUINTILES)) if s.any() else np.zeros(0)
                    for m, s in zip(means.T, seen.T, strict=True)
                ]
            for j, cut in enumerate(cuts):
                fifth = np.searchsorted(cut, means[:, j], "left")
                one_hot = (fifth[:, None] == np.arange(len(cut) + 1)) & seen[:, [j]]
                parts[i].append(scipy.sparse.csr_array(one_hot))
            coded = scipy.sparse.csr_array(pooled.total)[:, pooled.columns.numbers :]
            parts[i].append(coded > 0)
    for found, data in zip(parts, real, strict=True):
        found.append(scipy.sparse.csr_array(labels(data) > 0))
    return [
        scipy.sparse.csr_array(scipy.sparse.hstack(p), dtype=np.float32) for p in parts
    ]


def scores_hamming(tables: Tables) -> Scores:
    """Less the Hamming distance to the nearest patient seen."""

    def scores(kind: str) -> tuple[np.ndarray, np.ndarray]:
        seen = tables.seen[kind]
        asked = (tables.members, tables.others)
        a, b = (-nearest_hamming(rows, seen).astype(float) for rows in asked)
        return a, b

    return scores


def scores_cosine(tables: Tables) -> Scores:
    """The largest cosine similarity with a patient seen: 1 - |a - b|^2 / 2."""

    def scores(kind: str) -> tuple[np.ndarray, np.ndarray]:
        seen = unit(tables.seen[kind])
        asked = (tables.members, tables.others)
        a, b = (1 - nearest(unit(x), seen).distance[:, 0] ** 2 / 2 for x in asked)
        return a, b

    return scores


def scores_domias(tables: Tables) -> Scores:
    """log density among the patients seen less that among real ones never seen.

    With d the distance to the nearest patient, log p = -D log d + const; the constant
    and the factor D do not change the order. Half of the fresh patients are the
    population the attacker knows.
    """
    # Deviation: [domias2023] fits kernel densities or flows; a kernel needs a width,
    # and with tens of columns its ratio is that of the nearest patients.
    fresh = tables.seen["fresh"]
    known, stand_in = fresh[: tables.middle], fresh[tables.middle :]
    seen = tables.seen | {"fresh": stand_in}
    logs = lambda x, table: np.log(np.maximum(nearest(x, table).distance[:, 0], NEAR))

    def scores(kind: str) -> tuple[np.ndarray, np.ndarray]:
        asked = (tables.members, tables.others)
        a, b = (logs(x, known) - logs(x, seen[kind]) for x in asked)
        return a, b

    return scores


HOLDS = "the attacker holds a complete record and the synthetic patients"


def membership_hamming(config: MetricConfig = DEFAULT) -> Metric:
    """Membership by the Hamming distance to the nearest synthetic patient."""
    names = definitions(
        "membership_hamming",
        "Membership, nearest by Hamming distance",
        f"{HOLDS}, and calls a record with a near one a training patient. Numbers are "
        "cut at the quintiles of the training patients.",
        "[flexgen2024, Table 4]",
    )
    return attack(config, names, quintile_records, scores_hamming)


def membership_cosine(config: MetricConfig = DEFAULT) -> Metric:
    """Membership by the largest cosine similarity with a synthetic patient."""
    names = definitions(
        "membership_cosine",
        "Membership, nearest by cosine similarity",
        f"{HOLDS}, and calls a record similar to one a training patient. Static "
        "values and means over time, standardised.",
        "[corgan2020]",
    )
    return attack(config, names, records, scores_cosine)


def membership_domias(config: MetricConfig = DEFAULT) -> Metric:
    """Membership by the ratio of densities, synthetic over real."""
    names = definitions(
        "membership_domias",
        "Membership, ratio of densities",
        f"{HOLDS} and knows other real patients of the same population; a record "
        "denser among synthetic than among these is called a training patient.",
        "[domias2023]",
    )
    return attack(config, names, records, scores_domias)
