"""LSTM and convolution against formulas, torch, and their padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.nn.temporal import (
    Conv1d,
    ConvStack,
    Lstm,
    LstmWeights,
    blocked_lstm,
    plain_lstm,
)

LENGTH = np.array([5, 3, 3, 0])


def net_and_input(net):
    x = jax.random.normal(jax.random.key(0), (4, 5, 3))
    return jax.jit(net.apply), jax.jit(net.init)(jax.random.key(1), x), x


def test_one_step_by_hand():
    weights = LstmWeights(jnp.full((1, 4), 0.5), jnp.zeros((1, 4)), jnp.full(4, 0.5))
    got = plain_lstm(weights, jnp.ones((1, 1, 1)), None, False)[0, 0, 0]
    gate = 1 / (1 + np.exp(-1.0))
    wanted = gate * np.tanh(gate * np.tanh(1.0))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_lstm_equals_that_of_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.manual_seed(0)
    oracle = torch.nn.LSTM(3, 8, 1, bidirectional=True, batch_first=True)
    state = {name: value.numpy() for name, value in oracle.state_dict().items()}
    params = {
        name: {
            "w_input": state[f"weight_ih_l0{end}"].T,
            "w_hidden": state[f"weight_hh_l0{end}"].T,
            "bias": state[f"bias_ih_l0{end}"] + state[f"bias_hh_l0{end}"],
        }
        for name, end in (("forward", ""), ("backward", "_reverse"))
    }
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    states, (ends, _) = oracle(torch.tensor(x))
    got = Lstm(hidden=8, bidirectional=True).apply({"params": params}, x)
    # float32 sums of 11 terms
    np.testing.assert_allclose(got[0], states.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(
        got[1], np.concatenate(ends.detach().numpy(), axis=1), atol=1e-6
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gradient_by_hand_equals_automatic_differentiation(x64, reverse, masked):
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.array(rng.normal(size=shape))
    weights = LstmWeights(draw(3, 16), draw(4, 16), draw(16))
    x, mix = draw(5, 4, 3), draw(5, 4, 4)
    valid = jnp.arange(5)[:, None] < jnp.array(LENGTH) if masked else None
    results = [
        jax.jit(
            jax.value_and_grad(
                lambda w, x, run=run: jnp.sum(mix * run(w, x, valid, reverse)), (0, 1)
            )
        )(weights, x)
        for run in (blocked_lstm, plain_lstm)
    ]
    # float64 sums in another order
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), *results)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_padded_row_equals_the_row_alone_and_ends_at_its_last_step(bidirectional):
    net = Lstm(hidden=8, bidirectional=bidirectional)
    run, params, x = net_and_input(net)
    states, ends = run(params, x, jnp.array(LENGTH))
    for row, count in enumerate(LENGTH):
        np.testing.assert_array_equal(states[row, count:], 0.0)
        if count:
            alone, end = run(params, x[row : row + 1, :count])
            np.testing.assert_allclose(states[row, :count], alone[0], atol=1e-6)
            np.testing.assert_allclose(ends[row], end[0], atol=1e-6)
            np.testing.assert_array_equal(ends[row, :8], states[row, count - 1, :8])
    np.testing.assert_array_equal(ends[3], 0.0)


@pytest.mark.parametrize("make", [lambda: Lstm(8, True), lambda: ConvStack((8, 8))])
def test_what_stands_at_padding_changes_nothing(make):
    net = make()
    _, params, x = net_and_input(net)
    length = jnp.array(LENGTH)
    padding = jnp.arange(5)[None, :, None] >= length[:, None, None]

    @jax.jit
    def gradients(params, x):
        def loss(params, x):
            return sum(
                jnp.sum(jnp.sin(h))
                for h in jax.tree.leaves(net.apply(params, x, length))
            )

        return jax.value_and_grad(loss, (0, 1))(params, x)

    wanted = gradients(params, x)
    got = gradients(params, jnp.where(padding, jnp.nan, x))
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
def test_conv_is_the_convolution_of_xla(kernel_size):
    run, params, x = net_and_input(Conv1d(features=4, kernel_size=kernel_size))
    dense = params["params"]["kernel"]
    kernel = dense["kernel"].reshape(kernel_size, 3, 4)
    wanted = jax.lax.conv_general_dilated(
        x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    np.testing.assert_allclose(run(params, x), wanted + dense["bias"], atol=1e-5)


def test_conv_stack_sees_zeros_beyond_the_last_step():
    net = ConvStack(widths=(8, 8))
    run, params, x = net_and_input(net)
    padded = run(params, x, jnp.array(LENGTH))
    for row, count in enumerate(LENGTH):
        np.testing.assert_array_equal(padded[row, count:], 0.0)
        if count:
            alone = run(params, x[row : row + 1, :count])[0]
            np.testing.assert_allclose(padded[row, :count], alone, atol=1e-5)
