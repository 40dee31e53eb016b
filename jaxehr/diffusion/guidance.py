"""Classifier-free guidance [ho2022, Eq. 6; cdmt2026]."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def guide(conditional: Any, unconditional: Any, weight: Any) -> Any:
    """(1 + w) conditional - w unconditional, leaf by leaf; w = 0 is plain conditional.

    Args:
      conditional, unconditional: equal pytrees of denoised values or raw logits.
      weight: one number, or a tree of numbers that is a prefix of the pytrees, such as
        one weight for numeric and one for coded features.
    """

    def extrapolate(w: Any, with_label: Any, without: Any) -> Any:
        return jax.tree.map(lambda c, u: (1.0 + w) * c - w * u, with_label, without)

    return jax.tree.map(extrapolate, weight, conditional, unconditional)


def doubled(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Evaluates `function(x, condition)` under two conditions in one call on 2B rows.

    Returns:
      A function (x, condition, null) -> (conditional, unconditional); all three are
      pytrees whose leaves have rows in front.
    """

    def stack(first: Any, second: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)

    def both(x: Any, condition: Any, null: Any) -> tuple[Any, Any]:
        rows = jax.tree.leaves(x)[0].shape[0]
        out = function(stack(x, x), stack(condition, null))
        with_label = jax.tree.map(lambda leaf: leaf[:rows], out)
        return with_label, jax.tree.map(lambda leaf: leaf[rows:], out)

    return both
