"""What is known of noisy numeric series before a network looks at them: a normal law.

Deviation: [cdmt2026] starts from independent values. Here the untrained model draws
numeric values from the normal law of all of them over columns and time (they are normal
scores, so this is a Gaussian copula); the network is told its estimate and learns what
it misses.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxehr.diffusion import edm, gaussian
from jaxehr.models.cdmt.config import CdmtConfig
from jaxehr.models.cdmt.layout import Layout
from jaxehr.models.cdmt.network import Frame


def has_prior(layout: Layout, config: CdmtConfig) -> bool:
    """Whether numeric series start from a normal law."""
    return config.prior == "normal" and layout.series > 0


def normal_of(law: dict[str, Any]) -> gaussian.Normal:
    """The law as a tuple."""
    return gaussian.Normal(**jax.tree.map(jnp.asarray, law))


def guess(
    config: CdmtConfig,
    law: dict[str, Any],
    x: jax.Array,
    sigma: Any,
    frame: Frame,
) -> tuple[jax.Array, jax.Array]:
    """Estimate [B, T, D] of the clean series; and the share of the usual spread around
    all of it that is left to the network, to broadcast.

    Args:
      law: of `preprocessing.fit_counted`.
    """
    normal = normal_of(law)
    found, left = gaussian.denoise(normal, x, sigma, frame.condition)
    level = jnp.exp(jnp.mean(jnp.log(sigma), (-2, -1)))
    usual = edm.precondition(level, config.sigma_data).c_out
    return found, (jnp.sqrt(left) / usual)[..., None, None]
