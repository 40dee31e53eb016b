"""The dense stack against its formula."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.nn.mlp import Mlp


def test_mlp_is_relu_between_affine_maps():
    x = jax.random.normal(jax.random.key(0), (5, 3))
    net = Mlp(widths=(4, 2))
    params = net.init(jax.random.key(1), x)
    first, last = (params["params"][name] for name in ("layer_0", "layer_1"))
    hidden = jnp.maximum(x @ first["kernel"] + first["bias"], 0)
    wanted = hidden @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(net.apply(params, x), wanted, rtol=1e-6, atol=1e-6)


def test_zero_last_starts_at_zero_with_a_gradient():
    x = jnp.ones((2, 3))
    net = Mlp(widths=(4, 2), zero_last=True)
    params = net.init(jax.random.key(0), x)
    np.testing.assert_array_equal(net.apply(params, x), 0.0)
    grads = jax.grad(lambda p: net.apply(p, x).sum())(params)["params"]
    assert np.abs(grads["layer_1"]["kernel"]).max() > 0
