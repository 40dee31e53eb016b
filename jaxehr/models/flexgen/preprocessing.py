"""From patients to what the autoencoders see, and back; fitted on training patients.

Numeric columns become standard normal by their quantiles; counts are kept beside them.
What is missing is 0 with `observed` False: the networks read nothing else of it and no
loss scores it. Everything fitted is a nested dict of arrays. A sparse temporal table
stays sparse (`Packed`) until `take` makes a dense batch of it.

Notation: N patients, T steps, D features.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core import sparse
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Cohort,
    Schema,
    Table,
    make_cohort,
    numeric_features,
    valid_steps,
)
from jaxehr.core.labels import count_patterns
from jaxehr.core.sparse import SparseTable
from jaxehr.data import packed, transforms
from jaxehr.data.encoding import as_in_training, host, missing_shares, small
from jaxehr.data.packed import Packed, pack, repack, unpack
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.layout import Layout, Part

SLICE = 1 << 23  # ones that are counted at once


class Block(NamedTuple):
    """Rows of one part, columns in the part's order; * = N, or N x T."""

    numeric: Any  # float32 [*, numeric], normal scores, 0 where missing
    counts: Any  # float32 [*, counts], value above the lowest of training
    codes: Any  # int8, int32 or bool [*, coded], 0 where missing
    observed: Any  # bool [*, D]; [*, 0] of a sparse part


class Encoded(NamedTuple):
    """Patients: data to train on, or drawn ones on their way to `decode`."""

    label: Any  # int32 [N]
    has_static: Any  # bool [N]
    has_temporal: Any  # bool [N]
    length: Any  # int32 [N]
    static: Block
    temporal: Any  # Block, or Packed


class Records(NamedTuple):
    """One part of some patients: what its autoencoder is trained on."""

    label: Any  # int32 [n]
    length: Any  # int32 [n]; not read of a static part
    block: Any  # Block; Packed before `take`


def fit(
    schema: Schema, layout: Layout, config: FlexgenConfig, cohort: Cohort
) -> dict[str, Any]:
    """Everything read off the training patients, as nested dicts of arrays.

    Keys: `static` and `temporal` (`fit_part`; the latter with `lengths` [T + 1], the
    patients of every length) and `presence` [classes, 2, 2], the patients by label,
    presence of the static and presence of the temporal part.
    """
    cohort = host(cohort)
    valid = valid_steps(cohort)
    temporal = fit_part(layout.temporal, config, cohort.temporal, valid)
    temporal["lengths"] = np.bincount(cohort.length, minlength=schema.num_steps + 1)
    return {
        "static": fit_part(layout.static, config, cohort.static, cohort.has_static),
        "temporal": temporal,
        "presence": count_patterns(schema, cohort),
    }


def fit_part(
    part: Part, config: FlexgenConfig, table: Table | SparseTable, valid: np.ndarray
) -> dict[str, Any]:
    """Quantile transform, missing shares and marginals of one part.

    Keys: `quantile`, `missing` [D] in the order of `Table.observed`, `low` and
    `count_mean` [counts], `codes` [coded, K] (training rows of every code) and `rows`.

    Args:
      valid: Bool, the shape of the table without its columns: rows that exist.
    """
    if part.sparse and isinstance(table, SparseTable):
        rows = empty_rows(part)
        ones, total = count_ones(table), int(table.length.sum())
        codes, missing = np.stack([total - ones, ones], 1), np.zeros(table.features)
    else:
        whole = (table.numeric, table.codes, table.observed)
        rows = Table(*(leaf[valid] for leaf in whole))
        codes, total = count_codes(part, rows), len(rows.observed)
        missing = missing_shares(rows.observed)
    numeric = numeric_features(part.features)
    seen = rows.observed[:, : len(numeric)]
    knots = transforms.fit_quantile_normal(
        rows.numeric, seen, numeric, config.max_knots
    )
    count_columns = list(part.numeric_order[part.num_normal :])
    low = knots.values[count_columns, 0] if count_columns else np.zeros(0)
    above = np.where(seen, rows.numeric, 0.0)[:, count_columns] - low
    seen = seen[:, count_columns]
    mean = np.where(seen, above, 0.0).sum(0) / np.maximum(seen.sum(0), 1)
    return {
        "quantile": knots._asdict(),
        "missing": missing,
        "low": low,
        "count_mean": mean,
        "codes": codes,
        "rows": np.int64(total),
    }


