"""Attacks that look into the model: what remembers is caught, what does not is not."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from builders import simulate
from model_builders import Toy

from jaxehr.core.contracts import Comparison
from jaxehr.metrics.evaluate import MetricConfig, run_metrics
from jaxehr.metrics.model_loss import NO_CONTROL, membership_loss, suspicion
from jaxehr.metrics.people import numbered
from jaxehr.metrics.shadows import (
    Shadows,
    deal,
    fisher,
    fit_pairs,
    from_counts,
    leave_out,
    likelihood_ratio,
    membership_shadow,
    rows_inside,
)

KEY = jax.random.key(3)
WORK = MetricConfig(
    loss_levels=4, loss_repeats=1, control_steps=9, shadows=8, resamples=20
)
COUNT = 160
REAL = Comparison(*(simulate(seed, COUNT) for seed in (1, 2, 3)))
LEARNED = np.arange(COUNT) % 10 > 0
ATTACKS = {"loss": membership_loss, "shadow": membership_shadow}


def attack(name, memory=0.0, keep=None, toy=None, key=KEY):
    toy = toy or Toy(memory)
    model = toy.attacked(REAL.train.cohort, LEARNED)
    return ATTACKS[name](WORK).run(key, REAL, model=model, keep=keep)


@pytest.fixture(scope="module", params=ATTACKS)
def caught(request):
    return attack(request.param, memory=3.0)


@pytest.fixture(scope="module", params=ATTACKS)
def calm(request):
    return attack(request.param)


def test_a_model_that_remembers_is_caught(caught):
    for name, value in caught.items():
        assert value.low > value.detail["reference_interval"][1], name
        assert value.detail["leaky_generator_caught"], name
        assert not value.detail["fresh_sample_caught"], name


def test_a_model_that_does_not_is_not(calm):
    for name, value in calm.items():
        level = 0.5 if name.endswith("auroc") else 0.02
        assert value.low <= level, name
        assert value.low <= value.value <= value.high, name
        # The control overfits whatever the model does.
        assert value.detail["leaky_generator_caught"], name
        json.dumps(value._asdict(), allow_nan=False)


def test_without_overfitting_the_control_is_missed():
    found = attack("loss", toy=Toy(0.0, overfits=False))
    assert not any(v.detail["leaky_generator_caught"] for v in found.values())


@pytest.mark.parametrize("name", ATTACKS)
def test_false_alarms_are_at_their_rate(name):
    # 95 % intervals, 12 times: 4 misses have probability 0.002.
    missed, which = 0, f"membership_{name}_auroc"
    for seed in range(12):
        key = jax.random.key(seed)
        sets = Comparison(*(simulate(10 * seed + i, 100) for i in (20, 21, 22)))
        model = Toy().attacked(sets.train.cohort, np.ones(100, bool))
        value = ATTACKS[name](WORK).run(key, sets, model=model)[which]
        missed += not value.low <= 0.5 <= value.high
    assert missed < 4


@pytest.mark.parametrize("name", ATTACKS)
def test_members_are_those_who_were_learned_from(name):
    kept = []
    attack(name, memory=3.0, keep=kept.append)
    (scored,) = kept
    np.testing.assert_array_equal(np.sort(scored.rows), np.flatnonzero(LEARNED))
    assert len(scored.members) == len(scored.rows)
    assert np.median(scored.members) > np.median(scored.others)


def test_no_number_depends_on_whether_all_are_ranked():
    few = dataclasses.replace(WORK, pooled_rows=60)
    model, kept = Toy(0.5).attacked(REAL.train.cohort, LEARNED), []
    run = membership_loss(few).run
    without = run(KEY, REAL, model=model)
    assert run(KEY, REAL, model=model, keep=kept.append) == without
    assert len(kept[0].members) == LEARNED.sum()
    assert len(kept[0].others) == 60
    assert without["membership_loss_auroc"].detail["records"] == 60


@pytest.mark.parametrize("name", ATTACKS)
def test_equal_keys_give_equal_numbers(name):
    one, two, other = (attack(name, 0.5, key=jax.random.key(k)) for k in (1, 1, 2))
    assert one == two
    assert one != other


def test_shadow_models_that_diverge_give_no_number():
    toy = Toy(1.0)
    fit = toy.fit_many
    diverged = lambda params: params | {"memory": np.nan}
    toy.fit_many = lambda *args, **options: [diverged(p) for p in fit(*args, **options)]
    for value in attack("shadow", toy=toy).values():
        assert value.value is None
        assert value.reason == "a shadow model diverged"


def test_the_control_learns_from_few_for_long():
    toy = Toy(1.0)
    attack("loss", toy=toy)
    ((rows, valid, steps),) = toy.trained
    assert rows.shape == (1, 64)
    assert LEARNED[rows].all()
    assert (valid, steps) == (None, 9)


def test_shadow_models_learn_from_halves_of_both_cohorts():
    toy = Toy(1.0)
    attack("shadow", toy=toy)
    (rows, valid, steps), (few, none, long) = toy.trained
    pool = np.concatenate([np.flatnonzero(LEARNED), COUNT + np.arange(COUNT)])
    assert rows.shape == (8, len(pool) // 2)
    for one, other in rows.reshape(4, 2, -1):
        np.testing.assert_array_equal(np.sort([*one, *other]), pool)
    np.testing.assert_array_equal(valid, np.flatnonzero(~LEARNED))
    assert steps == 0
    assert few.shape == (8, 64)
    assert LEARNED[few].all()
    assert (none, long) == (None, 9)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_cannot_be_attacked_says_why(name):
    run = ATTACKS[name](WORK).run
    blind = Toy().attacked(REAL.train.cohort, LEARNED)
    without = blind._replace(model=blind.model._replace(losses=None))
    few = blind._replace(learned=np.arange(COUNT) < 49)
    small = Comparison(REAL.train, simulate(2, 49), REAL.synthetic)
    for real, model, text in (
        (REAL, without, "this kind of model has no losses of single patients"),
        (REAL, few, "the model learned from fewer than 50 patients"),
        (small, blind, "fewer than 50 patients in one of the data sets (49)"),
    ):
        for value in run(KEY, real, model=model).values():
            assert value.value is None
            assert value.reason == text


def test_a_model_that_is_trained_alone_has_no_control_and_no_shadows():
    model = Toy(3.0).attacked(REAL.train.cohort, LEARNED, together=False)
    found = membership_loss(WORK).run(KEY, REAL, model=model)
    for name, value in found.items():
        assert value.low > value.reference, name
        assert "leaky_generator_caught" not in value.detail
        assert value.detail["control"] == NO_CONTROL
    for value in membership_shadow(WORK).run(KEY, REAL, model=model).values():
        assert "cannot train shadow models together" in value.reason


def test_without_a_model_nothing_is_defined():
    metrics = {name: factory(WORK) for name, factory in ATTACKS.items()}
    for model, text in (
        ({}, "no model was given"),
        ({"model": "trained on another cohort"}, "trained on another cohort"),
    ):
        for result in run_metrics(KEY, REAL, metrics, **model):
            assert result.value.value is None
            assert result.value.reason == text


def test_no_third_is_judged_by_itself():
    """Labels drawn at random say nothing, however many columns there are."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        members, others = suspicion(rng, *rng.normal(size=(2, 60, 20)))
        found.append((members[:, None] > others).mean())
    # Standard deviation of one: (2 / (12 * 60))^1/2 = 0.053.
    assert abs(np.mean(found) - 0.5) < 4 * 0.053 / 20**0.5
    assert np.std(found) < 1.6 * 0.053
    shift = np.zeros(20)
    shift[3] = 2.0
    members, others = suspicion(
        rng, rng.normal(size=(90, 20)) - shift, rng.normal(size=(60, 20))
    )
    assert (members[:, None] > others).mean() > 0.8


