"""Any cohort in the form of FIDDLE's features: binary columns only [fiddle2020].

A numeric column becomes quintile bins `<VAR>_value_(lo, hi]` (with one or two distinct
values: `<VAR>_value_<v>`), a coded one `<VAR>_value_<category>`; a temporal one also
`<VAR>_mask` (there is a value) and bins of `<VAR>_delta_time` (steps since the last
value; 0 before the first, as in FIDDLE). A missing value has no bin. A column that is
ever 1, or ever 0, for at most a share `rarest` of the patients is dropped; of columns
that are equal or opposite in every cell the first is kept, the others are its aliases
(opposite: `~{name}`). Edges and choice are fitted on training people only.
"""

# Deviation: FIDDLE takes the last value in a step, carries values of often measured
# variables forward, and adds their minimum, maximum and mean in a step. Here a step has
# the one value that the cohort has for it, and no bin without; masks and times since
# the last value are made of every temporal column, not of the often measured ones only.

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxehr.core.checks import InputError, positive, within
from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Table,
    column_order,
    empty_table,
    make_cohort,
    num_steps,
    valid_steps,
)
from jaxehr.core.sparse import SparseTable, from_cells
from jaxehr.data.columns import listing
from jaxehr.data.split import split

Part = Literal["static", "temporal"]
PARTS: tuple[Part, ...] = ("static", "temporal")
DIGITS = 3  # decimals of the edges in a name; more where two would be equal
VERSION = 1
KEY = "discretize"  # in provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscretizeOptions:
    """How a cohort becomes binary columns; the defaults are FIDDLE's."""

    bins: int = 5
    """Quantile bins of a numeric column."""
    rarest: float = 0.001
    """Share of patients up to which a column is too rare (FIDDLE's theta)."""
    holdout_fraction: float = 0.2
    """Share of people that nothing is fitted on: those whom `train` holds out; or 0."""

    def __post_init__(self) -> None:
        positive(bins=self.bins)
        within("rarest", self.rarest, 0.0, 0.5)
        within("holdout_fraction", self.holdout_fraction, 0.0, 0.99)


class Cells(NamedTuple):
    """A column over the cells of its part: [patients], or [patients, steps]."""

    values: np.ndarray  # numbers, or codes of a coded feature
    seen: np.ndarray  # Bool; False at padding


def discretize(data: Dataset, options: DiscretizeOptions | None = None) -> Dataset:
    """The cohort as binary columns, by a rule fitted on its own training people."""
    return apply(fit(data, options), data)


def fit(data: Dataset, options: DiscretizeOptions | None = None) -> dict[str, Any]:
    """The rule of a cohort, JSON-able: edges of every column, columns kept, aliases.

    The training people are those of `data.split` with this fraction and no salt: those
    whom `train` does not hold out.

    Raises:
      InputError: a cohort that is binary already; too few people to split.
    """
    options = options or DiscretizeOptions()
    refuse_sparse(data)
    fraction = options.holdout_fraction
    train = split(data, fraction)[0] if fraction else data
    rule: dict[str, Any] = {
        "version": VERSION,
        "options": dataclasses.asdict(options),
        "fitted_on": len(train.ids),
        "people": digest(data.groups),
    }
    for part in PARTS:
        found = {
            feature.name: fit_column(feature, cells, inside(train, part), options.bins)
            for feature, cells in columns(train, part)
        }
        kept, aliases = choose(train, part, found, options.rarest)
        rule[part] = {"columns": found, "kept": kept, "aliases": aliases}
    return rule


