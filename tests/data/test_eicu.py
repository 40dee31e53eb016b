"""eICU: rules on small tables in the published layout, the partial demo by SQL."""

import tarfile

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from jaxehr.core.checks import InputError
from jaxehr.data.eicu import EicuOptions, read
from jaxehr.data.eicu_tables import TABLES

ID, STAY, AT = "vitalperiodicid", "patientunitstayid", "observationoffset"
PERIODIC = (ID, STAY, AT, *TABLES["vitalPeriodic"].columns, "st1", "st2", "st3")
HEADERS = {
    "patient": "patientunitstayid,gender,age,ethnicity,hospitalid,unittype,"
    "unitadmitsource,hospitaldischargelocation,hospitaldischargestatus,"
    "unitdischargeoffset,admissionheight,admissionweight,uniquepid",
    "diagnosis": "diagnosisid,patientunitstayid",
    "treatment": "treatmentid,patientunitstayid,treatmentoffset,treatmentstring",
    "lab": "labid,patientunitstayid,labresultoffset,labtypeid,labname,labresult,"
    "labresulttext,labmeasurenamesystem,labmeasurenameinterface,labresultrevisedoffset",
    "respiratoryCharting": "respchartid,patientunitstayid,respchartoffset,"
    "respchartvaluelabel,respchartvalue",
    "respiratoryCare": "respcareid,patientunitstayid,respcarestatusoffset,airwaytype,"
    "ventstartoffset,peeplimit",
    "microLab": "microlabid,patientunitstayid,culturetakenoffset,culturesite",
    "nurseCare": "nursecareid,patientunitstayid,nursecareoffset,celllabel,"
    "cellattribute,cellattributevalue",
}


def patient(stay, end="Home,Alive", age="60", minutes=5000, place=7):
    return f"{stay},Male,{age},Caucasian,{place},MICU,ER,{end},{minutes},170,80,p{stay}"


def write(folder, **tables):
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        text = "\n".join([HEADERS[name], *rows]) + "\n"
        (folder / f"{name}.csv").write_text(text)
    return folder


def write_periodic(folder, offsets):
    """vitalPeriodic with heart rate = offset; {stay: offsets}."""
    stays = np.concatenate([np.full(len(at), stay) for stay, at in offsets.items()])
    times = np.concatenate(list(offsets.values()))
    blank = pa.nulls(len(times), pa.string())
    columns = dict.fromkeys(PERIODIC, blank)
    columns |= {ID: pa.array(np.arange(len(times))), STAY: stays, AT: times}
    columns |= {"heartrate": times, "sao2": np.full(len(times), 97)}
    mean = np.where(times == 60, 70.5, np.nan)
    columns |= {"systemicmean": pa.array(mean, mask=np.isnan(mean))}
    columns |= {"respiration": np.full(len(times), 14)}
    order = np.random.default_rng(0).permutation(len(times))  # rows in any order
    table = pa.table(columns).take(order)
    pyarrow.csv.write_csv(table, folder / "vitalPeriodic.csv")


EVEN = np.arange(0, 1501, 5)
STAYS = {
    1: EVEN,
    2: EVEN + 2,
    3: np.delete(EVEN, 100),  # a gap
    4: EVEN[10:] + 60,  # from minute 110
    5: EVEN[:-20],  # until minute 1400
    6: EVEN,  # no diagnosis
    7: EVEN,  # discharge unknown
    8: np.append(EVEN, 500),  # a minute twice
}


@pytest.fixture(scope="module")
def vitals(tmp_path_factory):
    patients = [patient(n) for n in (1, 3, 4, 5, 6, 8)]
    patients += [patient(2, "Death,Expired"), patient(7, ",Alive")]
    folder = tmp_path_factory.mktemp("eicu-vitals")
    diagnoses = [f"{n},{n}" for n in (1, 1, 2, 3, 4, 5, 7, 8)]
    write(folder, patient=patients, diagnosis=diagnoses)
    write_periodic(folder, STAYS)
    return folder


def test_vital_signs_every_five_minutes(vitals):
    data = read([vitals])
    assert data.ids.tolist() == [1, 2]
    assert data.groups.tolist() == ["p1", "p2"]
    assert data.cohort.label.tolist() == [0, 1]
    assert data.cohort.length.tolist() == [272, 272]
    heart = data.cohort.temporal.numeric[..., 0]
    np.testing.assert_array_equal(heart[0], 60 + 5 * np.arange(272))
    np.testing.assert_array_equal(heart[1], 62 + 5 * np.arange(272))
    assert data.cohort.temporal.observed[..., 3].sum() == 1
    steps = [row["stays"] for row in data.provenance["steps"]]
    assert steps == [8, 7, 6, 4, 2]


