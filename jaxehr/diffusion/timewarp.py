"""Noise levels that follow the measured loss: timewarping [mueller2025, Sec. 3.3].

F distribution functions of a scaled noise level s in (0, 1), each a logistic one of the
log-odds,

    F(s) = sigmoid(nu (logit(s) - mu)),    s(u) = sigmoid(mu + logit(u) / nu),

nu > 1. gamma F(s) is fitted to the loss at s; then, with u uniform, the loss grows as
gamma u: levels are many where the loss rises. mu, the logit of the median, and nu are
free parameters; no gradient of the denoising loss reaches them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

EDGE = 1e-7  # u and s stay this far from 0 and 1 inside a logit
START_NU = 1.01

Warp = dict[str, Any]  # mu [F], raw_nu [F], raw_gamma [F]


def init_warp(num: int, low_noise: float = 3.0) -> Warp:
    """Parameters at which F(1/2) = w / (1 + w), w = `low_noise`, and gamma = 1.

    Args:
      num: F. low_noise: how much likelier a level below the middle is than one above.
    """
    full = lambda value: jnp.full((num,), value, jnp.float32)
    return {
        "mu": full(-math.log(low_noise) / START_NU),
        "raw_nu": full(math.log(math.expm1(START_NU - 1.0))),
        "raw_gamma": full(math.log(math.expm1(1.0))),
    }


def nu_of(warp: Warp) -> jax.Array:
    """nu [F] = 1 + softplus(raw)."""
    return 1.0 + jax.nn.softplus(warp["raw_nu"])


def cdf(warp: Warp, s: jax.Array) -> jax.Array:
    """F(s) [.., F] of scaled levels s [.., F]."""
    return jax.nn.sigmoid(nu_of(warp) * (_logit(s) - warp["mu"]))


def density(warp: Warp, s: jax.Array) -> jax.Array:
    """dF / ds [.., F]."""
    s = jnp.clip(s, EDGE, 1.0 - EDGE)
    share = cdf(warp, s)
    return nu_of(warp) / (s * (1.0 - s)) * share * (1.0 - share)


def quantile(warp: Warp, u: jax.Array) -> jax.Array:
    """s(u) [.., F] of u [..] in [0, 1], exactly 0 and 1 at the ends."""
    u = jnp.asarray(u)[..., None]
    s = jax.nn.sigmoid(warp["mu"] + _logit(u) / nu_of(warp))
    return jnp.where(u <= 0.0, 0.0, jnp.where(u >= 1.0, 1.0, s))


def fit_loss(warp: Warp, s: jax.Array, losses: jax.Array) -> jax.Array:
    """(gamma F(s) - loss)^2 / density(s) [.., F] of losses measured at levels s.

    The density undoes that levels are drawn with it. Gradients reach `warp` only.
    """
    s, losses = jax.lax.stop_gradient((s, losses))
    weight = 1.0 / (jax.lax.stop_gradient(density(warp, s)) + EDGE)
    gamma = jax.nn.softplus(warp["raw_gamma"])
    return weight * (gamma * cdf(warp, s) - losses) ** 2


def _logit(p: jax.Array) -> jax.Array:
    p = jnp.clip(p, EDGE, 1.0 - EDGE)
    return jnp.log(p) - jnp.log1p(-p)
