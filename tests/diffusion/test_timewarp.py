"""Timewarping: a distribution function and its inverse, and its fit to losses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxehr.diffusion import timewarp

WARPS = {
    "mu": jnp.array([-4.0, 0.0, 1.5]),
    "raw_nu": jnp.array([-4.6, 0.0, 2.0]),
    "raw_gamma": jnp.array([0.5, 0.5, 0.5]),
}


@pytest.mark.parametrize("low_noise", [1.0, 3.0, 30.0])
def test_the_start_weighs_low_noise(low_noise):
    """F(1/2) = w / (1 + w), nu = 1.01, gamma = 1 [mueller2025, public code]."""
    warp = timewarp.init_warp(2, low_noise)
    middle = timewarp.cdf(warp, jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(middle, low_noise / (1 + low_noise), rtol=1e-5)
    np.testing.assert_allclose(timewarp.nu_of(warp), 1.01, rtol=1e-6)
    np.testing.assert_allclose(jax.nn.softplus(warp["raw_gamma"]), 1.0, rtol=1e-6)


def test_cdf_by_hand():
    """F(s) = 1 / (1 + (odds(s) / odds(median))^-nu)."""
    s = np.array([0.01, 0.3, 0.9])[:, None]
    nu = 1 + np.log1p(np.exp(np.asarray(WARPS["raw_nu"])))
    odds = s / (1 - s) / np.exp(np.asarray(WARPS["mu"]))
    np.testing.assert_allclose(
        timewarp.cdf(WARPS, jnp.asarray(s)), 1 / (1 + odds**-nu), rtol=1e-5
    )


def test_cdf_rises_and_quantile_inverts_it(x64):
    s = jnp.linspace(1e-4, 1 - 1e-4, 999)[:, None] * jnp.ones(3)
    u = timewarp.cdf(WARPS, s)
    assert (np.diff(u, axis=0) > 0).all()
    for f in range(3):
        one = {name: leaf[f : f + 1] for name, leaf in WARPS.items()}
        inside = (u[:, f] > 1e-6) & (u[:, f] < 1 - 1e-6)
        back = timewarp.quantile(one, u[inside, f])
        np.testing.assert_allclose(back[:, 0], s[inside, f], rtol=1e-8)


def test_quantile_ends_in_0_and_1():
    ends = timewarp.quantile(WARPS, jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(ends, [[0.0] * 3, [1.0] * 3])
    path = timewarp.quantile(WARPS, jnp.linspace(0, 1, 201))
    assert (np.diff(path, axis=0) > 0).all()


def test_density_is_the_slope(x64):
    s = jnp.array([0.003, 0.2, 0.7])
    slope = jax.jacfwd(lambda s: timewarp.cdf(WARPS, s))(s)
    np.testing.assert_allclose(timewarp.density(WARPS, s), np.diag(slope), rtol=1e-10)


def test_fit_loss_by_hand_and_whom_it_moves():
    s, losses = jnp.full((1, 3), 0.2), jnp.array([[0.1, 0.5, 2.0]])
    gamma = np.log1p(np.exp(0.5))
    wanted = (gamma * timewarp.cdf(WARPS, s) - losses) ** 2 / timewarp.density(WARPS, s)
    np.testing.assert_allclose(
        timewarp.fit_loss(WARPS, s, losses), wanted, rtol=1e-4, atol=1e-7
    )
    total = lambda warp, s, losses: timewarp.fit_loss(warp, s, losses).sum()
    grads = jax.grad(total, (0, 1, 2))(WARPS, s, losses)
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(grads[0]))
    for leaf in grads[1:]:
        assert not leaf.any()


def test_fitted_to_noisy_losses_it_finds_their_law():
    """Losses 2 F(s) plus noise, F with mu = -3 and nu = 1.5, levels drawn by itself."""
    truth = {"mu": jnp.array([-3.0]), "raw_nu": jnp.log(jnp.expm1(jnp.array([0.5])))}
    warp, tx = timewarp.init_warp(1), optax.adam(0.02)

    def step(carry, key):
        warp, state = carry
        key_u, key_noise = jax.random.split(key)
        s = timewarp.quantile(warp, jax.random.uniform(key_u, (64,)))
        losses = 2 * timewarp.cdf(truth, s)
        losses += 0.3 * jax.random.normal(key_noise, losses.shape)
        mean = lambda warp: timewarp.fit_loss(warp, s, losses).mean()
        change, state = tx.update(jax.grad(mean)(warp), state)
        return (optax.apply_updates(warp, change), state), None

    keys = jax.random.split(jax.random.key(0), 3000)
    (warp, _), _ = jax.lax.scan(step, (warp, tx.init(warp)), keys)
    assert abs(float(warp["mu"][0]) + 3.0) < 0.15
    assert abs(float(timewarp.nu_of(warp)[0]) - 1.5) < 0.15
    assert abs(float(jax.nn.softplus(warp["raw_gamma"])[0]) - 2.0) < 0.1
