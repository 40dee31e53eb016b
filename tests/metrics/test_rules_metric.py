"""The share of patients who break a rule: by hand, beside the real share."""

import json

import jax
import numpy as np
import pytest
from builders import schema, simulate

from jaxehr.core.cohort import Feature, Schema, Table, empty_table, make_cohort
from jaxehr.core.contracts import Comparison
from jaxehr.core.rules import Order
from jaxehr.data.enforce import enforce_rules
from jaxehr.metrics.membership import clopper_pearson
from jaxehr.metrics.rules import NO_RULES, rules

KEY, NAME = jax.random.key(0), "rule_violations"
LAW = schema().replace(rules=(Order(columns=("x0", "x1"), margin=-6),))
RULE = "x0 >= x1 - 6"


def measure(*sets):
    return rules().run(KEY, Comparison(*sets))[NAME]


def law_of(data):
    return data._replace(schema=LAW)


def test_the_share_of_patients_and_of_cells():
    sets = [law_of(simulate(i, 200, noise=n)) for i, n in ((1, 0), (2, 0), (3, 3.0))]
    value = measure(*sets)
    shares = []
    for side, data in zip(Comparison._fields, sets, strict=True):
        table = data.cohort.temporal
        both = table.observed[..., 0] & table.observed[..., 1]
        bad = both & (table.numeric[..., 0] < table.numeric[..., 1] - 6)
        told = value.detail["per_rule"][RULE][side]
        assert told == {
            "patients": bad.any(1).sum(),
            "cells": bad.sum(),
            "applies": both.sum(),
            "share": pytest.approx(bad.sum() / both.sum()),
        }
        shares.append(bad.any(1).mean())
    assert value.value == shares[2] > 3 * value.reference > 0
    assert value.reference == shares[0]
    assert (value.low, value.high) == clopper_pearson(round(200 * shares[2]), 200)
    json.dumps(value._asdict(), allow_nan=False)


def test_enforced_patients_break_no_rule():
    made = enforce_rules(law_of(simulate(3, 100, noise=3.0)))
    value = measure(law_of(simulate(1, 100)), law_of(simulate(2, 100)), made)
    assert value.value == value.low == 0.0


def bounded(upper, values):
    law = Schema(static=(Feature(name="age", kind="numeric", upper=upper),))
    values = np.array(values, float)[:, None]
    table = Table(values, np.zeros((60, 0), int), np.ones((60, 1), bool))
    nothing = empty_table((60, 0), ())
    cohort = make_cohort(table, nothing, np.zeros(60), np.zeros(60))
    return simulate(1, 60)._replace(schema=law, cohort=cohort)


def test_the_bounds_are_those_of_the_real_cohort():
    real, made = bounded(100.0, range(60)), bounded(200.0, range(50, 110))
    value = measure(real, real, made)
    assert value.value == pytest.approx(9 / 60)
    assert list(value.detail["per_rule"]) == ["age in [-inf, 100]"]


def test_a_rule_that_never_applies_has_no_share():
    data = law_of(simulate(1, 60, missing=1.0))
    value = measure(data, data, data)
    assert value.detail["per_rule"][RULE]["train"]["share"] is None


def test_not_defined():
    plain = simulate(1, 60)
    assert measure(plain, plain, plain).reason == NO_RULES
    few = law_of(simulate(1, 20))
    assert "fewer than 50 patients" in measure(few, few, few).reason
