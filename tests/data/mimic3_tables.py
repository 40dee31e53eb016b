"""A small hospital in the layout of MIMIC-III, as lower-case CSV files."""

import pathlib

HEADERS = {
    "ADMISSIONS": "row_id,subject_id,hadm_id,admittime,dischtime,deathtime,"
    "admission_type,admission_location,insurance,ethnicity,hospital_expire_flag",
    "ICUSTAYS": "row_id,subject_id,hadm_id,icustay_id,dbsource,first_careunit,"
    "last_careunit,first_wardid,last_wardid,intime,outtime",
    "PATIENTS": "row_id,subject_id,gender,dob",
    "CHARTEVENTS": "row_id,subject_id,hadm_id,icustay_id,itemid,charttime,value,"
    "valuenum,valueuom,error",
    "LABEVENTS": "row_id,subject_id,hadm_id,itemid,charttime,value,valuenum,valueuom",
    "INPUTEVENTS_MV": "row_id,icustay_id,starttime,endtime,itemid,amount,amountuom,"
    "rate,statusdescription",
    "OUTPUTEVENTS": "row_id,icustay_id,charttime,itemid,value,valueuom,iserror",
    "PROCEDUREEVENTS_MV": "row_id,icustay_id,starttime,endtime,itemid",
    "MICROBIOLOGYEVENTS": "row_id,subject_id,charttime,spec_itemid",
    "DATETIMEEVENTS": "row_id,icustay_id,charttime,itemid",
    "D_ITEMS": "itemid,label",
    "D_LABITEMS": "itemid,label",
}
ADMISSIONS = [
    "1,1,11,2101-01-01 00:00:00,2101-01-09 00:00:00,,EMERGENCY,ER,Private,W,0",
    "2,1,12,2101-03-01 00:00:00,2101-03-09 00:00:00,2101-03-09 00:00:00,EMERGENCY,"
    "ER,Private,W,1",
    "3,2,21,2101-01-01 00:00:00,2101-01-09 00:00:00,,ELECTIVE,CLINIC,Medicare,B,0",
]
ICUSTAYS = [
    "1,1,11,111,metavision,MICU,MICU,7,7,2101-01-01 02:00:00,2101-01-05 00:00:00",
    "2,1,12,121,metavision,MICU,MICU,7,7,2101-03-01 02:00:00,2101-03-05 00:00:00",
    "3,2,21,211,metavision,SICU,SICU,9,9,2101-01-01 02:00:00,2101-01-05 00:00:00",
]
PATIENTS = ["1,1,F,2050-01-01 00:00:00", "2,2,M,1801-01-01 00:00:00"]


def chart(rows: list[tuple[int, int, str, str, str]]) -> list[str]:
    """(stay, item, clock after midnight of its first day, value, unit) as CSV rows."""
    days = {111: "2101-01-01", 121: "2101-03-01", 211: "2101-01-01", 999: "2101-01-01"}
    lines = []
    for number, (stay, item, clock, value, unit) in enumerate(rows):
        day, time = clock.split(" ") if " " in clock else (days[stay], clock)
        person, admission = stay // 100, stay // 10
        lines.append(
            f"{number},{person},{admission},{stay},{item},{day} {time},{value},{value},"
            f"{unit},0"
        )
    return lines


def write_tables(folder: pathlib.Path, **changed: list[str] | None) -> pathlib.Path:
    """Writes the tables; `changed` replaces the rows of one, None leaves it out."""
    rows = {"ADMISSIONS": ADMISSIONS, "ICUSTAYS": ICUSTAYS, "PATIENTS": PATIENTS}
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (rows | changed).items():
        if lines is not None:
            text = "\n".join([HEADERS[name], *lines]) + "\n"
            (folder / f"{name}.csv").write_text(text)
    return folder
