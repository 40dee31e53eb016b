"""Diffusion of one vector a patient, told the label: loss, refusals, guided drawing.

The network that predicts the noise is a function `predict`: (x_t [B, d], t Int [B] or
[1], told [B, C]) -> eps_hat [B, d], where `told` is the one-hot label, zeros = hidden.

Notation: B patients, d coordinates, C classes (0 = no label), T noise levels.
"""

import functools
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxehr.core.checks import InputError
from jaxehr.diffusion import ddpm
from jaxehr.diffusion.edm import low_discrepancy
from jaxehr.diffusion.guidance import doubled, guide

PredictFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Options(Protocol):
    """What is read of sampling options."""

    @property
    def solver(self) -> str: ...  # ddpm | ddim
    @property
    def steps(self) -> int: ...  # network calls of ddim; 0 = every level
    @property
    def guidance(self) -> float: ...  # w


def noise_loss(
    plan: ddpm.Schedule,
    predict: PredictFn,
    keys: jax.Array,
    x0: jax.Array,
    told: jax.Array,
    label_drop: float,
) -> jax.Array:
    """Mean |eps - eps_hat|^2 over coordinates, t uniform in 1 ... T [ho2020, Eq. 14].

    Args:
      keys: [3], of levels, noise and hidden labels. x0: [B, d]. told: [B, C].
      label_drop: chance that a label is hidden, for guidance [ho2022].
    """
    rows = x0.shape[0]
    # Each t is uniform; together they cover the levels evenly.
    t = 1 + jnp.floor(plan.num_steps * low_discrepancy(keys[0], rows)).astype(jnp.int32)
    t = jnp.minimum(t, plan.num_steps)  # the product may round up
    eps = jax.random.normal(keys[1], x0.shape)
    kept = jax.random.uniform(keys[2], (rows, 1)) >= label_drop
    guess = predict(ddpm.q_sample(plan, x0, t, eps), t, told * kept)
    return jnp.mean((guess - eps) ** 2)


def check_options(
    levels: int, num_classes: int, label_drop: float, options: Options
) -> None:
    """Refuses options that a model of so many noise levels cannot honour.

    Raises:
      InputError: guidance without a label or without training for it; steps that the
        solver cannot take.
    """
    if options.guidance and not (num_classes and label_drop):
        raise InputError(
            f"guidance {options.guidance} needs a model trained on a cohort with a "
            f"label and label_drop above 0, got {num_classes} classes and label_drop "
            f"{label_drop}; use guidance 0."
        )
    if options.solver == "ddpm" and options.steps not in (0, levels):
        raise InputError(
            f"ddpm takes each of the model's {levels} noise levels, got steps "
            f"{options.steps}; leave steps out or use the solver ddim."
        )
    if options.steps > levels:
        raise InputError(
            f"steps must lie in [1, {levels}], the noise levels of the model, got "
            f"{options.steps}."
        )


def draw(
    plan: ddpm.Schedule,
    predict: PredictFn,
    options: Options,
    keys: jax.Array,
    told: jax.Array,
    dim: int,
) -> jax.Array:
    """x0 [B, d] of patients told [B, C]; patient i from keys[i].

    Guidance is (1 + w) eps(label) - w eps(no label), both from one batch of 2B rows.
    """
    each = jax.vmap(jax.random.split)(keys)  # [B, 2]
    x = jax.vmap(lambda key: jax.random.normal(key, (dim,)))(each[:, 0])

    def at(t: jax.Array, x: jax.Array, told: jax.Array) -> jax.Array:
        return predict(x, t[None], told)

    def eps_fn(x: jax.Array, t: jax.Array) -> jax.Array:
        if not options.guidance:
            return at(t, x, told)
        both = doubled(functools.partial(at, t))
        with_label, without = both(x, told, jnp.zeros_like(told))
        return guide(with_label, without, options.guidance)

    if options.solver == "ddim":
        return ddpm.ddim(eps_fn, x, plan, options.steps or plan.num_steps)
    return ddpm.ddpm(eps_fn, ddpm.row_noise(each[:, 1], dim), x, plan)
