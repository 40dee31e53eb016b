"""Solvers of the probability-flow ODE in which every element has its own noise level.

The ODE is dx_i = (x_i - D_i(x)) / sigma_i dsigma_i for each element i; all sigma_i are
functions of one time t [karras2022, Eq. 1, 3]. The state x is any pytree, and sigma one
of the same structure whose leaves broadcast against those of x.

A leaf of x may also carry what `denoise` finds beside (logits, say): the last step, to
sigma = 0, sets every leaf to its denoised value exactly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp


class Level(NamedTuple):
    """The noise of one network call."""

    t: jax.Array  # []
    sigma: Any  # pytree like x; leaves broadcast against those of x


class DenoiseFn(Protocol):
    # Returns x0_hat, a pytree like x.
    def __call__(self, x: Any, level: Level, /) -> Any: ...


class Solver(Protocol):
    def __call__(
        self, denoise: DenoiseFn, x: Any, t: jax.Array, sigmas: Any, /
    ) -> Any: ...


def levels(num_steps: int) -> jax.Array:
    """Times [num_steps], uniform from 1 down to 0."""
    return jnp.linspace(1.0, 0.0, num_steps)


def sigma_levels(
    sigma_of_t: Callable[[jax.Array], Any], num_steps: int
) -> tuple[jax.Array, Any]:
    """Times [N] of the network calls and noise levels [N + 1, ...], the last being 0.

    Args:
      sigma_of_t: from a scalar t to a pytree of noise levels.
      num_steps: N, the number of steps.
    """
    t = levels(num_steps)

    def end_in_zero(leaf: jax.Array) -> jax.Array:
        return jnp.concatenate([leaf, jnp.zeros_like(leaf[:1])])

    return t, jax.tree.map(end_in_zero, jax.vmap(sigma_of_t)(t))


def euler(denoise: DenoiseFn, x: Any, t: jax.Array, sigmas: Any) -> Any:
    """First-order solution [cdmt2026, Alg. 2] in N calls of `denoise`.

    x <- x0_hat + (sigma_next / sigma) (x - x0_hat), which is the Euler step in sigma.

    Args:
      denoise: (x, Level) -> x0_hat.
      x: start, at the noise levels sigmas[0].
      t, sigmas: from `sigma_levels`; t [N], leaves of sigmas [N + 1, ...].
    """

    def step(x: Any, ends: Any) -> tuple[Any, None]:
        time, sigma, sigma_next = ends
        x0_hat = denoise(x, Level(time, sigma))
        return jax.tree.map(_shrink, x, x0_hat, sigma, sigma_next), None

    return jax.lax.scan(step, x, (t, _drop_last(sigmas), _drop_first(sigmas)))[0]


def heun(denoise: DenoiseFn, x: Any, t: jax.Array, sigmas: Any) -> Any:
    """Second-order solution [karras2022, Alg. 1] in 2N - 1 calls of `denoise`.

    x' = x + (sigma_next - sigma) (d + d_next) / 2 with d = (x - x0_hat) / sigma, each
    element by its own sigma. The step of element i is the integral of d_i over sigma_i.
    Along the path d_i is a smooth function of sigma_i, whatever the other elements'
    schedules are, so the trapezoid errs by O(h^3) in it; and the Euler predictor, which
    enters d_next through all elements, by O(h^2) times a step. The order stays 2.

    The last step, to sigma = 0, has no corrector (d_next would be 0 / 0); it stands
    outside the loop, since a `where` would still differentiate it. Arguments: `euler`.
    """

    def step(x: Any, ends: Any) -> tuple[Any, None]:
        (time, sigma), (time_next, sigma_next) = ends
        x0_hat = denoise(x, Level(time, sigma))
        guess = jax.tree.map(_shrink, x, x0_hat, sigma, sigma_next)
        x0_next = denoise(guess, Level(time_next, sigma_next))
        return jax.tree.map(
            _trapezoid, x, x0_hat, guess, x0_next, sigma, sigma_next
        ), None

    positive = _drop_last(sigmas)
    ends = (
        (t[:-1], _drop_last(positive)),
        (t[1:], _drop_first(positive)),
    )
    x = jax.lax.scan(step, x, ends)[0]
    return denoise(x, Level(t[-1], jax.tree.map(lambda leaf: leaf[-1], positive)))


def _shrink(x: Any, x0_hat: Any, sigma: Any, sigma_next: Any) -> Any:
    return x0_hat + (sigma_next / sigma) * (x - x0_hat)


def _trapezoid(
    x: Any, x0_hat: Any, guess: Any, x0_next: Any, sigma: Any, sigma_next: Any
) -> Any:
    slope = (x - x0_hat) / sigma + (guess - x0_next) / sigma_next
    return x + 0.5 * (sigma_next - sigma) * slope


def _drop_last(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:-1], tree)


def _drop_first(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[1:], tree)


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun}
