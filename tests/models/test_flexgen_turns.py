"""An alternating training: what enters its joint objective, what that moves, turns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flexgen_cohorts import encoded, small
from small_cohorts import cohort, schema

from jaxehr.core.checks import InputError
from jaxehr.diffusion.whitening import no_whitening
from jaxehr.models.flexgen import alignment, turns
from jaxehr.models.flexgen.autoencoders import make_autoencoder
from jaxehr.models.flexgen.layout import make_layout
from jaxehr.models.flexgen.model import flexgen
from jaxehr.models.flexgen.records import MODALITIES
from jaxehr.models.flexgen.training import posterior
from jaxehr.ot.config import AlignmentConfig
from jaxehr.training.loop import Trained
from jaxehr.training.stages import Stages
from jaxehr.training.steps import mean_loss

KEY = jax.random.key(0)
ROWS = 60
CONFIG = dataclasses.replace(
    small(alignment=AlignmentConfig(method="ridge", by_class=False)),
    order="alternating",
    decoder_weight=0.5,
)


@functools.cache
def problem():
    """(objective, parameters, batch of patients of every kind)."""
    layout, fitted, data = encoded(schema(), CONFIG, cohort(schema(), count=ROWS))
    start = {}
    for which in MODALITIES:
        each = make_autoencoder(layout, CONFIG, which).objective(fitted)
        records = turns.records_of(data, which)
        start[which] = each.init(KEY, each.take(records, np.arange(ROWS)))
    found = posterior(layout, CONFIG, start, data)
    imputers, _ = alignment.fit_alignment(
        KEY, found, layout.num_classes, CONFIG.alignment, hidden=False
    )
    joint = turns.Joint(data, imputers, no_whitening(2 * CONFIG.latent))
    objective = turns.joint_objective(layout, CONFIG, fitted, start)
    batch = objective.take(joint, jnp.arange(ROWS))
    has = np.stack([data.has_static, data.has_temporal])
    assert len(np.unique(has, axis=1).T) >= 3  # both parts, and one of them only
    params = objective.init(KEY, batch)
    # Its last layer starts at 0: no coordinate would depend on another one.
    params["score"] = jax.tree.map(lambda leaf: leaf + 0.1, params["score"])
    return jax.jit(objective.loss), params, batch


@functools.cache
def gradients(name):
    """Of one part of the loss, by top-level parameters."""
    loss, params, batch = problem()
    grads = jax.jit(jax.grad(lambda p: loss(p, KEY, batch)[1][name]))(params)
    size = lambda tree: max(
        float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree)
    )
    found = {"score": size(grads["score"])}
    for which in MODALITIES:
        for half, tree in grads[which].items():
            found[f"{which} {half}"] = size(tree)
    return found


def test_the_loss_is_the_sum_of_its_parts():
    loss, params, batch = problem()
    total, told = loss(params, KEY, batch)
    wanted = told["score"] + CONFIG.decoder_weight * told["decoders"]
    for which in MODALITIES:
        wanted += told[f"{which}_reconstruction"]
        wanted += CONFIG.kl_weight * told[f"{which}_kl"]
    np.testing.assert_allclose(total, wanted, rtol=1e-5)


def test_imputed_latents_enter_no_reconstruction():
    # Only the diffusion learns from them.
    loss, params, batch = problem()
    other = jax.tree.map(lambda leaf: leaf * 3.0 + 1.0, dict(batch.common))
    before, after = (
        loss(params, KEY, batch._replace(common=common))[1]
        for common in (batch.common, other)
    )
    assert abs(before["score"] - after["score"]) > 1e-3
    for name in ("decoders", "static_reconstruction", "temporal_reconstruction"):
        np.testing.assert_array_equal(before[name], after[name])


def test_the_decoders_learn_from_complete_patients():
    loss, params, batch = problem()
    people = batch.patients
    both = people.has_static & people.has_temporal
    # Values of anyone else say nothing; the mean is over all rows.
    changed = people.static._replace(
        numeric=jnp.where(both[:, None], people.static.numeric, 3.0)
    )
    other = batch._replace(patients=people._replace(static=changed))
    before, after = (loss(params, KEY, one)[1] for one in (batch, other))
    np.testing.assert_array_equal(before["decoders"], after["decoders"])
    changed = people.static._replace(
        numeric=jnp.where(both[:, None], 3.0, people.static.numeric)
    )
    other = batch._replace(patients=people._replace(static=changed))
    assert loss(params, KEY, other)[1]["decoders"] != before["decoders"]


def test_denoised_latents_move_the_decoders_alone():
    found = gradients("decoders")
    moved = {name for name, size in found.items() if size > 1e-5}
    assert moved == {"static decoder", "temporal decoder"}
    assert {size for name, size in found.items() if name not in moved} == {0.0}


def test_the_diffusion_moves_the_score_network_alone():
    found = gradients("score")
    assert {name for name, size in found.items() if size != 0.0} == {"score"}


def stages_of(monkeypatch, config=CONFIG, **options):
    """Fits without a step; what each stage was given: (name, objective, data, config,
    people who validate)."""
    seen = []

    def first_weights(self, name, key, objective, data, train, valid=None, start=None):
        seen.append((name, objective, data, train, valid))
        params = jax.jit(objective.init)(key, objective.take(data, jnp.arange(4)))
        return Trained(params, None, 0.0)

    monkeypatch.setattr(Stages, "run", first_weights)
    config = dataclasses.replace(config, turns=2)
    flexgen(schema(), config).fit(KEY, cohort(schema(), count=ROWS), **options)
    return seen


def test_those_who_validate_choose_the_average_of_the_last_turn(monkeypatch):
    people = cohort(schema(), seed=7, count=30)
    stages = stages_of(monkeypatch, valid=people)
    given = {name: valid for name, *_, valid in stages}
    assert [name for name, valid in given.items() if valid is None] == ["turn-0"]
    _, objective, data, config, valid = stages[-1]
    # Whoever has a part, encoded as those who learn; the turn's imputers and whitening.
    has = people.has_static | people.has_temporal
    np.testing.assert_array_equal(valid.patients.label, people.label[has])
    for one, two in zip(*map(jax.tree.leaves, (valid[1:], data[1:])), strict=True):
        np.testing.assert_array_equal(one, two)
    assert config.eval_every == 1  # 15 steps a turn
    judge = functools.partial(mean_loss, objective, config)
    params = jax.eval_shape(objective.init, KEY, objective.take(data, jnp.arange(4)))
    assert jax.eval_shape(judge, KEY, params, valid).shape == ()


def test_a_divergence_summed_over_the_batch_knows_the_batch_of_its_stage(monkeypatch):
    made, asked = turns.joint_objective, []
    note = lambda *given: asked.append(given[1]) or made(*given)
    monkeypatch.setattr(turns, "joint_objective", note)
    train = dataclasses.replace(CONFIG.train, batch_size=512)
    config = dataclasses.replace(CONFIG, kl_reduction="batch", train=train)
    stages = {name: rest for name, *rest in stages_of(monkeypatch, config)}
    _, patients, train, _ = stages["turn-0"]
    assert asked[0].train == train
    assert train.batch_size == len(patients.patients.label) < ROWS
    objective, data, train, _ = stages["static"]
    assert train.batch_size == 16  # of few patients; see `autoencoder_batch`
    batch = objective.take(data, jnp.arange(16))
    params = jax.jit(objective.init)(KEY, batch)
    loss, told = jax.jit(objective.loss)(params, KEY, batch)
    part = make_layout(schema(), config).static
    wanted = told["reconstruction"] / part.num_outputs + 16 * told["kl"]
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_alternating_names_every_alignment(monkeypatch):
    heard = []
    stages_of(monkeypatch, announce=heard.append)
    told = [text.split(",")[0] for text in heard if text.startswith("alignment")]
    assert told == 3 * ["alignment: ridge"]
    assert len([text for text in heard if text.startswith("latents: static")]) == 3


def test_alternating_keeps_one_learning_rate():
    train = dataclasses.replace(CONFIG.train, lr_schedule="cosine")
    with pytest.raises(InputError, match="needs lr_schedule constant, got cosine"):
        dataclasses.replace(CONFIG, train=train)
