"""The joint objective of an alternating training: what enters it, what it moves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flexgen_cohorts import encoded, small
from small_cohorts import cohort, schema

from jaxehr.diffusion.whitening import no_whitening
from jaxehr.models.flexgen import alignment, turns
from jaxehr.models.flexgen.autoencoders import make_autoencoder
from jaxehr.models.flexgen.records import MODALITIES
from jaxehr.models.flexgen.training import posterior
from jaxehr.ot.config import AlignmentConfig

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
