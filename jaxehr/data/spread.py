"""How far several draws of the same missing values lie apart, as one long table."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from jaxehr.core.cohort import Cohort, Dataset, Feature, column_order
from jaxehr.core.sparse import SparseTable

COLUMNS = pa.schema(
    [
        ("row", pa.int64()),  # of the stay, replaced by its id
        ("time", pa.float64()),  # null for the static part
        ("column", pa.string()),
        ("present", pa.float64()),  # share of the draws that have a value
        ("mean", pa.float64()),  # numeric columns
        ("sd", pa.float64()),
        ("mode", pa.string()),  # coded columns
        ("share", pa.float64()),  # of the draws with a value that say `mode`
    ]
)


def spread(data: Dataset, draws: Sequence[Cohort]) -> pa.Table:
    """One row for each value that was missing with its modality and was drawn.

    Numeric columns have the mean and the standard deviation over the draws, coded ones
    the most frequent value and its share. Of sparse binary columns only the cells that
    were 1 in some draw are listed.

    Args:
      data: the patients before imputation. draws: the same patients after it.
    """
    schema, cohort = data.schema, data.cohort
    tables = []
    lacking = np.flatnonzero(~np.asarray(cohort.has_static))
    parts = [draw.static for draw in draws]
    for place, feature in enumerate(schema.static):
        values, seen = column(parts, schema.static, place, lacking)
        tables.append(summary(feature, values[..., None], seen[..., None], lacking, []))
    lacking = np.flatnonzero(~np.asarray(cohort.has_temporal))
    times = schema.start + schema.step * np.arange(schema.num_steps)
    parts = [draw.temporal for draw in draws]
    if isinstance(cohort.temporal, SparseTable):
        tables.append(sparse_spread(schema.temporal, parts, lacking, times))
    else:
        for place, feature in enumerate(schema.temporal):
            values, seen = column(parts, schema.temporal, place, lacking)
            tables.append(summary(feature, values, seen, lacking, times))
    table = pa.concat_tables(tables)
    rows = table.column("row").to_numpy()
    return table.set_column(0, schema.id, pa.array(np.asarray(data.ids)[rows]))


def column(
    parts: Sequence, features: tuple[Feature, ...], place: int, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values and presence of one column in every draw: [draws, rows, ...]."""
    numeric, inner = column_order(features)[place]
    kinds = [flag for flag, _ in column_order(features)]
    seen = inner if numeric else sum(kinds) + inner
    block = "numeric" if numeric else "codes"
    values = [np.asarray(getattr(part, block))[rows][..., inner] for part in parts]
    observed = [np.asarray(part.observed)[rows][..., seen] for part in parts]
    return np.stack(values), np.stack(observed)


def summary(
    feature: Feature,
    values: np.ndarray,
    seen: np.ndarray,
    rows: np.ndarray,
    times: Sequence[float] | np.ndarray,
) -> pa.Table:
    """The long table of one column; values and seen are [draws, rows, steps]."""
    count = seen.sum(0)  # [rows, steps]
    where = np.nonzero(count)
    number = count[where]
    time = np.asarray(times)[where[1]] if len(times) else np.full(len(number), np.nan)
    made = {
        "row": rows[where[0]],
        "time": pa.array(time, from_pandas=True),
        "column": pa.array([feature.name] * len(number)),
        "present": number / len(seen),
    }
    values, seen = values[:, where[0], where[1]], seen[:, where[0], where[1]]
    if feature.is_numeric:
        mean = np.where(seen, values, 0.0).sum(0) / number
        square = np.where(seen, (values - mean) ** 2, 0.0).sum(0) / number
        made |= {"mean": mean, "sd": np.sqrt(square)}
    else:
        options = np.arange(feature.cardinality)[:, None, None]
        votes = ((values == options) & seen).sum(1)  # [categories, cells]
        best = votes.argmax(0)
        names = np.array([str(value) for value in feature.categories], object)
        made |= {"mode": pa.array(names[best]), "share": votes.max(0) / number}
    return long(made, len(number))


def sparse_spread(
    features: tuple[Feature, ...],
    parts: Sequence[SparseTable],
    rows: np.ndarray,
    times: np.ndarray,
) -> pa.Table:
    """The cells that were 1 in some draw, and how often."""
    width = parts[0].steps * parts[0].features
    lacking = np.zeros(len(parts[0].length), bool)
    lacking[rows] = True
    places = []
    for part in parts:
        owner = np.repeat(np.arange(len(part.length)), part.counts)
        keep = lacking[owner]
        places.append(owner[keep] * width + part.cells[keep])
    place, ones = np.unique(np.concatenate(places), return_counts=True)
    row, cell = np.divmod(place, width)
    step, feature = np.divmod(cell, parts[0].features)
    present = np.mean([step < np.asarray(p.length)[row] for p in parts], axis=0)
    names = np.array([f.name for f in features], object)
    share = ones / (present * len(parts))
    zero, one = (str(value) for value in features[0].categories)
    made = {
        "row": row,
        "time": times[step],
        "column": pa.array(names[feature]),
        "present": present,
        "mode": pa.array(np.where(share >= 0.5, one, zero).astype(object)),
        "share": np.maximum(share, 1.0 - share),
    }
    return long(made, len(row))


def long(made: dict, count: int) -> pa.Table:
    """A table of `COLUMNS`; what is not in `made` is null."""
    arrays = []
    for field in COLUMNS:
        found = made.get(field.name)
        if found is None:
            found = pa.nulls(count)
        array = found if isinstance(found, pa.Array) else pa.array(found)
        arrays.append(array.cast(field.type))
    return pa.table(arrays, schema=COLUMNS)
