"""The denoiser: padding, first prediction, size, conditions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from cdmt_builders import config, fitted_model, untrained
from small_cohorts import cohort, schema

from jaxehr.core.cohort import Feature, valid_steps
from jaxehr.models.cdmt.config import preset
from jaxehr.models.cdmt.network import noise_input
from jaxehr.models.cdmt.objective import (
    clean,
    flat,
    init_params,
    make_frame,
)

MADE = schema()
PEOPLE = cohort(MADE, count=12)


@functools.cache
def perturbed():
    return untrained(MADE, config(num_layers=2), PEOPLE, spread=0.3)


@functools.cache
def applied():
    """The jitted network, its parameters, inputs and frame."""
    model, params, batch = perturbed()
    inputs = flat(clean(model, params["weights"], batch))
    frame = make_frame(model, batch.label, batch.length, batch.has_static)
    t = jnp.linspace(0.0, 1.0, 12)
    run = jax.jit(
        lambda p, x, t, frame: model.network.apply({"params": p}, x, t, frame)
    )
    return run, params["weights"]["network"], inputs, t, frame


def test_padding_reaches_nothing():
    """NaN at padding changes no output at a valid step, nor a gradient."""
    run, params, inputs, t, frame = applied()
    valid = valid_steps(PEOPLE)[..., None]
    dirty = inputs._replace(
        numeric=jnp.where(valid, inputs.numeric, jnp.nan),
        coded=jnp.where(valid, inputs.coded, jnp.nan),
    )

    def total(p, x):
        out = run(p, x, t, frame)
        seen = jnp.where(valid, out.numeric, 0.0).sum()
        coded = jnp.where(valid[..., None], jnp.tanh(out.coded), 0.0).sum()
        static = out.static_numeric.sum() + jnp.tanh(out.static_coded).sum()
        return seen + coded + static, out

    grad = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    (clean_p, clean_x), clean_out = grad(params, inputs)
    (dirty_p, dirty_x), dirty_out = grad(params, dirty)
    keep = lambda out: [np.asarray(out.numeric)[valid[..., 0]], *out[2:]]
    jax.tree.map(np.testing.assert_array_equal, keep(dirty_out), keep(clean_out))
    jax.tree.map(np.testing.assert_array_equal, dirty_p, clean_p)
    for leaf in (dirty_x.numeric, dirty_x.coded):
        assert not np.asarray(leaf)[~valid[..., 0]].any()
    jax.tree.map(np.testing.assert_array_equal, dirty_x, clean_x)


def test_an_absent_static_part_is_not_looked_at():
    run, params, inputs, t, frame = applied()
    absent = ~PEOPLE.has_static[:, None]
    other = inputs._replace(
        static_numeric=jnp.where(absent, 9.0, inputs.static_numeric),
        static_coded=jnp.where(absent, -9.0, inputs.static_coded),
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        run(params, other, t, frame),
        run(params, inputs, t, frame),
    )


def test_static_part_and_label_reach_every_output():
    run, params, inputs, t, frame = applied()
    base = run(params, inputs, t, frame)
    other_label = frame._replace(condition=1.0 - frame.condition)
    moved = inputs._replace(static_numeric=inputs.static_numeric + 1.0)
    whole = PEOPLE.has_static & (PEOPLE.length > 0)
    for out in (run(params, inputs, t, other_label), run(params, moved, t, frame)):
        for one, two in zip(out, base, strict=True):
            change = np.abs(np.asarray(one - two)).reshape(12, -1).max(-1)
            assert (change[whole] > 0).all()


def test_patients_do_not_mix():
    run, params, inputs, t, frame = applied()
    others = jax.tree.map(lambda leaf: leaf[::-1], (inputs, t, frame))
    swap = lambda a, b: jnp.concatenate([a[:5], b[5:]])
    mixed = jax.tree.map(swap, (inputs, t, frame), others)
    found, wanted = run(params, *mixed), run(params, inputs, t, frame)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[:5], b[:5]), found, wanted
    )


def test_the_first_prediction_is_the_marginal():
    """Logits are log frequencies, and F = 0: the denoised value is c_skip x."""
    run, _, inputs, t, frame = applied()
    _, params, _ = untrained(MADE, config(num_layers=2), PEOPLE)
    out = run(params["weights"]["network"], inputs, t, frame)
    for name, where in (("coded", "temporal"), ("static_coded", "static")):
        shares = params["fitted"]["frequency"][where]
        found = jax.nn.softmax(getattr(out, name), -1)
        wanted = np.broadcast_to(shares, found.shape)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert not np.asarray(out.numeric).any()
    assert not np.asarray(out.static_numeric).any()


def count_weights(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_size_of_the_paper_s_model():
    """MIMIC-III: 7 variables and 7 masks over 25 steps, d = 16, 64 units, 2 classes."""
    features = tuple(Feature(name=f"v{i}", kind="numeric") for i in range(7))
    made = schema(static=(), temporal=features).replace(num_steps=25)
    model, fitted, batch = fitted_model(
        made, preset("paper-mimic3"), cohort(made, count=4)
    )
    start = functools.partial(init_params, model, fitted)
    params = jax.eval_shape(start, jax.random.key(0), batch)
    hidden, inputs, outputs = 64, 7 + 7 * 16 + 2, 7 + 7 * 2
    assert (inputs, outputs) == (121, 21)
    # Gates r, z, n: input and hidden weights, a bias, another for n's hidden part
    direction = lambda c: 3 * hidden * (c + hidden + 1) + hidden
    gru = 2 * (direction(inputs) + 2 * direction(2 * hidden))
    time = (64 * 256 + 256) + (256 * 256 + 256)
    film = 256 * 2 * (2 * hidden) + 2 * (2 * hidden)
    norm, head = 2 * (2 * hidden), 2 * hidden * outputs + outputs
    assert count_weights(params["network"]) == gru + time + film + norm + head
    assert count_weights(params["rho"]) == 1 + 7 + 25 == 33  # 175 without factorising
    assert count_weights(params["coded"]) == 33 + 7 * 2 * 16
    # The static part is empty but for the global terms of its two schedules.
    rest = {k: params[k] for k in ("static_rho", "static_coded")}
    assert count_weights(rest) == 2


def test_time_inputs():
    """t itself, or ln(sigma) / 4 of the schedule 0.002 to 80 with rho = 7."""
    t = jnp.array([0.0, 0.25, 0.5, 1.0])
    np.testing.assert_array_equal(noise_input(config(), t), t)
    found = noise_input(config(time_input="c_noise"), t) * 1000
    sigma = np.array([0.002, 0.1698, 2.5152, 80.0])
    np.testing.assert_allclose(found, np.log(sigma) / 4, atol=1e-4)
