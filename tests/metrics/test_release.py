"""The release gate: policies, verdicts, and who is exposed."""

import math

import jax
import numpy as np
import pytest
from builders import simulate

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Schema,
    Table,
    concatenate,
    make_cohort,
    take,
)
from jaxehr.core.contracts import Comparison, Definition, Result, Scored, Value
from jaxehr.metrics.adversarial import difference
from jaxehr.metrics.attacks import Interval, in_place
from jaxehr.metrics.exposure import beyond, exposure_of, neighbours, share_above
from jaxehr.metrics.release import (
    DIAGNOSTICS,
    bounded,
    check_policy,
    default_policy,
    judge,
)
from jaxehr.registry import METRICS, find
from jaxehr.report import words

NAMES = [
    number
    for family, path in METRICS.items()
    if find(path)().group == "privacy"
    for number in find(path)().names
]
DETAIL = {"reference_interval": [0.1, 0.3], "leaky_generator_caught": True}


def result(name, *numbers, reason="", detail=None):
    value = Value(*numbers, reason=reason, detail=detail or DETAIL)
    return Result(name, "privacy", Definition(name, "", "lower", 0.0), value)


def test_the_default_policy_is_one():
    policy = default_policy()
    assert check_policy(policy, NAMES) is policy
    families = {name for name, p in METRICS.items() if find(p)().group == "privacy"}
    for family in families:
        assert set(find(METRICS[family])().names) & set(policy), family


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], r"p.json: is an object such as .* got \[\]"),
        ({}, "with at least one number; got {}"),
        ({"fid": {"max": 1}}, "unknown number in p.json 'fid'; known: .*mir"),
        ({"mir": 0.1}, "mir: give one or more of max, max_excess, .* got 0.1"),
        ({"mir": {}}, "mir: give one or more of max, max_excess"),
        ({"mir": {"mean": 1}}, "unknown bound of mir in p.json 'mean'; known: max"),
        ({"mir": {"max": "a"}}, 'mir: max must be a number, got "a"'),
        ({"mir": {"max": True}}, "mir: max must be a number, got true"),
        ({"mir": {"max": math.nan}}, "mir: max must be a number, got NaN"),
        ({"mir": {"max_excess": math.inf}}, "max_excess must be a number"),
        *[({n: {"max": 1}}, f"{n} is a diagnostic and no limit") for n in DIAGNOSTICS],
    ],
)
def test_bad_policies_are_refused(content, text):
    with pytest.raises(InputError, match=text) as caught:
        check_policy(content, NAMES, "p.json")
    assert "\n" not in str(caught.value)


def test_unknown_numbers_list_no_diagnostic():
    with pytest.raises(InputError) as caught:
        check_policy({"fid": {"max": 1}}, NAMES)
    assert not any(f" {name}" in str(caught.value) for name in DIAGNOSTICS)


def test_limits_hold_for_the_upper_end():
    results = [result("mir", 0.3, 0.2, 0.25, 0.36)]
    kept, broken = (judge(results, {"mir": {"max": x}})[0] for x in (0.36, 0.35))
    assert kept.passed
    assert kept.reason == ""
    assert not broken.passed
    assert broken.reason == "upper bound 0.36 exceeds 0.35"
    assert broken.reached == 0.36


def test_the_excess_is_a_difference_of_intervals():
    value = result("mir", 0.3, 0.2, 0.25, 0.36).value
    by_hand = difference(Interval(0.3, 0.25, 0.36), Interval(0.2, 0.1, 0.3))
    assert bounded(value, "max_excess") == pytest.approx(by_hand.high)
    verdict = judge(
        [result("mir", 0.3, 0.2, 0.25, 0.36)], {"mir": {"max_excess": 0.22}}
    )
    assert verdict[0].passed
    assert verdict[0].reached == pytest.approx(0.1 + math.hypot(0.06, 0.1))
    assert bounded(value, "max_sure_excess") == pytest.approx(by_hand.low)
    assert by_hand.low == pytest.approx(0.1 - math.hypot(0.05, 0.1))


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ([], "not measured: this attack is made on request only"),
        ([result("mir", None, reason="too few")], "not defined: too few"),
        ([result("mir", 0.0, 0.0)], "no interval, so no upper bound"),
        ([result("mir", 0.0, 0.0, 0.0, math.nan)], "no interval"),
        (
            [
                result(
                    "mir", 0.0, 0.0, 0.0, 0.1, detail={"leaky_generator_caught": 0 > 1}
                )
            ],
            "no power on these data: the attack misses its control too",
        ),
    ],
)
def test_no_evidence_is_no_pass(results, text):
    (verdict,) = judge(results, {"mir": {"max": 1.0}})
    assert not verdict.passed
    assert text in verdict.reason


