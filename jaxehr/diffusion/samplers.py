"""Solvers of the probability-flow ODE in which every element has its own noise level.

The ODE is dx_i = (x_i - D_i(x)) / sigma_i dsigma_i for each element i; all sigma_i are
functions of one time t [karras2022, Eq. 1, 3]. The state x is any pytree, and sigma one
of the same structure whose leaves broadcast against those of x.

A leaf of x may also carry what `denoise` finds beside (logits, say): the last step, to
sigma = 0, sets every leaf to its denoised value exactly.
"""

import functools
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


def dpmpp_2m(denoise: DenoiseFn, x: Any, t: jax.Array, sigmas: Any) -> Any:
    """DPM-Solver++(2M) [lu2025, Alg. 2], second order in N calls of `denoise`.

    With l = -log sigma of each element, h = l_next - l and r = (l - l_last) / h:

        x <- (sigma_next / sigma) x + (1 - sigma_next / sigma) D,
        D = (1 + 1 / (2 r)) x0_hat - x0_hat_last / (2 r).

    The first step has no last one and is Euler's. Arguments: `euler`.
    """
    return _multistep(2, _midpoint, denoise, x, t, sigmas)


def exponential_adams(denoise: DenoiseFn, x: Any, t: jax.Array, sigmas: Any) -> Any:
    """Exponential Adams-Bashforth, third order in N calls of `denoise`.

    dx / dl = x0_hat - x for each element, l = -log sigma; its solution

        x(l + h) = exp(-h) x + int_0^h exp(s - h) x0_hat(l + s) ds

    with x0_hat the parabola through its last three values, integrated exactly
    [hochbruck2010, Sec. 2.5; lu2025 in l]. The first two steps have fewer values, and
    a lower order. Arguments: `euler`.
    """
    return _multistep(3, _parabola, denoise, x, t, sigmas)


def _multistep(
    order: int, step: Callable[..., Any], denoise: Any, x: Any, t: Any, sigmas: Any
) -> Any:
    """One call a step; the values of `order` - 1 steps before are remembered."""

    def advance(state: Any, ends: Any) -> tuple[Any, None]:
        x, past = state
        time, number, sigma, sigma_next, before = ends
        x0_hat = denoise(x, Level(time, sigma))
        used = functools.partial(step, number)
        x = jax.tree.map(used, x, sigma, sigma_next, x0_hat, *before, *past)
        return (x, (x0_hat, *past[:-1])), None

    count, positive = t.shape[0], _drop_last(sigmas)
    # Before the first step stand its own levels; `step` does not use them.
    back = lambda places: jax.tree.map(
        lambda leaf: leaf[jnp.maximum(jnp.arange(count) - places, 0)], positive
    )
    before = tuple(back(places) for places in range(1, order))
    past = (jax.tree.map(jnp.zeros_like, x),) * (order - 1)
    ends = (t, jnp.arange(count), positive, _drop_first(sigmas), before)
    return jax.lax.scan(advance, (x, past), ends)[0][0]


def _span(begin: Any, end: Any, there: Any) -> Any:
    """log(begin / end), or 1 where there is no such step."""
    return jnp.log(jnp.where(there, begin / jnp.where(end > 0, end, 1.0), jnp.e))


def _midpoint(
    number: Any, x: Any, sigma: Any, sigma_next: Any, x0: Any, before: Any, x0_last: Any
) -> Any:
    h = _span(sigma, sigma_next, sigma_next > 0)
    last = _span(before, sigma, number > 0)
    # The last step, to sigma = 0, ends in x0_hat exactly.
    weight = jnp.where((number > 0) & (sigma_next > 0), 0.5 * h / last, 0.0)
    return _shrink(x, x0 + weight * (x0 - x0_last), sigma, sigma_next)


def _parabola(
    number: Any, x: Any, sigma: Any, sigma_next: Any, x0: Any, *history: Any
) -> Any:
    before, earlier, x0_last, x0_earlier = history
    h = _span(sigma, sigma_next, sigma_next > 0)
    last = _span(before, sigma, number > 0)
    longer = last + _span(earlier, before, number > 1)
    # Divided differences of x0_hat, and integrals of exp(s - h) s and exp(s - h) s^2.
    first = (x0 - x0_last) / last
    second = (first - (x0_last - x0_earlier) / (longer - last)) / longer
    one = h + jnp.expm1(-h)
    two = h * h - 2.0 * one
    first = jnp.where((number > 0) & (sigma_next > 0), one * first, 0.0)
    second = jnp.where(
        (number > 1) & (sigma_next > 0), (two + last * one) * second, 0.0
    )
    return _shrink(x, x0, sigma, sigma_next) + first + second


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


SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "heun": heun,
    "dpmpp-2m": dpmpp_2m,
    "adams-3": exponential_adams,
}
