"""ICU stays of MIMIC-III with their admission: one row a stay."""

from typing import Any

from jaxehr.data.hospital import (
    Hospital,
    Keys,
    checked,
    refuse_repeats,
    refuse_where,
    step,
    table,
    without,
)

PERSON, ADMISSION, STAY = "subject_id", "hadm_id", "icustay_id"
KEYS = Keys(PERSON, STAY)
LABEL = "died_in_hospital"
ICUSTAYS = {
    PERSON: "int64",
    ADMISSION: "int64",
    STAY: "int64",
    "intime": "timestamp",
    "outtime": "timestamp",
}
ADMISSIONS = {
    "row_id": "int64",
    PERSON: "int64",
    ADMISSION: "int64",
    "hospital_expire_flag": "int64",
}


def seconds(time: Any) -> Any:
    """Whole seconds of a timestamp since 1970."""
    return time.epoch_seconds().cast("int64")


def read_admissions(hospital: Hospital, more: dict[str, str] | None = None) -> Any:
    """ADMISSIONS with `LABEL`; `more` are further columns, name -> type.

    Raises:
      InputError: a repeated hadm_id, a hospital_expire_flag other than 0 and 1.
    """
    raw = table(hospital, "ADMISSIONS", ADMISSIONS | (more or {}))
    rows = checked(hospital, "ADMISSIONS", raw)
    refuse_repeats(hospital, "ADMISSIONS", rows, ADMISSION)
    odd = rows.filter(~rows.hospital_expire_flag.isin([0, 1]).fill_null(False))
    rule = "column 'hospital_expire_flag': values must be 0 or 1"
    refuse_where(hospital, "ADMISSIONS", odd, ADMISSION, rule)
    return rows.rename({LABEL: "hospital_expire_flag"})


def read_stays(
    hospital: Hospital, admissions: Any, more: dict[str, str] | None = None
) -> Any:
    """ICUSTAYS joined to their admission; `more` are further columns of ICUSTAYS.

    Raises:
      InputError: a repeated icustay_id, a stay that ends before it starts.
    """
    raw = table(hospital, "ICUSTAYS", ICUSTAYS | (more or {}))
    rows = checked(hospital, "ICUSTAYS", raw)
    refuse_repeats(hospital, "ICUSTAYS", rows, STAY)
    rule = "timestamps out of order: outtime is before intime"
    refuse_where(
        hospital, "ICUSTAYS", rows.filter(rows.outtime < rows.intime), STAY, rule
    )
    both = rows.inner_join(without(admissions, PERSON, "row_id"), ADMISSION)
    return step(hospital, "ICU stays with an admission", both, KEYS)


def first_admissions(admissions: Any) -> Any:
    """The first row of each person in ADMISSIONS, by row_id."""
    first = admissions.row_id == admissions.row_id.min().over(group_by=PERSON)
    return admissions.filter(first).select(PERSON, LABEL)
