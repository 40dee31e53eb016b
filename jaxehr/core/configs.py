"""Frozen dataclasses to and from JSON-able dicts."""

import dataclasses
import typing
from typing import Any, TypeVar

from jaxehr.core.checks import InputError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_dict(kind: type[T], values: dict[str, Any], where: str = "config") -> T:
    """The dataclass `kind` with these fields; nested dataclasses come from dicts.

    Raises:
      InputError: unknown fields, or a value that the dataclass refuses.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(
            f"{where}: unknown field(s) {unknown}; known: {sorted(hints)}."
        )
    fields = {}
    for name, value in values.items():
        nested = dataclasses.is_dataclass(hints[name]) and isinstance(value, dict)
        fields[name] = (
            from_dict(hints[name], value, f"{where}.{name}") if nested else value
        )
    return kind(**fields)


def differences(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> list[str]:
    """Fields that differ, as "name: old -> new"."""
    lines = []
    for name in sorted(set(old) | set(new)):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            lines.append(f"{prefix}{name}: {a} -> {b}")
    return lines


def replace(config: T, changes: dict[str, Any]) -> T:
    """`config` with the given fields changed; nested dicts change nested fields."""
    merged = to_dict(config)
    for name, value in changes.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[name] = old | value
        else:
            merged[name] = value
    return from_dict(type(config), merged)
