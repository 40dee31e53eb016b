"""Diffusion in T discrete steps: schedules, noising, DDPM and DDIM samplers.

x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps, abar_t = prod_{s <= t} (1 - beta_s)
[ho2020, Eq. 4]. FLEXGEN's convention: beta_0 exists and counts in the product, levels
1 ... T are visited, and x_0 is what a sampler returns [flexgen2024, public code].
A schedule is NumPy in float64, so that 1 - abar loses nothing near abar = 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.checks import known, positive, within

# Ends of the line beta_0 ... beta_T.
ENDS = {
    "paper": (1e-4, 1e-2),
    "code": (1e-4, 2e-2),
    "scaled": (1e-4, 1e-2),
    "long": (1e-4, 2e-2),
}
LARGEST = 0.999  # beta = 1 would leave nothing of x0

EpsFn = Callable[[jax.Array, jax.Array], jax.Array]  # (x [B, d], t []) -> noise [B, d]
NoiseFn = Callable[[jax.Array], jax.Array]  # t [] -> standard normal [B, d]


class Schedule(NamedTuple):
    """Levels 0 ... T, each array [T + 1]."""

    beta: np.ndarray
    alpha: np.ndarray  # 1 - beta
    alpha_bar: np.ndarray  # share of the signal's variance

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.beta) - 1


def betas(name: str, num_steps: int) -> np.ndarray:
    """beta_t = beta_0 + (beta_T - beta_0) t / T, t = 0 ... T [flexgen2024, Sec. 5.1].

    `paper` goes from 1e-4 to 1e-2, `code` and `long` to 2e-2. With few steps these keep
    much of the signal at t = T (abar = .77 for `paper`, T = 50) while samplers start
    from pure noise; `scaled` is `paper` times 1000 / T, at most .999.

    Raises:
      InputError: the name is unknown, or T < 1.
    """
    known("betas", name, ENDS)
    positive(num_steps=num_steps)
    line = np.linspace(*ENDS[name], num_steps + 1)
    return np.minimum(line * 1000.0 / num_steps, LARGEST) if name == "scaled" else line


def sqrt_betas(num_steps: int, low: float = 0.0015, high: float = 0.0195) -> np.ndarray:
    """beta_t with sqrt(beta_1) ... sqrt(beta_T) on a line, beta_0 = 0 [ldm2022].

    `low` and `high` are beta_1 and beta_T of T = 1000, the values of the public code.

    Raises:
      InputError: T < 1.
    """
    positive(num_steps=num_steps)
    line = np.linspace(low**0.5, high**0.5, num_steps) ** 2
    return np.concatenate([[0.0], line])


def clean_betas(name: str, num_steps: int) -> np.ndarray:
    """beta [T + 1] that start clean: beta_0 = 0, so that x_0 is the data itself.

    `cosine`: abar_t = f(t) / f(0) with f(t) = cos^2(pi/2 (t/T + .008) / 1.008)
    [nichol2021, Eq. 17]; `linear`: from 0.1 / T to 20 / T over t = 1 ... T, which are
    1e-4 and 2e-2 at T = 1000 [kotelnikov2023, public code]. At most .999.

    Raises:
      InputError: the name is unknown, or T < 1.
    """
    known("betas", name, ("cosine", "linear"))
    positive(num_steps=num_steps)
    if name == "cosine":
        share = (np.arange(num_steps + 1) / num_steps + 0.008) / 1.008
        signal = np.cos(0.5 * np.pi * share) ** 2
        line = 1.0 - signal[1:] / signal[:-1]
    else:
        line = np.linspace(0.1, 20.0, num_steps) / num_steps
    return np.append(0.0, np.minimum(line, LARGEST))


def schedule(beta: np.ndarray) -> Schedule:
    """The schedule of `beta` [T + 1], each in [0, 1)."""
    beta = np.asarray(beta, np.float64)
    return Schedule(beta, 1.0 - beta, np.cumprod(1.0 - beta))


def scales(plan: Schedule, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """sqrt(abar_t) and sqrt(1 - abar_t) [B, 1] of the levels t, Int [B]."""
    signal, noise = np.sqrt(plan.alpha_bar), np.sqrt(1.0 - plan.alpha_bar)
    return jnp.asarray(signal)[t][:, None], jnp.asarray(noise)[t][:, None]


def q_sample(plan: Schedule, x0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """x_t [B, d] of clean rows x0 at levels t, Int [B], with the noise eps."""
    signal, noise = scales(plan, t)
    return signal * x0 + noise * eps


def clean_of(plan: Schedule, x: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """x0_hat = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), which undoes `q_sample`."""
    signal, noise = scales(plan, t)
    return (x - noise * eps) / signal


def row_noise(keys: jax.Array, dim: int) -> NoiseFn:
    """Noise [B, d] of level t whose row i depends on keys[i] and t only."""

    def at(t: jax.Array) -> jax.Array:
        one = lambda key: jax.random.normal(jax.random.fold_in(key, t), (dim,))
        return jax.vmap(one)(keys)

    return at


def ancestral(
    plan: Schedule, x: jax.Array, t: jax.Array, eps: jax.Array, noise: jax.Array
) -> jax.Array:
    """x_{t-1} [B, d] of x_t and the predicted noise, at one t >= 1 [ho2020, Alg. 2].

    x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps_hat) / sqrt(alpha_t)
              + sqrt(beta_t) noise, without noise at t = 1.
    """
    beta, alpha, alpha_bar = (leaf[1:] for leaf in plan)
    spread = np.sqrt(beta) * (np.arange(plan.num_steps) > 0)
    found = (beta / np.sqrt(1.0 - alpha_bar), 1.0 / np.sqrt(alpha), spread)
    towards, grow, spread = (jnp.asarray(leaf, x.dtype)[t - 1] for leaf in found)
    return grow * (x - towards * eps) + spread * noise


def posterior(
    plan: Schedule, x0: jax.Array, x: jax.Array, t: jax.Array, noise: jax.Array
) -> jax.Array:
    """x_{t-1} [..] drawn from q(x_{t-1} | x_t, x_0), at one t >= 1 [ho2020, Eq. 7].

    Mean sqrt(abar_{t-1}) beta_t / (1 - abar_t) x_0 + sqrt(alpha_t) (1 - abar_{t-1}) /
    (1 - abar_t) x_t, variance (1 - abar_{t-1}) / (1 - abar_t) beta_t. A schedule that
    starts clean ends in x_0 itself.
    """
    beta, alpha, after = (leaf[1:] for leaf in plan)
    before = plan.alpha_bar[:-1]
    share = (1.0 - before) / (1.0 - after)
    found = (
        np.sqrt(before) * beta / (1.0 - after),
        np.sqrt(alpha) * share,
        np.sqrt(share * beta),
    )
    towards, kept, spread = (jnp.asarray(leaf, x.dtype)[t - 1] for leaf in found)
    return towards * x0 + kept * x + spread * noise


def ddpm(eps_fn: EpsFn, noise_fn: NoiseFn, x: jax.Array, plan: Schedule) -> jax.Array:
    """Sampling by `ancestral` steps from x = x_T [B, d] to x_0, in T calls.

    Args:
      eps_fn: the predicted noise. noise_fn: see `row_noise`; asked for t = T ... 1 (its
        answer at t = 1 is multiplied by 0).
    """

    def step(x: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        return ancestral(plan, x, t, eps_fn(x, t), noise_fn(t)), None

    levels = jnp.arange(plan.num_steps, 0, -1, dtype=jnp.int32)
    return jax.lax.scan(step, x, levels)[0]


def ddim_levels(num_steps: int, calls: int) -> np.ndarray:
    """The levels [calls] of DDIM, evenly from T = `num_steps` down to 1.

    Raises:
      InputError: more calls than levels, or none.
    """
    within("steps of ddim", calls, 1, num_steps)
    return np.round(np.linspace(num_steps, 1, calls)).astype(int)


def ddim(eps_fn: EpsFn, x: jax.Array, plan: Schedule, calls: int) -> jax.Array:
    """Deterministic sampling from x = x_T [B, d] in `calls` calls [song2021, Eq. 12].

    x_s = sqrt(abar_s) x0_hat + sqrt(1 - abar_s) eps_hat for the next lower level s; the
    last step returns x0_hat. A first-order solver of the probability-flow ODE.
    """
    t = ddim_levels(plan.num_steps, calls)
    ahead = plan.alpha_bar[t]
    behind = np.append(ahead[1:], 1.0)
    # x_s = ratio x_t + (sqrt(1 - abar_s) - ratio sqrt(1 - abar_t)) eps_hat
    ratio = np.sqrt(behind / ahead)
    shift = np.sqrt(1.0 - behind) - ratio * np.sqrt(1.0 - ahead)

    def step(x: jax.Array, level: tuple) -> tuple[jax.Array, None]:
        t, ratio, shift = level
        return ratio * x + shift * eps_fn(x, t), None

    return jax.lax.scan(step, x, _cast((t, ratio, shift), x))[0]


def _cast(levels: tuple, x: jax.Array) -> tuple:
    """Level numbers as int32, coefficients as the dtype of x."""
    first, *others = levels
    return (jnp.asarray(first, jnp.int32), *(jnp.asarray(o, x.dtype) for o in others))
