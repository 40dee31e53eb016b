"""Gaussian diffusion of one row a patient, numbers and codes alike [meddiff2023].

A row is the matrix of `forms.matrix`: normal scores, and every share, bit and one-hot
code c as 2c - 1 in [-1, 1]. Noise is added to and predicted of all columns as in
`guided`; DDIM [song2021] draws a row in few calls, with classifier-free guidance. A
bit of a drawn row is its sign, a category its largest value.
"""

# Deviation: [meddiff2023] has no public code, and its text was not at hand: only what
# [flexgen2024] says of it (Gaussian noise on a count matrix, class-conditional) and the
# `run_meddiff` of that paper's code, which trains FLEXGEN's network by classifier-free
# guidance with 1,000 levels. So the network is FLEXGEN's instead of a U-Net, guidance
# needs no classifier, and what speeds up sampling is DDIM alone.
# Deviation: it makes counts only. Here numbers are normal scores, which have the scale
# that the noise expects; `--numbers unit` puts their quantile levels into [-1, 1] too.

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxehr.baselines import guided
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.baselines.guided import Betas, GuidedSampling, Solver
from jaxehr.baselines.recipe import (
    ROWS,
    Recipe,
    Rows,
    Task,
    build,
    one_stage,
    rows_form,
)
from jaxehr.core.checks import known
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Params
from jaxehr.training.config import TrainConfig

Numbers = Literal["normal", "unit"]
STEPS = 50  # of ddim, unless fewer levels or others are asked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeddiffConfig:
    """Model and optimisation of MedDiff."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""
    numbers: Numbers = "normal"
    """Numbers as normal scores, or as quantile levels in [-1, 1]."""
    betas: Betas = "code"
    """Noise schedule: code = 1e-4 to 2e-2; paper = to 1e-2; scaled = paper x 1000 /
    steps; sqrt = 0.0015 to 0.0195, square roots on a line. With few levels only scaled
    ends in noise alone, from which samples start."""
    diffusion_steps: int = 1000
    """Noise levels; all schedules but scaled need about 1000."""
    width: int = 512
    """Units of the noise network."""
    label_drop: float = 0.1
    """Share of patients whose label is hidden in training, for guidance."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            batch_size=128, chunk_rows=512, checkpoint_every=5000
        )
    )
    """Optimisation."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)
        known("numbers", self.numbers, get_args(Numbers))
        guided.check_config(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeddiffSampling(GuidedSampling):
    """How patients are drawn from MedDiff; codes have no chances, `decode` says no more
    than how sums are dealt out."""

    solver: Solver = "ddim"
    """Ancestral sampling, or the deterministic DDIM."""
    steps: int = 0
    """Network calls of ddim; 0 = 50, or as many as there are noise levels if these are
    fewer. ddpm takes every level."""


PRESETS: dict[str, dict[str, Any]] = {
    # run_meddiff of the code of [flexgen2024].
    "flexgen": {
        "numbers": "unit",
        "train": {"batch_size": 512, "learning_rate": 1e-4},
    },
    "small": {
        "width": 256,
        "train": {"steps": 4000, "lr_schedule": "cosine", "ema_decay": 0.99},
    },
}


def meddiff(schema: Schema, config: MeddiffConfig | None = None) -> GenerativeModel:
    """MedDiff for cohorts of `schema`."""
    config = config or MeddiffConfig()
    recipe = Recipe(
        "meddiff", config, rows_form, learn, draw, one_stage, sampling=MeddiffSampling
    )
    return build(schema, recipe)


def signed(layout: Layout, config: MeddiffConfig, batch: Batch) -> jax.Array:
    """x0 [B, width] of a batch."""
    unit = config.numbers == "unit"
    x = matrix.matrix_of(layout, batch, unit=unit)
    return stretched(layout, unit, x, 2.0, -1.0)


def stretched(
    layout: Layout, unit: bool, x: jax.Array, scale: float, shift: float
) -> jax.Array:
    """scale x + shift of all columns but normal scores."""
    first = 0 if unit else layout.numbers
    return jnp.concatenate([x[:, :first], scale * x[:, first:] + shift], -1)


def learn(key: jax.Array, config: MeddiffConfig, task: Task) -> Params:
    """One training."""
    layout = task.layout
    guided.announce_signal(config, task.stages)
    clean = lambda key, batch: signed(layout, config, batch)
    take = functools.partial(task.form.take, layout)
    objective = guided.objective(config, layout.width, layout.classes, clean, take)
    run = task.stages.run
    trained = run("all", key, objective, task.data, config.train, valid=task.valid)
    return trained.params


def settled(config: MeddiffConfig, options: MeddiffSampling) -> MeddiffSampling:
    """The options with the number of steps filled in; 0 of ddpm are all levels."""
    if options.steps or options.solver == "ddpm":
        return options
    return dataclasses.replace(options, steps=min(STEPS, config.diffusion_steps))


def draw(
    layout: Layout,
    config: MeddiffConfig,
    options: MeddiffSampling,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """Rows by the diffusion, then codes by sign and largest value."""
    unit = config.numbers == "unit"
    inputs = (layout.classes, settled(config, options), weights, keys, label)
    x = guided.draw(config, layout.width, *inputs)
    rows = stretched(layout, unit, x, 0.5, 0.5)
    return matrix.batch_of(layout, keys, rows, label, mode=True, unit=unit)
