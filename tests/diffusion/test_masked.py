"""Mask diffusion: marginals, weights, and the sampler with an ideal denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.diffusion import masked
from jaxehr.diffusion.samplers import levels
from jaxehr.diffusion.schedules import raw_of

WIDE = 4  # the largest cardinality here


def test_schedule_by_hand():
    k = masked.k_of(raw_of(masked.init_k(3, 2)))
    np.testing.assert_allclose(k, np.full((2, 3), 1.00248), rtol=1e-5)
    got = masked.mask_probability(jnp.array([0.0, 0.5, 1.0]), 2.0)
    slope = 1 - 1e-3 - 1e-5
    np.testing.assert_allclose(got, [1e-5, slope / 4 + 1e-5, 0.999], rtol=1e-5)


@pytest.mark.parametrize("k", [1.0, 1.00248, 2.5])
def test_learned_weight_is_the_logarithmic_derivative(x64, k):
    """sigma' / (exp(sigma) - 1) with sigma = -log alpha is d log(1 - alpha) / dt."""
    t, step = jnp.array([1e-4, 0.1, 0.5, 0.99]), 1e-6
    log = lambda t: jnp.log(masked.mask_probability(t, k))
    numeric = (log(t + step) - log(t - step)) / (2 * step)
    weight = masked.loss_weight(t, k, learnable=True)
    np.testing.assert_allclose(weight, numeric, rtol=1e-3)
    sigma = lambda t: -jnp.log(1 - masked.mask_probability(t, k))
    direct = jax.vmap(jax.grad(sigma))(t) / jnp.expm1(sigma(t))
    np.testing.assert_allclose(weight, direct, rtol=1e-9)


def test_fixed_weight_and_finite_gradients():
    weight = masked.loss_weight(jnp.array([0.25]), 1.0, learnable=False)
    np.testing.assert_allclose(weight, 1 / (0.25 * 0.99899 + 1e-5), rtol=1e-6)
    for t in (0.0, 1e-7, 1.0):
        f = lambda k, t=t: masked.loss_weight(t, k, learnable=True)
        assert np.isfinite(jax.grad(f)(1.00248))


@pytest.mark.parametrize("learnable", [True, False])
def test_mask_marginals_by_time(learnable):
    times = jnp.array([0.0, 0.2, 0.6, 1.0])[:, None, None]
    codes = jnp.broadcast_to(jnp.array([1, 3]), (4, 20_000, 2))
    k = jnp.array([1.0, 2.0])
    state = masked.corrupt(
        jax.random.key(0), codes, times, k, num_codes=WIDE, learnable=learnable
    )
    assert state.shape == (4, 20_000, 2, WIDE + 1)
    np.testing.assert_allclose(state.sum(-1), 1.0, atol=1e-6)
    found = np.asarray(masked.codes_of(state))
    hidden = found == WIDE
    assert np.all(hidden | (found == np.asarray(codes)))
    p = np.asarray(masked.mask_probability(times, k))[:, 0]
    error = np.sqrt(p * (1 - p) / 20_000)
    np.testing.assert_array_less(np.abs(hidden.mean(1) - p), 4.5 * error + 1e-4)


def test_learned_state_is_hard_but_has_a_gradient():
    codes = jnp.zeros((200_000, 1), int)

    def share(k, learnable):
        state = masked.corrupt(
            jax.random.key(1), codes, 0.5, k, num_codes=2, learnable=learnable
        )
        return state[..., -1].mean(), state

    gradient, state = jax.grad(share, has_aux=True)(1.5, True)
    np.testing.assert_allclose(np.unique(np.round(state, 6)), [0.0, 1.0])
    # d/dk A t^k = A t^k log t. The relaxed draw has the bias of its temperature; its
    # standard error is about sqrt(E[(s(1 - s) / tau)^2]) |dlogit| / sqrt(n) = 2 %.
    exact = 0.99899 * 0.5**1.5 * np.log(0.5)
    np.testing.assert_allclose(gradient, exact, rtol=0.1)
    assert jax.grad(share, has_aux=True)(1.5, False)[0] == 0.0


