"""Which class a known latent speaks for: so that imputation does not read the label.

The decoders are told a label. Told the patient's own, what they impute would give the
outcome away to whoever trains on it; they are told one drawn from p(y | known latent),
by linear discriminants with a shrunk common covariance [ledoit2004].
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.contracts import Params
from jaxehr.diffusion.whitening import shrunk_covariance

NEVER = -1e9  # log-odds of a class without patients


def fit_outcome(z: np.ndarray, label: np.ndarray, num_classes: int) -> Params:
    """Log-odds z W + b of the classes: weight [l, C], bias [C].

    W = S^-1 m_c and b = log pi_c - m_c' S^-1 m_c / 2, m the class means.
    """
    count = max(num_classes, 1)
    counts = np.bincount(label, minlength=count)
    means = np.stack(
        [z[label == c].mean(0) if counts[c] else 0 * z[0] for c in range(count)]
    )
    inside = (z - means[label]).astype(np.float64)
    covariance = shrunk_covariance(inside)
    covariance += 1e-6 * max(np.trace(covariance), 1e-12) * np.eye(len(covariance))
    weight = np.linalg.solve(covariance, means.T.astype(np.float64))
    bias = -0.5 * np.sum(means.T * weight, 0)
    share = counts / max(counts.sum(), 1)
    bias += np.where(share > 0, np.log(np.where(share > 0, share, 1.0)), NEVER)
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def draw_outcome(arrays: Params, keys: jax.Array, z: Any) -> jax.Array:
    """A class [B] for each known latent z [B, l], from its own key."""
    logits = jnp.asarray(z) @ arrays["weight"] + arrays["bias"]
    return jax.vmap(jax.random.categorical)(keys, logits)
