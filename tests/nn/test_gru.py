"""The bidirectional GRU against torch, its two forms, and its padding."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.nn.gru import BiGru, Weights, blocked_direction, plain_direction

FORMS = ("blocked", "recomputed", "plain")
# float32: sums of some hundred terms of size 1, in another order.
TOLERANCE = {"rtol": 2e-5, "atol": 2e-6}


def from_torch(state: dict, num_layers: int = 3) -> dict:
    """Parameters of `BiGru` from the state_dict of a bidirectional `torch.nn.GRU`."""
    params = {}
    for layer in range(num_layers):
        params[f"layer_{layer}"] = both = {}
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            end = f"_l{layer}{suffix}"
            bias = np.array(state["bias_ih" + end], np.float32)
            bias_hidden = np.array(state["bias_hh" + end], np.float32)
            two_gates = len(bias) // 3 * 2
            bias[:two_gates] += bias_hidden[:two_gates]
            both[direction] = {
                "w_input": np.array(state["weight_ih" + end], np.float32).T,
                "b_input": bias,
                "w_hidden": np.array(state["weight_hh" + end], np.float32).T,
                "b_candidate": bias_hidden[two_gates:],
            }
    return {"params": params}


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads(pathlib.Path(__file__).with_name("gru_torch.json").read_text())


def make(shape=(6, 7, 5), hidden=8, form="blocked", num_layers=2):
    x = jax.random.normal(jax.random.key(0), shape)
    net = BiGru(hidden=hidden, num_layers=num_layers, form=form)
    return net, jax.jit(net.init)(jax.random.key(1), x), x


@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_those_of_torch(stored, form):
    net, params = BiGru(hidden=4, form=form), from_torch(stored["state"])
    x, length = jnp.array(stored["x"]), jnp.array(stored["length"])

    @jax.jit
    def run(params):
        def loss(params):
            h = net.apply(params, x, length)
            return jnp.sum(h**2), h

        grads, packed = jax.grad(loss, has_aux=True)(params)
        return net.apply(params, x), packed, grads

    full, packed, grads = run(params)
    np.testing.assert_allclose(full, stored["full"], **TOLERANCE)
    np.testing.assert_allclose(packed, stored["packed"], **TOLERANCE)
    wanted = from_torch(
        stored["gradient"]
        | {name: np.zeros(12) for name in stored["state"] if "bias" in name}
    )
    for layer, both in wanted["params"].items():
        for direction, weights in both.items():
            for name in ("w_input", "w_hidden"):
                got = grads["params"][layer][direction][name]
                np.testing.assert_allclose(got, weights[name], **TOLERANCE)


def test_values_are_those_of_torch_at_real_size():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.manual_seed(0)
    oracle = torch.nn.GRU(49, 64, 3, bidirectional=True, batch_first=True)
    state = {name: value.numpy() for name, value in oracle.state_dict().items()}
    x = np.random.default_rng(0).normal(size=(16, 25, 49)).astype(np.float32)
    wanted = oracle(torch.tensor(x))[0].detach().numpy()
    got = jax.jit(BiGru().apply)(from_torch(state), x)
    np.testing.assert_allclose(got, wanted, **TOLERANCE)


@pytest.mark.parametrize("with_length", [False, True])
def test_both_forms_have_one_value_and_one_gradient(with_length):
    blocked, params, x = make()
    plain = blocked.copy(form="plain")
    length = jnp.array([7, 1, 3, 0, 6, 7]) if with_length else None

    @functools.partial(jax.jit, static_argnums=0)
    def run(net, params, x):
        def loss(params, x):
            h = net.apply(params, x, length)
            return jnp.sum(jnp.sin(h)), h

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        run(blocked, params, x),
        run(plain, params, x),
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_by_hand_equals_finite_differences(x64, reverse):
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.array(rng.normal(size=shape))
    weights = Weights(draw(3, 12), draw(12), draw(4, 12), draw(4))
    x, mix = draw(5, 2, 3), draw(5, 2, 4)
    length = jnp.array([4, 3])

    @jax.jit
    def loss(weights, x):
        return jnp.sum(mix * blocked_direction(weights, x, length, reverse))

    point = (weights, x)
    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(*point)
    move = jax.tree.map(lambda leaf: draw(*leaf.shape), point)
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, move)))
    step = 1e-6
    ends = [
        loss(*jax.tree.map(lambda p, d, s=s: p + s * step * d, point, move))
        for s in (1.0, -1.0)
    ]
    # central differences: error of order step^2 + 1e-16 / step, about 1e-10
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-7)
    states = blocked_direction(*point, length, reverse)
    wanted = plain_direction(*point, length, reverse)
    np.testing.assert_array_equal(states[:4], wanted[:4])
    if jax.default_backend() == "cpu":
        np.testing.assert_array_equal(states[4:], 0.0)  # behind the longest record


def test_unrolled_loops_and_gates_made_again_change_nothing_but_the_memory():
    net, params, x = make((6, 7, 5))
    length = jnp.array([7, 3, 1, 7, 5, 2])
    other = net.clone(form="recomputed", unroll=3)

    def gradient(net):
        loss = lambda params, x: jnp.sum(net.apply(params, x, length) ** 2)
        return jax.jit(jax.grad(loss, argnums=(0, 1)))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        gradient(net)(params, x),
        gradient(other)(params, x),
    )
    kept = [
        sum(leaf.size for leaf in jax.tree.leaves(jax.vjp(run.apply, params, x)[1]))
        for run in (net, other.clone(unroll=1))
    ]
    assert kept[1] < 0.5 * kept[0]
    with pytest.raises(InputError, match="unroll must be positive"):
        net.clone(unroll=0).apply(params, x)


def test_one_step_by_hand():
    weights = Weights(*(jnp.full(s, 0.5) for s in ((1, 3), (3,), (1, 3), (1,))))
    got = plain_direction(weights, jnp.ones((1, 1, 1)), None, False)[0, 0, 0]
    gate = 1 / (1 + np.exp(-1.0))
    wanted = (1 - gate) * np.tanh(1.0 + gate * 0.5)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_padded_row_equals_the_row_alone():
    net, params, x = make()
    length = np.array([7, 3, 3, 0, 3, 7])
    run = jax.jit(net.apply)
    padded = run(params, x, jnp.array(length))
    for row, count in enumerate(length):
        np.testing.assert_array_equal(padded[row, count:], 0.0)
        if count:
            alone = run(params, x[row : row + 1, :count])[0]
            np.testing.assert_allclose(padded[row, :count], alone, **TOLERANCE)


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_at_padding_changes_nothing(form):
    net, params, x = make(form=form)
    length = jnp.array([7, 1, 3, 0, 6, 2])
    padding = jnp.arange(7)[None, :, None] >= length[:, None, None]

    @jax.jit
    def value_and_gradients(params, x):
        loss = lambda params, x: jnp.sum(jnp.sin(net.apply(params, x, length)))
        return net.apply(params, x, length), jax.grad(loss, (0, 1))(params, x)

    wanted = value_and_gradients(params, x)
    for filler in (1e6, jnp.nan):
        got = value_and_gradients(params, jnp.where(padding, filler, x))
        jax.tree.map(np.testing.assert_array_equal, got, wanted)
    d_x = wanted[1][1]
    np.testing.assert_array_equal(jnp.where(padding, d_x, 0.0), 0.0)


def test_full_length_is_the_same_as_no_length():
    net, params, x = make()
    run = jax.jit(net.apply)
    got = run(params, x, jnp.full(6, 7))
    np.testing.assert_array_equal(got, run(params, x))


@pytest.mark.parametrize("form", FORMS)
def test_a_row_does_not_depend_on_its_chunk_bit_for_bit(form):
    net, params, x = make((128, 9, 21), 64, form, num_layers=1)
    run = jax.jit(net.apply)
    alone = run(params, x)
    order = np.random.default_rng(0).permutation(128)
    np.testing.assert_array_equal(run(params, x[order]), alone[order])
    others = (10.0 * x[::-1]).at[5].set(x[77])
    np.testing.assert_array_equal(run(params, others)[5], alone[77])


def test_initial_weights_have_the_law_of_torch():
    _, params, _ = make(shape=(1, 2, 49), hidden=64, num_layers=3)
    leaves = jax.tree.leaves(params)
    assert len(leaves) == 3 * 2 * 4
    values = np.concatenate([np.ravel(leaf) for leaf in leaves]) * 8.0  # U(-1, 1)
    assert np.abs(values).max() <= 1.0
    # variance of U(-1, 1) is 1/3, that of its square 4/45; five standard errors
    bound = 5 * np.sqrt(4 / 45 / len(values))
    np.testing.assert_allclose(np.mean(values**2), 1 / 3, atol=bound)


def test_an_unknown_form_is_refused():
    with pytest.raises(
        InputError, match="unknown form of the GRU 'fast'; known: auto, bl"
    ):
        make(form="fast")
