"""`jaxehr list`: what models, sources and metrics there are."""

from collections.abc import Callable

from jaxehr.core.checks import known
from jaxehr.registry import METRICS, MODELS, ON_REQUEST, SOURCES, find

USAGE = """usage: jaxehr list [models] [sources] [metrics]

What there is to train, to read and to measure; without a word, all of it.
"""


def models() -> list[tuple[str, str]]:
    return [(name, entry.text) for name, entry in MODELS.items()]


def sources() -> list[tuple[str, str]]:
    return [(name, entry.text) for name, entry in SOURCES.items()]


def metrics() -> list[tuple[str, str]]:
    """Each metric that `--metrics` takes, with the numbers it makes."""
    rows = []
    for name, path in METRICS.items():
        titles = [number.title for number in find(path)().names.values()]
        remark = f" ({ON_REQUEST[name]})" if name in ON_REQUEST else ""
        rows.append((name, "; ".join(titles) + remark))
    return rows


GROUPS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "models": models,
    "sources": sources,
    "metrics": metrics,
}


def run(words: list[str]) -> int:
    if any(word in ("-h", "--help") for word in words):
        print(USAGE, end="")
        return 0
    for word in words:
        known("group to list", word, GROUPS)
    for group in words or GROUPS:
        print(f"{group}:")
        print("\n".join(lines(GROUPS[group]())))
    return 0


def lines(rows: list[tuple[str, str]]) -> list[str]:
    """Names and texts in two columns."""
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {text}" for name, text in rows]
