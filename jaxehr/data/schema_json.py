"""The schema as a JSON object that a person can read and edit, and back; comparison.

```
{"version": 1, "id": {"name": ..., "dtype": ...}, "group": null,
 "time": {"name", "dtype", "unit", "start", "step", "num_steps"},
 "label": null or {"name", "dtype", "classes": [...]},
 "static": [feature, ...], "temporal": [feature, ...], "rules": [rule, ...]}
```
A feature has name and kind, and may have dtype, unit, aggregate, lower and upper
(numeric kinds), categories (coded kinds, in code order). "rules" may be left out; a
rule is one of
```
{"rule": "order", "columns": ["SBP", "DBP"], "relation": ">=", "margin": 0}
{"rule": "monotone", "column": "fluids", "relation": ">="}
{"rule": "nothing_after", "event": "death_hour" or {"dead": 1}, "columns": [...]}
{"rule": "implies", "when": {"sex": "M"}, "then": {"pregnant": 0}}
```
where relation, margin and columns of `nothing_after` may be left out, and null is a
missing value. `jaxehr.core.rules` says what they mean.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import SCHEMA_VERSION, Feature, Label, Schema
from jaxehr.core.rules import Case, Implies, Monotone, NothingAfter, Order, Rule
from jaxehr.data.columns import listing, text

TOP = {
    "version": (int,),
    "id": (dict,),
    "group": (str, type(None)),
    "time": (dict,),
    "label": (dict, type(None)),
    "static": (list,),
    "temporal": (list,),
    "rules": (list,),
}
NAMED = {"name": (str,), "dtype": (str,)}
TIME = {
    **NAMED,
    "unit": (str,),
    "start": (int, float),
    "step": (int, float),
    "num_steps": (int,),
}
LABEL = {**NAMED, "classes": (list,)}
FEATURE = {
    **NAMED,
    "kind": (str,),
    "unit": (str,),
    "aggregate": (str,),
    "lower": (int, float, type(None)),
    "upper": (int, float, type(None)),
    "categories": (list,),
}
# name of a rule: its type, the keys beside "rule", how many of these must be there
RULES: dict[str, tuple[type[Rule], dict[str, tuple], int]] = {
    "order": (
        Order,
        {"columns": (list,), "relation": (str,), "margin": (int, float)},
        1,
    ),
    "monotone": (Monotone, {"column": (str,), "relation": (str,)}, 1),
    "nothing_after": (NothingAfter, {"event": (str, dict), "columns": (list,)}, 1),
    "implies": (Implies, {"when": (dict,), "then": (dict,)}, 2),
}


def schema_to_json(schema: Schema) -> dict[str, Any]:
    """The schema as JSON-able values; `schema_from_json` is its inverse."""
    label = schema.label
    return {
        "version": SCHEMA_VERSION,
        "id": {"name": schema.id, "dtype": schema.id_dtype},
        "group": schema.group,
        "time": {
            "name": schema.time,
            "dtype": schema.time_dtype,
            "unit": schema.time_unit,
            "start": schema.start,
            "step": schema.step,
            "num_steps": schema.num_steps,
        },
        "label": label
        and {
            "name": label.name,
            "dtype": label.dtype,
            "classes": [as_python(value) for value in label.classes],
        },
        "static": [feature_to_json(feature) for feature in schema.static],
        "temporal": [feature_to_json(feature) for feature in schema.temporal],
        "rules": [rule_to_json(rule) for rule in schema.rules],
    }


def feature_to_json(feature: Feature) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "name": feature.name,
        "kind": feature.kind,
        "dtype": feature.dtype,
        "unit": feature.unit,
        "aggregate": feature.aggregate,
    }
    if feature.is_numeric:
        bounds = {"lower": as_python(feature.lower), "upper": as_python(feature.upper)}
        return parts | bounds
    return parts | {"categories": [as_python(value) for value in feature.categories]}


def as_python(value: Any) -> Any:
    """NumPy scalars as the Python values that JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def schema_from_json(value: Any, where: str) -> Schema:
    """The schema of a JSON object; `where` is its file, for messages.

    Raises:
      InputError: another version, unknown or missing key, wrong type, values that
        do not agree.
    """
    if not isinstance(value, dict) or "version" not in value:
        raise InputError(f"{where}: not a schema of jaxehr (no key 'version').")
    if value["version"] != SCHEMA_VERSION:
        raise InputError(
            f"{where}: schema version must be {SCHEMA_VERSION}, got "
            f"{text(value['version'])}; use the jaxehr that wrote it."
        )
    check_object(value, TOP, ("id", "static", "temporal"), where)
    ident, time, label = value["id"], value.get("time", {}), value.get("label")
    check_object(ident, NAMED, ("name",), f"{where}: id")
    check_object(time, TIME, (), f"{where}: time")
    renamed = {"name": "time", "dtype": "time_dtype", "unit": "time_unit"}
    grid: Any = {renamed.get(key, key): item for key, item in time.items()}
    try:
        schema = Schema(
            static=features_from_json(value["static"], f"{where}: static"),
            temporal=features_from_json(value["temporal"], f"{where}: temporal"),
            id=ident["name"],
            id_dtype=ident.get("dtype", "int64"),
            label=None if label is None else label_from_json(label, f"{where}: label"),
            group=value.get("group"),
            rules=rules_from_json(value.get("rules", []), f"{where}: rules"),
            **grid,
        )
    except InputError as error:
        prefix = "" if str(error).startswith(where) else f"{where}: "
        raise InputError(f"{prefix}{error}") from error
    return schema


