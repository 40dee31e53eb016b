"""Visits of bits come back; states, missing values and bins."""

import jax
import jax.numpy as jnp
import numpy as np
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines.forms.visits import visits
from jaxehr.baselines.halo import codes_of
from jaxehr.core.cohort import rows_of, valid_steps
from jaxehr.core.sparse import SparseTable

FORM = visits(10)


def encoded(made, people, form=FORM):
    fitted = form.fit(made, people, True)
    layout = form.layout(made, fitted)
    return fitted, layout, form.encode(fitted, layout, people)


def back(made, people, form=FORM):
    """Through the bits: of, then codes."""
    fitted, layout, data = encoded(made, people, form)
    batch = form.take(layout, data, jnp.arange(len(people.label)))
    again = lambda bits, codes: codes_of(bits, bits.of(codes))
    batch = batch._replace(
        static=again(layout.static, batch.static),
        steps=jax.vmap(lambda codes: again(layout.temporal, codes))(batch.steps),
    )
    keys = jax.random.split(jax.random.key(1), len(people.label))
    done = jax.tree.map(np.asarray, form.finish(layout, keys, batch, False))
    return form.decode(fitted, layout, done), layout


def test_codes_and_missing_values_come_back_and_numbers_in_their_bin():
    made = schema()
    people = complete(cohort(made, count=200))
    found, layout = back(made, people)
    for part in ("static", "temporal"):
        a, b = getattr(found, part), getattr(people, part)
        np.testing.assert_array_equal(a.observed, b.observed)
        np.testing.assert_array_equal(a.codes, b.codes)
    seen = people.temporal.observed[..., 0]
    hr, wanted = (c.temporal.numeric[..., 0][seen] for c in (found, people))
    edges = np.quantile(wanted, np.linspace(0, 1, 11))
    # A rounded value at an edge may fall on either side.
    apart = np.abs(np.searchsorted(edges, hr) - np.searchsorted(edges, wanted))
    assert apart.max() <= 1
    assert (apart == 0).mean() > 0.9
    np.testing.assert_array_equal(found.length, people.length)
    assert "4 binary visits of 26 bits after 15 static ones" in FORM.text(layout)


def test_numbers_come_back_as_often_as_they_were():
    """Few values that repeat, narrower and wider than a bin.

    Within 4 s.e. of 4,000 draws, given the bins.
    """
    made = schema(temporal=(), classes=0)
    share = np.array([0.002, 0.02, 0.13, 0.42, 0.3, 0.07, 0.05, 0.008])
    age = np.repeat(np.arange(8.0), np.round(4000 * share).astype(int))[:, None]
    people = cohort(made, count=4000, missing=0.0, variable=False)
    people = people._replace(static=people.static._replace(numeric=age))
    found, _ = back(made, people)
    drawn = np.bincount(found.static.numeric[:, 0].astype(int), minlength=8) / 4000
    assert (np.abs(drawn - share) < 4 * np.sqrt(share * (1 - share) / 4000)).all()


def test_states_of_a_column():
    made = schema()
    people = complete(cohort(made, missing=0.0))
    _, layout, data = encoded(made, people)
    # hr, lab in 10 bins; rhythm 3 states; ward constant; vent one bit.
    assert layout.temporal.states == (10, 10, 3, 0, 1)
    np.testing.assert_array_equal(data.steps[..., 4], people.temporal.codes[..., 2])
    valid = valid_steps(people)
    rhythm = people.temporal.codes[valid][:, 0]
    np.testing.assert_array_equal(data.steps[valid][:, 2], rhythm + 1)
    bits = np.asarray(layout.temporal.of(data.steps))
    assert bits.shape[-1] == layout.temporal.width == 24
    assert (bits[valid_steps(people)][:, :20].sum(-1) == 2).all()
    assert not bits[~valid_steps(people)].any()
    gaps = complete(cohort(made))
    _, layout, _ = encoded(made, gaps)
    assert layout.temporal.states == (10, 10, 3, 1, 2)
    assert not layout.temporal.plain[4]


def test_frequencies_of_the_bits():
    made = schema()
    people = complete(cohort(made))
    fitted, layout, data = encoded(made, people)
    bits = np.asarray(layout.temporal.of(data.steps))[valid_steps(people)]
    np.testing.assert_allclose(fitted["frequency"]["temporal"], bits.mean(0), rtol=1e-6)
    assert fitted["frequency"]["static"].shape == (layout.static.width,)


def test_sparse_visits_come_back():
    made = sparse_schema()
    thin, whole = sparse_cohort(made)
    keep = (thin.length > 0) & thin.has_static
    thin, whole = rows_of(thin, keep), rows_of(whole, keep)
    found, layout = back(made, thin)
    assert isinstance(found.temporal, SparseTable)
    np.testing.assert_array_equal(found.temporal.codes, whole.temporal.codes)
    assert layout.temporal.states == (1,) * 11
    fitted = encoded(made, thin)[0]
    share = whole.temporal.codes.sum((0, 1)) / thin.length.sum()
    np.testing.assert_allclose(fitted["frequency"]["temporal"], share)
