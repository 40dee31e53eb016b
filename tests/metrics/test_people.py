"""The stays of one person stay together; references are of as many patients."""

import jax
import numpy as np
import pytest
from builders import schema, simulate

from jaxehr.core.cohort import concatenate, take
from jaxehr.core.contracts import Attacked, Comparison
from jaxehr.metrics import people
from jaxehr.metrics.adversarial import nnaa
from jaxehr.metrics.attacks import roles_of
from jaxehr.metrics.discriminability import draw_pair
from jaxehr.metrics.evaluate import MetricConfig, run_metrics
from jaxehr.metrics.fidelity import GROUPS, groups_of
from jaxehr.metrics.inference import attribute_inference
from jaxehr.metrics.model_loss import in_two, pool_of
from jaxehr.metrics.nearest_membership import membership_cosine, membership_domias
from jaxehr.metrics.people import (
    People,
    as_many,
    cut,
    halfway,
    halves,
    mixed,
    numbered,
    one_each,
)
from jaxehr.metrics.singling import Sides, rates
from jaxehr.registry import METRICS, find

KEY = jax.random.key(0)


def generator(seed=0):
    return np.random.default_rng(seed)


def stays(seed, people, each, **law):
    """`each` equal stays of every person."""
    data = simulate(seed, people, **law)
    data = take(data, np.repeat(np.arange(people), each))
    return data._replace(ids=np.arange(people * each) + 10**6 * seed)


def test_people_are_numbered_in_the_order_they_come():
    assert numbered(np.array(["c", "a", "c", "b"])).tolist() == [0, 1, 0, 2]
    assert numbered(np.array([])).tolist() == []


def test_rows_of_single_stays_are_a_plain_permutation():
    person = np.arange(50) + 7
    rows = mixed(generator(3), person)
    np.testing.assert_array_equal(rows, generator(3).permutation(50))


def test_stays_are_side_by_side_and_cut_between_people():
    person = np.array(list("abacbdaeef"))
    rows = mixed(generator(), person)
    assert sorted(rows) == list(range(10))
    changes = np.count_nonzero(person[rows][1:] != person[rows][:-1])
    assert changes == 5  # six people, each in one piece
    one, other = halves(generator(), person)
    assert not set(person[one]) & set(person[other])
    assert sorted([*one, *other]) == list(range(10))
    assert cut(np.array(list("aaaab")), 2) == 4
    assert cut(np.array(list("abbbb")), 0) == 1
    assert cut(np.array(list("aaaa")), 2) == 2
    assert cut(np.arange(9), 4) == 4
    assert one_each(person, np.array([6, 2, 9, 0, 5])).tolist() == [6, 9, 5]


def test_one_person_with_most_stays_leaves_people_on_both_sides():
    person = np.concatenate([np.zeros(90, int), np.arange(1, 11)])
    for seed in range(10):
        sizes = [
            np.unique(person[rows]).size for rows in halves(generator(seed), person)
        ]
        assert sizes == [5, 6]
    assert halfway(np.arange(9)) == 4
    assert halfway(np.array(list("abbb"))) == 1
    assert halfway(np.array(list("aaaa"))) == 2


def test_groups_of_the_bootstrap_hold_whole_people():
    person = np.repeat(np.arange(250), 3)
    group = groups_of(generator(), person).reshape(250, 3)
    assert (group == group[:, :1]).all()
    counts = np.bincount(group[:, 0], minlength=GROUPS)
    assert set(counts) == {2, 3}


def test_an_interval_over_equal_stays_is_that_of_the_people():
    width = []
    for each in (1, 4):
        sets = [stays(i, 200, each) for i in (1, 2, 3)]
        value = find(METRICS["tvd"])(MetricConfig(resamples=200))
        value = value.run(KEY, Comparison(*sets))["tvd"]
        width.append(value.high - value.low)
    # Four times the stays and no person more; as stays they would halve it.
    assert width[1] > 0.85 * width[0]


def test_attacks_ask_one_stay_of_people_who_are_not_fresh():
    real = Comparison(*(stays(i, 60, 3) for i in (1, 2, 3)))
    roles = roles_of(generator(), real, 5000)
    held, train = real.holdout.groups, real.train.groups
    assert len(roles.members) == len(roles.others) == 30
    assert len(np.unique(train[roles.members])) == 30
    assert len(np.unique(held[roles.others])) == 30
    assert not np.intersect1d(held[roles.others], held[roles.fresh]).size
    before, after = np.split(held[roles.fresh], [roles.middle])
    assert not np.intersect1d(before, after).size
    assert abs(len(before) - len(after)) <= 3


def test_accuracy_counts_people():
    real = Comparison(*(stays(i, 60, 3) for i in (1, 2, 3)))
    for value in nnaa().run(KEY, real).values():
        assert value.detail["records"] == 60


@pytest.mark.parametrize("kind", ["univariate", "multivariate"])
def test_singling_out_counts_people(kind):
    """Equal stays beside the first change nothing."""
    rows = [generator(i).normal(size=(n, 6)) for i, n in enumerate((80, 120, 40))]
    found = []
    for each in (1, 3):
        seen, train, held = rows
        real = (
            People(np.repeat(x, each, 0), np.repeat(np.arange(len(x)), each))
            for x in (train, held)
        )
        found.append(rates(generator(5), kind, Sides(seen, *real)))
    assert found[0][0].value > 0
    assert found[0] == found[1]


def test_many_stays_of_few_people_are_few_patients():
    real = Comparison(stays(1, 49, 2), simulate(2, 60), simulate(3, 60))
    for value in membership_cosine().run(KEY, real).values():
        assert value.reason == "fewer than 50 patients in one of the data sets (49)"


