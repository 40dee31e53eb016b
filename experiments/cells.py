"""Cells of an experiment: one line of JSON each, kept as soon as it is done."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.files import read_json, write_text
from jaxehr.report.json_out import plain

Found = list[dict[str, Any]]
SETTINGS, CELLS = "settings.json", "cells.jsonl"
# Numbers of the code, which are settings too: cells of other code are not continued.
CODE = {
    "model_code": 3,  # raise it when a change moves what a training makes
    "metric_code": 3,  # or what is drawn from a training, or what a metric says
}
FIRST = dict.fromkeys(CODE, 1)  # of what was made before there were numbers


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its title, where its number stands in a cell, and how it is shown.

    Attributes:
      offset: added after `scale`; accuracy is half of an advantage and a half.
    """

    title: str
    path: str
    digits: int = 3
    scale: float = 1.0
    offset: float = 0.0

    @property
    def reference(self) -> str:
        """Where the number of real people stands; "" = there is none."""
        return self.beside("reference")

    @property
    def reason(self) -> str:
        """Where it says why there is no number; "" = nowhere."""
        return self.beside("reason")

    def beside(self, name: str) -> str:
        """The place of something else that a metric told; "" = it is no metric."""
        end = ".value"
        return f"{self.path[: -len(end)]}.{name}" if end in self.path else ""


def metric(title: str, name: str, *shown: Any) -> Column:
    """A column of a metric; `shown` is digits, scale, offset."""
    return Column(title, f"metrics.{name}.value", *shown)


def column(spec: list[Any]) -> Column:
    """A column from a config: title, name of a number, digits, factor, offset.

    A name with a dot is a place in a cell, such as `seconds.training`; so is `steps`.
    """
    return Column(*spec) if "." in spec[1] or spec[1] == "steps" else metric(*spec)


def read_cells(out: pathlib.Path, settings: dict[str, Any]) -> Found:
    """The cells of an earlier call; a line that was cut off is dropped.

    Raises:
      InputError: they were made with other settings.
    """
    found, plain = [], json.loads(json.dumps(settings))
    if (out / SETTINGS).is_file():
        same_settings(out / SETTINGS, read_json(out / SETTINGS), plain)
    path = out / CELLS
    text = path.read_text() if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1]
    for line in whole.splitlines():
        found.append(json.loads(line))
        same_settings(path, found[-1]["settings"], plain)
    if whole != text:
        write_text(path, whole)
    return found


def same_settings(path: pathlib.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuses what was made with other settings."""
    old = FIRST | old
    for name, value in new.items():
        if old.get(name) != value:
            raise InputError(
                f"{path}: was made with another {name} ({old.get(name)!r}, now "
                f"{value!r}); choose another --out, or the flags and code that made it."
            )


def append_cell(out: pathlib.Path, cell: dict[str, Any]) -> None:
    """Adds a line for a cell that is done."""
    with (out / CELLS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(plain(cell), allow_nan=False) + "\n")


def found_at(cell: dict[str, Any], path: str) -> Any:
    """What stands at a dotted path; None where there is nothing."""
    value: Any = cell
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def at(cell: dict[str, Any], path: str) -> float:
    """The number at a dotted path; NaN where there is none."""
    value = found_at(cell, path)
    return float("nan") if value is None else float(value)


def spread(cells: Found, path: str) -> tuple[float, float, int]:
    """Mean, standard deviation over seeds, and number of the defined values."""
    values = np.array([at(cell, path) for cell in cells])
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan"), float("nan"), 0
    std = values.std(ddof=1) if values.size > 1 else float("nan")
    return float(values.mean()), float(std), values.size


def fell_back(cells: Found) -> str:
    """In how many directions a coupling was unusable or lost to ridge on the pairs."""
    used = [
        text
        for cell in cells
        for text in cell.get("alignment", {}).get("used", {}).values()
    ]
    ridge = used.count("ridge on pairs")
    return f" (ridge used in {ridge} of {len(used)} maps)" if ridge else ""


def marks_of(
    suite: Any, variant: str, folders: tuple[pathlib.Path, ...]
) -> Iterator[tuple[str, str]]:
    """Hashes of what a cell of a suite is made of: its cohort, and what is done."""
    files = [path for folder in folders for path in sorted(folder.rglob("*"))]
    stamps = tuple((str(p), p.stat().st_mtime_ns) for p in files if p.is_file())
    yield "cohort", contents(stamps)
    done = [suite.variants[variant], suite.metrics, suite.quick, suite.drawn]
    text = json.dumps(done, sort_keys=True)
    yield "variant or metrics", hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.lru_cache(maxsize=64)
def contents(stamps: tuple[tuple[str, int], ...]) -> str:
    """A hash of files' contents, wherever they lie; but not of provenance, which holds
    the day."""
    found = hashlib.sha256()
    for path, _ in stamps:
        if pathlib.Path(path).name != "provenance.json":
            with open(path, "rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()[:12]


def machine() -> dict[str, str]:
    """What the numbers were made on."""
    import jax

    device = jax.devices()[0]
    return {
        "machine": f"{platform.machine()}, {jax.device_count()} {device.device_kind}",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxehr": f"{importlib.metadata.version('jaxehr')} {revision()}".strip(),
    }


def made_on(cells: Found) -> str:
    """The machines of cells and their versions; that of a training if it is another."""
    return "; ".join(sorted({in_words(cell) for cell in cells if "machine" in cell}))


def in_words(cell: dict[str, Any]) -> str:
    """The machine and the versions of a cell in one line."""
    machine, trained = cell["machine"], cell.get("trained_by")
    if not isinstance(machine, dict):
        return str(machine)
    rest = [f"{name} {value}" for name, value in machine.items() if name != "machine"]
    if trained and trained not in machine.get("jaxehr", "").split():
        rest.append(f"trained by {trained}")
    return ", ".join([machine.get("machine", "unknown machine"), *rest])


def revision() -> str:
    """The commit of this code, with a + if it was changed since; "" if unknown."""
    here = pathlib.Path(__file__).parent.parent
    git = ["git", "-C", str(here)]
    try:
        found = subprocess.run(
            [*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True
        )
        if found.returncode:
            return ""
        code = ["jaxehr", "experiments"]
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code])
    except OSError:
        return ""
    return found.stdout.strip() + ("+" if changed.returncode else "")


def named_config(variant: Any, preset: str) -> Any:
    """The configuration of a variant, before it knows the people: the preset if its
    model has one of that name, and the changes of the variant."""
    from jaxehr.core.configs import replace
    from jaxehr.registry import find, model_entry

    entry = model_entry(variant.model)
    config = replace(find(entry.config)(), find(entry.presets).get(preset, {}))
    return replace(config, variant.config)
