"""What a classifier of flat rows used most: permutation importance [breiman2001].

The columns of a feature, of a step or of both are shuffled together over the patients
of a test; what is lost of the AUROC is what the classifier knew from them alone.
S trainings, m rows of a test, D columns.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxehr.core.cohort import Schema
from jaxehr.metrics.classifiers import Rows
from jaxehr.metrics.learners import Learner, gap_of_means
from jaxehr.metrics.ranking import counts_of, roc_area
from jaxehr.metrics.views import Place

LISTED = 10  # entries of each list
EXAMINED = 60  # most features, and most steps, that are shuffled
MOST_CELLS = 10**8  # of the tests that are copied; else fewer than S are made
CROSSED = 5, 10  # so many of the first features and steps are shuffled together

Groups = dict[str, list[int]]  # name -> columns


def used_most(
    rng: np.random.Generator,
    learner: Learner,
    models: Any,
    table: Rows,
    rows: np.ndarray,
    places: list[Place],
    schema: Schema,
) -> dict[str, dict[str, float]]:
    """Mean loss of AUROC over S tests, the largest first.

    A feature comprises its values and its mask. Features and steps are shuffled one by
    one; of more than `EXAMINED` those whose means differ most. Then the values and the
    masks of the first features are shuffled at each of the first steps.

    Args:
      models: S trainings; rows: Int [S, m] of `table` to test them on.
      places: of the D columns of `table`.

    Returns:
      by_feature, by_time and by_place: name -> loss.
    """
    few = max(MOST_CELLS // (rows.shape[1] * len(places)), 1)
    rows, models = rows[:few], jax.tree.map(lambda leaf: leaf[:few], models)
    whole = Rows(*(np.asarray(leaf)[rows.reshape(-1)] for leaf in table))
    index = np.arange(rows.size).reshape(rows.shape)

    def area(x: np.ndarray) -> float:
        chance = learner.chance(2, models, whole._replace(x=x), index)[..., 1]
        pairs = zip(whole.label[index], chance, strict=True)
        return float(np.mean([roc_area(*counts_of(y, p)) for y, p in pairs]))

    order = rng.permuted(index, axis=1).reshape(-1)
    rank = lambda groups: losses(area, whole.x, order, groups)
    gap = gap_of_means(whole.x, whole.label)
    features = rank(examined(grouped(places, lambda p: p.feature), gap))
    steps = {}
    if schema.num_steps > 1:
        steps = rank(examined(grouped(places, lambda p: at_time(p, schema)), gap))
    first = [list(names)[:most] for names, most in zip((features, steps), CROSSED)]

    def place(p: Place) -> str | None:
        when = at_time(p, schema)
        if p.feature not in first[0] or (when and steps and when not in first[1]):
            return None
        return f"{p.feature}{' is missing' * p.missing}{f' at {when}' * bool(when)}"

    both = rank(grouped(places, place))
    top = lambda found: dict(list(found.items())[:LISTED])
    return {"by_feature": top(features), "by_time": top(steps), "by_place": top(both)}


def at_time(place: Place, schema: Schema) -> str | None:
    """The time of a column in words; None for a static one."""
    if place.step is None:
        return None
    return f"{schema.start + place.step * schema.step:g} {schema.time_unit}"


def grouped(places: list[Place], name: Callable[[Place], str | None]) -> Groups:
    """The columns by name; those without a name are left out."""
    found: Groups = {}
    for column, place in enumerate(places):
        if called := name(place):
            found.setdefault(called, []).append(column)
    return found


def examined(groups: Groups, gap: np.ndarray) -> Groups:
    """At most `EXAMINED` groups, those with the largest difference in a column."""
    order = sorted(groups, key=lambda name: -gap[groups[name]].max())
    kept = set(order[:EXAMINED])
    return {name: columns for name, columns in groups.items() if name in kept}


def losses(
    area: Callable[[np.ndarray], float],
    x: np.ndarray,
    order: np.ndarray,
    groups: Groups,
) -> dict[str, float]:
    """What `area` loses when the rows of the columns come in another order."""
    whole, found = area(x), {}
    for name, columns in groups.items():
        kept = x[:, columns]
        x[:, columns] = kept[order]
        found[name] = whole - area(x)
        x[:, columns] = kept
    return dict(sorted(found.items(), key=lambda item: -item[1]))
