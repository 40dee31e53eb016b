"""The release gate: policies, verdicts, and who is exposed."""

import math

import numpy as np
import pytest
from builders import simulate

from jaxehr.core.checks import InputError
from jaxehr.core.contracts import Comparison, Definition, Result, Scored, Value
from jaxehr.metrics.adversarial import difference
from jaxehr.metrics.attacks import Interval, in_place
from jaxehr.metrics.exposure import beyond, exposure_of, neighbours, share_above
from jaxehr.metrics.release import (
    DIAGNOSTICS,
    check_policy,
    default_policy,
    judge,
    upper_bound,
)
from jaxehr.registry import METRICS, find

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
    for family in families - {"copies"}:
        assert set(find(METRICS[family])().names) & set(policy), family


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], r"p.json: is an object such as .* got \[\]"),
        ({}, "with at least one number; got {}"),
        ({"fid": {"max": 1}}, "unknown number in p.json 'fid'; known: .*mir"),
        ({"mir": 0.1}, "mir: give max, max_excess or both, .* got 0.1"),
        ({"mir": {}}, "mir: give max, max_excess or both"),
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
    assert upper_bound(value, "max_excess") == pytest.approx(by_hand.high)
    verdict = judge(
        [result("mir", 0.3, 0.2, 0.25, 0.36)], {"mir": {"max_excess": 0.22}}
    )
    assert verdict[0].passed
    assert verdict[0].reached == pytest.approx(0.1 + math.hypot(0.06, 0.1))


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
    assert upper_bound(lone, "max_excess") is None
    assert upper_bound(lone, "max") == 0.2


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
