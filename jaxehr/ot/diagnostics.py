"""What is said of a coupling: whether it can be used, and what it looks like."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxehr.ot.costs import Problem, take
from jaxehr.ot.factored import plan_of
from jaxehr.ot.large import Coupling

COLLAPSED = 0.05  # share of log n that a plan tells beyond the label
HARD = 0.95
CONVERGED_CHANGE = 1e-2
CONVERGED_ERROR = 1e-2
CONVERGED_DRIFT = 0.2  # records drawn anew move a settled moment by .04 to .10
BLOCKS = 60

EMPTY: dict[str, Any] = {
    "status": "none",
    "reason": "",
    "outer_iterations": 0,
    "sinkhorn_iterations": 0,
    "moment_change": None,
    "moment_drift": None,
    "marginal_error": None,
    "mass": None,
    "epsilon": None,
    "rho": None,
    "sigma_ref": None,
    "gw_plan": None,
    "gw_product": None,
    "gw_starts": [],
    "information": None,
    "label_agreement": None,
    "label_chance": None,
    "dropped_source": 0,
    "dropped_target": 0,
    "rows_source": 0,
    "rows_target": 0,
    "class_mass": [],
    "heat": [],
    "notes": [],
}


def describe(
    problem: Problem,
    coupling: Coupling,
    labels: tuple[np.ndarray, np.ndarray],
    num_classes: int,
    sigma: float,
) -> dict[str, Any]:
    """The keys of `EMPTY`, as JSON-able values.

    status: ok, not_converged, collapsed (the plan tells nothing beyond the label; a
    product plan converges too), failed (not finite, or mass lost). information: KL(G |
    a b') less that of the classes, over log min(n, m). heat: mass of <= 60 x 60 blocks
    of rows sorted by label, then along the main direction of the moment.
    """
    found, rows = coupling.solution, (coupling.source, coupling.target)
    here = take(problem, *rows)
    label = [np.asarray(labels[i])[rows[i]] for i in range(2)]
    plan = plan_of(Problem(*(jnp.asarray(part, float) for part in here)), found)
    onehot = [np.eye(max(num_classes, 1))[codes] for codes in label]
    mass = _blocks(plan, *onehot)
    size = min(len(rows[0]), len(rows[1]))
    told = float(found.information) - _information(mass)
    share = told / max(math.log(max(size, 1)), 1e-9)
    status, reason = _judge(found, share, size, coupling.drift)
    return EMPTY | {
        "status": status,
        "reason": reason,
        "outer_iterations": int(found.outer),
        "sinkhorn_iterations": int(found.sinkhorn),
        "moment_change": _number(found.change),
        "moment_drift": coupling.drift,
        "marginal_error": _number(found.marginal_error),
        "mass": _number(found.mass),
        "epsilon": _number(found.epsilon),
        "rho": _number(float(found.epsilon) / sigma) if sigma > 0 else None,
        "sigma_ref": _number(sigma),
        "gw_plan": _number(found.value),
        "gw_product": _number(found.product_value),
        "gw_starts": [_number(value) for value in coupling.values],
        "information": _number(share),
        "label_agreement": _number(np.trace(mass)),
        "label_chance": _number(mass.sum(1) @ mass.sum(0)),
        "rows_source": len(rows[0]),
        "rows_target": len(rows[1]),
        "class_mass": np.nan_to_num(mass).tolist(),
        "heat": _heat(plan, here, label, np.asarray(found.moment)),
    }


def _judge(found: Any, share: float, size: int, drift: float | None) -> tuple[str, str]:
    """Status of a solution, and one line that says why."""
    values = [found.mass, found.value, found.marginal_error, share]
    mass, error = float(found.mass), float(found.marginal_error)
    if not all(math.isfinite(float(value)) for value in values):
        return "failed", "the plan is not finite"
    if abs(mass - 1.0) > 0.05:
        return "failed", f"the plan has mass {mass:.3f} instead of 1"
    if size > 1 and share < COLLAPSED:
        return "collapsed", (
            f"the plan tells {share:.3f} of log n beyond the label, under {COLLAPSED}; "
            "it is about a product"
        )
    change = float(found.change)
    if error > CONVERGED_ERROR or not change <= CONVERGED_CHANGE:
        return "not_converged", (
            f"moment still moves by {change:.1e}, row sums are off by {error:.1e}"
        )
    # Above `dense_limit` the change is that of the first subsample only.
    if drift is not None and not drift <= CONVERGED_DRIFT:
        return "not_converged", (
            f"on records drawn anew the moment is off by {drift:.2f}"
        )
    return "ok", "nearly one-to-one" if share > HARD else ""


def _information(mass: np.ndarray) -> float:
    """Mutual information of a joint distribution, in nats."""
    mass = np.nan_to_num(np.asarray(mass, np.float64))
    product = np.outer(mass.sum(1), mass.sum(0))
    used = (mass > 0) & (product > 0)
    return float(np.sum(mass[used] * np.log(mass[used] / product[used])))


def _blocks(plan: Any, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left' plan right for membership matrices [n, k], [m, k']."""
    half = jnp.asarray(left, float).T @ plan
    return np.asarray(half @ jnp.asarray(right, float), np.float64)


def _heat(
    plan: Any, problem: Problem, label: list[np.ndarray], moment: np.ndarray
) -> list[list[float]]:
    moment = np.nan_to_num(moment)
    left, _, right = np.linalg.svd(moment, full_matrices=False)
    places = []
    for unit, axis, codes in zip(
        (problem.u, problem.v), (left[:, 0], right[0]), label, strict=True
    ):
        order = np.lexsort((unit @ axis, codes))
        count = min(BLOCKS, len(order))
        place = np.empty(len(order), int)
        place[order] = np.arange(len(order)) * count // len(order)
        places.append(np.eye(count)[place])
    return np.nan_to_num(_blocks(plan, *places)).tolist()


def _number(value: Any) -> float | None:
    """A float that JSON knows; None for what is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None
