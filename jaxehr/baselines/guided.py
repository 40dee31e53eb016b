"""Gaussian diffusion of one vector a patient, told the label: `ldm` and `meddiff`.

The network that predicts the noise, and its loss, are those of FLEXGEN-EHR:

    loss = E |eps - eps_hat(sqrt(abar_t) x0 + sqrt(1 - abar_t) eps, t, y)|^2 / d

[ho2020, Eq. 14], t uniform in 1 ... T; the label y is hidden from some patients in
training, so that sampling can be guided [ho2022].

Notation: B patients, d coordinates, C classes (0 = no label), T noise levels. `config`
is one with the fields `betas`, `diffusion_steps`, `width` and `label_drop`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxehr.baselines.recipe import Sampling
from jaxehr.core.checks import InputError, known, positive, within
from jaxehr.core.contracts import Objective, Params
from jaxehr.diffusion import ddpm
from jaxehr.diffusion.edm import low_discrepancy
from jaxehr.diffusion.guidance import doubled, guide
from jaxehr.nn.score import ScoreNetwork

Betas = Literal["scaled", "paper", "code", "sqrt"]
Solver = Literal["ddpm", "ddim"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidedSampling(Sampling):
    """How patients are drawn from a diffusion of one vector a patient."""

    solver: Solver = "ddpm"
    """Ancestral sampling, or the deterministic DDIM."""
    steps: int = 0
    """Network calls of ddim; 0 = one for each noise level. ddpm takes every level."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance, (1 + w) eps(label) - w eps(no label)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known("solver", self.solver, get_args(Solver))
        within("steps", self.steps, 0, 10_000)
        within("guidance", self.guidance, -1.0, 100.0)


def check_config(config: Any) -> None:
    """Refuses wrong choices of the fields that are read here."""
    known("betas", config.betas, get_args(Betas))
    positive(diffusion_steps=config.diffusion_steps, width=config.width)
    within("label_drop", config.label_drop, 0.0, 1.0)


def plan_of(config: Any) -> ddpm.Schedule:
    """The noise schedule."""
    steps = config.diffusion_steps
    if config.betas == "sqrt":
        return ddpm.schedule(ddpm.sqrt_betas(steps))
    return ddpm.schedule(ddpm.betas(config.betas, steps))


def predict(
    config: Any, params: Params, x: jax.Array, t: jax.Array, told: jax.Array
) -> jax.Array:
    """eps_hat [B, d] of x [B, d] at levels t, Int [B] or [1]; told: one-hot [B, C]."""
    plan = plan_of(config)
    inputs = (x, t / plan.num_steps, told, ddpm.scales(plan, t)[1])
    network = ScoreNetwork(x.shape[-1], config.width)
    return jnp.asarray(network.apply({"params": params}, *inputs))


def objective(
    config: Any,
    dim: int,
    classes: int,
    clean: Callable[[jax.Array, Any], jax.Array],
    take: Callable[[Any, jax.Array], Any],
) -> Objective:
    """The loss of the module docstring.

    Args:
      clean: (key, batch) -> x0 [B, d]. take: makes a batch, which has a `label` [B].
    """
    plan, steps = plan_of(config), config.diffusion_steps

    def init(key: jax.Array, batch: Any) -> Params:
        one = jnp.ones((jnp.shape(batch.label)[0], 1))
        x, told = one * jnp.zeros(dim), one * jnp.zeros(classes)
        network = ScoreNetwork(dim, config.width)
        return network.init(key, x, one[:, 0], told, one)["params"]

    def loss(params: Params, key: jax.Array, batch: Any) -> Any:
        keys = jax.random.split(key, 4)
        x0 = clean(keys[0], batch)
        rows = x0.shape[0]
        # Each t is uniform; together they cover the levels evenly.
        t = 1 + jnp.floor(steps * low_discrepancy(keys[1], rows)).astype(jnp.int32)
        t = jnp.minimum(t, steps)  # the product may round up
        eps = jax.random.normal(keys[2], x0.shape)
        kept = jax.random.uniform(keys[3], (rows, 1)) >= config.label_drop
        told = jax.nn.one_hot(batch.label, classes) * kept
        guess = predict(config, params, ddpm.q_sample(plan, x0, t, eps), t, told)
        return jnp.mean((guess - eps) ** 2), {}

    return Objective(init, loss, take)


def check_sampling(config: Any, classes: int, options: GuidedSampling) -> None:
    """Refuses options that this model cannot honour.

    Raises:
      InputError: guidance without a label or without training for it; steps that the
        solver cannot take.
    """
    levels = config.diffusion_steps
    if options.guidance and not (classes and config.label_drop):
        raise InputError(
            f"guidance {options.guidance} needs a model trained on a cohort with a "
            f"label and label_drop above 0, got {classes} classes and label_drop "
            f"{config.label_drop}; use guidance 0."
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
    config: Any,
    dim: int,
    classes: int,
    options: GuidedSampling,
    params: Params,
    keys: jax.Array,
    label: jax.Array,
) -> jax.Array:
    """x0 [B, d] of patients with labels [B]; patient i from keys[i].

    Raises:
      InputError: see `check_sampling`.
    """
    check_sampling(config, classes, options)
    plan, each = plan_of(config), jax.vmap(jax.random.split)(keys)  # [B, 2]
    x = jax.vmap(lambda key: jax.random.normal(key, (dim,)))(each[:, 0])
    told = jax.nn.one_hot(label, classes)

    def at(t: jax.Array, x: jax.Array, told: jax.Array) -> jax.Array:
        return predict(config, params, x, t[None], told)

    def eps_fn(x: jax.Array, t: jax.Array) -> jax.Array:
        if not options.guidance:
            return at(t, x, told)
        both = doubled(functools.partial(at, t))
        with_label, without = both(x, told, jnp.zeros_like(told))
        return guide(with_label, without, options.guidance)

    if options.solver == "ddim":
        return ddpm.ddim(eps_fn, x, plan, options.steps or plan.num_steps)
    return ddpm.ddpm(eps_fn, ddpm.row_noise(each[:, 1], dim), x, plan)
