"""What lies beside the page: Croissant metadata and the model card."""

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from report_samples import RUN, SCHEMA, make_dataset, results

from jaxehr.core.contracts import Comparison, Definition, Result, Value
from jaxehr.core.sparse import from_dense
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import save_cohort
from jaxehr.report import write_report
from jaxehr.report.croissant import croissant, data_type, hashes
from jaxehr.report.words import control, threat


def attack_result(caught=True):
    definition = Definition(
        "Linkability: advantage",
        "Threat model: the attacker holds one part of a record. True less false.",
        "lower",
        0.0,
        "[giomi2023]",
    )
    detail = {"leaky_generator": 0.75, "leaky_generator_caught": caught}
    detail["reference_interval"] = [-0.1, 0.12]
    value = Value(0.02, 0.01, -0.1, 0.14, "", detail)
    return Result("linkability_advantage", "privacy", definition, value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("beside")
    train, holdout, made = (simulate(SimulateOptions(n=60, seed=i)) for i in range(3))
    save_cohort(made, path / "synthetic")
    sets = Comparison(train, holdout, made)
    files = hashes(path / "synthetic")
    found = [*results(), attack_result()]
    write_report(path / "out", sets, found, run=RUN, notes=["A note."], files=files)
    return path


def test_croissant_lists_the_files_and_every_column(folder):
    document = json.loads((folder / "out" / "croissant.json").read_text())
    assert "http://mlcommons.org/croissant/1.1" in document["conformsTo"]
    for entry in document["distribution"]:
        content = (folder / "synthetic" / entry["contentUrl"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    ids = []
    for table in document["recordSet"]:
        file = folder / "synthetic" / f"{table['name']}.parquet"
        names = pq.read_schema(file).names
        assert [f["source"]["extract"]["column"] for f in table["field"]] == names
        ids += [field["@id"] for field in table["field"]]
        assert {key["@id"] for key in table["key"]} <= set(ids)
    assert len(ids) == len(set(ids))
    terms = document["@context"]
    used = {k for table in document["recordSet"] for f in table["field"] for k in f}
    assert all(
        k.startswith("@") or k in ("name", "description") or k in terms for k in used
    )


def test_croissant_of_patients_in_no_folder_and_of_sparse_ones():
    data = make_dataset(0)
    document = croissant(data, {}, {})
    assert document["distribution"] == []
    assert "source" not in document["recordSet"][0]["field"][0]
    dense = data.cohort.temporal
    table = from_dense(np.asarray(dense.observed), data.cohort.length)
    sparse = data._replace(cohort=data.cohort._replace(temporal=table))
    series = croissant(sparse, {}, {"temporal.npz": "ab"})["recordSet"][1]
    assert [f["name"] for f in series["field"]] == [f.name for f in SCHEMA.temporal]
    assert "key" not in series


@pytest.mark.parametrize(
    ("arrow", "expected"),
    [
        ("int64", "sc:Integer"),
        ("double", "sc:Float"),
        ("bool", "sc:Boolean"),
        ("timestamp[us]", "sc:DateTime"),
        ("string", "sc:Text"),
    ],
)
def test_types_of_columns(arrow, expected):
    assert data_type(arrow) == expected


def test_the_card_holds_numbers_limits_and_attacks_but_no_record(folder):
    text = (folder / "out" / "model_card.md").read_text()
    assert text.startswith("# Model card: cdmt\n")
    assert "| Maximum mean discrepancy (`mmd`) | 0.0021 | 0.0017 to 0.0025 |" in text
    assert "| Linkability: advantage | 0.02 |" in text
    assert "| 0.75 |" in text
    assert "- A note." in text
    assert "differential privacy" in text
    assert "- Origin: simulate." in text
    assert "Columns: age, sex, weight, unit, vital_0" in text
    assert "transition_distance" not in text  # not defined


def test_a_page_without_attacks_warns(tmp_path):
    sets = Comparison(make_dataset(0), make_dataset(1), make_dataset(2))
    write_report(tmp_path / "out", sets, [])
    text = (tmp_path / "out" / "model_card.md").read_text()
    assert "No attack was made. Do not release" in text


def test_the_page_says_who_attacks_and_what_the_control_gives(folder):
    text = (folder / "out" / "report.html").read_text()
    assert "Privacy by attack" in text
    assert "The attacker holds one part of a record." in text
    assert threat(attack_result()) == "The attacker holds one part of a record."
    assert control(attack_result()) == "0.75"
    assert control(attack_result(caught=False)) == "0.75, not recognised"
    bare = attack_result()
    assert control(bare._replace(value=Value(0.1))) == "no control"
