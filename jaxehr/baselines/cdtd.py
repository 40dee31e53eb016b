"""CDTD: continuous diffusion of numbers and of embedded codes [mueller2025].

Every number x and embedding z of a code gets noise of a level sigma that grows with one
time u of the patient; one network predicts clean numbers D(x) and the chances p_k of
the codes, whose score is that of sum_k p_k e_k. With s = sigma / sigma_max in (0, 1),

    loss of a number = lambda(sigma) (D(x) - x0)^2,
    loss of a code = -log p / H,  H the entropy of its frequencies,

their mean divided by what it is expected to be at u, which a small network learns. Each
type of column has its levels s(u), fitted to its measured loss (`timewarp`). Patients
are drawn along the ODE of all columns; who lacks a modality is completed by neighbours.
"""

# Deviation: the authors give the label as a column; here it is told, so that patients
# of one label can be drawn; `--label column` is theirs.
# Deviation: a validation loss chooses the average that is kept; it is not divided by
# its expectation, which would make it 1 at any time.
# Deviation: times u are spread evenly over a chunk of a batch, not over the batch.
# Deviation: the state of the sampler is single precision, and sums over time of a
# sparse table are numbers by their quantiles.

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.baselines.cdtd_parts import (
    Model,
    State,
    clean,
    denoise,
    entropies,
    expected,
    init,
    levels,
    make_model,
    tables_of,
)
from jaxehr.baselines.forms import scores as forms
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.baselines.recipe import (
    ROWS,
    Drawing,
    Recipe,
    Rows,
    Task,
    build,
    one_stage,
    rows_form,
)
from jaxehr.core.checks import InputError, known, positive
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params, Player
from jaxehr.diffusion import edm, embeddings, timewarp
from jaxehr.diffusion.samplers import Level, euler
from jaxehr.training.config import TrainConfig
from jaxehr.training.turns import optimiser


