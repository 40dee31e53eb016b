"""Tables of eICU-CRD: stays with their label, and where the events of a table are."""

from typing import Any, NamedTuple

import ibis

from jaxehr.data.hospital import (
    BAD,
    Hospital,
    Keys,
    checked,
    refuse_repeats,
    refuse_where,
    step,
    table,
)
from jaxehr.data.raw_tables import parsed

PERSON, STAY, LABEL = "uniquepid", "patientunitstayid", "died_in_hospital"
STATUS, PLACE = "hospitaldischargestatus", "hospitaldischargelocation"
KEYS = Keys(PERSON, STAY)
CODED = {
    "gender": "string",
    "ethnicity": "string",
    "unittype": "string",
    "unitadmitsource": "string",
    "hospitalid": "int64",
}
NUMERIC = {"age": "a", "admissionheight": "cm", "admissionweight": "kg"}


class Events(NamedTuple):
    """Where the events of one table are; the key of a variable is `names` joined.

    `value` holds numbers or text; `columns` are variables of their own (a wide table).
    Without either an event has no value.
    """

    offset: str
    names: tuple[str, ...] = ()
    value: str = ""
    unit: str = ""
    columns: tuple[str, ...] = ()


PERIODIC = (
    "temperature",
    "sao2",
    "heartrate",
    "respiration",
    "cvp",
    "etco2",
    "systemicsystolic",
    "systemicdiastolic",
    "systemicmean",
    "pasystolic",
    "padiastolic",
    "pamean",
    "icp",
)
APERIODIC = (
    "noninvasivesystolic",
    "noninvasivediastolic",
    "noninvasivemean",
    "paop",
    "cardiacoutput",
    "cardiacinput",
    "svr",
    "svri",
    "pvr",
    "pvri",
)
CELL = ("celllabel", "cellattribute")
TABLES = {
    "vitalPeriodic": Events("observationoffset", columns=PERIODIC),
    "vitalAperiodic": Events("observationoffset", columns=APERIODIC),
    "lab": Events("labresultoffset", ("labname",), "labresult", "labmeasurenamesystem"),
    "customLab": Events("labotheroffset", ("labothername",), "labothervaluetext"),
    "medication": Events("drugstartoffset", ("drugname",)),
    "infusionDrug": Events("infusionoffset", ("drugname",), "drugrate"),
    "intakeOutput": Events("intakeoutputoffset", ("celllabel",), "cellvaluenumeric"),
    "microLab": Events("culturetakenoffset", ("culturesite",)),
    "note": Events("noteoffset", ("notepath",)),
    "nurseAssessment": Events("nurseassessoffset", CELL, "cellattributevalue"),
    "nurseCare": Events("nursecareoffset", CELL, "cellattributevalue"),
    "nurseCharting": Events(
        "nursingchartoffset", ("nursingchartcelltypevalname",), "nursingchartvalue"
    ),
    "pastHistory": Events("pasthistoryoffset", ("pasthistorypath",)),
    "physicalExam": Events(
        "physicalexamoffset", ("physicalexampath",), "physicalexamtext"
    ),
    "respiratoryCare": Events("respcarestatusoffset", columns=("airwaytype",)),
    "respiratoryCharting": Events(
        "respchartoffset", ("respchartvaluelabel",), "respchartvalue"
    ),
}


def read_patients(hospital: Hospital) -> Any:
    """Stays of the table patient; ages above 89 are hidden there and become 91.4.

    Raises:
      InputError: a repeated stay, a unit discharge before the admission.
    """
    words = (STATUS, PLACE, "age", PERSON)
    kinds = dict.fromkeys(words, "string") | CODED | {STAY: "int64"}
    kinds |= {"admissionheight": "float64", "admissionweight": "float64"}
    kinds |= {"unitdischargeoffset": "int64"}
    rows = checked(hospital, "patient", table(hospital, "patient", kinds))
    refuse_repeats(hospital, "patient", rows, STAY)
    early = rows.filter(rows.unitdischargeoffset < 0)
    rule = "timestamps out of order: unitdischargeoffset is negative"
    refuse_where(hospital, "patient", early, STAY, rule)
    step(hospital, "stays in patient", rows, KEYS, store=False)
    old = rows.age.startswith(">")
    age = ibis.ifelse(old, ibis.literal(91.4), parsed(rows.age, "float64"))
    return rows.mutate(age=age)


def with_discharge(hospital: Hospital, stays: Any, *, place: bool) -> Any:
    """Stays whose hospital discharge is known, with `LABEL`: the status is Expired.

    With `place`, as TimeDiff has it, the location must be known too and Death is one.
    """
    status, where = stays[STATUS], stays[PLACE]
    known, died = status.notnull(), status == "Expired"
    if place:
        known, died = known & where.notnull(), died | (where == "Death")
    stays = stays.filter(known).mutate(**{LABEL: died.cast("int64")})
    return step(hospital, "with a known discharge", stays, KEYS)


def with_diagnosis(hospital: Hospital, stays: Any) -> Any:
    """Stays with a row in the table diagnosis, as TimeDiff needs."""
    rows = table(hospital, "diagnosis", {STAY: "int64"})
    rows = checked(hospital, "diagnosis", rows).distinct()
    return step(hospital, "with a diagnosis", stays.semi_join(rows, STAY), KEYS)


def one_table(hospital: Hospital, name: str, stays: Any, minutes: int) -> Any:
    """Events of one table from minute 0 to `minutes`: the columns of `data.events`."""
    form = TABLES[name]
    kinds = {STAY: "int64", form.offset: "int64"}
    words = [*form.names, *form.columns, form.value, form.unit]
    raw = table(hospital, name, kinds | {w: "string" for w in words if w})
    both = raw.inner_join(stays.select(STAY, PERSON), STAY)
    at = both[form.offset]
    both = both.filter(at.between(0, minutes - 1) | both[BAD].notnull())
    rows = checked(hospital, name, both)
    if form.columns:
        parts = []
        for column in form.columns:
            key = ibis.literal(f"{name}: {column}")
            parts.append(valued(rows, form, key, rows[column].cast("string")))
        return ibis.union(*parts) if len(parts) > 1 else parts[0]
    key = rows[form.names[0]]
    for other in form.names[1:]:
        key = key + ibis.literal("|") + rows[other]
    key = ibis.literal(f"{name}: ") + key
    if form.value:
        return valued(rows, form, key, rows[form.value].cast("string"))
    return as_events(rows, form, key, ibis.null("float64"), ibis.null("string"))


def valued(rows: Any, form: Events, key: Any, value: Any) -> Any:
    """Rows with a value: a number where it can be read as one, else text."""
    number = parsed(value, "float64")
    finite = ibis.ifelse(number.abs() < float("inf"), number, None)
    text = ibis.ifelse(number.isnull(), value, None)
    events = as_events(rows, form, key, finite, text)
    return events.filter(events.number.notnull() | events.text.notnull())


def as_events(rows: Any, form: Events, key: Any, number: Any, text: Any) -> Any:
    return rows.select(
        **{PERSON: rows[PERSON], STAY: rows[STAY]},
        hour=rows[form.offset] / 60,
        key=key,
        label=ibis.null("string"),
        number=number,
        text=text,
        unit=rows[form.unit] if form.unit else ibis.null("string"),
    )
