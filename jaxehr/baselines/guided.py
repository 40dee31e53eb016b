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
import numpy as np

from jaxehr.baselines.recipe import Sampling
from jaxehr.core.checks import known, positive, within
from jaxehr.core.contracts import Objective, Params
from jaxehr.diffusion import ddpm, vectors
from jaxehr.nn.score import ScoreNetwork
from jaxehr.training.stages import Stages

Betas = Literal["scaled", "paper", "code", "sqrt"]
Solver = Literal["ddpm", "ddim"]
MOST_LEFT = 0.1  # sqrt(abar_T) that does no harm


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
    within("label_drop", config.label_drop, 0.0, 0.99)


def plan_of(config: Any) -> ddpm.Schedule:
    """The noise schedule."""
    steps = config.diffusion_steps
    if config.betas == "sqrt":
        return ddpm.schedule(ddpm.sqrt_betas(steps))
    return ddpm.schedule(ddpm.betas(config.betas, steps))


def announce_signal(config: Any, stages: Stages) -> None:
    """Says how much of the data is left at the last level, if that is too much."""
    levels = config.diffusion_steps
    left = float(np.sqrt(plan_of(config).alpha_bar[levels]))
    if stages.announce and left > MOST_LEFT:
        stages.announce(
            f"noise: betas {config.betas} with {levels} levels leave {left:.2f} of the "
            "data at the last one, and sampling starts from noise alone: patients will "
            "not have the law of training, however good the network; take --betas "
            "scaled, or more --diffusion-steps."
        )


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
    plan = plan_of(config)

    def init(key: jax.Array, batch: Any) -> Params:
        one = jnp.ones((jnp.shape(batch.label)[0], 1))
        x, told = one * jnp.zeros(dim), one * jnp.zeros(classes)
        network = ScoreNetwork(dim, config.width)
        return network.init(key, x, one[:, 0], told, one)["params"]

    def loss(params: Params, key: jax.Array, batch: Any) -> Any:
        keys, told = jax.random.split(key, 4), jax.nn.one_hot(batch.label, classes)
        guess, x0 = functools.partial(predict, config, params), clean(keys[0], batch)
        drop = config.label_drop
        return vectors.noise_loss(plan, guess, keys[1:], x0, told, drop), {}

    return Objective(init, loss, take)


def check_sampling(config: Any, classes: int, options: GuidedSampling) -> None:
    """Refuses options that this model cannot honour; see `vectors.check_options`."""
    vectors.check_options(config.diffusion_steps, classes, config.label_drop, options)


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
    told = jax.nn.one_hot(label, classes)
    guess = functools.partial(predict, config, params)
    return vectors.draw(plan_of(config), guess, options, keys, told, dim)
