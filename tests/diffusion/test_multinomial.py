"""Multinomial diffusion against Bayes' rule, enumerated in NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.diffusion import ddpm, multinomial
from jaxehr.diffusion.multinomial import Groups

PLAN = ddpm.schedule(ddpm.clean_betas("cosine", 20))
GENERATOR = np.random.default_rng(0)


def kernel(t, num):
    """q(x_t = j | x_{t-1} = i) [i, j]."""
    beta = PLAN.beta[t]
    return (1 - beta) * np.eye(num) + beta / num


def composed(t, num):
    """q(x_t | x_0) [x_0, x_t], the product of the kernels of steps 1 ... t."""
    out = np.eye(num)
    for step in range(1, t + 1):
        out = out @ kernel(step, num)
    return out


def distribution(*shape):
    p = GENERATOR.gamma(1.0, size=shape)
    return p / p.sum(-1, keepdims=True)


def test_cosine_betas_keep_the_published_share_of_the_signal():
    """abar_t = f(t) / f(0) but for the last step, whose beta is cut."""
    plan = ddpm.schedule(ddpm.clean_betas("cosine", 1000))
    f = lambda t: np.cos(np.pi / 2 * (t / 1000 + 0.008) / 1.008) ** 2
    t = np.arange(1000)
    np.testing.assert_allclose(plan.alpha_bar[:-1], f(t) / f(0), rtol=1e-9)
    np.testing.assert_allclose(plan.alpha_bar[500], 0.493844, atol=1e-6)
    assert plan.beta[0] == 0.0
    assert plan.beta[-1] == 0.999


def test_linear_betas_scale_with_the_steps():
    beta = ddpm.clean_betas("linear", 1000)
    np.testing.assert_allclose(beta[[0, 1, -1]], [0.0, 1e-4, 2e-2], rtol=1e-12)
    np.testing.assert_allclose(ddpm.clean_betas("linear", 100)[[1, -1]], [1e-3, 0.2])
    with pytest.raises(InputError, match="unknown betas 'sine'; known: cosine, linear"):
        ddpm.clean_betas("sine", 10)
    with pytest.raises(InputError, match="num_steps must be positive, got 0"):
        ddpm.clean_betas("cosine", 0)


@pytest.mark.parametrize("num", [2, 5])
@pytest.mark.parametrize("t", [0, 1, 7, 20])
def test_marginal_is_the_composition_of_one_step_kernels(num, t):
    x0 = multinomial.log_one_hot(jnp.arange(num), num)
    found = jnp.exp(multinomial.marginal(PLAN, x0, t))
    np.testing.assert_allclose(found, composed(t, num), atol=1e-6)


@pytest.mark.parametrize("t", [1, 2, 13, 20])
def test_posterior_is_that_of_bayes(t):
    """Of every pair (x_0, x_t): q(x_{t-1} | x_0) q(x_t | x_{t-1}) / q(x_t | x_0)."""
    num = 4
    wanted = composed(t - 1, num)[:, None, :] * kernel(t, num).T[None, :, :]
    wanted /= wanted.sum(-1, keepdims=True)  # [x_0, x_t, x_{t-1}]
    logs = multinomial.log_one_hot(jnp.arange(num), num)
    shape = (num, num, num)
    x0 = jnp.broadcast_to(logs[:, None], shape)
    x = jnp.broadcast_to(logs[None], shape)
    found = jnp.exp(multinomial.posterior(PLAN, x0, x, t))
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def by_hand(p, code, noisy, t):
    """The bound of one code, from the network's distribution p of x_0."""
    num = len(p)

    def step(x0):
        q = (x0 @ composed(t - 1, num)) * kernel(t, num)[:, noisy]
        return q / q.sum()

    true, model = step(np.eye(num)[code]), step(p)
    last = composed(PLAN.num_steps, num)[code]
    prior = np.sum(last * np.log(last * num))
    if t == 1:
        return -PLAN.num_steps * np.log(model[code]) + prior
    here = true > 0
    ratio = np.log(true[here] / model[here])
    return PLAN.num_steps * np.sum(true[here] * ratio) + prior


@pytest.mark.parametrize("t", [1, 2, 10, 20])
def test_bound_by_hand(t):
    p = distribution(6, 3)
    codes, noisy = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1, 2, 1, 2, 0])
    found = multinomial.bound(PLAN, jnp.log(p) + 3.0, codes, noisy, t)
    wanted = [by_hand(*one, t) for one in zip(p, codes, noisy)]
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


def test_bound_of_every_row_has_its_own_level():
    p, codes, noisy = distribution(3, 2, 4), np.array([[0, 1]] * 3), np.array([[0, 3]])
    noisy, t = np.repeat(noisy, 3, 0), np.array([1, 5, 20])
    found = multinomial.bound(PLAN, jnp.log(p), codes, noisy, t)
    wanted = [
        [by_hand(p[b, d], codes[b, d], noisy[b, d], t[b]) for d in range(2)]
        for b in range(3)
    ]
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)  # T x float32


