"""Nested dicts of arrays in one .npz file: opens anywhere, holds no code."""

import io
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from jaxehr.core.checks import InputError

SEPARATOR = "/"


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """{"a": {"b": x}} -> {"a/b": x}; a dict without arrays leaves nothing behind."""
    leaves: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= flatten(value, f"{prefix}{name}{SEPARATOR}")
        else:
            leaves[prefix + name] = np.asarray(value)
    return leaves


def unflatten(leaves: dict[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `flatten`, but for dicts without arrays."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *parents, name = path.split(SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def to_bytes(tree: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **flatten(tree))
    return stream.getvalue()


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `to_bytes` made; a damaged file or pickled objects are refused."""
    target = pathlib.Path(path)
    try:
        with np.load(target, allow_pickle=False) as archive:
            return unflatten({name: archive[name] for name in archive.files})
    except FileNotFoundError:
        raise InputError(f"{target}: no such file.") from None
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{target}: damaged or not ours ({error}).") from error
