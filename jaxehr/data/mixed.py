"""Mixed tables as numbers and codes, and back; fitted on training patients only.

Missing values are filled (last value carried forward, the patient's mean, the training
mean [cdmt2026, Sec. 4.1]) and their masks become binary columns; numeric columns become
standard normal by their quantiles. Everything fitted is a nested dict of arrays.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.cohort import Feature, Table, coded_features, numeric_features
from jaxehr.data import impute, transforms
from jaxehr.data.encoding import as_in_training, sizes


@dataclasses.dataclass(frozen=True)
class Part:
    """One table: `features` in schema order and what a model sees of them.

    Columns of the coded block: first the coded features with K >= 2 (constants have one
    value), then one mask (1 = missing) for each feature in `masked`, then `extra` ones
    that are no features.

    Attributes:
      masked: places inside `Table.observed`.
      extra: name and number of categories of each.
    """

    features: tuple[Feature, ...]
    masked: tuple[int, ...]
    extra: tuple[tuple[str, int], ...] = ()

    @property
    def numeric(self) -> tuple[Feature, ...]:
        return numeric_features(self.features)

    @property
    def coded(self) -> tuple[Feature, ...]:
        return tuple(f for f in coded_features(self.features) if f.cardinality > 1)

    @property
    def coded_positions(self) -> tuple[int, ...]:
        """Places of the modelled coded features inside `Table.codes`."""
        every = coded_features(self.features)
        return tuple(i for i, f in enumerate(every) if f.cardinality > 1)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Categories of every column of the coded block."""
        masks, extra = (2,) * len(self.masked), (size for _, size in self.extra)
        return (*(f.cardinality for f in self.coded), *masks, *extra)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coded block's columns, for plots."""
        observed = (*self.numeric, *coded_features(self.features))
        masks = (f"{observed[place].name} missing" for place in self.masked)
        extra = (name for name, _ in self.extra)
        return (*(f.name for f in self.coded), *masks, *extra)


def every_mask(features: tuple[Feature, ...]) -> tuple[int, ...]:
    """`Part.masked` of a table whose every feature may be missing."""
    return tuple(range(len(features)))


class Seen(NamedTuple):
    """What fitting reads off the rows of one table; adds up over parts of a cohort."""

    numeric: tuple[transforms.Tally, ...]
    codes: tuple[np.ndarray, ...]  # Int [K]: how often each code was observed
    observed: np.ndarray  # Int [features]: rows with a value
    rows: int


def see(part: Part, table: Table, valid: np.ndarray) -> Seen:
    """What fitting needs of the rows `valid` (Bool, the shape without columns)."""
    count, rows = len(part.numeric), Table(*(leaf[valid] for leaf in table))
    tallies = [
        transforms.tally(rows.numeric[:, d], rows.observed[:, d]) for d in range(count)
    ]
    codes = [
        np.bincount(rows.codes[rows.observed[:, count + d], d], minlength=size)
        for d, size in enumerate(sizes(part.features))
    ]
    observed = rows.observed.sum(0, dtype=np.int64)
    return Seen(tuple(tallies), tuple(codes), observed, len(rows.observed))


def add_seen(one: Seen, other: Seen) -> Seen:
    """Both parts together."""
    numeric = map(transforms.add_tallies, one.numeric, other.numeric)
    codes = (a + b for a, b in zip(one.codes, other.codes, strict=True))
    observed = one.observed + other.observed
    return Seen(tuple(numeric), tuple(codes), observed, one.rows + other.rows)


def fit_part(
    part: Part, table: Table, valid: np.ndarray, max_knots: int
) -> dict[str, Any]:
    """Fill values, quantile transform and missing shares of one table.

    Args:
      valid: Bool, the shape of the table without its columns: rows that exist.
      max_knots: of `transforms.fit_quantile_normal`.
    """
    return fit_seen(part, see(part, table, valid), max_knots)


