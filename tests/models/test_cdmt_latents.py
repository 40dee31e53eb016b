"""Gaps of series as latents: what is seen comes back, and the start draws their law."""

import functools

import jax
import numpy as np
import pytest
from cdmt_builders import config, untrained
from small_cohorts import cohort, schema

from jaxehr.core.cohort import Feature, valid_steps
from jaxehr.models.cdmt import latents, preprocessing, sampling
from jaxehr.models.cdmt.config import CdmtSampling
from jaxehr.models.cdmt.model import cdmt, learned_schedule
from jaxehr.models.cdmt.objective import complete

NUMBERS = tuple(Feature(name=f"v{i}", kind="numeric") for i in range(3))
MADE = schema(static=(), temporal=NUMBERS)
OURS = {"prior": "normal", "noise_at": "both"}

pytestmark = pytest.mark.usefixtures("compile_fast")


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
def at_start():
    return untrained(MADE, config(**OURS), people())


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


def test_nothing_is_drawn_behind_the_last_step():
    short = people(200, variable=True)
    model, params, batch = untrained(MADE, config(**OURS), short)
    valid = valid_steps(short)
    assert not valid.all()
    assert (batch.numeric[~valid] == 0).all()
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


def test_the_untrained_model_draws_gaps_like_those_of_the_data():
    """Shares by step, panels in one piece, persistence, what gaps tell of values."""
    model, params, _ = at_start()
    frames = np.asarray(params["fitted"]["frames"], np.float32)
    weights = complete(params["weights"], params["fitted"])
    options = CdmtSampling(solver="heun", steps=40)
    asked = frames, np.arange(4000), np.full(4000, -1)
    drawn = sampling.sample(model, options, jax.random.key(5), weights, *asked)
    made = preprocessing.decode(params["fitted"], model.layout, drawn)
    real = people()
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
    np.testing.assert_allclose(share[0], share[1], atol=0.06)
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


@pytest.mark.parametrize("mode", ["conditional", "unconditional"])
def test_masks_can_be_left_out_and_the_label_drawn(mode):
    for masks in (True, False):
        settings = config(mode=mode, masks=masks, **OURS)
        model = cdmt(MADE, settings)
        params = model.fit(jax.random.key(0), people(60))
        assert ("latents" in params["fitted"]) == masks
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
