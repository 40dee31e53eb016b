"""Rules in schema.json: round trip, defaults, refusals with their place; readers."""

import json

import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature, Schema
from jaxehr.core.rules import Case, Implies, Monotone, NothingAfter, Order
from jaxehr.data.discretize import DiscretizeOptions, discretize
from jaxehr.data.physionet2012 import Physionet2012Options, make_schema
from jaxehr.data.physionet2019 import Physionet2019Options
from jaxehr.data.physionet2019 import make_schema as make_schema_2019
from jaxehr.data.schema_json import schema_from_json, schema_to_json
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import load_cohort, save_cohort

LAW = Schema(
    static=(
        Feature(name="death", kind="numeric"),
        Feature(name="sex", kind="binary", dtype="string", categories=("F", "M")),
    ),
    temporal=(
        Feature(name="sbp", kind="numeric"),
        Feature(name="dbp", kind="numeric"),
        Feature(name="dead", kind="binary", dtype="int64", categories=(0, 1)),
    ),
    num_steps=4,
)


def read(rules) -> Schema:
    content = schema_to_json(LAW) | {"rules": rules}
    return schema_from_json(json.loads(json.dumps(content)), "c/schema.json")


def test_rules_pass_through_json():
    rules = (
        Order(columns=("sbp", "dbp"), margin=5.5),
        Order(columns=("dbp", "death"), relation="<="),
        Monotone(column="dead"),
        NothingAfter(event="death"),
        NothingAfter(event=Case("dead", 1), columns=("sbp", "dbp")),
        Implies(when=Case("sex", "M"), then=Case("dbp", None)),
    )
    law = LAW.replace(rules=rules)
    content = json.loads(json.dumps(schema_to_json(law)))
    assert schema_from_json(content, "s.json") == law
    assert content["rules"][0] == {
        "rule": "order",
        "columns": ["sbp", "dbp"],
        "relation": ">=",
        "margin": 5.5,
    }
    assert content["rules"][4]["event"] == {"dead": 1}
    assert content["rules"][5]["then"] == {"dbp": None}


def test_what_has_a_default_may_be_left_out():
    found = read([{"rule": "order", "columns": ["sbp", "dbp"]}])
    assert found.rules == (Order(columns=("sbp", "dbp")),)
    content = schema_to_json(LAW)
    del content["rules"]  # a cohort folder of an older version
    assert schema_from_json(content, "s.json") == LAW


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (3, r"rules\[0\]: key 'rule' must be one of order, monotone, .*; got 3"),
        ({"rule": "odrer"}, r"rules\[0\] \(odrer\): key 'rule' must be one of order"),
        ({"rule": ["order"]}, r"key 'rule' must be one of order"),
        ({"rule": "order"}, r"rules\[0\] \(order\): key\(s\) 'columns' missing"),
        ({"rule": "order", "column": "a"}, r"unknown key\(s\) 'column'; known: 'rule'"),
        ({"rule": "order", "columns": "a"}, "'columns' must be list, got 'a'"),
        ({"rule": "order", "columns": ["a", 2]}, "columns must be names, got 2"),
        (
            {"rule": "order", "columns": ["sbp", "dbp"], "relation": ">"},
            r"rules\[0\] \(order\): rule order: relation must be '>=' or '<=', got '>'",
        ),
        (
            {"rule": "order", "columns": ["spb", "dbp"]},
            "rule 'spb >= dbp': unknown column 'spb'; known: sbp, dbp, dead, de",
        ),
        (
            {"rule": "implies", "when": {}, "then": {"sex": "M"}},
            r"write one column and its value, \{column: value\}; got \{\}",
        ),
        (
            {"rule": "implies", "when": {"dead": [1]}, "then": {"sex": "M"}},
            r"values must be text, numbers or true/false, got \[1\]",
        ),
    ],
)
def test_a_bad_rule_is_refused_with_its_place(rule, message):
    with pytest.raises(InputError, match=message) as raised:
        read([rule])
    assert str(raised.value).startswith("c/schema.json: ")


def test_rules_written_into_a_cohort_folder_are_read(tmp_path):
    save_cohort(simulate(SimulateOptions(n=9, steps=2, numeric=2)), tmp_path / "c")
    path = tmp_path / "c" / "schema.json"
    content = json.loads(path.read_text())
    content["rules"] = [{"rule": "order", "columns": ["vital_1", "vital_0"]}]
    path.write_text(json.dumps(content))
    data = load_cohort(tmp_path / "c")
    assert data.schema.rules == (Order(columns=("vital_1", "vital_0")),)
    assert discretize(data, DiscretizeOptions()).schema.rules == ()


def test_the_readers_know_blood_pressures():
    texts = lambda schema: [str(rule) for rule in schema.rules]
    assert texts(make_schema_2019(Physionet2019Options())) == [
        "SBP >= MAP",
        "SBP >= DBP",
        "MAP >= DBP",
    ]
    few = Physionet2019Options(variables=("DBP", "HR", "SBP"))
    assert texts(make_schema_2019(few)) == ["SBP >= DBP"]
    assert make_schema_2019(Physionet2019Options(variables=("HR",))).rules == ()
    options = Physionet2012Options(variables=("SysABP", "MAP", "NIDiasABP", "NIMAP"))
    counts = {name: {"kept": 1} for name in options.variables}
    assert texts(make_schema(options, [0, 1], counts)) == [
        "SysABP >= MAP",
        "NIMAP >= NIDiasABP",
    ]
