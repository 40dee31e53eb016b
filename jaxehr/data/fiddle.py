"""FIDDLE's features: the PhysioNet release (MIMIC-III, eICU) and FIDDLE's own output.

Two layouts are read [fiddle2020; physionet.org: mimic-eicu-fiddle-feature 1.0.0]:
`features/<task>/` with s.npz, X.npz and *.feature_names.json beside
`population/<task>.csv` (old versions name the folder `outcome=ARF,T=4.0,dt=1.0`), and
the output folder of FIDDLE v0.2.0 (S.npz, X.npz, IDs.csv). Row i of the arrays is the
stay with the i-th smallest ID. Every column is binary and every cell observed.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Dataset, Feature, Schema, Table, make_cohort, take
from jaxehr.core.files import PathLike
from jaxehr.data.columns import listing
from jaxehr.data.fiddle_files import (
    TASK,
    Matrix,
    find_file,
    read_csv,
    read_matrix,
    static_codes,
    temporal_table,
)
from jaxehr.data.fiddle_people import ID, People, Place, read_people

GROUP, PARTS = "person", ("train", "val", "test")
UNKNOWN = "unknown: split by stay"  # in provenance
OLD = re.compile(r"(benchmark,)?outcome=(?P<name>[^,]+),T=(?P<T>[\d.]+),dt=(?P<dt>.+)")
RANGE = re.compile(r"\[\s*([\d.]+),\s*([\d.]+)\s*\)")
MINUTES = 30  # a step of 30 or more is one in minutes (eICU); otherwise in hours


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiddleOptions:
    """What to read of FIDDLE's output."""

    task: str = ""
    """Task of the release, e.g. ARF_4h; may be left out where there is only one."""
    label: str = ""
    """Label column of the population file; empty = the one that ends in _LABEL."""
    population: str = ""
    """Population file (ID, label, partition); empty = where the release has it."""
    partition: tuple[str, ...] = ("all",)
    """Parts of FIDDLE's own split to read: train, val, test (commas); or all."""

    def __post_init__(self) -> None:
        for name in self.partition:
            known("partition", name, (*PARTS, "all"))
        if not self.partition:
            raise InputError("partition: name train, val, test, or all.")


def read(paths: Sequence[PathLike], options: FiddleOptions | None = None) -> Dataset:
    """Reads one task as a cohort with a sparse temporal table.

    Raises:
      InputError: no FIDDLE folder, an unknown task (the message lists those there), a
        missing, damaged or foreign file, values other than 0 and 1, counts that do not
        agree, a stay without a label, a partition that the files do not have.
    """
    options = options or FiddleOptions()
    if len(paths) != 1:
        raise InputError(f"fiddle: one folder is read at a time, got {len(paths)}.")
    place = find_place(pathlib.Path(paths[0]), options.task)
    fixed = read_matrix(place.features, "s", 2)
    series = read_matrix(place.features, "X", 3)
    people = read_people(place, options.population, options.label)
    for matrix in (fixed, series):
        if matrix.shape[0] != len(people.ids):
            raise InputError(
                f"{matrix.path}: has {matrix.shape[0]} rows, but {people.where} "
                f"{len(people.ids)} stays; the files are not of one run."
            )
    schema = Schema(
        static=features(fixed.names),
        temporal=features(series.names),
        id=ID,
        id_dtype="int64" if people.ids.dtype.kind == "i" else "string",
        label=people.label,
        group=None if people.groups is None else GROUP,
        **grid(place, series.shape[1]),
    )
    codes = static_codes(fixed)
    static = Table(np.zeros((len(codes), 0)), codes, np.ones(codes.shape, bool))
    table = temporal_table(series)
    cohort = make_cohort(static, table, table.length, people.codes)
    groups = people.ids if people.groups is None else people.groups
    made = provenance(place, people, options, fixed, series)
    return select(Dataset(schema, cohort, people.ids, groups, made), people, options)


def features(names: tuple[str, ...]) -> tuple[Feature, ...]:
    """Binary columns, codes 0 and 1."""
    return tuple(
        Feature(name=name, kind="binary", dtype="int8", categories=(0, 1))
        for name in names
    )


