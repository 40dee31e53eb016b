"""Alpha-precision and beta-recall: plain loops, known laws, both ends, undefined."""

import jax
import numpy as np
from builders import compared, simulate
from scipy.integrate import trapezoid

from jaxehr.metrics.coverage import ALL_EQUAL, NEIGHBOURS
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.supports import (
    agreement,
    alpha_precision,
    draws,
    from_centres,
)
from jaxehr.metrics.supports import covered_levels as covered
from jaxehr.metrics.supports import typical_levels as typical

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=20)
GRID = np.linspace(0, 1, 20_001)


def once(levels, real, made):
    """Of the patients as they are."""
    drawn = draws(np.random.default_rng(0), len(real), len(made), 0)
    return levels(real, made, drawn)[0]


def typical_levels(real, made):
    return once(typical, real, made)


def covered_levels(real, made):
    return once(covered, real, made)


def on_a_grid(levels):
    curve = (levels[:, None] <= GRID).mean(0)
    return 1 - 2 * trapezoid(np.abs(curve - GRID), GRID)


def test_the_agreement_is_the_area_between_the_curves():
    rng = np.random.default_rng(0)
    for levels in (rng.random(50), rng.random(50) ** 3, np.repeat([0.2, 1.0], 20)):
        np.testing.assert_allclose(agreement(levels), on_a_grid(levels), atol=2e-4)
    np.testing.assert_allclose(agreement(np.zeros(9)), 0.0)
    np.testing.assert_allclose(agreement(np.ones(9)), 0.0)
    # equal steps: n triangles of height 1 / 2n on each side
    np.testing.assert_allclose(agreement((np.arange(100) + 0.5) / 100), 1 - 2 / 400)


def test_levels_by_hand():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 3)), 0.3 + 1.2 * rng.normal(size=(50, 3))
    far = lambda rows, centre: np.linalg.norm(rows - centre, axis=1)
    inner, outer = far(x, x.mean(0)), far(y, y.mean(0))
    expected = [(inner < d).mean() for d in far(y, x.mean(0))]
    np.testing.assert_allclose(typical_levels(x, y), expected)
    expected = []
    for row in x:
        reach = np.sort(far(x, row))[NEIGHBOURS]  # the first is the row itself
        near = far(y, row).argmin()
        level = ((outer < outer[near]).sum() + 0.5) / 50
        expected.append(level if far(y, row)[near] <= reach else 1.0)
    np.testing.assert_allclose(covered_levels(x, y), expected)


def test_levels_of_a_draw_are_those_of_the_patients_drawn():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 3)), 0.3 + rng.normal(size=(50, 3))
    drawn = draws(rng, 60, 50, 2)
    own, made = (rows[2] for rows in drawn)
    found = typical(x, y, drawn)
    np.testing.assert_allclose(found[2], typical_levels(x[own], y[made]))
    far = from_centres(x, x.mean(0)[None])[0]
    np.testing.assert_allclose(far, np.linalg.norm(x - x.mean(0), axis=1))
    # the nearest of those drawn; the radii are those of all
    expected, outer = [], np.linalg.norm(y - y[made].mean(0), axis=1)
    for row in own:
        reach = np.sort(np.linalg.norm(x - x[row], axis=1))[NEIGHBOURS]
        apart = np.linalg.norm(y - x[row], axis=1)
        near = made[apart[made].argmin()]
        below, equal = (outer[made] < outer[near]), np.isclose(outer[made], outer[near])
        level = (below & ~equal).sum() + equal.sum() / 2
        expected.append(level / 50 if apart[near] <= reach else 1.0)
    np.testing.assert_allclose(covered(x, y, drawn)[2], expected)


def test_too_narrow_too_wide_and_collapsed_patients():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 500, 4))
    both = lambda made: (
        agreement(typical_levels(x, made)),
        agreement(covered_levels(x, made)),
    )
    precision, recall = both(y)
    # the mean distance of 500 uniform levels from their quantiles is below 0.03
    assert precision > 0.9
    assert recall > 0.85
    assert both(0.3 * y)[0] < 0.4  # all typical: the curve lies above
    assert both(4.0 * y)[0] < 0.2  # all outlying: below
    one = np.repeat(x[:1], 500, axis=0)
    assert both(one)[1] < 0.2
    np.testing.assert_allclose(both(x)[0], 1.0, atol=2 / 500)


def test_the_numbers_of_a_good_and_of_a_shifted_model():
    good = alpha_precision(SMALL).run(KEY, compared(simulate(3)))
    bad = alpha_precision(SMALL).run(KEY, compared(simulate(3, shift=6.0)))
    for name, value in good.items():
        assert value.low <= value.value <= value.high
        assert value.value > value.reference - 0.1
        assert bad[name].high < value.low
    again = alpha_precision(SMALL).run(KEY, compared(simulate(3)))
    assert again == good


def test_undefined():
    found = alpha_precision(SMALL).run(KEY, compared(simulate(3, 30), count=60))
    assert "fewer than 50" in found["beta_recall"].reason

    def alike(data):
        rows = np.zeros(len(data.ids), int)
        cohort = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], data.cohort)
        return data._replace(cohort=cohort)

    real = compared(simulate(3, 60), count=60)
    found = alpha_precision(SMALL).run(KEY, real._make(map(alike, real)))
    assert found["alpha_precision"].reason == ALL_EQUAL
