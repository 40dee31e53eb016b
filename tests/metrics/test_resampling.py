"""Paired intervals: coverage, persons, trainings, several classes."""

import numpy as np
import pytest
from builders import simulate
from sklearn.metrics import roc_auc_score

from jaxehr.metrics.resampling import (
    FEW_PERSONS,
    MIN_PERSONS,
    Trial,
    auroc,
    draw_persons,
    ends,
    mean_training,
    measured,
    one_vs_rest,
    scores,
    trial,
)

RNG = np.random.default_rng(0)


def test_one_vs_rest_is_scikit_learns_and_leaves_out_absent_classes():
    label, chance = RNG.integers(0, 3, 200), RNG.dirichlet([1, 1, 1], 200)
    once = np.ones((1, 200))
    expected = roc_auc_score(label, chance, multi_class="ovr", average="macro")
    np.testing.assert_allclose(one_vs_rest(auroc, label, chance, once), expected)
    kept = label < 2
    expected = np.mean(
        [roc_auc_score(label[kept] == k, chance[kept, k]) for k in (0, 1)]
    )
    found = one_vs_rest(auroc, label[kept], chance[kept], once[:, kept])
    np.testing.assert_allclose(found, expected)
    # a draw that lacks class 2 counts the others; one with a single class is undefined
    draws = np.stack([np.where(label < 2, 1, 0), np.where(label < 1, 1, 0)])
    both, alone = one_vs_rest(auroc, label, chance, draws)
    np.testing.assert_allclose(both, expected)
    assert np.isnan(alone)


def test_the_stays_of_a_person_are_drawn_together_whatever_they_are_called():
    data = simulate(0, 60)
    data = data._replace(groups=np.arange(60) // 2)
    draws = draw_persons(np.random.default_rng(0), data, 30)
    assert draws.shape == (31, 60)
    np.testing.assert_array_equal(draws[0], 1)
    np.testing.assert_array_equal(draws[:, ::2], draws[:, 1::2])
    np.testing.assert_array_equal(draws[1:].sum(1), 60)
    other = data._replace(groups=np.char.add("p", (99 - data.groups).astype(str)))
    again = draw_persons(np.random.default_rng(0), other, 30)
    np.testing.assert_array_equal(draws, again)


@pytest.mark.parametrize("trainings", [2, 5])
def test_the_mean_of_drawn_trainings_varies_as_the_mean_of_all_does(trainings):
    """Var of the mean = s^2 / S, s^2 with S - 1 in its denominator."""
    tested = trial(np.random.default_rng(1), simulate(0, 60), trainings, 4000)
    values = RNG.normal(size=trainings)
    found = mean_training(tested, np.tile(values[None, :, None], (1, 1, 4001)))
    np.testing.assert_allclose(found[0], values.mean())
    expected = values.var(ddof=1) / trainings
    # 4000 draws: the standard error of a variance is sqrt(2 / 4000) = 2 %, times 3
    np.testing.assert_allclose(found[1:].var(), expected, rtol=0.07)


def test_the_width_of_an_interval_is_that_of_mann_whitney():
    label, score = np.arange(400) % 2, RNG.random(400)
    chance = np.stack([1 - score, score], -1)[None, None]
    data = simulate(0, 400)
    data = data._replace(cohort=data.cohort._replace(label=label))
    tested = trial(np.random.default_rng(2), data, 1, 400)
    low, high = ends(mean_training(tested, scores(auroc, tested, chance))[1:])
    expected = 2 * 1.96 * np.sqrt((400 + 1) / (12 * 200 * 200))
    np.testing.assert_allclose(high - low, expected, rtol=0.15)


def law(rng, count):
    """Label and the signal that both sides see."""
    label = rng.integers(0, 2, count)
    return label, label + rng.normal(size=count)


def predictions(rng, signal, trainings, noise):
    """Chances [1, S, M, 2] of trainings that weigh noise by a factor of their own."""
    spread = noise + 0.3 * rng.random(trainings)
    score = signal + spread[:, None] * rng.normal(size=(trainings, len(signal)))
    chance = 1 / (1 + np.exp(-score))
    return np.stack([1 - chance, chance], -1)[None]


def test_paired_intervals_cover_the_true_difference_at_their_rate():
    """200 simulated studies of 4 trainings; the truth from many of both."""
    rng, hits, widths = np.random.default_rng(3), [], []
    label, signal = law(rng, 20_000)
    area = lambda p: np.mean([roc_auc_score(label, one[:, 1]) for one in p[0]])
    real, synthetic = (predictions(rng, signal, 30, noise) for noise in (0.3, 0.8))
    truth = area(real) - area(synthetic)
    for _ in range(200):
        label_held, signal = law(rng, 200)
        sides = [predictions(rng, signal, 4, noise) for noise in (0.3, 0.8)]
        data = simulate(0, 200)
        data = data._replace(cohort=data.cohort._replace(label=label_held))
        tested = trial(rng, data, 4, 200)
        a, b = (mean_training(tested, scores(auroc, tested, p)) for p in sides)
        low, high = ends((a - b)[1:])
        hits.append(low <= truth <= high)
        widths.append([high - low, np.diff(ends(a[1:]))[0] + np.diff(ends(b[1:]))[0]])
    # binomial: 0.95 +- 3 sqrt(0.95 0.05 / 200) = 0.904 to 0.996
    assert 0.904 <= np.mean(hits) <= 0.996
    paired, apart = np.mean(widths, axis=0)  # the interval, and both unpaired ones
    assert paired < 0.5 * apart


def test_values_that_are_no_number_carry_the_reason():
    assert measured(np.array([np.nan, 1.0]), 0.5, "why").reason == "why"
    value = measured(np.array([0.5, np.nan]), float("nan"), "why")
    assert (value.value, value.reference, value.low) == (0.5, None, None)


def test_of_few_persons_of_a_class_there_are_no_draws_and_no_interval():
    """As the draws would hold the same few; with one person 80 % of intervals miss."""
    data = simulate(0, 60)
    for events, drawn in ((1, False), (MIN_PERSONS - 1, False), (MIN_PERSONS, True)):
        label = (np.arange(60) < events).astype(int)
        few = data._replace(cohort=data.cohort._replace(label=label))
        tested = trial(RNG, few, 1, 20)
        assert tested.drawn == drawn
        chance = predictions(RNG, label + RNG.normal(size=60), 1, 1.0)
        area = mean_training(tested, scores(auroc, tested, chance))
        value = measured(area, 0.5, "why", {"rows": 60})
        assert 0 < value.value <= 1
        assert (value.low is None) == (not drawn)
        why = {} if drawn else {"no_interval": FEW_PERSONS}
        assert value.detail == {"rows": 60} | why
    # ten stays of five persons
    two = few._replace(groups=np.arange(60) // 2)
    assert not trial(RNG, two, 1, 20).drawn


def test_a_part_of_a_trial_keeps_its_draws():
    tested = trial(np.random.default_rng(0), simulate(0, 60), 2, 3)
    part = tested.of(np.arange(60) < 20)
    assert isinstance(part, Trial)
    np.testing.assert_array_equal(part.patients, tested.patients[:, :20])
