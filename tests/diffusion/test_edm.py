"""Preconditioning and time sampling [karras2022, Table 1]."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.diffusion.edm import loss_weight, low_discrepancy, precondition

SIGMA = jnp.array([0.002, 0.5, 1.0, 80.0])


def test_coefficients_by_hand():
    skip, out, inside = precondition(jnp.float32(2.0), 0.5)
    np.testing.assert_allclose(skip, 0.25 / 4.25, rtol=1e-6)
    np.testing.assert_allclose(out, 1.0 / np.sqrt(4.25), rtol=1e-6)
    np.testing.assert_allclose(inside, 1.0 / np.sqrt(4.25), rtol=1e-6)
    np.testing.assert_allclose(loss_weight(jnp.float32(2.0), 0.5), 4.25, rtol=1e-6)


def test_the_weight_undoes_c_out():
    c = precondition(SIGMA, 0.7)
    np.testing.assert_allclose(loss_weight(SIGMA, 0.7) * c.c_out**2, 1.0, rtol=1e-5)


def test_input_and_target_of_the_network_have_unit_variance():
    """Var(c_in x) = 1 and Var((x0 - c_skip x) / c_out) = 1, x = x0 + sigma n."""
    sigma_data = 0.7
    c = precondition(SIGMA, sigma_data)
    inside = c.c_in**2 * (sigma_data**2 + SIGMA**2)
    target = (1 - c.c_skip) ** 2 * sigma_data**2 + c.c_skip**2 * SIGMA**2
    np.testing.assert_allclose(inside, 1.0, rtol=1e-5)
    np.testing.assert_allclose(target / c.c_out**2, 1.0, rtol=1e-3)  # cancels in f32


def test_times_fill_the_interval_evenly_and_are_uniform_each():
    draw = jax.jit(jax.vmap(lambda key: low_discrepancy(key, 7)))
    times = draw(jax.random.split(jax.random.key(0), 4000))
    assert np.all((times >= 0) & (times < 1))
    gaps = np.diff(np.sort(times, axis=1), axis=1)
    np.testing.assert_allclose(gaps, 1 / 7, atol=1e-6)
    error = 1 / np.sqrt(12 * 4000)  # standard error of a uniform mean
    np.testing.assert_allclose(times.mean(0), 0.5, atol=4 * error)
    np.testing.assert_allclose((times**2).mean(0), 1 / 3, atol=4 * error)
