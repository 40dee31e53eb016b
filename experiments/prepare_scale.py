"""Time and memory of `jaxehr prepare mimic3` on tables of the real size.

    python -m experiments.prepare_scale --rows 330000000 --folder /scratch/mimic

Generates CHARTEVENTS in the layout of MIMIC-III (7 % of its rows are the listed vital
signs, as in the demo) with ICUSTAYS and ADMISSIONS, prepares a cohort in a process of
its own, and prints one line of JSON. For `mortality48` the other tables of events are
there without rows.
"""

import dataclasses
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time
from typing import Literal

import duckdb
import tyro

from jaxehr.data.mimic3_tasks import TABLES
from jaxehr.data.mimic3_vitals import LISTED

ROWS_A_STAY = 5_400  # 330 million rows of 61,500 stays
COMMON = "stay + 1 AS subject_id, stay + 100001 AS hadm_id, stay + 200001 AS icustay_id"
CHARTEVENTS = f"""
SELECT i + 1 AS row_id, {COMMON},
  CASE WHEN draw % 100 < 7 THEN {list(LISTED)}[1 + draw // 100 % {len(LISTED)}]
    ELSE 226000 + draw // 100 % 2000 END AS itemid,
  TIMESTAMP '2150-01-01' + INTERVAL (i % {ROWS_A_STAY} * 64) SECOND AS charttime,
  charttime AS storetime, 17000 + draw % 500 AS cgid,
  (50 + draw // 1000 % 600 / 10.0)::VARCHAR AS "value", "value" AS valuenum,
  NULL AS valueuom, 0 AS warning, 0 AS error, NULL AS resultstatus, NULL AS stopped
FROM (SELECT i, i // {ROWS_A_STAY} AS stay, (hash(i) % 1000000007)::BIGINT AS draw
  FROM range({{rows}}) AS t(i))
"""
STAYS = "FROM (SELECT i AS stay FROM range({stays}) AS t(i))"
ICUSTAYS = f"""
SELECT stay AS row_id, {COMMON}, 'metavision' AS dbsource,
  TIMESTAMP '2150-01-01' AS intime, TIMESTAMP '2150-01-05 02:00:00' AS outtime,
  'MICU' AS first_careunit, 'MICU' AS last_careunit, 7 AS first_wardid,
  7 AS last_wardid {STAYS}
"""
ADMISSIONS = f"""
SELECT stay AS row_id, {COMMON}, (stay % 12 = 0)::INT AS hospital_expire_flag,
  TIMESTAMP '2150-01-01' AS admittime, NULL AS deathtime, 'EMERGENCY' AS admission_type,
  'ER' AS admission_location, 'Private' AS insurance, 'UNKNOWN' AS ethnicity {STAYS}
"""
PATIENTS = f"""
SELECT stay AS row_id, {COMMON}, 'F' AS gender, TIMESTAMP '2090-01-01' AS dob {STAYS}
"""
ITEMS = "SELECT 1 AS itemid, 'nothing' AS label"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure one size."""

    rows: int = 3_000_000
    """Rows of CHARTEVENTS; MIMIC-III has 330,712,483."""
    folder: pathlib.Path = pathlib.Path("prepare_scale")
    """Where the tables are made (100 bytes a row) and removed afterwards."""
    task: Literal["vitals24", "mortality48"] = "vitals24"
    """Which cohort to prepare."""
    shards: int = 0
    """Of the cohort; 0 = as many as its size asks for."""
    memory_limit: str = "2GB"
    engine: str = "duckdb"


def generate(arguments: Arguments) -> int:
    """Writes the tables; returns the size of CHARTEVENTS in bytes."""
    arguments.folder.mkdir(parents=True)  # it is removed afterwards: never an old one
    stays = -(-arguments.rows // ROWS_A_STAY)
    tables = {
        "CHARTEVENTS": CHARTEVENTS,
        "ICUSTAYS": ICUSTAYS,
        "ADMISSIONS": ADMISSIONS,
    }
    if arguments.task == "mortality48":
        tables |= {"PATIENTS": PATIENTS, "D_ITEMS": ITEMS, "D_LABITEMS": ITEMS}
        tables |= {name: nothing(name) for name in TABLES if name != "CHARTEVENTS"}
    with duckdb.connect(config={"memory_limit": "1GB"}) as connection:
        for name, query in tables.items():
            path = arguments.folder / f"{name}.csv"
            text = query.format(rows=arguments.rows, stays=stays)
            connection.execute(f"COPY ({text}) TO '{path}' (HEADER)")
    return (arguments.folder / "CHARTEVENTS.csv").stat().st_size


def size_of(folder: pathlib.Path) -> int:
    """Bytes of all files in a folder and below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def nothing(name: str) -> str:
    """A query for the columns of a table of events, without a row."""
    form = TABLES[name]
    names = (form.stay, form.item, form.time, form.number, form.text, form.unit)
    columns = dict.fromkeys(name for name in (*names, form.flag) if name)
    return f"SELECT {', '.join(f'1 AS {name}' for name in columns)} WHERE false"


def main(arguments: Arguments) -> None:
    out = arguments.folder / "cohort"
    size = generate(arguments)
    words = ["prepare", "mimic3", str(arguments.folder), "--out", str(out)]
    words += ["--task", arguments.task, "--shards", str(arguments.shards)]
    words += ["--memory-limit", arguments.memory_limit, "--engine", arguments.engine]
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "jaxehr.cli", *words], check=True, stdout=sys.stderr
    )
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    steps = json.loads((out / "provenance.json").read_text())["steps"]
    result = {
        "rows": arguments.rows,
        "gib": round(size / 2**30, 2),
        "task": arguments.task,
        "shards": arguments.shards,
        "engine": arguments.engine,
        "memory_limit": arguments.memory_limit,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "seconds": round(seconds, 1),
        "seconds_a_million": round(seconds / arguments.rows * 1e6, 3),
        "cpu_seconds_a_million": round(worked / arguments.rows * 1e6, 3),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
        "stays": steps[-1]["stays"],
        "cohort_mib": round(size_of(out) / 2**20, 1),
    }
    shutil.rmtree(arguments.folder)
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
