"""eICU's static + temporal cohorts in FIDDLE's spirit [fiddle2020].

`mortality48`: the first 48 h of adult stays of 48 h or more whose discharge status is
known; label: death in hospital. `arf4`: the first 4 h of adult stays of 4 h or more;
label: acute respiratory failure later, that is PEEP or mechanical ventilation; stays in
which it begins within 4 h, or began before them, are left out, and so are hospitals
that record neither respiratoryCare nor respiratoryCharting of anybody. Static: patient
and treatment (what was begun in the window); temporal: the other tables of
[flexgen2024, Table 6], hour by hour.
"""

from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from jaxehr.core.cohort import Feature, Label, Schema
from jaxehr.data.columns import pc
from jaxehr.data.eicu_tables import (
    CODED,
    KEYS,
    LABEL,
    NUMERIC,
    PERSON,
    STAY,
    one_table,
    read_patients,
    with_discharge,
)
from jaxehr.data.events import EventOptions, choose, static_features, tidy
from jaxehr.data.hospital import BAD, Hospital, checked, fetch, provenance, step, table
from jaxehr.data.parts import Plan

TIME, MINUTES, ARF = "hour", {"mortality48": 2880, "arf4": 240}, "respiratory_failure"
LEVELS = r"^[^|]*([|][^|]*)?"  # the first two of the path of a treatment


def plan(
    hospital: Hospital, task: str, tables: tuple[str, ...], options: EventOptions
) -> Plan:
    """The cohort of an opened folder but for the grid; `task` is a key of `MINUTES`."""
    minutes, label = MINUTES[task], LABEL if task == "mortality48" else ARF
    hours = minutes // 60
    patients = read_patients(hospital)
    stays = (
        patients if task == "arf4" else with_discharge(hospital, patients, place=False)
    )
    stays = step(hospital, "of adults", stays.filter(stays.age >= 18), KEYS)
    stays = stays.filter(stays.unitdischargeoffset >= minutes)
    stays = step(hospital, f"of {hours} h or more", stays, KEYS)
    stays = arf(hospital, stays, patients) if task == "arf4" else stays
    static = stays.select(STAY, PERSON, *CODED, *NUMERIC, label)
    people = fetch(hospital.engine, static.order_by(STAY))
    people, treated = with_treatments(hospital, stays, people, minutes, options)
    parts = [one_table(hospital, name, stays, minutes) for name in tables]
    events = ibis.union(*parts) if len(parts) > 1 else parts[0]
    rows = tidy(hospital, events, KEYS, hours)
    chosen = choose(hospital, rows, KEYS, people.num_rows, options)
    axes = {"id": STAY, "time": TIME, "start": 0.0, "step": 1.0, "num_steps": hours}
    schema = Schema(
        static=static_features(people, CODED, NUMERIC) + treated,
        temporal=chosen.features,
        num_steps=hours,
        id=STAY,
        group=PERSON,
        time=TIME,
        label=Label(name=label, classes=(0, 1)),
    )
    made = provenance(hospital, "eicu", options, variables=chosen.notes)
    where = (f"{hospital.folder}: stays", f"{hospital.folder}: events")
    return Plan(schema, people, rows, chosen, axes, made, where)


def arf(hospital: Hospital, stays: Any, patients: Any) -> Any:
    """Stays of `arf4` with the label `ARF`, without those of an onset before hour 4."""
    care, charting = read_breathing(hospital)
    seen = ibis.union(care.select(STAY), charting.select(STAY))
    recording = patients.semi_join(seen, STAY).select("hospitalid")
    stays = stays.semi_join(recording, "hospitalid")
    stays = step(hospital, "of hospitals that record breathing", stays, KEYS)
    # A sign before the stay counts: who comes ventilated has no onset to foretell.
    first = onsets(care, charting).group_by(first_stay=STAY)
    first = first.aggregate(onset=lambda t: t.offset.min())
    stays = stays.left_join(first, stays[STAY] == first.first_stay)
    late = stays.onset.isnull() | (stays.onset >= MINUTES["arf4"])
    stays = stays.mutate(**{ARF: stays.onset.notnull().cast("int64")}).filter(late)
    return step(hospital, "without respiratory failure before hour 4", stays, KEYS)


def read_breathing(hospital: Hospital) -> tuple[Any, Any]:
    """The columns of respiratoryCare and respiratoryCharting that hold signs."""
    kinds = {STAY: "int64", "respcarestatusoffset": "int64", "peeplimit": "float64"}
    kinds |= {"ventstartoffset": "int64"}
    care = table(hospital, "respiratoryCare", kinds)
    care = checked(hospital, "respiratoryCare", care)
    kinds = {STAY: "int64", "respchartoffset": "int64", "respchartvalue": "string"}
    kinds |= {"respchartvaluelabel": "string"}
    charting = table(hospital, "respiratoryCharting", kinds)
    return care, checked(hospital, "respiratoryCharting", charting)


def onsets(care: Any, charting: Any) -> Any:
    """Stay and minute of FIDDLE's signs: a ventilator, a limit or a value of PEEP."""
    labels = charting.respchartvaluelabel.isin(["PEEP", "PEEP/CPAP"])
    peep = charting.filter(labels & charting.respchartvalue.notnull())
    ventilated = care.filter(care.ventstartoffset != 0)  # 0 stands for no ventilator
    limited = care.filter(care.peeplimit.notnull())
    return ibis.union(
        ventilated.select(STAY, offset="ventstartoffset"),
        limited.select(STAY, offset="respcarestatusoffset"),
        peep.select(STAY, offset="respchartoffset"),
    )


def read_treatments(hospital: Hospital) -> Any:
    kinds = {STAY: "int64", "treatmentoffset": "int64", "treatmentstring": "string"}
    return table(hospital, "treatment", kinds)


def with_treatments(
    hospital: Hospital,
    stays: Any,
    people: pa.Table,
    minutes: int,
    options: EventOptions,
) -> tuple[pa.Table, tuple[Feature, ...]]:
    """Adds a binary column a kind of treatment begun in the window.

    A kind is the first two levels of the path; it needs `min_share` of the stays, and
    the most frequent `max_variables` are kept.
    """
    rows = read_treatments(hospital).semi_join(stays, STAY)
    inside = rows.treatmentoffset.between(0, minutes - 1)
    rows = checked(hospital, "treatment", rows.filter(inside | rows[BAD].notnull()))
    kind = rows.treatmentstring.re_extract(LEVELS, 0)
    found = fetch(hospital.engine, rows.select(STAY, kind=kind).distinct())
    counts = found["kind"].value_counts().to_pylist()
    counts.sort(key=lambda row: (-row["counts"], row["values"]))
    least = options.min_share * people.num_rows
    kinds = [row["values"] for row in counts if row["counts"] >= least]
    features = []
    for kind in kinds[: options.max_variables]:
        given = found.filter(pc.equal(found["kind"], kind))[STAY]
        has = pc.is_in(people[STAY], value_set=given.combine_chunks())
        name = f"treatment: {kind}"
        people = people.append_column(name, has.cast(pa.int8()))
        if len(np.unique(has.to_numpy())) == 2:
            features.append(
                Feature(name=name, kind="binary", dtype="int8", categories=(0, 1))
            )
    return people, tuple(features)
