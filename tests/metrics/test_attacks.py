"""The parts of the attacks: by hand and against brute force."""

import jax
import numpy as np
import pytest
import scipy.sparse
from builders import simulate

from jaxehr.core.contracts import Comparison
from jaxehr.metrics.adversarial import (
    accuracy,
    difference,
    in_their_place,
    mean_of,
    nnaa,
    risk,
    risk_with_chance,
    three_numbers,
)
from jaxehr.metrics.attacks import (
    Interval,
    auroc_interval,
    by_role,
    measure,
    placements,
    recognised,
    records,
    roles_of,
)
from jaxehr.metrics.copies import closest
from jaxehr.metrics.evaluate import fingerprints
from jaxehr.metrics.inference import blocks_of, combined, linked, secrets_of
from jaxehr.metrics.nearest_membership import membership_cosine, quintile_records
from jaxehr.metrics.neighbours import nearest, search, unit
from jaxehr.metrics.people import People
from jaxehr.metrics.singling import ABOVE, BELOW, EQUAL, Condition, distinct, fitting


def generator(seed=0):
    return np.random.default_rng(seed)


def column(*values):
    return np.asarray(values, float)[:, None]


def three(count=120):
    return Comparison(*(simulate(seed, count) for seed in (1, 2, 3)))


def test_neighbours_are_those_of_brute_force():
    a, b = generator(1).normal(size=(530, 7)), generator(2).normal(size=(90, 7))
    distance = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    found = nearest(a, b, 3)
    np.testing.assert_array_equal(found.row, np.argsort(distance, 1)[:, :3])
    np.testing.assert_allclose(found.distance, np.sort(distance, 1)[:, :3], rtol=1e-5)


def test_a_row_is_not_its_own_neighbour():
    a = generator().normal(size=(600, 3)) + 100.0
    assert (nearest(a, a).distance == 0).all()
    found = nearest(a, a, exclude_self=True)
    assert (found.row[:, 0] != np.arange(600)).all()
    assert (found.distance > 0).all()


def test_a_short_table_gives_fewer_neighbours():
    found = nearest(column(0.0), column(3.0, 1.0), 5)
    np.testing.assert_allclose(found.distance, [[1.0, 3.0]])


def test_unit_rows():
    np.testing.assert_allclose(
        unit(np.array([[3.0, 4.0], [0, 0]])), [[0.6, 0.8], [0, 0]]
    )


def test_scores_by_hand():
    members, others = np.array([5.0, 4.0, 1.0, 0.5]), np.array([3.0, 2.0, 0.0, -1.0])
    found = measure(generator(), members, others)
    # The higher half is 5, 4, 3, 2: two true and two false alarms.
    assert found["advantage"].value == 0.0
    assert found["auroc"].value == pytest.approx((4 + 4 + 2 + 2) / 16)
    assert found["tpr"].value == 0.5  # no false alarm is allowed among four


def test_one_false_alarm_in_a_hundred_is_allowed():
    others = np.arange(100.0)
    members = np.full(100, 98.5)  # below one of the others
    assert recognised(generator(), members, others) == 100
    assert recognised(generator(), members - 1.0, others) == 0


def test_chance_of_recognising_by_hand():
    found = measure(generator(), np.array([5.0, 4.0, 1.0]), np.array([3.0, 2.0, 0.0]))
    # Two members before the first of three others: 3/6 * 2/5.
    assert found["tpr"].chance == pytest.approx(0.2)


def test_chance_of_the_risk_is_even_under_chance():
    rng, found = generator(), []
    for _ in range(100):
        a, b = rng.exponential(size=(2, 40))
        found.append(risk_with_chance(rng, a, b, False, 50).chance)
    # Uniform, or larger with ties: the mean of 100 has the standard error 0.03.
    assert 0.5 - 4 * 0.03 < np.mean(found) < 0.6 + 4 * 0.03
    apart = risk_with_chance(rng, np.zeros(40), np.arange(1.0, 41.0), False, 50)
    assert apart.chance == pytest.approx(1 / 51)


def test_ties_give_no_one_away():
    hits = [
        recognised(generator(seed), np.ones(200), np.ones(200)) for seed in range(40)
    ]
    # Before the third of 200 others in random order lie 3 * 200 / 201 members on
    # average, standard deviation 3.4.
    assert abs(np.mean(hits) - 3 * 200 / 201) < 4 * 3.5 / 40**0.5


