"""Alignment of two latent clouds: coupling, maps of both directions, diagnostics.

Recipe and defaults are measured (README, "FLEXGEN-EHR with whole modalities missing"
and Deviations): factored Gromov-Wasserstein with label and anchor terms, maps by ridge
on complete pairs and transported rows whose weight cross-validation chooses (0 = pairs
only).
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.ot import diagnostics, imputers, large, maps
from jaxehr.ot.clouds import (
    CONSTANT,
    FEWEST_PAIRS,
    Built,
    Clouds,
    build,
    check,
    reverse,
)
from jaxehr.ot.config import AlignmentConfig
from jaxehr.ot.costs import covariance
from jaxehr.ot.gromov import paper_coupling
from jaxehr.ot.transported import (
    carried,
    coupling_imputer,
    fold_moments,
    generator_of,
    unpaired,
    view,
)

SIMPLE = ("ridge", "procrustes", "bures", "knn", "class-mean")
NEEDS_PAIRS = ("ridge", "procrustes", "knn")


class Alignment(NamedTuple):
    """Arrays of `imputers` source -> target and target -> source; JSON-able words."""

    forward: dict[str, Any]
    backward: dict[str, Any]
    diagnostics: dict[str, Any]


def align(
    key: jax.Array, clouds: Clouds, num_classes: int, config: AlignmentConfig
) -> Alignment:
    """Aligns two clouds by `config.method`.

    Diagnostics: those of `diagnostics.EMPTY`, `used` (what imputes, by direction) and
    `cv` (NRMSE on held-out pairs of mean, ridge, map, and the weight chosen). A
    coupling that collapsed or failed is named in `status` and not used: ridge on the
    pairs takes its place, or the mean below `FEWEST_PAIRS` pairs.

    Raises:
      InputError: empty or non-finite clouds, labels or pairs out of range, too few
        pairs for a method that needs them, two sizes for procrustes and bures.
    """
    clouds = check(clouds, num_classes)
    if config.method == "complete":
        return Alignment({}, {}, _words(method="complete", used=_both("none")))
    if config.method in NEEDS_PAIRS and len(clouds.pairs) < FEWEST_PAIRS:
        raise InputError(
            f"method {config.method} learns from complete pairs; there are "
            f"{len(clouds.pairs)}, at least {FEWEST_PAIRS} are needed. Use gromov."
        )
    if config.method in SIMPLE:
        return _simple(key, clouds, num_classes, config)
    return _coupled(key, clouds, num_classes, config)


def _words(**words: Any) -> dict[str, Any]:
    return diagnostics.EMPTY | {"cv": {}} | words


def _both(word: str) -> dict[str, str]:
    return {"forward": word, "backward": word}


def _pairs(clouds: Clouds) -> tuple[np.ndarray, np.ndarray]:
    """Latents x [K, l], y [K, l'] of the complete pairs."""
    return clouds.source[clouds.pairs[:, 0]], clouds.target[clouds.pairs[:, 1]]


def _arrays(clouds: Clouds, linear: maps.Linear) -> dict[str, Any]:
    residual = maps.residual_factor(
        linear, clouds.source, clouds.target, clouds.target_noise
    )
    return imputers.linear_arrays(*linear, residual)


def _simple(
    key: jax.Array, clouds: Clouds, num_classes: int, config: AlignmentConfig
) -> Alignment:
    """The methods without a coupling, each direction by itself."""
    made, cv, fold = [], {}, None
    if len(clouds.pairs) >= FEWEST_PAIRS:
        # The folds of `_coupled`: where it leaves all to ridge, both are the same map.
        key_fold = jax.random.split(key, 4)[0]
        fold = maps.folds(generator_of(key_fold), len(clouds.pairs))
    for name, way in (("forward", clouds), ("backward", reverse(clouds))):
        x, y = _pairs(way)
        if fold is not None:
            choice = maps.choose(x, y, fold, None, config.ridge)
            cv[name] = choice.errors | {"weight": 0.0, "penalty": choice.penalty}
        if config.method == "knn":
            made.append(imputers.knn_arrays(x, y, way.target_noise))
        elif config.method == "class-mean":
            made.append(_classes(way, num_classes))
        elif config.method == "bures":
            made.append(_arrays(way, maps.bures(way.source, way.target)))
        elif config.method == "procrustes":
            made.append(_arrays(way, maps.procrustes(maps.moments(x, y))))
        else:
            penalty = cv[name]["penalty"]
            made.append(_arrays(way, maps.ridge(maps.moments(x, y), penalty)))
    words = _words(method=config.method, used=_both(config.method), cv=cv)
    return Alignment(made[0], made[1], words)


def _classes(clouds: Clouds, num_classes: int) -> dict[str, Any]:
    """Mean and covariance of each class; those of all where a class is bare."""
    z, label, noise = clouds.target, clouds.target_label, np.diag(clouds.target_noise)
    means, factors = [], []
    for code in range(max(num_classes, 1)):
        rows = z[label == code]
        means.append(rows.mean(0) if len(rows) else z.mean(0))
        factors.append(maps.factor(covariance(rows if len(rows) > 1 else z) + noise))
    return imputers.class_arrays(np.stack(means), np.stack(factors))


def _coupled(
    key: jax.Array, clouds: Clouds, num_classes: int, config: AlignmentConfig
) -> Alignment:
    """fused, gromov and signed: one coupling, both directions."""
    key_fold, key_couple, key_cv, key_rows = jax.random.split(key, 4)
    fold, penalty = None, config.ridge
    if len(clouds.pairs) >= FEWEST_PAIRS:
        fold = maps.folds(generator_of(key_fold), len(clouds.pairs))
        penalty = maps.choose(*_pairs(clouds), fold, None, config.ridge).penalty
    built = build(clouds, num_classes, config, penalty)
    coupling, words = _couple(key_couple, built, clouds, num_classes, config)
    folded: list[Any] = [None, None]
    if coupling and fold is not None and config.method != "signed":
        moment = np.asarray(coupling.solution.moment)
        folded = fold_moments(
            key_cv, clouds, num_classes, config, fold, penalty, built, moment
        )
    made, used, cv = [], {}, {}
    for way, name in enumerate(("forward", "backward")):
        here = reverse(clouds) if way else clouds
        linear, used[name], cv[name] = _map(
            built, coupling, clouds, config, way, fold, folded[way]
        )
        made.append(_arrays(here, linear))
        if coupling and config.imputation in ("sample", "barycentric"):
            key_way = jax.random.fold_in(key_rows, way)
            made[way] = coupling_imputer(key_way, built, coupling, clouds, config, way)
            used[name] = f"coupling ({config.imputation})"
    return Alignment(
        made[0], made[1], words | {"method": config.method, "used": used, "cv": cv}
    )


def _couple(
    key: jax.Array,
    built: Built,
    clouds: Clouds,
    num_classes: int,
    config: AlignmentConfig,
) -> tuple[large.Coupling | None, dict[str, Any]]:
    """The coupling, None where it cannot be used, and the diagnostics."""
    problem, labels = built.problem, (clouds.source_label, clouds.target_label)
    dropped = {
        "dropped_source": int((problem.a == 0).sum()),
        "dropped_target": int((problem.b == 0).sum()),
        "notes": _notes(clouds, built, num_classes),
    }
    if built.sigma < CONSTANT:
        reason = "the latents of a cloud are constant, so no row differs from another"
        if problem.u.any() and problem.v.any() and not problem.a.any():
            reason = "no class has rows in both clouds"
        return None, _words(status="collapsed", reason=reason, **dropped)
    if config.method == "signed":
        limits = config.dense_limit, config.subsample
        coupling = paper_coupling(key, problem, labels, built.epsilon, *limits)
    else:
        scales = built.epsilon, built.sigma
        coupling = large.couple(key, problem, labels, config, *scales, built.start)
    found = diagnostics.describe(problem, coupling, labels, num_classes, built.sigma)
    usable = found["status"] in ("ok", "not_converged")
    usable |= found["status"] == "collapsed" and not config.fallback
    return coupling if usable else None, _words(**found | dropped)


def _notes(clouds: Clouds, built: Built, num_classes: int) -> list[str]:
    """What the user should know of the input."""
    notes = []
    if num_classes > 1 and len(np.unique(clouds.source_label)) == 1:
        notes.append("the source has one class only; its labels carry no information")
    for name, weight in (("source", built.problem.a), ("target", built.problem.b)):
        count = int((weight == 0).sum())
        if count:
            notes.append(
                f"{count} {name} rows are left out of the coupling: no direction, or a "
                "class that the other cloud lacks"
            )
    return notes


def _map(
    built: Built,
    coupling: large.Coupling | None,
    clouds: Clouds,
    config: AlignmentConfig,
    way: int,
    fold: np.ndarray | None,
    folded: list[maps.Moments] | None,
) -> tuple[maps.Linear, str, dict[str, Any]]:
    """The map of one direction, what it rests on, and its cross-validation."""
    x, y = _pairs(reverse(clouds) if way else clouds)
    rows = unpaired(clouds, way)
    signed = config.method == "signed"
    choice = None
    if fold is not None:
        folded = folded if len(rows) else None
        choice = maps.choose(x, y, fold, folded, config.ridge)
    cv = (
        choice.errors | {"weight": choice.weight, "penalty": choice.penalty}
        if choice
        else {}
    )
    if coupling is None or (choice and not signed and not choice.weight):
        if choice is None:
            target = clouds.source if way else clouds.target
            return _mean(x.shape[1], target), "mean", cv
        return maps.ridge(maps.moments(x, y), choice.penalty), "ridge on pairs", cv
    seen = view(built, coupling, clouds, way)
    every = np.arange(len(seen.z))
    sums = carried(seen, every if signed else rows, built.epsilon)
    if signed:
        linear = maps.ridge(sums, config.ridge)
        if choice:
            cv = choice.errors | {"map": maps.nrmse(linear, x, y), "weight": 1.0}
        return linear, "map of the coupling", cv
    weight, penalty = (choice.weight, choice.penalty) if choice else (1.0, config.ridge)
    sums = maps.add(maps.moments(x, y), sums, weight)
    return maps.ridge(sums, penalty), f"map, transported rows weigh {weight:g}", cv


def _mean(size: int, target: np.ndarray) -> maps.Linear:
    return maps.Linear(np.zeros((size, target.shape[1])), target.mean(0))