def test_prior_divergence():
    """One step of beta 0.5 leaves (0.75, 0.25) of a binary code."""
    plan = ddpm.schedule(np.array([0.0, 0.5]))
    found = multinomial.prior_divergence(plan, multinomial.log_one_hot(0, 2))
    wanted = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    almost = multinomial.prior_divergence(PLAN, multinomial.log_one_hot(0, 2))
    assert abs(almost) < 1e-4


def test_corrupted_codes_have_the_marginal():
    """40,000 draws of one code at level 8: within 4 standard errors."""
    t, num, draws = 8, 3, 40_000
    codes = jnp.full((draws,), 1)
    found = multinomial.corrupt(jax.random.key(0), PLAN, codes, t, num)
    wanted = composed(t, num)[1]
    bound = 4 * np.sqrt(wanted * (1 - wanted) / draws)
    assert (np.abs(np.bincount(found, minlength=num) / draws - wanted) < bound).all()


def test_the_exact_denoiser_samples_the_law():
    """Two dependent codes of 3 and 2 categories: 20,000 chains of 100 steps.

    The step is exact for one code if x_0 has the chances that the other codes give it:
    q(x_{t-1}) q(x_t | x_{t-1}). Both codes moving at once costs O(1 / T).
    """
    joint = np.array([[0.45, 0.05], [0.05, 0.3], [0.14, 0.01]])
    plan, rows = ddpm.schedule(ddpm.clean_betas("cosine", 100)), 20_000
    groups = Groups(joint.shape)
    kept = jnp.asarray(plan.alpha_bar)

    def logits(noisy, t):
        """p(one code | the noisy other one), columns in the order of `Groups`."""
        of = lambda law, x: law @ (kept[t] * jnp.eye(law.shape[1]) + other(law))[:, x]
        other = lambda law: (1 - kept[t]) / law.shape[1]
        first, second = (
            of(jnp.asarray(joint), noisy[:, 1]),
            of(jnp.asarray(joint.T), noisy[:, 0]),
        )
        return jnp.log(jnp.concatenate([second.T, first.T], -1))

    def step(noisy, ahead):
        t, key = ahead
        return groups.reverse(key, plan, logits(noisy, t), noisy, t), None

    keys = jax.random.split(jax.random.key(1), 101)
    start = groups.start(keys[-1], (rows,))
    found = jax.lax.scan(step, start, (jnp.arange(100, 0, -1), keys[:-1]))[0]
    share = np.zeros((3, 2))
    np.add.at(share, tuple(np.asarray(found).T), 1 / rows)
    np.testing.assert_allclose(share, joint, atol=0.01 + 4 * np.sqrt(0.25 / rows))


def test_groups_put_every_code_in_its_place():
    """Series of five codes with 2, 4, 2, 3 and 1 categories, in the order of codes."""
    groups, t = Groups((2, 4, 2, 3, 1)), np.array([1, 9, 20])
    assert [k for k, _ in groups.places] == [1, 2, 3, 4]
    assert groups.width == 12
    codes = GENERATOR.integers(0, groups.cardinalities, (3, 6, 5))

    @jax.jit
    def run(key):
        hot = groups.one_hot(codes)
        logs = 50.0 * hot
        # At level 1 with a sure denoiser nothing but the data is left.
        back = groups.reverse(key, PLAN, logs, groups.start(key, (3, 6)), 1)
        noisy = groups.corrupt(key, PLAN, codes, t)
        found = groups.bound(PLAN, hot, codes, noisy, t)
        twos = groups.split(hot)[1][..., 1, :]
        alone = multinomial.bound(PLAN, twos, codes[..., 2], noisy[..., 2], t)
        return hot, back, found, alone

    hot, back, found, alone = run(jax.random.key(2))
    assert hot.shape == (3, 6, 12)
    np.testing.assert_array_equal(hot.sum(-1), 5)
    for part, (k, places) in zip(groups.split(hot), groups.places):
        np.testing.assert_array_equal(part.argmax(-1), codes[..., places])
        assert part.shape[-1] == k
    np.testing.assert_array_equal(back, codes)
    assert found.shape == (3, 6, 5)
    np.testing.assert_allclose(found[..., 2], alone, rtol=1e-6)
    np.testing.assert_allclose(found[..., 4], 0.0, atol=1e-5)  # one category


def test_no_codes():
    groups, codes = Groups(()), np.zeros((4, 0), np.int32)
    assert groups.one_hot(codes).shape == (4, 0)
    key = jax.random.key(0)
    assert groups.start(key, (4,)).shape == (4, 0)
    assert groups.corrupt(key, PLAN, codes, 3).shape == (4, 0)
    logits = jnp.zeros((4, 0))
    assert groups.bound(PLAN, logits, codes, codes, 3).shape == (4, 0)
    assert groups.reverse(key, PLAN, logits, codes, 3).shape == (4, 0)


def test_gradients_are_finite_at_the_first_level():
    def total(logits):
        return multinomial.bound(PLAN, logits, codes, noisy, 1).sum()

    codes, noisy = jnp.array([0, 1]), jnp.array([1, 1])
    grad = jax.grad(total)(jnp.array([[50.0, -50.0], [-200.0, 200.0]]))
    assert np.isfinite(grad).all()