def test_placements_by_hand():
    np.testing.assert_allclose(
        placements(np.array([1.0, 2.0]), np.array([1, 3])),
        [
            0.25,
            0.5,
        ],
    )


def test_intervals_of_the_area_cover():
    truth, hits, rng = 0.5, 0, generator()
    for _ in range(400):
        low, high = auroc_interval(rng.normal(size=60), rng.normal(size=60))
        hits += low <= truth <= high
    assert hits / 400 > 0.95 - 3 * (0.95 * 0.05 / 400) ** 0.5 - 0.01


def test_adversarial_accuracy_by_hand():
    real, synthetic = column(0, 1, 10), column(0.4, 10.2, 20)
    # d_TS = .4, .6, .2 against d_TT = 1, 1, 9; d_ST = .4, .2, 10 against d_SS = 9.8.
    reached = lambda *sets: accuracy(*map(crowd, sets))[0].value
    assert reached(real, synthetic) == pytest.approx(1 / 6)
    assert reached(real, real) == 0.0
    twice = np.repeat(real, 2, 0)  # ties count a half
    assert reached(twice, twice) == 0.5
    assert reached(real, real + 1000.0) == 1.0


def test_one_stay_of_a_person_is_asked_and_all_are_searched():
    real = People(column(0, 1, 10, 50), np.array([0, 0, 1, 1]))
    synthetic = crowd(column(0.4, 10.2, 20))
    # Asked are 0 and 10: d_TS = .4, .2 against d_TT = 1, 9; d_ST = .4, .2, 10 against
    # d_SS = 9.8.
    found, asked = accuracy(real, synthetic)
    assert (found.value, asked) == (pytest.approx(1 / 6), 2)
    assert accuracy(real, synthetic, taken=2)[1] == 1
    assert accuracy(crowd(column(0, 1, 10)), synthetic, 2)[1] == 2


def test_mean_of_proportions():
    found = mean_of(Interval(0.6, 0.5, 0.7), Interval(0.2, 0.1, 0.4))
    np.testing.assert_allclose(
        found[:3], [0.4, 0.4 - 0.02**0.5 / 2, 0.4 + 0.05**0.5 / 2]
    )


def test_risk_by_hand():
    members, others = np.array([0.0, 1.0, 10.0]), np.array([5.0, 20.0, 100.0])
    # Own ranges: 0, 1 <= 1 of 10; 5 <= 5 + 9.5. t = 2/3, f = 1/3.
    assert risk(members, others, False).value == pytest.approx(2 / 3)
    # One range of 100: all members, 5 of the others.
    assert risk(members, others, True).value == pytest.approx(2 / (1 + 1 / 3 + 1))
    same = np.ones(50)
    assert risk(same, same, True).value == pytest.approx(2 / 3)


def test_difference_of_proportions():
    found = difference(Interval(0.6, 0.5, 0.7), Interval(0.3, 0.2, 0.4))
    np.testing.assert_allclose(found[:3], [0.3, 0.3 - 0.02**0.5, 0.3 + 0.02**0.5])


def test_conditions_by_hand():
    rows = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 6.0]])
    condition = lambda *parts: Condition(*map(np.asarray, zip(*parts, strict=True)))
    who = lambda *parts: fitting(condition(*parts), rows).tolist()
    assert who((1, EQUAL, 5.0)) == [0, 1]
    assert who((1, EQUAL, 5.0), (0, ABOVE, 2.0)) == [1]
    assert who((0, BELOW, 0.5)) == []
    one = condition((0, ABOVE, 2.0), (1, EQUAL, 5.0))
    turned = condition((1, EQUAL, 5.0), (0, ABOVE, 2.0))
    assert len(distinct([one, turned])) == 1


def test_links_by_hand():
    a = np.array([[4, 7, 9], [1, 2, 3], [5, 6, 8]])
    b = np.array([[4, 0, 1], [9, 8, 1], [0, 1, 2]])
    np.testing.assert_array_equal(linked(a, b), [0, -2, -20])


def test_right_guesses_count_more_than_distance():
    right = lambda *values: np.asarray(values, bool)
    known = right(1, 1)
    far = np.array([1e6, 0.0])
    found = combined([(right(1, 0), known, far), (right(1, 1), known, far)])
    assert found[0] > found[1]
    np.testing.assert_allclose(found, [1 - 1e-3, 0.5], atol=1e-8)


