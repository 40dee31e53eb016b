"""What a coupling carries from one cloud to the other, for maps and for imputers.

Direction 0 is source -> target, 1 its reverse; both come from one coupling.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.ot import imputers, maps
from jaxehr.ot.clouds import Built, Clouds, build
from jaxehr.ot.config import AlignmentConfig
from jaxehr.ot.costs import take
from jaxehr.ot.factored import solve
from jaxehr.ot.large import Coupling, Rows, barycentres, query_rows, stratified

CV_ROWS = 4000  # transported rows of a fold


class View(NamedTuple):
    """A coupling seen from the cloud whose rows are carried.

    unit [N, r], linear [N, k], weight [N], z [N, l]: its rows. project: M or M'.
    references [R, r' + k], potential [R], targets [R, l']: rows of the other cloud.
    """

    unit: Any
    linear: Any
    weight: Any
    z: Any
    label: Any
    project: Any
    references: Any
    potential: Any
    targets: Any


def generator_of(key: jax.Array) -> np.random.Generator:
    """NumPy's generator for choices of rows on the host, seeded by a key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())


def view(built: Built, coupling: Coupling, clouds: Clouds, way: int) -> View:
    """The coupling in direction `way`."""
    p, found = built.problem, coupling.solution
    here = (p.u, p.x, p.a, clouds.source, clouds.source_label)
    there = (p.v, p.y, p.b, clouds.target, clouds.target_label)
    rows, potential, project = coupling.target, found.g, np.asarray(found.m)
    if way:
        here, there = there, here
        rows, potential, project = coupling.source, found.f, project.T
    references = np.concatenate([there[0][rows], there[1][rows]], 1)
    return View(*here, project, references, np.asarray(potential), there[3][rows])


def carried(seen: View, rows: np.ndarray, epsilon: float) -> maps.Moments:
    """Sums over `rows` of (z, barycentre of the row); rows of weight 0 are left out."""
    rows = rows[seen.weight[rows] > 0]
    queries = query_rows(seen.unit[rows], seen.linear[rows], seen.project)
    centres = barycentres(
        queries, seen.references, seen.potential, seen.targets, epsilon
    )
    return maps.moments(seen.z[rows], centres)


def unpaired(clouds: Clouds, way: int) -> np.ndarray:
    """Rows of the cloud that direction `way` starts from which have no partner."""
    z = clouds.target if way else clouds.source
    return np.setdiff1d(np.arange(len(z)), clouds.pairs[:, way])


def fold_moments(
    key: jax.Array,
    clouds: Clouds,
    num_classes: int,
    config: AlignmentConfig,
    fold: np.ndarray,
    penalty: float,
    full: Built,
    moment: np.ndarray,
) -> list[list[maps.Moments]]:
    """Sums of transported unpaired rows for each direction and fold of the pairs.

    A fold's pairs are no anchors, and both of their rows are left out of the coupling,
    which is solved on at most `config.subsample` rows a side at the full epsilon.

    Args:
      moment: M of the full coupling, the start where there are no anchors.
    """
    rows = [unpaired(clouds, way) for way in range(2)]
    out: list[list[maps.Moments]] = [[], []]
    for i in range(maps.FOLDS):
        generator = generator_of(jax.random.fold_in(key, i))
        held = clouds.pairs[fold == i]
        fewer = clouds._replace(pairs=clouds.pairs[fold != i])
        built = build(fewer, num_classes, config, penalty)
        problem = built.problem
        problem.a[held[:, 0]], problem.b[held[:, 1]] = 0.0, 0.0
        labels = clouds.source_label, clouds.target_label
        chosen = [
            stratified(generator, Rows(label, weight), config.subsample)
            for label, weight in zip(labels, (problem.a, problem.b), strict=True)
        ]
        start = moment if built.start is None else built.start
        solution = solve(take(problem, *chosen), full.epsilon, start=start)
        coupling = Coupling(solution, chosen[0], chosen[1], [])
        for way in range(2):
            some = rows[way]
            if len(some) > CV_ROWS:
                some = generator.choice(some, CV_ROWS, replace=False)
            sums = carried(view(built, coupling, fewer, way), some, full.epsilon)
            share = len(rows[way]) / max(len(some), 1)
            none = maps.empty(*sums.xy.shape)
            out[way].append(maps.add(none, sums, share))
    return out


def coupling_imputer(
    key: jax.Array,
    built: Built,
    coupling: Coupling,
    clouds: Clouds,
    config: AlignmentConfig,
    way: int,
) -> imputers.Arrays:
    """Imputation by the coupling itself, on at most `config.subsample` references."""
    seen = view(built, coupling, clouds, way)
    count, generator = len(seen.references), generator_of(key)
    some = np.arange(count)
    if count > config.subsample:
        some = np.sort(generator.choice(count, config.subsample, replace=False))
    return imputers.coupling_arrays(
        built.sides[way],
        2.0 * seen.project,
        seen.references[some],
        seen.potential[some],
        seen.targets[some],
        clouds.source_noise if way else clouds.target_noise,
        built.epsilon,
    )
