"""One key per patient, so that patient i does not depend on batch size or order."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxehr.core.labels import BALANCED


def patient_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Keys [N] of the patients with numbers `index` [N]: fold_in(key, i).

    Never `split` the same key beside this: `split(key)[i] == fold_in(key, i)` in JAX.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def draw_cells(keys: jax.Array, counts: Any, label: Any) -> tuple[jax.Array, jax.Array]:
    """Label [N] and cell [N] of patients, drawn as often as in training.

    Args:
      keys: [N] one per patient. counts: [C, cells] training patients.
      label: Int [N], see `labels.label_codes`.
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