def test_secrets_hide_all_columns_of_a_feature():
    real = three()
    blocks = blocks_of(real)
    secrets = secrets_of(real, blocks)
    assert [s.name for s in secrets] == ["died", "age", "sex"]
    # Value and gap of age and of sex; two classes of the label.
    assert [int(s.hidden.sum()) for s in secrets] == [2, 2, 2]
    assert not (secrets[1].hidden & secrets[2].hidden).any()
    assert set(np.unique(secrets[1].values[0])) == {-1, 0, 1, 2, 3, 4}
    width = blocks.rows[0].shape[1]
    assert (blocks.static >= 0).sum() + blocks.temporal.sum() + 2 == width


def test_quintiles_are_even_and_gaps_are_empty():
    real = three()
    rows = quintile_records(real)[0].toarray()
    seen = real.train.cohort.static.observed[:, 0]
    age = rows[:, :5]
    np.testing.assert_array_equal(age.sum(1), seen)
    counts = age.sum(0)
    assert counts.max() - counts.min() <= 2
    assert set(np.unique(rows)) == {0.0, 1.0}


def test_a_large_table_is_searched_in_smaller_blocks(monkeypatch):
    a, b = generator(1).normal(size=(90, 4)), generator(2).normal(size=(300, 4))
    whole = nearest(a, b, 2), nearest(b[:70], b, exclude_self=True)
    monkeypatch.setattr("jaxehr.metrics.neighbours.CELLS", 2000)  # 6 rows at once
    parts = nearest(a, b, 2), nearest(b[:70], b, exclude_self=True)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.row, other.row)
        np.testing.assert_array_equal(one.distance, other.distance)


def test_products_of_rows_have_full_precision():
    """TF32 and bfloat16 keep 8 to 11 bits, and near rows change places."""
    x = np.zeros((4, 3), np.float32)
    for count in (1, 2):
        program = str(jax.make_jaxpr(search(count, False))(x, x, np.arange(4)))
        assert "Precision.HIGHEST" in program
        assert "Precision.DEFAULT" not in program


def test_copies_are_searched_among_all_synthetic_patients():
    real, many = three(), 20_500
    ids = np.arange(many)
    large = real._replace(synthetic=real.synthetic._replace(ids=ids))
    roles = roles_of(generator(), large, 5000)
    np.testing.assert_array_equal(np.sort(roles.table), ids)
    assert len(roles.leak) == 120
    column = lambda count, start: start + np.arange(count, dtype=float)[:, None]
    rows = column(120, 0), column(120, 1e6), column(many, 1e7)
    seen = by_role(roles, *rows).seen
    assert len(seen["leak"]) == len(seen["synthetic"]) == many
    assert set(np.arange(120.0)) <= set(seen["leak"][:, 0])
    few = real._replace(synthetic=real.synthetic._replace(ids=ids[:30]))
    leak = by_role(roles_of(generator(), few, 5000), *rows).seen["leak"]
    assert len(leak) == 30  # as many as were drawn
    thin = tuple(map(scipy.sparse.csr_array, rows))
    other = by_role(roles, *thin).seen["leak"]
    np.testing.assert_array_equal(other.toarray(), seen["leak"])


def test_adversarial_accuracy_is_even_for_all_sizes():
    """Equal laws, as continuous numbers and as a few values with many ties."""
    for law in (lambda rng, n: rng.normal(size=(n, 3)), few_values):
        found = []
        for seed in range(40):
            rng = generator(seed)
            rows = law(rng, 400), law(rng, 100), law(rng, 900)
            train, held, made = map(crowd, rows)
            found.append([accuracy(x, made)[0].value for x in (train, held)])
            held = three_numbers(train, held, made, 1000)["nnaa_holdout"][0]
            found[-1].append(held.value)
        # A hundred shares at least: standard deviation at most 0.04
        np.testing.assert_allclose(np.mean(found, 0), 0.5, atol=0.02)


def crowd(rows):
    """Single stays."""
    return People(rows, np.arange(len(rows)))


def law(rng, count, modes=8, width=0.3):
    """Some of eight modes on a circle, in a plane of four dimensions."""
    angle = 2 * np.pi * rng.integers(0, modes, count) / 8
    centre = np.stack([np.cos(angle), np.sin(angle), 0 * angle, 0 * angle], -1)
    return centre + width * rng.normal(size=(count, 4))


