"""The dtype of codes: by the categories of their columns, so that JAX counts right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxehr.data.encoding import small
from jaxehr.diffusion import embeddings, masked, multinomial


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [((), np.int8), ((2, 127), np.int8), ((2, 128), np.int32), ((300,), np.int32)],
)
def test_the_dtype_is_that_of_the_largest_column(sizes, dtype):
    assert small(np.zeros((3, len(sizes)), np.int64), sizes).dtype == dtype


@pytest.mark.parametrize("size", [127, 128, 300])
def test_few_of_many_categories_are_told_apart(size):
    """Of codes below 6 alone: their embedding, loss, masked state and one-hot."""
    codes = small(np.array([[0], [5]]), (size,))
    chosen = np.arange(size) == codes
    table = jnp.arange(float(size))[None, :, None]
    np.testing.assert_array_equal(embeddings.embed(table, codes)[..., 0], codes)
    logits = 20.0 * jnp.asarray(chosen, float)[:, None]
    assert (embeddings.cross_entropy(logits, codes) < 0.01).all()
    groups = multinomial.Groups((size,))
    np.testing.assert_array_equal(groups.one_hot(codes), chosen)
    t = jnp.array([[0.0], [1.0]])
    state = masked.corrupt(
        jax.random.key(0), codes, t, 1.0, num_codes=size, learnable=False
    )
    np.testing.assert_array_equal(masked.codes_of(state), [[0], [size]])
