"""Solvers: by hand, fixed point, measured order, exact denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.diffusion.embeddings import expected, nearest, normalise, valid_codes
from jaxehr.diffusion.samplers import (
    SOLVERS,
    Level,
    dpmpp_2m,
    euler,
    exponential_adams,
    heun,
    levels,
    sigma_levels,
)
from jaxehr.diffusion.schedules import power_mean

LOW, HIGH = 0.002, 80.0
RHOS = np.array([3.0, 5.0, 7.0, 12.0])


def normal_denoiser(x, level):
    """E[x0 | x] of N(0, 1) data."""
    return x / (1.0 + level.sigma**2)


def schedule(rho, num_steps, high=HIGH):
    return sigma_levels(lambda t: power_mean(t, rho, LOW, high), num_steps)


def test_levels_run_from_one_to_zero_and_sigmas_end_in_zero():
    np.testing.assert_allclose(levels(5), [1.0, 0.75, 0.5, 0.25, 0.0])
    t, sigmas = sigma_levels(
        lambda t: {"a": power_mean(t, jnp.array([1.0, 7.0]), LOW, HIGH), "b": t}, 4
    )
    assert t.shape == (4,)
    assert sigmas["a"].shape == (5, 2)
    np.testing.assert_allclose(sigmas["a"][0], HIGH, rtol=1e-5)
    np.testing.assert_allclose(sigmas["a"][-2], LOW, rtol=1e-5)
    np.testing.assert_array_equal(sigmas["a"][-1], 0.0)
    np.testing.assert_allclose(sigmas["b"], [1.0, 2 / 3, 1 / 3, 0.0, 0.0], rtol=1e-6)


def test_one_step_by_hand():
    """x = 3, D = x / 2, sigma 2 -> 1: d = .75, Euler 2.25; d_next = 1.125."""
    denoise = lambda x, level: 0.5 * x
    t, sigmas = jnp.array([1.0, 0.0]), jnp.array([2.0, 1.0, 0.0])
    # the last step halves: D(x) = x / 2
    np.testing.assert_allclose(euler(denoise, jnp.float32(3.0), t, sigmas), 1.125)
    second = 3.0 - 0.5 * (0.75 + 1.125)
    np.testing.assert_allclose(heun(denoise, jnp.float32(3.0), t, sigmas), second / 2)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_constant_denoiser_is_a_fixed_point(solver):
    x = {"a": jnp.array([1.5, -2.0]), "b": jnp.array(7.0)}
    t, sigmas = sigma_levels(
        lambda t: {"a": 1 + t * jnp.array([1.0, 5.0]), "b": 1 + t}, 6
    )
    same = solver(lambda y, level: x, x, t, sigmas)
    jax.tree.map(np.testing.assert_array_equal, same, x)
    away = jax.tree.map(lambda leaf: leaf + 80.0, x)
    out = solver(lambda y, level: x, away, t, sigmas)
    jax.tree.map(np.testing.assert_array_equal, out, x)  # the last step is exact


@pytest.mark.parametrize(
    ("name", "calls"), [("euler", 6), ("heun", 11), ("dpmpp-2m", 6), ("adams-3", 6)]
)
def test_network_calls_and_their_levels(name, calls):
    seen = []

    def denoise(x, level):
        seen.append((float(level.t), float(level.sigma)))
        return 0.5 * x

    t, sigmas = schedule(7.0, 6)
    with jax.disable_jit():
        SOLVERS[name](denoise, jnp.float32(80.0), t, sigmas)
    assert len(seen) == calls
    assert min(sigma for _, sigma in seen) > 0
    for time, sigma in seen:
        np.testing.assert_allclose(sigma, power_mean(time, 7.0, LOW, HIGH), rtol=1e-5)
    np.testing.assert_allclose(seen[-1], [0.0, LOW], rtol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_one_step_is_one_call(solver):
    t, sigmas = schedule(7.0, 1)
    out = solver(normal_denoiser, jnp.float32(80.0), t, sigmas)
    np.testing.assert_allclose(out, 80.0 / 6401.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("rho", "num_steps", "std"),
    [
        (1.0, 50, 0.5036),
        (2.0, 50, 0.9041),
        (3.0, 50, 0.9351),
        (5.0, 50, 0.9466),
        (7.0, 50, 0.9488),
        (12.0, 50, 0.9494),
        (7.0, 200, 0.9871),
        (7.0, 18, 0.8595),
    ],
)
def test_euler_shrinks_a_normal_by_the_known_factor(rho, num_steps, std):
    t, sigmas = schedule(rho, num_steps)
    # linear in x: the standard deviation of the sample is the image of 80
    out = euler(normal_denoiser, jnp.float32(HIGH), t, sigmas)
    np.testing.assert_allclose(out, std, atol=6e-5)


def test_heun_removes_most_of_the_shrinkage():
    t, sigmas = schedule(7.0, 50)
    out = heun(normal_denoiser, jnp.float32(HIGH), t, sigmas)
    np.testing.assert_allclose(out, 1.0, atol=0.006)


def flow_errors(solver, counts):
    """Errors of the final covariance of correlated Gaussian data, own rho per element.

    D(x) = C (C + S)^-1 x with S = diag(sigma_i^2). The exact flow is linear and carries
    covariance C + S(1) to C + S(0); the last step then applies D at S(0).
    """
    data = 0.5 + 0.5 * 0.6 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))

    def denoise(x, level):  # x: [4, columns]
        total = data + jnp.diag(level.sigma[:, 0] ** 2)
        return data @ jnp.linalg.solve(total, x)

    start = np.linalg.cholesky(data + HIGH**2 * np.eye(4))
    last = data @ np.linalg.inv(data + LOW**2 * np.eye(4))
    exact = last @ data
    errors = []
    for count in counts:
        t, sigmas = schedule(RHOS[:, None], count)
        flow = jax.jit(lambda x, t, s: solver(denoise, x, t, s))
        image = flow(jnp.asarray(start), t, sigmas)
        errors.append(np.abs(image @ image.T - exact).max())
    return np.array(errors)


ORDERS = [(euler, 1.0), (heun, 2.0), (dpmpp_2m, 2.0), (exponential_adams, 3.0)]


@pytest.mark.parametrize(("solver", "order"), ORDERS)
def test_order_with_a_different_schedule_for_every_element(x64, solver, order):
    counts = np.array([129, 257, 513, 1025])  # 128, 256, ... intervals
    errors = flow_errors(solver, counts)
    slope = -np.polyfit(np.log(counts - 1), np.log(errors), 1)[0]
    np.testing.assert_allclose(slope, order, atol=0.12)
    assert errors[-1] < {1.0: 0.03, 2.0: 3e-4, 3.0: 2e-5}[order]


@pytest.mark.parametrize(
    ("antipodal", "rho", "frequency"),
    [
        (True, 1.0, 0.068),
        (True, 7.0, 0.081),
        (False, 1.0, 0.055),
        (False, 7.0, 0.078),
    ],
)
def test_ideal_binary_feature_has_the_known_frequency(antipodal, rho, frequency):
    dim, num, high = 16, 40_000, 100.0
    axes = np.eye(dim)[:2]
    table = np.stack([axes[0], -axes[0] if antipodal else axes[1]])
    e = normalise(jnp.asarray(table, jnp.float32)[None])
    prior = jnp.log(jnp.array([0.92, 0.08]))

    def denoise(z, level):  # |e_k| are equal, so |z - e|^2 reduces to z . e
        products = jnp.einsum("...dh,dkh->...dk", z, e)
        return expected(e, prior + products / level.sigma**2)

    t, sigmas = schedule(rho, 50, high)
    z = high * jax.random.normal(jax.random.key(0), (num, 1, dim))
    z = jax.jit(lambda z: euler(denoise, z, t, sigmas))(z)
    codes = nearest(e, valid_codes((2,)), z)
    # standard errors: ours, and .0014 of the published number
    error = np.hypot(np.sqrt(frequency * (1 - frequency) / num), 0.0014)
    np.testing.assert_allclose(codes.mean(), frequency, atol=4 * error)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_gradient_to_the_schedule_is_finite(solver):
    def final(rho):
        t, sigmas = schedule(rho, 8)
        return solver(normal_denoiser, jnp.float32(HIGH), t, sigmas)

    assert np.isfinite(jax.grad(final)(7.0))


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_second_call_does_not_compile(solver):
    traces = []

    @jax.jit
    def run(x, rho):
        traces.append(1)
        t, sigmas = schedule(rho, 8)
        return solver(normal_denoiser, x, t, sigmas)

    first = run(jnp.ones((3, 2)), jnp.array([3.0, 7.0]))
    second = run(2.0 * jnp.ones((3, 2)), jnp.array([4.0, 9.0]))
    assert len(traces) == 1
    assert not np.array_equal(first, second)


def test_a_leaf_may_carry_the_last_logits():
    def denoise(x, level):
        x0_hat = normal_denoiser(x["x"], Level(level.t, level.sigma["x"]))
        return {"x": x0_hat, "logits": 3.0 + x0_hat}

    t, sigmas = sigma_levels(lambda t: {"x": 0.1 + t, "logits": 0.1 + t}, 5)
    out = euler(denoise, {"x": jnp.ones(2), "logits": jnp.zeros(2)}, t, sigmas)
    np.testing.assert_array_equal(out["logits"], 3.0 + out["x"])
