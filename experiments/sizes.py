"""Sizes of cohorts: people, columns, steps, what is missing, shares of the label."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import tyro

from experiments.cell import told_of
from experiments.standins import prepared
from experiments.suite import folders_of
from experiments.tables import whose
from jaxehr.core.cohort import Dataset, to_dense, valid_steps
from jaxehr.core.files import write_text
from jaxehr.core.sparse import SparseTable
from jaxehr.data.store import load_cohort

TITLES = (
    *("cohort", "patients", "test", "static", "numeric", "coded", "masks", "steps"),
    *("step", "without static", "without series", "missing", "label"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Count what cohorts hold."""

    cohorts: tyro.conf.Positional[tuple[str, ...]] = ()
    """NAME=TRAIN or NAME=TRAIN:TEST: folders that `jaxehr prepare` made; none = open
    ones that stand in for the papers' (`python -m experiments.standins`)."""
    out: pathlib.Path = pathlib.Path("results/sizes")
    """The folder for the table."""


def table1(name: str, *standins: str) -> Callable[[Sizes], None]:
    """The entry point of a published Table 1: writes NAME.md.

    Args:
      standins: the cohorts that are taken where none is named.
    """

    def main(options: Sizes) -> None:
        rows = [list(TITLES), ["---", *["---:"] * (len(TITLES) - 1)]]
        cohorts, told = options.cohorts or prepared(standins), []
        for cohort, folders in folders_of(cohorts).items():
            sets = [load_cohort(folder) for folder in folders]
            rows.append(row_of(cohort, sets))
            told.append({"cohort": cohort, "data": told_of(sets[0], folders)})
        lines = [f"| {' | '.join(row)} |" for row in rows]
        note = (
            "Test: other people; else a fifth of the patients (by hashed id) is held "
            "out. Masks: temporal columns with gaps, each of which is one more column "
            "that says so. "
        )
        text = "\n".join([*lines, "", note + whose(told), ""])
        write_text(options.out / f"{name}.md", text)
        print(text, end="")

    return main


def row_of(name: str, sets: list[Dataset]) -> list[str]:
    """One row: the training people, and how many test people there are."""
    data = sets[0]
    schema, cohort = data.schema, data.cohort
    numeric = sum(feature.is_numeric for feature in schema.temporal)
    share = lambda has: f"{100.0 * (1.0 - np.mean(has)):.1f} %"
    shares = np.bincount(cohort.label, minlength=max(schema.num_classes, 1))
    label = "none"
    if schema.label is not None:
        counted = 100.0 * shares / max(len(cohort.label), 1)
        named = zip(schema.label.classes, counted, strict=True)
        label = ", ".join(f"{value}: {each:.1f} %" for value, each in named)
    return [
        name,
        f"{len(data.ids):,}",
        f"{len(sets[1].ids):,}" if len(sets) > 1 else "",
        str(len(schema.static)),
        str(numeric),
        str(len(schema.temporal) - numeric),
        str(with_gaps(data)),
        str(schema.num_steps),
        f"{schema.step:g} {schema.time_unit}" if schema.temporal else "",
        share(cohort.has_static),
        share(cohort.has_temporal),
        missing(data),
        label,
    ]


def with_gaps(data: Dataset) -> int:
    """Temporal columns that have a missing value somewhere within a stay."""
    if isinstance(data.cohort.temporal, SparseTable):
        return 0
    seen = data.cohort.temporal.observed[valid_steps(data.cohort)]
    return int((~seen.all(0)).sum())


def missing(data: Dataset) -> str:
    """Share of the temporal values that were not observed, within each stay."""
    if isinstance(data.cohort.temporal, SparseTable):
        return "0.0 %"  # a sparse table has a value everywhere
    cohort = to_dense(data.cohort)
    seen = cohort.temporal.observed[valid_steps(cohort)]
    return f"{100.0 * (1.0 - seen.mean()):.1f} %" if seen.size else ""
