"""eICU-CRD (2.0, and the demo) from its tables: three cohorts.

`vitals24` is TimeDiff's cohort [timediff2023], which CDMT-EHR uses too: four vital
signs every 5 minutes, 272 steps. `mortality48` and `arf4` follow FIDDLE's tasks
[fiddle2020] with the tables that FLEXGEN-EHR lists [flexgen2024, Table 6].
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Dataset
from jaxehr.core.files import PathLike
from jaxehr.data import eicu_tasks, eicu_vitals
from jaxehr.data.eicu_tables import TABLES
from jaxehr.data.events import EventOptions, refuse_choice
from jaxehr.data.hospital import PartOptions, open_hospital, select_part
from jaxehr.data.parts import of_plan
from jaxehr.data.shards import Parts, parts_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class EicuOptions(EventOptions, PartOptions):
    """Which cohort of eICU to make; the choice of variables is for the last two."""

    task: Literal["vitals24", "mortality48", "arf4"] = "vitals24"
    """4 vital signs every 5 min; all sources in 48 h for death; in 4 h for PEEP."""
    least_rows: int = 276
    """vitals24: rows that a stay needs from minute 60 to 1440; 276 as published."""
    tables: tuple[str, ...] = ()
    """Only these temporal tables, for a partial copy; empty = all that are listed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "vitals24":
            refuse_choice(self, "tables")
        if self.least_rows < eicu_vitals.STEPS:
            raise InputError(
                f"least_rows must be {eicu_vitals.STEPS} or more, got "
                f"{self.least_rows}."
            )
        for name in self.tables:
            known("table of eICU", name, TABLES)


def read(paths: Sequence[PathLike], options: EicuOptions | None = None) -> Dataset:
    """The cohort in memory; see `open_parts`."""
    with open_parts(paths, options or EicuOptions(), 1) as parts:
        return next(parts.pieces).data


@contextlib.contextmanager
def open_parts(
    paths: Sequence[PathLike], options: EicuOptions, number: int
) -> Iterator[Parts]:
    """Reads the folder that holds the tables; the cohort comes in `number` parts.

    Raises:
      InputError: a missing table or column (with where it was looked for), an
        unreadable file, a bad cell, repeated rows, no patient left (with the step that
        lost them).
    """
    with open_hospital(paths, options) as hospital:
        if options.task == "vitals24":
            data = eicu_vitals.read(hospital, options.least_rows, options)
            yield parts_of(select_part(data, options), number)
        else:
            tables = options.tables or tuple(TABLES)
            plan = eicu_tasks.plan(hospital, options.task, tables, options)
            yield of_plan(hospital, plan, number, options)
