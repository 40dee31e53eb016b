"""Rules on a cohort: counting by hand; enforcing against a linear program."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, Feature, Schema, Table, make_cohort, take
from jaxehr.core.rules import Case, Implies, Monotone, NothingAfter, Order, descending
from jaxehr.core.sparse import from_dense
from jaxehr.data.enforce import enforce_rules
from jaxehr.data.rules import find_broken, read_grid, read_sheet

PATIENCE = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck)
)
STEPS = 4
STATIC = ("death", "born", "sex", "ward")
TEMPORAL = ("a", "b", "c", "n", "on", "state")
BINARY = {"kind": "binary", "categories": (0.0, 1.0)}


def law(rules=(), **bounds) -> Schema:
    """Numbers death, born | a, b, c, integer n; coded sex, ward | on, state."""
    number = lambda name: Feature(name=name, kind="numeric", **bounds.get(name, {}))
    three = {"kind": "categorical", "categories": (0.0, 1.0, 2.0)}
    whole = {"kind": "integer", "dtype": "int64"} | bounds.get("n", {})
    return Schema(
        static=(
            number("death"),
            number("born"),
            Feature(name="sex", **BINARY),
            Feature(name="ward", **three),
        ),
        temporal=(
            *map(number, "abc"),
            Feature(name="n", **whole),
            Feature(name="on", **BINARY),
            Feature(name="state", **three),
        ),
        num_steps=STEPS,
        start=0.0,
        rules=tuple(rules),
    )


def cohort(schema, columns, length=STEPS) -> Dataset:
    """One row a patient: lists with None where missing; other columns are missing."""
    count = len(next(iter(columns.values())))
    tables = []
    for names, shape in ((STATIC, ()), (TEMPORAL, (STEPS,))):
        empty = np.full((count, *shape), np.nan)
        each = [np.array(columns.get(n, empty), float) for n in names]
        x = np.stack(each, -1)
        seen, split = np.isfinite(x), 2 if names is STATIC else 4
        x = np.where(seen, x, 0)
        tables.append(Table(x[..., :split], x[..., split:].astype(int), seen))
    made = make_cohort(*tables, np.broadcast_to(length, count), np.zeros(count))
    ids = np.arange(count)
    return Dataset(schema, made, ids, ids, {})


def broken(data) -> dict:
    grid = read_grid(data.schema, data.cohort)
    found = find_broken(grid, read_sheet(grid, data.cohort))
    return {
        text: (int(f.broken.sum()), int(f.applies.sum()), f.broken.any(1).tolist())
        for text, f in found
    }


def column(data, name) -> list:
    grid = read_grid(data.schema, data.cohort)
    values, seen = read_sheet(grid, data.cohort)[name]
    rows = [
        [v if s else None for v, s in zip(*row, strict=True)]
        for row in zip(values.tolist(), seen.tolist(), strict=True)
    ]
    return [row if len(row) > 1 else row[0] for row in rows]


_ = None
ORDER = Order(columns=("a", "b"))


@pytest.mark.parametrize(
    ("rule", "columns", "cells", "after"),
    [
        (
            ORDER,
            {"a": [[3, 1, _, 2]], "b": [[2, 5, 9, 2]]},
            (1, 3),
            {"a": [[3, 3, _, 2]], "b": [[2, 3, 9, 2]]},
        ),
        (
            Order(columns=("a", "b"), relation="<=", margin=2),
            {"a": [[3, 1, _, 2]], "b": [[6, 3, 9, 2]]},
            (1, 3),
            {"a": [[3, 1, _, 1]], "b": [[6, 3, 9, 3]]},
        ),
        (  # no more decimals than the patient has: 80.25 would have one more
            ORDER,
            {"a": [[80.0, _, _, _]], "b": [[80.5, _, _, _]]},
            (1, 1),
            {"a": [[80.2, _, _, _]], "b": [[80.2, _, _, _]]},
        ),
        (
            Order(columns=("n", "born")),
            {"n": [[3, 8, _, 9]], "born": [6.7]},
            (1, 3),
            {"n": [[4, 8, _, 9]], "born": [4.0]},
        ),
        (
            Order(columns=("death", "born")),
            {"death": [1, 2, _], "born": [3, 2, 5]},
            (1, 2),
            {"death": [2, 2, _], "born": [2, 2, 5]},
        ),
        (
            Monotone(column="a"),
            {"a": [[1, 5, 2, 3], [1, _, 2, 9]]},
            (2, 5),
            {"a": [[1, 3, 3, 3], [1, _, 2, 9]]},
        ),
        (
            Monotone(column="a", relation="<="),
            {"a": [[9, 5, 7, 3]]},
            (1, 3),
            {"a": [[9, 6, 6, 3]]},
        ),
        (
            Monotone(column="on"),
            {"on": [[0, 1, _, 0], [0, 0, 0, 1]]},
            (1, 5),
            {"on": [[0, 1, _, 1], [0, 0, 0, 1]]},
        ),
        (
            NothingAfter(event="death"),
            {"death": [1.5, _, 3], "a": [[1, 2, 3, _], [1] * 4, [1] * 4]},
            (1, 2),
            {"death": [1.5, _, 3], "a": [[1, 2, _, _], [1] * 4, [1] * 4]},
        ),
        (
            NothingAfter(event=Case("on", 1), columns=("a",)),
            {"on": [[0, 1, 1, 1]], "a": [[1, 2, 3, _]], "b": [[5, 6, 7, 8]]},
            (1, 2),
            {"on": [[0, 1, 1, 1]], "a": [[1, 2, _, _]]},
        ),
        (
            Implies(when=Case("sex", 1), then=Case("ward", 2)),
            {"sex": [1, 1, 1, 0, _], "ward": [0, 2, _, 0, 1]},
            (1, 2),
            {"sex": [1, 1, 1, 0, _], "ward": [2, 2, _, 0, 1]},
        ),
        (
            Implies(when=Case("sex", 1), then=Case("on", 0)),
            {"sex": [1, 0], "on": [[0, 1, _, 1], [1] * 4]},
            (2, 3),
            {"on": [[0, 0, _, 0], [1] * 4]},
        ),
        (
            Implies(when=Case("on", 1), then=Case("ward", 0)),
            {"on": [[0, 1, _, 1], [0] * 4], "ward": [1, 1]},
            (1, 1),
            {"ward": [0, 1]},
        ),
        (
            Implies(when=Case("on", 1), then=Case("a", None)),
            {"on": [[0, 1, _, 1]], "a": [[1, 2, 3, _]]},
            (1, 2),
            {"a": [[1, _, 3, _]]},
        ),
    ],
    ids=str,
)
def test_rules_by_hand(rule, columns, cells, after):
    data = cohort(law([rule]), columns)
    assert broken(data)[str(rule)][:2] == cells
    made = enforce_rules(data)
    for name, wanted in after.items():
        assert column(made, name) == wanted, name
    counts = made.provenance["rules"]
    assert counts["broken_before"][str(rule)]["cells"] == cells[0]
    assert sum(counts["values_changed"].values()) >= cells[0]


def test_bounds_are_rules_too():
    bounds = {"a": {"lower": 0.0, "upper": 10.0, "unit": "mmHg"}, "n": {"lower": 0.5}}
    data = cohort(law(**bounds), {"a": [[-1, 5, 11, _]], "n": [[0, 1, _, _]]})
    text = {"a in [0, 10] mmHg": (2, 3, [True]), "n in [0.5, inf]": (1, 2, [True])}
    assert broken(data) == text
    made = enforce_rules(data)
    assert column(made, "a") == [[0, 5, 10, _]]
    assert column(made, "n") == [[1, 1, _, _]]
    assert made.provenance["rules"] == {
        "broken_before": {
            "a in [0, 10] mmHg": {"cells": 2, "patients": 1},
            "n in [0.5, inf]": {"cells": 1, "patients": 1},
        },
        "values_changed": {"a": 2, "n": 1},
        "patients_changed": 1,
        "patients": 1,
    }


def test_bounds_and_order_together():
    schema = law([ORDER], a={"upper": 10.0}, b={"lower": 6.5})
    columns = {"a": [[8, 3, 12, _]], "b": [[14, 9, 20, 7]]}
    made = enforce_rules(cohort(schema, columns))
    assert column(made, "a") == [[10, 6.5, 10, _]]
    assert column(made, "b") == [[10, 6.5, 10, 7]]


def test_padding_is_no_measurement():
    rule = Implies(when=Case("sex", 1), then=Case("a", None))
    data = cohort(law([rule]), {"sex": [1], "a": [[1, 1, 1, 1]]}, length=2)
    assert broken(data)[str(rule)][:2] == (2, 2)


def test_a_value_that_breaks_no_rule_by_itself_stays():
    rules = descending("a", "b", "c")
    data = cohort(law(rules), {n: [[x] * 4] for n, x in zip("abc", (127, 58, 130))})
    made = enforce_rules(data)
    assert [column(made, name)[0][0] for name in "abc"] == [127, 94, 94]


def test_what_cannot_be_enforced():
    with pytest.raises(
        InputError, match="no rule and no bound to enforce; add `rules`"
    ):
        enforce_rules(cohort(law(), {"a": [[1] * 4]}))
    names = [Feature(name=n, **BINARY) for n in "xy"]
    rule = Implies(when=Case("x", 1), then=Case("y", 0))
    schema = Schema(temporal=tuple(names), num_steps=2, rules=(rule,))
    table = from_dense(np.ones((1, 2, 2), int), np.array([2]))
    none = Table(np.zeros((1, 0)), np.zeros((1, 0), int), np.zeros((1, 0), bool))
    made = make_cohort(none, table, np.array([2]), np.zeros(1))
    with pytest.raises(
        InputError, match="'x' is in a sparse temporal table; rules and"
    ):
        enforce_rules(Dataset(schema, made, np.arange(1), np.arange(1), {}))


@st.composite
def schemas(draw):
    """Rules of every kind that do not contradict each other."""
    ranked = draw(st.permutations(["death", "born", "a", "b", "c", "n"]))
    rules = []
    for i, high in enumerate(ranked):
        for low in ranked[i + 1 :]:
            if draw(st.integers(0, 3)) == 0:
                margin = draw(st.sampled_from([0, 0, 0, 1, -2]))
                rules.append(Order(columns=(high, low), margin=margin))
    for name in ("a", "n", "on", "state"):
        relation = draw(st.sampled_from([None, ">=", "<="]))
        if relation:
            rules.append(Monotone(column=name, relation=relation))
    cases = st.builds(Case, st.sampled_from(["sex", "ward", "on", "state"]), st.just(1))
    then = cases | st.builds(Case, st.sampled_from(["a", "born", "on"]), st.none())
    rules += draw(st.lists(st.builds(Implies, when=cases, then=then), max_size=2))
    events = st.sampled_from(["death", Case("on", 1), Case("state", 2)])
    after = st.builds(NothingAfter, event=events)
    rules += draw(st.lists(after, max_size=2))
    bounds = {"a": {"lower": -3.5}, "b": {"upper": 9.25}, "n": {"lower": -4.0}}
    bounds = {k: v for k, v in bounds.items() if draw(st.booleans())}
    try:
        return law(rules, **bounds)
    except InputError:
        assume(False)


@st.composite
def patients(draw, schema):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    size = draw(st.sampled_from([0, 1, 2, 9]))
    round_to = lambda x: np.round(x, size) if size < 9 else x
    columns = {n: round_to(4 * rng.normal(size=6)) for n in ("death", "born")}
    columns |= {n: round_to(4 * rng.normal(size=(6, STEPS))) for n in "abc"}
    columns["n"] = rng.integers(-9, 9, (6, STEPS)).astype(float)
    for name in ("sex", "ward", "on", "state"):
        shape = (6, STEPS) if name in TEMPORAL else 6
        columns[name] = rng.integers(0, 3 if name in ("ward", "state") else 2, shape)
    holes = {
        n: np.where(rng.random(x.shape) < 0.2, np.nan, x) for n, x in columns.items()
    }
    return cohort(schema, holes, rng.integers(1, STEPS + 1, 6))


def leaves(data):
    return jax.tree.leaves(data.cohort)


@PATIENCE
@given(st.data())
def test_after_enforcing_no_rule_is_broken_and_nothing_else_changes(data):
    schema = data.draw(schemas())
    assume(schema.rules)
    before = data.draw(patients(schema))
    made = enforce_rules(before)
    assert not any(cells for cells, *_ in broken(made).values())
    again = enforce_rules(made)
    for one, other in zip(leaves(made), leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    old, new = before.cohort.temporal, made.cohort.temporal
    assert not (new.observed & ~old.observed).any()
    whole = new.numeric[..., 3]
    np.testing.assert_array_equal(whole, np.round(whole))
    told = [any(row) for row in zip(*(rows for *_, rows in broken(before).values()))]
    same = [
        all(np.array_equal(x[i], y[i]) for x, y in zip(leaves(before), leaves(made)))
        for i in range(6)
    ]
    assert [not fault for fault in told] == same
    counts = made.provenance["rules"]
    assert counts["patients_changed"] == sum(told)


@PATIENCE
@given(st.data())
def test_a_patient_does_not_depend_on_the_others(data):
    schema = data.draw(schemas())
    assume(schema.rules)
    before = data.draw(patients(schema))
    rows = np.array([4, 1])
    some, every = enforce_rules(take(before, rows)), take(enforce_rules(before), rows)
    for one, other in zip(leaves(some), leaves(every), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(PATIENCE, max_examples=25)
@given(st.data())
def test_the_largest_change_is_the_least_possible(data):
    """min t subject to |y - x| <= t and the rules, as a linear program."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    x = rng.normal(size=(1, 3, STEPS))
    rules = [Order(columns=("a", "b"), margin=0.3), Order(columns=("b", "c"))]
    rules += [Monotone(column="b")] if data.draw(st.booleans()) else []
    before = cohort(law(rules), dict(zip("abc", x.transpose(1, 0, 2), strict=True)))
    y = enforce_rules(before).cohort.temporal.numeric[0, :, :3].T
    at = lambda column, step: column * STEPS + step
    pairs = [
        (at(i + 1, t), at(i, t), m) for i, m in ((0, 0.3), (1, 0)) for t in range(4)
    ]
    pairs += [(at(1, t), at(1, t + 1), 0) for t in range(3)] * (len(rules) - 2)
    size = 3 * STEPS
    rows, ends = [], []
    for low, high, margin in pairs:
        row = np.zeros(size + 1)
        row[low], row[high] = 1, -1
        rows, ends = [*rows, row], [*ends, -margin]
    for sign in (1, -1):
        rows += list(np.hstack([sign * np.eye(size), -np.ones((size, 1))]))
        ends += list(sign * x.reshape(-1))
    cost = np.r_[np.zeros(size), 1]
    best = linprog(cost, np.array(rows), ends, bounds=(None, None)).fun
    np.testing.assert_allclose(np.abs(y - x[0]).max(), best, atol=1e-9)
