"""Normalisation by hand, settled moments, errors against SciPy, clipped weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special
from small_cohorts import cohort, complete, schema

from jaxehr.baselines import adversarial as shared
from jaxehr.baselines.adversarial import Norm, Residual
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.rows import FLAT

SIZE, EPSILON = 6, shared.GENERATOR_EPSILON


@functools.cache
def generator():
    """Parameters of three layers, none of them at its start."""
    params = Residual(3).init(jax.random.key(0), jnp.zeros((2, SIZE)))["params"]
    leaves, shape = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)]
    return jax.tree.unflatten(shape, noisy)


def doubles(leaves):
    return {name: np.asarray(leaf, float) for name, leaf in leaves.items()}


def by_hand(params, h, moments=None):
    """Output and moments in NumPy; moments of `h` itself unless given."""
    found = {}
    for layer in range(3):
        inner = h @ np.asarray(params[f"layer_{layer}"]["kernel"], float)
        mean, var = inner.mean(0), inner.var(0)
        found[f"norm_{layer}"] = mean, var
        if moments is not None:
            kept = {
                k: np.asarray(v, float) for k, v in moments[f"norm_{layer}"].items()
            }
            mean, var = kept["mean"], kept["square"] - kept["mean"] ** 2
        norm = {k: np.asarray(v, float) for k, v in params[f"norm_{layer}"].items()}
        inner = (inner - mean) / np.sqrt(var + EPSILON) * norm["scale"] + norm["shift"]
        h = (np.tanh(inner) if layer == 2 else np.maximum(inner, 0.0)) + h
    return h, found


def test_residual_layers_by_hand():
    z = np.random.default_rng(0).normal(size=(50, SIZE))
    out, found = shared.call(Residual(3), generator(), jnp.asarray(z, jnp.float32), {})
    wanted, moments = by_hand(generator(), z)
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)
    for name, (mean, var) in moments.items():
        np.testing.assert_allclose(found[name]["mean"], mean, rtol=1e-4, atol=1e-5)
        square = found[name]["square"] - found[name]["mean"] ** 2
        np.testing.assert_allclose(square, var, rtol=1e-3, atol=1e-4)


def test_the_generator_has_the_counted_parameters():
    """Three layers of l^2 weights, a scale and a shift for each unit; no bias."""
    count = sum(leaf.size for leaf in jax.tree.leaves(generator()))
    assert count == 3 * (SIZE**2 + 2 * SIZE)


def test_settled_moments_are_those_of_fresh_noise():
    """By 20,000 other rows: both estimates err by at most 5 standard errors."""
    run = lambda moments, z: shared.call(Residual(3), generator(), z, moments)[1]
    settle = jax.jit(lambda key: shared.settle(key, run, SIZE))
    moments = settle(jax.random.key(2))
    fresh = np.random.default_rng(5).normal(size=(20_000, SIZE))
    _, found = by_hand(generator(), fresh, moments)
    rows = shared.SETTLING * shared.SETTLING_ROWS
    error = np.sqrt(1 / rows + 1 / len(fresh))
    for name, (mean, var) in found.items():
        kept = moments[name]
        gap = np.asarray(kept["mean"]) - mean
        assert np.abs(gap / np.sqrt(var)).max() < 5 * error
        settled = np.asarray(kept["square"]) - np.asarray(kept["mean"]) ** 2
        # a variance of heavy tails errs more than a normal's sqrt(2)
        assert np.abs(settled / var - 1.0).max() < 5 * 2.5 * error
    again = run(moments, jnp.asarray(fresh, jnp.float32))
    same = jax.tree.leaves(
        jax.tree.map(lambda a, b: np.abs(a - b).max(), again, moments)
    )
    assert max(same) < 0.2


def test_settled_moments_do_not_change_with_the_batch():
    run = lambda moments, z: shared.call(Residual(3), generator(), z, moments)
    z = jax.random.normal(jax.random.key(3), (8, SIZE))
    moments = run({}, z)[1]
    whole, some = run(moments, z)[0], run(moments, z[:3])[0]
    np.testing.assert_allclose(whole[:3], some, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole, run({}, z)[0], rtol=1e-5, atol=1e-6)


def test_a_constant_channel_stays_finite():
    x = jnp.full((9, 2), 1000.1)
    params = Norm(1e-5).init(jax.random.key(0), x)["params"]
    out = Norm(1e-5).apply({"params": params}, x)
    # the mean is rounded to 1e-7 of itself, and divided by sqrt(epsilon)
    np.testing.assert_allclose(out, 0.0, atol=1000 * 1e-7 / np.sqrt(1e-5))


def test_the_cross_entropy_is_that_of_every_column(x64):
    people = complete(cohort(schema()))
    fitted = FLAT.fit(schema(), people, False)
    layout = FLAT.layout(schema(), fitted)
    batch = FLAT.take(layout, FLAT.encode(fitted, layout, people), jnp.arange(9))
    x = matrix.blocks_of(layout, batch, unit=True)
    outputs = np.random.default_rng(0).normal(size=(9, layout.width))
    heads, wanted = matrix.split(layout, outputs), np.zeros(9)
    for name in ("numeric", "sums", "binary"):
        p, v = special.expit(getattr(heads, name)), np.asarray(getattr(x, name))
        wanted -= (v * np.log(p) + (1 - v) * np.log(1 - p)).sum(-1)
    for logits, hot in zip(heads.groups, x.groups, strict=True):
        wanted -= (np.asarray(hot) * special.log_softmax(logits, -1)).sum((-1, -2))
    found = shared.cross_entropy(layout, jnp.asarray(outputs), batch)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_penalty_and_judgement_by_hand():
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[2.0]])}
    np.testing.assert_allclose(shared.penalty(0.1, params), 0.05 * 29.0)
    logits = np.array([-2.0, 0.5])
    wanted = -np.log(special.expit(logits)).mean()
    np.testing.assert_allclose(shared.judged(jnp.asarray(logits), True), wanted, 1e-6)
    wanted = -np.log(1 - special.expit(logits)).mean()
    np.testing.assert_allclose(shared.judged(jnp.asarray(logits), False), wanted, 1e-6)


def test_clipping_comes_after_the_update():
    tx = optax.chain(optax.sgd(1.0), shared.clipped(0.25))
    params = {"w": jnp.array([0.2, -0.2, 0.1])}
    grads = {"w": jnp.array([-1.0, 0.02, 0.05])}
    updates, _ = tx.update(grads, tx.init(params), params)
    found = optax.apply_updates(params, updates)
    np.testing.assert_allclose(found["w"], [0.25, -0.22, 0.05], atol=1e-6)


@pytest.mark.parametrize(
    ("patients", "batch", "wanted"), [(1000, 100, 30), (1050, 100, 30), (40, 100, 3)]
)
def test_passes_leave_out_the_rest(patients, batch, wanted):
    assert shared.passes(3, batch, patients) == wanted
