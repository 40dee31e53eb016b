"""Guidance: closed form, and one batch instead of two calls."""

import jax.numpy as jnp
import numpy as np

from jaxehr.diffusion.guidance import doubled, guide


def test_guide_extrapolates_every_leaf():
    with_label = {"x": jnp.array([3.0]), "logits": jnp.array([1.0, 2.0])}
    without = {"x": jnp.array([1.0]), "logits": jnp.array([0.0, 4.0])}
    out = guide(with_label, without, 0.5)
    np.testing.assert_allclose(out["x"], [4.0])
    np.testing.assert_allclose(out["logits"], [1.5, 1.0])
    out = guide(with_label, without, {"x": 0.0, "logits": 1.0})
    np.testing.assert_allclose(out["x"], with_label["x"])
    np.testing.assert_allclose(out["logits"], [2.0, 0.0])


def test_doubled_equals_two_calls_and_calls_once():
    rows = []

    def function(x, condition):
        rows.append(x["a"].shape[0])
        return {"out": x["a"] * condition}

    x = {"a": jnp.arange(6.0).reshape(3, 2)}
    condition, null = jnp.full((3, 1), 2.0), jnp.zeros((3, 1))
    first, second = doubled(function)(x, condition, null)
    np.testing.assert_array_equal(first["out"], 2.0 * x["a"])
    np.testing.assert_array_equal(second["out"], 0.0 * x["a"])
    assert rows == [6]
