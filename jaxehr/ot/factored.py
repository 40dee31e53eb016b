"""Entropic Gromov-Wasserstein for similarities of low rank, without the n x n costs.

Alternates S = 2 U M V' + X Y', G = Sinkhorn(S, epsilon), M = U' G V (see `costs`). The
plan is exp((S_ij + f_i + g_j) / epsilon), so that a row or column outside of the
problem is coupled by the potentials alone. epsilon is that of ott; POT's is twice as
large.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.ot.costs import Problem

TINY = 1e-30  # no kernel sum below: a row that underflowed comes back in the log step
DECAY = 0.7  # of epsilon in one outer step while it is annealed
INNER = 20  # kernel iterations between two log-domain steps
CHANCE = (
    60  # random pairs of a start: few enough to differ, enough to have a class mean
)
COARSE = {"tolerance": 1e-2, "max_rounds": 5, "max_outer": 30, "change": 1e-3}


class Solution(NamedTuple):
    """A plan by its potentials f [n], g [m] and m [r, r'], and how it came about.

    moment: U' G V of the plan. change: |M' - M| / |M'| of the last outer step.
    marginal_error: L1 error of the row sums. value: sum (C - C')^2 G G of the plan,
    product_value: of a b'. information: KL(G | a b') in nats.
    """

    m: Any
    f: Any
    g: Any
    epsilon: Any
    moment: Any
    outer: Any
    sinkhorn: Any
    change: Any
    marginal_error: Any
    mass: Any
    value: Any
    product_value: Any
    information: Any


def similarity(problem: Problem, m: jax.Array) -> jax.Array:
    """S [n, m] = 2 U M V' + X Y', one product of matrices."""
    left = jnp.concatenate([2.0 * (problem.u @ m), problem.x], 1)
    return left @ jnp.concatenate([problem.v, problem.y], 1).T


def plan_of(problem: Problem, solution: Solution) -> jax.Array:
    """The plan G [n, m]."""
    s = similarity(problem, solution.m)
    return jnp.exp((s + solution.f[:, None] + solution.g[None, :]) / solution.epsilon)


def sinkhorn(
    s: jax.Array,
    epsilon: jax.Array,
    a: jax.Array,
    b: jax.Array,
    g: jax.Array,
    tolerance: float,
    max_rounds: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Potentials f, g of max <S, G> - epsilon KL(G | a b'), L1 error, iterations.

    One log-domain step, then `INNER` products with the stabilised kernel, absorbed into
    the potentials [schmitzer2019, Sec. 3]. Rows of weight 0 have potential -inf.
    """
    log_a, log_b = jnp.log(a), jnp.log(b)
    lse = jax.scipy.special.logsumexp

    def one_round(state: tuple) -> tuple:
        _, g, _, count = state
        f = epsilon * (log_a - lse((s + g[None, :]) / epsilon, axis=1))
        g = epsilon * (log_b - lse((s + f[:, None]) / epsilon, axis=0))
        kernel = jnp.exp((s + f[:, None] + g[None, :]) / epsilon)

        def scale(_: int, uv: tuple) -> tuple:
            u = a / jnp.maximum(kernel @ uv[1], TINY)
            return u, b / jnp.maximum(u @ kernel, TINY)

        u, v = jax.lax.fori_loop(0, INNER, scale, (jnp.ones_like(f), jnp.ones_like(g)))
        error = jnp.sum(jnp.abs(u * (kernel @ v) - a))
        return f + epsilon * jnp.log(u), g + epsilon * jnp.log(v), error, count + 1

    f, g, error, rounds = jax.lax.while_loop(
        lambda state: (state[2] > tolerance) & (state[3] < max_rounds),
        one_round,
        (jnp.zeros_like(a), g, jnp.full((), jnp.inf, s.dtype), jnp.zeros((), int)),
    )
    return f, g, error, rounds * (INNER + 1)


@jax.jit
def solve_padded(
    problem: Problem,
    epsilon: jax.Array,
    first_epsilon: jax.Array,
    start: jax.Array,
    *,
    max_outer: int,
    max_rounds: int,
    tolerance: float,
    change: float,
) -> Solution:
    """`solve` of a problem on the device; rows of weight 0 are padding."""
    sink = functools.partial(sinkhorn, tolerance=tolerance, max_rounds=max_rounds)
    a, b = problem.a, problem.b
    first_g = jnp.where(b > 0, 0.0, -jnp.inf)

    def plan(m: jax.Array, epsilon: jax.Array, g: jax.Array) -> tuple:
        s = similarity(problem, m)
        f, g, error, count = sink(s, epsilon, a, b, g)
        log = (s + f[:, None] + g[None, :]) / epsilon
        return f, g, error, count, log, problem.u.T @ jnp.exp(log) @ problem.v

    def outer(state: tuple) -> tuple:
        m, g, now, step, _, total = state
        _, g, _, count, _, moment = plan(m, now, g)
        moved = jnp.linalg.norm(moment - m) / (jnp.linalg.norm(moment) + TINY)
        moved = jnp.where(now > 1.0001 * epsilon, jnp.inf, moved)
        lower = jnp.maximum(DECAY * now, epsilon)
        return moment, g, lower, step + 1, moved, total + count

    m, g, _, steps, moved, total = jax.lax.while_loop(
        lambda state: (state[4] > change) & (state[3] < max_outer),
        outer,
        (start, first_g, first_epsilon, 0, jnp.full((), jnp.inf, a.dtype), 0),
    )
    f, g, error, count, log, moment = plan(m, epsilon, g)
    how = (steps, total + count, moved, error)
    worth = _worth(problem, log, moment)
    return Solution(*(m, f, g, epsilon, moment), *how, *worth)


def _worth(problem: Problem, log: jax.Array, moment: jax.Array) -> tuple:
    """Mass, GW value, GW value of the product, information of the plan exp(log)."""
    plan, a, b = jnp.exp(log), problem.a, problem.b
    own = lambda u, w: jnp.sum((u.T @ (w[:, None] * u)) ** 2)
    norms = own(problem.u, a) + own(problem.v, b)
    product = jnp.sum(jnp.outer(a @ problem.u, b @ problem.v) ** 2)
    ratio = log - jnp.log(a)[:, None] - jnp.log(b)[None, :]
    information = jnp.sum(jnp.where(plan > 0, plan * ratio, 0.0))
    value = norms - 2.0 * jnp.sum(moment**2)
    return plan.sum(), value, norms - 2.0 * product, information


def solve(
    problem: Problem,
    epsilon: float,
    *,
    start: np.ndarray | None = None,
    first_epsilon: float | None = None,
    max_outer: int = 60,
    max_rounds: int = 30,
    tolerance: float = 1e-3,
    change: float = 1e-4,
) -> Solution:
    """Alternates between plan and moment until the moment stands still.

    Args:
      start: M of the first step; the product plan's where None.
      first_epsilon: above `epsilon` it is lowered step by step (annealing).
      max_outer: 0 = one Sinkhorn at M = start.
      tolerance: L1 error of the row sums that ends a Sinkhorn.
      change: relative change of M that ends it all.

    Compiled once for each padded shape. Arrays come back without the padding.
    """
    n, m = len(problem.a), len(problem.b)
    padded = pad(problem)
    if start is None:
        start = np.outer(problem.a @ problem.u, problem.b @ problem.v)
    solution = solve_padded(
        padded,
        jnp.asarray(epsilon, float),
        jnp.asarray(max(first_epsilon or epsilon, epsilon), float),
        jnp.asarray(start, float),
        max_outer=max_outer,
        max_rounds=max_rounds,
        tolerance=tolerance,
        change=change,
    )
    return solution._replace(f=solution.f[:n], g=solution.g[:m])


def bucket(count: int) -> int:
    """The size that `count` rows are padded to: at most an eighth more, from 64 on."""
    grain = max(64, 1 << max(count.bit_length() - 4, 0))
    return -(-count // grain) * grain


def pad(problem: Problem) -> Problem:
    """Rows of weight 0 up to the bucket, on the device."""

    def one(array: np.ndarray) -> jax.Array:
        rows = bucket(len(array)) - len(array)
        widths = [(0, rows)] + [(0, 0)] * (np.ndim(array) - 1)
        return jnp.pad(jnp.asarray(array, float), widths)

    return Problem(*map(one, problem))


def best_of_starts(
    generator: np.random.Generator,
    problem: Problem,
    labels: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    sigma: float,
    starts: int,
) -> tuple[Solution, list[float]]:
    """The solution of lowest GW value, and the value of every start.

    All are annealed from 2 sigma, where a start still decides the basin. The first is
    the product plan, the others pair `CHANCE` random rows with rows of the same class.
    """
    found = []
    for i in range(starts):
        start = chance_moment(generator, problem, labels) if i else None
        found.append(
            solve(problem, epsilon, start=start, first_epsilon=2.0 * sigma, **COARSE)
        )
    values = [float(one.value) for one in found]
    ranked = [value if np.isfinite(value) else np.inf for value in values]
    return found[int(np.argmin(ranked))], values


def chance_moment(
    generator: np.random.Generator,
    problem: Problem,
    labels: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """M = mean of u_i v_j' over random pairs (i, j) of one class."""
    rows = generator.choice(len(problem.a), CHANCE, p=problem.a)
    total = np.zeros((problem.u.shape[1], problem.v.shape[1]))
    for row in rows:
        fits = (labels[1] == labels[0][row]) * problem.b
        fits = fits if fits.any() else problem.b
        partner = generator.choice(len(fits), p=fits / fits.sum())
        total += np.outer(problem.u[row], problem.v[partner])
    return total / CHANCE