def test_people_are_dealt_out_whole():
    person = np.repeat(np.arange(31), 2)
    inside = deal(np.random.default_rng(0), person, 8)
    np.testing.assert_array_equal(inside[::2], ~inside[1::2])
    np.testing.assert_array_equal(inside[:, ::2], inside[:, 1::2])
    assert (inside.sum(1) == [30, 32] * 4).all()
    rows = rows_inside(inside)
    assert rows.shape == (8, 32)
    for row, side in zip(rows, inside, strict=True):
        np.testing.assert_array_equal(np.unique(row), np.flatnonzero(side))
    assert numbered(np.array(["c", "a", "c", "b"])).tolist() == [0, 1, 0, 2]


def shadows_of(rng, gap, count=300, models=8):
    """Losses of two levels; only the first tells, and the second is half of it."""
    inside = deal(rng, np.arange(count), models)
    hard = 2 * rng.normal(size=(1, count, 2))
    noise = rng.normal(size=(models, count, 2))
    noise[..., 1] += noise[..., 0]
    noise[..., 0] -= gap * inside
    return Shadows(hard + noise, inside)


def test_fishers_direction_and_the_likelihood_ratio_by_formula():
    rng = np.random.default_rng(1)
    shadows = shadows_of(rng, 1.0, count=4000)
    # C = [[1, 1], [1, 2]], mean (-1, 0): C^-1 mean = (-2, 1).
    np.testing.assert_allclose(fisher(shadows), [-2.0, 1.0], atol=0.06)
    fit = fit_pairs(shadows)
    # y = -2 a + (b + a) = b - a + ...: variance (2, -1) C (2, -1)' = 2, gap 2.
    assert fit.variance == pytest.approx(2.0, rel=0.05)
    np.testing.assert_allclose(fit.gap.mean(), 2.0, atol=0.06)
    assert fit.gap.std() < 0.4  # shrunk: unshrunk (2 * 2 / 4)^1/2 = 1
    score = likelihood_ratio(fit, shadows.losses[0])
    y = shadows.losses[0] @ fit.weight
    a, b = fit.middle + fit.gap / 2, fit.middle - fit.gap / 2
    by_laws = ((y - b) ** 2 - (y - a) ** 2) / (2 * fit.variance)
    np.testing.assert_allclose(score, by_laws, rtol=1e-9)


