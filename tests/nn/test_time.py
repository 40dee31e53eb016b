"""Time embedding and modulation against their formulas."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.nn.time import Film, TimeEmbedding, sinusoid


def test_sinusoid_is_that_of_timediff_on_its_step_numbers():
    t = np.array([0.0, 0.25, 0.999])
    k = np.arange(32)
    angle = 1000 * t[:, None] * np.exp(-np.log(10_000) * k / 31)
    wanted = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    # float32 angles up to 1,000 are off by up to 1000 * 2^-24 = 6e-5
    np.testing.assert_allclose(sinusoid(jnp.array(t)), wanted, atol=2e-4)


def test_time_embedding_has_the_sizes_of_timediff_and_the_exact_gelu():
    t = jnp.array([0.1, 0.9])
    embed = TimeEmbedding()
    params = embed.init(jax.random.key(0), t)
    sizes = jax.tree.map(jnp.shape, params["params"])
    assert sizes["first"]["kernel"] == (64, 256)
    assert sizes["second"]["kernel"] == (256, 256)
    first, second = params["params"]["first"], params["params"]["second"]
    h = nn.gelu(sinusoid(t) @ first["kernel"], approximate=False)
    np.testing.assert_allclose(
        embed.apply(params, t), h @ second["kernel"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3)])
def test_film_scales_and_shifts_every_step_of_a_row_alike(shape):
    h = jax.random.normal(jax.random.key(0), shape)
    time = jnp.array([[0.5], [-1.0]])
    scale, shift = jnp.array([1.0, 0.0, -2.0]), jnp.array([0.0, 3.0, 0.5])
    kernel = jnp.concatenate([scale, shift])[None, :]
    params = {"modulation": {"kernel": kernel, "bias": jnp.zeros(6)}}
    got = Film().apply({"params": params}, h, time)
    for row in range(2):
        gate = nn.silu(time[row])
        wanted = h[row] * (1 + gate * scale) + gate * shift
        np.testing.assert_allclose(got[row], wanted, rtol=1e-6)