def test_an_excess_needs_a_reference():
    lone = Value(0.1, None, 0.0, 0.2)
    assert bounded(lone, "max_excess") is None
    assert bounded(lone, "max_sure_excess") is None
    assert bounded(lone, "max") == 0.2


def test_every_bound_is_judged():
    policy = {"mir": {"max": 0.5, "max_excess": 0.05}, "nnaa_loss": {"max": 0.1}}
    results = [
        result("mir", 0.3, 0.2, 0.25, 0.36),
        result("nnaa_loss", 0.0, 0.0, 0.0, 0.1),
    ]
    found = judge(results, policy)
    assert [(v.name, v.bound, v.passed) for v in found] == [
        ("mir", "max", True),
        ("mir", "max_excess", False),
        ("nnaa_loss", "max", True),
    ]


def test_controls_in_place():
    three = [Interval(0.1, 0.0, 0.2), Interval(0.0, -0.1, 0.1), Interval(0.9, 0.8, 1.0)]
    detail = in_place(three, 7, 0.0).detail
    assert detail["leaky_generator_caught"]
    assert not detail["fresh_sample_caught"]
    three[1] = Interval(0.5, 0.05, 0.85)
    detail = in_place(three, 7, 0.0).detail
    assert not detail["leaky_generator_caught"]
    assert detail["fresh_sample_caught"]
    assert "fresh_sample_caught" not in in_place(three, 7).detail
    three[1] = three[1]._replace(chance=0.3)
    assert not in_place(three, 7, 0.0).detail["fresh_sample_caught"]
    assert "leaky_generator" not in in_place([*three[:2], None], 7).detail


def test_exposure_by_hand():
    others = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(
        share_above(np.array([0.0, 2.0, 9.0]), others), [1.0, 0.75, 0.25]
    )
    scored = {
        "a": Scored(np.array([2, 0]), np.array([9.0, 2.0]), others),
        "b": Scored(np.arange(4), np.array([0.0, 9.0, 2.0, 0.0]), others),
    }
    found = exposure_of(scored, 4)
    # Patients 1 and 2 stand out most; the mean over attacks decides between them.
    np.testing.assert_allclose(found.share, [[0.75, 1, 0.25, 1], [1, 0.25, 0.75, 1]])
    np.testing.assert_allclose(found.smallest, [0.75, 0.25, 0.25, 1.0])
    assert found.order.tolist() == [2, 1, 0, 3]
    assert beyond(scored) == {"a": (1, 0.5), "b": (1, 1.0)}


def test_the_nearest_synthetic_patient_of_a_copy_is_itself():
    train = simulate(1, 60)
    real = Comparison(train, simulate(2, 60), train)
    found = neighbours(real, np.array([5, 41]))
    assert found.row.tolist() == [5, 41]
    np.testing.assert_allclose(found.distance, 0.0, atol=1e-6)


def few_columns(seed, count):
    """One integer column: about 6 of 10 people equal one of 300 others."""
    law = Schema(static=(Feature(name="x", kind="integer"),), temporal=(), num_steps=1)
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 300, (count, 1)).astype(float)
    table = Table(values, np.zeros((count, 0), int), np.ones((count, 1), bool))
    nothing = Table(*(np.zeros((count, 1, 0), part.dtype) for part in table))
    cohort = make_cohort(table, nothing, np.ones(count, int), np.zeros(count, int))
    ids = np.arange(count) + 1000 * seed
    return Dataset(law, cohort, ids, ids, {})


@pytest.mark.parametrize(
    ("people", "copied", "passes"),
    [
        (simulate, 0, True),
        (simulate, 12, False),
        (few_columns, 0, True),
        (few_columns, 150, False),
    ],
)
def test_copies_beyond_those_by_chance_break_the_policy(people, copied, passes):
    train, held, fresh = people(1, 300), people(2, 150), people(3, 300)
    rows = [take(train, np.arange(copied)), take(fresh, np.arange(300 - copied))]
    made = fresh._replace(cohort=concatenate([part.cohort for part in rows]))
    metric = find(METRICS["copies"])()
    found = metric.run(jax.random.key(0), Comparison(train, held, made))["exact_copies"]
    assert (found.reference > 0.5) == (people is few_columns)
    results = [Result("exact_copies", "privacy", metric.names["exact_copies"], found)]
    (verdict,) = judge(results, {"exact_copies": default_policy()["exact_copies"]})
    assert verdict.passed == passes, verdict
    told = words.copies_sentence(results)
    assert found.detail["count"] >= copied
    if copied:
        assert told.startswith(f"{found.detail['count']} of 300 synthetic patients eq")
    assert bool(told) == (found.value > found.reference)
    assert ("chance" in told) == (bool(told) and not copied)
    assert words.attacks(results) == []  # no attack was made
