"""Plausibility rules: their texts, and what a schema refuses."""

import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature, Schema
from jaxehr.core.rules import (
    Case,
    Implies,
    Monotone,
    NothingAfter,
    Order,
    descending,
)


def number(name, **parts):
    return Feature(name=name, kind="numeric", **parts)


LAW = Schema(
    static=(
        number("death"),
        number("weight"),
        Feature(name="age", kind="integer", dtype="int64", lower=0.0, upper=120.5),
        Feature(name="sex", kind="binary", dtype="string", categories=("F", "M")),
        Feature(name="ward", kind="categorical", categories=(1.0, 2.0, 3.0)),
    ),
    temporal=(
        number("sbp", lower=20.0, upper=300.0),
        number("dbp", lower=10.0, upper=200.0),
        number("weight"),
        Feature(name="dead", kind="binary", categories=(0.0, 1.0)),
    ),
    num_steps=4,
)


def order(*columns, **parts):
    return Order(columns=columns, **parts)


def implies(when, then):
    return Implies(when=Case(*when), then=Case(*then))


def test_texts_and_hash():
    rules = (
        *descending("sbp", "dbp"),
        order("age", "death", relation="<=", margin=2),
        order("weight", "weight (static)", margin=-3),
        Monotone(column="dead"),
        Monotone(column="sbp", relation="<="),
        NothingAfter(event="death"),
        NothingAfter(event=Case("dead", 1), columns=("sbp", "dbp")),
        implies(("sex", "M"), ("ward", 2)),
        implies(("dead", 1), ("sbp", None)),
    )
    law = LAW.replace(rules=rules)
    assert [str(rule) for rule in law.rules] == [
        "sbp >= dbp",
        "age <= death - 2",
        "weight >= weight (static) - 3",
        "dead never falls",
        "sbp never rises",
        "nothing after death",
        "nothing of sbp, dbp after dead = 1",
        "sex = M implies ward = 2",
        "dead = 1 implies sbp missing",
    ]
    assert hash(law) == hash(LAW.replace(rules=rules)) != hash(LAW)
    assert [str(rule) for rule in descending("a", "b", "c")] == [
        "a >= b",
        "a >= c",
        "b >= c",
    ]


def test_columns_by_name():
    found = LAW.columns
    assert found["weight"][:2] == ("temporal", 2)
    assert found["weight (static)"][:2] == ("static", 1)
    assert len(found) == 9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: order("a"), r"columns must be two names, got \['a'\]"),
        (lambda: order("a", "a"), r"columns must be two names, got \['a', 'a'\]"),
        (
            lambda: order("a", "b", relation=">"),
            "must be '>=' or '<=', got '>'; for st",
        ),
        (lambda: order("a", "b", margin=float("nan")), "margin must be finite"),
        (lambda: Monotone(column="a", relation="<"), "monotone: relation must be"),
    ],
)
def test_rules_by_themselves_are_checked(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [order("spb", "dbp")],
            "'spb >= dbp': unknown column 'spb'; known: sbp, dbp, w",
        ),
        ([order("sbp", "dbp")] * 2, "rule 'sbp >= dbp' occurs twice"),
        ([order("sbp", "sex")], "column 'sex' must be numeric"),
        ([Monotone(column="age")], "column 'age' must be temporal"),
        ([NothingAfter(event="sbp")], "'sbp' must be static and numeric, or come"),
        ([NothingAfter(event="dead")], "'dead' must be static and numeric"),
        ([NothingAfter(event=Case("sex", "M"))], "column 'sex' must be temporal"),
        ([NothingAfter(event=Case("dead", 2))], "value of column 'dead' 2; known: 0.0"),
        ([NothingAfter(event="death", columns=("age",))], "'age' must be temporal"),
        (
            [NothingAfter(event=Case("dead", 1), columns=("dead",))],
            "'dead' is its event and a column",
        ),
        ([implies(("sex", "X"), ("ward", 2))], "unknown value of column 'sex' 'X'; kn"),
        ([implies(("sbp", 1), ("ward", 2))], "column 'sbp' must be coded"),
        ([implies(("sex", "M"), ("sbp", 2))], "column 'sbp' must be coded"),
        ([implies(("sex", "M"), ("sex", "F"))], "one column must imply another"),
        ([order("sbp", "dbp"), order("dbp", "sbp")], "order rules run in a circle: "),
        (
            [implies(("sex", "M"), ("ward", 2)), implies(("ward", 2), ("sex", "F"))],
            "implies rules run in a circle: ",
        ),
        (
            [order("dbp", "sbp", margin=200)],
            "contradict the bounds: 'dbp' must be at least 220 and at most 200",
        ),
        (
            [order("dbp", "age"), order("age", "sbp", margin=101)],
            "contradict the bounds: 'age' must be at least 121 and at most 120",
        ),
        ([order("age", "sbp", margin=0.5)], "margin must be whole beside integers"),
        (
            [Monotone(column="sbp"), Monotone(column="sbp", relation="<=")],
            "'sbp' must neither fall nor rise",
        ),
        (
            [Monotone(column="dead"), implies(("sex", "M"), ("dead", 0))],
            "contradict: 'sex = M implies dead = 0', 'dead never falls'",
        ),
        (
            [implies(("sex", "M"), ("ward", 2)), implies(("dead", 1), ("ward", 3))],
            "contradict where both apply: 'sex = M implies ward = 2', 'dead = 1 impl",
        ),
        (  # dead is 0 at one step and 1 at another
            [implies(("dead", 0), ("ward", 2)), implies(("dead", 1), ("ward", 3))],
            "contradict where both apply",
        ),
    ],
)
def test_what_a_schema_refuses(rules, message):
    with pytest.raises(InputError, match=message):
        LAW.replace(rules=tuple(rules))


def test_conditions_that_exclude_each_other_may_imply_different_values():
    apart = [implies(("sex", "M"), ("dead", 0)), implies(("sex", "F"), ("dead", 1))]
    alike = [implies(("sex", "M"), ("ward", 2)), implies(("dead", 1), ("ward", 2))]
    both = [implies(("sex", "M"), ("ward", 2)), implies(("dead", 1), ("ward", None))]
    for rules in (apart, alike, both):
        assert LAW.replace(rules=tuple(rules)).rules == tuple(rules)
