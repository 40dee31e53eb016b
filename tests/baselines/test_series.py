"""Series come back, dense and sparse; length, label and static columns by all steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cohorts import (
    assert_cohorts,
    cohort,
    complete,
    schema,
    sparse_cohort,
    sparse_schema,
)

from jaxehr.baselines.forms.series import SERIES, majority
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import rows_of, valid_steps
from jaxehr.core.sparse import SparseTable


def encoded(made, people, conditional=True):
    fitted = SERIES.fit(made, people, conditional)
    layout = SERIES.layout(made, fitted)
    return fitted, layout, SERIES.encode(fitted, layout, people)


def back(made, people, conditional=True):
    fitted, layout, data = encoded(made, people, conditional)
    drawn = SERIES.take(layout, data, jnp.arange(len(people.label)))
    drawn = drawn._replace(label=drawn.label * conditional, length=0 * drawn.length)
    done = SERIES.finish(layout, None, drawn, False)
    return SERIES.decode(fitted, layout, jax.tree.map(np.asarray, done)), layout


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("variable", [True, False])
def test_series_come_back(variable, conditional):
    made = schema(classes=3)
    people = complete(cohort(made, variable=variable))
    found, layout = back(made, people, conditional)
    assert_cohorts(found, people, rtol=1e-5)
    assert ("ended" in layout.extra) is variable
    assert ("label" in layout.extra) is not conditional
    assert (layout.steps, layout.numbers) == (4, 2 + 1)
    assert "series of 4 steps: 3 normal scores" in SERIES.text(layout)


@pytest.mark.parametrize("conditional", [True, False])
def test_sparse_series_come_back(conditional):
    made = sparse_schema()
    thin, whole = sparse_cohort(made)
    keep = (thin.length > 0) & thin.has_static
    thin, whole = rows_of(thin, keep), rows_of(whole, keep)
    found, layout = back(made, thin, conditional)
    assert isinstance(found.temporal, SparseTable)
    assert_cohorts(found._replace(temporal=whole.temporal), whole)
    np.testing.assert_array_equal(found.temporal.codes, whole.temporal.codes)
    fitted, _, data = encoded(made, thin, conditional)
    assert data.packed is not None
    shares = fitted["frequency"]
    assert shares.shape[0] == len(layout.cardinalities)
    ones, cells = whole.temporal.codes.sum((0, 1)), thin.length.sum()
    np.testing.assert_allclose(shares[:11, 1], (ones + 1) / (cells + 2))
    np.testing.assert_allclose(shares.sum(1), 1.0)


def test_steps_beyond_the_end_look_like_the_last():
    made = schema()
    people = complete(cohort(made))
    _, layout, data = encoded(made, people)
    batch, last = data.batch, people.length - 1
    ended = layout.extra["ended"]
    np.testing.assert_array_equal(batch.codes[..., ended] == 0, valid_steps(people))
    everyone = np.arange(len(last))
    for leaf in (batch.numeric, np.delete(batch.codes, ended, -1)):
        for step in range(4):
            past = step > last
            np.testing.assert_array_equal(leaf[past, step], leaf[everyone, last][past])


def test_what_most_valid_steps_say():
    codes = np.array([[2, 2, 1, 0], [1, 2, 2, 2], [2, 0, 0, 2]])[..., None]
    found = majority(codes, np.array([4, 1, 4]), 3)[:, 0]
    assert found.tolist() == [2, 1, 0]


def test_a_series_has_at_least_one_step():
    made = schema()
    people = complete(cohort(made))
    _, layout, data = encoded(made, people)
    batch = SERIES.take(layout, data, jnp.arange(3))
    codes = batch.codes.at[..., layout.extra["ended"]].set(1)
    done = SERIES.finish(layout, None, batch._replace(codes=codes), False)
    assert done.length.tolist() == [1, 1, 1]


def test_static_tables_have_no_series():
    made = schema(temporal=())
    with pytest.raises(InputError, match="no temporal feature, and this baseline"):
        SERIES.fit(made, cohort(made), True)
