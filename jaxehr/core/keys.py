"""One key per patient, so that patient i does not depend on batch size or order."""

import jax


def patient_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Keys [N] of the patients with numbers `index` [N]: fold_in(key, i).

    Never `split` the same key beside this: `split(key)[i] == fold_in(key, i)` in JAX.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
