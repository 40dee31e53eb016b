"""MIMIC-III's static + temporal cohorts in FIDDLE's spirit [fiddle2020].

`mortality48`: the first 48 h of adult MetaVision stays of 48 h or more without a
transfer, no other such stay in the admission; label: death in hospital. `arf4`: the
first 4 h of adult MetaVision stays of 4 h or more; label: acute respiratory failure
later in the stay, that is PEEP set or mechanical ventilation; stays in which it begins
within 4 h, or began before them, are left out. Static: PATIENTS, ADMISSIONS, ICUSTAYS;
temporal: the other tables of [flexgen2024, Table 5], hour by hour. An infusion is its
mean rate, an amount an hour, in each hour in which it ran; what was given at once is
its amount at its time; a procedure is done in each hour that it lasted.

# Deviation: FIDDLE takes the stays of `mortality48` from a published list; here the
# rules behind that list are applied. FIDDLE keeps variables that 0.1 % of stays have,
# here `min_share`. Ages above 89 are hidden in the source and become 91.4.
"""

from typing import Any, NamedTuple

import ibis

from jaxehr.core.cohort import Label, Schema
from jaxehr.data.events import EventOptions, choose, static_features, tidy
from jaxehr.data.hospital import (
    BAD,
    Hospital,
    checked,
    fetch,
    provenance,
    refuse_repeats,
    step,
    table,
)
from jaxehr.data.mimic3_stays import (
    ADMISSION,
    KEYS,
    LABEL,
    PERSON,
    STAY,
    read_admissions,
    read_stays,
    seconds,
)
from jaxehr.data.parts import Plan

TIME, HOUR, YEAR = "hour", 3600, 31_556_952
DOSE = 60  # seconds from the start to the end of what was given at once
RATE = "/h"  # ends the key and the unit of a rate
HOURS = {"mortality48": 48, "arf4": 4}
PEEP, VENTILATION = 220339, (225792, 225794)
ARF = "respiratory_failure"


class Events(NamedTuple):
    """Where the events of one table are; empty = the table has no such column."""

    time: str
    item: str = "itemid"
    number: str = ""
    text: str = ""
    unit: str = ""
    flag: str = ""  # a row counts unless this column is one of `refused`
    refused: tuple[str, ...] | tuple[float, ...] = ()
    stay: str = STAY  # or PERSON, where the table does not know ICU stays
    end: str = ""  # of what lasts from `time` on; see `spread`
    rate: str = ""  # null unless the number ran in at a rate; see `rates`


TABLES = {
    "CHARTEVENTS": Events(
        "charttime", "itemid", "valuenum", "value", "valueuom", "error", (1.0,)
    ),
    "LABEVENTS": Events(
        "charttime", "itemid", "valuenum", "value", "valueuom", stay=PERSON
    ),
    "INPUTEVENTS_MV": Events(
        "starttime",
        number="amount",
        unit="amountuom",
        end="endtime",
        rate="rate",
        flag="statusdescription",
        refused=("Rewritten",),
    ),
    "OUTPUTEVENTS": Events(
        "charttime", number="value", unit="valueuom", flag="iserror", refused=(1.0,)
    ),
    "PROCEDUREEVENTS_MV": Events("starttime", end="endtime"),
    "MICROBIOLOGYEVENTS": Events("charttime", "spec_itemid", stay=PERSON),
    "DATETIMEEVENTS": Events("charttime"),
}
CODED = {
    "gender": "string",
    "admission_type": "string",
    "admission_location": "string",
    "insurance": "string",
    "ethnicity": "string",
    "first_careunit": "string",
    "first_wardid": "int64",
}
NUMERIC = {"age": "a", "hours_to_icu": "h"}


def plan(hospital: Hospital, task: str, options: EventOptions) -> Plan:
    """The cohort of an opened folder, but for the grid; `task` is a key of `HOURS`."""
    hours = HOURS[task]
    stays = adults(hospital, hours)
    stays = (
        benchmark(hospital, stays) if task == "mortality48" else arf(hospital, stays)
    )
    label = LABEL if task == "mortality48" else ARF
    static = stays.select(STAY, PERSON, *CODED, *NUMERIC, label)
    people = fetch(hospital.engine, static.order_by(STAY))
    rows = tidy(hospital, events(hospital, stays, hours), KEYS, hours)
    chosen = choose(hospital, rows, KEYS, people.num_rows, options)
    axes = {"id": STAY, "time": TIME, "start": 0.0, "step": 1.0, "num_steps": hours}
    schema = Schema(
        static=static_features(people, CODED, NUMERIC),
        temporal=chosen.features,
        num_steps=hours,
        id=STAY,
        group=PERSON,
        time=TIME,
        label=Label(name=label, classes=(0, 1)),
    )
    made = provenance(hospital, "mimic3", options, variables=chosen.notes)
    where = (f"{hospital.folder}: stays", f"{hospital.folder}: events")
    return Plan(schema, people, rows, chosen, axes, made, where)


