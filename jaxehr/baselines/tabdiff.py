"""TabDiff: diffusion of numbers and masking of codes, each column at its own pace.

[tabdiff2025]: at time t in [0, 1] the number i has noise of level sigma_i(t), a power
mean of shape rho_i (`diffusion.schedules`); the code j is masked with the chance of
exponent k_j (`diffusion.masked`); rho and k are learned with the network. The loss is

    mean lambda(sigma_i) (D_i - x_i)^2 + mean w_j(t) (-log p_j),

with the weights of [karras2022] and [sahoo2024]. Patients are drawn by the stochastic
sampler of [karras2022, Alg. 2], codes unmasked on the way; the label is a code. Who
lacks a modality is completed by neighbours.
"""

# Deviation: the step size falls with a plateau of the loss in the authors' trainer;
# here by `train.lr_schedule`.
# Deviation: logits have no entry for the mask; theirs is set to -1e6 before any use.
# Deviation: sums over time of a sparse table are numbers by their quantiles.

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxehr.baselines.forms import scores as forms
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.baselines.recipe import (
    ROWS,
    Recipe,
    Rows,
    Sampling,
    Task,
    build,
    one_stage,
    rows_form,
)
from jaxehr.baselines.tabdiff_parts import (
    Model,
    denoise,
    init,
    make_model,
    noise_at,
    solve,
)
from jaxehr.core.checks import InputError, known, positive
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params, Player
from jaxehr.diffusion import edm, masked
from jaxehr.training.config import TrainConfig
from jaxehr.training.turns import optimiser