def test_a_shadow_model_is_attacked_with_the_others_only():
    rng = np.random.default_rng(2)
    shadows = shadows_of(rng, 1.0)
    scores, members = leave_out(shadows)
    np.testing.assert_array_equal(members, shadows.inside)
    changed = shadows.inside.copy()
    changed[:2] = ~changed[:2]
    again, _ = leave_out(Shadows(shadows.losses, changed))
    np.testing.assert_array_equal(again[:2], scores[:2])
    assert (again[2:] != scores[2:]).all()
    # With an ideal boundary d' = gap / deviation = 2^1/2: AUROC = Phi(1) = 0.84.
    area = np.mean([(s[m][:, None] > s[~m]).mean() for s, m in zip(scores, members)])
    assert 0.76 < area < 0.85
    crossed, strangers = leave_out(shadows, 1)
    np.testing.assert_array_equal(strangers[:2], shadows.inside[2:4])
    area = np.mean([(s[m][:, None] > s[~m]).mean() for s, m in zip(crossed, strangers)])
    # Eight models of 300 patients: standard deviation about (1 / (6 * 150 * 8))^1/2.
    assert abs(area - 0.5) < 4 * 0.012


def test_numbers_of_counts_by_hand():
    # Scores 1 ... 4: one member each at 4 and 2, others at 3 and 1.
    positive, negative = np.array([0, 1, 0, 1]), np.array([1, 0, 1, 0])
    np.testing.assert_allclose(from_counts(positive, negative), [0.0, 0.75, 0.5])
    # One of 100 others beside all members: half of the 200 are 100 of these 101.
    many = np.array([0, 0, 100]), np.array([98, 1, 1])
    np.testing.assert_allclose(from_counts(*many), [99 / 101, 0.995, 1.0])
    # Two of 100 are more than 1 %.
    many = np.array([0, 0, 100]), np.array([98, 0, 2])
    np.testing.assert_allclose(from_counts(*many), [98 / 102, 0.99, 0.0])