def fit_seen(part: Part, seen: Seen, max_knots: int) -> dict[str, Any]:
    """`fit_part` from what was seen: the same in whatever parts it was read."""
    # A sum over the distinct values does not depend on the order of rows.
    means = [
        (values * counts).sum() / max(counts.sum(), 1)
        for values, counts in seen.numeric
    ]
    modes = np.array([counts.argmax() for counts in seen.codes], np.int32)
    knots = transforms.fit_tallies(seen.numeric, part.numeric, max_knots)
    shares = seen.observed / max(seen.rows, 1)
    return {
        "fill": impute.Fill(np.array(means, np.float64), modes)._asdict(),
        "quantile": knots._asdict(),
        "missing": 1.0 - shares,
    }


def frequencies(
    cardinalities: tuple[int, ...], codes: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
    """Share of each category among rows of codes [rows, D]: [D, K], 0 at padding.

    Args:
      known: Bool [rows, D]: the codes to count; all of them by default.
    """
    return shares_of(cardinalities, code_counts(cardinalities, codes, known))


def code_counts(
    cardinalities: tuple[int, ...], codes: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
    """Int [D, K]: rows of each category; adds up over parts of a cohort."""
    found = np.zeros((len(cardinalities), max(cardinalities, default=1)), np.int64)
    for column, size in enumerate(cardinalities):
        seen = codes[:, column] if known is None else codes[known[:, column], column]
        found[column, :size] = np.bincount(seen, minlength=size)[:size]
    return found


def shares_of(cardinalities: tuple[int, ...], counts: np.ndarray) -> np.ndarray:
    """Float [D, K], 0 at padding."""
    shares = np.zeros(counts.shape)
    for column, size in enumerate(cardinalities):
        # One imagined observation a category keeps the logarithm of a rare one finite.
        shares[column, :size] = counts[column, :size] + 1.0
        shares[column] /= counts[column].sum() + size
    return shares


def encode_part(
    fitted: dict[str, Any], part: Part, table: Table, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Numeric columns as normal scores, and the coded block without `extra` columns."""
    return encode_filled(fitted, part, filled(fitted, part, table, valid))


def filled(
    fitted: dict[str, Any], part: Part, table: Table, valid: np.ndarray
) -> Table:
    """The table without gaps; `observed` says where they were."""
    fill = impute.Fill(**fitted["fill"])
    table = table._replace(observed=table.observed & valid[..., None])
    if table.numeric.ndim == 3:
        return impute.impute_temporal(table, valid, fill, sizes(part.features))
    return impute.impute_static(table, fill)


def encode_filled(
    fitted: dict[str, Any], part: Part, table: Table
) -> tuple[np.ndarray, np.ndarray]:
    """The same of a table that has no gaps any more."""
    knots = transforms.QuantileNormal(**fitted["quantile"])
    masks = ~table.observed[..., list(part.masked)]
    codes = table.codes[..., list(part.coded_positions)]
    return transforms.forward(knots, table.numeric), np.concatenate([codes, masks], -1)


def decode_part(
    fitted: dict[str, Any], part: Part, z: np.ndarray, block: np.ndarray
) -> Table:
    """One table back in its own units; a value under a mask of 1 is missing.

    A column that was never (always) missing in training stays so: the model saw no
    example of the other. Columns of the block behind the masks are not read.
    """
    numeric = transforms.inverse(transforms.QuantileNormal(**fitted["quantile"]), z)
    coded, modelled = len(part.features) - len(part.numeric), len(part.coded)
    codes = np.zeros((*block.shape[:-1], coded), np.int32)
    codes[..., list(part.coded_positions)] = block[..., :modelled]
    observed = np.ones((*block.shape[:-1], len(part.features)), bool)
    masks = block[..., modelled : modelled + len(part.masked)]
    observed[..., list(part.masked)] = masks == 0
    return Table(numeric, codes, as_in_training(observed, fitted["missing"]))
