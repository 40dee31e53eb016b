"""CDMT around a normal law: what the untrained model draws, and that it learns more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cdmt_builders import config, sampled, untrained
from small_cohorts import cohort, schema

from jaxehr.core.cohort import Feature
from jaxehr.models.cdmt import sampling
from jaxehr.models.cdmt.config import CdmtSampling
from jaxehr.models.cdmt.objective import (
    complete,
    denoise,
    make_frame,
    make_objective,
    noise_levels,
)
from jaxehr.models.cdmt.prior import guess

NUMBERS = tuple(Feature(name=f"v{i}", kind="numeric") for i in range(2))
MADE = schema(static=(), temporal=NUMBERS)
OURS = {"prior": "normal", "noise_at": "both"}


@functools.cache
def people(count=600):
    """Values that move together over columns and time, around a level of each person
    that the label shifts."""
    rng = np.random.default_rng(1)
    made = cohort(MADE, count=count, variable=False, missing=0.0)
    label = np.asarray(made.label)
    level = rng.normal(size=(count, 1, 1)) + 1.5 * label[:, None, None]
    values = level + 0.5 * rng.normal(size=made.temporal.numeric.shape)
    table = made.temporal._replace(numeric=values.astype(np.float32))
    return made._replace(temporal=table)


def of_several_lengths(count=100):
    """The first of `people` with ends and gaps."""
    values = people().temporal.numeric[:count]
    made = cohort(MADE, count=count)
    shown = made.temporal.observed
    table = made.temporal._replace(numeric=np.where(shown, values, 0.0))
    return made._replace(temporal=table, label=people().label[:count])


@functools.cache
def at_start():
    return untrained(MADE, config(**OURS), people())


def drawn(label, num=1500):
    model, params, _ = at_start()
    frames = np.asarray(params["fitted"]["frames"], np.float32)
    weights = complete(params["weights"], params["fitted"])
    options = CdmtSampling(solver="heun", steps=40)
    labels = np.full(num, label)
    asked = frames, np.arange(num), labels
    return sampled(model, options, KEY, weights, *asked).numeric


KEY = jax.random.key(3)


def test_the_untrained_model_draws_the_law_of_the_data():
    """Correlations over columns and time, and the means of both classes."""
    _, _, batch = at_start()
    found = np.concatenate([drawn(0), drawn(1)]).reshape(3000, -1)
    label = np.asarray(batch.label)
    real = batch.numeric.reshape(len(label), -1)
    for code, part in enumerate((found[:1500], found[1500:])):
        shift = np.abs(part.mean(0) - real[label == code].mean(0))
        assert shift.max() < 0.2
    both = np.corrcoef(found.T), np.corrcoef(real.T)
    off = ~np.eye(real.shape[1], dtype=bool)
    assert both[1][off].mean() > 0.5
    assert np.abs(both[0] - both[1])[off].max() < 0.12


def test_the_denoiser_starts_from_the_estimate():
    """F = 0: the first loss is below that of independent values."""
    loss = {}
    for name, fields in (("law", OURS), ("alone", {})):
        model, params, batch = untrained(MADE, config(**fields), people())
        run = jax.jit(make_objective(model, params["fitted"]).loss)
        loss[name] = float(run(params["weights"], KEY, batch)[1]["loss_numeric"])
    assert loss["law"] < 0.8 * loss["alone"]


@pytest.mark.parametrize("masks", [True, False])
def test_behind_the_end_there_is_only_the_law(masks):
    """Before the end it tells what the law makes of it; behind the end all is the
    law's."""
    model, params, batch = untrained(
        MADE, config(**OURS, masks=masks), of_several_lengths(), spread=0.3
    )
    assert bool(model.layout.gaps) == masks
    weights = complete(params["weights"], params["fitted"])
    frame = make_frame(model, batch.label, batch.length, batch.has_static)
    t = jnp.full(100, 0.5)
    sigma = noise_levels(model, weights, jnp.float32(0.5))
    x = sampling.start_noise(
        model, jax.random.split(KEY, 100), sampling.block_shapes(model, 4)
    )
    known = np.arange(batch.numeric.shape[1])[None, :] < batch.length[:, None]
    valid = known[..., None]
    dirty = x._replace(numeric=jnp.where(valid, x.numeric, 30.0 + x.numeric))

    @jax.jit
    def run(x):
        asked = model.config, weights["prior"], x.numeric, sigma.numeric, frame
        return denoise(model, weights, x, sigma, t, frame), guess(*asked)[0]

    (one, law), (_, moved) = run(x), run(dirty)
    count = len(model.layout.temporal.numeric)
    told = lambda leaf: np.asarray(leaf)[..., :count]
    np.testing.assert_allclose(
        np.where(valid, 0.0, told(one.numeric)),
        np.where(valid, 0.0, told(law)),
        rtol=1e-5,
        atol=1e-5,
    )
    assert np.abs(told(law) - told(moved))[known].max() > 1e-3


def test_without_masks_the_end_of_a_stay_is_no_value():
    """What is behind an end is drawn, not 0: values of late steps keep their spread."""
    made = cohort(MADE, count=400, missing=0.0)
    values = np.random.default_rng(1).normal(5.0, 1.0, made.temporal.numeric.shape)
    table = made.temporal._replace(numeric=values.astype(np.float32))
    people = made._replace(temporal=table)
    _, params, batch = untrained(MADE, config(**OURS, masks=False), people)
    assert np.std(batch.numeric, axis=0).min() > 0.8
    assert np.abs(params["fitted"]["prior"]["mean"]).max() < 0.4


def test_a_class_has_the_spread_within_it():
    """Classes far apart: what lies between them is in the means only."""
    rng, made = np.random.default_rng(2), people()
    label = np.asarray(made.label)
    values = rng.normal(size=made.temporal.numeric.shape) + 6.0 * label[:, None, None]
    table = made.temporal._replace(numeric=values.astype(np.float32))
    _, params, batch = untrained(MADE, config(**OURS), made._replace(temporal=table))
    law = params["fitted"]["prior"]
    inside = [batch.numeric[label == code].var(0).mean() for code in (0, 1)]
    _, width, kept = law["basis"].shape
    total = float(law["variance"].sum() + law["rest"][0] * (width - kept))
    np.testing.assert_allclose(total / width, np.mean(inside), rtol=0.1)