@dataclasses.dataclass(frozen=True, kw_only=True)
class CdtdConfig:
    """Model and optimisation of CDTD."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""
    label: Literal["condition", "column"] = "condition"
    """The label is told, or it is one more code."""
    schedule: Literal["single", "type", "feature"] = "type"
    """One adaptive noise schedule; one for numbers, one for codes; one each."""
    low_noise: float = 3.0
    """Weight of levels below the middle against those above, at the start."""
    embedding_dim: int = 16
    """Coordinates of a category's embedding."""
    sigma_max: float = 80.0
    """Largest noise level of numbers."""
    sigma_max_embedding: float = 100.0
    """Largest noise level of embeddings."""
    embedding: int = 256
    """Coordinates of the noise level, the label and the row where they are summed."""
    num_layers: int = 5
    """Hidden layers."""
    hidden: int = 796
    """Units of each hidden layer."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(lr_schedule="linear", ema_decay=0.999)
    )
    """Optimisation."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)
        known("label", self.label, ("condition", "column"))
        known("schedule", self.schedule, ("single", "type", "feature"))
        positive(
            low_noise=self.low_noise,
            embedding_dim=self.embedding_dim,
            sigma_max=self.sigma_max,
            sigma_max_embedding=self.sigma_max_embedding,
            embedding=self.embedding,
            num_layers=self.num_layers,
            hidden=self.hidden,
        )
        if self.embedding % 2:
            raise InputError(f"embedding must be even, got {self.embedding}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CdtdSampling(Drawing):
    """How patients are drawn by the ODE."""

    steps: int = 200
    """Euler steps; one network call each, and one more for the codes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(steps=self.steps)


PRESETS: dict[str, dict[str, Any]] = {
    # configs/cdtd/default_bytype.yaml of the public code.
    "authors": {
        "label": "column",
        "train": {
            "steps": 30_000,
            "batch_size": 4096,
            "lr_schedule": "linear",
            "warmup_steps": 1000,
        },
    },
    "small": {
        "embedding_dim": 2,
        "low_noise": 30.0,
        "embedding": 128,
        "num_layers": 3,
        "hidden": 256,
        "train": {
            "steps": 3000,
            "batch_size": 256,
            "lr_schedule": "linear",
            "warmup_steps": 100,
            "ema_decay": 0.997,
        },
    },
}


def cdtd(schema: Schema, config: CdtdConfig | None = None) -> GenerativeModel:
    """CDTD for cohorts of `schema`."""
    config = config or CdtdConfig()
    told = config.label == "condition"
    recipe = Recipe("cdtd", config, rows_form, learn, draw, one_stage, told)
    return build(schema, recipe._replace(sampling=CdtdSampling))


class Losses(NamedTuple):
    """Losses of each column [B, numbers + Q], and where they were measured."""

    plain: jax.Array  # without lambda, over the entropy
    weighted: jax.Array  # with lambda
    s: jax.Array  # [B, schedules]
    u: jax.Array  # [B]


def measure(
    model: Model,
    scores: Params,
    entropy: np.ndarray,
    params: Params,
    key: jax.Array,
    batch: Batch,
) -> Losses:
    """The losses of the module docstring at one time for each patient."""
    rows, (key_u, key_x, key_z) = len(batch.label), jax.random.split(key, 3)
    u = edm.low_discrepancy(key_u, rows)
    s = jax.lax.stop_gradient(timewarp.quantile(params["warp"], u))
    sigma, x0 = levels(model, s), clean(model, params, scores, batch)
    noisy = lambda key, x, sigma: x + sigma * jax.random.normal(key, x.shape)
    x = State(
        noisy(key_x, x0.numeric, sigma.numeric), noisy(key_z, x0.coded, sigma.coded)
    )
    told = jax.nn.one_hot(jnp.asarray(batch.label), model.layout.classes)
    guess, logits = denoise(model, params, x, sigma, u, told)
    square = (guess - x0.numeric) ** 2
    pairs = zip(model.groups.split(logits), model.groups.take(batch.codes), strict=True)
    coded = [embeddings.cross_entropy(part, codes) for part, codes in pairs]
    coded = jnp.concatenate([jnp.zeros((rows, 0)), *coded], -1) / entropy
    # 1e-7 [public code]: at u = 0 sigma is 0, and so is the error.
    weight = (sigma.numeric**2 + 1.0) / (sigma.numeric**2 + 1e-7)
    return Losses(
        jnp.concatenate([square, coded], -1),
        jnp.concatenate([weight * square, coded], -1),
        s,
        u,
    )


def by_schedule(model: Model, each: jax.Array) -> jax.Array:
    """Mean loss [B, schedules] of the columns that share a schedule."""
    if model.config.schedule == "feature":
        return each
    count = np.bincount(model.place)
    ends = np.cumsum(count)[:-1]
    parts = jnp.split(each, ends, axis=-1)  # columns of a schedule stand together
    return jnp.stack([part.mean(-1) for part in parts], -1)


def training_loss(
    model: Model, measured: Any, params: Params, key: jax.Array, batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Denoising loss over its expectation, and the fits of schedules and expectation.

    Gradients of the three do not mix: what one learns, the others take as given.
    """
    found = measured(params, key, batch)
    log_mean = expected(params["expected"], found.u)
    mean = found.weighted.mean(-1)
    denoising = jnp.mean(mean * jnp.exp(-jax.lax.stop_gradient(log_mean)))
    fit = jnp.mean((jnp.exp(log_mean) - jax.lax.stop_gradient(mean)) ** 2)
    warped = timewarp.fit_loss(
        params["warp"], found.s, by_schedule(model, found.plain)
    ).mean()
    told = {"loss_denoising": denoising, "loss_schedule": warped, "loss_expected": fit}
    return denoising + warped + fit, told


def validation_loss(
    measured: Any, params: Params, key: jax.Array, batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted loss as it is."""
    return measured(params, key, batch).weighted.mean(), {}


def learn(key: jax.Array, config: CdtdConfig, task: Task) -> Params:
    """One training."""
    model, bound = make_model(task.layout, config), functools.partial
    scores = forms.fit_scores(task.form, task.layout, task.data)
    entropy = entropies(model, task.fitted["frequency"])
    measured = bound(measure, model, scores, entropy)
    # A schedule, and embeddings, which are normalised.
    optimise = bound(optimiser, b2=0.99, undecayed=("warp", "tables"))
    player = Player("", bound(training_loss, model, measured), optimiser=optimise)
    objective = Objective(
        bound(init, model, scores, task.fitted),
        bound(validation_loss, measured),
        bound(task.form.take, task.layout),
        (player,),
    )
    run = task.stages.run
    trained = run("all", key, objective, task.data, config.train, valid=task.valid)
    return {"model": trained.params, "scores": scores}


def draw(
    layout: Layout,
    config: CdtdConfig,
    options: CdtdSampling,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """Euler steps from u = 1 to 0; codes by one more call at the last level."""
    model, rows = make_model(layout, config), len(keys)
    params = {"tables": {}, "biases": {}, **weights["model"]}
    told, tables = jax.nn.one_hot(label, layout.classes), tables_of(model, params)
    shape = (model.codes, config.embedding_dim)

    def start(key: jax.Array) -> State:
        key_x, key_z = jax.random.split(key)
        normal = jax.random.normal
        return State(normal(key_x, (model.numbers,)), normal(key_z, shape))

    def call(x: State, level: Level) -> tuple[jax.Array, list[jax.Array]]:
        u = jnp.full((rows,), level.t)
        guess, logits = denoise(model, params, x, level.sigma, u, told)
        return guess, model.groups.split(logits)

    def towards(x: State, level: Level) -> State:
        guess, logits = call(x, level)
        found = [embeddings.expected(e, part) for e, part in zip(tables, logits)]
        return State(guess, jnp.concatenate([x.coded[:, :0], *found], 1))

    u = jnp.linspace(1.0, 0.0, options.steps + 1)
    sigmas = levels(model, timewarp.quantile(params["warp"], u))
    first = jax.tree.map(lambda leaf: leaf[0], sigmas)
    x = jax.tree.map(jnp.multiply, jax.vmap(start)(keys), first)
    x = euler(towards, x, u[:-1], sigmas)
    last = Level(u[-2], jax.tree.map(lambda leaf: leaf[-2], sigmas))
    codes = [jnp.argmax(part, -1) for part in call(x, last)[1]]
    codes = model.groups.together(codes, (rows,))
    return forms.rows_of(layout, weights.get("scores", {}), x.numeric, codes, label)
