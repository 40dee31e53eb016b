"""TimeDiff's MIMIC-III cohort [timediff2023]: 7 vital signs, 25 hourly points.

1. CHARTEVENTS rows with a stay and an item of `LISTED`; `first` = earliest charttime of
   the stay. 2. For each (stay, charttime) the mean of the values of a variable that lie
   in its range. 3. For each hour 0..24 since `first` the one charttime nearest to it
   (halves go to the even hour, of equal distances the earlier), with whatever was
   measured then; every stay has 25 rows. Published: 26,150 stays.

# Deviation: the label is that of the stay's own admission unless `label_as_timediff`;
# the published split is an unseeded draw of stays, ours a hash of the person.
"""

from typing import Any, NamedTuple

import ibis

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, Feature, Label, Schema
from jaxehr.data.assemble import assemble
from jaxehr.data.gridding import fixed_mean, with_ends
from jaxehr.data.hospital import (
    BAD,
    Hospital,
    checked,
    fetch,
    first_row,
    provenance,
    refuse_repeats,
    step,
    table,
    without,
)
from jaxehr.data.mimic3_stays import (
    KEYS,
    LABEL,
    PERSON,
    STAY,
    first_admissions,
    read_admissions,
    read_stays,
    seconds,
)

HOURS, LAST = 25, 88_200  # LAST: seconds after which a charttime is past hour 24
HOUR, DAY, TIME = 3600, 86_400, "hour"


class Items(NamedTuple):
    """Item ids of one unit; a value is kept where lower < value < upper."""

    ids: tuple[int, ...]
    lower: float
    upper: float
    closed: bool = False  # upper itself is kept
    fahrenheit: bool = False
    units: tuple[str, ...] = ()  # known spellings, lower case


PRESSURE, BREATHS = ("mmhg",), ("insp/min", "breaths/min", "bpm")
VITALS: dict[str, tuple[str, tuple[Items, ...]]] = {
    "heart_rate": ("bpm", (Items((220045,), 0, 300, units=("bpm", "beats/min")),)),
    "sbp": ("mmHg", (Items((220179, 220050, 225309), 0, 400, units=PRESSURE),)),
    "dbp": ("mmHg", (Items((220180, 220051, 225310), 0, 300, units=PRESSURE),)),
    "mbp": ("mmHg", (Items((220052, 220181, 225312), 0, 300, units=PRESSURE),)),
    "resprate": ("bpm", (Items((220210, 224690), 0, 70, units=BREATHS),)),
    "temp": (
        "Cel",
        (
            Items((223761,), 70, 120, fahrenheit=True, units=("?f", "°f", "deg f")),
            Items((223762,), 10, 50, units=("?c", "°c", "deg c")),
        ),
    ),
    "spo2": ("%", (Items((220277,), 0, 100, closed=True, units=("%",)),)),
}
# Glucose and the site of the temperature are no features, but they count as charttimes.
SILENT = (225664, 220621, 226537, 224642)
LISTED = tuple(i for _, parts in VITALS.values() for p in parts for i in p.ids) + SILENT
COLUMNS = {
    "row_id": "int64",
    PERSON: "int64",
    STAY: "int64",
    "itemid": "int64",
    "charttime": "timestamp",
    "valuenum": "float64",
    "valueuom": "string",
}


def read(hospital: Hospital, as_timediff: bool, options: Any) -> Dataset:
    """The cohort of an opened folder."""
    admissions = read_admissions(hospital)
    stays = read_stays(hospital, admissions)
    raw = table(hospital, "CHARTEVENTS", COLUMNS)
    events = checked(hospital, "CHARTEVENTS", listed(raw))
    events = step(hospital, "charted vital signs", events, KEYS, store=False)
    refuse_units(hospital, events)
    known = events.inner_join(stays.select(STAY, "intime", "outtime", LABEL), STAY)
    known = step(hospital, "of a stay in ICUSTAYS", known, KEYS, store=False)
    refuse_strangers(hospital, known)
    early = first_day(known)
    early = step(hospital, "in the first 24.5 h of charting", early, KEYS)
    refuse_repeats(hospital, "CHARTEVENTS", early, "row_id")
    hours = nearest_rows(charted(early))
    hours = step(hospital, "charttime nearest to an hour", hours, KEYS)
    people = early.select(STAY, PERSON, LABEL).distinct()
    if as_timediff:
        people = people.drop(LABEL).inner_join(first_admissions(admissions), PERSON)
    static = fetch(hospital.engine, people.select(STAY, PERSON, LABEL).order_by(STAY))
    ends = hours.select(STAY).distinct().mutate(**{TIME: ibis.literal(HOURS - 1)})
    grid = with_ends(hours.drop(PERSON), ends, id=STAY, time=TIME)
    temporal = fetch(hospital.engine, grid)
    made = provenance(hospital, "mimic3", options, variables=counts(hospital, early))
    where = (str(hospital.files["ADMISSIONS"]), str(hospital.files["CHARTEVENTS"]))
    return assemble(schema(), static, temporal, made, where=where)


