"""What the metrics see of a data set: standardised numbers, codes, masks; nothing else.

Numbers are imputed (last value carried forward, then the patient's mean, then the
training mean) and standardised with the mean and the standard deviation of the
training patients; codes are one-hot; a mask (1 = missing) stands for every column that
has a missing value in one of the compared data sets; padding is 0. Ids, the order of
patients, types and labels are left out. Everything is float32, whatever the file held.

N patients, T steps, D columns.
"""

from typing import NamedTuple

import numpy as np

from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Schema,
    Table,
    coded_features,
    numeric_features,
    valid_steps,
)
from jaxehr.data.impute import impute_numeric

TINY = 1e-9  # a standard deviation below this fraction of the scale is rounding noise
MIN_PATIENTS = 50
STAY = "length of stay"


class Part(NamedTuple):
    """How one table is turned into columns."""

    features: tuple[Feature, ...]
    fill: np.ndarray  # [numeric] training means of the observed values
    mean: np.ndarray  # [numeric] after imputation
    std: np.ndarray  # [numeric] after imputation; 1 where a column is constant
    masked: np.ndarray  # Bool [features]: has a missing value somewhere


class Lens(NamedTuple):
    """A view fitted on training patients."""

    schema: Schema
    static: Part
    temporal: Part
    lengths_vary: bool


class Sequences(NamedTuple):
    """Rows for sequence models."""

    x: np.ndarray  # float32 [N, T, D]
    length: np.ndarray  # int32 [N], at least 1


def fit_lens(train: Dataset, *others: Dataset) -> Lens:
    """The view of `train`; `others` only decide which columns get a mask."""
    schema, datasets = train.schema, (train, *others)
    static = [(data.cohort.static, everyone(data)) for data in datasets]
    temporal = [(data.cohort.temporal, valid_steps(data.cohort)) for data in datasets]
    vary = any((d.cohort.length != schema.num_steps).any() for d in datasets)
    return Lens(
        schema,
        fit_part(schema.static, static),
        fit_part(schema.temporal, temporal),
        bool(schema.temporal) and bool(vary),
    )


def everyone(data: Dataset) -> np.ndarray:
    return np.ones(data.cohort.label.shape, bool)


def fit_part(
    features: tuple[Feature, ...], tables: list[tuple[Table, np.ndarray]]
) -> Part:
    """Means, deviations and masks; `tables` holds (table, valid), train first."""
    table, valid = tables[0]
    fill = observed_means(table)
    values = imputed(table, valid, fill)[valid]  # [rows, numeric]
    scale = np.abs(values).max(0, initial=0.0)
    mean, std = np.zeros_like(scale), np.zeros_like(scale)
    if len(values):
        mean, std = values.mean(0), values.std(0)
    std = np.where(std > TINY * np.maximum(scale, 1e-300), std, 1.0)
    masked = [(~t.observed & v[..., None]).any(tuple(range(v.ndim))) for t, v in tables]
    numeric = [i for i, f in enumerate(features) if f.is_numeric]
    coded = [i for i, f in enumerate(features) if not f.is_numeric]
    ordered = np.asarray(numeric + coded, int)
    return Part(
        tuple(features[i] for i in ordered),
        fill,
        mean,
        std,
        np.any(masked, axis=0),
    )


def observed_means(table: Table) -> np.ndarray:
    """Mean of the observed values of every numeric column; 0 where there is none."""
    seen = table.observed[..., : table.numeric.shape[-1]]
    rows = tuple(range(seen.ndim - 1))
    values = np.where(seen, table.numeric, 0.0)
    return values.sum(rows) / np.maximum(seen.sum(rows), 1)


