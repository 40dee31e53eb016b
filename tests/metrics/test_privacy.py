"""Every attack: a copy is caught, strangers are not; order, gaps, few patients."""

import json

import jax
import numpy as np
import pytest
from builders import schema, simulate, sparse_pair

from jaxehr.core.cohort import concatenate, make_cohort, take
from jaxehr.core.contracts import Comparison, Result
from jaxehr.metrics.evaluate import comparison
from jaxehr.metrics.membership import clopper_pearson
from jaxehr.metrics.release import default_policy, judge
from jaxehr.metrics.singling import chance_of, share_of, together
from jaxehr.registry import METRICS, find

KEY = jax.random.key(0)
FAMILIES = (
    "membership_hamming",
    "membership_cosine",
    "membership_domias",
    "nnaa",
    "mir",
    "attribute_inference",
    "linkability",
    "singling_out",
    "copies",
)
SPARSE = [name for name in FAMILIES if find(METRICS[name])().sparse]
CALM = ("nnaa_holdout",)  # says nothing about training patients
TURNED = ("nnaa_train", "nndr")  # small for a copy
COUNT = 300


def train():
    return simulate(1, COUNT)


def holdout():
    return simulate(2, COUNT)


def measure(name, *sets, key=KEY):
    return find(METRICS[name])().run(key, Comparison(*sets))


@pytest.fixture(scope="module")
def copied():
    every = {}
    for name in FAMILIES:
        every |= measure(name, train(), holdout(), train())
    return every


@pytest.fixture(scope="module")
def strangers():
    every = {}
    for name in FAMILIES:
        every |= measure(name, train(), holdout(), simulate(3, COUNT))
    return every


def test_a_copy_is_caught_by_every_attack(copied):
    for name, value in copied.items():
        if name in CALM:
            continue
        if name in TURNED:
            assert value.high < value.reference, name
        else:
            assert value.low > value.reference, name
            assert value.low > value.detail["reference_interval"][1], name


def test_copies_reach_the_end_of_the_scale(copied):
    for name in ("membership_cosine_auroc", "membership_domias_tpr", "mir_common"):
        assert copied[name].value == pytest.approx(1.0)
    assert copied["nnaa_train"].value == 0.0
    assert copied["exact_copies"].value == copied["dcr_share"].value == 1.0
    assert copied["attribute_inference_success"].value == pytest.approx(1.0)


def test_strangers_lie_within_the_interval(strangers):
    for name, value in strangers.items():
        low, high = value.detail["reference_interval"]
        if name in TURNED:
            low, high = value.reference, np.inf
            assert value.high >= low, name
        assert value.low <= high, name


def test_the_control_is_caught_in_every_report(strangers):
    for name, value in strangers.items():
        if name not in CALM:
            assert value.detail["leaky_generator_caught"], name


def test_a_fresh_sample_is_not_caught(copied, strangers):
    """The number of alarms is that of 2.5 % each; the sets share their reference."""
    flags = [
        value.detail["fresh_sample_caught"]
        for found in (copied, strangers)
        for value in found.values()
        if "fresh_sample_caught" in value.detail
    ]
    assert len(flags) >= 30
    assert sum(flags) <= 4
    for family in FAMILIES:
        names = find(METRICS[family])().names
        assert any("fresh_sample_caught" in strangers[name].detail for name in names)


def test_numbers_fit_into_a_report(strangers):
    for name, value in strangers.items():
        assert np.isfinite([*value[:4]]).all(), name
        assert value.low <= value.value <= value.high, name
        json.dumps(value.detail)


def test_false_alarms_are_at_their_rate():
    # Fifteen fresh samples: 95 % intervals around no advantage, so 3 misses have
    # probability 0.04 and 5 have 0.0006.
    missed = 0
    for seed in range(15):
        sets = [simulate(100 + 10 * seed + i, 100) for i in range(3)]
        found = measure("membership_cosine", *sets, key=jax.random.key(seed))
        value = found["membership_cosine_advantage"]
        missed += not value.low <= 0 <= value.high
    assert missed < 5


