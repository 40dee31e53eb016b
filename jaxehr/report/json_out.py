"""`metrics.json`: every number of the report, for programs."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxehr.core.contracts import Comparison, Result
from jaxehr.report.provenance import sizes, versions


def plain(value: Any) -> Any:
    """`value` as strict JSON: NaN and infinities become null, arrays lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    return str(value)


def metric_entry(result: Result) -> dict[str, Any]:
    """One metric; `value` is null with a `reason` where it is not defined."""
    definition, value = result.definition, result.value
    entry = {
        "name": result.name,
        "group": result.group,
        "title": definition.title,
        "definition": definition.text,
        "direction": definition.direction,
        "ideal": definition.ideal,
        "source": definition.source,
        **value._asdict(),
    }
    if plain(value.value) is None and not value.reason:
        entry["reason"] = "no reason was given"
    return plain(entry)


def document(
    comparison: Comparison,
    results: list[Result],
    run: Mapping[str, Any],
    title: str,
    notes: list[str],
) -> dict[str, Any]:
    """The whole file: metrics, sizes, seeds, versions, the run without its curves."""
    described = {k: v for k, v in run.items() if k not in ("schedule", "losses")}
    provenance = {
        name: data.provenance for name, data in zip(comparison._fields, comparison)
    }
    return {
        "title": title,
        "metrics": [metric_entry(result) for result in results],
        "sizes": sizes(comparison),
        "seeds": seeds({"run": described, **provenance}),
        "run": plain(described),
        "provenance": plain(provenance),
        "versions": versions(),
        "notes": list(notes),
    }


def seeds(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every entry called `seed` or `seeds` below `value`, by its dotted name."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            found |= seeds(inner, f"{name}.")
        elif str(key) in ("seed", "seeds"):
            found[name] = plain(inner)
    return found
