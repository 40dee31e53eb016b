"""Sums of likelihoods against SciPy; masks and padding; draws against their moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flexgen_cohorts import config, encoded
from scipy import special, stats
from small_cohorts import cohort, schema

from jaxehr.models.flexgen import likelihoods
from jaxehr.models.flexgen.likelihoods import Outputs
from jaxehr.nn.likelihoods import SMALLEST_SIGMA

ROWS = 30


def problem(masks=True):
    """(part, random outputs, block, length): every kind of column, half missing."""
    made = schema(temporal=schema().static + schema().temporal)
    people = cohort(made, count=ROWS, missing=0.5)
    settings = config(integers="count", masks=masks)
    layout, fitted, data = encoded(made, settings, people)
    part = layout.temporal
    rng = np.random.default_rng(1)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    outputs = Outputs(
        normal(ROWS, part.steps, part.num_outputs),
        np.exp(normal(ROWS, 3)),
        normal(ROWS, part.steps),
    )
    return part, outputs, data.temporal, data.length, fitted["temporal"]


@pytest.mark.parametrize("masks", [True, False])
def test_the_sum_over_what_is_observed(masks):
    """Column by column in SciPy, from the order in the module docstring."""
    part, outputs, block, length, _ = problem(masks)
    assert (part.num_normal, part.num_counts, part.num_binary) == (2, 1, 1)
    assert part.categorical == ((3, 1), (4, 1))
    heads, spread = np.float64(outputs.heads), np.float64(outputs.spread)[:, None]
    r, mean = spread[..., 2], np.exp(heads[..., 2])
    flags = 8 if masks else 0
    codes = block.codes.astype(int)
    pick = lambda logits, code: np.take_along_axis(
        special.log_softmax(logits, -1), code[..., None], -1
    )[..., 0]
    end = 4 + flags
    cells = [
        stats.norm.logpdf(block.numeric[..., 0], heads[..., 0], spread[..., 0]),
        stats.norm.logpdf(block.numeric[..., 1], heads[..., 1], spread[..., 1]),
        stats.nbinom.logpmf(block.counts[..., 0], r, r / (r + mean)),
        stats.bernoulli.logpmf(codes[..., 0], special.expit(heads[..., 3])),
        pick(heads[..., end : end + 3], codes[..., 1]),
        pick(heads[..., end + 3 : end + 7], codes[..., 2]),
    ]
    wanted = np.where(block.observed[..., :6], np.stack(cells, -1), 0.0).sum(-1)
    if masks:
        chance = special.expit(heads[..., 4:12])
        wanted += stats.bernoulli.logpmf(block.observed, chance).sum(-1)
    valid = np.arange(part.steps) < length[:, None]
    wanted = np.where(valid, wanted, 0.0).sum(-1)
    found = likelihoods.log_likelihood(part, outputs, block, length)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-4)


def test_missing_values_and_padding_change_nothing():
    """Not a bit of the sum; the gradient of their outputs is exactly 0."""
    part, outputs, block, length, _ = problem(masks=False)
    total = lambda heads, block: likelihoods.log_likelihood(
        part, outputs._replace(heads=heads), block, length
    )
    valid = (np.arange(part.steps) < length[:, None])[..., None]
    seen = block.observed & valid
    other = block._replace(
        numeric=np.where(seen[..., :3], block.numeric, 3.0).astype(np.float32),
        counts=np.where(seen[..., 2:3], block.counts, 9.0).astype(np.float32),
        codes=np.where(seen[..., 3:6], block.codes, 1),
        observed=block.observed | ~valid,
    )
    heads = jnp.asarray(outputs.heads)
    np.testing.assert_array_equal(total(heads, other), total(heads, block))
    gradient = np.asarray(jax.grad(lambda h: total(h, block).sum())(heads))
    width = np.repeat(seen[..., :6], [1, 1, 1, 1, 3, 4], axis=-1)
    assert not gradient[~width].any()
    assert gradient[width].all()


def test_the_length_is_one_of_t_categories():
    _, outputs, _, length, _ = problem()
    found = likelihoods.length_likelihood(outputs, length)
    logs = special.log_softmax(outputs.length, -1)
    wanted = np.where(length > 0, logs[np.arange(ROWS), length - 1], 0.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_start_is_the_marginal():
    part, _, block, length, fitted = problem()
    bias = likelihoods.start_bias(part, fitted)
    valid = np.arange(part.steps) < length[:, None]
    seen = block.observed[valid]
    rows = len(seen)
    half = lambda hits, n: (hits + 0.5) / (n + 1.0)
    ones = block.codes[valid][:, 0][seen[:, 3]]
    np.testing.assert_allclose(
        special.expit(bias[3]), half(ones.sum(), len(ones)), rtol=1e-5
    )
    np.testing.assert_allclose(
        special.expit(bias[4:12]), half(seen.sum(0), rows), rtol=1e-5
    )
    units = block.codes[valid][:, 2][seen[:, 5]]
    counts = np.bincount(units, minlength=4) + 0.5
    np.testing.assert_allclose(np.exp(bias[15:19]), counts / counts.sum(), rtol=1e-5)
    counts = block.counts[valid][:, 0][seen[:, 2]]
    np.testing.assert_allclose(np.exp(bias[2]), counts.mean() + 0.01, rtol=1e-5)
    assert not bias[:2].any()


def test_lengths_that_training_never_saw():
    varied = likelihoods.start_length({"lengths": np.array([5, 0, 3, 7])})
    np.testing.assert_allclose(np.exp(varied), np.array([0.5, 3.5, 7.5]) / 11.5, 1e-6)
    alone = likelihoods.start_length({"lengths": np.array([5, 0, 0, 7])})
    np.testing.assert_array_equal(special.softmax(alone), [0, 0, 1])


@pytest.fixture(scope="module")
def sampler():
    """(part, outputs, keys, compiled draw) of 20,000 rows; row i = row i % 30."""
    part, outputs, _, _, _ = problem()
    rows = np.arange(20_000) % ROWS
    outputs = jax.tree.map(lambda leaf: leaf[rows], outputs)
    keys = jax.random.split(jax.random.key(0), len(rows))
    return part, outputs, keys, jax.jit(likelihoods.draw, static_argnums=0)


def test_draws_have_the_moments_of_the_likelihoods(sampler):
    """4 standard errors over 20,000 rows; the variance of a count: 10 %."""
    part, outputs, keys, draw = sampler
    count = len(keys)
    one = jax.tree.map(lambda leaf: np.repeat(leaf[:1], count, 0), outputs)
    drawn = draw(part, keys, one)
    heads, spread = np.float64(outputs.heads[0, 0]), np.float64(outputs.spread[0])
    block = jax.tree.map(lambda leaf: np.asarray(leaf[:, 0], float), drawn.block)
    assert_mean = lambda x, mean, std: np.testing.assert_allclose(
        x.mean(0), mean, rtol=0, atol=4 * np.max(std) / np.sqrt(count)
    )
    assert_mean(block.numeric[:, :2], heads[:2], spread[:2])
    np.testing.assert_allclose(block.numeric[:, :2].std(0), spread[:2], rtol=0.03)
    mean, r = np.exp(heads[2]), spread[2]
    variance = mean + mean**2 / r
    assert_mean(block.counts[:, 0], mean, np.sqrt(variance))
    np.testing.assert_allclose(block.counts.var(), variance, rtol=0.1)
    assert_mean(block.codes[:, 0], special.expit(heads[3]), 0.5)
    assert_mean(block.observed, special.expit(heads[4:12]), 0.5)
    shares = np.eye(4)[block.codes[:, 2].astype(int)]
    assert_mean(shares, special.softmax(heads[15:19]), 0.5)
    shares = np.eye(part.steps)[np.asarray(drawn.length) - 1]
    assert_mean(shares, special.softmax(outputs.length[0]), 0.5)


def test_a_row_does_not_depend_on_the_others(sampler):
    """In another order, and with other rows beside them: the same bits."""
    part, outputs, keys, draw = sampler
    whole = draw(part, keys, outputs)
    rows = np.random.default_rng(0).permutation(len(keys))
    rows[100:] = 5
    some = draw(part, keys[rows], jax.tree.map(lambda leaf: leaf[rows], outputs))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[rows], b), whole, some)


def test_the_mode_is_the_most_probable():
    """Of every coded column, mask, length and count, by trying all values."""
    part, outputs, _, _, _ = problem()
    found = likelihoods.mode(part, outputs)
    heads, block = outputs.heads, found.block
    np.testing.assert_array_equal(block.numeric[..., :2], heads[..., :2])
    np.testing.assert_array_equal(block.codes[..., 0], heads[..., 3] > 0)
    np.testing.assert_array_equal(block.observed, heads[..., 4:12] > 0)
    np.testing.assert_array_equal(block.codes[..., 1], heads[..., 12:15].argmax(-1))
    np.testing.assert_array_equal(block.codes[..., 2], heads[..., 15:19].argmax(-1))
    np.testing.assert_array_equal(found.length, outputs.length.argmax(-1) + 1)
    x = np.arange(200.0)
    r = outputs.spread[:, None, 2:]
    chance = r / (r + np.exp(heads[..., 2:3]))
    wanted = stats.nbinom.logpmf(x, r, chance).argmax(-1)
    np.testing.assert_array_equal(block.counts[..., 0], wanted)


def test_without_masks_everything_drawn_is_observed():
    part, outputs, _, _, _ = problem(masks=False)
    assert np.asarray(likelihoods.mode(part, outputs).block.observed).all()


def test_sigma_has_a_floor():
    part, _, _, _, _ = problem()
    spread = likelihoods.spread_of(part, jnp.array([-100.0, 0.0, 0.0]))
    np.testing.assert_allclose(spread, [SMALLEST_SIGMA, 1.0, 1.0], 1e-6)


@pytest.mark.parametrize("how", ["draw", "mode"])
@pytest.mark.parametrize("which", ["static", "temporal"])
def test_a_part_that_is_there_has_a_value(how, which):
    """Where no mask would be True one is, of a column that training saw observed."""
    layout, fitted, _ = encoded(schema(), config(), cohort(schema(), count=ROWS))
    part, count = getattr(layout, which), 2000
    missing = np.full(len(part.features), 0.9)
    never = part.observed_order[0]  # a numeric column; the first of both orders
    missing[never] = 1.0
    bounds = likelihoods.mask_bounds(part, fitted[which] | {"missing": missing})
    shape = (
        (count, part.steps, part.num_outputs)
        if part.steps
        else (count, part.num_outputs)
    )
    first = part.num_normal + part.num_counts + part.num_binary
    heads = np.zeros(shape, np.float32)
    heads[..., first : first + part.num_masks] = -9.0
    heads[..., first + 1] = -7.0
    outputs = Outputs(
        jnp.asarray(heads),
        jnp.ones((count, part.num_normal + part.num_counts)),
        jnp.zeros((count, part.steps)),
    )
    outputs = likelihoods.bound_masks(part, outputs, bounds)
    if how == "draw":
        drawn = likelihoods.draw(
            part, jax.random.split(jax.random.key(0), count), outputs
        )
    else:
        drawn = likelihoods.mode(part, outputs)
    seen = np.asarray(drawn.block.observed)
    if part.steps:
        valid = np.arange(part.steps) < np.asarray(drawn.length)[:, None]
        seen = (seen & valid[..., None]).any(1)
    assert seen.any(-1).all()
    assert not seen[:, 0].any()
    # One column has odds exp(2) times those of another: chosen as much more often.
    chosen = seen[:, 1].mean()
    others = seen.shape[1] - 2
    wanted = 1.0 if how == "mode" else 1.0 / (1.0 + others * np.exp(-2.0))
    np.testing.assert_allclose(chosen, wanted, atol=4 * 0.5 / np.sqrt(count) + 0.01)
