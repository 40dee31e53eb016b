"""Visits as sets of choices; probabilities sum to 1; draws are what was trained."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import halo as module
from jaxehr.baselines.forms.visits import Visits
from jaxehr.baselines.halo import PRESETS, Halo, HaloConfig, halo
from jaxehr.baselines.recipe import Drawing
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature, Label, Schema, Table, make_cohort
from jaxehr.core.configs import replace
from jaxehr.core.sparse import SparseTable

KEY = jax.random.key(0)
MADE = schema()
CONFIG = HaloConfig(bins=4, width=8, num_layers=1, num_heads=2)


def started(made, people, config=CONFIG):
    """(layout, batch, weights far from their start)."""
    form = module.form_of(config, False)
    fitted = form.fit(made, people, True)
    layout = form.layout(made, fitted)
    data = form.encode(fitted, layout, people)
    batch = form.take(layout, data, jnp.arange(len(people.label)))
    params = module.init(layout, config, fitted, KEY, batch)
    keys = iter(jax.random.split(KEY, 100))
    noisy = lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape)
    return layout, batch, jax.tree.map(noisy, params)


@functools.cache
def usual():
    return started(MADE, complete(cohort(MADE)))


def test_number_of_weights_of_the_authors():
    """6,869 codes, labels and marks; 56 positions; by hand 207,037,212."""
    size, width = 6869, 768
    net = Halo(size, size, width, num_layers=12, num_heads=12, num_visits=56)
    shapes = jnp.zeros((1, 2, size)), jnp.zeros((1, 2, size))
    found = jax.eval_shape(net.init, KEY, *shapes)
    layers = 12 * (12 * width**2 + 13 * width)
    head = 2 * ((width + size) ** 2 + width + size)
    by_hand = size * width + 56 * width + layers + 2 * width + head
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == by_hand == 207_037_212
    config = replace(HaloConfig(), PRESETS["authors"])
    assert (config.width, config.num_layers, config.num_heads) == (768, 12, 12)


def test_next_visits_by_hand():
    layout, batch, _ = usual()
    at, lengths = module.places(layout), np.asarray(batch.length)
    bits, chosen = map(np.asarray, module.next_visits(layout, batch))
    assert bits.shape == chosen.shape == (len(lengths), layout.steps + 1, at.bits)
    for row, length in enumerate(lengths):
        static, codes = bits[row, 0], np.asarray(batch.static[row])
        assert not static[: at.end + 1].any()
        np.testing.assert_array_equal(
            static[at.end + 1 :], np.asarray(layout.static.of(codes))
        )
        assert not chosen[row, 0, : at.end + 1].any()
        for step in range(layout.steps):
            visit, choice = bits[row, step + 1], chosen[row, step + 1]
            assert not choice[at.end + 1 :].any()
            if step >= length:
                assert not choice.any()
                assert not visit.any()
                continue
            assert visit[at.end] == (step + 1 == length)
            assert choice[at.end] == (step + 1 < layout.steps)
            place = 0
            for column, states in enumerate(layout.temporal.states):
                code = batch.steps[row, step, column]
                for state in range(1, states + 1):
                    assert visit[place] == (code == state)
                    late = 0 < code < state
                    certain = state == states and not layout.temporal.optional[column]
                    assert choice[place] == (not late and not certain)
                    place += 1
            assert place == at.end


def test_where_a_series_can_end():
    layout, _, _ = usual()
    can, must = module.may_end(layout._replace(lengths=(2, 3), steps=5))
    assert can.tolist() == [False, True, True, False, False]
    assert must.tolist() == [False, False, True, True, True]


def tiny():
    """Two classes; a static code of 3 states, a bit and a code that may be missing."""
    features = (
        Feature(name="unit", kind="categorical", categories=tuple("abc")),
        Feature(name="vent", kind="binary", categories=(0, 1), dtype="int64"),
        Feature(name="tube", kind="binary", categories=(0, 1), dtype="int64"),
    )
    label = Label(name="died", classes=(0, 1))
    made = Schema(static=features[:1], temporal=features[1:], num_steps=2, label=label)
    rng, none = np.random.default_rng(0), np.zeros((30, 0))
    seen = np.ones((30, 2, 2), bool)
    seen[..., 1] = rng.random((30, 2)) < 0.6
    static = Table(none, rng.integers(3, size=(30, 1)), np.ones((30, 1), bool))
    codes = rng.integers(2, size=(30, 2, 2))
    temporal = Table(np.zeros((30, 2, 0)), codes, seen)
    length = 1 + np.arange(30) % 2
    return made, make_cohort(static, temporal, length, np.arange(30) // 15)


def test_the_probabilities_of_all_patients_sum_to_one():
    """All 3 x (6 + 36) patients of one and of two steps, for each class."""
    layout, _, params = started(*tiny())
    step = list(itertools.product(range(2), range(3)))
    series = [(1, (one, (0, 0))) for one in step]
    series += [(2, pair) for pair in itertools.product(step, step)]
    all_of = [(code, *rest) for code in range(1, 4) for rest in series]
    static, length, steps = zip(*all_of, strict=True)
    for label in (0, 1):
        batch = Visits(
            jnp.full(len(all_of), label),
            jnp.asarray(length),
            jnp.asarray(static)[:, None],
            jnp.asarray(steps),
        )
        each = jax.vmap(
            lambda one: module.loss(
                layout, CONFIG, params, KEY, jax.tree.map(lambda x: x[None], one)
            )[0]
        )(batch)
        np.testing.assert_allclose(np.exp(-each).sum(), 1.0, rtol=1e-4)
        assert np.std(each) > 0.1


def test_a_later_step_moves_no_earlier_logit():
    layout, batch, params = usual()
    before, _, _ = module.logits_of(layout, CONFIG, params, batch)
    vent = np.flatnonzero(layout.temporal.owner == 4)
    for step in range(layout.steps):
        codes = np.array(batch.steps)
        codes[:, step, 4] = 1 + codes[:, step, 4] % 2  # another state of vent
        changed = batch._replace(steps=jnp.asarray(codes))
        after, _, _ = module.logits_of(layout, CONFIG, params, changed)
        same = [(slice(0, step + 1), slice(None)), (step + 1, slice(vent[0] + 1))]
        for visit, bits in same:
            np.testing.assert_array_equal(after[:, visit, bits], before[:, visit, bits])
        valid = np.asarray(batch.length) > step
        later = np.asarray(after != before)[valid]
        assert later[:, step + 1, vent[0] + 1 :].any(-1).all()
        assert step == 3 or later[:, step + 2 :].any((1, 2)).all()
    other = batch._replace(label=1 - batch.label)
    after, _, _ = module.logits_of(layout, CONFIG, params, other)
    assert (np.abs(after - before).max((0, 2)) > 1e-4).all()


def test_draws_follow_the_logits_of_training():
    """Every choice of drawn patients, against the levels that decided it."""
    layout, _, params = usual()
    keys, rows = jax.random.split(jax.random.key(7), 40), 40
    run = jax.jit(functools.partial(module.draw, layout, CONFIG, Drawing()))
    drawn = run(params, keys, jnp.arange(rows) % 2)
    at = module.places(layout)
    logits, bits, chosen = module.logits_of(layout, CONFIG, params, drawn)
    fold = jax.vmap(jax.random.fold_in, (0, None))
    uniform = lambda t, size: jax.vmap(lambda k: jax.random.uniform(k, (size,)))(
        fold(keys, t)
    )
    level = np.zeros(bits.shape)
    level[:, 0, at.end + 1 :] = uniform(0, layout.static.width)
    for t in range(1, layout.steps + 1):
        level[:, t, : at.end + 1] = uniform(t, at.end + 1)
    wanted = level < special.expit(np.asarray(logits))
    near = np.abs(level - special.expit(np.asarray(logits))) < 1e-5
    assert ((bits == 1) == wanted)[np.asarray(chosen) & ~near].all()
    assert near.mean() < 0.01
    assert set(np.asarray(drawn.length)) <= set(layout.lengths)
    assert len(np.unique(np.asarray(drawn.length))) > 1
    again = run(params, keys[:3], jnp.arange(3) % 2)
    for one, two in zip(again, drawn, strict=True):
        np.testing.assert_array_equal(one, two[:3])


def test_columns_that_always_have_a_value_get_one():
    people = complete(cohort(MADE, missing=0.0, variable=False))
    layout, _, params = started(MADE, people)
    run = functools.partial(module.draw, layout, CONFIG, Drawing())
    drawn = jax.jit(run)(params, jax.random.split(KEY, 50), jnp.zeros(50, int))
    assert (np.asarray(drawn.length) == layout.steps).all()
    for part, codes in ((layout.static, drawn.static), (layout.temporal, drawn.steps)):
        always = (np.asarray(part.states) > 0) & ~np.asarray(part.optional)
        assert np.asarray(codes)[..., always].min() >= 1
        assert (np.asarray(codes) <= np.asarray(part.states)).all()


def test_the_start_says_the_marginals():
    """Chances of the choices of a new model, against their shares; static visit."""
    people = complete(cohort(MADE, count=400))
    form = module.form_of(CONFIG, False)
    fitted = form.fit(MADE, people, True)
    layout = form.layout(MADE, fitted)
    batch = form.take(
        layout, form.encode(fitted, layout, people), jnp.arange(len(people.label))
    )
    bits, chosen = map(np.asarray, module.next_visits(layout, batch))
    at, p = module.places(layout), special.expit(module.start_bias(layout, fitted))
    for visits, part in (
        (slice(0, 1), slice(at.end + 1, None)),
        (slice(1, None), slice(at.end)),
    ):
        ones, asked = bits[:, visits, part], chosen[:, visits, part]
        share = (ones * asked).sum((0, 1)) / np.maximum(asked.sum((0, 1)), 1)
        some = asked.sum((0, 1)) > 0
        np.testing.assert_allclose(p[part][some], share[some], atol=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train(name):
    small = {
        "width": 8,
        "num_layers": 1,
        "num_heads": 2,
        "train": {"steps": 3, "batch_size": 16},
    }
    config = replace(replace(HaloConfig(), PRESETS[name]), small)
    model = halo(MADE, config)
    params = model.fit(KEY, cohort(MADE), valid=cohort(MADE, seed=3, count=9))
    made = model.sample(jax.random.key(1), params, None, 5)
    assert np.isfinite(made.temporal.numeric).all()


def test_sparse_visits_and_cohorts_of_one_part():
    config = replace(CONFIG, {"train": {"steps": 3, "batch_size": 16}})
    wide = sparse_schema()
    model = halo(wide, config)
    found = model.sample(KEY, model.fit(KEY, sparse_cohort(wide)[0]), 1, 6)
    assert isinstance(found.temporal, SparseTable)
    assert (found.label == 1).all()
    for fields, length in (({"temporal": ()}, 0), ({"static": (), "classes": 0}, 4)):
        made = schema(**fields)
        model = halo(made, config)
        params = model.fit(KEY, cohort(made, variable=False))
        assert (model.sample(KEY, params, None, 6).length == length).all()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"bins": 0}, "bins must be positive, got 0"),
        ({"width": 0}, "width must be positive, got 0"),
        ({"num_layers": 0}, "num_layers must be positive, got 0"),
        ({"num_heads": 0}, "num_heads must be positive, got 0"),
        ({"width": 10, "num_heads": 4}, "a multiple of num_heads 4, got 10"),
    ],
)
def test_refused_choices(fields, match):
    with pytest.raises(InputError, match=match):
        HaloConfig(**fields)
