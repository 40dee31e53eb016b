"""The GPU kernel and bfloat16 products against the plain form.

Without a GPU the kernel is interpreted; with one it is the compiled kernel.
"""

import functools
import operator
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.nn import gru_kernel
from jaxehr.nn.gru import BiGru

# float32: sums of some ten terms of size 1 in another order. bfloat16 keeps 8 bits, so
# that a factor is off by 2^-9 at most; some ten of them add up in two layers.
LENGTH = jnp.array([5, 0, 3, 5, 1])


@pytest.fixture(autouse=True)
def whole_float32():
    """A GPU rounds the factors of float32 products to TF32 by default."""
    with jax.default_matmul_precision("highest"):
        yield


def both(form, products, length, hidden=6):
    """States and gradients of the plain form and of another one."""
    x = jax.random.normal(jax.random.key(0), (5, 5, 3))
    plain = BiGru(hidden=hidden, num_layers=2, form="plain")
    params = jax.jit(plain.init)(jax.random.key(1), x)

    def run(net):
        def loss(params, x):
            h = net.apply(params, x, length)
            return jnp.sum(jnp.sin(h)), h

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)

    return run(plain), run(BiGru(hidden, 2, form, products))


@pytest.mark.parametrize("length", [None, LENGTH], ids=["full", "padded"])
@pytest.mark.parametrize(
    ("form", "products", "error"),
    [
        ("kernel", "float32", 3e-6),
        ("kernel", "bfloat16", 1e-2),
        ("blocked", "bfloat16", 1e-2),
    ],
)
def test_values_and_gradients_are_those_of_the_plain_form(
    form, products, error, length
):
    wanted, found = both(form, products, length)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=error, atol=error * 2)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="rounds on a GPU only")
@pytest.mark.parametrize("length", [None, LENGTH], ids=["full", "padded"])
def test_products_as_a_gpu_rounds_them_by_default(length):
    """TF32 keeps 10 bits: a factor is off by 2^-11, a fourth of bfloat16's."""
    with jax.default_matmul_precision("default"):
        found = both("kernel", "float32", length)[1]
    wanted = both("kernel", "float32", length)[0]
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=3e-3, atol=6e-3)


def test_gradients_of_weights_are_not_rounded_to_bfloat16():
    """The gradient of a rounded factor is one of 8 bits where JAX makes it."""
    found = both("kernel", "bfloat16", None)[1][0][0]["params"]["layer_0"]
    for direction in ("forward", "backward"):
        for name in ("w_input", "w_hidden"):
            leaf = np.asarray(found[direction][name])
            assert (leaf != leaf.astype(jnp.bfloat16).astype(np.float32)).mean() > 0.9


def test_many_networks_side_by_side():
    """As shadow models are trained on a GPU: `vmap` adds an axis to the kernel."""
    x = jax.random.normal(jax.random.key(0), (4, 3, 5, 3))
    net = BiGru(hidden=4, num_layers=1, form="kernel")
    params = jax.vmap(net.init, (0, None))(jax.random.split(jax.random.key(1), 4), x[0])
    slope = jax.jit(jax.grad(lambda params, x: jnp.sum(jnp.sin(net.apply(params, x)))))
    every = jax.vmap(slope)(params, x)
    for i in range(4):
        one = slope(*jax.tree.map(operator.itemgetter(i), (params, x)))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(every), strict=True):
            np.testing.assert_allclose(b[i], a, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize(("hidden", "has"), [(64, True), (65, False), (256, False)])
def test_wide_networks_have_no_kernel(hidden, has, monkeypatch):
    assert not gru_kernel.has_kernel(64) or jax.default_backend() == "gpu"
    monkeypatch.setattr(gru_kernel, "interpreted", lambda: False)
    assert gru_kernel.has_kernel(hidden) == has


@pytest.mark.parametrize(
    ("capabilities", "has"),
    [
        (["7.0"], False),  # V100
        (["7.5"], False),  # T4, TITAN RTX
        (["8.0"], True),
        (["12.0"], True),
        (["gfx90a"], True),  # ROCm
        (["9.0", "7.5"], False),
    ],
)
def test_gpus_before_ampere_have_no_kernel(capabilities, has, monkeypatch):
    gpus = [types.SimpleNamespace(compute_capability=each) for each in capabilities]
    monkeypatch.setattr(gru_kernel, "interpreted", lambda: False)
    monkeypatch.setattr(gru_kernel.jax, "devices", lambda: gpus)
    assert gru_kernel.has_kernel(64) == has


def test_more_rows_than_one_program_takes():
    rows = gru_kernel.ROWS + 3
    x = jax.random.normal(jax.random.key(0), (rows, 4, 3))
    length = jnp.arange(rows) % 5
    net = BiGru(hidden=4, num_layers=1, form="kernel")
    params = net.init(jax.random.key(1), x)
    plain = BiGru(hidden=4, num_layers=1, form="plain")
    for asked in (None, length):
        np.testing.assert_allclose(
            net.apply(params, x, asked), plain.apply(params, x, asked), 3e-6, 3e-6
        )


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_it_compiles_to_triton_without_a_gpu(products, monkeypatch, capsys):
    """Both passes become GPU kernels; what they compute there, only a GPU can show."""
    monkeypatch.setattr(gru_kernel, "interpreted", lambda: False)
    told = functools.partial(gru_kernel.pl.pallas_call, debug=True)
    monkeypatch.setattr(gru_kernel.pl, "pallas_call", told)
    x, length = jnp.zeros((40, 25, 14)), jnp.full(40, 25)
    net = BiGru(64, 1, "kernel", products)
    params = BiGru(64, 1, "plain").init(jax.random.key(0), x)
    loss = lambda params: net.apply(params, x, length).sum()
    traced = jax.jit(jax.grad(loss)).trace(params)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("gru_forward") >= 2
    assert text.count("gru_backward") >= 2
    # A choice of two numbers known at compile time is lowered to one of two Booleans:
    # the first step of a direction read the wrong inputs, on a GPU only.
    shown = capsys.readouterr().out
    assert shown.count("tt.func") == 2
    assert "arith.extui" not in shown
