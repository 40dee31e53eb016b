"""Refusals name the value and what is allowed."""

import math

import pytest

from jaxehr.core.checks import InputError, known, positive, within


def test_known_lists_what_is_known():
    known("solver", "euler", ("euler", "heun"))
    with pytest.raises(InputError, match="unknown solver 'rk4'; known: euler, heun"):
        known("solver", "rk4", (name for name in ("euler", "heun")))


@pytest.mark.parametrize("value", [0, -1.5, math.nan])
def test_positive_refuses(value):
    positive(a=1, b=0.5)
    with pytest.raises(InputError, match=f"b must be positive, got {value}"):
        positive(a=1, b=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_within_refuses(value):
    within("share", 0.0, 0.0, 1.0)
    within("share", 1.0, 0.0, 1.0)
    with pytest.raises(
        InputError, match=rf"share must lie in \[0.0, 1.0\], got {value}"
    ):
        within("share", value, 0.0, 1.0)


def test_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)
