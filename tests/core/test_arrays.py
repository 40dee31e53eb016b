"""Nested arrays survive the file exactly; foreign files are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxehr.core.arrays import flatten, read_arrays, to_bytes, unflatten
from jaxehr.core.checks import InputError

TREE = {
    "fitted": {"count": np.int64(3), "text": np.array(["a", "é"])},
    "weights": {
        "deep": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "none": np.zeros((0, 4), np.int8),
        "seen": np.array([True, False]),
    },
}
names = st.text("abc_ é.", min_size=1, max_size=4)
trees = st.recursive(
    st.integers(-5, 5).map(np.int64),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=6,
).filter(lambda tree: isinstance(tree, dict))


def test_round_trip_keeps_values_types_and_shapes(tmp_path):
    path = tmp_path / "params.npz"
    path.write_bytes(to_bytes(TREE))
    found, wanted = flatten(read_arrays(path)), flatten(TREE)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


@settings(max_examples=50, deadline=None)
@given(trees)
def test_unflatten_inverts_flatten(tree):
    assert unflatten(flatten(tree)) == tree


def test_objects_are_not_pickled():
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        to_bytes({"a": np.array([{}, None], object)})


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        read_arrays(tmp_path / "none.npz")


def single_array(path):
    with path.open("wb") as stream:
        np.save(stream, np.arange(3))


def pickled(path):
    with path.open("wb") as stream:
        np.savez(stream, a=np.array([{}], object))


def truncated(path):
    content = to_bytes(TREE)
    path.write_bytes(content[: len(content) // 2])


def flipped(path):
    content = bytearray(to_bytes({"a": np.zeros(1000)}))
    content[500] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        single_array,
        pickled,
        truncated,
        flipped,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello"),
        lambda path: path.mkdir(),
    ],
)
def test_foreign_or_damaged_file(tmp_path, damage):
    path = tmp_path / "params.npz"
    damage(path)
    with pytest.raises(InputError, match=r"params\.npz: damaged or not ours"):
        read_arrays(path)
