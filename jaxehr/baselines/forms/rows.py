"""One row a patient: all steps side by side (`flat`), or summed over time (`sums`).

The columns of a row are the static ones, then those of each step; in `sums` the share
of its steps at which each temporal column is 1. Each column has its own quantile
transform. A gap takes the last value carried forward, then the patient's mean, then the
training mean [cdmt2026, Sec. 4.1], and a mask says "missing" where the column
is missing sometimes; steps beyond the end are gaps too, with the masks of the last
step. Length, and the label where it is no condition, are codes. Notation: `layout`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.baselines.forms.layout import (
    KNOTS,
    Batch,
    Form,
    Layout,
    distinct_lengths,
    label_extra,
    length_codes,
    length_of,
    varying,
    without_gaps,
)
from jaxehr.core import sparse
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Cohort,
    Feature,
    Schema,
    Table,
    empty_table,
    make_cohort,
    numeric_features,
    to_dense,
    valid_steps,
)
from jaxehr.core.sparse import SparseTable
from jaxehr.data import impute, mixed, transforms
from jaxehr.data.encoding import host, sizes, small
from jaxehr.data.mixed import Part
from jaxehr.data.packed import Packed, pack, unpack

MOST_COLUMNS = 50_000


def row_features(schema: Schema, summed: bool) -> tuple[Feature, ...]:
    """The features of a row: static ones, then every temporal one of every step."""
    steps = 0 if summed else schema.num_steps
    named = lambda f, t: dataclasses.replace(f, name=f"{f.name} at {t}")
    each = (named(f, t) for t in range(steps) for f in schema.temporal)
    return (*schema.static, *each)


def side_by_side(static: Table, temporal: Table) -> Table:
    """Tables [N, D] and [N, T, D'] as one table [N, D + T D'] of `row_features`."""
    count = len(static.observed)
    wide = lambda leaf: leaf.reshape(count, -1)
    ends = static.numeric.shape[-1], temporal.numeric.shape[-1]
    seen = [static.observed[:, : ends[0]], wide(temporal.observed[..., : ends[1]])]
    seen += [static.observed[:, ends[0] :], wide(temporal.observed[..., ends[1] :])]
    return Table(
        np.concatenate([static.numeric, wide(temporal.numeric)], 1),
        np.concatenate([static.codes, wide(temporal.codes)], 1),
        np.concatenate(seen, 1),
    )


def apart(schema: Schema, row: Table, steps: int) -> tuple[Table, Table]:
    """The inverse of `side_by_side`."""
    count, numeric = len(row.observed), len(numeric_features(schema.static))
    coded, columns = len(schema.static) - numeric, row.numeric.shape[1]
    stack = lambda leaf: leaf.reshape(
        count, steps, leaf.shape[1] // steps if steps else 0
    )
    seen = row.observed[:, :columns], row.observed[:, columns:]
    static = Table(
        row.numeric[:, :numeric],
        row.codes[:, :coded],
        np.concatenate([seen[0][:, :numeric], seen[1][:, :coded]], 1),
    )
    temporal = Table(
        stack(row.numeric[:, numeric:]),
        stack(row.codes[:, coded:]),
        np.concatenate([stack(seen[0][:, numeric:]), stack(seen[1][:, coded:])], 2),
    )
    return static, temporal


def fit(
    schema: Schema, cohort: Cohort, conditional: bool, *, summed: bool
) -> dict[str, Any]:
    """Everything read off the training patients, as nested dicts of arrays.

    Keys: `row` (quantiles and missing shares of each column), `static` and `temporal`
    (fill values), `lengths`, `counts` [Q, K] of the codes where they are known, and
    `frequency`, these as shares that are never 0; `sums` [S] mean shares, `sparse`,
    `conditional`.

    Raises:
      InputError: too many columns; sums over columns that are not binary or have gaps.
    """
    cohort = host(cohort)
    fitted: dict[str, Any] = {
        "sparse": np.bool_(isinstance(cohort.temporal, SparseTable)),
        "conditional": np.bool_(conditional),
        "lengths": distinct_lengths(cohort),
        "sums": mean_share(schema, cohort) if summed else np.zeros(0),
    }
    cohort = without_steps(cohort) if summed else to_dense(checked(schema, cohort))
    features = row_features(schema, summed)
    row, there = side_by_side(cohort.static, cohort.temporal), existing(cohort)
    seen = row.observed[:, : row.numeric.shape[1]]
    knots = transforms.fit_quantile_normal(
        row.numeric, seen, numeric_features(features), KNOTS
    )
    share = row.observed.sum(0) / np.maximum(there.sum(0), 1)
    fitted["row"] = {"quantile": knots._asdict(), "missing": 1.0 - share}
    for name in ("static", "temporal"):
        kinds = () if summed and name == "temporal" else sizes(getattr(schema, name))
        fitted[name] = impute.fit_fill(getattr(cohort, name), kinds)._asdict()
    layout = layout_of(schema, fitted, summed=summed)
    codes = encode_row(fitted, layout, cohort)[1]
    known = known_codes(layout, row.observed, there, cohort.length)
    fitted["counts"] = mixed.code_counts(layout.cardinalities, codes, known)
    fitted["frequency"] = mixed.shares_of(layout.cardinalities, fitted["counts"])
    return fitted


def exact_shares(layout: Layout, fitted: dict[str, Any]) -> np.ndarray:
    """Float64 [Q, K]: share of each code of training, 0 of one that nobody had.

    A column that nobody has a value of has every code alike.
    """
    counts = np.asarray(fitted["counts"])
    total = counts.sum(1, keepdims=True)
    sizes = np.asarray(layout.cardinalities, np.int64)[:, None]
    even = (np.arange(counts.shape[1]) < sizes) / np.maximum(sizes, 1)
    return np.where(total > 0, counts / np.maximum(total, 1), even)


def checked(schema: Schema, cohort: Cohort) -> Cohort:
    """The cohort, unless its rows have too many columns."""
    columns = len(schema.static) + schema.num_steps * len(schema.temporal)
    if columns > MOST_COLUMNS:
        raise InputError(
            f"one row a patient has {columns} columns ({schema.num_steps} steps of "
            f"{len(schema.temporal)}), at most {MOST_COLUMNS} are allowed; prepare "
            "larger steps, or take --rows sums if the columns are binary."
        )
    return cohort


def without_steps(cohort: Cohort) -> Cohort:
    """The cohort with a temporal table of no column and no step."""
    return cohort._replace(temporal=empty_table((len(cohort.label), 0), ()))


def existing(cohort: Cohort) -> np.ndarray:
    """Bool [N, columns of a row]: what is neither padding nor of an absent part."""
    part = lambda table, has: table._replace(
        observed=np.broadcast_to(has[..., None], table.observed.shape)
    )
    static = part(cohort.static, cohort.has_static)
    steps = np.arange(cohort.temporal.observed.shape[1])
    temporal = part(cohort.temporal, steps < cohort.length[:, None])
    return side_by_side(static, temporal).observed


def mean_share(schema: Schema, cohort: Cohort) -> np.ndarray:
    """Float64 [S]: share of ones among the valid steps of training.

    Raises:
      InputError: a temporal column that is not binary, or has gaps.
    """
    other = [f.name for f in schema.temporal if f.kind != "binary"]
    if other:
        raise InputError(
            f"sums over time need binary columns; temporal feature {other[0]!r} is not "
            f"({len(other)} of {len(schema.temporal)} are not). Use --rows flat."
        )
    table, total = cohort.temporal, max(int(cohort.length.sum()), 1)
    if isinstance(table, SparseTable):
        return sparse.column_counts(table) / total
    gaps = int(np.count_nonzero(~table.observed[valid_steps(cohort)]))
    if gaps:
        raise InputError(
            f"sums over time need every value; {gaps} temporal values are missing. Use "
            "--rows flat."
        )
    return table.codes.sum((0, 1)) / total


def layout_of(schema: Schema, fitted: dict[str, Any], *, summed: bool) -> Layout:
    """The columns of a row."""
    lengths = tuple(int(n) for n in fitted["lengths"])
    conditional = bool(fitted["conditional"])
    extra = (("length", len(lengths)),) if len(lengths) > 1 else ()
    part = Part(
        row_features(schema, summed),
        varying(fitted["row"]["missing"]),
        (*extra, *label_extra(schema, conditional)),
    )
    return Layout(
        schema,
        (part,),
        0,
        len(schema.temporal) if summed else 0,
        schema.num_classes if conditional else 0,
        lengths,
        bool(fitted["sparse"]),
    )


def encode_row(
    fitted: dict[str, Any], layout: Layout, cohort: Cohort
) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores [N, P] and codes [N, Q] of a dense cohort."""
    table, schema = cohort.temporal, layout.schema
    static, temporal = (impute.Fill(**fitted[name]) for name in ("static", "temporal"))
    kinds = sizes(schema.temporal) if table.codes.shape[-1] else ()
    row = side_by_side(
        impute.impute_static(cohort.static, static),
        without_gaps(table, cohort.length, temporal, kinds),
    )
    z, block = mixed.encode_filled(fitted["row"], layout.parts[0], row)
    columns = {"length": length_codes(layout.lengths, cohort.length)}
    columns["label"] = cohort.label
    extra = [columns[name][:, None] for name in layout.extra]
    return z.astype(np.float32), np.concatenate([block, *extra], 1).astype(np.int32)