def adults(hospital: Hospital, hours: int) -> Any:
    """MetaVision stays of adults that last `hours` or more, with static columns."""
    times = {"admittime": "timestamp", "deathtime": "timestamp"}
    words = ("admission_type", "admission_location", "insurance", "ethnicity")
    admissions = read_admissions(hospital, times | dict.fromkeys(words, "string"))
    care = {"dbsource": "string", "first_careunit": "string", "last_careunit": "string"}
    wards = {"first_wardid": "int64", "last_wardid": "int64"}
    stays = read_stays(hospital, admissions, care | wards)
    born = {PERSON: "int64", "gender": "string", "dob": "timestamp"}
    people = checked(hospital, "PATIENTS", table(hospital, "PATIENTS", born))
    refuse_repeats(hospital, "PATIENTS", people, PERSON)
    stays = stays.filter(stays.dbsource == "metavision")
    stays = step(hospital, "recorded in MetaVision", stays, KEYS)
    stays = stays.inner_join(people, PERSON)
    start = seconds(stays.intime)
    age = (start - seconds(stays.dob)) / YEAR
    stays = stays.mutate(
        start=start,
        end=seconds(stays.outtime),
        age=ibis.ifelse(age > 89, ibis.literal(91.4), age),
        hours_to_icu=(start - seconds(stays.admittime)) / HOUR,
    )
    stays = step(hospital, "of adults", stays.filter(stays.age >= 18), KEYS)
    stays = stays.filter(stays.end - stays.start >= hours * HOUR)
    return step(hospital, f"of {hours} h or more", stays, KEYS)


def benchmark(hospital: Hospital, stays: Any) -> Any:
    """Stays of `mortality48`: no transfer, alone in their admission, alive at 48 h.

    As in the benchmark's extract_subjects.py, a stay with a transfer does not count as
    another stay of the admission.
    """
    words = dict.fromkeys(("first_careunit", "last_careunit"), "string")
    wards = dict.fromkeys(("first_wardid", "last_wardid"), "int64")
    icu = unmoved(table(hospital, "ICUSTAYS", {ADMISSION: "int64"} | words | wards))
    single = icu.group_by(ADMISSION).aggregate(n=lambda t: t.count())
    single = single.filter(single.n == 1)
    stays = step(hospital, "without a transfer", unmoved(stays), KEYS)
    stays = stays.semi_join(single, ADMISSION)
    stays = step(hospital, "only such ICU stay of the admission", stays, KEYS)
    dead = seconds(stays.deathtime) < stays.start + HOURS["mortality48"] * HOUR
    stays = stays.filter(~dead.fill_null(False))
    return step(hospital, "alive after 48 h", stays, KEYS)


def unmoved(stays: Any) -> Any:
    """The rows of ICUSTAYS that end in the unit and the ward in which they began."""
    return stays.filter(
        (stays.first_careunit == stays.last_careunit)
        & (stays.first_wardid == stays.last_wardid)
    )


def arf(hospital: Hospital, stays: Any) -> Any:
    """Stays of `arf4` with the label `ARF`, without those of an onset before hour 4."""
    charted = timed(hospital, "CHARTEVENTS", (PEEP,), ("valuenum",))
    charted = charted.filter(charted.valuenum.notnull()).drop("valuenum")
    onsets = ibis.union(charted, timed(hospital, "PROCEDUREEVENTS_MV", VENTILATION))
    onsets = onsets.inner_join(stays.select(STAY, "start", "end"), STAY)
    # A sign before the stay counts: who comes ventilated has no onset to foretell.
    onsets = onsets.filter(onsets["at"] <= onsets.end)
    first = onsets.group_by(first_stay=STAY)
    first = first.aggregate(onset=lambda t: (t["at"] - t.start).min())
    stays = stays.left_join(first, stays[STAY] == first.first_stay)
    late = stays.onset.isnull() | (stays.onset >= HOURS["arf4"] * HOUR)
    stays = stays.mutate(**{ARF: stays.onset.notnull().cast("int64")}).filter(late)
    return step(hospital, "without respiratory failure before hour 4", stays, KEYS)


def timed(
    hospital: Hospital, name: str, items: tuple[int, ...], more: tuple[str, ...] = ()
) -> Any:
    """Stay and second of the sound rows of `items` of a table."""
    time = TABLES[name].time
    kinds = {STAY: "int64", "itemid": "int64", time: "timestamp"}
    rows = read_sound(hospital, name, kinds | dict.fromkeys(more, "float64"))
    rows = rows.filter(rows.itemid.isin(items))
    rows = rows.mutate(at=seconds(rows[time])).select(STAY, "at", *more, BAD)
    return checked(hospital, name, rows)