def imputed(table: Table, valid: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """Numerics without gaps, float64 [*shape, numeric]; `fill` are training means."""
    seen = table.observed[..., : table.numeric.shape[-1]]
    if seen.ndim == 3:
        return impute_numeric(table.numeric, seen, valid, fill)
    return np.where(seen, table.numeric, fill)


def numbers(part: Part, table: Table, valid: np.ndarray) -> np.ndarray:
    """Imputed and standardised numerics, float32 [*shape, numeric]; padding 0."""
    values = (imputed(table, valid, part.fill) - part.mean) / part.std
    return np.where(valid[..., None], values, 0.0).astype(np.float32)


def masks(part: Part, table: Table, valid: np.ndarray) -> np.ndarray:
    """1 = missing, float32 [*shape, columns with a missing value somewhere]."""
    missing = ~table.observed[..., part.masked] & valid[..., None]
    return missing.astype(np.float32)


def one_hot(part: Part, table: Table, valid: np.ndarray) -> np.ndarray:
    """Codes as columns; one column for a binary one, none for a constant one."""
    count = len(numeric_features(part.features))
    seen = table.observed[..., count:] & valid[..., None]
    columns = []
    for i, feature in enumerate(coded_features(part.features)):
        first = 1 if feature.kind in ("binary", "constant") else 0
        codes = np.arange(first, feature.cardinality)
        columns.append((table.codes[..., i, None] == codes) & seen[..., i, None])
    empty = np.zeros((*valid.shape, 0), np.float32)
    return np.concatenate([empty, *columns], -1).astype(np.float32)


def columns(part: Part, table: Table, valid: np.ndarray) -> np.ndarray:
    """Everything of one table: numerics, codes, masks; float32 [*shape, D]."""
    parts = [f(part, table, valid) for f in (numbers, one_hot, masks)]
    return np.concatenate(parts, -1)


def static_columns(lens: Lens, data: Dataset) -> np.ndarray:
    return columns(lens.static, data.cohort.static, everyone(data))


def flat(lens: Lens, data: Dataset) -> np.ndarray:
    """Rows for flat models: all steps, the static columns, the length if it varies."""
    count = len(data.cohort.label)
    steps = columns(lens.temporal, data.cohort.temporal, valid_steps(data.cohort))
    parts = [steps.reshape(count, -1), static_columns(lens, data)]
    if lens.lengths_vary:
        share = data.cohort.length[:, None] / lens.schema.num_steps
        parts.append(share.astype(np.float32))
    return np.concatenate(parts, -1)


class Place(NamedTuple):
    """What a column of `flat` is about."""

    feature: str
    step: int | None  # None: static
    missing: bool  # a mask


def flat_places(lens: Lens) -> list[Place]:
    """The places of the columns of `flat`, in its order."""
    temporal, static = column_owners(lens.temporal), column_owners(lens.static)
    names = distinct([n for n, _ in temporal], [n for n, _ in static])[len(temporal) :]
    steps = range(lens.schema.num_steps if lens.schema.temporal else 0)
    places = [Place(name, t, mask) for t in steps for name, mask in temporal]
    places += [Place(n, None, m) for n, (_, m) in zip(names, static, strict=True)]
    return places + [Place(STAY, None, False)] * lens.lengths_vary


def column_owners(part: Part) -> list[tuple[str, bool]]:
    """Name of the feature behind each of `columns`, and whether it is a mask."""
    found = [f.name for f in numeric_features(part.features)]
    for feature in coded_features(part.features):
        first = 1 if feature.kind in ("binary", "constant") else 0
        found += [feature.name] * (feature.cardinality - first)
    masked = [f.name for f, m in zip(part.features, part.masked, strict=True) if m]
    return [(name, False) for name in found] + [(name, True) for name in masked]


def sequences(lens: Lens, data: Dataset) -> Sequences:
    """Rows for sequence models; static columns stand at every valid step.

    A patient without a step keeps one, which holds the static columns only.
    """
    cohort = data.cohort
    steps = columns(lens.temporal, cohort.temporal, valid_steps(cohort))
    if steps.shape[1] == 0:
        steps = np.zeros((len(steps), 1, steps.shape[2]), np.float32)
    length = np.maximum(cohort.length, 1).astype(np.int32)
    valid = np.arange(steps.shape[1])[None, :] < length[:, None]
    static = static_columns(lens, data)[:, None, :] * valid[..., None]
    return Sequences(np.concatenate([steps, static], -1).astype(np.float32), length)


def flat_numbers(lens: Lens, data: Dataset) -> np.ndarray:
    """Numerics only, all steps and static: float32 [N, T * D + D_static]."""
    cohort = data.cohort
    steps = numbers(lens.temporal, cohort.temporal, valid_steps(cohort))
    static = numbers(lens.static, cohort.static, everyone(data))
    return np.concatenate([steps.reshape(len(steps), -1), static], -1)


def sequences_of_numbers(lens: Lens, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Temporal and static numerics at every valid step: [N, T, D] and Bool [N, T]."""
    cohort, valid = data.cohort, valid_steps(data.cohort)
    steps = numbers(lens.temporal, cohort.temporal, valid)
    static = numbers(lens.static, cohort.static, everyone(data))[:, None, :]
    if not lens.schema.temporal:
        return static, np.ones(static.shape[:2], bool)
    static = np.broadcast_to(static, (*valid.shape, static.shape[2]))
    return np.concatenate([steps, static * valid[..., None]], -1), valid


def step_numbers(lens: Lens, data: Dataset) -> np.ndarray:
    """Temporal numerics, float32 [N, T, D]."""
    return numbers(lens.temporal, data.cohort.temporal, valid_steps(data.cohort))


def numeric_names(part: Part) -> list[str]:
    return [f.name for f in numeric_features(part.features)]


def distinct(temporal: list[str], static: list[str]) -> list[str]:
    """The names of both tables; a static one that is also temporal is marked."""
    marked = [f"{name} (static)" if name in temporal else name for name in static]
    return temporal + marked


class Coded(NamedTuple):
    """One coded column or mask with its values in 0 .. cardinality - 1."""

    name: str
    codes: np.ndarray  # Int [*shape]
    seen: np.ndarray  # Bool [*shape]
    cardinality: int


def coded_columns(part: Part, table: Table, valid: np.ndarray) -> list[Coded]:
    """Coded features where observed, then the masks at every valid place."""
    count = len(numeric_features(part.features))
    found = []
    for i, feature in enumerate(coded_features(part.features)):
        if feature.kind != "constant":
            seen = table.observed[..., count + i] & valid
            found.append(
                Coded(feature.name, table.codes[..., i], seen, feature.cardinality)
            )
    for i, feature in enumerate(part.features):
        if part.masked[i]:
            missing = (~table.observed[..., i]).astype(np.int32)
            found.append(Coded(f"{feature.name} is missing", missing, valid, 2))
    return found


def too_few(*datasets: Dataset) -> str:
    """The reason why no metric is defined, or an empty text; several stays of a person
    are one patient."""
    fewest = min(len(np.unique(data.groups)) for data in datasets)
    if fewest >= MIN_PATIENTS:
        return ""
    return f"fewer than {MIN_PATIENTS} patients in one of the data sets ({fewest})"
