"""Binary visits: of every step the set of states that are active, as bits.

The states of a column are its categories, or quantile bins of a numeric one; a missing
value has no active state. A binary column without a missing value is one bit, as every
column of a sparse table is. The static columns are a set of their own, before the first
step. A numeric value comes back by chance as one of those that its bin has in training,
as often as there: an atom wider than a bin fills one, the others of it are empty.

Notation: `layout`; D columns of a part in the order of `Table.observed`, V their bits.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr, ndtri

from jaxehr.baselines.forms.layout import Form, distinct_lengths
from jaxehr.core import sparse
from jaxehr.core.cohort import (
    Cohort,
    Feature,
    Schema,
    Table,
    coded_features,
    make_cohort,
    numeric_features,
    valid_steps,
)
from jaxehr.core.sparse import SparseTable
from jaxehr.data import mixed, transforms
from jaxehr.data.encoding import host, small
from jaxehr.data.mixed import Part
from jaxehr.data.packed import Packed, pack, unpack

KNOTS = 1000


@dataclasses.dataclass(frozen=True)
class Bits:
    """The bits of one part.

    Attributes:
      states: of every column. A code c in 0 .. states says which one is active; 0 none.
      optional: whether a column may have none.
      plain: binary columns of one bit, whose code is their value.
      numbers: how many columns, the first ones, are bins.
    """

    features: tuple[Feature, ...]
    states: tuple[int, ...]
    optional: tuple[bool, ...]
    plain: tuple[bool, ...]
    numbers: int

    @functools.cached_property
    def width(self) -> int:
        """V."""
        return sum(self.states)

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """Int [V]: the column of every bit."""
        return np.repeat(np.arange(len(self.states)), self.states)

    @functools.cached_property
    def state(self) -> np.ndarray:
        """Int [V]: the state, 1 .. states, of every bit."""
        counted = [np.arange(1, count + 1) for count in self.states]
        return np.concatenate([np.zeros(0, int), *counted])

    def of(self, codes: jax.Array) -> jax.Array:
        """Bool [.., V] of codes [.., D]."""
        return jnp.asarray(codes)[..., self.owner] == self.state


class VisitLayout(NamedTuple):
    """Both parts of the visits of one cohort."""

    schema: Schema
    static: Bits
    temporal: Bits
    steps: int
    classes: int
    lengths: tuple[int, ...]
    bins: int
    sparse: bool


class Visits(NamedTuple):
    """Patients, encoded or drawn; codes as in `Bits`, 0 at padding."""

    label: Any  # int32 [N]
    length: Any  # int32 [N]
    static: Any  # Int [N, D]
    steps: Any  # Int [N, T, D]; of data before `take` it may be Packed


class Finished(NamedTuple):
    """Drawn patients with the places of their numbers inside their bins, in [0, 1]."""

    visits: Visits
    static: Any  # [N, numbers]
    steps: Any  # [N, T, numbers]

    @property
    def label(self) -> Any:
        return self.visits.label


def fit(
    schema: Schema, cohort: Cohort, conditional: bool, *, bins: int
) -> dict[str, Any]:
    """Everything read off the training patients, as nested dicts of arrays.

    Keys: `static` and `temporal` (see `mixed.fit_part`, and `edges` [numbers, bins + 1]
    of the bins; of a sparse table its missing shares only), `frequency` (`static` and
    `temporal`: [V] share of rows at which a bit is 1), `lengths`, `bins`, `sparse`,
    `conditional`.
    """
    cohort = host(cohort)
    is_sparse = isinstance(cohort.temporal, SparseTable)
    fitted: dict[str, Any] = {
        "sparse": np.bool_(is_sparse),
        "conditional": np.bool_(conditional),
        "bins": np.int64(bins),
        "lengths": distinct_lengths(cohort),
        "static": mixed.fit_part(
            Part(schema.static, ()), cohort.static, cohort.has_static, KNOTS
        ),
        "temporal": {"missing": np.zeros(len(schema.temporal))},
    }
    if not is_sparse:
        fitted["temporal"] = mixed.fit_part(
            Part(schema.temporal, ()), cohort.temporal, valid_steps(cohort), KNOTS
        )
    layout = layout_of(schema, fitted)
    data, rows = encode(fitted, layout, cohort), max(int(cohort.length.sum()), 1)
    fitted["static"]["edges"] = edges_of(layout, layout.static, data.static)
    if not is_sparse:
        fitted["temporal"]["edges"] = edges_of(layout, layout.temporal, data.steps)
    ones = lambda bits, codes: np.asarray(bits.of(codes)).sum(0) / max(len(codes), 1)
    fitted["frequency"] = {
        "static": ones(layout.static, data.static),
        "temporal": sparse.column_counts(cohort.temporal) / rows
        if is_sparse
        else ones(layout.temporal, data.steps[valid_steps(cohort)]),
    }
    return fitted


def edges_of(layout: VisitLayout, bits: Bits, codes: np.ndarray) -> np.ndarray:
    """Float64 [numbers, bins + 1]: share of the values of training below each bin."""
    counts = np.zeros((bits.numbers, layout.bins + 1))
    for column, found in enumerate(counts):
        code = codes[..., column]
        found[1:] = np.bincount(code[code > 0] - 1, minlength=layout.bins)
    return counts.cumsum(1) / np.maximum(counts.sum(1, keepdims=True), 1)


def layout_of(schema: Schema, fitted: dict[str, Any]) -> VisitLayout:
    """The bits of both parts."""
    bins = int(fitted["bins"])
    return VisitLayout(
        schema,
        bits_of(schema.static, fitted["static"]["missing"], bins),
        bits_of(schema.temporal, fitted["temporal"]["missing"], bins),
        schema.num_steps,
        schema.num_classes if fitted["conditional"] else 0,
        tuple(int(n) for n in fitted["lengths"]),
        bins,
        bool(fitted["sparse"]),
    )


def bits_of(features: tuple[Feature, ...], missing: np.ndarray, bins: int) -> Bits:
    """The bits of one part; a column that cannot vary has none."""
    numeric, coded = numeric_features(features), coded_features(features)
    sizes = [bins] * len(numeric) + [f.cardinality for f in coded]
    states, plain = [], []
    for size, share in zip(sizes, np.asarray(missing), strict=True):
        plain.append(size == 2 and share == 0.0 and len(plain) >= len(numeric))
        fixed = share == 1.0 or (size == 1 and share == 0.0)
        states.append(0 if fixed else 1 if plain[-1] else size)
    optional = [one or share > 0.0 for one, share in zip(plain, np.asarray(missing))]
    return Bits(features, tuple(states), tuple(optional), tuple(plain), len(numeric))


def encode(fitted: dict[str, Any], layout: VisitLayout, cohort: Cohort) -> Visits:
    """Patients as NumPy arrays; a sparse table stays sparse."""
    cohort = host(cohort)
    if layout.sparse:
        steps: Any = pack(cohort.temporal)
    else:
        steps = encode_part(
            fitted["temporal"], layout, layout.temporal, cohort.temporal
        )
    return Visits(
        cohort.label.astype(np.int32),
        cohort.length.astype(np.int32),
        encode_part(fitted["static"], layout, layout.static, cohort.static),
        steps,
    )


def encode_part(
    fitted: dict[str, Any], layout: VisitLayout, bits: Bits, table: Table
) -> np.ndarray:
    """Codes [.., D] of one part."""
    knots = transforms.QuantileNormal(**fitted["quantile"])
    z = transforms.forward(knots, table.numeric)
    bins = np.floor(ndtr(z * knots.std + knots.mean) * layout.bins)
    bins = bins.clip(0, layout.bins - 1).astype(np.int32)
    plain = np.asarray(bits.plain[bits.numbers :], bool)
    codes = np.concatenate([1 + bins, table.codes + 1 - plain], -1)
    varies = np.asarray(bits.states, int) > 0
    sizes = [1 + count for count in bits.states]  # 0 is a code too
    return small(np.where(table.observed & varies, codes, 0), sizes)


def take(layout: VisitLayout, data: Visits, rows: jax.Array) -> Visits:
    """The patients `rows` [B], dense."""
    steps, rest = data.steps, data._replace(steps=None)
    rest = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], rest)
    if isinstance(steps, Packed):
        ones = unpack(steps, rows, layout.steps, len(layout.temporal.states))
        return rest._replace(steps=ones.astype(jnp.int8))
    return rest._replace(steps=jnp.asarray(steps)[rows])


def finish(layout: VisitLayout, keys: jax.Array, drawn: Visits, mode: bool) -> Finished:
    """Draws the places of numeric values inside their bins."""
    del mode
    pairs = jax.vmap(jax.random.split)(keys)

    def inside(place: int, bits: Bits, *steps: int) -> jax.Array:
        shape = (*steps, bits.numbers)
        return jax.vmap(lambda key: jax.random.uniform(key, shape))(pairs[:, place])

    steps = inside(1, layout.temporal, drawn.steps.shape[1])
    return Finished(drawn, inside(0, layout.static), steps)


def decode(fitted: dict[str, Any], layout: VisitLayout, drawn: Finished) -> Cohort:
    """Finished patients in the units, kinds and bounds of the data."""
    label, length, static, steps = map(np.asarray, drawn.visits)
    if layout.sparse:
        temporal: Any = sparse.from_dense(steps, length)
    else:
        inside = np.asarray(drawn.steps)
        temporal = decode_part(fitted["temporal"], layout.temporal, steps, inside)
    inside = np.asarray(drawn.static)
    known = decode_part(fitted["static"], layout.static, static, inside)
    return make_cohort(known, temporal, length, label)


def decode_part(
    fitted: dict[str, Any], bits: Bits, codes: np.ndarray, inside: np.ndarray
) -> Table:
    """One part back in its own units."""
    knots = transforms.QuantileNormal(**fitted["quantile"])
    bins = np.maximum(codes[..., : bits.numbers] - 1, 0)
    column = np.arange(bits.numbers)
    low, high = (fitted["edges"][column, bins + more] for more in (0, 1))
    levels = low + inside * (high - low)
    z = (ndtri(levels.astype(np.float64)) - knots.mean) / knots.std
    plain = np.asarray(bits.plain, bool)
    observed = (codes > 0) | ~np.asarray(bits.optional, bool) | plain
    observed &= np.asarray(fitted["missing"]) < 1.0
    values = np.maximum(codes[..., bits.numbers :] - 1 + plain[bits.numbers :], 0)
    return Table(transforms.inverse(knots, z), values.astype(np.int32), observed)


def text(layout: VisitLayout) -> str:
    """What the form is, for the report."""
    said = "label as condition" if layout.classes else "without the label"
    return (
        f"{layout.steps} binary visits of {layout.temporal.width} bits after "
        f"{layout.static.width} static ones, numbers in {layout.bins} quantile bins; "
        f"{said if layout.schema.label else 'no label'}"
    )


def visits(bins: int = 10) -> Form:
    """The form with so many bins a numeric column."""
    return Form(
        functools.partial(fit, bins=bins), layout_of, encode, take, finish, decode, text
    )