@pytest.mark.parametrize("name", ["membership_domias", "mir", "singling_out"])
def test_the_more_copies_the_larger_the_leak(name):
    found, fresh = [], simulate(3, COUNT)
    for share in (0, COUNT // 2, COUNT):
        rows = np.arange(COUNT)
        parts = [take(train(), rows[:share]), take(fresh, rows[share:])]
        mixed = fresh._replace(cohort=concatenate([p.cohort for p in parts]))
        values = measure(name, train(), holdout(), mixed)
        found.append(next(iter(values.values())).value)
    assert found[0] < found[1] < found[2]


def of_one_study(made):
    """400 training and 100 hold-out patients, as by the default split."""
    return simulate(1, 400), simulate(2, 100), made


@pytest.mark.parametrize(
    "number",
    [
        "singling_out_univariate_advantage",
        "singling_out_multivariate_advantage",
        "nnaa_loss",
    ],
)
def test_a_copied_release_breaks_the_policy_though_few_are_held_out(number):
    name = number.split("_")[0] if "nnaa" in number else "singling_out"
    limit = default_policy()[number]
    for made, copied in ((simulate(1, 400), True), (simulate(3, 400), False)):
        sets = of_one_study(made)
        value = measure(name, *sets)[number]
        assert value.detail["leaky_generator_caught"]
        assert (value.low > limit["max"]) == copied
        result = Result(number, "privacy", find(METRICS[name])().names[number], value)
        (verdict,) = judge([result], {number: limit})
        assert verdict.passed != copied, value


@pytest.mark.parametrize("kind", ["univariate", "multivariate"])
def test_singling_out_by_chance_is_no_leak(kind):
    """Whatever the number of synthetic patients, on 80 and 20 % of the people."""
    missed, found = 0, []
    for seed in range(12):
        sizes = (200, 50, (50, 200, 600)[seed % 3])
        sets = [simulate(200 + 10 * seed + i, n) for i, n in enumerate(sizes)]
        key, name = jax.random.key(seed), f"singling_out_{kind}_advantage"
        value = measure("singling_out", *sets, key=key)[name]
        missed += not value.low <= 0 <= value.high
        found.append(value.value)
    assert missed < 4  # of 12 at 5 %: probability 0.002
    # Means of four hold-out patients each that fit: standard deviation below 0.07
    assert abs(np.mean(found)) < 4 * 0.07 / 12**0.5


def test_conditions_on_one_person_count_as_one():
    assert together([]) == 1.0
    assert together([3, 4, 5]) == 1.0
    assert together([7] * 6) == 6.0
    assert together([1, 1, 2, 2]) == 2.0
    alone, several = (share_of(p, 100) for p in (range(20), [0] * 20))
    assert alone[0] == several[0] == 0.2
    assert alone[:3] == (0.2, *clopper_pearson(20, 100))
    assert several[1:3] == clopper_pearson(1, 5)
    found = chance_of(list(range(4)), 100, 5.0)
    assert found.value == pytest.approx(0.2)
    # The exact interval of a Poisson number 4: 1.09 to 10.24
    np.testing.assert_allclose(found[1:3], [0.0545, 0.512], rtol=2e-3)
    assert chance_of([], 100, 5.0)[:2] == (0.0, 0.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_order_of_rows_plays_no_part(name):
    sets = train(), simulate(3, COUNT), holdout()
    mixed = [
        take(data, np.random.default_rng(i).permutation(COUNT))
        for i, data in enumerate(sets)
    ]
    run = find(METRICS[name])().run
    one, other = (run(KEY, comparison(*group)) for group in (sets, mixed))
    for number in one:
        assert one[number][:4] == other[number][:4]


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_to_compare_has_a_reason(name):
    data = simulate(1, 60, schema(label=False), ragged=False)
    for kept in (False, True):
        static, temporal = data.cohort.static, data.cohort.temporal
        if kept:  # observed and equal everywhere
            flat = lambda t: t._replace(
                numeric=t.numeric * 0 + 5,
                codes=t.codes * 0,
                observed=np.ones_like(t.observed),
            )
        else:
            flat = lambda t: t._replace(observed=np.zeros_like(t.observed))
        cohort = make_cohort(
            flat(static), flat(temporal), data.cohort.length, data.cohort.label * 0
        )
        same = data._replace(cohort=cohort)
        found = measure(name, same, same, same)
        for number, value in found.items():
            if number != "exact_copies":
                assert value.value is None
                assert "no " in value.reason
                assert "\n" not in value.reason


@pytest.mark.parametrize("name", FAMILIES)
def test_one_empty_and_one_constant_column_are_borne(name):
    sets = []
    for seed in (1, 2, 3):
        data = simulate(seed, 120)
        temporal = data.cohort.temporal
        seen, numeric = temporal.observed.copy(), temporal.numeric.copy()
        seen[..., 0], numeric[..., 1] = False, 7.0
        table = temporal._replace(observed=seen, numeric=numeric)
        fixed = data.cohort.static
        blank = fixed.observed.copy()
        blank[:, 0] = False
        cohort = make_cohort(
            fixed._replace(observed=blank),
            table,
            data.cohort.length,
            data.cohort.label,
        )
        sets.append(data._replace(cohort=cohort))
    for number, value in measure(name, *sets).items():
        assert value.value is not None or value.reason, number
        if value.value is not None:
            assert np.isfinite([*value[:4]]).all(), number


@pytest.mark.parametrize("name", FAMILIES)
def test_fewer_than_fifty_patients_give_one_line(name):
    few = simulate(3, 49)
    for value in measure(name, train(), holdout(), few).values():
        assert value.value is None
        assert value.reason == ("fewer than 50 patients in one of the data sets (49)")


@pytest.mark.parametrize("name", SPARSE)
def test_a_sparse_table_gives_the_same(name):
    pairs = [sparse_pair(seed, 100) for seed in (1, 2, 3)]
    one, other = (measure(name, *(pair[i] for pair in pairs)) for i in (0, 1))
    for number in one:
        a, b = one[number], other[number]
        assert a.reason == b.reason
        if a.value is not None:
            np.testing.assert_allclose(a[:4], b[:4], atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_definitions_say_who_attacks(name):
    metric = find(METRICS[name])()
    assert metric.group == "privacy"
    texts = [d.text for d in metric.names.values()]
    if name == "copies":
        assert all("A diagnostic only" in text for text in texts)
    else:
        assert any("Threat model" in text for text in texts)
