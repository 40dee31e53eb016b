"""The paper's coupling: entropic Gromov-Wasserstein by ott-jax [cuturi2022].

Label-signed cosines, an absolute epsilon, uniform weights, the product plan as start,
no label and no anchor term [flexgen2024, Eq. 6]; exact low rank, C = U U'.
"""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.ot.costs import Problem, take
from jaxehr.ot.factored import Solution, solve
from jaxehr.ot.large import Coupling, Rows, stratified

OUTER, THRESHOLD, SINKHORN = 100, 1e-4, 2000


def paper_coupling(
    key: jax.Array,
    problem: Problem,
    labels: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    dense_limit: int,
    subsample: int,
) -> Coupling:
    """The coupling on all rows, above `dense_limit` on a subsample of both clouds."""
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    large = max(len(problem.a), len(problem.b)) > dense_limit
    count = subsample if large else dense_limit
    clouds = Rows(labels[0], problem.a), Rows(labels[1], problem.b)
    rows = [stratified(generator, cloud, count) for cloud in clouds]
    found = by_ott(take(problem, *rows), epsilon)
    return Coupling(found, rows[0], rows[1], [float(found.value)])


def by_ott(problem: Problem, epsilon: float) -> Solution:
    """ott's plan of a problem without linear terms, as a `Solution`.

    The potentials are those of one more Sinkhorn at ott's moment U' G V; mass, marginal
    error, values and information are of ott's own plan.
    """
    u, v = jnp.asarray(problem.u, float), jnp.asarray(problem.v, float)
    a, b = jnp.asarray(problem.a, float), jnp.asarray(problem.b, float)
    plan, outer, converged = _ott(u, v, a, b, jnp.asarray(epsilon, float))
    moment = u.T @ plan @ v
    solution = solve(problem, epsilon, start=np.asarray(moment), max_outer=0)
    moved = jnp.linalg.norm(solution.moment - moment) / jnp.linalg.norm(moment)
    error = jnp.abs(plan.sum(1) - a).sum() + jnp.abs(plan.sum(0) - b).sum()
    ratio = jnp.where(plan > 0, plan / jnp.outer(a, b), 1.0)
    return solution._replace(
        moment=moment,
        outer=outer,
        change=jnp.where(converged, moved, jnp.inf),
        marginal_error=error,
        mass=plan.sum(),
        value=solution.value + 2.0 * jnp.sum(solution.moment**2 - moment**2),
        information=jnp.sum(plan * jnp.log(ratio)),
    )


@functools.cache
def _solver() -> tuple[Any, Any, Any]:
    """ott's classes; the import warns of JAXopt, which we do not call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "JAXopt", DeprecationWarning)
        from ott.geometry.low_rank import LRCGeometry
        from ott.problems.quadratic.quadratic_problem import QuadraticProblem
        from ott.solvers.linear.sinkhorn import Sinkhorn
        from ott.solvers.quadratic.gromov_wasserstein import GromovWasserstein
    inner = Sinkhorn(max_iterations=SINKHORN)

    def solver(epsilon: Any) -> Any:
        return GromovWasserstein(
            inner, epsilon=epsilon, threshold=THRESHOLD, max_iterations=OUTER
        )

    return LRCGeometry, QuadraticProblem, solver


@jax.jit
def _ott(
    u: jax.Array, v: jax.Array, a: jax.Array, b: jax.Array, epsilon: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Plan, outer iterations, ott's word that it converged."""
    geometry, quadratic, solver = _solver()
    problem = quadratic(geometry(u, u), geometry(v, v), a=a, b=b)
    found = solver(epsilon)(problem)
    return found.matrix, jnp.sum(found.costs != -1.0), found.converged
