"""Masked layers: the formula, what a bit reaches; draws are exact, rules are kept."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from jaxehr.nn import autoregressive
from jaxehr.nn.autoregressive import MaskedLayers, Rules, draw_bits, open_bits, products

KEY = jax.random.key(0)
WIDTH, BITS = 3, 11  # a chunk of 4 bits is not full
NET = MaskedLayers()


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr(autoregressive, "CHUNK", 4)


@functools.cache
def weights():
    """Large enough that every bit moves the later ones."""
    params = NET.init(KEY, jnp.zeros((1, WIDTH)), jnp.zeros((1, BITS)))["params"]
    return jax.tree.map(lambda leaf: 4.0 * leaf, params)


def logits(history, bits):
    return np.asarray(NET.apply({"params": weights()}, history, bits))


def history(rows):
    return jax.random.normal(jax.random.key(1), (rows, WIDTH))


def free(bits):
    """Every bit is a column of its own."""
    return Rules(np.ones(bits, bool), np.ones(bits, bool), np.zeros(bits, bool))


def test_the_formula():
    rng, size = np.random.default_rng(0), WIDTH + BITS
    h, x = np.asarray(history(2)), rng.integers(0, 2, (2, BITS)).astype(float)
    tree = jax.tree.map(np.asarray, weights())
    assert sum(leaf.size for leaf in tree.values()) == 2 * (size**2 + size)
    u = np.concatenate([h, x], 1)
    # Kernels as torch has them, [outputs, inputs].
    first, second = np.tril(tree["kernel_1"].T), np.tril(tree["kernel_2"].T)
    a = np.maximum(u @ first.T + tree["bias_1"], 0)
    o = a @ second.T + tree["bias_2"]
    np.testing.assert_allclose(logits(h, x), o[:, WIDTH - 1 : -1], rtol=1e-4, atol=1e-5)


def test_a_bit_reaches_later_logits_only():
    """At 20 places, for hidden units rest at some."""
    x = jax.random.normal(jax.random.key(2), (20, BITS))
    run = lambda h, x: NET.apply({"params": weights()}, h, x)
    both = jax.vmap(jax.jacobian(run, argnums=(0, 1)))(history(20), x)
    reach, jacobian = (np.abs(np.asarray(leaf)).sum(0) for leaf in both)
    assert not np.triu(jacobian).any()
    assert (jacobian[np.tril_indices(BITS, -1)] > 0).all()
    assert (reach > 0).all()


@pytest.mark.parametrize(("low", "high"), [(0, 11), (0, 8), (5, 11), (3, 4)])
@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_drawn_logits_are_those_of_the_layers(monkeypatch, low, high, chunk):
    """Bits outside the range are 0: what comes before it, and what comes after."""
    monkeypatch.setattr(autoregressive, "CHUNK", chunk)
    parts = products(weights(), WIDTH, low, high)
    level = jax.random.uniform(KEY, (5, high - low))
    bits, found = draw_bits(parts, history(5), level, free(high - low))
    whole = np.pad(np.asarray(bits), [(0, 0), (low, BITS - high)])
    wanted = logits(history(5), whole)[:, low:high]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(bits, level < special.expit(np.asarray(found)))
    if high - low > 4:
        assert set(np.unique(bits)) == {0.0, 1.0}


# Columns of 3 states that may be missing, of 3 that may not, and one bit.
STATE = np.array([1, 2, 3, 1, 2, 3, 1])
OWNER = np.array([0, 0, 0, 1, 1, 1, 2])
MUST = np.array([0, 0, 0, 0, 0, 1, 0], bool)
RULES = Rules(STATE == 1, np.ones(7, bool), MUST)


def law(row):
    """{bits: probability} of everything that the rules allow, by enumeration."""
    found = {}
    for codes in itertools.product(range(4), range(1, 4), range(2)):
        bits = (np.asarray(codes)[OWNER] == STATE).astype(float)
        chosen = np.asarray(open_bits(np.asarray(codes), OWNER, STATE, MUST))
        whole = np.pad(bits, (0, BITS - 7))[None]
        p = special.expit(logits(row[None], whole)[0, :7])
        each = np.where(bits == 1, p, 1 - p)
        found[tuple(bits)] = each[chosen].prod()
    return found


def test_what_the_rules_allow_has_probability_one():
    for row in history(3):
        np.testing.assert_allclose(sum(law(row).values()), 1.0, rtol=1e-5)


def test_draws_are_as_frequent_as_enumerated():
    """Chi-square of 4,000 draws over all 24 outcomes."""
    row, count = history(1)[0], 4000
    many = jnp.broadcast_to(row, (count, WIDTH))
    level = jax.random.uniform(KEY, (count, 7))
    run = jax.jit(functools.partial(draw_bits, products(weights(), WIDTH, 0, 7)))
    bits = np.asarray(run(many, level, RULES)[0])
    wanted = law(row)
    seen = dict.fromkeys(wanted, 0)
    for one in bits:
        seen[tuple(one)] += 1
    counts, p = np.array(list(seen.values())), np.array(list(wanted.values()), float)
    rare = p * count < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    p = np.append(p[~rare], max(p[rare].sum(), 1e-9))
    assert len(p) > 8
    assert stats.chisquare(counts, count * p / p.sum()).pvalue > 1e-3


def test_a_bit_that_is_not_allowed_is_zero_and_one_that_must_be_is_one():
    allowed, must = np.array([True] * 6 + [False]), np.array([False] * 3 + [True] * 4)
    ones = Rules(np.ones(7, bool), allowed, must & (np.arange(7) < 6))
    parts = products(weights(), WIDTH, 0, 7)
    bits = np.asarray(draw_bits(parts, history(40), jnp.zeros((40, 7)), ones)[0])
    assert bits[:, :6].all()  # level 0 is below every chance
    assert not bits[:, 6].any()
    bits = np.asarray(draw_bits(parts, history(40), jnp.ones((40, 7)), ones)[0])
    assert bits[:, 3:6].all()
    assert not bits[:, [0, 1, 2, 6]].any()
