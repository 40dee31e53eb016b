"""Which class each synthetic patient has: what a user asks for, as codes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Schema

BY_FREQUENCY, BALANCED = -1, -2  # drawn as often as in training; each class alike


def label_codes(
    schema: Schema, counts: np.ndarray, label: Any | None, num: int
) -> np.ndarray:
    """Int [num]: a code a patient, or how it is drawn.

    Args:
      counts: [C] training patients of each class.
      label: None = by frequency, "balanced", one code, or an array of codes.

    Raises:
      InputError: a label without classes, an unknown code, a class without patients.
    """
    if label is None:
        return np.full(num, BY_FREQUENCY, np.int32)
    if schema.label is None:
        raise InputError("the cohort of this model has no label; leave it out.")
    if isinstance(label, str) and label == "balanced":
        return np.full(num, BALANCED, np.int32)
    codes = np.broadcast_to(np.asarray(label), (num,)).astype(np.int32)
    if num and (codes.min() < 0 or codes.max() >= schema.num_classes):
        raise InputError(
            f"label codes must lie in [0, {schema.num_classes}), got {codes.min()} to "
            f"{codes.max()}; the classes are {list(schema.label.classes)}."
        )
    # Nothing is known of a class without training patients.
    unseen = [int(code) for code in np.unique(codes) if not counts[code]]
    if unseen:
        raise InputError(
            f"no training patient has {schema.label.name!r} = "
            f"{schema.label.classes[unseen[0]]!r}; ask for another class."
        )
    return codes


def draw_cells(keys: jax.Array, counts: Any, label: Any) -> tuple[jax.Array, jax.Array]:
    """Label [N] and cell [N] of patients, drawn as often as in training.

    Args:
      keys: [N] one per patient. counts: [C, cells] training patients.
      label: Int [N], see `label_codes`.
    """
    counts = jnp.asarray(counts, jnp.float32)
    share = counts.sum(1)
    log = lambda p: jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), -jnp.inf)

    def one(key: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_label, key_cell = jax.random.split(key)
        even = jnp.where(share > 0, 1.0, 0.0)
        weights = jnp.where(label == BALANCED, even, share)
        drawn = jax.random.categorical(key_label, log(weights))
        code = jnp.where(label < 0, drawn, label)
        return code, jax.random.categorical(key_cell, log(counts[code]))

    return jax.vmap(one)(keys, jnp.asarray(label))