def test_vital_signs_of_one_minute_twice_and_too_few_rows(vitals):
    # Stay 2 has 276 rows from minute 62; stay 1 has 277 from minute 60.
    assert read([vitals], EicuOptions(least_rows=277)).ids.tolist() == [1]
    with pytest.raises(InputError, match="no patient is left after the step 'every 5"):
        read([vitals], EicuOptions(least_rows=278))
    with pytest.raises(InputError, match="least_rows must be 272 or more, got 271"):
        EicuOptions(least_rows=271)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eicu-tasks")
    path = "pulmonary|ventilation and oxygenation"
    return write(
        folder,
        patient=[
            patient(1),
            patient(2, "Death,Expired", "> 89"),
            patient(3, age="17"),
            patient(4, minutes=200),
            patient(5),
        ],
        treatment=[
            f"1,1,30,{path}|oxygen therapy",
            f"2,5,30,{path}|mechanical ventilation",
            "3,1,9000,renal|dialysis",  # after the window
        ],
        lab=[
            "1,1,90,1,glucose,120,120,mg/dL,mg/dL,95",
            "2,1,100,1,glucose,100,100,mg/dL,mg/dL,105",
            "3,2,10,1,glucose,6,6,mmol/L,mmol/L,15",  # another unit
            "4,2,-10,1,glucose,99,99,mg/dL,mg/dL,15",  # before the stay
        ],
        respiratoryCharting=["1,2,300,PEEP,5", "2,1,20,FiO2,40", "3,1,20,Mode,CPAP"],
        respiratoryCare=["1,1,20,Oral ETT,0,", "2,2,20,Tracheostomy,0,"],
        microLab=["1,2,130,Blood"],
        nurseCare=["1,1,10,Hygiene,ADLs,self", "2,2,10,Hygiene,ADLs,assist"],
    )


SOME = ("lab", "respiratoryCharting", "respiratoryCare", "microLab", "nurseCare")


def test_tables_as_static_and_temporal_columns(tables):
    data = read([tables], EicuOptions(task="mortality48", tables=SOME, min_share=0.0))
    assert data.ids.tolist() == [1, 2, 5]
    assert data.cohort.label.tolist() == [0, 1, 0]
    assert data.cohort.length.tolist() == [48, 48, 0]
    kinds = {f.name: (f.kind, f.categories) for f in data.schema.temporal}
    assert kinds == {
        "lab: glucose": ("numeric", ()),
        "nurseCare: Hygiene|ADLs": ("binary", ("assist", "self")),
        "respiratoryCare: airwaytype": ("binary", ("Oral ETT", "Tracheostomy")),
        "microLab: Blood": ("constant", ("done",)),
        "respiratoryCharting: FiO2": ("numeric", ()),
        "respiratoryCharting: Mode": ("constant", ("CPAP",)),
        "respiratoryCharting: PEEP": ("numeric", ()),
    }
    names = [f.name for f in data.schema.temporal if f.is_numeric]
    glucose = data.cohort.temporal.numeric[..., names.index("lab: glucose")]
    assert glucose[0, 1] == 110
    assert (glucose[1] == 0).all()
    treated = "treatment: pulmonary|ventilation and oxygenation"
    coded = [f.name for f in data.schema.static if not f.is_numeric]
    assert data.cohort.static.codes[:, coded.index(treated)].tolist() == [1, 0, 1]
    assert data.cohort.static.numeric[:, 0].tolist() == [60, 91.4, 60]


def test_respiratory_failure(tables):
    data = read([tables], EicuOptions(task="arf4", tables=SOME, min_share=0.0))
    # PEEP of 2 comes after five hours; a treatment, as of 5, is no sign.
    assert data.ids.tolist() == [1, 2, 5]
    assert data.cohort.label.tolist() == [0, 1, 0]
    assert data.schema.label.name == "respiratory_failure"


def test_who_comes_ventilated_is_not_without_onset(tmp_path):
    care = ["1,1,20,ETT,0,", "2,2,20,ETT,-30,", "3,3,20,ETT,240,", "4,5,300,ETT,0,9"]
    care += ["5,6,239,ETT,0,9"]
    some = {"respiratoryCare": care, "respiratoryCharting": ["1,4,-60,PEEP,5"]}
    patients = [patient(n, ",") for n in range(1, 6)]  # of unknown discharge
    patients += [patient(6, place=8), patient(7, place=8), patient(8, place=9)]
    write(tmp_path, patient=patients, treatment=[], **some)
    options = EicuOptions(task="arf4", tables=("respiratoryCare",), min_share=0.0)
    data = read([tmp_path], options)
    # Nobody of hospital 9, to which 8 came, has a row in either table.
    assert data.ids.tolist() == [1, 3, 5, 7]
    assert data.cohort.label.tolist() == [0, 1, 1, 0]


def test_death_in_hospital_is_the_status(tables, tmp_path):
    write(tmp_path, patient=[patient(1), patient(2, ",Expired"), patient(3, "Home,")])
    for path in tables.glob("*.csv"):
        if path.stem != "patient":
            (tmp_path / path.name).write_text(path.read_text())
    data = read([tmp_path], EicuOptions(task="mortality48", tables=SOME, min_share=0.0))
    assert data.ids.tolist() == [1, 2]
    assert data.cohort.label.tolist() == [0, 1]


