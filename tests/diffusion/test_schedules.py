"""Schedules against closed forms and the facts of their gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.diffusion import edm
from jaxehr.diffusion.schedules import (
    init_rho,
    power_mean,
    power_mean_inverse,
    rho_of,
)

LOW = 0.002


@pytest.mark.parametrize(
    ("rho", "high", "expected"),
    [
        (7.0, 80.0, [0.002, 0.1698, 2.5152, 17.5278, 80.0]),
        (7.0, 100.0, [0.002, 0.1943, 3.0216, 21.583, 100.0]),
        (1.0, 100.0, [0.002, 25.0015, 50.001, 75.0005, 100.0]),
        (3.0, 80.0, [0.002, 1.6087, 10.9031, 34.7465, 80.0]),
    ],
)
def test_power_mean_has_the_published_values(rho, high, expected):
    sigma = power_mean(jnp.linspace(0, 1, 5), rho, LOW, high)
    np.testing.assert_allclose(sigma, expected, rtol=3e-4)  # vectors have 4 decimals


@pytest.mark.parametrize("rho", [0.1, 0.3, 1.0, 7.0, 50.0])
def test_float32_agrees_with_the_powers_in_float64(rho):
    t = np.linspace(0, 1, 101, dtype=np.float32)
    wide = t.astype(np.float64)
    low, high = LOW ** (1 / rho), 80.0 ** (1 / rho)
    exact = (low + wide * (high - low)) ** rho
    sigma = power_mean(jnp.asarray(t), rho, LOW, 80.0)
    # log sigma is rounded at 1e-6 (|log sigma| < 11), rho * log1p at rho * 2^-24
    np.testing.assert_allclose(sigma, exact, rtol=2e-5)
    back = power_mean_inverse(sigma, rho, LOW, 80.0)
    np.testing.assert_allclose(back, t, atol=2e-5)


@pytest.mark.parametrize("rho", [0.1, 0.5, 7.0, 50.0])
def test_gradient_in_rho_is_finite_and_matches_differences(x64, rho):
    f = lambda r, t: power_mean(t, r, LOW, 80.0)
    times = jnp.array([0.0, 1e-7, 0.3, 0.9, 1.0])
    gradient = jax.vmap(jax.grad(f), (None, 0))(rho, times)
    step = 1e-5 * rho
    differences = (f(rho + step, times) - f(rho - step, times)) / (2 * step)
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("rho", [0.1, 1.0, 50.0])
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_float32_gradients_are_finite_at_the_ends(rho, t):
    gradients = jax.grad(power_mean, (0, 1))(t, rho, LOW, 80.0)
    assert np.isfinite(gradients).all()


def test_rho_starts_at_its_start_and_has_the_right_shape():
    params = init_rho(7.0, 3, 4)
    np.testing.assert_allclose(params.base, 5.99752, rtol=1e-5)
    np.testing.assert_allclose(rho_of(params), np.full((4, 3), 7.0), rtol=1e-6)
    assert rho_of(init_rho(7.0, 3, 0)).shape == (3,)
    assert sum(leaf.size for leaf in init_rho(7.0, 7, 25)) == 33  # [cdmt2026, Eq. 6]
    literal = init_rho(7.0, 3, 4, kind="additive_clamped", floor=0.1)
    rho = rho_of(literal, kind="additive_clamped", floor=0.1)
    np.testing.assert_allclose(rho, np.full((4, 3), 7.0), rtol=1e-6)


def test_softplus_is_additive_near_the_start_and_the_literal_form_everywhere():
    params = init_rho(7.0, 2, 3)._replace(
        feature=jnp.array([0.5, -0.5]), step=jnp.array([0.3, 0.0, -0.3])
    )
    additive = 7.0 + params.feature + params.step[:, None]
    np.testing.assert_allclose(rho_of(params), additive, rtol=3e-3)
    literal = params._replace(base=jnp.float32(7.0))
    rho = rho_of(literal, kind="additive_clamped", floor=0.1)
    np.testing.assert_allclose(rho, additive, rtol=1e-6)


@pytest.mark.parametrize("kind", ["softplus", "additive_clamped"])
@pytest.mark.parametrize("base", [-1e6, -30.0, 0.0, 60.0, 1e6])
def test_rho_stays_valid_for_any_parameter(kind, base):
    params = init_rho(7.0, 2, 2)._replace(base=jnp.float32(base))
    rho, gradient = jax.value_and_grad(
        lambda p: jnp.sum(power_mean(0.4, rho_of(p, floor=0.5, kind=kind), LOW, 80.0))
    )(params)
    values = rho_of(params, floor=0.5, kind=kind)
    assert np.all((values >= 0.5) & (values <= 50.0))
    assert np.isfinite(rho)
    assert all(np.isfinite(leaf).all() for leaf in gradient)


@pytest.mark.parametrize("kind", ["softplus", "additive_clamped"])
@pytest.mark.parametrize(("start", "slope"), [(7.0, 0.8647), (40.0, 1.0)])
def test_starts_up_to_forty_and_what_an_offset_does_to_them(kind, start, slope):
    """With the floor of CDMT: the cap changes them by 1e-4 at most."""
    kinds = {"floor": 5.0, "kind": kind}
    params = init_rho(start, 1, 0, **kinds)
    rho = lambda offset: rho_of(params._replace(feature=offset), **kinds)[0]
    value, moved = jax.value_and_grad(rho)(jnp.zeros(1))
    np.testing.assert_allclose(value, start, atol=1e-4)
    np.testing.assert_allclose(moved, slope if kind == "softplus" else 1.0, atol=1e-4)


def test_the_cap_keeps_a_gradient():
    slope = jax.grad(lambda b: rho_of(init_rho(7.0, 1, 0)._replace(base=b))[0])
    np.testing.assert_allclose(slope(6.0), 1.0, rtol=3e-3)
    assert slope(48.0) > 0.5
    assert slope(55.0) > 1e-3


def test_bad_starts_are_refused():
    with pytest.raises(InputError, match=r"above the floor 1\.0, got 1\.0"):
        init_rho(1.0, 2, 2)
    with pytest.raises(InputError, match="unknown rho kind 'exp'; known: softplus"):
        init_rho(7.0, 2, 2, kind="exp")
    with pytest.raises(InputError, match="unknown rho kind 'exp'"):
        rho_of(init_rho(7.0, 2, 2), kind="exp")


TIMES = (jnp.arange(4000) + 0.5) / 4000


def numeric_loss(rho, eigenvalues, high=80.0):
    """Weighted error of the ideal denoiser of Gaussian data with these variances."""
    sigma = power_mean(TIMES, rho, LOW, high)[:, None]
    posterior = eigenvalues * sigma**2 / (eigenvalues + sigma**2)
    return jnp.mean(edm.loss_weight(sigma, 1.0) * posterior)


def test_correlated_unit_variance_data_want_a_rho_of_seven_to_nine(x64):
    """Patient effect of half the variance plus a first-order chain of .6, 25 steps."""
    lag = np.abs(np.subtract.outer(np.arange(25), np.arange(25)))
    eigenvalues = np.linalg.eigvalsh(0.5 + 0.5 * 0.6**lag)
    rhos = [1.0, 3.0, 5.0, 7.0, 9.0, 12.0]
    losses = [numeric_loss(rho, eigenvalues) for rho in rhos]
    expected = [0.9655, 0.8904, 0.8791, 0.8779, 0.8784, 0.8796]
    np.testing.assert_allclose(losses, expected, atol=6e-5)
    slope = jax.grad(numeric_loss)
    assert slope(5.0, eigenvalues) < 0 < slope(9.0, eigenvalues)


def test_independent_unit_variance_data_give_no_gradient(x64):
    for rho in (1.0, 7.0, 20.0):
        loss, slope = jax.value_and_grad(numeric_loss)(rho, jnp.ones(3))
        np.testing.assert_allclose([loss, slope], [1.0, 0.0], atol=1e-9)


def test_data_scaled_too_small_pull_rho_to_the_floor(x64):
    """Standard deviation .25 with sigma_data = 1: why numerics need unit variance."""
    np.testing.assert_allclose(numeric_loss(0.5, 0.0625), 0.0625, rtol=2e-3)
    for rho in (0.7, 1.0, 3.0, 7.0):
        assert jax.grad(numeric_loss)(rho, 0.0625) > 0


def test_cross_entropy_always_wants_a_larger_rho(x64):
    """A binary feature of frequency .08 on antipodal embeddings, d = 16."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()

    def loss(rho):
        sigma, total = power_mean(TIMES[::4], rho, LOW, 100.0)[:, None], 0.0
        for p, sign in ((0.08, 1.0), (0.92, -1.0)):
            along = sign * 4.0 + sigma * nodes  # |e| = 4
            odds = np.log(0.08 / 0.92) + 8.0 * along / sigma**2
            total = total + p * jnp.logaddexp(0.0, -sign * odds)
        return jnp.mean(total @ weights)

    rhos = [1.0, 3.0, 5.0, 7.0, 12.0, 50.0]
    expected = [0.2644, 0.1863, 0.1483, 0.1298, 0.1100, 0.0893]
    np.testing.assert_allclose([loss(rho) for rho in rhos], expected, atol=2e-4)
    assert all(jax.grad(loss)(rho) < 0 for rho in rhos)
