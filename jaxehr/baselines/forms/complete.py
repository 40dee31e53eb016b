"""k nearest neighbours in place of a modality that a patient lacks [flexgen2024, 5.5].

For baselines that cannot take patients without one: they learn from completed patients,
and the pattern of who lacks what is drawn again when patients are. Neighbours are the
complete training patients nearest in the modality that is there: standardised numbers
and shares of codes (time means of a series), Euclidean. The label is not read. Length,
and which values are missing, are those of the nearest; a number is the mean, a code the
most frequent one (the nearer of equals) over the k neighbours that have it.

Notation: M patients to complete, k neighbours, T steps, D columns.
"""

# Deviation: the paper names neither k nor what is averaged. A mean of masks is no mask:
# with it, hardly a value of an imputed part would be missing.

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.neighbors import NearestNeighbors

from jaxehr.core import sparse
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Cohort,
    Schema,
    Table,
    concatenate,
    make_cohort,
    numeric_features,
    rows_of,
    valid_steps,
)
from jaxehr.core.sparse import SparseTable, take_rows
from jaxehr.data import mixed
from jaxehr.data.encoding import host
from jaxehr.data.mixed import Part

PARTS = ("static", "temporal")
NEIGHBOURS = 5
ROWS = 256  # patients completed at a time
KNOTS = 1000


class Donors(NamedTuple):
    """The complete training patients, and how both modalities are compared."""

    schema: Schema
    cohort: Cohort
    fitted: dict[str, Any]
    views: dict[str, Any]  # [donors, columns] by modality


def fit_donors(schema: Schema, cohort: Cohort) -> Donors | None:
    """Donors among training patients; None where nobody lacks what others have.

    Raises:
      InputError: patients lack a modality, and nobody is complete.
    """
    cohort = host(cohort)
    both = cohort.has_static & cohort.has_temporal
    lacking = (cohort.has_static | cohort.has_temporal) & ~both
    if not (cohort.has_static.any() and cohort.has_temporal.any() and lacking.any()):
        return None
    if not both.any():
        raise InputError(
            f"{int(lacking.sum())} patients lack a modality and none has both, so no "
            "neighbour can be imputed from; use flexgen with --method gromov."
        )
    fitted = {
        "static": mixed.fit_part(
            Part(schema.static, ()), cohort.static, cohort.has_static, KNOTS
        )
    }
    if not isinstance(cohort.temporal, SparseTable):
        fitted["temporal"] = mixed.fit_part(
            Part(schema.temporal, ()), cohort.temporal, valid_steps(cohort), KNOTS
        )
    donors = rows_of(cohort, both)
    views = {part: view(schema, fitted, donors, part) for part in PARTS}
    return Donors(schema, donors, fitted, views)


def view(schema: Schema, fitted: dict[str, Any], cohort: Cohort, part: str) -> Any:
    """Columns [N, ..] by which patients are compared; sparse of a sparse table."""
    table = getattr(cohort, part)
    if isinstance(table, SparseTable):
        steps = np.repeat(np.maximum(cohort.length, 1), table.counts)
        shape = len(cohort.label), table.features
        found = csr_matrix((1.0 / steps, table.cells % shape[1], table.offsets), shape)
        found.sum_duplicates()
        return found
    static = part == "static"
    valid = cohort.has_static[:, None] if static else valid_steps(cohort)
    if static:
        table = Table(*(leaf[:, None] for leaf in table))  # one step
    columns = Part(getattr(schema, part), ())
    z, codes = mixed.encode_part(fitted[part], columns, table, valid)
    weight = valid / np.maximum(valid.sum(1, keepdims=True), 1)
    mean = lambda leaf: np.einsum("nt,nt...->n...", weight, leaf)
    hot = [
        mean(codes[..., q, None] == np.arange(size)) / np.sqrt(2.0)
        for q, size in enumerate(columns.cardinalities)
    ]
    return np.concatenate([mean(z), *hot], 1)