def empty_rows(part: Part) -> Table:
    """A table of 0 rows for a part without numeric columns."""
    count = len(part.features)
    return Table(
        np.zeros((0, 0)), np.zeros((0, count), np.int32), np.zeros((0, count), bool)
    )


def count_ones(table: SparseTable) -> np.ndarray:
    """Int64 [D], slice by slice: `bincount` would make int64 of all ones at once."""
    total = np.zeros(table.features, np.int64)
    for first in range(0, len(table.cells), SLICE):
        piece = table._replace(cells=table.cells[first : first + SLICE])
        total += sparse.column_counts(piece)
    return total


def count_codes(part: Part, rows: Table) -> np.ndarray:
    """Observed training rows of each code: [coded, largest K], 0 at padding."""
    widths = [width for width, count in part.groups for _ in range(count)]
    counts = np.zeros((len(widths), max(widths, default=2)), np.int64)
    numeric = len(part.numeric_order)
    for row, column in enumerate(part.codes_order):
        seen = rows.codes[rows.observed[:, numeric + column], column]
        counts[row] = np.bincount(seen, minlength=counts.shape[1])
    return counts


def encode(fitted: dict[str, Any], layout: Layout, cohort: Cohort) -> Encoded:
    """Patients as NumPy arrays; missing values and padding are 0."""
    cohort = host(cohort)
    if layout.temporal.sparse and isinstance(cohort.temporal, SparseTable):
        temporal = pack(cohort.temporal)
    else:
        temporal = encode_part(
            fitted["temporal"], layout.temporal, cohort.temporal, valid_steps(cohort)
        )
    static = encode_part(
        fitted["static"], layout.static, cohort.static, cohort.has_static
    )
    return Encoded(
        cohort.label.astype(np.int32),
        cohort.has_static.astype(bool),
        cohort.has_temporal.astype(bool),
        cohort.length.astype(np.int32),
        static,
        temporal,
    )


def encode_part(
    fitted: dict[str, Any],
    part: Part,
    table: Table | SparseTable,
    valid: np.ndarray,
) -> Block:
    """One dense part; `valid` are the rows that exist.

    Raises:
      InputError: a missing value, though the model was trained on a sparse table.
    """
    observed = table.observed & valid[..., None]
    gaps = int(np.count_nonzero(~observed[valid]))
    if part.sparse and gaps:
        raise InputError(
            "the model was trained on a sparse table, where every value of a valid "
            f"step is known; {gaps} temporal values of this cohort are missing."
        )
    observed = observed[..., list(part.observed_order)]
    numeric, coded = len(part.numeric_order), len(part.codes_order)
    known = observed[..., :numeric]
    order = list(part.numeric_order)
    raw = np.where(known, table.numeric[..., order], 0.0)
    knots = transforms.QuantileNormal(
        **{name: np.asarray(leaf)[order] for name, leaf in fitted["quantile"].items()}
    )
    z = np.where(known, transforms.forward(knots, raw), 0.0).astype(np.float32)
    known = known[..., part.num_normal :]
    above = np.maximum(raw[..., part.num_normal :] - fitted["low"], 0.0)
    counts = np.where(known, above, 0.0).astype(np.float32)
    seen = observed[..., numeric : numeric + coded]
    codes = np.where(seen, table.codes[..., list(part.codes_order)], 0)
    codes = small(codes, (width for width, _ in part.groups))
    return Block(z, counts, codes, observed[..., : part.num_flags])


