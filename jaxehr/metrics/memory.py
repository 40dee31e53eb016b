"""Trained classifiers kept in a folder, so that no training is made twice.

Metrics train on the same real patients for every synthetic data set beside them. The
weights hold something of those patients: the folder is as confidential as they are.
"""

import functools
import hashlib
import importlib.metadata
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.arrays import read_arrays, to_bytes
from jaxehr.core.checks import InputError
from jaxehr.core.files import write_bytes

# What decides a training besides its settings: these packages, and files of this one.
PACKAGES = ("jax", "jaxlib", "flax", "optax")
SOURCES = ("metrics/classifiers.py", "nn/*.py", "training/*.py")


@functools.cache
def code() -> str:
    """A hash of versions, sources and devices."""
    here = pathlib.Path(__file__).parent.parent
    found = [importlib.metadata.version(name) for name in PACKAGES]
    found += [p.read_text() for glob in SOURCES for p in sorted(here.glob(glob))]
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore
    devices = jax.devices()
    found += [devices[0].device_kind, str(len(devices)), str(precision)]
    return hashlib.sha256("\0".join(found).encode()).hexdigest()


def digest(settings: Any, key: jax.Array, table: Any, rows: np.ndarray) -> str:
    """A name for one training: its settings, its key and its rows, in their order.

    Args:
      settings: whatever else decides the result; its text counts.
      table: pytree of arrays [N, ...]. rows: Int [n], those of `table` that train.
    """
    said = [settings, np.asarray(jax.random.key_data(key)).tolist()]
    made = hashlib.sha256(f"{code()} {said}".encode())
    for leaf in jax.tree.leaves(table):
        chosen = np.ascontiguousarray(np.asarray(leaf)[rows])
        made.update(f"{chosen.shape} {chosen.dtype}".encode())
        made.update(chosen.tobytes())
    return made.hexdigest()


def remembered(
    folder: str, names: list[str], learn: Callable[[np.ndarray], Any]
) -> Any:
    """Trainings by name; those that `folder` lacks are made, all at once, and kept.

    Args:
      names: `digest` of each of S trainings.
      learn: numbers of trainings [R] -> nested dict of arrays [R, ...].

    Returns:
      Nested dict of arrays [S, ...].

    Raises:
      InputError: the folder cannot be written, a file in it is damaged, or there are
        several processes, which might not find the same.
    """
    if jax.process_count() > 1:
        raise InputError("classifiers are remembered by a single process only.")
    paths = [pathlib.Path(folder) / f"{name}.npz" for name in names]
    lacking = np.asarray([i for i, p in enumerate(paths) if not p.is_file()], int)
    if lacking.size:
        made = jax.device_get(learn(lacking))
        for place, i in enumerate(lacking):
            one = jax.tree.map(lambda leaf, place=place: leaf[place], made)
            write_bytes(paths[i], to_bytes(one))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(read_arrays, paths))
