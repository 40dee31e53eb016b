"""PhysioNet/CinC Challenge 2019 (sepsis): one .psv file a patient, one row an hour.

Row k of a file is hour k since ICU admission. Vitals and laboratory values are temporal
features; Age, Gender, Unit1, Unit2 and HospAdmTime are constant in a stay and become
static ones. NaN means missing. A value outside the bounds of `VARIABLES` (below) is set
missing, and `provenance` counts such values by variable; nothing else is changed. The
schema has the rules SBP >= MAP >= DBP, which reading does not enforce.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Aggregate, Dataset, Feature, Label, Schema
from jaxehr.core.files import PathLike
from jaxehr.core.rules import descending
from jaxehr.data.archives import ROW, STAY, Format, find_sets, read_stays
from jaxehr.data.assemble import assemble
from jaxehr.data.gridding import (
    bound_columns,
    connect,
    count_steps,
    count_values,
    grid_wide,
    in_memory,
    with_ends,
)

# name: (unit, lowest, highest plausible value), closed; limits wide enough for extremes
VARIABLES: dict[str, tuple[str, float, float]] = {
    "HR": ("bpm", 15, 300),
    "O2Sat": ("%", 20, 100),
    "Temp": ("Cel", 24, 45),
    "SBP": ("mmHg", 20, 300),
    "MAP": ("mmHg", 15, 250),
    "DBP": ("mmHg", 10, 200),
    "Resp": ("bpm", 1, 100),
    "EtCO2": ("mmHg", 5, 150),
    "BaseExcess": ("mmol/L", -40, 40),
    "HCO3": ("mmol/L", 2, 60),
    "FiO2": ("1", 0.2, 1),
    "pH": ("1", 6.5, 8),
    "PaCO2": ("mmHg", 5, 200),
    "SaO2": ("%", 20, 100),
    "AST": ("IU/L", 1, 30000),
    "BUN": ("mg/dL", 1, 300),
    "Alkalinephos": ("IU/L", 1, 5000),
    "Calcium": ("mg/dL", 1, 25),
    "Chloride": ("mmol/L", 50, 170),
    "Creatinine": ("mg/dL", 0.05, 50),
    "Bilirubin_direct": ("mg/dL", 0.01, 60),
    "Glucose": ("mg/dL", 5, 2000),
    "Lactate": ("mmol/L", 0.1, 40),
    "Magnesium": ("mmol/dL", 0.1, 10),
    "Phosphate": ("mg/dL", 0.1, 25),
    "Potassium": ("mmol/L", 1, 12),
    "Bilirubin_total": ("mg/dL", 0.01, 80),
    "TroponinI": ("ng/mL", 0, 500),
    "Hct": ("%", 5, 75),
    "Hgb": ("g/dL", 1, 30),
    "PTT": ("s", 5, 300),
    "WBC": ("10^3/uL", 0.05, 600),
    "Fibrinogen": ("mg/dL", 10, 2000),
    "Platelets": ("10^3/uL", 1, 3000),
}
STATIC: dict[str, Feature] = {
    "Age": Feature(name="Age", kind="numeric", unit="a", lower=0, upper=120),
    "Gender": Feature(name="Gender", kind="binary", dtype="int64", categories=(0, 1)),
    "Unit1": Feature(name="Unit1", kind="binary", dtype="int64", categories=(0, 1)),
    "Unit2": Feature(name="Unit2", kind="binary", dtype="int64", categories=(0, 1)),
    "HospAdmTime": Feature(name="HospAdmTime", kind="numeric", unit="h"),
}
PRESSURES = ("SBP", "MAP", "DBP")
VITALS = ("HR", "O2Sat", "Temp", "SBP", "MAP", "DBP", "Resp")
LABELS = ("sepsis", "sepsis-by-hours")
ID, TIME, TARGET, PATTERN = "patient", "hour", "SepsisLabel", r"p\d+\.psv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Physionet2019Options:
    """What to read of the Challenge 2019 sets."""

    hours: float = 24
    """Length of the window, in hours from ICU admission."""
    bin_hours: float = 1
    """Width of a time step in hours; must divide `hours`."""
    min_hours: float = 0
    """Stays with fewer hourly rows than this are left out."""
    variables: tuple[str, ...] = VITALS
    """Temporal variables in this order: the vitals, or any of the 34."""
    label: str = "sepsis"
    """`sepsis`: at any hour of the stay; `sepsis-by-hours`: within the window."""
    static: tuple[str, ...] = tuple(STATIC)
    """Static variables; may be empty."""
    aggregate: Aggregate = "mean"
    """How several observations in one step become one value."""

    def __post_init__(self) -> None:
        count_steps(self.hours, self.bin_hours)
        known("label of Challenge 2019", self.label, LABELS)
        known("aggregate", self.aggregate, get_args(Aggregate))
        if not self.min_hours >= 0:
            raise InputError(f"min_hours must not be negative, got {self.min_hours}.")
        for name in self.variables:
            known("variable of Challenge 2019", name, VARIABLES)
        for name in self.static:
            known("static variable of Challenge 2019", name, STATIC)


def read(
    paths: Sequence[PathLike], options: Physionet2019Options | None = None
) -> Dataset:
    """Reads one or more sets (folder, .zip, .tar.gz, .tar.xz; or a folder of archives).

    The length of a stay is its number of rows, at most the window's.

    Raises:
      InputError: a path, file, column or value that cannot be read; a variable without
        any value (EtCO2 is empty in set A); no stay, or none with or without sepsis.
    """
    options = options or Physionet2019Options()
    sets = find_sets(paths, PATTERN)
    rows, ids = read_rows(sets, options)
    con = connect()
    schema = make_schema(options)
    table = in_memory(rows)
    counts = count_values(con, table, schema.temporal)
    stays = con.to_pyarrow(summarise(table, ids, options))
    if not stays.num_rows:
        raise InputError(
            f"no stay has {options.min_hours:g} hours or more ({len(ids)} stays read); "
            "lower min_hours."
        )
    temporal = grid(con, table, stays, schema) if schema.temporal else None
    where = ", ".join(path.name for path in sets)
    check_values(where, schema, counts)
    provenance = {
        "source": "physionet2019",
        "sets": [path.name for path in sets],
        "options": dataclasses.asdict(options),
        "stays": stays.num_rows,
        "stays_left_out": len(ids) - stays.num_rows,
        "variables": counts,
    }
    where = (f"{where}: static", f"{where}: first {options.hours:g} h")
    return assemble(schema, stays, temporal, provenance, where=where)


def read_rows(
    sets: list[Any], options: Physionet2019Options
) -> tuple[pa.Table, np.ndarray]:
    """The rows of all sets (`stay` = number of the patient), and the patients."""
    wanted = dict.fromkeys((*options.variables, *options.static), pa.float64())
    form = Format(
        PATTERN, "|", {**wanted, TARGET: pa.float64()}, ("NaN", "nan", "NA", "")
    )
    tables, names = [], []
    for path in sets:
        table, stems = read_stays(path, form)
        stays = pa.array(table[STAY].to_numpy() + len(names))
        at = table.schema.get_field_index(STAY)
        tables.append(table.set_column(at, STAY, stays))
        names += stems.tolist()
    distinct, repeats = np.unique(names, return_counts=True)
    if len(distinct) < len(names):
        raise InputError(
            f"{', '.join(map(str, sets))}: each patient must occur once; "
            f"{distinct[repeats > 1][0]} occurs {repeats.max()} times "
            f"({(repeats > 1).sum()} repeat). Name each set once."
        )
    return pa.concat_tables(tables), np.array(names)


def make_schema(options: Physionet2019Options) -> Schema:
    temporal = [
        Feature(
            name=name,
            kind="numeric",
            unit=VARIABLES[name][0],
            lower=VARIABLES[name][1],
            upper=VARIABLES[name][2],
            aggregate=options.aggregate,
        )
        for name in options.variables
    ]
    return Schema(
        static=tuple(STATIC[name] for name in options.static),
        temporal=tuple(temporal),
        num_steps=count_steps(options.hours, options.bin_hours),
        id=ID,
        id_dtype="string",
        time=TIME,
        step=options.bin_hours,
        label=Label(name="sepsis", classes=(0, 1)),
        rules=descending(*PRESSURES, among=options.variables),
    )


def check_values(where: str, schema: Schema, counts: dict[str, dict[str, int]]) -> None:
    """Raises InputError when a variable has no value at all."""
    for feature in schema.temporal:
        if counts[feature.name]["values"] == counts[feature.name]["implausible"]:
            raise InputError(
                f"{where}: variable {feature.name!r} has no value in these sets (all "
                "missing); leave it out of variables."
            )


def summarise(table: Any, ids: np.ndarray, options: Physionet2019Options) -> Any:
    """One row a stay that is long enough: id, static values, label, `rows`."""
    inside = table[ROW] < options.hours if options.label == "sepsis-by-hours" else None
    # A static value is repeated in every row; the first one that is not missing counts.
    static = {
        name: table[name].argmin(table[ROW], where=table[name].notnull())
        for name in options.static
    }
    stays = table.group_by(STAY).aggregate(
        **static,
        sepsis=(table[TARGET] == 1).any(where=inside).cast("int64"),
        rows=table.count(),
    )
    stays = stays.filter(stays["rows"] >= options.min_hours)
    numbers = np.arange(len(ids), dtype=np.int32)
    names = in_memory(pa.table({STAY: numbers, ID: ids.astype(object)}))
    stays = stays.inner_join(names, STAY)
    return stays.order_by(ID)


def grid(con: Any, table: Any, stays: pa.Table, schema: Schema) -> pa.Table:
    """The temporal table; the last hour of a stay has a row even without values."""
    kept = in_memory(stays.select([STAY, ID, "rows"]))
    rows = bound_columns(table, schema.temporal).inner_join(kept, STAY)
    binned = grid_wide(
        rows,
        id=ID,
        time=ROW,
        features=schema.temporal,
        start=schema.start,
        step=schema.step,
        num_steps=schema.num_steps,
    ).rename({TIME: ROW})
    binned = in_memory(con.to_pyarrow(binned))
    step = ((kept["rows"] - 1) / schema.step).floor().clip(upper=schema.num_steps - 1)
    ends = kept.mutate(**{TIME: schema.start + step * schema.step})
    return con.to_pyarrow(with_ends(binned, ends, id=ID, time=TIME))
