"""Series: numbers and codes of every step, static ones at each step.

Numeric columns are standard normal by their quantiles over all steps; gaps and masks as
in `rows`. A code says of each step whether the series has ended (where lengths vary),
one the label where it is no condition. Steps beyond the end look like the last one. The
columns of a sparse table are codes that come first and stay sparse until `take`; there
steps beyond the end are 0. Notation: `layout`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.baselines.forms.layout import (
    Batch,
    Form,
    Layout,
    distinct_lengths,
    label_extra,
    varying,
    without_gaps,
)
from jaxehr.core import sparse
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Schema, make_cohort, valid_steps
from jaxehr.core.sparse import SparseTable
from jaxehr.data import impute, mixed
from jaxehr.data.encoding import host, sizes, small
from jaxehr.data.mixed import Part
from jaxehr.data.packed import Packed, pack, unpack

KNOTS = 1000


class Data(NamedTuple):
    """Patients to train on; `packed` are the ones of a sparse table, or None."""

    batch: Batch
    packed: Packed | None


def fit(schema: Schema, cohort: Cohort, conditional: bool) -> dict[str, Any]:
    """Everything read off the training patients, as nested dicts of arrays.

    Keys: `static` and `temporal` (see `mixed.fit_part`; the latter of a dense table
    only), `lengths`, `frequency` [Q, K] of the codes of all steps, `sums` [0],
    `sparse`, `conditional`.

    Raises:
      InputError: a schema without time steps.
    """
    if not schema.temporal:
        raise InputError(
            "schema: no temporal feature, and this baseline makes series; use one that "
            "makes rows, such as vae."
        )
    cohort, part = host(cohort), lambda features: Part(features, ())
    fitted: dict[str, Any] = {
        "sparse": np.bool_(isinstance(cohort.temporal, SparseTable)),
        "conditional": np.bool_(conditional),
        "lengths": distinct_lengths(cohort),
        "sums": np.zeros(0),
        "static": mixed.fit_part(
            part(schema.static), cohort.static, cohort.has_static, KNOTS
        ),
    }
    if not fitted["sparse"]:
        fitted["temporal"] = mixed.fit_part(
            part(schema.temporal), cohort.temporal, valid_steps(cohort), KNOTS
        )
    layout = layout_of(schema, fitted)
    dense = encode(fitted, layout, cohort).batch.codes
    shown = layout.cardinalities[-dense.shape[-1] :] if dense.shape[-1] else ()
    rows = dense.shape[0] * dense.shape[1]  # -1 fails where there is no code
    shares = mixed.frequencies(shown, dense.reshape(rows, dense.shape[-1]))
    if fitted["sparse"]:
        cells = max(int(cohort.length.sum()), 1)
        ones = (sparse.column_counts(cohort.temporal) + 1.0) / (cells + 2.0)
        first = np.zeros((len(ones), max(shares.shape[1], 2)))
        first[:, 0], first[:, 1] = 1.0 - ones, ones
        wider = [(0, 0), (0, first.shape[1] - shares.shape[1])]
        shares = np.concatenate([first, np.pad(shares, wider)])
    fitted["frequency"] = shares
    return fitted


def layout_of(schema: Schema, fitted: dict[str, Any]) -> Layout:
    """The columns of a step: those of the temporal part, then the static ones."""
    lengths = tuple(int(n) for n in fitted["lengths"])
    conditional, is_sparse = bool(fitted["conditional"]), bool(fitted["sparse"])
    ended = (("ended", 2),) if lengths != (schema.num_steps,) else ()
    masked = () if is_sparse else varying(fitted["temporal"]["missing"])
    return Layout(
        schema,
        (
            Part(schema.temporal, masked),
            Part(
                schema.static,
                varying(fitted["static"]["missing"]),
                (*ended, *label_extra(schema, conditional)),
            ),
        ),
        schema.num_steps,
        0,
        schema.num_classes if conditional else 0,
        lengths,
        is_sparse,
    )


def encode(fitted: dict[str, Any], layout: Layout, cohort: Cohort) -> Data:
    """Patients as NumPy arrays."""
    cohort = host(cohort)
    valid, (temporal, static) = valid_steps(cohort), layout.parts
    tiled = lambda leaf: np.broadcast_to(leaf[:, None], (*valid.shape, leaf.shape[-1]))
    z, block = mixed.encode_part(
        fitted["static"], static, cohort.static, cohort.has_static
    )
    z, block, packed = tiled(z), tiled(block), None
    if layout.sparse:
        packed = pack(cohort.temporal)
    else:
        fill = impute.Fill(**fitted["temporal"]["fill"])
        kinds = sizes(temporal.features)
        table = without_gaps(cohort.temporal, cohort.length, fill, kinds)
        first = mixed.encode_filled(fitted["temporal"], temporal, table)
        z, block = (np.concatenate(pair, -1) for pair in zip(first, (z, block)))
    columns = {"ended": ~valid, "label": tiled(cohort.label[:, None])[..., 0]}
    extra = [columns[name][..., None] for name in layout.extra]
    codes = np.concatenate([block, *extra], -1)
    label, length = cohort.label.astype(np.int32), cohort.length.astype(np.int32)
    codes = small(codes, layout.cardinalities)
    none = np.zeros((*valid.shape, 0), np.float32)
    return Data(Batch(label, length, z.astype(np.float32), codes, none), packed)


def take(layout: Layout, data: Data, rows: jax.Array) -> Batch:
    """The patients `rows` [B], dense."""
    batch = Batch(*(jnp.asarray(leaf)[rows] for leaf in data.batch))
    if data.packed is None:
        return batch
    ones = unpack(data.packed, rows, layout.steps, len(layout.parts[0].features))
    codes = [ones.astype(batch.codes.dtype), batch.codes]
    return batch._replace(codes=jnp.concatenate(codes, -1))


def finish(layout: Layout, keys: jax.Array, drawn: Batch, mode: bool) -> Batch:
    """Length: the steps that have not ended, at least 1; label: what most steps say."""
    del keys, mode
    steps = drawn.codes.shape[1]
    length = jnp.full(drawn.codes.shape[0], steps, jnp.int32)
    if "ended" in layout.extra:
        ended = drawn.codes[..., layout.extra["ended"]]
        length = jnp.maximum(steps - ended.sum(1), 1).astype(jnp.int32)
    label = drawn.label
    if "label" in layout.extra:
        column = drawn.codes[..., layout.extra["label"], None]
        label = majority(column, length, layout.schema.num_classes)[:, 0]
    return drawn._replace(label=label.astype(jnp.int32), length=length)


def majority(codes: Any, length: Any, size: int) -> jax.Array:
    """Int [N, D]: the code below `size` that most valid steps of codes [N, T, D] say.

    The lowest one wins a tie.
    """
    valid = (jnp.arange(codes.shape[1]) < length[:, None])[..., None, None]
    ballots = (codes[..., None] == jnp.arange(size)) & valid
    return jnp.argmax(ballots.sum(1), -1)


def decode(fitted: dict[str, Any], layout: Layout, drawn: Batch) -> Cohort:
    """Finished patients; of static columns the mean, and what most valid steps say."""
    temporal, static = layout.parts
    z, codes = np.asarray(drawn.numeric), np.asarray(drawn.codes, np.int32)
    length, label = np.asarray(drawn.length), np.asarray(drawn.label)
    ends = len(temporal.numeric), len(temporal.cardinalities)
    if layout.sparse:
        table = sparse.from_dense(codes[..., : ends[1]], length)
    else:
        table = mixed.decode_part(
            fitted["temporal"], temporal, z[..., : ends[0]], codes[..., : ends[1]]
        )
    valid = (np.arange(z.shape[1]) < length[:, None])[..., None]
    mean = (z[..., ends[0] :] * valid).sum(1) / np.maximum(length, 1)[:, None]
    size = max(static.cardinalities, default=1)
    said = np.asarray(majority(codes[..., ends[1] :], length, size))
    known = mixed.decode_part(fitted["static"], static, mean, said)
    return make_cohort(known, table, length, label)


def text(layout: Layout) -> str:
    """What the form is, for the report."""
    label = "condition" if layout.classes else "column"
    said = f"label as {label}" if layout.schema.label else "no label"
    end = "; a code says where it has ended" if "ended" in layout.extra else ""
    return (
        f"series of {layout.steps} steps: {layout.numbers} normal scores and "
        f"{len(layout.cardinalities)} codes, static columns at each step{end}; {said}"
    )


SERIES = Form(fit, layout_of, encode, take, finish, decode, text)
