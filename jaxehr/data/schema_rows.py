"""A schema as rows of text, to be reviewed before it is edited."""

import numpy as np

from jaxehr.core.cohort import Dataset, Feature, Schema, numeric_features
from jaxehr.data.columns import listing

HEADER = ("column", "table", "kind", "dtype", "values", "missing", "unit")


def schema_table(schema: Schema, data: Dataset | None = None) -> list[list[str]]:
    """Rows under `HEADER` to print a schema for review.

    Args:
      data: the cohort, for the range of numbers, which is in no schema, and the share
        of missing values; without it they are not shown.
    """
    rows = []
    for part in ("static", "temporal"):
        features = getattr(schema, part)
        shares = missing_shares(data, part) if data else {}
        ranges = seen_ranges(data, part) if data else {}
        for f in features:
            values = listing(f.categories, 6)
            if f.is_numeric:
                values = " ".join([*ranges.get(f.name, []), *allowed(f)])
            share = shares.get(f.name, "")
            rows.append([f.name, part, f.kind, f.dtype, values, share, f.unit])
    if schema.label:
        values = listing(schema.label.classes, 6)
        rows.append(
            [schema.label.name, "label", "", schema.label.dtype, values, "", ""]
        )
    return rows


def allowed(feature: Feature) -> list[str]:
    """The bounds of a numeric feature, if it has any."""
    lower, upper = feature.lower, feature.upper
    if lower is None and upper is None:
        return []
    if upper is None:
        return [f"(>= {lower:g})"]
    return [f"(<= {upper:g})" if lower is None else f"({lower:g} to {upper:g})"]


def seen_ranges(data: Dataset, part: str) -> dict[str, list[str]]:
    """The smallest and the largest value of each numeric feature."""
    table, found = getattr(data.cohort, part), {}
    for at, feature in enumerate(numeric_features(getattr(data.schema, part))):
        values = table.numeric[..., at][table.observed[..., at]]
        if values.size:
            found[feature.name] = [f"{values.min():g} .. {values.max():g}"]
    return found


def missing_shares(data: Dataset, part: str) -> dict[str, str]:
    """Share of missing values of each feature, over stays or valid steps."""
    features, seen = getattr(data.schema, part), getattr(data.cohort, part).observed
    ordered = [f for f in features if f.is_numeric] + [
        f for f in features if not f.is_numeric
    ]
    total = data.cohort.length.sum() if part == "temporal" else len(data.ids)
    counts = np.asarray(seen).sum(axis=tuple(range(seen.ndim - 1)))
    return {
        f.name: f"{1 - count / max(total, 1):.1%}" for f, count in zip(ordered, counts)
    }
