"""Gaps of series as latents: what is seen comes back, and the start draws their law."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cdmt_builders import config, fitted_model, sampled, untrained
from small_cohorts import cohort, schema

from jaxehr.core.cohort import Feature, valid_steps
from jaxehr.models.cdmt import latents, preprocessing, sampling
from jaxehr.models.cdmt.config import CdmtSampling
from jaxehr.models.cdmt.model import cdmt, learned_schedule
from jaxehr.models.cdmt.objective import (
    complete,
    make_frame,
    make_objective,
    noise_levels,
    predict,
)

NUMBERS = tuple(Feature(name=f"v{i}", kind="numeric") for i in range(3))
MADE = schema(static=(), temporal=NUMBERS)
BINARY = Feature(name="b", kind="binary", categories=("0", "1"))
OURS = {"prior": "normal", "noise_at": "both"}


@functools.cache
def people(count=800, variable=False):
    """v0 and v1 are measured together, more often later and where v2 is high; who has
    them at a step mostly has them at the next; v2 is always there."""
    rng = np.random.default_rng(4)
    made = cohort(MADE, count=count, variable=variable, missing=0.0)
    shape = made.temporal.numeric.shape[:2]
    level = rng.normal(size=(count, 1))
    values = level[..., None] + 0.5 * rng.normal(size=(*shape, 3))
    order = 0.7 * rng.normal(size=(count, 1)) + 0.5 * rng.normal(size=shape)
    there = order + 0.6 * level + 0.3 * np.arange(shape[1]) > 0.6
    observed = np.stack([there, there, np.ones_like(there)], -1)
    table = made.temporal._replace(
        numeric=values.astype(np.float32),
        observed=observed & valid_steps(made)[..., None],
    )
    return made._replace(temporal=table)


@functools.cache
def at_start(variable=False):
    return untrained(MADE, config(**OURS), people(variable=variable))


def test_what_was_seen_comes_back():
    model, params, batch = at_start()
    assert model.layout.gaps == (2,)
    assert batch.numeric.shape[-1] == model.layout.series == 4
    assert batch.codes.shape[-1] == 0  # no masks beside the latents
    back = preprocessing.decode(params["fitted"], model.layout, batch)
    seen = people().temporal.observed
    valid = valid_steps(people())[..., None]
    np.testing.assert_array_equal(back.temporal.observed & valid, seen)
    np.testing.assert_allclose(
        back.temporal.numeric[seen], people().temporal.numeric[seen], atol=1e-4
    )


def test_series_go_on_behind_the_last_step_and_come_back_without():
    """Or the law would be told that all are at their mean there."""
    short = people(200, variable=True)
    model, params, batch = untrained(MADE, config(**OURS), short)
    valid = valid_steps(short)
    ends = valid[:, 1] & ~valid[:, 2]
    assert ends.sum() > 20
    behind = batch.numeric[ends][:, 1:3, 2]
    assert 0.4 < np.corrcoef(behind.T)[0, 1] < 0.95
    assert 0.7 < batch.numeric[~valid].std() < 1.3
    back = preprocessing.decode(params["fitted"], model.layout, batch)
    seen = back.temporal.observed & valid[..., None]
    np.testing.assert_array_equal(seen, short.temporal.observed)


def test_values_in_gaps_are_drawn_from_the_others():
    """v2 tells of v0 where it is missing; a value is not the last one again."""
    _, _, batch = at_start()
    gap = ~people().temporal.observed[..., 0] & valid_steps(people())
    assert 0.3 < np.corrcoef(batch.numeric[gap][:, [0, 2]].T)[0, 1] < 0.9
    both = gap[:, 1:] & gap[:, :-1]
    same = batch.numeric[:, 1:, 0] == batch.numeric[:, :-1, 0]
    assert not same[both].any()


def test_a_patient_is_encoded_alike_in_any_company():
    model, params, batch = at_start()
    few = jax.tree.map(lambda leaf: np.asarray(leaf)[300:307], people())
    found = preprocessing.encode(params["fitted"], model.layout, few)
    np.testing.assert_array_equal(found.numeric, batch.numeric[300:307])


@pytest.mark.parametrize("variable", [False, True])
def test_the_untrained_model_draws_gaps_like_those_of_the_data(variable):
    """Shares by step, panels in one piece, persistence, what gaps tell of values."""
    model, params, _ = at_start(variable)
    frames = np.asarray(params["fitted"]["frames"], np.float32)
    weights = complete(params["weights"], params["fitted"])
    options = CdmtSampling(solver="heun", steps=40)
    asked = frames, np.arange(4000), np.full(4000, -1)
    drawn = sampled(model, options, jax.random.key(5), weights, *asked)
    made = preprocessing.decode(params["fitted"], model.layout, drawn)
    real = people(variable=variable)
    share, after, told = [], [], []
    for one in (made, real):
        valid, seen = valid_steps(one), one.temporal.observed[..., 0]
        assert (one.temporal.observed[..., 1] == seen)[valid].all()
        assert one.temporal.observed[..., 2][valid].all()
        share.append((seen & valid).sum(0) / valid.sum(0))
        whole = valid.all(1)
        after.append(np.corrcoef(seen[whole][:, 1], seen[whole][:, 2])[0, 1])
        last = one.temporal.numeric[..., 2]
        told.append(last[seen & valid].mean() - last[~seen & valid].mean())
    # Few of the patients come to the last steps.
    np.testing.assert_allclose(share[0], share[1], atol=0.1 if variable else 0.06)
    np.testing.assert_allclose(after[0], after[1], atol=0.12)
    np.testing.assert_allclose(told[0], told[1], atol=0.2)
    assert after[1] > 0.3
    assert told[1] > 0.3


def test_latents_have_names_and_noise_levels():
    model, params, _ = at_start()
    names = preprocessing.latent_names(params["fitted"], model.layout)
    assert names == ["v0, v1 missing"]
    blocks = learned_schedule(MADE, config(**OURS), params)
    assert blocks["numeric"]["names"] == ["v0", "v1", "v2", *names]
    assert blocks["numeric"]["sigma"].shape[-1] == 4


WEIGHTS = (-1.0, 0.0, 2.0)  # of codes; that of numbers is 0


@functools.cache
def guided():
    """What the network tells with and without the label, and what guidance makes."""
    model, params, batch = untrained(MADE, config(**OURS), people(60), spread=0.3)
    weights = complete(params["weights"], params["fitted"])
    frame = make_frame(model, batch.label, batch.length, batch.has_static)
    null = frame._replace(condition=jnp.zeros_like(frame.condition))
    keys = jax.random.split(jax.random.key(2), 60)
    x = sampling.start_noise(model, keys, sampling.block_shapes(model, 4))
    sigma = noise_levels(model, weights, jnp.float32(0.5))

    @jax.jit
    def run(weights):
        asked, time = (model, weights, x, sigma), jnp.full(60, 0.5)
        told = [predict(*asked, time, each) for each in (frame, null)]
        calls = [
            sampling.guided(
                model,
                weights,
                CdmtSampling(guidance_categorical=w),
                frame,
            )
            for w in WEIGHTS
        ]
        return told, [call(x, sigma, jnp.float32(0.5)).numeric for call in calls]

    return weights["ends"], *run(weights)


@pytest.mark.parametrize("place", range(len(WEIGHTS)))
def test_guidance_of_gaps_is_that_of_their_law(place):
    """The mean of p(z | label)^(1 + w) / p(z | no label)^w, by sums over a grid."""
    ends, told, found = guided()
    w, z = WEIGHTS[place], np.linspace(-latents.FAR, latents.FAR, 6001)

    def logs(gaps):
        mean, spread, correction = (np.asarray(leaf, float)[..., None] for leaf in gaps)
        above = z > np.asarray(ends)[:, :, 1, None]
        code = np.where(above, correction[..., 1:, :], correction[..., :1, :])
        return code - 0.5 * ((z - mean) / spread) ** 2

    law = (1 + w) * logs(told[0].gaps) - w * logs(told[1].gaps)
    law = np.exp(law - law.max(-1, keepdims=True))
    wanted = (law * z).sum(-1) / law.sum(-1)
    np.testing.assert_allclose(found[place][..., 3:], wanted, atol=5e-3)
    np.testing.assert_allclose(found[place][..., :3], told[0].blocks.numeric, atol=1e-5)
    if w > 0:
        plain = np.abs(found[place][..., 3:] - found[1][..., 3:])
        assert plain.max() > 0.1


@pytest.mark.parametrize("mode", ["conditional", "unconditional"])
def test_masks_can_be_left_out_and_the_label_drawn(mode):
    for masks in (True, False):
        settings = config(mode=mode, masks=masks, **OURS)
        model = cdmt(MADE, settings)
        params = model.fit(jax.random.key(0), people(60))
        assert bool(len(params["fitted"]["latents"]["panels"]["sizes"])) == masks
        made = model.sample(jax.random.key(1), params, None, 40)
        gaps = ~made.temporal.observed[..., 0] & valid_steps(made)
        assert gaps.any() == masks


def test_a_step_with_few_patients_borrows_shares_of_the_others():
    found = at_start()[1]["fitted"]["latents"]
    panels = latents.of_fitted(found).panels
    codes = np.zeros((50, 2, 1), int)
    codes[:25, 0] = 1
    valid = np.ones((50, 2), bool)
    valid[:, 1] = False
    ends = latents.thresholds(panels, codes, valid)
    np.testing.assert_allclose(ends[:, 0, 1], 0.0, atol=0.05)
    assert (ends[..., 0] == -latents.FAR).all()
    assert (ends[..., -1] == latents.FAR).all()


def test_coded_columns_alone_have_gaps_too():
    """There is no number then, but the latents are a normal law."""
    made = schema(static=(), temporal=(BINARY,))
    real = cohort(made, count=60, variable=False, missing=0.3)
    model = cdmt(made, config(**OURS))
    params = model.fit(jax.random.key(0), real)
    assert "prior" in params["fitted"]
    drawn = model.sample(jax.random.key(1), params, None, 200)
    assert 0.1 < 1.0 - drawn.temporal.observed.mean() < 0.5


def test_a_column_that_no_learner_has_stays_missing(monkeypatch):
    """One patient in a thousand may have it; the learners are a sample."""
    real = people(60)
    observed = real.temporal.observed.copy()
    observed[..., 1] = False
    observed[0, 0, 1] = True  # among all, but not among the learners
    real = real._replace(temporal=real.temporal._replace(observed=observed))
    learners = lambda layout, count: np.arange(1, count)
    monkeypatch.setattr(preprocessing, "learners", learners)
    model, params, batch = untrained(MADE, config(**OURS), real)
    back = preprocessing.decode(params["fitted"], model.layout, batch)
    assert not back.temporal.observed[..., 1].any()


def test_patients_without_a_step_teach_no_law():
    real = people(200)
    length = np.where(np.arange(200) < 60, 0, real.length).astype(np.int32)
    gone = np.arange(200)[:, None, None] < 60
    table = real.temporal._replace(observed=real.temporal.observed & ~gone)
    some = real._replace(length=length, temporal=table)
    rest = jax.tree.map(lambda leaf: np.asarray(leaf)[60:], some)
    fitted = (untrained(MADE, config(**OURS), one)[1]["fitted"] for one in (some, rest))
    found = [(one["latents"], one["prior"]) for one in fitted]
    # The quantiles are those of the same values, so all is the same.
    for one, two in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_array_equal(one, two)


def test_patients_who_differ_in_anything_are_drawn_differently():
    numeric = np.zeros((2, 3, 1), np.float32)
    label = np.array([0, 1], np.int32)
    seeds = latents.seeds_of(numeric, label)
    assert seeds[0] != seeds[1]
    assert latents.seeds_of(numeric[:1], label[:1])[0] == seeds[0]


def test_those_of_whom_nothing_is_seen_are_drawn_apart():
    model, params, _ = at_start()
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[:1], people())
    unseen = np.zeros_like(one.temporal.observed)
    one = one._replace(temporal=one.temporal._replace(observed=unseen))
    copies = jax.tree.map(lambda leaf: np.repeat(leaf, 50, 0), one)
    asked = params["fitted"], model.layout, copies
    alone = preprocessing.encode(*asked).numeric
    assert len(np.unique(alone[:, 0, 0])) == 1  # when a patient is scored
    found = preprocessing.encode(*asked, np.arange(50)).numeric
    assert len(np.unique(found[:, 0, 0])) == 50
    whole = [
        preprocessing.encode(*asked[:2], people(), n) for n in (None, np.arange(800))
    ]
    seen = people().temporal.observed.any((1, 2))
    np.testing.assert_array_equal(*(batch.numeric[seen] for batch in whole))


def test_a_latent_is_in_its_interval_even_where_the_law_puts_no_mass():
    """Draws that end at a bound would be those of the code below."""
    model, params, _ = at_start()
    found, real = latents.of_fitted(params["fitted"]["latents"]), people(200)
    tight = found._replace(law=found.law._replace(spread=found.law.spread * 1e-3))
    gaps, _ = preprocessing.series_of(params["fitted"], model.layout, real)
    drawn = latents.encode(tight, gaps)[..., -1:]
    (low, high) = (latents.known_of(found.panels, found.ends, gaps)[i] for i in (0, 1))
    free = low[..., -1:] < high[..., -1:]
    assert np.isclose(drawn, low[..., -1:]).any()  # some do end there
    assert (drawn > low[..., -1:])[free].all()
    missing = latents.decode(found, drawn)
    np.testing.assert_array_equal(missing[..., 0], ~real.temporal.observed[..., 0])


def test_shares_of_codes_are_those_of_the_steps():
    fitted = at_start()[1]["fitted"]["latents"]
    gone = ~people().temporal.observed[..., 0]
    found = latents.shares(fitted)
    np.testing.assert_allclose(found, [[1 - gone.mean(), gone.mean()]], atol=0.01)


def names_of(jaxpr):
    """Every operation, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from names_of(inner)


@pytest.mark.parametrize("prior", ["normal", "independent"])
def test_no_gradient_is_added_up_in_any_order(prior):
    """As a scatter does on a GPU: the same seed would give other bits."""
    made = schema(temporal=(*NUMBERS, BINARY))
    some = cohort(made, count=20, missing=0.3)
    model, fitted, batch = fitted_model(made, config(prior=prior), some)
    objective = make_objective(model, fitted)
    params = jax.eval_shape(objective.init, jax.random.key(0), batch)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    slope = jax.grad(lambda params: objective.loss(params, jax.random.key(1), batch)[0])
    found = set(names_of(jax.make_jaxpr(slope)(params).jaxpr))
    assert "dot_general" in found
    assert not {name for name in found if "scatter" in name}
