"""Modalities or entries taken away at random, for experiments that know the truth."""

import re
from typing import NamedTuple

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Table,
    coded_features,
    make_cohort,
    numeric_features,
    to_dense,
)
from jaxehr.core.sparse import SparseTable
from jaxehr.data.split import hashed_share

# What FIDDLE appends to the name of a variable: `discretize`, or its own release.
PARTS_OF_FIDDLE = re.compile(r"_(?:value|mask|delta_time|min|max|mean)(?:_|$)")


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


def drop_entries(
    data: Dataset, share: float, seed: int = 0, *, fill: bool = False
) -> Dataset:
    """Hides observed values, each with the chance `share`, independently of all else.

    Missing completely at random [flexgen2024, App. C.1]. Whom and what it meets depends
    on the seed and the patient's id; a larger share hides the same values and more. The
    binary columns that FIDDLE made of one variable are hidden together, and their table
    becomes dense: a sparse one has no missing value.

    Args:
      fill: put what is most common in their place (numbers: the mean), for models that
        do without missing values.

    Raises:
      InputError: a share outside [0, 1]; a sparse table of more than 4 GiB.
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"drop entries: must lie in [0, 1], got {share}.")
    binary = isinstance(data.cohort.temporal, SparseTable)
    cohort = to_dense(data.cohort)
    seeds = hashed_share(data.ids, salt=f"drop entries {seed}")

    def kept(table: Table, features: tuple[Feature, ...], offset: float) -> Table:
        group = variables(features, binary)
        shape = (*table.observed.shape[1:-1], group.max(initial=-1) + 1)
        draws = [np.random.default_rng(int((n + offset) * 2**53)) for n in seeds]
        chance = np.stack([draw.random(shape) for draw in draws])
        left = table.observed & (chance >= share)[..., group]
        return filled(table, left) if fill else table._replace(observed=left)

    static = kept(cohort.static, data.schema.static, 0.0)
    temporal = kept(cohort.temporal, data.schema.temporal, 1.0)
    made = make_cohort(static, temporal, cohort.length, cohort.label)
    note = {"entries": share, "seed": seed, "filled": fill}
    return data._replace(cohort=made, provenance=data.provenance | {"dropped": note})


def variables(features: tuple[Feature, ...], binary: bool) -> np.ndarray:
    """Int [columns of `observed`]: which ones belong to one variable.

    Every column is its own, or shares it with all that FIDDLE made of the same one.
    """
    ordered = (*numeric_features(features), *coded_features(features))
    names = [PARTS_OF_FIDDLE.split(f.name)[0] if binary else f.name for f in ordered]
    places = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names], int)


def filled(table: Table, left: np.ndarray) -> Table:
    """The most common code, or the mean, of what is left, wherever a value was hidden.

    Args:
      left: Bool, of the shape of `observed`. A column without any value gets 0.
    """
    count = table.numeric.shape[-1]
    numeric, codes = np.array(table.numeric), np.array(table.codes)
    hidden = table.observed & ~left
    for place in range(left.shape[-1]):
        values = numeric[..., place] if place < count else codes[..., place - count]
        seen = values[left[..., place]]
        if place < count:
            usual = seen.mean() if len(seen) else 0.0
        else:
            usual = np.bincount(seen, minlength=1).argmax()
        values[hidden[..., place]] = usual
    return Table(numeric, codes, table.observed)
