"""How the model was trained and how the numbers were made; limits of use."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from jaxehr.core.cohort import Table, num_patients
from jaxehr.core.contracts import Comparison, Result
from jaxehr.core.sparse import SparseTable
from jaxehr.report import fitting, words
from jaxehr.report.page import Grid, Lines, Rows, Section
from jaxehr.report.style import shorten

READING = (
    "The reference of a metric is the same number computed between real data and other "
    "real data: what a perfect generator would reach at these sample sizes; where "
    "training and synthetic patients differ in number, as many of each are drawn for "
    "distances from the hold-out. Figures compare the synthetic data with the real "
    "training data."
)
PACKAGES = ("jaxehr", "jax", "flax", "optax", "numpy", "scikit-learn", "matplotlib")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages behind the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def sizes(comparison: Comparison) -> dict[str, dict[str, int]]:
    """Patients, observed values and patients per part of each data set."""
    table = {}
    for name, data in zip(comparison._fields, comparison):
        cohort = data.cohort
        table[name] = {
            "patients": num_patients(cohort),
            "with_static": int(cohort.has_static.sum()),
            "with_temporal": int(cohort.has_temporal.sum()),
            "steps": int(cohort.length.sum()),
            "observed_values": int(cohort.static.observed.sum())
            + observed_cells(cohort.temporal),
        }
    return table


def observed_cells(temporal: Table | SparseTable) -> int:
    """How many values a temporal table holds; a sparse one has one in every cell."""
    if isinstance(temporal, SparseTable):
        return int(np.sum(temporal.length, dtype=np.int64)) * temporal.features
    return int(temporal.observed.sum())


def flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Leaves of nested mappings as (dotted name, text); None left out, long text cut.

    metrics.json holds them whole.
    """
    if value is None:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        return
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ", ".join(str(item) for item in value) or "none"
    yield prefix, shorten(value, 300)


def schedule(comparison: Comparison, run: Mapping[str, Any]) -> Section | None:
    """The learned noise schedule, when the run has one."""
    entries = run.get("schedule")
    if not entries:
        return None
    config = run.get("config") or {}
    schema = comparison.schema
    label = f"time step ({schema.step:g} {schema.time_unit} each)"
    maps, curves, notes = [], [], []
    for part, entry in entries.items():
        drawn, lines, said = fitting.schedule_pictures(part, entry, config, label)
        maps += drawn
        curves += lines
        notes += said
    text = [
        "The model destroys data with noise and learns to undo it. The shape rho says "
        "at which noise levels each variable and step is worked on most: 1 is even, a "
        "larger one means more steps at low noise.",
        *notes,
    ]
    blocks = [Grid(maps, "large")] if maps else []
    if curves:
        blocks.append(Grid(curves))
    else:
        text.append("No curve of sigma(t): the run does not state its noise range.")
    if not maps:
        text.append("No map of rho: the schedule is not a power mean.")
    return Section("schedule", "Learned noise schedule", text, blocks)


def losses(run: Mapping[str, Any]) -> Section | None:
    """Training and validation loss, when the run has them."""
    records = run.get("losses")
    if not records:
        return None
    text = ["The loss that training lowers; it need not reach 0."]
    blocks = [Grid([fitting.losses(records)], "large")]
    return Section("losses", "Training", text, blocks)


def made(
    comparison: Comparison, results: list[Result], run: Mapping[str, Any]
) -> Section:
    """Sizes, seeds, sampler, versions, provenance and definitions with sources."""
    counted = sizes(comparison)
    names = {"train": "Real, training", "holdout": "Real, held out"}
    columns = list(next(iter(counted.values())))
    blocks: list[Any] = [
        Rows(
            "Data",
            ["Data set", *(column.replace("_", " ") for column in columns)],
            [
                [names.get(key, "Synthetic"), *(f"{row[c]:,}" for c in columns)]
                for key, row in counted.items()
            ],
        )
    ]
    described = {k: v for k, v in run.items() if k not in ("schedule", "losses")}
    tables = [("Model, sampler and machine", described)] if described else []
    for key, data in zip(comparison._fields, comparison):
        title = f"Origin: {names.get(key, 'Synthetic').lower()}"
        tables += [(title, data.provenance)] if data.provenance else []
    tables.append(("Versions", versions()))
    for caption, mapping in tables:
        rows = [list(pair) for pair in flatten(mapping)]
        blocks.append(Rows(caption, ["Field", "Value"], rows, numeric=False))
    blocks.append(
        Rows(
            "Definitions of the metrics",
            ["Metric", "Definition", "Ideal", "Source"],
            [
                [
                    r.definition.title,
                    r.definition.text,
                    "the reference"
                    if r.definition.ideal is None
                    else f"{r.definition.ideal:g}",
                    r.definition.source or "ours",
                ]
                for r in results
            ],
            numeric=False,
        )
    )
    return Section("made", "How the data and the numbers were made", [READING], blocks)


def limits(results: list[Result], notes: Sequence[str]) -> Section:
    """What this page does not show."""
    items = [*notes]
    held = words.held(results)
    if not held:
        items.append(
            "Not assessed: privacy attacks. Nothing here shows that a real patient "
            "cannot be recognised in the synthetic data; do not release them on the "
            "strength of this page."
        )
    else:
        only = "" if " and " in held else " only"
        items.append(
            f"Attacks on privacy were made with {held}{only}. That they fail does not "
            "show that a stronger one would, nor does it bound the risk of a single "
            "patient."
        )
    items += [
        "Synthetic patients are for developing and testing methods. They are no basis "
        "for the care of a person, nor for a clinical conclusion not repeated on real "
        "data.",
        "A good average can hide a bad subgroup: rare classes and rare values have "
        "few patients behind them.",
        "Metric values depend on their definitions and on sample sizes; compare "
        "with their references here, not with numbers from other papers.",
    ]
    return Section("limits", "Limits of use", [], [Lines(items)])