def apply(rule: dict[str, Any], data: Dataset) -> Dataset:
    """The cohort as the binary columns of a rule, its own or another cohort's.

    Values beyond the outer edges go to the outer bins; a category or one of few values
    that the rule does not know has no bin. The temporal table becomes sparse; patients
    without a modality stay without.

    Raises:
      InputError: columns of the rule that the cohort lacks, a cohort that is binary
        already, no column left.
    """
    refuse_sparse(data)
    count, cohort = len(data.ids), data.cohort
    kept = {part: rule[part]["kept"] for part in PARTS}
    if not any(kept.values()):
        raise InputError(
            "discretize: no column is left; every one is (nearly) constant."
        )
    check_columns(rule, data)
    static = np.zeros((count, len(kept["static"])), np.int32)
    (patients,), places = ones(rule, data, "static")
    static[patients, places] = 1
    seen = np.repeat(np.asarray(cohort.has_static)[:, None], static.shape[1], 1)
    temporal, length = cohort.temporal, cohort.length
    steps = data.schema.num_steps
    if kept["temporal"]:
        cells, places = ones(rule, data, "temporal")
        shape = (count, num_steps(temporal), len(kept["temporal"]))
        temporal = from_cells((*cells, places), length, shape)
    else:  # no series, and so no steps
        temporal = empty_table((count, 0), ())
        steps, length = 0, np.zeros_like(cohort.length)
    made = make_cohort(
        Table(np.zeros((count, 0)), static, seen), temporal, length, cohort.label
    )
    schema = data.schema.replace(
        static=features(kept["static"]),
        temporal=features(kept["temporal"]),
        num_steps=steps,
        rules=(),  # their columns are gone
    )
    return data._replace(
        schema=schema, cohort=made, provenance=data.provenance | {KEY: rule}
    )


def rule_of(data: Dataset, where: str) -> dict[str, Any]:
    """The rule by which a cohort was made, to apply it to another one."""
    rule = data.provenance.get(KEY)
    if not isinstance(rule, dict) or rule.get("version") != VERSION:
        raise InputError(
            f"{where}: was not made with --discretize (its provenance has no rule)."
        )
    return rule


def digest(groups: Any) -> str:
    """Tells whether two cohorts are of the same people."""
    names = sorted(set(np.asarray(groups).astype(str).tolist()))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def check_holdout(
    provenance: dict[str, Any], groups: Any, holdout_fraction: float
) -> None:
    """Raises InputError where people of a hold-out chose edges or columns.

    Of a cohort that took its rule from other people nobody did; whether some of its
    people are among them is not asked.
    """
    rule = provenance.get(KEY)
    if not isinstance(rule, dict) or rule.get("people") not in (None, digest(groups)):
        return
    fitted = rule.get("options", {}).get("holdout_fraction", 0.0)
    if holdout_fraction > fitted:
        raise InputError(
            f"the edges and columns of the cohort were chosen with "
            f"--discretize-holdout {fitted:g}, so also by people of a hold-out of "
            f"{holdout_fraction:g}; prepare it with --discretize-holdout "
            f"{holdout_fraction:g}, or train with --holdout-fraction {fitted:g}."
        )


def refuse_sparse(data: Dataset) -> None:
    if isinstance(data.cohort.temporal, SparseTable):
        raise InputError("discretize: the cohort is binary already.")


def check_columns(rule: dict[str, Any], data: Dataset) -> None:
    """Raises InputError when the cohort lacks a column of the rule, or its kind."""
    for part in PARTS:
        there = {f.name: f for f in getattr(data.schema, part)}
        lacking = [
            name
            for name, column in rule[part]["columns"].items()
            if name not in there or there[name].is_numeric == ("categories" in column)
        ]
        if lacking:
            raise InputError(
                f"discretize: {len(lacking)} {part} column(s) of the rule are missing "
                f"or of another kind: {listing(lacking)}."
            )


def features(names: list[str]) -> tuple[Feature, ...]:
    return tuple(
        Feature(name=name, kind="binary", dtype="int8", categories=(0, 1))
        for name in names
    )


def columns(data: Dataset, part: Part) -> Iterator[tuple[Feature, Cells]]:
    """Every feature of a part with its cells."""
    found, table = getattr(data.schema, part), getattr(data.cohort, part)
    count = table.numeric.shape[-1]
    for feature, (is_numeric, at) in zip(found, column_order(found)):
        values = (table.numeric if is_numeric else table.codes)[..., at]
        seen = table.observed[..., at if is_numeric else count + at]
        yield feature, Cells(np.asarray(values), np.asarray(seen, bool))


def inside(data: Dataset, part: Part) -> np.ndarray:
    """Bool: which cells are there, [patients] or [patients, steps]."""
    if part == "static":
        return np.asarray(data.cohort.has_static, bool)
    return valid_steps(data.cohort)


def fit_column(
    feature: Feature, cells: Cells, valid: np.ndarray, bins: int
) -> dict[str, Any]:
    """Edges or values of a column, and of the time since its last value."""
    found: dict[str, Any] = {"categories": list(feature.categories)}
    if feature.is_numeric:
        found = quantiles(cells.values[cells.seen], bins)
    if cells.seen.ndim == 2:
        found["delta_time"] = quantiles(delta_time(cells.seen)[valid], bins)
    return found