def records(encoded: Encoded, which: str, rows: np.ndarray | None = None) -> Records:
    """The part `which` of the patients that have it, or of the patients `rows`."""
    has = encoded.has_static if which == "static" else encoded.has_temporal
    rows = np.flatnonzero(has) if rows is None else rows
    block = encoded.static if which == "static" else encoded.temporal
    if isinstance(block, Packed):
        block = block._replace(start=block.start[rows], count=block.count[rows])
    else:
        block = Block(*(leaf[rows] for leaf in block))
    return Records(encoded.label[rows], encoded.length[rows], block)


def gather(block: Any, rows: np.ndarray) -> Any:
    """The patients `rows` of one part, on the host."""
    if isinstance(block, Packed):
        return packed.gather(block, rows)
    return Block(*(np.asarray(leaf)[rows] for leaf in block))


def gather_all(data: Encoded, rows: np.ndarray) -> Encoded:
    """The patients `rows` with both parts, on the host."""
    found = {
        name: np.asarray(getattr(data, name))[rows] for name in Encoded._fields[:4]
    }
    parts = {name: gather(getattr(data, name), rows) for name in Encoded._fields[4:]}
    return Encoded(**found, **parts)


def take(part: Part, data: Records, rows: jax.Array) -> Records:
    """The dense batch of the patients `rows` [B]; for `Objective.take`."""
    block = data.block
    if isinstance(block, Packed):
        codes = unpack(block, rows, part.steps, len(part.features))
        empty = jnp.zeros((*codes.shape[:2], 0), jnp.float32)
        block = Block(empty, empty, codes, empty.astype(bool))
    else:
        block = Block(*(leaf[rows] for leaf in block))
    return Records(data.label[rows], data.length[rows], block)


def decode(fitted: dict[str, Any], layout: Layout, drawn: Encoded) -> Cohort:
    """Drawn (or encoded) patients in the units, kinds and bounds of the data.

    A column that was never (always) missing in training stays so. The temporal table is
    sparse if the layout's is; decode in blocks of patients and join these.
    """
    length = np.where(drawn.has_temporal, drawn.length, 0).astype(np.int32)
    static = decode_part(fitted["static"], layout.static, drawn.static)
    known = np.asarray(drawn.has_static)[:, None]
    static = static._replace(observed=static.observed & known)
    temporal = drawn.temporal
    part = layout.temporal
    if isinstance(temporal, Packed):
        made: Any = repack(temporal, length, part.steps, len(part.features))
    elif part.sparse:
        made = sparse.from_dense(np.asarray(temporal.codes), length)
    else:
        made = decode_part(fitted["temporal"], part, temporal)
    return make_cohort(static, made, length, np.asarray(drawn.label))


def decode_part(fitted: dict[str, Any], part: Part, block: Block) -> Table:
    """One dense part back in its own units and column order."""
    block = Block(*map(np.asarray, block))
    shape, order = block.codes.shape[:-1], list(part.numeric_order)
    knots = transforms.QuantileNormal(**fitted["quantile"])
    z = np.zeros((*shape, len(order)))
    z[..., order] = block.numeric
    numeric = transforms.inverse(knots, z)
    columns = order[part.num_normal :]
    above = block.counts.astype(np.float64) + fitted["low"]
    lower, upper = np.asarray(knots.lower)[columns], np.asarray(knots.upper)[columns]
    numeric[..., columns] = np.clip(above, lower, upper)
    codes = np.zeros((*shape, len(part.features) - len(order)), np.int32)
    codes[..., list(part.codes_order)] = block.codes
    observed = np.ones((*shape, len(part.features)), bool)
    if part.num_masks:
        observed[..., list(part.observed_order)] = block.observed
    return Table(numeric, codes, as_in_training(observed, fitted["missing"]))
