"""A batch as one matrix and back; likelihoods against SciPy; draws by their chances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.rows import FLAT, SUMS
from jaxehr.baselines.forms.series import SERIES
from jaxehr.core.cohort import rows_of

KEYS = jax.random.split(jax.random.key(0), 4000)


def batch_of(form, made, people):
    """(layout, whole batch, fitted) of a cohort."""
    fitted = form.fit(made, people, True)
    layout = form.layout(made, fitted)
    data = form.encode(fitted, layout, people)
    return layout, form.take(layout, data, jnp.arange(len(people.label))), fitted


def mixed(form=FLAT):
    return batch_of(form, schema(), complete(cohort(schema())))


def summed():
    thin, _ = sparse_cohort(sparse_schema())
    return batch_of(SUMS, sparse_schema(), rows_of(thin, thin.length > 0))


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("make", [mixed, lambda: mixed(SERIES), summed])
def test_a_matrix_comes_back(make, unit):
    layout, batch, _ = make()
    found = matrix.matrix_of(layout, batch, unit=unit)
    assert found.shape == (*batch.codes.shape[:-1], layout.width)
    if unit:
        assert found.min() >= 0.0
        assert found.max() <= 1.0
    again = matrix.batch_of(
        layout, KEYS[: len(found)], found, batch.label, mode=True, unit=unit
    )
    np.testing.assert_array_equal(again.codes, batch.codes)
    np.testing.assert_allclose(again.numeric, batch.numeric, atol=2e-3)
    np.testing.assert_allclose(again.sums, batch.sums)
    blocks = matrix.split(layout, found)
    np.testing.assert_array_equal(matrix.join(blocks), found)
    assert [leaf.shape[-1] for leaf in blocks.groups] == [k for k, _ in layout.groups]


def test_the_most_probable_category_has_the_largest_value():
    """Also where all are negative, or several above 1."""
    layout, _, _ = mixed()
    rows = np.random.default_rng(0).normal(0, 3, (50, layout.width))
    label = jnp.zeros(50, int)
    drawn = matrix.batch_of(layout, KEYS[:50], jnp.asarray(rows), label, mode=True)
    blocks = matrix.split(layout, rows)
    for leaf, (_, places) in zip(blocks.groups, layout.groups, strict=True):
        codes = np.asarray(drawn.codes)[:, list(places)]
        np.testing.assert_array_equal(codes, np.argmax(leaf, -1))


def test_the_likelihood_is_the_sum_over_columns(x64):
    layout, batch, _ = mixed()
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(len(batch.label), layout.width))
    sigma = np.exp(rng.normal(size=layout.numbers))
    found = matrix.log_likelihood(layout, jnp.asarray(outputs), sigma, batch)
    heads = matrix.split(layout, outputs)
    wanted = stats.norm.logpdf(batch.numeric, heads.numeric, sigma).sum(1)
    codes = np.asarray(batch.codes)
    binary = codes[:, list(layout.binary)]
    wanted += stats.bernoulli.logpmf(binary, special.expit(heads.binary)).sum(1)
    for logits, (_, places) in zip(heads.groups, layout.groups, strict=True):
        logs = special.log_softmax(logits, -1)
        chosen = codes[:, list(places), None]
        wanted += np.take_along_axis(logs, chosen, -1).sum((1, 2))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_likelihood_of_sums_is_binomial_but_for_a_constant(x64):
    layout, batch, _ = summed()
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(2, len(batch.label), layout.width))
    found = [
        matrix.log_likelihood(layout, jnp.asarray(o), np.ones(layout.numbers), batch)
        for o in outputs
    ]
    trials = np.asarray(batch.length)[:, None]
    counts = np.round(np.asarray(batch.sums) * trials)
    rest, wanted = [], []
    for o in outputs:
        heads = matrix.split(layout, o)
        chance = special.expit(heads.sums)
        wanted.append(stats.binom.logpmf(counts, trials, chance).sum(1))
        same = layout.__class__(**{**vars_of(layout), "sums": 0})
        columns = np.delete(o, np.arange(layout.numbers, layout.numbers + 11), 1)
        rest.append(
            matrix.log_likelihood(
                same, jnp.asarray(columns), np.ones(layout.numbers), batch
            )
        )
    difference = (found[0] - rest[0]) - (found[1] - rest[1])
    np.testing.assert_allclose(difference, wanted[0] - wanted[1], rtol=1e-5, atol=1e-5)


def vars_of(layout):
    names = ("schema", "parts", "steps", "sums", "classes", "lengths", "sparse")
    return {name: getattr(layout, name) for name in names}


def test_biases_say_the_marginals():
    for layout, _, fitted in (mixed(), summed()):
        bias = jnp.asarray(matrix.start_bias(layout, fitted))
        chance = matrix.split(layout, matrix.probabilities(layout, bias))
        np.testing.assert_allclose(chance.sums, fitted["sums"], rtol=1e-4)
        wanted = np.asarray(fitted["frequency"])[list(layout.binary), 1]
        np.testing.assert_allclose(chance.binary, wanted, rtol=1e-5)
        for leaf, (k, places) in zip(chance.groups, layout.groups, strict=True):
            wanted = np.asarray(fitted["frequency"])[list(places), :k]
            np.testing.assert_allclose(leaf, wanted, rtol=1e-5)
        assert not np.asarray(chance.numeric).any()


def test_codes_are_drawn_by_their_chances():
    """Chi-square of 4,000 draws of one category; a share within 4 s.e. of one bit."""
    layout, _, _ = mixed()
    rng = np.random.default_rng(3)
    row = matrix.probabilities(layout, jnp.asarray(rng.normal(size=layout.width)))
    many = jnp.broadcast_to(row, (4000, layout.width))
    drawn = jax.jit(
        lambda keys: matrix.batch_of(layout, keys, many, jnp.zeros(4000), mode=False)
    )(KEYS)
    codes, blocks = np.asarray(drawn.codes), matrix.split(layout, row)
    k, places = layout.groups[-1]
    counts = np.bincount(codes[:, places[0]], minlength=k)
    wanted = 4000 * np.asarray(blocks.groups[-1][0], float)
    assert stats.chisquare(counts, wanted * 4000 / wanted.sum()).pvalue > 1e-3
    share, p = codes[:, layout.binary[0]].mean(), float(blocks.binary[0])
    assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / 4000)