def schema() -> Schema:
    return Schema(
        temporal=tuple(
            Feature(name=name, kind="numeric", unit=unit, aggregate="nearest")
            for name, (unit, _) in VITALS.items()
        ),
        num_steps=HOURS,
        id=STAY,
        group=PERSON,
        time=TIME,
        label=Label(name=LABEL, classes=(0, 1)),
    )


def listed(chartevents: Any) -> Any:
    """The rows of the listed items in an ICU stay, and those that cannot be read."""
    wanted = chartevents.itemid.isin(LISTED)
    bad = chartevents[BAD].notnull() & chartevents.itemid.fill_null(LISTED[0]).isin(
        LISTED
    )
    inside = wanted & chartevents[STAY].notnull() & chartevents.charttime.notnull()
    rows = chartevents.filter(inside | bad)
    return rows.mutate(at=seconds(rows.charttime)).drop("charttime")


def first_day(events: Any) -> Any:
    """Rows with `since`: seconds since the stay's first charttime, at most `LAST`."""
    since = events["at"] - events["at"].min().over(group_by=STAY)
    rows = events.mutate(since=since)
    return without(rows.filter(rows.since <= LAST), "at", "intime", "outtime")


def in_range(events: Any, part: Items) -> Any:
    """The value in the variable's unit, null for other items or outside the range."""
    value = events.valuenum
    below = value <= part.upper if part.closed else value < part.upper
    inside = events.itemid.isin(part.ids) & (value > part.lower) & below
    converted = (value - 32.0) / 1.8 if part.fahrenheit else value
    return ibis.ifelse(inside, converted, None)


def charted(events: Any) -> Any:
    """One row a (stay, charttime): the mean of each variable, null if not measured."""
    means = {}
    for name, (_, parts) in VITALS.items():
        mean = fixed_mean(ibis.coalesce(*(in_range(events, part) for part in parts)))
        # Temperatures are rounded to 2 decimals, in steps that every engine does alike.
        hundredths = (mean * 100.0 + 0.5).floor().cast("float64")
        means[name] = hundredths / 100.0 if name == "temp" else mean
    return events.group_by([PERSON, STAY, "since"]).aggregate(**means)


def nearest_rows(rows: Any) -> Any:
    """Of the charttimes that round to an hour the nearest one, ties to the earlier."""
    whole, rest = rows.since // HOUR, rows.since % HOUR
    up = (rest > HOUR // 2) | ((rest == HOUR // 2) & (whole % 2 == 1))
    hour = (whole + ibis.ifelse(up, 1, 0)).cast("int64")
    rows = rows.mutate(**{TIME: hour})
    rows = rows.mutate(distance=(rows.since - rows[TIME] * HOUR).abs())
    order = ibis.window(group_by=[STAY, TIME], order_by=["distance", "since"])
    first = rows.mutate(rank=ibis.row_number().over(order))
    first = first.filter((first["rank"] == 0) & (first[TIME] < HOURS))
    return first.select(STAY, PERSON, TIME, *VITALS)


def refuse_units(hospital: Hospital, events: Any) -> None:
    """Raises InputError when an item has a unit that is not its own."""
    units = {
        i: part.units
        for _, parts in VITALS.values()
        for part in parts
        for i in part.ids
    }
    given = events.filter(events.valuenum.notnull())
    found = given.group_by(["itemid", "valueuom"]).aggregate(n=given.count())
    for row in fetch(hospital.engine, found).to_pylist():
        own, unit = units.get(row["itemid"], ()), row["valueuom"]
        if own and unit and unit.lower() not in own:
            raise InputError(
                f"{hospital.files['CHARTEVENTS']}: mixed units: item {row['itemid']} "
                f"has {row['n']} values in {unit!r}; known: {', '.join(own)}. Convert "
                "them first."
            )


def refuse_strangers(hospital: Hospital, events: Any) -> None:
    """Raises InputError when most rows lie more than a day outside their stay."""
    at, start, end = events["at"], seconds(events.intime), seconds(events.outtime)
    outside = ((at < start - DAY) | (at > end + DAY)).fill_null(False)
    row = first_row(hospital, events, n=events.count(), outside=outside.sum())
    if 2 * row["outside"] > row["n"]:
        raise InputError(
            f"{hospital.files['CHARTEVENTS']}: column 'charttime': {row['outside']} of "
            f"{row['n']} rows lie outside their stay in {hospital.files['ICUSTAYS']}; "
            "the tables are not of one release."
        )


def counts(hospital: Hospital, events: Any) -> dict[str, dict[str, int]]:
    """By variable: its values, and how many of them are outside the range."""
    measures = {}
    for name, (_, parts) in VITALS.items():
        ids = [i for part in parts for i in part.ids]
        kept: Any = ibis.coalesce(*(in_range(events, part) for part in parts))
        given = events.itemid.isin(ids) & events.valuenum.notnull()
        measures[f"{name} values"] = given.sum()
        measures[f"{name} implausible"] = given.sum() - kept.count()
    row = first_row(hospital, events, **measures)
    found = {name: {} for name in VITALS}
    for key, value in row.items():
        name, measure = key.rsplit(" ", 1)
        found[name][measure] = int(value or 0)
    return found