def read_sound(hospital: Hospital, name: str, columns: dict[str, str]) -> Any:
    """Columns of one of `TABLES`, without the rows that its flag refuses.

    A flag that is a number is read as one, for Parquet files hold it as 1 or as 1.0.
    """
    form = TABLES[name]
    if not form.flag:
        return table(hospital, name, columns)
    kind = "string" if isinstance(form.refused[0], str) else "float64"
    rows = table(hospital, name, columns | {form.flag: kind})
    return rows.filter(~rows[form.flag].isin(form.refused).fill_null(False))


def events(hospital: Hospital, stays: Any, hours: int) -> Any:
    """The events of all `TABLES` in the first `hours`, in the form of `data.events`."""
    labels = item_labels(hospital)
    parts = [one_table(hospital, name, stays, hours) for name in TABLES]
    rows = ibis.union(*parts)
    both = rows.left_join(labels, rows["item"] == labels.label_key)
    return both.drop("item", "label_key")


def item_labels(hospital: Hospital) -> Any:
    """label_key (item id as text) and label, of items and laboratory items."""
    kinds = {"itemid": "int64", "label": "string"}
    parts = [
        checked(hospital, name, table(hospital, name, kinds))
        for name in ("D_ITEMS", "D_LABITEMS")
    ]
    rows = ibis.union(*parts)
    rows = rows.group_by("itemid").aggregate(label=rows.label.min())
    return rows.select(label_key=rows.itemid.cast("string"), label=rows.label)


def one_table(hospital: Hospital, name: str, stays: Any, hours: int) -> Any:
    """The events of one table: person, stay, hour, item, key, number, text, unit.

    Of what lasts, rows that end before they start are left out, as in FIDDLE.
    """
    form = TABLES[name]
    kinds = {form.stay: "int64", form.item: "int64", form.time: "timestamp"}
    kinds |= {form.end: "timestamp"} if form.end else {}
    kinds |= {column: "float64" for column in (form.number, form.rate) if column}
    words = [column for column in (form.text, form.unit) if column]
    raw = read_sound(hospital, name, kinds | dict.fromkeys(words, "string"))
    both = raw.inner_join(stays.select(STAY, PERSON, "start"), form.stay)
    item = both[form.item].cast("string")
    rows = both.select(
        **{PERSON: both[PERSON], STAY: both[STAY]},
        begin=seconds(both[form.time]) - both.start,
        end=seconds(both[form.end or form.time]) - both.start,
        item=item,
        key=item,
        number=both[form.number] if form.number else ibis.null("float64"),
        text=both[form.text] if form.text else ibis.null("string"),
        unit=both[form.unit] if form.unit else ibis.null("string"),
        rated=both[form.rate].notnull() if form.rate else ibis.literal(False),
        **{BAD: both[BAD]},
    )
    sound = rows.end >= rows.begin
    sound = sound & (rows.number > 0) if form.rate else sound
    rows = rows.filter(sound | rows[BAD].notnull())
    rows = rates(rows) if form.rate else rows
    rows = rows.mutate(end=ibis.greatest(rows.end, rows.begin + 1))
    inside = (rows.begin < hours * HOUR) & (rows.end > 0)
    rows = checked(hospital, name, rows.filter(inside | rows[BAD].notnull()))
    rows = rows.mutate(hour=rows.begin / HOUR)
    rows = spread(rows, hours) if form.end else rows
    return rows.select(PERSON, STAY, "hour", "item", "key", "number", "text", "unit")


def rates(rows: Any) -> Any:
    """Infusions as amount an hour under a key of their own; doses as moments.

    How much was given in all, and so for how long, is not known while it runs.
    """
    length = rows.end - rows.begin
    ran = (length > DOSE) | (rows.rated & (length > 0))
    return rows.mutate(
        end=ibis.ifelse(ran, rows.end, rows.begin),
        key=ibis.ifelse(ran, rows.key + RATE, rows.key),
        number=ibis.ifelse(ran, rows.number * HOUR / length, rows.number),
        unit=ibis.ifelse(ran, rows.unit + RATE, rows.unit),
    )


def spread(rows: Any, hours: int) -> Any:
    """A row for every hour of the window in which an event lasts, one for a moment."""
    begin: Any = ibis.greatest(rows.begin, 0)
    end: Any = ibis.least(rows.end, hours * HOUR)
    bins: Any = ibis.range(begin // HOUR, (end - 1) // HOUR + 1)
    rows = rows.mutate(bin=bins.unnest())
    return rows.mutate(hour=ibis.greatest(rows.bin.cast("float64"), rows.hour))