def test_substitute_copies_what_is_known_and_never_predicts_the_mask():
    logits = jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.4]] * 2))
    state = jax.nn.one_hot(jnp.array([WIDE, 2]), WIDE + 1)
    p = np.exp(masked.substitute(logits, state))
    np.testing.assert_allclose(p[0], [0.1, 0.2, 0.3, 0.4, 0.0], rtol=1e-5)
    np.testing.assert_array_equal(p[1], [0.0, 0.0, 1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="logits have 5 entries and the state 5"):
        masked.substitute(jnp.zeros((2, 5)), state)


def test_loss_is_weighted_and_zero_where_nothing_is_hidden():
    logits = jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.4]] * 2))
    state = jax.nn.one_hot(jnp.array([WIDE, 2]), WIDE + 1)
    codes = jnp.array([1, 2])
    got = masked.loss(logits, state, codes, jnp.float32(0.5), 1.0, learnable=False)
    weight = 1 / masked.mask_probability(0.5, 1.0)
    np.testing.assert_allclose(got, [-np.log(0.2) * weight, 0.0], rtol=1e-5)


def sample(key, shape, logits_of, num_steps, k):
    """The reverse process from all masked; logits_of(state) is the denoiser."""
    p = jax.vmap(lambda t: masked.mask_probability(t, k))(levels(num_steps))
    ends = (p, jnp.concatenate([p[1:], jnp.zeros_like(p[:1])]))

    def step(state, level):
        number, (now, then) = level
        drawn = masked.reverse_step(
            jax.random.fold_in(key, number), logits_of(state), state, now, then
        )
        kept = jnp.argmax(state, -1) != state.shape[-1] - 1
        stays = jnp.all(~kept | (jnp.argmax(state, -1) == jnp.argmax(drawn, -1)))
        return drawn, stays

    start = masked.start(shape, WIDE)
    state, stays = jax.lax.scan(step, start, (jnp.arange(num_steps), ends))
    return masked.codes_of(state), stays


def test_sampler_reproduces_a_categorical_law_and_leaves_no_mask():
    num = 20_000
    law = np.array([[0.08, 0.92, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4]])
    logits = jnp.where(law > 0, jnp.log(jnp.maximum(law, 1e-9)), -1e9)
    run = jax.jit(
        lambda key: sample(
            key, (num, 2), lambda state: logits, 20, jnp.array([1.0, 2.0])
        )
    )
    codes, stays = run(jax.random.key(0))
    assert np.all(stays)
    assert codes.max() < WIDE
    for feature in range(2):
        found = np.bincount(codes[:, feature], minlength=WIDE) / num
        error = np.sqrt(law[feature] * (1 - law[feature]) / num)
        np.testing.assert_array_less(np.abs(found - law[feature]), 4 * error + 1e-12)


def test_sampler_reproduces_a_joint_law():
    """Two codes that agree with probability .9; the denoiser sees the other one."""
    num, num_steps = 20_000, 100
    table = jnp.log(jnp.array([[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0]]) + 1e-30)
    prior = jnp.log(jnp.array([0.5, 0.5, 0, 0]) + 1e-30)
    rows = jnp.concatenate([table, jnp.tile(prior, (3, 1))])  # 4 = masked

    def logits_of(state):
        return rows[jnp.argmax(state[:, ::-1], axis=-1)]

    codes, _ = jax.jit(lambda key: sample(key, (num, 2), logits_of, num_steps, 1.0))(
        jax.random.key(3)
    )
    agree = np.mean(codes[:, 0] == codes[:, 1])
    # Both revealed in one step (chance 1 / num_steps) agree by chance only.
    together = 1 / num_steps
    truth = 0.9 * (1 - together) + 0.5 * together
    np.testing.assert_allclose(agree, truth, atol=4 * np.sqrt(0.09 / num))


def test_a_second_call_does_not_compile():
    traces = []

    @jax.jit
    def run(key, logits):
        traces.append(1)
        return sample(key, (5, 2), lambda state: logits, 4, 1.0)[0]

    run(jax.random.key(0), jnp.zeros((2, WIDE)))
    run(jax.random.key(1), jnp.ones((2, WIDE)))
    assert len(traces) == 1
