"""Mixed tables as numbers and codes, and back; fitted on training patients only.

Missing values are filled (last value carried forward, the patient's mean, the training
mean [cdmt2026, Sec. 4.1]) and their masks become binary columns; numeric columns become
standard normal by their quantiles. Everything fitted is a nested dict of arrays.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxehr.core.cohort import Feature, Table, coded_features, numeric_features
from jaxehr.data import impute, transforms
from jaxehr.data.encoding import as_in_training, missing_shares, sizes


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


def fit_part(
    part: Part, table: Table, valid: np.ndarray, max_knots: int
) -> dict[str, Any]:
    """Fill values, quantile transform and missing shares of one table.

    Args:
      valid: Bool, the shape of the table without its columns: rows that exist.
      max_knots: of `transforms.fit_quantile_normal`.
    """
    rows = Table(*(leaf[valid] for leaf in table))  # [rows, columns]
    seen = rows.observed[:, : len(part.numeric)]
    knots = transforms.fit_quantile_normal(rows.numeric, seen, part.numeric, max_knots)
    return {
        "fill": impute.fit_fill(rows, sizes(part.features))._asdict(),
        "quantile": knots._asdict(),
        "missing": missing_shares(rows.observed),
    }


def frequencies(
    cardinalities: tuple[int, ...], codes: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
    """Share of each category among rows of codes [rows, D]: [D, K], 0 at padding.

    Args:
      known: Bool [rows, D]: the codes to count; all of them by default.
    """
    shares = np.zeros((len(cardinalities), max(cardinalities, default=1)))
    for column, size in enumerate(cardinalities):
        seen = codes[:, column] if known is None else codes[known[:, column], column]
        counts = np.bincount(seen, minlength=size)[:size]
        # One imagined observation a category keeps the logarithm of a rare one finite.
        shares[column, :size] = (counts + 1.0) / (counts.sum() + size)
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