@pytest.mark.parametrize(("modes", "width"), [(8, 0.3), (4, 0.3), (8, 0.6), (8, 0.15)])
def test_a_poor_generator_is_no_leak(modes, width):
    """A collapsed, a widened and a narrowed one, with few hold-out patients."""
    found = []
    for seed in range(30):
        rng = generator(seed)
        made = law(rng, 800, modes, width)
        sets = map(crowd, (law(rng, 800), law(rng, 200), made))
        found.append(three_numbers(*sets, 1000)["nnaa_loss"][0].value)
    # Standard deviation of one: at most 0.03
    assert abs(np.mean(found)) < 4 * 0.03 / 30**0.5


def test_full_copies_among_few_hold_out_patients():
    rng = generator()
    train, held = (crowd(law(rng, n)) for n in (800, 200))
    copied = three_numbers(train, held, train, 1000)
    assert copied["nnaa_train"][0].value == 0.0
    assert copied["nnaa_loss"][0].low > 0.2


def test_hold_out_people_take_the_place_of_as_many_rows():
    for sizes, few in (((80, 20), 20), ((20, 80), 20), ((30, 30), 30)):
        train, held = (crowd(column(*range(n))) for n in sizes)
        held = held._replace(rows=held.rows + 1000)
        real, taken = in_their_place(train, held)
        assert (len(real.rows), taken) == (sizes[0], few)
        assert (real.rows[:taken] >= 1000).all()
        assert (real.rows[taken:] < 1000).all()
        assert len(np.unique(real.person)) == sizes[0]
    pairs = People(column(*range(40)), np.repeat(np.arange(20), 2))
    real, taken = in_their_place(pairs, crowd(column(*range(9))))
    assert taken == 9
    assert len(real.rows) in (39, 41)  # nobody is halved
    assert (np.unique(real.person[taken:], return_counts=True)[1] == 2).all()


def few_values(rng, count):
    return rng.integers(0, 3, (count, 3)).astype(float)


def test_a_small_release_of_copies_holds_few_who_are_asked():
    """As many as a release of that size can: not all of them first."""
    sets = simulate(1, 400), simulate(2, 200), simulate(3, 100)
    hits = []
    for seed in range(20):
        roles = roles_of(generator(seed), Comparison(*sets), 5000)
        assert len(roles.leak) == len(np.unique(roles.leak)) == 100
        hits.append(np.isin(roles.members, roles.leak).mean())
    # A quarter of 100 who are asked: standard deviation 0.04
    assert abs(np.mean(hits) - 0.25) < 4 * 0.04 / 20**0.5


def test_numbers_of_accuracy_tell_who_was_asked():
    values = nnaa().run(jax.random.key(0), three()._replace(train=simulate(1, 300)))
    records = {name: value.detail["records"] for name, value in values.items()}
    assert records == {"nnaa_train": 300, "nnaa_holdout": 120, "nnaa_loss": 120}


def test_roles_do_not_overlap():
    real = three()
    roles = roles_of(generator(), real, 5000)
    assert len(roles.members) == len(roles.others) == 60
    assert not set(roles.others) & set(roles.fresh)
    assert set(roles.members) <= set(roles.leak)
    assert len(roles.table) == 120
    assert len(roles_of(generator(), real, 10).members) == 10


def test_records_hold_the_label():
    real = three()
    one_hot = records(real)[0][:, -2:]
    np.testing.assert_array_equal(one_hot.argmax(1), real.train.cohort.label)


def test_nearest_ratios_by_hand():
    seen, train, held = column(0.0, 10.0), column(1.0, 4.0, 10.0), column(2.0, 9.0)
    (share, ratio), quantiles = closest(seen, train[:2], held, generator())
    # 0: 1 against 2 and 1/4; 10: 6 against 1 and 6/9.
    assert share.value == 0.5
    assert ratio.value == pytest.approx((1 / 4 + 6 / 9) / 2)
    assert quantiles["dcr_50%"] == pytest.approx(3.5)


def test_fingerprints_know_patients_not_ids():
    data = simulate(1, 80)
    renamed = data._replace(ids=data.ids + 5)
    np.testing.assert_array_equal(fingerprints(data), fingerprints(renamed))
    assert len(np.unique(fingerprints(data))) == 80
    assert not np.isin(fingerprints(simulate(2, 80)), fingerprints(data)).any()


def test_equal_keys_give_equal_numbers():
    run = membership_cosine().run
    one, two, other = (run(jax.random.key(k), three()) for k in (0, 0, 1))
    assert one == two
    assert one != other