def test_refusals(tables, tmp_path):
    with pytest.raises(InputError, match="table vitalPeriodic is missing; looked for"):
        read([tables], EicuOptions(task="mortality48"))
    with pytest.raises(InputError, match="unknown table of eICU 'labs'; known: vital"):
        EicuOptions(task="arf4", tables=("labs",))
    with pytest.raises(InputError, match="tables chooses variables, but those of the"):
        EicuOptions(tables=("lab",))
    one = write(tmp_path / "one", patient=[patient(1), patient(1)])
    with pytest.raises(InputError, match="each patientunitstayid may occur once"):
        read([one])
    one = write(tmp_path / "one", patient=[patient(1, minutes=-4)])
    with pytest.raises(InputError, match="unitdischargeoffset is negative; 1 rows"):
        read([one])


ABSENT = ("vitalPeriodic", "lab", "nurseCharting")
DEMO = """
WITH stays AS (
  SELECT * FROM '{csv}/patient.csv'
  WHERE hospitaldischargestatus IS NOT NULL
    AND (age = '> 89' OR try_cast(age AS INT) >= 18) AND unitdischargeoffset >= 2880
), pressures AS (
  SELECT patientunitstayid, observationoffset // 60 AS hour,
    avg(noninvasivemean) AS v
  FROM (SELECT DISTINCT patientunitstayid, observationoffset, noninvasivemean
    FROM '{csv}/vitalaperiodic.csv')
  WHERE observationoffset BETWEEN 0 AND 2879 AND noninvasivemean IS NOT NULL
    AND patientunitstayid IN (SELECT patientunitstayid FROM stays)
  GROUP BY 1, 2
)
SELECT (SELECT count(*) FROM stays),
  (SELECT count(*) FROM stays WHERE hospitaldischargestatus = 'Expired'),
  count(*), avg(v) FROM pressures
"""


@pytest.fixture(scope="module")
def csv(data_dir, tmp_path_factory):
    """The folder with the tables of the demo."""
    folder = tmp_path_factory.mktemp("demo")
    with tarfile.open(data_dir / "eicu-demo/eicu-demo-2.0-partial.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/csv"))


def test_demo_against_plain_sql(csv):
    some = ("vitalAperiodic", "infusionDrug", "respiratoryCharting")
    data = read([csv], EicuOptions(task="mortality48", tables=some))
    expected = duckdb.sql(DEMO.format(csv=csv)).fetchall()[0]
    names = [f.name for f in data.schema.temporal]
    assert len(names) == len(set(names))
    numeric = [f.name for f in data.schema.temporal if f.is_numeric]
    at = numeric.index("vitalAperiodic: noninvasivemean")
    seen = data.cohort.temporal.observed[..., at]
    values = data.cohort.temporal.numeric[..., at][seen]
    found = (len(data.ids), int(data.cohort.label.sum()), len(values))
    assert found == expected[:3]
    assert found[:2] == (920, 106)
    np.testing.assert_allclose(values.mean(), expected[3], rtol=1e-12)
    with pytest.raises(InputError, match="table vitalPeriodic is missing"):
        read([csv])


DEMO_ARF = """
WITH charting AS (
  SELECT patientunitstayid::INT AS patientunitstayid, respchartoffset::INT AS minute,
    respchartvaluelabel AS label
  FROM read_csv('{csv}/respiratorycharting.csv', all_varchar=true, quote='"')
), care AS (
  SELECT * FROM '{csv}/respiratorycare.csv'
), recording AS (
  SELECT hospitalid FROM '{csv}/patient.csv' JOIN (
    SELECT patientunitstayid FROM care UNION SELECT patientunitstayid FROM charting
  ) USING (patientunitstayid)
), signs AS (
  SELECT patientunitstayid, minute FROM charting WHERE label IN ('PEEP', 'PEEP/CPAP')
  UNION ALL
  SELECT patientunitstayid, ventstartoffset FROM care WHERE ventstartoffset <> 0
  UNION ALL
  SELECT patientunitstayid, respcarestatusoffset FROM care WHERE peeplimit IS NOT NULL
), onset AS (SELECT patientunitstayid, min(minute) AS first FROM signs GROUP BY 1)
SELECT patientunitstayid, (first IS NOT NULL)::INT
FROM '{csv}/patient.csv' LEFT JOIN onset USING (patientunitstayid)
WHERE (age = '> 89' OR try_cast(age AS INT) >= 18) AND unitdischargeoffset >= 240
  AND hospitalid IN (FROM recording) AND (first IS NULL OR first >= 240)
ORDER BY 1
"""


def test_demo_of_arf4_against_plain_sql(csv):
    options = EicuOptions(task="arf4", tables=("respiratoryCare",), min_share=0.0)
    data = read([csv], options)
    expected = duckdb.sql(DEMO_ARF.format(csv=csv)).fetchall()
    assert (len(expected), sum(label for _, label in expected)) == (1702, 103)
    order = np.argsort(data.ids)
    assert list(zip(data.ids[order], data.cohort.label[order])) == expected
    stays = [row["stays"] for row in data.provenance["steps"]]
    assert stays[3] - stays[4] == 370  # in whom it began before hour 4
