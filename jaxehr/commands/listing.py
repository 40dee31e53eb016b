"""`jaxehr list`: what models, sources and metrics there are."""

from jaxehr.core.checks import known
from jaxehr.registry import METRICS, MODELS, SOURCES


def run(words: list[str]) -> int:
    groups = {
        "models": {name: entry.text for name, entry in MODELS.items()},
        "sources": {name: entry.text for name, entry in SOURCES.items()},
        "metrics": dict.fromkeys(METRICS, ""),
    }
    if words and words[0] in ("-h", "--help"):
        print("usage: jaxehr list [models|sources|metrics]")
        return 0
    for word in words:
        known("list", word, groups)
    for group in words or groups:
        print(f"{group}:")
        for name, text in groups[group].items():
            print(f"  {name:<18} {text}".rstrip())
    return 0