PAIRS = 2**27  # of columns, of the patients who are drawn at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabdiffConfig:
    """Model and optimisation of TabDiff."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""
    schedule: Literal["learned", "fixed"] = "learned"
    """A noise schedule learned for each column, or the same for all."""
    sigma_min: float = 0.002
    """Smallest noise level of numbers."""
    sigma_max: float = 80.0
    """Largest noise level of numbers."""
    token: int = 4
    """Coordinates of a column's token."""
    num_layers: int = 2
    """Attention layers before, and behind, the dense network."""
    num_heads: int = 1
    """Attention heads; `token` is a multiple."""
    expansion: int = 32
    """Units of a token's dense layer, in units of `token`."""
    width: int = 1024
    """Units of the dense network of all tokens; its inner layers have twice as many."""
    anneal: bool = True
    """The loss of numbers fades to 0 over the training."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(chunk_rows=64)
    )
    """Optimisation."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)
        known("schedule", self.schedule, ("learned", "fixed"))
        positive(
            sigma_min=self.sigma_min,
            token=self.token,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            expansion=self.expansion,
            width=self.width,
        )
        if self.sigma_min >= self.sigma_max:
            raise InputError(
                f"sigma_min {self.sigma_min} must lie below sigma_max {self.sigma_max}."
            )
        if self.token % self.num_heads or self.width % 2:
            raise InputError(
                f"token {self.token} must be a multiple of num_heads {self.num_heads} "
                f"and width {self.width} even."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabdiffSampling(Sampling):
    """How patients are drawn."""

    steps: int = 50
    """Noise levels."""
    stochastic: bool = True
    """Add a little noise before every step."""
    second_order: bool = True
    """Correct every step of numbers by a second network call (Heun)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(steps=self.steps)


PRESETS: dict[str, dict[str, Any]] = {
    # tabdiff_configs.toml of the public code: 8,000 epochs, which are 48,000 steps of
    # the 20,920 patients of [cdmt2026].
    "authors": {
        "train": {"steps": 48_000, "batch_size": 4096, "ema_unit": "epoch"},
    },
    "small": {
        "num_layers": 1,
        "expansion": 8,
        "width": 512,
        "train": {
            "steps": 2000,
            "batch_size": 256,
            "chunk_rows": 64,
            "lr_schedule": "cosine",
        },
    },
}


def tabdiff(schema: Schema, config: TabdiffConfig | None = None) -> GenerativeModel:
    """TabDiff for cohorts of `schema`."""
    config = config or TabdiffConfig()
    recipe = Recipe("tabdiff", config, rows_form, learn, draw, one_stage, False)
    return build(schema, recipe._replace(sampling=TabdiffSampling))


def loss(
    model: Model,
    scores: Params,
    params: Params,
    key: jax.Array,
    batch: Batch,
    *,
    annealed: bool = False,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of the module docstring; `annealed` by the clock among `params`."""
    rows, (key_t, key_x, key_codes) = len(batch.label), jax.random.split(key, 3)
    t = jax.random.uniform(key_t, (rows,))
    noise = jax.vmap(lambda t: noise_at(model, params, t))(t)
    x0, codes = forms.numbers_of(scores, batch), model.groups.take(batch.codes)
    x = x0 + noise.sigma * jax.random.normal(key_x, x0.shape)
    learned, states = model.config.schedule == "learned", []
    k = model.exponents(params)
    for i, (part, (num, _)) in enumerate(zip(codes, model.groups.places)):
        states.append(
            masked.corrupt(
                jax.random.fold_in(key_codes, num),
                part,
                t[:, None],
                k[i],
                num_codes=num,
                learnable=learned,
            )
        )
    guess, logits = denoise(model, params, x, states, noise.sigma, t)
    square = edm.loss_weight(noise.sigma, 1.0) * (guess - x0) ** 2
    numeric = square.sum() / max(x0.size, 1)
    parts = [
        masked.loss(*leaf, t[:, None], k[i], learnable=learned)
        for i, leaf in enumerate(zip(logits, states, codes, strict=True))
    ]
    coded = sum(leaf.sum() for leaf in parts) / max(batch.codes.size, 1)
    weight = 1.0
    if annealed and model.config.anneal:
        weight = jnp.maximum(1.0 - jax.lax.stop_gradient(params["clock"]), 0.0)
    told = {"loss_numeric": numeric, "loss_coded": jnp.asarray(coded)}
    return weight * numeric + coded, told


def ticking(config: TrainConfig) -> optax.GradientTransformation:
    """The common optimiser; the clock goes from 0 to 1 over the training."""
    inner = optimiser(config, undecayed=("raw_rho", "raw_k", "clock"))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        found: Any = None
        found, state = inner.update(updates, state, params)
        tick = jnp.full_like(updates["clock"], 1.0 / config.steps)
        return {**found, "clock": tick}, state

    return optax.GradientTransformation(inner.init, update)


def learn(key: jax.Array, config: TabdiffConfig, task: Task) -> Params:
    """One training; validation weighs both kinds of columns alike at any time."""
    model, bound = make_model(task.layout, config), functools.partial
    scores = forms.fit_scores(task.form, task.layout, task.data)
    faded = bound(loss, model, scores, annealed=True)
    objective = Objective(
        bound(init, model, scores),
        bound(loss, model, scores),
        bound(task.form.take, task.layout),
        (Player("", faded, optimiser=ticking),),
    )
    run = task.stages.run
    trained = run("all", key, objective, task.data, config.train, valid=task.valid)
    params = {name: leaf for name, leaf in trained.params.items() if name != "clock"}
    return {"model": params, "scores": scores}


def draw(
    layout: Layout,
    config: TabdiffConfig,
    options: TabdiffSampling,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """See `tabdiff_parts.solve`; so many patients at once as attention has room for."""
    model, rows = make_model(layout, config), len(keys)
    params = {"raw_k": {}, **weights["model"]}
    columns = model.numbers + len(layout.cardinalities)
    room = 1 << max(PAIRS // max(columns, 1) ** 2, 1).bit_length() - 1
    size = math.gcd(rows, room)
    blocks = keys.reshape(rows // size, size)
    x, states = jax.lax.map(functools.partial(solve, model, params, options), blocks)
    x = x.reshape(rows, model.numbers)
    codes = [masked.codes_of(part).reshape(rows, -1) for part in states]
    codes = model.groups.together(codes, (rows,))
    return forms.rows_of(layout, weights.get("scores", {}), x, codes, label)
