"""Alignment: the factored solver against ott-jax and POT, and many records at once.

All three solve one problem from one start, the product plan: entropic
Gromov-Wasserstein of cosine similarities, with epsilon of ott; that of POT is twice as
large. Each tells the Gromov-Wasserstein value of its plan, computed in one way.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.alignment_scale import Arguments, judge, simulate
from experiments.speed_work import Ready, coupling_bytes, coupling_flop
from jaxehr.core.configs import replace
from jaxehr.devices import configure
from jaxehr.ot import imputers
from jaxehr.ot.align import Alignment, align
from jaxehr.ot.config import AlignmentConfig
from jaxehr.ot.costs import Problem
from jaxehr.ot.factored import plan_of, solve

CLASSES = 2
# What `jaxehr.ot.gromov` gives ott; its own defaults leave these open.
OUTER, THRESHOLD, SINKHORN = 100, 1e-4, 2000


def problem_of(sizes: dict[str, Any]) -> tuple[Problem, float]:
    """Unit rows of two clouds, uniform weights, no linear terms; `sizes` epsilon.

    The clouds are not centred: the product plan is stationary for centred ones.
    """
    clouds, _ = simulate(Arguments(records=sizes["rows"], latent=sizes["latent"]))
    unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)
    u, v = unit(clouds.source), unit(clouds.target)
    each = np.full(len(u), 1.0 / len(u))
    none = np.zeros((len(u), 0), np.float32)
    return Problem(u, v, each, each, none, none), sizes["epsilon"]


def value_of(problem: Problem, plan: Any) -> dict[str, Any]:
    """sum (C - C')^2 G G of a plan with about the right marginals, and its mass."""
    plan = np.asarray(plan, np.float64)
    norm = lambda z, w: np.sum((z.T @ (w[:, None] * z)) ** 2)
    u, v = np.asarray(problem.u, np.float64), np.asarray(problem.v, np.float64)
    norms = norm(u, problem.a) + norm(v, problem.b)
    moved = np.sum((u.T @ plan @ v) ** 2)
    return {"gw": float(norms - 2.0 * moved), "mass": float(plan.sum())}


def ours(sizes: dict[str, Any]) -> Ready:
    """The factored solver."""
    configure()
    problem, epsilon = problem_of(sizes)

    def run() -> Any:
        return jax.block_until_ready(solve(problem, epsilon))

    def tell(found: Any) -> dict[str, Any]:
        n, m = len(problem.a), len(problem.b)
        outer, sinkhorn = int(found.outer), int(found.sinkhorn)
        told = value_of(problem, plan_of(Problem(*map(jnp.asarray, problem)), found))
        told |= {"outer": outer, "sinkhorn": sinkhorn}
        told["flop"] = coupling_flop(n, m, problem.u.shape[1], outer, sinkhorn)
        return told | {"bytes": coupling_bytes(n, m, sinkhorn)}

    return Ready(run, tell=tell)


def by_ott(sizes: dict[str, Any]) -> Ready:
    """ott-jax with the exact low-rank geometry of both clouds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "JAXopt", DeprecationWarning)
        from ott.geometry.low_rank import LRCGeometry
        from ott.problems.quadratic.quadratic_problem import QuadraticProblem
        from ott.solvers.linear.sinkhorn import Sinkhorn
        from ott.solvers.quadratic.gromov_wasserstein import GromovWasserstein
    problem, epsilon = problem_of(sizes)
    arrays = [jnp.asarray(part, jnp.float32) for part in problem[:4]]

    @jax.jit
    def solved(u: Any, v: Any, a: Any, b: Any) -> Any:
        quadratic = QuadraticProblem(LRCGeometry(u, u), LRCGeometry(v, v), a=a, b=b)
        solver = GromovWasserstein(
            Sinkhorn(max_iterations=SINKHORN),
            epsilon=epsilon,
            threshold=THRESHOLD,
            max_iterations=OUTER,
        )
        found = solver(quadratic)
        return found.matrix, jnp.sum(found.costs != -1.0)

    def run() -> Any:
        return jax.block_until_ready(solved(*arrays))

    def tell(found: Any) -> dict[str, Any]:
        return value_of(problem, found[0]) | {"outer": int(found[1])}

    return Ready(run, tell=tell)


def by_pot(sizes: dict[str, Any]) -> Ready:
    """POT at its defaults, float64."""
    import ot  # pyright: ignore[reportMissingImports]

    problem, epsilon = problem_of(sizes)
    u, v, a, b = (np.asarray(part, np.float64) for part in problem[:4])
    source, target = u @ u.T, v @ v.T

    def run() -> Any:
        couple = ot.gromov.entropic_gromov_wasserstein
        return couple(source, target, a, b, epsilon=2.0 * epsilon)

    return Ready(run, tell=lambda plan: value_of(problem, plan))


def large(sizes: dict[str, Any]) -> Ready:
    """`align` of whole clouds, dense up to `limit` records, else by the large recipe.

    With `against` it also tells how far the map is from that of the dense solution.
    """
    configure()
    arguments = Arguments(
        records=sizes["rows"], latent=sizes["latent"], method="gromov"
    )
    clouds, held = simulate(arguments)
    rows = sizes["rows"]
    small = rows < sizes["limit"] and sizes.get("small", False)
    limit = rows // 2 if small and sizes.get("against") else sizes["limit"]
    config = AlignmentConfig(
        method="gromov", dense_limit=limit, subsample=sizes["subsample"]
    )
    key, dense = jax.random.key(0), []

    def run(config: AlignmentConfig = config) -> Alignment:
        return align(key, clouds, CLASSES, config)

    def tell(found: Alignment) -> dict[str, Any]:
        told = judge(found, config, clouds, held)
        if sizes.get("against"):
            if not dense:
                dense.append(run(replace(config, {"dense_limit": rows})))
            guess = [imputed(one, config, held) for one in (found, dense[0])]
            spread = np.sum((guess[1] - guess[1].mean(0)) ** 2)
            error = np.sum((guess[0] - guess[1]) ** 2)
            told["off_dense"] = float(np.sqrt(error / spread))
        return told

    return Ready(run, tell=tell)


def imputed(found: Alignment, config: AlignmentConfig, held: Any) -> np.ndarray:
    """What the map makes of rows in neither cloud."""
    return np.asarray(imputers.predict(found.forward, config, held[0], held[1]))
