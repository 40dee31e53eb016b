"""Draws of a normal law within bounds, against exact conditional laws."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxehr.diffusion import completion, gaussian
from jaxehr.diffusion.completion import FAR, Known

RNG = np.random.default_rng(7)
COV = np.array([[1.0, 0.8, 0.3], [0.8, 1.0, 0.5], [0.3, 0.5, 1.0]])


def law(cov=COV, mean=0.0, people=10**6, steps=1):
    """The law itself: moments of so many people are hardly shrunk."""
    n, units = len(cov), gaussian.UNITS
    mean = np.full(n, mean)
    square = people * (cov + np.outer(mean, mean)) * units**2
    found = gaussian.Moments(
        np.array([float(people)]), people * mean[None] * units, square[None]
    )
    return completion.law_of(found, steps)


def known(low, high, count=6000):
    """`count` patients of one step who are known alike."""
    row = lambda leaf: np.tile(np.asarray(leaf, np.float32), (count, 1))[:, None]
    return Known(row(low), row(high))


def draw(at, one, sweeps=30, first=0):
    count = len(at.low)
    seeds = np.arange(first, first + count, dtype=np.uint32)
    return completion.draw(one, at, np.zeros(count, int), seeds, sweeps=sweeps)[:, 0]


def test_a_gap_is_drawn_from_the_conditional_law():
    found = draw(known([-FAR, 1.5, -FAR], [FAR, 1.5, FAR]), law())
    np.testing.assert_array_equal(found[:, 1], np.float32(1.5))
    rest, seen = [0, 2], [1]
    mean = COV[np.ix_(rest, seen)][:, 0] * 1.5
    left = COV[np.ix_(rest, rest)] - np.outer(
        COV[np.ix_(rest, seen)], COV[np.ix_(seen, rest)]
    )
    np.testing.assert_allclose(found[:, rest].mean(0), mean, atol=0.04)
    np.testing.assert_allclose(np.cov(found[:, rest].T), left, atol=0.05)


def test_bounds_are_kept_and_move_the_others():
    """Against rejection: x0 > 0.5, x2 < -0.2."""
    at = known([0.5, -FAR, -FAR], [FAR, FAR, -0.2])
    found = draw(at, law())
    assert found[:, 0].min() >= 0.5
    assert found[:, 2].max() <= np.float32(-0.2)
    x = RNG.multivariate_normal(np.zeros(3), COV, 400_000)
    x = x[(x[:, 0] > 0.5) & (x[:, 2] < -0.2)]
    np.testing.assert_allclose(found.mean(0), x.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(found.T), np.cov(x.T), atol=0.05)


def test_far_tails_keep_their_digits():
    chance = jnp.asarray((np.arange(2000) + 0.5) / 2000, jnp.float32)
    for low, high in ((4.5, 5.0), (-5.0, -4.5), (5.0, FAR)):
        found = completion.cut_normal(
            chance, jnp.zeros(2000), jnp.ones(2000), jnp.float32(low), jnp.float32(high)
        )
        wanted = stats.truncnorm(low, high)
        np.testing.assert_allclose(np.mean(found), wanted.mean(), atol=2e-3)
        np.testing.assert_allclose(np.std(found), wanted.std(), rtol=0.02)


def test_a_patient_does_not_depend_on_the_others():
    at = known([-FAR, 1.5, -FAR], [FAR, 1.5, FAR], count=300)
    every = draw(at, law(), sweeps=3)
    few = Known(*(leaf[130:135] for leaf in at))
    np.testing.assert_array_equal(draw(few, law(), 3, first=130), every[130:135])


def test_the_law_is_learned_from_values_with_gaps_and_thresholds():
    """Half of column 0 is missing, of column 2 only the sign is known."""
    label = RNG.integers(0, 2, 4000)
    x = RNG.multivariate_normal(np.zeros(3), COV, 4000) + label[:, None]
    low, high = x.copy(), x.copy()
    gone = RNG.random(4000) < 0.5
    low[gone, 0], high[gone, 0] = -FAR, FAR
    low[:, 2] = np.where(x[:, 2] > 0, 0.0, -FAR)
    high[:, 2] = np.where(x[:, 2] > 0, FAR, 0.0)
    at = Known(*(leaf[:, None].astype(np.float32) for leaf in (low, high)))
    seeds = np.arange(4000, dtype=np.uint32)
    found = completion.learn(at, label, 2, seeds)
    shift = np.asarray(found.mean[1] - found.mean[0])[0]
    np.testing.assert_allclose(shift[:2], 1.0, atol=0.12)
    # The scale of a sign is free; its correlations are not.
    drawn = completion.draw(found, at, label, seeds)[:, 0]
    each = [np.corrcoef(drawn[label == code].T) for code in (0, 1)]
    np.testing.assert_allclose(np.mean(each, 0), COV, atol=0.1)


def test_where_little_is_known_values_keep_their_spread():
    """19 of 20 values of column 1 are missing: a start at 0 would be learned."""
    x = RNG.multivariate_normal(np.zeros(3), COV, 3000)
    low, high = x.copy(), x.copy()
    gone = RNG.random(3000) < 0.95
    low[gone, 1], high[gone, 1] = -FAR, FAR
    at = Known(*(leaf[:, None].astype(np.float32) for leaf in (low, high)))
    label, seeds = np.zeros(3000, int), np.arange(3000, dtype=np.uint32)
    found = completion.learn(at, label, 0, seeds)
    drawn = completion.draw(found, at, label, seeds)[:, 0, 1]
    # 150 values tell a spread to 0.06 and a mean to 0.08.
    np.testing.assert_allclose(drawn.std(), 1.0, atol=0.12)
    np.testing.assert_allclose(drawn.mean(), 0.0, atol=0.15)


def test_a_latent_keeps_the_shares_of_its_thresholds():
    """One code in twenty, at two steps; four of five patients have no second one."""
    z = RNG.multivariate_normal(np.zeros(2), [[1.0, 0.6], [0.6, 1.0]], 3000)
    cut = stats.norm.ppf(0.95)
    low, high = np.where(z > cut, cut, -FAR), np.where(z > cut, FAR, cut)
    gone = RNG.random(3000) < 0.8
    low[gone, 1], high[gone, 1] = -FAR, FAR
    at = Known(*(leaf[..., None].astype(np.float32) for leaf in (low, high)))
    label, seeds = np.zeros(3000, int), np.arange(3000, dtype=np.uint32)
    found = completion.learn(at, label, 0, seeds, latent=1)
    drawn = completion.draw(found, at, label, seeds)[..., 0]
    # A share of 0.05 of 600 people is known to 0.009.
    np.testing.assert_allclose(drawn.std(0), 1.0, atol=0.07)
    np.testing.assert_allclose((drawn > cut).mean(0), 0.05, atol=0.015)


def test_what_hardly_moves_in_time_is_learned():
    """Twenty codes, each of which most people have the same at all steps.

    Of 18 % who always have the upper one, expectation and maximisation from independent
    values on, shrunk over all columns at once, drew 3 %.
    """
    count, steps, columns = 400, 12, 20
    cov = 0.98 + 0.02 * np.eye(steps)
    rng = np.random.default_rng(3)
    z = rng.multivariate_normal(np.zeros(steps), cov, (count, columns)).swapaxes(1, 2)
    cut = stats.norm.ppf(0.75)
    low, high = np.where(z > cut, cut, -FAR), np.where(z > cut, FAR, cut)
    at = Known(*(leaf.astype(np.float32) for leaf in (low, high)))
    label, seeds = np.zeros(count, int), np.arange(count, dtype=np.uint32)
    found = completion.learn(at, label, 0, seeds, latent=columns)
    free = np.full(z.shape, FAR, np.float32)
    drawn = completion.draw(found, Known(-free, free), label, seeds) > cut
    # Shrinkage and what makes a law of pairs of 400 people leave 14 %.
    assert drawn.all(1).mean() > 0.65 * (z > cut).all(1).mean()
    np.testing.assert_allclose(drawn.mean(), 0.25, atol=0.02)


STEPS = 24
AR = 0.95 ** np.abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS)))
TWO = np.kron([[1.0, 0.6], [0.6, 1.0]], 0.4 * AR + 0.6)  # columns around a level


@pytest.mark.parametrize("seen", ["nothing", "four steps", "three of ten values"])
@pytest.mark.parametrize("cov", [AR, TWO], ids=["one column", "two columns"])
def test_long_series_keep_variance_and_memory(cov, seen):
    """Of which hundreds of sweeps of neighbours would be needed otherwise."""
    columns, count = len(cov) // STEPS, 8000
    x = RNG.multivariate_normal(np.zeros(len(cov)), cov, count)
    x = x.reshape(count, columns, STEPS).swapaxes(1, 2)
    gone = RNG.random(x.shape) < 0.7
    if seen != "three of ten values":
        first = 0 if seen == "nothing" else 4
        gone = np.broadcast_to(np.arange(STEPS)[:, None] >= first, x.shape)
    low = np.where(gone, -FAR, x).astype(np.float32)
    high = np.where(gone, FAR, x).astype(np.float32)
    one = law(cov, steps=STEPS)
    seeds = np.arange(count, dtype=np.uint32)
    z = completion.draw(one, Known(low, high), np.zeros(count, int), seeds)
    np.testing.assert_array_equal(z[~gone], low[~gone])
    # 8,000 people tell a covariance to 0.016; 32 sweeps of gaps leave 0.05 to 0.07.
    drawn = np.cov(z.swapaxes(1, 2).reshape(count, -1).T)
    np.testing.assert_allclose(drawn, cov, atol=0.1)


def test_it_compiles_once():
    at = known([-FAR, 1.5, -FAR], [FAR, 1.5, FAR], count=200)
    draw(at, law(), 2)
    before = completion.draw_block._cache_size()
    draw(at, law(), 5, first=9)
    assert completion.draw_block._cache_size() == before
