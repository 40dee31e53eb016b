"""PhysioNet/CinC Challenge 2012: adult ICU stays, 0-48 h, in-hospital death.

One `RecordID.txt` (Time,Parameter,Value) a stay: the general descriptors at 00:00
(static; a weight there is one the first time) and dated observations of 37 parameters.
In the source -1 means missing. A value outside the bounds of `PARAMETERS` (below) is
set missing, and `provenance` counts such values; nothing else is changed. The schema
has the rules systolic >= mean >= diastolic pressure, which reading does not enforce.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.csv

from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Aggregate, Dataset, Feature, Label, Schema
from jaxehr.core.files import PathLike
from jaxehr.core.rules import descending
from jaxehr.data.archives import ROW, STAY, Format, find_sets, read_members, read_stays
from jaxehr.data.assemble import assemble
from jaxehr.data.gridding import (
    bounded,
    connect,
    count_steps,
    grid_long,
    in_memory,
    with_ends,
)


class Parameter(NamedTuple):
    """Unit and plausible range (closed) of a dated parameter."""

    unit: str
    lower: float
    upper: float


# Ranges are wide physiological limits of adults, chosen to drop what no living patient
# has (pH 735, HR 0, Temp -17.8) and to keep what is merely extreme.
PARAMETERS: dict[str, Parameter] = {
    "Albumin": Parameter("g/dL", 0.5, 7),
    "ALP": Parameter("IU/L", 1, 5000),
    "ALT": Parameter("IU/L", 1, 20000),
    "AST": Parameter("IU/L", 1, 30000),
    "Bilirubin": Parameter("mg/dL", 0.05, 80),
    "BUN": Parameter("mg/dL", 1, 300),
    "Cholesterol": Parameter("mg/dL", 10, 1000),
    "Creatinine": Parameter("mg/dL", 0.05, 40),
    "DiasABP": Parameter("mmHg", 10, 200),
    "FiO2": Parameter("1", 0.2, 1),
    "GCS": Parameter("1", 3, 15),
    "Glucose": Parameter("mg/dL", 5, 2000),
    "HCO3": Parameter("mmol/L", 2, 60),
    "HCT": Parameter("%", 5, 75),
    "HR": Parameter("bpm", 15, 300),
    "K": Parameter("mEq/L", 1, 12),
    "Lactate": Parameter("mmol/L", 0.1, 40),
    "Mg": Parameter("mmol/L", 0.3, 10),
    "MAP": Parameter("mmHg", 15, 250),
    "MechVent": Parameter("1", 1, 1),
    "Na": Parameter("mEq/L", 90, 190),
    "NIDiasABP": Parameter("mmHg", 10, 200),
    "NIMAP": Parameter("mmHg", 15, 250),
    "NISysABP": Parameter("mmHg", 30, 300),
    "PaCO2": Parameter("mmHg", 5, 200),
    "PaO2": Parameter("mmHg", 15, 700),
    "pH": Parameter("1", 6.5, 8),
    "Platelets": Parameter("cells/nL", 1, 2000),
    "RespRate": Parameter("bpm", 1, 100),
    "SaO2": Parameter("%", 20, 100),
    "SysABP": Parameter("mmHg", 30, 300),
    "Temp": Parameter("Cel", 24, 45),
    "TroponinI": Parameter("ug/L", 0, 500),
    "TroponinT": Parameter("ug/L", 0, 100),
    "Urine": Parameter("mL", 0, 12000),
    "WBC": Parameter("cells/nL", 0.05, 600),
    "Weight": Parameter("kg", 20, 350),
}
DESCRIPTORS: dict[str, Feature] = {
    "Age": Feature(
        name="Age", kind="integer", dtype="int64", unit="a", lower=10, upper=120
    ),
    "Gender": Feature(name="Gender", kind="binary", dtype="int64", categories=(0, 1)),
    "Height": Feature(name="Height", kind="numeric", unit="cm", lower=100, upper=250),
    "Weight": Feature(name="Weight", kind="numeric", unit="kg", lower=20, upper=350),
    # 1 Coronary Care Unit, 2 Cardiac Surgery Recovery Unit, 3 Medical ICU,
    # 4 Surgical ICU
    "ICUType": Feature(
        name="ICUType", kind="categorical", dtype="int64", categories=(1, 2, 3, 4)
    ),
}
INVASIVE, CUFF = ("SysABP", "MAP", "DiasABP"), ("NISysABP", "NIMAP", "NIDiasABP")
ID, TIME, MISSING, MOST_CLASSES = "RecordID", "hour", -1, 10
FORMAT = Format(
    pattern=r"\d+\.txt",
    delimiter=",",
    types={"Time": pa.string(), "Parameter": pa.string(), "Value": pa.float64()},
    null_values=("", "NaN"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Physionet2012Options:
    """What to read of the Challenge 2012 sets."""

    hours: float = 48
    """Length of the window, in hours from ICU admission."""
    bin_hours: float = 1
    """Width of a time step in hours; must divide `hours`."""
    variables: tuple[str, ...] = ()
    """Temporal parameters in this order; empty = all of the 37 that have a value."""
    label: str = "In-hospital_death"
    """Column of the Outcomes file with few classes."""
    outcomes: str = ""
    """Outcomes file(s), comma-separated; empty = found beside or inside the sets."""
    static: tuple[str, ...] = ("Age", "Gender", "Height", "Weight", "ICUType")
    """General descriptors that become static features; may be empty."""
    aggregate: Aggregate = "mean"
    """How several observations in one step become one value."""

    def __post_init__(self) -> None:
        count_steps(self.hours, self.bin_hours)
        known("aggregate", self.aggregate, get_args(Aggregate))
        for name in self.variables:
            known("variable of Challenge 2012", name, PARAMETERS)
        for name in self.static:
            known("static variable of Challenge 2012", name, DESCRIPTORS)


def read(
    paths: Sequence[PathLike], options: Physionet2012Options | None = None
) -> Dataset:
    """Reads one or more sets (folder, .zip, .tar.gz, .tar.xz; or a folder of archives).

    A stay with an observation has the length of the whole window (all stays of the
    challenge last 48 h); one without lacks the temporal part.

    Raises:
      InputError: a path, file, column or value that cannot be read; no label for a stay
        (the message names the Outcomes file looked for); a label with many values; a
        requested variable without any value.
    """
    options = options or Physionet2012Options()
    sets = find_sets(paths, FORMAT.pattern)
    rows, ids = read_rows(sets)
    labels = read_labels(sets, ids, options)
    con = connect()
    observations, descriptors, counts = clean(con, rows)
    schema = make_schema(options, labels, counts)
    temporal = grid(con, observations, schema)
    static = con.to_pyarrow(descriptors)
    where = ", ".join(path.name for path in sets)
    provenance = {
        "source": "physionet2012",
        "sets": [path.name for path in sets],
        "options": dataclasses.asdict(options),
        "stays": len(ids),
        "parameters": counts,
    }
    return assemble(
        schema,
        join_static(ids, static, labels, options.label),
        temporal,
        provenance,
        where=(f"{where}: descriptors", f"{where}: first {options.hours:g} h"),
    )


def read_rows(sets: list[pathlib.Path]) -> tuple[pa.Table, np.ndarray]:
    """The rows of all sets with their RecordID, and the RecordIDs int64 [stays]."""
    tables, all_ids = [], []
    for path in sets:
        table, stems = read_stays(path, FORMAT)
        ids = stems.astype(np.int64)
        owner = pa.array(ids[table[STAY].to_numpy()])
        tables.append(table.drop_columns([STAY]).append_column(ID, owner))
        all_ids.append(ids)
    ids = np.concatenate(all_ids)
    distinct, counts = np.unique(ids, return_counts=True)
    if len(distinct) < len(ids):
        raise InputError(
            f"{', '.join(map(str, sets))}: each stay must occur once; RecordID "
            f"{distinct[counts > 1][0]} occurs {counts.max()} times "
            f"({(counts > 1).sum()} repeat). Name each set once."
        )
    return pa.concat_tables(tables), distinct


def outcome_files(path: pathlib.Path) -> list[pathlib.Path]:
    """Outcomes files beside a set, in it (a folder), or in the parent of the folder."""
    pattern = "Outcomes*.txt"
    inside = list(path.rglob(pattern)) if path.is_dir() else []
    return sorted({*inside, *path.absolute().parent.glob(pattern)})


def read_labels(
    sets: list[pathlib.Path], ids: np.ndarray, options: Physionet2012Options
) -> np.ndarray:
    """Labels int64 [stays] in the order of `ids`.

    Raises:
      InputError: no Outcomes file, a stay without label, an unknown label column, or
        one with more than 10 values.
    """
    texts: dict[str, bytes] = {}
    if options.outcomes:
        for name in options.outcomes.split(","):
            path = pathlib.Path(name.strip())
            if not path.is_file():
                raise InputError(f"{path}: no such Outcomes file.")
            texts[str(path)] = path.read_bytes()
    for path in [] if options.outcomes else sets:
        files = outcome_files(path)
        texts |= {str(file.resolve()): file.read_bytes() for file in files}
        if not files and path.is_file():
            inside = read_members(path, r"Outcomes.*\.txt")
            texts |= {f"{path}: {name}": data for name, data in inside}
    wanted = ", ".join(
        f"Outcomes{path.name.split('.')[0].removeprefix('set')}.txt" for path in sets
    )
    places = ", ".join(sorted({str(path.absolute().parent) for path in sets}))
    advice = (
        f"looked for {wanted} in and beside the sets ({places}); name it: outcomes."
    )
    if not texts:
        raise InputError(f"no Outcomes file: {advice}")
    parts = [read_outcomes(name, data, options.label) for name, data in texts.items()]
    records, values = (np.concatenate(column) for column in zip(*parts))
    order = np.argsort(records, kind="stable")
    at = np.searchsorted(records[order], ids).clip(max=len(order) - 1)
    lacking = records[order][at] != ids
    if lacking.any():
        raise InputError(
            f"label {options.label!r} missing for {lacking.sum()} of {len(ids)} stays, "
            f"e.g. RecordID {ids[lacking][0]}: {advice}"
        )
    return values[order][at]


def read_outcomes(name: str, data: bytes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """RecordID and label, both int64 [rows], of one Outcomes file."""
    try:
        table = pyarrow.csv.read_csv(pa.BufferReader(data))
    except pa.ArrowInvalid as error:
        raise InputError(f"{name}: {' '.join(str(error).split())}") from error
    known(f"label in {pathlib.Path(name).name}", label, table.column_names[1:])
    known("id column", ID, table.column_names)
    values = table[label]
    classes = len(values.unique())
    if not pa.types.is_integer(values.type) or values.null_count:
        raise InputError(f"{name}: label {label!r}: integers are needed in every row.")
    if classes > MOST_CLASSES:
        raise InputError(
            f"{name}: label {label!r} has {classes} different values; a label is a "
            f"class with at most {MOST_CLASSES}. Use In-hospital_death."
        )
    return table[ID].to_numpy().astype(np.int64), values.to_numpy().astype(np.int64)


def clean(con: Any, rows: pa.Table) -> tuple[Any, Any, dict[str, dict[str, int]]]:
    """Observations (id, hour, name, value), descriptors (a row a stay), and counts.

    The counts of a parameter: its rows, and how many of them are missing (-1 or empty),
    implausible (set missing), or kept; `unknown` gathers names that are no parameter,
    the empty name included.
    """
    table = in_memory(rows)
    name = table.Parameter.strip()
    clock = table.Time.split(":")
    hour = clock[0].try_cast("float64") + clock[1].try_cast("float64") / 60.0
    start = (hour == 0) & name.isin([ID, *DESCRIPTORS])
    table = table.mutate(name=name, start=start, hour=hour)
    refuse_times(con, table)
    # Some files sort the descriptors among the observations of 00:00: of two weights
    # there the first is the descriptor.
    table = table.group_by([ID, "name", "start"]).mutate(
        first=lambda t: t.start & (t[ROW] == t[ROW].min())
    )
    bounds = [(f"{n}", False, p.lower, p.upper) for n, p in PARAMETERS.items()]
    bounds += [(n, True, f.lower, f.upper) for n, f in DESCRIPTORS.items()]
    bounds += [(ID, True, None, None)]
    columns = ("name", "first", "lower", "upper")
    limits = in_memory(pa.table(dict(zip(columns, map(list, zip(*bounds))))))
    table = table.mutate(given=table.Value.nullif(MISSING))
    table = table.left_join(limits.mutate(listed=True), ["name", "first"])
    value = bounded(table.given, table.lower, table.upper)
    table = table.mutate(sound=ibis.ifelse(table.listed, value, None))
    seen = table.filter(table.sound.notnull())
    observations = seen.filter(~seen.first).select(ID, "hour", "name", "sound")
    own = seen.filter(seen.first)
    descriptors = own.group_by(ID).aggregate(
        **{n: own.sound.max(where=own.name == n) for n in DESCRIPTORS}
    )
    return observations, descriptors, count(con, table)


def refuse_times(con: Any, table: Any) -> None:
    """Raises InputError for a Time that is not HH:MM."""
    bad = table.filter(table.hour.isnull()).select(ID, "Time")
    total = int(con.to_pyarrow(bad.count()).as_py())
    if total:
        worst = con.to_pyarrow(bad.order_by([ID, "Time"]).limit(1)).to_pylist()[0]
        raise InputError(
            f"{worst[ID]}.txt: Time must be HH:MM, got {worst['Time']!r}; {total} rows "
            "are bad."
        )


def count(con: Any, table: Any) -> dict[str, dict[str, int]]:
    """What `clean` counts, by parameter; descriptors carry the prefix `static `."""
    name = ibis.ifelse(table.first, ibis.literal("static ") + table.name, table.name)
    name = ibis.ifelse(table.listed.fill_null(False), name, "unknown")
    given, kept = table.given.notnull(), table.sound.notnull()
    counts = table.group_by(key=name).aggregate(
        rows=table.count(),
        missing=(~given).sum(),
        implausible=(given & ~kept & table.listed.fill_null(False)).sum(),
        kept=kept.sum(),
    )
    found = con.to_pyarrow(counts.order_by("key")).to_pylist()
    return {row.pop("key"): row for row in found if row["key"] != f"static {ID}"}


def make_schema(
    options: Physionet2012Options, labels: np.ndarray, counts: dict[str, dict[str, int]]
) -> Schema:
    """Features of the wanted variables; one without any value is refused if named."""
    seen = [name for name in PARAMETERS if counts.get(name, {}).get("kept")]
    for name in options.variables:
        known("variable with a value in these sets", name, seen)
    names = options.variables or seen
    return Schema(
        static=tuple(DESCRIPTORS[name] for name in options.static),
        temporal=tuple(temporal_feature(name, options.aggregate) for name in names),
        num_steps=count_steps(options.hours, options.bin_hours),
        id=ID,
        time=TIME,
        step=options.bin_hours,
        label=Label(name=options.label, classes=tuple(np.unique(labels).tolist())),
        rules=descending(*INVASIVE, among=names) + descending(*CUFF, among=names),
    )


def temporal_feature(name: str, aggregate: Aggregate) -> Feature:
    """MechVent is 1 when charted and never 0: a constant whose mask carries all."""
    if name == "MechVent":
        return Feature(
            name=name,
            kind="constant",
            dtype="int64",
            categories=(1,),
            aggregate=aggregate,
        )
    unit, lower, upper = PARAMETERS[name]
    kind, dtype = ("integer", "int64") if name == "GCS" else ("numeric", "double")
    return Feature(
        name=name,
        kind=kind,
        dtype=dtype,
        unit=unit,
        lower=lower,
        upper=upper,
        aggregate=aggregate,
    )


def grid(con: Any, observations: Any, schema: Schema) -> pa.Table:
    """The temporal table; a stay with any observation gets its last grid row too."""
    table = grid_long(
        observations,
        id=ID,
        time=TIME,
        variable="name",
        value="sound",
        features=schema.temporal,
        start=schema.start,
        step=schema.step,
        num_steps=schema.num_steps,
    )
    table = in_memory(con.to_pyarrow(table))
    last = schema.start + (schema.num_steps - 1) * schema.step
    ends = table.select(ID).distinct().mutate(**{TIME: ibis.literal(last)})
    return con.to_pyarrow(with_ends(table, ends, id=ID, time=TIME))


def join_static(
    ids: np.ndarray, descriptors: pa.Table, labels: np.ndarray, label: str
) -> pa.Table:
    """One row a stay: descriptors (null for a stay without any) and its label."""
    table = pa.table({ID: ids, label: labels})
    return table.join(descriptors, ID, join_type="left outer").sort_by(ID)
