"""The losses of EHR-M-GAN, of arrays only [li2023].

B patients, T steps, l latent coordinates, F numbers of one patient.
"""

from typing import Literal

import jax
import jax.numpy as jnp

Divergence = Literal["corrected", "published"]
SMALL = 1e-6  # keeps the root of a variance differentiable


def divergence(form: Divergence, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """KL(N(mean, std^2) || N(0, 1)) [B] of latents [B, T, l], summed over T and l.

    `corrected` is 1/2 sum (std^2 + mean^2 - 1 - 2 log std). `published` is the authors'
    1/2 sum (std + mean^2 - 1 - log std): the formula of a variance, given a deviation.
    Around std = 1 it is a quarter as curved, and grows more slowly where std is large.
    """
    power = 2.0 if form == "corrected" else 1.0
    each = jnp.exp(power * log_std) + mean**2 - 1.0 - power * log_std
    return 0.5 * each.sum((1, 2))


def matching(one: jax.Array, two: jax.Array) -> jax.Array:
    """Mean squared distance of the latents [B, T, l] of both branches."""
    return jnp.mean((one - two) ** 2)


def contrast(one: jax.Array, two: jax.Array) -> jax.Array:
    """NT-Xent [chen2020, Eq. 1] of flattened latents [B, F] of both branches.

    The other branch of the same patient is to be told from both branches of all other
    patients, by inner products, at temperature 1:

        mean_i -log softmax(<a_i, (b_1 .. b_B, a_1 .. a_B without a_i)>)_i,

    plus the same with a and b exchanged.
    """
    same = jnp.eye(len(one), dtype=bool)

    def half(a: jax.Array, b: jax.Array) -> jax.Array:
        others = jnp.where(same, -jnp.inf, a @ a.T)
        logits = jnp.concatenate([a @ b.T, others], 1)
        chosen = jnp.diagonal(logits[:, : len(a)])
        return jnp.mean(jax.scipy.special.logsumexp(logits, axis=1) - chosen)

    return half(one, two) + half(two, one)


def spread(x: jax.Array) -> jax.Array:
    """Deviation over patients of [B, T, F]."""
    return jnp.sqrt(x.var(0) + SMALL)


def root(mean: jax.Array) -> jax.Array:
    """sqrt |mean|, with a finite slope at 0."""
    return jnp.sqrt(jnp.abs(mean) + SMALL)


def feature_gap(made: jax.Array, real: jax.Array) -> jax.Array:
    """Of outputs of a discriminator: mean |difference of deviations|, plus mean
    |difference of roots of |means||, over steps and units."""
    gap = jnp.abs(spread(made) - spread(real)).mean()
    return gap + jnp.abs(root(made.mean(0)) - root(real.mean(0))).mean()


def data_gap(made: jax.Array, real: jax.Array) -> jax.Array:
    """Of series: mean |difference of deviations|, plus that of means, over steps and
    columns."""
    gap = jnp.abs(spread(made) - spread(real)).mean()
    return gap + jnp.abs(made.mean(0) - real.mean(0)).mean()


def soft(logits: jax.Array, labels: jax.Array | float) -> jax.Array:
    """Mean binary cross entropy [B] -> () with labels that need not be 0 or 1."""
    log = jax.nn.log_sigmoid
    return -jnp.mean(labels * log(logits) + (1.0 - labels) * log(-logits))