def quantiles(values: np.ndarray, bins: int) -> dict[str, Any]:
    """{"edges": [...]} of three or more distinct values; otherwise {"values": [...]}.

    The edges are the distinct ones among the quantiles 0, 1/bins, ..., 1.
    """
    distinct = np.unique(values)
    if len(distinct) <= 2:
        return {"values": distinct.tolist()}
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    return {"edges": edges.tolist()}


def delta_time(seen: np.ndarray) -> np.ndarray:
    """Steps since the last value, Int [N, T]; 0 at a value and before the first."""
    steps = np.arange(seen.shape[1])
    last = np.maximum.accumulate(np.where(seen, steps, -1), axis=1)
    return np.where(last < 0, 0, steps - last)


def indicators(
    feature: Feature, cells: Cells, valid: np.ndarray, found: dict[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and Bool [cells] of every binary column that a feature can become."""
    values, seen = cells
    if "categories" in found:
        codes = {value: code for code, value in enumerate(feature.categories)}
        for value in found["categories"]:
            yield (
                f"{feature.name}_value_{value}",
                seen & (values == codes.get(value, -1)),
            )
    else:
        yield from binned(f"{feature.name}_value", values, seen, found)
    if "delta_time" in found:
        yield f"{feature.name}_mask", seen
        since = delta_time(seen)
        name = f"{feature.name}_delta_time"
        yield from binned(name, since, valid, found["delta_time"])


def binned(
    name: str, values: np.ndarray, seen: np.ndarray, found: dict[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """One column a bin (lo, hi], the first one closed; or one a value."""
    if "values" in found:
        for value in found["values"]:
            text = int(value) if float(value).is_integer() else value
            yield f"{name}_{text}", seen & (values == value)
        return
    edges = found["edges"]
    at = np.searchsorted(edges, values, side="left").clip(1, len(edges) - 1)
    texts = edge_texts(edges)
    for k, (low, high) in enumerate(itertools.pairwise(texts), start=1):
        yield f"{name}_({low}, {high}]", seen & (at == k)


def edge_texts(edges: list[float]) -> list[str]:
    """The edges in few decimals; the lowest a little less, for it is in its bin."""
    digits = DIGITS
    while len(set(np.round(edges, digits))) < len(edges):
        digits += 1
    low = round(edges[0] - 10.0**-digits, digits)
    return [str(low), *(str(round(edge, digits)) for edge in edges[1:])]


def choose(
    data: Dataset, part: Part, found: dict[str, Any], rarest: float
) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the columns that are neither rare nor like an earlier one; aliases."""
    valid = inside(data, part)
    there = valid if valid.ndim == 2 else valid[:, None]
    people = max(int(there.any(1).sum()), 1)
    first: dict[bytes, tuple[str, bool]] = {}
    aliases: dict[str, list[str]] = {}
    for feature, cells in columns(data, part):
        for name, column in indicators(feature, cells, valid, found[feature.name]):
            column = column.reshape(there.shape)
            share = min(
                np.count_nonzero((column & there).any(1)) / people,
                np.count_nonzero((~column & there).any(1)) / people,
            )
            if share <= rarest:
                continue
            flat = column[there]
            packed = np.packbits(flat ^ flat[0]).tobytes()
            digest = hashlib.blake2b(packed, digest_size=16).digest()
            other, flipped = first.setdefault(digest, (name, bool(flat[0])))
            if other != name:
                text = name if flipped == flat[0] else f"~{{{name}}}"
                aliases.setdefault(other, []).append(text)
    return [name for name, _ in first.values()], aliases


def ones(
    rule: dict[str, Any], data: Dataset, part: Part
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Where the kept columns are 1: the indices of the cells, and the columns."""
    places = {name: place for place, name in enumerate(rule[part]["kept"])}
    valid, found = inside(data, part), rule[part]["columns"]
    cells = [np.zeros((valid.ndim, 0), np.int32)]
    at = [np.zeros(0, np.int32)]
    for feature, column in columns(data, part):
        if feature.name not in found:
            continue
        for name, is_one in indicators(feature, column, valid, found[feature.name]):
            if name in places:
                cells.append(np.array(np.nonzero(is_one), np.int32))
                at.append(np.full(cells[-1].shape[1], places[name], np.int32))
    return tuple(np.concatenate(cells, 1)), np.concatenate(at)
