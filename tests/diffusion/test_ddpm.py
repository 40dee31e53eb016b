"""Discrete-time diffusion: closed-form variances, by hand, fixed points, order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.keys import patient_keys
from jaxehr.diffusion import ddpm


def plan_of(name, num_steps):
    return ddpm.schedule(ddpm.betas(name, num_steps))


def normal_noise(plan, variance):
    """The exact noise prediction E[eps | x] of N(0, variance) data."""
    share = jnp.asarray(plan.alpha_bar)
    return lambda x, t: (
        jnp.sqrt(1 - share[t]) * x / (share[t] * variance + 1 - share[t])
    )


@pytest.mark.parametrize(
    ("name", "num_steps", "last"),
    [("paper", 50, 0.77227), ("code", 50, 0.59688), ("scaled", 50, 0.003936)],
)
def test_signal_left_at_the_last_level(name, num_steps, last):
    """Closed form of the T + 1 convention: the product over t = 0 ... T."""
    plan = plan_of(name, num_steps)
    assert plan.num_steps == num_steps
    np.testing.assert_allclose(plan.alpha_bar[-1], last, atol=6e-6)
    np.testing.assert_allclose(plan.alpha_bar[0], 1 - plan.beta[0], rtol=1e-12)


def test_scaled_betas_are_those_of_the_paper_times_twenty_and_below_one():
    np.testing.assert_allclose(
        ddpm.betas("scaled", 50), 20 * ddpm.betas("paper", 50), rtol=1e-12
    )
    assert ddpm.betas("scaled", 5).max() == ddpm.LARGEST
    np.testing.assert_allclose(
        ddpm.betas("code", 2), [1e-4, 1.005e-2, 2e-2], rtol=1e-12
    )


def test_square_roots_of_the_latent_diffusion_lie_on_a_line():
    """Level 0 is clean; abar_T against the product of T = 1000 numbers, by hand."""
    beta = ddpm.sqrt_betas(1000)
    assert beta.shape == (1001,)
    np.testing.assert_allclose(beta[[0, 1, -1]], [0.0, 0.0015, 0.0195], rtol=1e-12)
    step = (0.0195**0.5 - 0.0015**0.5) / 999
    np.testing.assert_allclose(np.diff(np.sqrt(beta[1:])), step, rtol=1e-9)
    plan = ddpm.schedule(beta)
    assert plan.alpha_bar[0] == 1.0
    logs = [np.log1p(-((0.0015**0.5 + k * step) ** 2)) for k in range(1000)]
    np.testing.assert_allclose(plan.alpha_bar[-1], np.exp(sum(logs)), rtol=1e-9)
    with pytest.raises(InputError, match="num_steps must be positive, got 0"):
        ddpm.sqrt_betas(0)


def test_the_posterior_is_that_of_bayes(x64):
    """Precisions of N(sqrt(abar) x0, 1 - abar) and of one noisy step add up."""
    plan = ddpm.schedule(ddpm.clean_betas("cosine", 20))
    x0, x = 0.7, -1.3
    for t in (2, 9, 20):
        before, beta, alpha = plan.alpha_bar[t - 1], plan.beta[t], plan.alpha[t]
        precision = 1 / (1 - before) + alpha / beta
        mean = (x0 * before**0.5 / (1 - before) + x * alpha**0.5 / beta) / precision
        at = lambda noise, t=t: ddpm.posterior(
            plan, jnp.asarray(x0), jnp.asarray(x), jnp.int32(t), jnp.asarray(noise)
        )
        np.testing.assert_allclose(at(0.0), mean, rtol=1e-12)
        np.testing.assert_allclose(at(1.0) - at(0.0), precision**-0.5, rtol=1e-12)
    last = ddpm.posterior(
        plan, jnp.asarray(x0), jnp.asarray(x), jnp.int32(1), jnp.asarray(5.0)
    )
    np.testing.assert_allclose(last, x0, rtol=1e-12)


def test_unknown_betas_and_no_steps_are_refused():
    with pytest.raises(InputError, match="unknown betas 'cosine'; known: paper, code"):
        ddpm.betas("cosine", 50)
    with pytest.raises(InputError, match="num_steps must be positive, got 0"):
        ddpm.betas("paper", 0)
    with pytest.raises(
        InputError, match=r"steps of ddim must lie in \[1, 50\], got 51"
    ):
        ddpm.ddim_levels(50, 51)


@pytest.mark.parametrize(
    ("name", "num_steps", "ratios"),
    [
        ("paper", 50, [1.1697, 1.5939, 0.9997, 0.2862, 0.0773]),
        ("code", 50, [1.0993, 1.1748, 0.9995, 0.3777, 0.1106]),
        ("scaled", 50, [1.1409, 1.0629, 0.9940, 0.9592, 0.9317]),
        ("long", 1000, [1.0237, 1.0065, 0.9999, 0.9973, 0.9956]),
    ],
)
def test_ancestral_variance_of_normal_data(x64, name, num_steps, ratios):
    """Generated / true variance, exactly: the sampler is linear in x_T and its noises.

    The ratios come from the scalar recursion v <- a_t^2 v + beta_t, computed apart;
    they round to table A.5 of the specification (its 1.18 for `code`, .1 is 1.1748).
    Row 0 starts at 1 and has no noise, row k > 0 starts at 0 and has noise 1 at level
    k + 1 only; the sum of their squares is the variance.
    """
    plan = plan_of(name, num_steps)
    rows = jnp.arange(num_steps)
    start = jnp.where(rows == 0, 1.0, 0.0)[:, None]
    noise_fn = lambda t: jnp.where(rows == t - 1, 1.0, 0.0)[:, None] * (t > 1)
    for variance, ratio in zip([0.01, 0.1, 1, 5, 20], ratios, strict=True):
        out = ddpm.ddpm(normal_noise(plan, variance), noise_fn, start, plan)
        np.testing.assert_allclose(jnp.sum(out**2) / variance, ratio, atol=6e-5)


def test_sampled_variance_is_the_propagated_one():
    """The same with random noise: 20,000 rows, four standard errors."""
    plan, num = plan_of("paper", 50), 20_000
    keys = patient_keys(jax.random.key(1), jnp.arange(num))
    x = jax.random.normal(jax.random.key(0), (num, 1))
    out = ddpm.ddpm(normal_noise(plan, 5.0), ddpm.row_noise(keys, 1), x, plan)
    ratio = float(jnp.var(out)) / 5.0
    np.testing.assert_allclose(ratio, 0.286, atol=4 * 0.286 * np.sqrt(2 / num))


def test_two_steps_by_hand(x64):
    """beta = (.1, .2, .5): abar = .9, .72, .36; x_2 = 2, eps_hat = x / 2, noise .3."""
    plan = ddpm.schedule(np.array([0.1, 0.2, 0.5]))
    x1 = (2 - 0.5 / 0.8 * 1.0) / np.sqrt(0.5) + np.sqrt(0.5) * 0.3
    x0 = (x1 - 0.2 / np.sqrt(0.28) * x1 / 2) / np.sqrt(0.8)  # no noise at t = 1
    x = jnp.array([[2.0]])
    out = ddpm.ddpm(lambda x, t: x / 2, lambda t: jnp.full((1, 1), 0.3), x, plan)
    np.testing.assert_allclose(out, x0, rtol=1e-12)
    # ddim: x0_hat = (2 - .8) / .6 = 2; x_1 = sqrt(.72) 2 + sqrt(.28)
    x1 = np.sqrt(0.72) * 2 + np.sqrt(0.28)
    x0 = (x1 - np.sqrt(0.28) * x1 / 2) / np.sqrt(0.72)
    out = ddpm.ddim(lambda x, t: x / 2, x, plan, 2)
    np.testing.assert_allclose(out, x0, rtol=1e-12)
    one = ddpm.ddim(lambda x, t: x / 2, x, plan, 1)
    np.testing.assert_allclose(one, 2.0, rtol=1e-12)


def test_a_single_level_adds_no_noise():
    plan = plan_of("scaled", 1)
    x = jax.random.normal(jax.random.key(0), (5, 3))
    loud = lambda t: jnp.full((5, 3), 1e6)
    quiet = lambda t: jnp.zeros((5, 3))
    eps_fn = normal_noise(plan, 1.0)
    np.testing.assert_array_equal(
        ddpm.ddpm(eps_fn, loud, x, plan), ddpm.ddpm(eps_fn, quiet, x, plan)
    )


def test_ddim_returns_to_the_data_when_the_noise_is_known(x64):
    """Fixed point: with the true eps every path ends in x0, in any number of calls."""
    plan = plan_of("scaled", 50)
    x0, eps = jax.random.normal(jax.random.key(0), (2, 6, 4))
    x = ddpm.q_sample(plan, x0, jnp.full(6, 50), eps)
    for calls in (1, 7, 50):
        out = ddpm.ddim(lambda x, t: eps, x, plan, calls)
        np.testing.assert_allclose(out, x0, atol=1e-12)
    t = jnp.arange(6)
    noisy = ddpm.q_sample(plan, x0, t, eps)
    np.testing.assert_allclose(ddpm.clean_of(plan, noisy, t, eps), x0, atol=1e-12)


def test_noised_rows_have_the_stated_variance(x64):
    """|x_t|^2 = abar |x0|^2 + (1 - abar) |eps|^2 for orthogonal x0, eps."""
    plan = plan_of("code", 50)
    x0, eps = jnp.array([[3.0, 0.0]] * 51), jnp.array([[0.0, 2.0]] * 51)
    x = ddpm.q_sample(plan, x0, jnp.arange(51), eps)
    expected = 9 * plan.alpha_bar + 4 * (1 - plan.alpha_bar)
    np.testing.assert_allclose(jnp.sum(x**2, 1), expected, rtol=1e-12)


def test_ddim_has_order_one(x64):
    """Against the exact flow of N(0, 4): variances abar 4 + 1 - abar at T and 1."""
    plan, variance = plan_of("scaled", 8192), 4.0
    eps_fn = normal_noise(plan, variance)
    total = plan.alpha_bar * variance + 1 - plan.alpha_bar
    low = jnp.full((1, 1), np.sqrt(total[1] / total[-1]))
    exact = ddpm.clean_of(plan, low, jnp.array([1]), eps_fn(low, 1))
    counts = np.array([64, 128, 256, 512])
    errors = [
        abs(float((ddpm.ddim(eps_fn, jnp.ones((1, 1)), plan, n + 1) - exact)[0, 0]))
        for n in counts
    ]
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    np.testing.assert_allclose(order, 1.0, atol=0.05)


def test_ddim_visits_each_level_once_from_the_last_to_the_first():
    for calls in (1, 2, 3, 33, 49, 50):
        t = ddpm.ddim_levels(50, calls)
        assert len(t) == calls
        assert t[0] == 50
        assert calls == 1 or t[-1] == 1
        assert (np.diff(t) < 0).all()


def test_row_noise_depends_on_its_key_and_level_only():
    keys = patient_keys(jax.random.key(3), jnp.arange(6))
    all_rows, some = ddpm.row_noise(keys, 4), ddpm.row_noise(keys[2:4], 4)
    np.testing.assert_array_equal(all_rows(jnp.int32(9))[2:4], some(jnp.int32(9)))
    assert not np.array_equal(some(jnp.int32(9)), some(jnp.int32(8)))