def known_codes(
    layout: Layout, observed: np.ndarray, there: np.ndarray, length: np.ndarray
) -> np.ndarray:
    """Bool [N, Q]: which codes are neither filled in nor padding."""
    part, numeric = layout.parts[0], layout.numbers
    extra = {"length": length > 0, "label": length >= 0}
    known = [
        observed[:, [numeric + place for place in part.coded_positions]],
        there[:, list(part.masked)],
        *(extra[name][:, None] for name in layout.extra),
    ]
    return np.concatenate(known, 1)


def known_values(
    layout: Layout, codes: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bool [N, P] and [N, Q] of encoded patients with both parts: neither filled in nor
    padding."""
    part, static = layout.parts[0], layout.schema.static
    each = max(len(layout.schema.temporal), 1)
    steps = [max(i - len(static), -1) // each for i in range(len(part.features))]
    order = sorted(range(len(steps)), key=lambda i: not part.features[i].is_numeric)
    there = np.array(steps)[order] < length[:, None]
    observed, first = there.copy(), len(part.coded)
    masks = codes[:, first : first + len(part.masked)]
    observed[:, list(part.masked)] &= masks == 0
    known = known_codes(layout, observed, there, length)
    return observed[:, : layout.numbers], known


def encode(fitted: dict[str, Any], layout: Layout, cohort: Cohort) -> Batch:
    """Patients as NumPy arrays; the ones of a sparse table are `Packed` for sums."""
    cohort, sums = host(cohort), np.zeros((len(cohort.label), 0), np.float32)
    if layout.sums:
        table = cohort.temporal
        if isinstance(table, SparseTable):
            sums = pack(table)
        else:
            steps = np.maximum(cohort.length, 1)[:, None]
            sums = (table.codes.sum(1) / steps).astype(np.float32)
        cohort = without_steps(cohort)
    z, codes = encode_row(fitted, layout, to_dense(cohort))
    label, length = cohort.label.astype(np.int32), cohort.length.astype(np.int32)
    return Batch(label, length, z, small(codes, layout.cardinalities), sums)


def take(layout: Layout, data: Batch, rows: jax.Array) -> Batch:
    """The patients `rows` [B]; a sparse table becomes dense, then sums."""
    sums, rest = data.sums, data._replace(sums=None)
    rest = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], rest)
    if isinstance(sums, Packed):
        ones = unpack(sums, rows, layout.schema.num_steps, layout.sums)
        steps = jnp.maximum(rest.length, 1).astype(jnp.float32)[:, None]
        return rest._replace(sums=ones.sum(1) / steps)
    return rest._replace(sums=jnp.asarray(sums)[rows])


def finish(layout: Layout, keys: jax.Array, drawn: Batch, mode: bool) -> Batch:
    """Length and label from their codes; sums dealt out over the steps."""
    length = length_of(layout, drawn.codes)
    label = drawn.label
    if "label" in layout.extra:
        label = drawn.codes[:, layout.extra["label"]]
    sums, drawn = drawn.sums, drawn._replace(sums=None)
    if layout.sums:
        deal_out = lambda row: deal(layout.schema.num_steps, mode, *row)
        sums = jax.lax.map(deal_out, (keys, sums, length), batch_size=8)
    return drawn._replace(label=label.astype(jnp.int32), length=length, sums=sums)


def deal(
    steps: int, mode: bool, key: jax.Array, share: jax.Array, length: jax.Array
) -> jax.Array:
    """Bool [T, S]: share [S] of the first `length` steps, which ones is chance.

    The number of ones is share x length, rounded to one of its neighbours with the
    chances that keep the mean (with `mode` to the nearer one). Every choice of so many
    steps is alike likely: what a column did over time is lost in a sum.
    """
    key_count, key_place = jax.random.split(key)
    wanted = jnp.clip(share, 0.0, 1.0) * length
    up = 0.5 if mode else jax.random.uniform(key_count, share.shape)
    left = jnp.floor(wanted + up)

    def one(left: jax.Array, ahead: Any) -> tuple[jax.Array, jax.Array]:
        step, u = ahead
        chosen = u * (length - step) < left
        chosen &= step < length
        return left - chosen, chosen

    u = jax.random.uniform(key_place, (steps, *share.shape))
    return jax.lax.scan(one, left, (jnp.arange(steps), u))[1]


def decode(fitted: dict[str, Any], layout: Layout, drawn: Batch) -> Cohort:
    """Finished patients in the units, kinds and bounds of the data."""
    z, codes = np.asarray(drawn.numeric), np.asarray(drawn.codes, np.int32)
    length, label = np.asarray(drawn.length), np.asarray(drawn.label)
    row = mixed.decode_part(fitted["row"], layout.parts[0], z, codes)
    steps = 0 if layout.sums else layout.schema.num_steps
    static, temporal = apart(layout.schema, row, steps)
    if layout.sums:
        temporal = table_of_ones(layout, np.asarray(drawn.sums), length)
    elif layout.sparse:
        temporal = sparse.from_dense(temporal.codes, length)
    return make_cohort(static, temporal, length, label)


def table_of_ones(
    layout: Layout, ones: np.ndarray, length: np.ndarray
) -> Table | SparseTable:
    """A temporal table of ones [N, T, S], sparse if that of training is."""
    if layout.sparse:
        return sparse.from_dense(ones, length)
    return Table(np.zeros((*ones.shape[:2], 0)), ones, np.ones(ones.shape, bool))


def text(layout: Layout) -> str:
    """What the form is, for the report."""
    part = layout.parts[0]
    how = f"; {layout.sums} columns summed over time" if layout.sums else ""
    label = "condition" if layout.classes else "column"
    said = f"label as {label}" if layout.schema.label else "no label"
    return (
        f"one row a patient: {layout.numbers} normal scores, "
        f"{len(layout.cardinalities)} codes ({len(part.masked)} of them say what is "
        f"missing){how}; {said}"
    )


def form(summed: bool) -> Form:
    """`flat`, or `sums`."""
    return SUMS if summed else FLAT


FLAT, SUMS = (
    Form(
        functools.partial(fit, summed=summed),
        functools.partial(layout_of, summed=summed),
        encode,
        take,
        finish,
        decode,
        text,
    )
    for summed in (False, True)
)
