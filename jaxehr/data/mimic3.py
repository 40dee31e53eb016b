"""MIMIC-III (v1.3, v1.4, and the demo) from its tables: three cohorts.

`vitals24` is TimeDiff's cohort [timediff2023], which CDMT-EHR uses too: seven vital
signs of MetaVision stays on 25 hourly points. `mortality48` and `arf4` follow FIDDLE's
tasks [fiddle2020] with the tables that FLEXGEN-EHR lists [flexgen2024, Table 5].
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset
from jaxehr.core.files import PathLike
from jaxehr.data import mimic3_tasks, mimic3_vitals
from jaxehr.data.events import EventOptions, refuse_choice
from jaxehr.data.hospital import PartOptions, open_hospital, select_part
from jaxehr.data.parts import of_plan
from jaxehr.data.shards import Parts, parts_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mimic3Options(EventOptions, PartOptions):
    """Which cohort of MIMIC-III to make; the choice of variables is for the others."""

    task: Literal["vitals24", "mortality48", "arf4"] = "vitals24"
    """7 vital signs in 25 h; all sources in 48 h for death; in 4 h for ventilation."""
    label_as_timediff: bool = False
    """vitals24: label of the person's first admission, as published, not the stay's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "vitals24":
            refuse_choice(self)
        if self.label_as_timediff and self.task != "vitals24":
            raise InputError("label_as_timediff is for the task vitals24 only.")


def read(paths: Sequence[PathLike], options: Mimic3Options | None = None) -> Dataset:
    """The cohort in memory; see `open_parts`."""
    with open_parts(paths, options or Mimic3Options(), 1) as parts:
        return next(parts.pieces).data


@contextlib.contextmanager
def open_parts(
    paths: Sequence[PathLike], options: Mimic3Options, number: int
) -> Iterator[Parts]:
    """Reads the folder that holds the tables; the cohort comes in `number` parts.

    Raises:
      InputError: a missing table or column (with where it was looked for), an
        unreadable file, a bad cell, repeated or contradictory rows, units that do not
        fit, no patient left (with the step that lost them).
    """
    with open_hospital(paths, options) as hospital:
        if options.task == "vitals24":
            data = mimic3_vitals.read(hospital, options.label_as_timediff, options)
            yield parts_of(select_part(data, options), number)
        else:
            plan = mimic3_tasks.plan(hospital, options.task, options)
            yield of_plan(hospital, plan, number, options)
