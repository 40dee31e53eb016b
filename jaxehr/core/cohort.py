"""The core data types: Feature, Label, Schema, Table, Cohort, Dataset.

A cohort holds patients (or stays) with two modalities: a static table of shape
[patients, features] and a temporal table of shape [patients, steps, features] on a
regular time grid. Arrays live in NamedTuples (pytrees), names and kinds in the frozen,
hashable Schema, so that `jit` sees arrays only. Host arrays are NumPy; numeric values
are float64 there, so a cohort folder survives a round trip exactly.
"""

import collections
import dataclasses
import functools
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from jaxehr.core import sparse
from jaxehr.core.array_checks import check_leaves, whole_numbers
from jaxehr.core.checks import InputError, known
from jaxehr.core.dtypes import FLOATS, INTEGERS, TEXTS, check_dtype, settled
from jaxehr.core.rule_checks import check_rules
from jaxehr.core.rules import Column, Rule
from jaxehr.core.sparse import SparseTable

Kind = Literal["numeric", "integer", "binary", "categorical", "constant"]
Aggregate = Literal["mean", "last", "nearest"]
KINDS: tuple[str, ...] = get_args(Kind)
NUMERIC_KINDS = ("numeric", "integer")
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """One column; `categories` are the values of a coded column in code order.

    Attributes:
      kind: `numeric` and `integer` columns live in `Table.numeric`; `binary`,
        `categorical` and `constant` ones in `Table.codes`.
      dtype: Arrow type name of the column on disk (`double`, `int64`, `string`, ...);
        "" = by the kind, or the first of bool, int64, double, string that holds all
        categories.
      lower, upper: closed bounds of a numeric column; None = unbounded.
      aggregate: how several observations in one time bin become one value.
    """

    name: str
    kind: Kind
    dtype: str = ""
    categories: tuple[Any, ...] = ()
    unit: str = ""
    lower: float | None = None
    upper: float | None = None
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        known("kind", self.kind, KINDS)
        known("aggregate", self.aggregate, get_args(Aggregate))
        object.__setattr__(self, "categories", tuple(self.categories))
        if self.is_numeric:
            self.check_bounds()
        else:
            self.check_count()
        dtype = settled(self.kind, self.name, self.dtype, self.categories)
        object.__setattr__(self, "dtype", dtype)

    def check_bounds(self) -> None:
        if self.categories:
            raise InputError(f"feature {self.name!r}: {self.kind} has no categories.")
        ends = [end for end in (self.lower, self.upper) if end is not None]
        if ends != sorted(ends):
            raise InputError(
                f"feature {self.name!r}: lower {self.lower} exceeds upper {self.upper}."
            )

    def check_count(self) -> None:
        count = len(self.categories)
        if len(set(self.categories)) != count:
            raise InputError(f"feature {self.name!r}: categories repeat.")
        allowed = {"binary": count == 2, "constant": count == 1}.get(
            self.kind, count >= 2
        )
        if not allowed:
            raise InputError(
                f"feature {self.name!r}: kind {self.kind!r} with {count} categories; "
                "binary needs 2, constant 1, categorical 2 or more."
            )

    @property
    def is_numeric(self) -> bool:
        return self.kind in NUMERIC_KINDS

    @property
    def cardinality(self) -> int:
        return len(self.categories)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """The outcome of a stay: one class per stay, `classes` in code order.

    `dtype` is as that of a coded `Feature`.
    """

    name: str
    classes: tuple[Any, ...]
    dtype: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise InputError(
                f"label {self.name!r} has {len(set(self.classes))} class(es) "
                f"{list(self.classes)}; at least two are needed. Choose another label, "
                "or prepare the cohort without one."
            )
        dtype = settled("label", self.name, self.dtype, self.classes)
        object.__setattr__(self, "dtype", dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schema:
    """Names, kinds, rules, and the time grid: row k of a stay is at start + k * step.

    `rules` are what `jaxehr.data.rules` counts and enforces; reading checks no rule.
    """

    static: tuple[Feature, ...] = ()
    temporal: tuple[Feature, ...] = ()
    num_steps: int = 0
    id: str = "id"
    id_dtype: str = "int64"
    time: str = "time"
    time_dtype: str = ""  # int64 if it holds the grid, else double
    time_unit: str = "h"
    start: float = 0.0
    step: float = 1.0
    label: Label | None = None
    group: str | None = None
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for name in ("static", "temporal", "rules"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for part, reserved in (
            (self.static, [self.id, self.group, self.label and self.label.name]),
            (self.temporal, [self.id, self.time]),
        ):
            names = [name for name in reserved if name] + [f.name for f in part]
            counts = collections.Counter(names)
            twice = sorted(name for name, count in counts.items() if count > 1)
            if twice:
                raise InputError(
                    f"schema: column name(s) {twice} occur more than once."
                )
        if not self.static and not self.temporal:
            raise InputError(
                "schema: no feature; at least one static or temporal is needed."
            )
        if self.temporal and (self.num_steps < 1 or self.step <= 0):
            raise InputError(
                f"schema: num_steps {self.num_steps} and step {self.step} "
                "must be positive."
            )
        self.check_ids_and_times()
        if self.rules:
            check_rules(self.rules, self.columns)

    def check_ids_and_times(self) -> None:
        whole = float(self.step).is_integer() and float(self.start).is_integer()
        own = "int64" if whole else "double"
        object.__setattr__(self, "time_dtype", self.time_dtype or own)
        check_dtype("id", self.id, self.id_dtype, (*INTEGERS[:-1], *TEXTS))
        check_dtype("time", self.time, self.time_dtype, (*INTEGERS, *FLOATS))
        if self.time_dtype in INTEGERS and not whole:
            raise InputError(
                f"schema: time {self.time!r}: dtype {self.time_dtype!r} cannot hold "
                f"start {self.start} and step {self.step}; use 'double'."
            )

    @property
    def columns(self) -> dict[str, Column]:
        """Every feature by name; a static one that is also temporal is "x (static)"."""
        found = {f.name: Column("temporal", i, f) for i, f in enumerate(self.temporal)}
        for i, feature in enumerate(self.static):
            name = f"{feature.name} (static)" if feature.name in found else feature.name
            found[name] = Column("static", i, feature)
        return found

    @property
    def num_classes(self) -> int:
        """Number of label classes; 0 without a label."""
        return len(self.label.classes) if self.label else 0

    def replace(self, **changes: Any) -> "Schema":
        return dataclasses.replace(self, **changes)


def numeric_features(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    return tuple(f for f in features if f.is_numeric)


def coded_features(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    return tuple(f for f in features if not f.is_numeric)


class Table(NamedTuple):
    """One modality; *shape = patients, or patients x steps.

    `observed` follows the order of `numeric`, then `codes`; False = missing, and the
    value beside it is ignored (0 by convention).
    """

    numeric: Any  # Float [*shape, numeric features]
    codes: Any  # Int   [*shape, coded features]
    observed: Any  # Bool  [*shape, features]


class Cohort(NamedTuple):
    """Patients: real or synthetic, whole or batch. Steps from `length` on are padding.

    A stay has its static part when any static value is observed, and its temporal part
    when it has at least one step. On the host `temporal` may be a `SparseTable`.
    """

    static: Table
    temporal: Any  # Table, or SparseTable
    has_static: Any  # Bool [patients]
    has_temporal: Any  # Bool [patients]
    length: Any  # Int  [patients]
    label: Any  # Int  [patients]; 0 where the schema has no label


class Dataset(NamedTuple):
    """A cohort on the host with its names: what readers return and files hold."""

    schema: Schema
    cohort: Cohort  # NumPy arrays
    ids: np.ndarray  # [patients], int64 or str
    groups: (
        np.ndarray
    )  # [patients]: the person a stay belongs to; the unit of splitting
    provenance: dict[str, Any]


def num_patients(cohort: Cohort) -> int:
    return int(cohort.label.shape[0])


def valid_steps(cohort: Cohort) -> np.ndarray:
    """Bool [patients, steps]: True on the steps before `length`."""
    steps = num_steps(cohort.temporal)
    return np.arange(steps)[None, :] < np.asarray(cohort.length)[:, None]


def num_steps(temporal: Table | SparseTable) -> int:
    """Steps of the grid, padding included."""
    if isinstance(temporal, SparseTable):
        return temporal.steps
    return temporal.observed.shape[1]


def empty_table(shape: tuple[int, ...], features: tuple[Feature, ...]) -> Table:
    """A table with nothing observed."""
    numeric, coded = len(numeric_features(features)), len(coded_features(features))
    return Table(
        np.zeros((*shape, numeric), np.float64),
        np.zeros((*shape, coded), np.int32),
        np.zeros((*shape, numeric + coded), bool),
    )


def make_cohort(
    static: Table,
    temporal: Table | SparseTable,
    length: np.ndarray,
    label: np.ndarray,
) -> Cohort:
    """Puts two tables together: clears missing and padding, derives presence.

    Args:
      static: [N, ...] table; temporal: [N, steps, ...] table; a sparse one stays so.
      length: Int [N] valid steps; label: Int [N] codes.

    Raises:
      InputError: shapes that do not agree; a length, a label or an observed code that
        is no whole number, or out of range.
    """
    count = np.size(length)
    check_leaves("static", static, (count,))
    if not isinstance(temporal, SparseTable):
        check_leaves("temporal", temporal, (count, None))
    length = whole_numbers("length", length, count, num_steps(temporal))
    label = whole_numbers("label", label, count, np.iinfo(np.int32).max)
    if isinstance(temporal, SparseTable):
        temporal = sparse.cut(temporal, length)
    else:
        valid = np.arange(temporal.observed.shape[1])[None, :] < length[:, None]
        seen = temporal.observed & valid[..., None]
        temporal = clear_missing(temporal._replace(observed=seen))
    static = clear_missing(static)
    return Cohort(
        static,
        temporal,
        np.asarray(static.observed).any(-1),
        length > 0,
        length,
        label,
    )


def cleared(cohort: Cohort) -> Cohort:
    """The cohort with 0 beside what is missing and in the padding."""
    return make_cohort(cohort.static, cohort.temporal, cohort.length, cohort.label)


def clear_missing(table: Table) -> Table:
    """Sets what is not observed to 0, so that equal cohorts have equal arrays."""
    count = table.numeric.shape[-1]
    seen = np.asarray(table.observed, bool)
    return Table(
        np.where(seen[..., :count], table.numeric, 0.0).astype(np.float64),
        np.where(seen[..., count:], table.codes, 0).astype(np.int32),
        seen,
    )


def map_patients(function: Any, cohort: Cohort) -> Cohort:
    """Applies `function` to every array of a cohort (all have patients in front).

    Of a sparse table those patients are taken that `function` picks out of 0, 1, ...
    """
    static = Table(*map(function, cohort.static))
    if isinstance(cohort.temporal, SparseTable):
        rows = np.asarray(function(np.arange(num_patients(cohort))))
        temporal = sparse.take_rows(cohort.temporal, rows)
    else:
        temporal = Table(*map(function, cohort.temporal))
    return Cohort(static, temporal, *map(function, cohort[2:]))


def rows_of(cohort: Cohort, rows: np.ndarray) -> Cohort:
    """The patients `rows` (indices or a Boolean mask), in that order."""
    return map_patients(lambda leaf: np.asarray(leaf)[rows], cohort)


def to_dense(cohort: Cohort) -> Cohort:
    """The cohort with a `Table` in place of a sparse temporal table.

    Raises:
      InputError: the dense table has more than 4 GiB.
    """
    table = cohort.temporal
    if not isinstance(table, SparseTable):
        return cohort
    return cohort._replace(temporal=Table(table.numeric, table.codes, table.observed))


def take(data: Dataset, rows: np.ndarray) -> Dataset:
    """The patients at `rows` (indices or a Boolean mask), in that order."""
    cohort = rows_of(data.cohort, rows)
    return data._replace(cohort=cohort, ids=data.ids[rows], groups=data.groups[rows])


def concatenate(cohorts: list[Cohort]) -> Cohort:
    """Stacks cohorts of one schema, patient after patient."""

    def join(*leaves: np.ndarray) -> np.ndarray:
        return np.concatenate(leaves, axis=0)

    static = Table(*map(join, *(c.static for c in cohorts)))
    parts = [c.temporal for c in cohorts]
    if isinstance(parts[0], SparseTable):
        temporal = sparse.join(parts)
    else:
        temporal = Table(*map(join, *parts))
    return Cohort(static, temporal, *map(join, *(c[2:] for c in cohorts)))


@functools.cache
def column_order(features: tuple[Feature, ...]) -> tuple[tuple[bool, int], ...]:
    """For each feature in schema order: (is numeric, position inside its array)."""
    counts = {True: 0, False: 0}
    order = []
    for feature in features:
        order.append((feature.is_numeric, counts[feature.is_numeric]))
        counts[feature.is_numeric] += 1
    return tuple(order)
