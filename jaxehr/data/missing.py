"""Modalities or entries taken away at random, for experiments that know the truth."""

from typing import NamedTuple

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, Table, make_cohort
from jaxehr.core.sparse import SparseTable
from jaxehr.data.split import hashed_share


class Hidden(NamedTuple):
    """Bool [patients]: who lost the static and who the temporal part; nobody both."""

    static: np.ndarray
    temporal: np.ndarray


def drop_modalities(
    data: Dataset, static: float, temporal: float, seed: int = 0
) -> tuple[Dataset, Hidden]:
    """Hides the static part of some patients and the temporal part of others.

    Of the n patients that have both parts, round(static * n) lose the static one and
    round(temporal * n) others the temporal one (length 0): missing completely at random
    [flexgen2024, Sec. 5.5]. Whom it meets depends on the seed and the patient's id
    alone, and a larger share takes away from the same patients and more.

    Args:
      static, temporal: shares in [0, 1], together at most 1, so that everybody keeps a
        part.

    Raises:
      InputError: shares outside [0, 1], or together above 1.
    """
    for name, share in (("static", static), ("temporal", temporal)):
        if not 0.0 <= share <= 1.0:
            raise InputError(f"drop {name}: must lie in [0, 1], got {share}.")
    if static + temporal > 1.0 + 1e-9:
        raise InputError(
            f"drop static {static} and temporal {temporal}: together at most 1, for "
            "every patient keeps one of the two."
        )
    cohort = data.cohort
    both = np.flatnonzero(cohort.has_static & cohort.has_temporal)
    shares = hashed_share(data.ids[both], salt=f"drop {seed}")
    order = both[np.argsort(shares, kind="stable")]
    first = round(static * len(both))
    last = min(round(temporal * len(both)), len(both) - first)
    hidden = Hidden(*(np.zeros(len(data.ids), bool) for _ in range(2)))
    # From both ends of one order: disjoint, and each set grows with its share.
    hidden.static[order[:first]] = True
    hidden.temporal[order[len(order) - last :]] = True
    table = cohort.static._replace(
        observed=cohort.static.observed & ~hidden.static[:, None]
    )
    length = np.where(hidden.temporal, 0, cohort.length)
    made = make_cohort(table, cohort.temporal, length, cohort.label)
    note = {
        "static": static,
        "temporal": temporal,
        "seed": seed,
        "patients": [first, last],
    }
    provenance = data.provenance | {"dropped": note}
    return data._replace(cohort=made, provenance=provenance), hidden


def drop_entries(data: Dataset, share: float, seed: int = 0) -> Dataset:
    """Hides observed values, each with the chance `share`, independently of all else.

    Missing completely at random [flexgen2024, App. C.1]. Whom and what it meets depends
    on the seed and the patient's id; a larger share hides the same values and more.

    Raises:
      InputError: a share outside [0, 1]; a sparse table, which has no missing value.
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"drop entries: must lie in [0, 1], got {share}.")
    cohort, seeds = data.cohort, hashed_share(data.ids, salt=f"drop entries {seed}")
    if isinstance(cohort.temporal, SparseTable):
        raise InputError(
            "drop entries: a sparse table has no missing value; prepare the cohort "
            "without --discretize."
        )

    def kept(table: Table, offset: float) -> Table:
        shape = table.observed.shape[1:]
        draws = [np.random.default_rng(int((n + offset) * 2**53)) for n in seeds]
        chance = np.stack([draw.random(shape) for draw in draws])
        return table._replace(observed=table.observed & (chance >= share))

    static, temporal = kept(cohort.static, 0.0), kept(cohort.temporal, 1.0)
    made = make_cohort(static, temporal, cohort.length, cohort.label)
    note = {"entries": share, "seed": seed}
    return data._replace(cohort=made, provenance=data.provenance | {"dropped": note})
