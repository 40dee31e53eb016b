"""What a baseline sees of patients: the columns of a form, the same for every form.

Notation: N patients, T steps, P numbers, Q codes, S sums over time, K categories.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxehr.core.cohort import Cohort, Schema, Table
from jaxehr.data import impute
from jaxehr.data.mixed import Part

KNOTS = 256  # of the quantile transform of one column of a row


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of a form, read off the schema and what was fitted.

    Attributes:
      parts: what the columns are; the columns of all parts stand side by side.
      steps: T of a series; 0 of one row a patient.
      sums: temporal columns of which the share of steps at 1 is kept; 0 elsewhere.
      classes: of the condition; 0 = no label, or the label is the last code.
      lengths: the lengths of training, by code; empty where nobody has a step.
      sparse: the temporal table of the data is sparse.
    """

    schema: Schema
    parts: tuple[Part, ...]
    steps: int
    sums: int
    classes: int
    lengths: tuple[int, ...]
    sparse: bool

    @functools.cached_property
    def numbers(self) -> int:
        """P."""
        return sum(len(part.numeric) for part in self.parts)

    @functools.cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """Categories of each of the Q codes."""
        return sum((part.cardinalities for part in self.parts), ())

    @functools.cached_property
    def extra(self) -> dict[str, int]:
        """Places of the codes that are no features: length or ended, label."""
        names = [name for name, _ in self.parts[-1].extra]
        first = len(self.cardinalities) - len(names)
        return {name: first + place for place, name in enumerate(names)}

    @functools.cached_property
    def binary(self) -> tuple[int, ...]:
        """Places of the codes with two categories."""
        return tuple(q for q, k in enumerate(self.cardinalities) if k == 2)

    @functools.cached_property
    def groups(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """K above 2, and the places of the codes with K categories; K rising."""
        sizes = sorted(set(self.cardinalities) - {2})
        places = lambda k: tuple(q for q, n in enumerate(self.cardinalities) if n == k)
        return tuple((k, places(k)) for k in sizes)

    @functools.cached_property
    def width(self) -> int:
        """Columns of the matrix: see `matrix`."""
        hot = sum(k * len(places) for k, places in self.groups)
        return self.numbers + self.sums + len(self.binary) + hot


class Batch(NamedTuple):
    """Encoded or drawn patients; * = N, or N x T of a series."""

    label: Any  # int32 [N]
    length: Any  # int32 [N]
    numeric: Any  # float32 [*, P], normal scores
    codes: Any  # Int [*, Q]
    sums: Any  # float32 [N, S] share of steps at 1; Bool [N, T, S] once drawn;
    # of data before `take` Packed, or float32 [N, S]


class Form(NamedTuple):
    """An adapter, fitted on training patients only.

    Attributes:
      fit: (schema, cohort, conditional) -> nested dicts of arrays.
      layout: (schema, fitted) -> Layout, or what stands for it.
      encode: (fitted, layout, cohort) -> data to train on, NumPy.
      take: (layout, data, rows) -> a batch of patients; for `Objective.take`.
      finish: (layout, keys [B], drawn, mode) -> drawn patients ready for `decode`: what
        is left to chance is drawn; on the device. `mode` = the most probable instead.
      decode: (fitted, layout, drawn) -> Cohort; NumPy.
      text: (layout) -> what the form is, for the report.
    """

    fit: Callable[..., dict[str, Any]]
    layout: Callable[..., Any]
    encode: Callable[..., Any]
    take: Callable[..., Any]
    finish: Callable[..., Any]
    decode: Callable[..., Cohort]
    text: Callable[..., str]


def varying(missing: Any) -> tuple[int, ...]:
    """Places of the columns that are missing sometimes: those that need a mask."""
    missing = np.asarray(missing)
    return tuple(np.flatnonzero((missing > 0.0) & (missing < 1.0)).tolist())


def distinct_lengths(cohort: Cohort) -> np.ndarray:
    """Int [lengths]: the lengths of the patients who have a step, rising."""
    return np.unique(cohort.length[cohort.length > 0]).astype(np.int64)


def length_codes(lengths: tuple[int, ...], length: np.ndarray) -> np.ndarray:
    """Int [N]: code of a length; one that training did not have is the next longer."""
    return np.searchsorted(lengths, length).clip(0, max(len(lengths) - 1, 0))


def length_of(layout: Layout, codes: Any) -> Any:
    """Int32 [N]: lengths of rows of codes [N, Q]."""
    if "length" in layout.extra:
        return jnp.asarray(layout.lengths, jnp.int32)[codes[:, layout.extra["length"]]]
    only = layout.lengths[0] if layout.lengths else 0
    return jnp.full(codes.shape[0], only, jnp.int32)


def label_extra(schema: Schema, conditional: bool) -> tuple[tuple[str, int], ...]:
    """The label as a column, where it is no condition."""
    if conditional or schema.label is None:
        return ()
    return (("label", schema.num_classes),)


def without_gaps(
    table: Table, length: np.ndarray, fill: impute.Fill, kinds: tuple[int, ...]
) -> Table:
    """Values [N, T, D] with gaps filled, then every step beyond `length` a copy of the
    last valid one, mask and all, so that padding looks like the rest.

    In this order, for copies do not count in a patient's mean. A patient without steps
    has a first one, which is a gap.
    """
    steps, last = np.arange(table.observed.shape[1]), np.maximum(length, 1)[:, None] - 1
    filled = impute.impute_temporal(table, steps <= last, fill, kinds)
    at = np.minimum(steps, last)[..., None]
    return Table(*(np.take_along_axis(leaf, at, axis=1) for leaf in filled))