def features_from_json(values: list[Any], where: str) -> tuple[Feature, ...]:
    features = []
    for place, value in enumerate(values):
        name = value.get("name") if isinstance(value, dict) else None
        spot = f"{where}[{place}]" + (f" ({name})" if isinstance(name, str) else "")
        check_object(value, FEATURE, ("name", "kind"), spot)
        check_scalars(value.get("categories", []), f"{spot}: categories")
        parts: dict[str, Any] = dict(
            value, categories=tuple(value.get("categories", ()))
        )
        features.append(Feature(**parts))
    return tuple(features)


def rule_to_json(rule: Rule) -> dict[str, Any]:
    name = next(name for name, (kind, *_) in RULES.items() if kind is type(rule))
    found: dict[str, Any] = {"rule": name}
    for field in dataclasses.fields(rule):
        value = getattr(rule, field.name)
        if isinstance(value, Case):
            found[field.name] = {value.column: as_python(value.value)}
        else:
            found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def rules_from_json(values: list[Any], where: str) -> tuple[Rule, ...]:
    rules = []
    for place, value in enumerate(values):
        name = value.get("rule") if isinstance(value, dict) else None
        spot = f"{where}[{place}]" + (f" ({name})" if isinstance(name, str) else "")
        if not isinstance(name, str) or name not in RULES:
            raise InputError(
                f"{spot}: key 'rule' must be one of {', '.join(RULES)}; got "
                f"{text(value)}."
            )
        kind, keys, required = RULES[name]
        check_object(value, {"rule": (str,), **keys}, tuple(keys)[:required], spot)
        parts = {key: part_from_json(value[key], spot) for key in value if key in keys}
        try:
            rules.append(kind(**parts))
        except InputError as error:
            raise InputError(f"{spot}: {error}") from error
    return tuple(rules)


def part_from_json(value: Any, where: str) -> Any:
    """A case of {column: value}, a tuple of names, or the value as it is."""
    if isinstance(value, list):
        check_names(value, where)
        return tuple(value)
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise InputError(
            f"{where}: write one column and its value, {{column: value}}; got "
            f"{text(value)}."
        )
    ((column, case),) = value.items()
    check_scalars([] if case is None else [case], where)
    return Case(column, case)


def check_names(values: list[Any], where: str) -> None:
    for value in values:
        if not isinstance(value, str):
            raise InputError(f"{where}: columns must be names, got {text(value)}.")


def label_from_json(value: Any, where: str) -> Label:
    check_object(value, LABEL, ("name", "classes"), where)
    check_scalars(value["classes"], f"{where}: classes")
    return Label(**dict(value, classes=tuple(value["classes"])))


def check_object(
    value: Any, allowed: dict[str, tuple], required: tuple[str, ...], where: str
) -> None:
    """Raises InputError unless `value` is an object of the allowed keys and types."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: must be an object, got {text(value)}.")
    unknown = [key for key in value if key not in allowed]
    if unknown:
        raise InputError(
            f"{where}: unknown key(s) {listing(unknown)}; known: {listing(allowed)}."
        )
    absent = [key for key in required if key not in value]
    if absent:
        raise InputError(f"{where}: key(s) {listing(absent)} missing.")
    for key, item in value.items():
        types = allowed[key]
        if not isinstance(item, types) or (
            isinstance(item, bool) and bool not in types
        ):
            wanted = " or ".join(
                "null" if t is type(None) else t.__name__ for t in types
            )
            raise InputError(f"{where}: {key!r} must be {wanted}, got {text(item)}.")


def check_scalars(values: list[Any], where: str) -> None:
    for value in values:
        if not isinstance(value, (str, int, float, bool)):
            raise InputError(
                f"{where}: values must be text, numbers or true/false, got "
                f"{text(value)}."
            )


def same_columns(
    a: Schema, b: Schema, names: tuple[str, str] = ("real", "synthetic")
) -> None:
    """Raises InputError unless the two schemas describe the same columns.

    Compared are names, order, kinds, dtypes and categories of the features, the label
    and the time grid; units only when both are given. Bounds and ids may differ.
    """
    differences = []
    for part in ("static", "temporal"):
        differences += feature_differences(
            part, names, getattr(a, part), getattr(b, part)
        )
    for field in ("label", "num_steps", "start", "step"):
        one, two = getattr(a, field), getattr(b, field)
        if one != two:
            differences.append(f"{field}: {shown(one)} against {shown(two)}")
    if differences:
        raise InputError(
            f"the schemas of {names[0]} and {names[1]} differ: "
            f"{'; '.join(differences[:3])} ({len(differences)} difference(s)). Both "
            "must have the same columns: prepare or sample them from one schema."
        )


def shown(value: Any) -> str:
    """A label as its name and classes; anything else as it is."""
    if isinstance(value, Label):
        return f"{value.name!r} with classes {list(value.classes)} ({value.dtype})"
    return str(value)


def feature_differences(
    part: str, names: tuple[str, str], a: tuple[Feature, ...], b: tuple[Feature, ...]
) -> list[str]:
    """Differences of two feature lists in words, the first differences first."""
    one, two = {f.name: f for f in a}, {f.name: f for f in b}
    found = [
        f"{part} column {name!r} only in {names[0]}" for name in one if name not in two
    ]
    found += [
        f"{part} column {name!r} only in {names[1]}" for name in two if name not in one
    ]
    if found:
        return found
    if list(one) != list(two):
        return [f"{part} columns are in another order: {list(one)} against {list(two)}"]
    for name in one:
        for field in ("kind", "dtype", "categories", "unit"):
            left, right = getattr(one[name], field), getattr(two[name], field)
            given = field != "unit" or (left and right)
            if left != right and given:
                found.append(
                    f"{part} column {name!r}: {field} {left!r} against {right!r}"
                )
    return found