def test_the_stays_of_hold_out_people_are_no_leak():
    """Everybody has a twin: one who is asked about and one whom the attacker knows."""
    found = []
    for seed in range(6):
        sets = [stays(10 * seed + i, 80, 2) for i in (1, 2, 3)]
        value = membership_domias().run(jax.random.key(seed), Comparison(*sets))
        found.append(value["membership_domias_auroc"].value)
    # 40 against 40: standard deviation 0.065
    assert abs(np.mean(found) - 0.5) < 4 * 0.065 / 6**0.5


def test_nobody_is_in_the_training_and_the_test_of_a_classifier():
    people = [np.repeat(np.arange(60), 2), np.repeat(np.arange(30), 3), np.arange(90)]
    owner = np.concatenate([p + 1000 * i for i, p in enumerate(people)])
    for learn, test in draw_pair(generator(), people, 90):
        assert not np.intersect1d(owner[learn], owner[test]).size
        assert (len(learn), len(test)) == (2 * 63, 2 * 27)


def test_halves_of_the_hold_out_share_no_one():
    real = Comparison(*(stays(i, 61, 3) for i in (1, 2, 3)))
    model = Attacked(None, None, np.arange(183) % 9 > 0)  # pyright: ignore
    pool = pool_of(generator(), real, model)
    assert sorted(pool.held) == list(range(183, 366))
    for count in (183, 100):
        one, other = in_two(pool, pool.held[:count])
        assert not np.intersect1d(pool.person[one], pool.person[other]).size
        assert len(one) + len(other) == count


def test_as_many_synthetic_as_training_patients():
    sizes = lambda real: [len(data.ids) for data in real]
    sets = [simulate(i, n) for i, n in ((1, 300), (2, 70), (3, 90))]
    found = as_many(generator(), Comparison(*sets))
    assert sizes(found) == [90, 70, 90]
    assert set(found.train.ids) < set(sets[0].ids)
    turned = as_many(generator(), Comparison(sets[2], sets[1], sets[0]))
    assert sizes(turned) == [90, 70, 90]
    several = Comparison(stays(1, 100, 3), sets[1], sets[2])
    groups = np.unique(as_many(generator(), several).train.groups, return_counts=True)
    assert set(groups[1]) == {3}
    assert len(groups[0]) == 30
    alike = Comparison(sets[0], sets[1], sets[0])
    assert as_many(generator(), alike).train is sets[0]


FEW = {
    name: find(METRICS[name])(MetricConfig(resamples=2))
    for name in ("tvd", "correlation", "ks", "acf", "missing_rate", "length_of_stay")
}


def test_as_many_are_drawn_once_for_all_metrics(monkeypatch):
    calls, fewer = [], people.fewer

    def counted(rng, data, size):
        calls.append(size)
        return fewer(rng, data, size)

    monkeypatch.setattr(people, "fewer", counted)
    real = Comparison(*(simulate(i, n) for i, n in ((1, 90), (2, 70), (3, 300))))
    every = {r.name: r.value for r in run_metrics(KEY, real, FEW)}
    assert calls == [90, 90]  # of training and of synthetic patients
    for name in ("ks", "tvd"):
        alone = run_metrics(KEY, real, {name: FEW[name]})
        assert all(r.value == every[r.name] for r in alone)


@pytest.mark.parametrize("sizes", [(1500, 100), (100, 1500)])
def test_a_perfect_generator_reaches_the_reference_with_any_number(sizes):
    """The reference of all training patients would be 0.4 times the value."""
    ratios = []
    for seed in range(6):
        train, made = (simulate(10 * seed + i, n) for i, n in enumerate(sizes))
        real = Comparison(train, simulate(10 * seed + 2, 1500), made)
        for result in run_metrics(jax.random.key(seed), real, FEW):
            ratios.append(np.log(result.value.value / result.value.reference))
    # Logarithms scatter by about 0.35 and go together within a seed.
    assert abs(np.mean(ratios)) < 0.25


def test_guesses_about_members_and_others_are_from_one_table():
    """The reference is no table of another size: a release of hold-out people knows
    these by heart."""
    train, held = simulate(1, 120), simulate(2, 120)
    out = attribute_inference().run(KEY, Comparison(train, held, held))
    value = out["attribute_inference_success"]
    assert value.reference == 1.0
    assert value.high < 0.8


def test_who_only_chose_the_weights_is_no_member():
    """A release that copies just these people leaks nobody who was learned from."""
    train, learned = simulate(1, 300), np.arange(300) % 10 > 0
    fresh = simulate(3, 300)
    parts = [take(train, ~learned), take(fresh, np.arange(270))]
    mixed_up = fresh._replace(cohort=concatenate([p.cohort for p in parts]))
    real, kept = Comparison(train, simulate(2, 300), mixed_up), []
    run = membership_cosine().run
    known = run(KEY, real, learned=learned, keep=kept.append)
    unknown = run(KEY, real)
    name = "membership_cosine_tpr"
    assert known[name].value <= 0.03
    assert unknown[name].value > 0.06
    np.testing.assert_array_equal(kept[0].rows, np.flatnonzero(learned))
    assert len(kept[0].members) == 270


def test_a_given_model_says_who_was_learned_from():
    asked, learned = [], np.arange(60) % 2 == 0
    metric = membership_cosine()

    def run(key, real, *, keep, learned):
        asked.append(learned)
        return metric.run(key, real)

    model = Attacked(None, None, learned)  # pyright: ignore
    real = Comparison(*(simulate(i, 60, schema()) for i in (1, 2, 3)))
    for given in (model, "none"):
        run_metrics(KEY, real, {"a": metric._replace(run=run)}, model=given)
    assert asked[0] is learned
    assert asked[1] is None
