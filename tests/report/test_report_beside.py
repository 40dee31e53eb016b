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
from jaxehr.report import evidence, words, write_report
from jaxehr.report.card import card
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


def copies_result(share=0.05):
    definition = Definition("Exact copies", "A diagnostic.", "lower", 0.0)
    detail = {"count": round(60 * share), "records": 60}
    value = Value(share, 0.0, share / 2, 2 * share, "", detail)
    return Result("exact_copies", "privacy", definition, value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("beside")
    train, holdout, made = (simulate(SimulateOptions(n=60, seed=i)) for i in range(3))
    save_cohort(made, path / "synthetic")
    sets = Comparison(train, holdout, made)
    files = hashes(path / "synthetic")
    found = [*results(), attack_result(), copies_result()]
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


def test_croissant_lists_the_files_of_shards(tmp_path):
    data = simulate(SimulateOptions(n=60))
    save_cohort(data, tmp_path / "synthetic", shards=2)
    files = hashes(tmp_path / "synthetic")
    assert "shards/00000/static.parquet" in files
    listed = croissant(data, [], {}, files)["distribution"]
    assert [entry["contentUrl"] for entry in listed] == list(files)
    assert len(files) == len([*tmp_path.rglob("*.parquet")])


def test_croissant_of_patients_in_no_folder_and_of_sparse_ones():
    data = make_dataset(0)
    document = croissant(data, [], {}, {})
    assert document["distribution"] == []
    assert "source" not in document["recordSet"][0]["field"][0]
    dense = data.cohort.temporal
    table = from_dense(np.asarray(dense.observed), data.cohort.length)
    sparse = data._replace(cohort=data.cohort._replace(temporal=table))
    series = croissant(sparse, [], {}, {"temporal.npz": "ab"})["recordSet"][1]
    assert [f["name"] for f in series["field"]] == [f.name for f in SCHEMA.temporal]
    assert "key" not in series


@pytest.mark.parametrize(
    ("provenance", "rows", "synthetic"),
    [
        ({}, "synthetic patients", True),
        ({"kind": "synthetic", "model": "vae"}, "synthetic patients", True),
        ({"model": "bootstrap"}, "copies of real patients", None),
        (
            {"kind": "imputed", "model": "flexgen"},
            "real patients whose missing parts were drawn",
            None,
        ),
    ],
)
def test_real_people_are_called_so(provenance, rows, synthetic):
    """The patients say what they are; a run that is given may be another one."""
    made = make_dataset(2)._replace(provenance=provenance)
    document = croissant(made, [], {"model": "cdmt"}, {})
    model = provenance.get("model", "cdmt")
    assert document["name"] == f"{rows} {model}".replace(" ", "-")
    assert document["description"].startswith(f"60 {rows} (jaxehr, {model}). ")
    assert document.get("rai:hasSyntheticData") is synthetic
    text = card(Comparison(make_dataset(0), make_dataset(1), made), [], RUN, [])
    assert f"\n{rows.capitalize()} (jaxehr" in text
    assert f"- 60 {rows} are compared with real patients" in text
    assert ("may be used" in text) == (synthetic is None)
    for said in (json.dumps(document), text):
        assert ("of real people" in said) or synthetic
        assert "No row is a person" not in said


def test_croissant_speaks_of_attacks_that_were_made():
    for found, said in (([], "No attack on"), ([attack_result()], "Attacks on")):
        document = croissant(make_dataset(0), [*results(), *found], RUN, {})
        assert said in document["rai:personalSensitiveInformation"]
        assert "report.html" not in json.dumps(document)  # it draws real patients


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
    assert f"The control is the same attack on {words.CONTROL}, whom" in text
    assert "- Linkability: The attacker holds one part of a record." in text
    assert "- A note." in text
    assert "differential privacy" in text
    assert "- Origin: simulate." in text
    assert "Columns: age, sex, weight, unit, vital_0" in text
    assert "transition_distance" not in text  # not defined


def test_copies_are_named_at_the_top_and_on_the_card(folder):
    said = "3 of 60 synthetic patients equal a training patient in every value (5 %;"
    assert f"<strong>{said}" in (folder / "out" / "report.html").read_text()
    assert f"\n{said}" in (folder / "out" / "model_card.md").read_text()
    assert words.copies_sentence([copies_result(0.0)]) == ""


def test_a_page_without_attacks_warns(tmp_path):
    sets = Comparison(make_dataset(0), make_dataset(1), make_dataset(2))
    write_report(tmp_path / "out", sets, [])
    text = (tmp_path / "out" / "model_card.md").read_text()
    assert "No attack was made. Do not release" in text


def test_the_page_says_who_attacks_and_what_the_control_gives(folder):
    text = (folder / "out" / "report.html").read_text()
    assert "Privacy by attack" in text
    assert f"as a control, on {words.CONTROL}, whom" in text
    assert "The attacker holds one part of a record." in text
    assert threat(attack_result()) == "The attacker holds one part of a record."
    assert control(attack_result()) == "0.75"
    assert control(attack_result(caught=False)) == "0.75, not recognised"
    bare = attack_result()
    assert control(bare._replace(value=Value(0.1))) == "no control"


def loss_result(name, loss, verdict, low=-0.01, high=0.02):
    title = "Loss against real training data, mean of networks"
    definition = Definition(title, "AUROC lost.", "lower", 0.0)
    detail = {"margin": 0.03, "verdict": verdict}
    return Result(name, "utility", definition, Value(loss, 0.0, low, high, "", detail))


def area_result(name):
    title = "Train on synthetic, mean of networks"
    definition = Definition(title, "AUROC.", "higher", 1.0)
    return Result(name, "utility", definition, Value(0.7, 0.72, 0.66, 0.74))


def subgroup_result():
    definition = Definition("Largest loss in a subgroup, neural", "L.", "lower", 0.0)
    counted = {"prevalence": 0.2, "synthetic_prevalence": 0.25, "patients": 80}
    measured = {"trained_on_real": 0.8, "trained_on_synthetic": 0.7, "loss": 0.1}
    groups = [
        {"group": "sex = F", "reason": "", "low": 0.02, "high": 0.18}
        | counted
        | measured,
        {"group": "sex = M", "reason": "one class only"} | counted,
    ]
    detail = {"largest": "sex = F", "groups": groups}
    value = Value(0.1, 0.0, 0.02, 0.18, "", detail)
    return Result("neural_subgroup_loss", "utility", definition, value)


def told_result():
    definition = Definition("Two-sample test, boosting", "AUC.", "target", 0.5)
    used = {
        "by_feature": {"HR": 0.12, "Temp": -0.01},
        "by_time": {"3 h": 0.08},
        "by_place": {},
    }
    value = Value(0.7, 0.5, 0.65, 0.75, "", {"used_most": used})
    return Result("c2st_boosting", "discriminability", definition, value)


def rule_result():
    definition = Definition("Patients who break a rule", "R.", "lower", 0.0)
    side = {"share": 0.1, "patients": 6, "cells": 9, "applies": 90}
    nowhere = {"share": None, "patients": 0, "cells": 0, "applies": 0}
    sides = dict.fromkeys(("train", "holdout"), side) | {"synthetic": nowhere}
    value = Value(0.0, 0.1, 0.0, 0.06, "", {"per_rule": {"SBP >= DBP": sides}})
    return Result("rule_violations", "fidelity", definition, value)


def test_the_sections_of_evidence_stand_first(tmp_path):
    made = make_dataset(2)
    counts = {
        "broken_before": {"SBP >= DBP": {"cells": 4, "patients": 3}},
        "values_changed": {"SBP": 4, "DBP": 4},
        "patients_changed": 3,
        "patients": 60,
    }
    made = made._replace(provenance={"rules": counts})
    sets = Comparison(make_dataset(0), make_dataset(1), made)
    loss = loss_result("tstr_mean_loss", 0.01, "non-inferior")
    found = [area_result("tstr_mean"), loss]
    found += [subgroup_result(), told_result(), rule_result(), attack_result()]
    names = [section.id for section in evidence.sections(sets, found)]
    assert names == ["utility", "privacy", "told", "rules"]
    write_report(tmp_path / "out", sets, found)
    text = (tmp_path / "out" / "report.html").read_text()
    places = [text.index(f'<section id="{name}"') for name in (*names, "metrics")]
    assert places == sorted(places)
    assert "Synthetic patients serve in place of real ones" in text
    assert "0.01 lower than after training on real ones" in text
    assert "Of the subgroups, sex = F loses most: 0.1" in text
    assert "none: one class only" in text
    assert "10.0 % (6)" in text
    assert "of 60 patients 3 had values changed (8 in all)" in text
    assert "does not apply" in text


def test_nothing_stands_first_without_its_metrics():
    sets = Comparison(make_dataset(0), make_dataset(1), make_dataset(2))
    assert evidence.sections(sets, results()) == []


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("non-inferior", "Synthetic patients serve"),
        ("inferior", "Synthetic patients do not serve"),
        ("not shown", "Not shown: that synthetic patients serve"),
    ],
)
def test_the_verdict_in_words(verdict, said):
    (first, _) = words.verdict([loss_result("tstr_mean_loss", -0.02, verdict)])
    assert first.startswith(said)
    assert "0.02 higher than after training on real ones" in first
    assert "margin 0.03" in first
    assert "0.02 lower to 0.01 higher" in first


def test_a_verdict_without_an_interval_says_why():
    loss = loss_result("tstr_mean_loss", 0.01, "not shown", None, None)
    loss.value.detail["no_interval"] = "few were tested"
    (said, _) = words.verdict([loss])
    assert "(no interval: few were tested; margin 0.03)" in said
