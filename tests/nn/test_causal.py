"""The causal transformer: against NumPy, never from later positions, from a cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxehr.nn.causal import CausalTransformer

KEY = jax.random.key(0)
NET = CausalTransformer(width=8, num_heads=2, num_layers=2, num_positions=6)


@functools.cache
def weights():
    """Weights whose every part matters: biases and scales are no zeros and ones."""
    params = NET.init(KEY, jnp.zeros((1, 6, 8)))
    keys = iter(jax.random.split(KEY, 100))
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), params
    )


def x():
    return jax.random.normal(jax.random.key(1), (3, 6, 8))


def test_number_of_weights():
    """Positions, 12 E^2 + 13 E a block, the last normalisation."""
    count = sum(leaf.size for leaf in jax.tree.leaves(weights()))
    assert count == 6 * 8 + 2 * (12 * 64 + 13 * 8) + 2 * 8


def test_against_numpy():
    """One patient, position by position."""
    tree = jax.tree.map(np.asarray, weights()["params"])
    dense = lambda h, p: h @ p["kernel"] + p["bias"]

    def norm(h, p):
        h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
        return h * p["scale"] + p["bias"]

    def gelu(h):
        return 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))

    h = np.asarray(x()[0]) + tree["positions"]
    for layer in ("layers_0", "layers_1"):
        p, out = tree[layer], np.zeros((6, 8))
        three = dense(norm(h, p["norm_attention"]), p["attention"])
        for t in range(6):
            for head in range(2):
                part = lambda k, head=head: slice(
                    8 * k + 4 * head, 8 * k + 4 * head + 4
                )
                scores = three[: t + 1, part(1)] @ three[t, part(0)] / 2.0
                out[t, part(0)] = special.softmax(scores) @ three[: t + 1, part(2)]
        h = h + dense(out, p["project"])
        inner = gelu(dense(norm(h, p["norm_dense"]), p["expand"]))
        h = h + dense(inner, p["contract"])
    wanted = norm(h, tree["norm_last"])
    np.testing.assert_allclose(NET.apply(weights(), x())[0], wanted, atol=2e-5)


def test_an_input_reaches_no_earlier_output():
    before = np.asarray(NET.apply(weights(), x()))
    push = jax.random.normal(KEY, (8,))  # a constant is normalised away
    for t in range(6):
        after = np.asarray(NET.apply(weights(), x().at[:, t].add(push)))
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert (np.abs(after[:, t:] - before[:, t:]).max(-1) > 1e-4).all()


def test_steps_from_the_cache_are_the_whole():
    wanted = np.asarray(NET.apply(weights(), x()))

    def step(cache, ahead):
        x, t = ahead
        found, cache = NET.apply(weights(), x, cache, t, method="step")
        return cache, found

    cache = NET.apply(weights(), 3, method="start")
    ahead = (jnp.swapaxes(x(), 0, 1), jnp.arange(6))
    _, found = jax.jit(functools.partial(jax.lax.scan, step))(cache, ahead)
    np.testing.assert_allclose(jnp.swapaxes(found, 0, 1), wanted, atol=1e-5)


def test_fewer_positions_are_a_prefix():
    wanted = NET.apply(weights(), x())[:, :4]
    np.testing.assert_allclose(NET.apply(weights(), x()[:, :4]), wanted, atol=1e-6)
