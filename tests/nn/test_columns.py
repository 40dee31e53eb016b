"""Columns as tokens: an attention block by hand, what sees what, sizes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.nn.columns import ColumnDenoiser, TokenEncoder

X = jax.random.normal(jax.random.key(0), (3, 4))
STATES = [
    jax.nn.one_hot(jnp.array([[0, 1, 2]] * 3), 3),  # three binary codes, one masked
    jax.nn.one_hot(jnp.array([[3], [0], [1]]), 4),  # one code of three categories
]


def norm(h, params):
    mean, variance = h.mean(-1, keepdims=True), h.var(-1, keepdims=True)
    return (h - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]


@pytest.mark.parametrize("heads", [1, 2])
def test_encoder_by_hand(heads):
    """softmax(q k' / sqrt(d / heads)) v, residuals, a norm but before the first."""
    h = np.asarray(jax.random.normal(jax.random.key(1), (2, 5, 4)))
    encoder = TokenEncoder(2, heads, 3)
    params = encoder.init(jax.random.key(2), h)
    found = encoder.apply(params, h)
    p = jax.tree.map(np.asarray, params["params"])
    dense = lambda x, name: x @ p[name]["kernel"] + p[name]["bias"]
    split = lambda x: x.reshape(2, 5, heads, -1).transpose(0, 2, 1, 3)
    for i in range(2):
        inner = norm(h, p[f"norm_attention_{i}"]) if i else h
        q, k, v = (split(dense(inner, f"{n}_{i}")) for n in ("query", "key", "value"))
        score = q @ k.transpose(0, 1, 3, 2) / np.sqrt(4 / heads)
        score = np.exp(score - score.max(-1, keepdims=True))
        mixed = (score / score.sum(-1, keepdims=True)) @ v
        mixed = mixed.transpose(0, 2, 1, 3).reshape(2, 5, 4)
        h = h + (dense(mixed, f"mix_{i}") if heads > 1 else mixed)
        inner = np.maximum(dense(norm(h, p[f"norm_dense_{i}"]), f"expand_{i}"), 0)
        h = h + dense(inner, f"contract_{i}")
    np.testing.assert_allclose(found, h, rtol=2e-4, atol=2e-5)


def test_every_column_sees_every_other():
    network = ColumnDenoiser(4, 1, 1, 2, 8)
    level = jnp.array([-1.0, 0.0, 1.0])
    params = network.init(jax.random.key(0), X, STATES, level)
    out, logits = network.apply(params, X, STATES, level)
    assert out.shape == (3, 4)
    assert [leaf.shape for leaf in logits] == [(3, 3, 2), (3, 1, 3)]
    run = lambda x, states, level: network.apply(params, x, states, level)
    other, others = run(X.at[:, 1].add(1.0), STATES, level)
    assert (np.abs(other - out) > 1e-7).all()
    assert all((np.abs(a - b).max(-1) > 1e-7).all() for a, b in zip(others, logits))
    changed = [STATES[0], STATES[1][::-1]]
    assert (np.abs(run(X, changed, level)[0] - out)[0] > 1e-7).all()
    assert (np.abs(run(X, STATES, level + 0.5)[0] - out) > 1e-7).all()


def test_size_of_the_authors_network():
    """[tabdiff2025] on 7 numbers and 7 binary codes: 10.6 million, as its code."""
    network = ColumnDenoiser()
    states = [jnp.zeros((1, 7, 3))]
    begin = lambda key: network.init(key, jnp.zeros((1, 7)), states, jnp.zeros(1))
    shapes = jax.eval_shape(begin, jax.random.key(0))
    dense = lambda *sizes: sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    wanted = dense(56, 1024, 2048, 2048, 1024, 56) + 2 * dense(1024, 1024)
    block = 3 * dense(4, 4) + dense(4, 128, 4) + 8
    wanted += 2 * (2 * block + 8)  # a norm before the second attention
    wanted += 7 * 4 + 7 * 3 * 4 + 14 * 4  # tokens
    wanted += 7 * 4 + 7 * (4 * 2 + 2)  # columns
    found = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert found == wanted
    assert round(found / 1e6, 1) == 10.6
