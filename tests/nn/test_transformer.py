"""The encoder: attention over valid steps only, positions, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.nn.transformer import TransformerEncoder, position_waves

LENGTH = np.array([5, 3, 3, 0])


def make(**options):
    x = jax.random.normal(jax.random.key(0), (4, 5, 3))
    net = TransformerEncoder(
        **({"width": 16, "num_heads": 2, "num_layers": 1} | options)
    )
    return net, jax.jit(net.init)(jax.random.key(1), x), x


def test_a_padded_row_equals_the_row_alone():
    net, params, x = make(positions="sinusoidal")
    run = jax.jit(net.apply)
    padded = run(params, x, jnp.array(LENGTH))
    for row, count in enumerate(LENGTH):
        np.testing.assert_array_equal(padded[row, count:], 0.0)
        if count:
            alone = run(params, x[row : row + 1, :count])[0]
            # float32, values of size 1 after the last LayerNorm
            np.testing.assert_allclose(padded[row, :count], alone, atol=2e-5)


def test_what_stands_at_padding_changes_nothing():
    net, params, x = make()
    length = jnp.array(LENGTH)
    padding = jnp.arange(5)[None, :, None] >= length[:, None, None]

    @jax.jit
    def gradients(params, x):
        loss = lambda params, x: jnp.sum(jnp.sin(net.apply(params, x, length)))
        return jax.value_and_grad(loss, (0, 1))(params, x)

    wanted = gradients(params, x)
    got = gradients(params, jnp.where(padding, jnp.nan, x))
    jax.tree.map(np.testing.assert_array_equal, got, wanted)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(wanted))


def test_without_positions_the_order_of_steps_is_not_seen_and_with_them_it_is():
    net, params, x = make()
    run = jax.jit(net.apply)
    still = jax.tree.map(lambda leaf: leaf, params)
    still["params"]["positions"] = jnp.zeros((5, 16))
    order = jnp.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(
        run(still, x[:, order]), run(still, x)[:, order], atol=2e-5
    )
    assert np.abs(run(params, x[:, order]) - run(params, x)[:, order]).max() > 1e-3


def test_last_norm_gives_mean_0_and_variance_1():
    net, params, x = make()
    h = np.asarray(jax.jit(net.apply)(params, x))
    np.testing.assert_allclose(h.mean(-1), 0.0, atol=1e-5)
    # LayerNorm adds 1e-6 to the variance
    np.testing.assert_allclose(h.var(-1), 1.0, atol=1e-4)


def test_position_waves_by_formula():
    waves = np.asarray(position_waves(7, 6))
    k, i = np.arange(7)[:, None], np.arange(3)[None, :]
    angle = k * 10_000.0 ** (-i / 3)
    np.testing.assert_allclose(waves[:, :3], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(waves[:, 3:], np.cos(angle), atol=1e-6)


def test_unknown_positions_are_refused():
    with pytest.raises(InputError, match="unknown positions 'rotary'; known: learned"):
        make(positions="rotary")
