"""Power-mean noise schedules with a factorised shape parameter [cdmt2026, Eq. 3, 6].

t lies in [0, 1] (0 clean, 1 noise); sigma runs from `sigma_min` to `sigma_max`; `rho`
bends the path between them: rho = 1 is uniform in sigma, a larger one spends more steps
at low noise, and rho -> infinity is uniform in log sigma.
"""

import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxehr.core.checks import InputError, known

RhoKind = Literal["softplus", "additive_clamped"]

# Above this, exp() nears the end of float32; reached only by rho < 0.2.
_LARGE = 60.0


def power_mean(
    t: jax.Array | float,
    rho: jax.Array | float,
    sigma_min: float,
    sigma_max: float,
) -> jax.Array:
    """Noise level at time t [cdmt2026, Eq. 3].

    sigma = (sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho,
    evaluated as log sigma = log sigma_min + rho log1p(t expm1(u)) with
    u = log(sigma_max / sigma_min) / rho. The powers themselves all tend to 1 as rho
    grows, and their differences would lose float32 digits.

    Args:
      t, rho: broadcast against each other; t in [0, 1], rho > 0.
      sigma_min, sigma_max: positive ends of the noise range.
    """
    t, rho = jnp.asarray(t), jnp.asarray(rho)
    u = math.log(sigma_max / sigma_min) / rho
    small = jnp.log1p(t * jnp.expm1(jnp.minimum(u, _LARGE)))
    positive = jnp.where(t > 0, t, 1.0)  # keeps log(0) out of the gradient
    large = u + jnp.log(positive + (1.0 - positive) * jnp.exp(-u))
    growth = jnp.where((u > _LARGE) & (t > 0), large, small)
    return jnp.exp(math.log(sigma_min) + rho * growth)


def power_mean_inverse(
    sigma: jax.Array | float,
    rho: jax.Array | float,
    sigma_min: float,
    sigma_max: float,
) -> jax.Array:
    """Time at which the schedule reaches `sigma`; the inverse of `power_mean`.

    t = (sigma^(1/rho) - sigma_min^(1/rho)) / (sigma_max^(1/rho) - sigma_min^(1/rho)),
    divided through by sigma_max^(1/rho) so that no exponential overflows.
    """
    log_sigma, rho = jnp.log(jnp.asarray(sigma)), jnp.asarray(rho)
    above = (log_sigma - math.log(sigma_min)) / rho
    below = (log_sigma - math.log(sigma_max)) / rho
    u = math.log(sigma_max / sigma_min) / rho
    return jnp.exp(below) * jnp.expm1(-above) / jnp.expm1(-u)


class RhoParams(NamedTuple):
    """Shape parameter as global + feature + time step, before the link of `rho_of`.

    Feature and step offsets are identified only up to a constant each; harmless.
    """

    base: jax.Array  # []
    feature: jax.Array  # [D]
    step: jax.Array  # [T], or [0] without a part for time steps


def init_rho(
    rho_start: float,
    num_features: int,
    num_steps: int,
    *,
    floor: float = 1.0,
    kind: RhoKind = "softplus",
) -> RhoParams:
    """Parameters at which every rho equals `rho_start` and all offsets are 0, if it is
    well below the cap of `rho_of`: to 1e-4 from 10 below on.

    Raises:
      InputError: `rho_start` does not lie above `floor`, or `kind` is unknown.
    """
    known("rho kind", kind, get_args(RhoKind))
    above = rho_start - floor
    if not above > 0:
        raise InputError(
            f"rho_start must lie above the floor {floor}, got {rho_start}; "
            "raise it, or lower the floor."
        )
    base = rho_start
    if kind == "softplus":
        base = above + math.log(-math.expm1(-above))  # inverse of softplus
    zeros = jnp.zeros
    return RhoParams(jnp.asarray(base, float), zeros(num_features), zeros(num_steps))


def raw_of(params: RhoParams) -> jax.Array:
    """base + feature [+ step], shape [T, D], or [D] without a part for time steps."""
    raw = params.base + params.feature
    return raw + params.step[:, None] if params.step.shape[0] else raw


def rho_of(
    params: RhoParams,
    *,
    floor: float = 1.0,
    cap: float = 50.0,
    kind: RhoKind = "softplus",
) -> jax.Array:
    """Shape parameters [T, D], or [D] without a part for time steps.

    softplus: rho = floor + softplus(base + feature + step);
    additive_clamped: rho = max(base + feature + step, floor), the literal
    [cdmt2026, Eq. 6] kept positive (no gradient below the floor) and below the cap.

    The cap is smooth, cap - softplus(cap - rho): it leaves rho alone some 15 below the
    cap, and its gradient fades above instead of stopping, so that an optimiser that
    overshot can come back. A categorical rho always wants to grow.
    """
    known("rho kind", kind, get_args(RhoKind))
    raw = raw_of(params)
    if kind == "softplus":
        # Deviation: Eq. 6 is additive; softplus keeps every rho valid. An offset moves
        # it by a share 1 - exp(floor - rho): from 7 by .998 with floor 1, .865 with 5.
        rho = floor + jax.nn.softplus(raw)
    else:
        rho = jnp.maximum(raw, floor)
    return cap - jax.nn.softplus(cap - rho)