def complete(donors: Donors | None, cohort: Cohort) -> Cohort:
    """The cohort with the modality that a patient lacks imputed.

    A patient who has neither stays as it is.
    """
    cohort = host(cohort)
    if donors is None:
        return cohort
    for part, other in (PARTS, PARTS[::-1]):
        has, known = getattr(cohort, f"has_{part}"), getattr(cohort, f"has_{other}")
        lacking = np.flatnonzero(~has & known)
        if len(lacking):
            made = imputed(donors, rows_of(cohort, lacking), part, other)
            cohort = replaced(cohort, made, lacking, part)
    return cohort


def replaced(cohort: Cohort, made: Cohort, rows: np.ndarray, part: str) -> Cohort:
    """The cohort with `part` of the patients `rows` taken from `made`."""
    count = len(cohort.label)
    order = np.arange(count)
    order[rows] = count + np.arange(len(rows))
    both = rows_of(concatenate([cohort, made]), order)
    if part == "static":
        return make_cohort(both.static, cohort.temporal, cohort.length, cohort.label)
    return make_cohort(cohort.static, both.temporal, both.length, cohort.label)


def imputed(donors: Donors, cohort: Cohort, part: str, known: str) -> Cohort:
    """These patients with `part` imputed from their `known` part."""
    count = min(NEIGHBOURS, len(donors.cohort.label))
    search = NearestNeighbors(n_neighbors=count, algorithm="brute")
    search.fit(donors.views[known])
    seen = view(donors.schema, donors.fitted, cohort, known)
    near = np.asarray(search.kneighbors(seen, return_distance=False))  # [M, k]
    features = numeric_features(getattr(donors.schema, part))
    whole = np.array([f.kind == "integer" for f in features], bool)
    made = []
    for first in range(0, len(near), ROWS):
        some = near[first : first + ROWS]
        table, length = getattr(donors.cohort, part), donors.cohort.length[some[:, 0]]
        if isinstance(table, SparseTable):
            averaged = most_ones(table, some)._replace(length=length)
            averaged = sparse.cut(averaged, length)
        else:
            averaged = average(Table(*(leaf[some] for leaf in table)), whole)
        kept = rows_of(cohort, np.arange(first, first + len(some)))
        made.append(kept._replace(**{part: averaged, "length": length}))
    return concatenate(made)


def average(near: Table, whole: np.ndarray) -> Table:
    """Mean numbers and most frequent codes of tables [M, k, ..] over k.

    Args:
      whole: Bool [numbers]; these means are rounded.
    """
    count = near.numeric.shape[-1]
    seen, coded = near.observed[..., :count], near.observed[..., count:]
    total = np.where(seen, near.numeric, 0.0).sum(1)
    mean = total / np.maximum(seen.sum(1), 1)
    mean = np.where(whole, np.round(mean), mean)
    ballots = np.stack(
        [
            (coded & (near.codes == near.codes[:, [j]]) & coded[:, [j]]).sum(1)
            for j in range(near.codes.shape[1])
        ],
        1,
    )
    best = ballots.argmax(1)[:, None]
    codes = np.take_along_axis(near.codes, best, 1)[:, 0]
    return Table(mean, codes, near.observed[:, 0])


def most_ones(table: SparseTable, near: np.ndarray) -> SparseTable:
    """The ones that more than half of the neighbours [M, k] have."""
    taken = take_rows(table, near.reshape(-1))
    cells = table.steps * table.features
    owner = np.repeat(np.arange(near.size), taken.counts) // near.shape[1]
    place, votes = np.unique(owner * cells + taken.cells, return_counts=True)
    person, cell = np.divmod(place[2 * votes > near.shape[1]], cells)
    step, feature = np.divmod(cell, table.features)
    length = np.full(len(near), table.steps)
    shape = len(near), table.steps, table.features
    return sparse.from_cells((person, step, feature), length, shape)


def in_words(before: Cohort, after: Cohort) -> str:
    """What was imputed, for the report; empty if nothing was."""
    made = [
        f"the {part} part of {count}"
        for part in PARTS
        if (count := lost(before, part) - lost(after, part))
    ]
    if not made:
        return ""
    return (
        f"kNN (k = {NEIGHBOURS}) imputed {' and '.join(made)} of {len(after.label)} "
        "training patients; who lacks what is drawn as often as in training"
    )


def lost(cohort: Cohort, part: str) -> int:
    return int(np.count_nonzero(~np.asarray(getattr(cohort, f"has_{part}"))))