def provenance(
    place: Place, people: People, options: FiddleOptions, fixed: Matrix, series: Matrix
) -> dict[str, Any]:
    split = None
    if people.parts is not None:
        names, counts = np.unique(people.parts, return_counts=True)
        sizes = dict(zip([name or "none" for name in names.tolist()], counts.tolist()))
        split = {"source": people.parts_from, "stays": sizes}
    return {
        "source": "fiddle",
        "task": place.task,
        "options": dataclasses.asdict(options),
        "stays": len(people.ids),
        "persons": UNKNOWN if people.groups is None else GROUP,
        "partition": split,
        "aliases": {"static": fixed.aliases, "temporal": series.aliases},
    }


def select(data: Dataset, people: People, options: FiddleOptions) -> Dataset:
    """The stays of the wanted parts of FIDDLE's split."""
    if "all" in options.partition:
        return data
    if people.parts is None:
        raise InputError(
            f"partition: neither {people.where} nor prep/icustays*.csv has a column "
            "'partition'; read all (training holds out a hashed share of the people)."
        )
    rows = np.isin(people.parts, options.partition)
    if not rows.any():
        raise InputError(
            f"partition: no stay is in {listing(options.partition)}; "
            f"{people.parts_from} has {listing(np.unique(people.parts).tolist())}."
        )
    return take(data, rows)


def is_features(folder: pathlib.Path) -> bool:
    return folder.is_dir() and find_file(folder, "X", ".npz") is not None


def task_name(folder: str) -> str:
    """Folder name -> name of the release: outcome=ARF,T=4.0,dt=1.0 -> ARF_4h."""
    found = OLD.fullmatch(folder)
    if not found:
        return folder
    hours = float(found["T"]) / (60 if float(found["dt"]) >= MINUTES else 1)
    return f"{found['name']}_{hours:g}h"


def find_place(folder: pathlib.Path, task: str) -> Place:
    """The files of a task under a folder of either layout.

    Raises:
      InputError: no such folder, none of FIDDLE, several tasks and none named, an
        unknown task.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder (unpack an archive first).")
    if is_features(folder):
        name = task_name(folder.resolve().name)
        name = name if TASK.fullmatch(name) else ""
        if task and name:
            known(f"task in {folder}", task, [name])
        return Place(folder, folder.resolve().parent.parent, task or name)
    inside = folder / "features"
    if not inside.is_dir():
        inner = [p for p in sorted(folder.iterdir()) if (p / "features").is_dir()]
        if len(inner) == 1:
            return find_place(inner[0], task)
        if inner:
            names = listing(p.name for p in inner)
            raise InputError(f"{folder}: several data sets ({names}); name one.")
        raise InputError(
            f"{folder}: neither features/<task>/X.npz (the release) nor X.npz (output "
            "of FIDDLE) is in this folder."
        )
    tasks = {task_name(p.name): p for p in sorted(inside.iterdir()) if is_features(p)}
    if not tasks:
        raise InputError(f"{inside}: no task in it (<task>/X.npz).")
    if not task and len(tasks) > 1:
        raise InputError(f"{inside}: several tasks; name one: {', '.join(tasks)}.")
    task = task or next(iter(tasks))
    known(f"task in {inside}", task, tasks)
    return Place(tasks[task], folder, task)


def grid(place: Place, steps: int) -> dict[str, Any]:
    """The time grid: the hours in the task's name, or the first range of X.ID,t_range.

    FIDDLE's units are the user's; a step of 30 or more is taken as one in minutes.
    """
    step = 1.0
    named = TASK.fullmatch(place.task)
    ranges = find_file(place.features, "X", ".ID,t_range.csv")
    if ranges:
        table = read_csv(ranges)
        names = [name for name in table.column_names if name == "t_range"]
        first = table[names[0]][0].as_py() if names and len(table) else ""
        found = RANGE.fullmatch(str(first))
        if not found:
            raise InputError(f"{ranges}: no time range like [0.0, 1.0) in it.")
        width = float(found[2]) - float(found[1])
        step = width / 60 if width >= MINUTES else width
    elif named and steps:
        step = float(named["hours"]) / steps
    return {"num_steps": steps, "step": step, "time": "hour"}
