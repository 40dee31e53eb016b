"""TimeDiff: noise on the numbers and multinomial noise on the codes of a series.

One network sees both at every step of T noise levels [timediff2023]:

    loss = E |eps - eps_hat|^2 / (L P) + loss_lambda E[bound of the codes] / Q

with the bound of `diffusion.multinomial`, in nats, summed over the L steps and Q codes
of a patient. A bidirectional GRU (or a transformer), a layer normalisation, modulation
by the noise level, and one linear layer give eps_hat and the logits of x_0.
Sampling takes all T steps. The label and the masks are codes of every step.

Notation: B patients, L steps, P numbers, Q codes, W the sum of their categories.
"""

# Deviation: the public code fills gaps with means and scales numbers by their least and
# largest value to [-1, 1]; here gaps are filled as in all baselines, and numbers are
# normal scores (`--numbers unit`: quantile levels in [-1, 1]). Estimates of x_0 are cut
# to the range of training instead of [-1, 1].
# Deviation: it shows codes to the network as log one-hot, 0 and -69, which saturates a
# GRU at its start; here as one-hot (`--codes-as log`).
# Deviation: its Adam forgets squares at 0.99 a step, ours at 0.999; the levels of a
# batch are spread evenly, each uniform by itself.
# Deviation: the transformer is not in the public code; it is three pre-norm layers of
# four heads between the same ends.

import dataclasses
import functools
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxehr.baselines.forms.layout import Batch, Form, Layout
from jaxehr.baselines.forms.matrix import EDGE
from jaxehr.baselines.forms.series import SERIES
from jaxehr.baselines.recipe import Recipe, Task, build, one_stage
from jaxehr.core.checks import InputError, known, positive, within
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params
from jaxehr.diffusion import ddpm
from jaxehr.diffusion.edm import low_discrepancy
from jaxehr.diffusion.multinomial import LOG_ZERO, Groups
from jaxehr.nn.gru import BiGru
from jaxehr.nn.time import Film, TimeEmbedding
from jaxehr.nn.transformer import TransformerEncoder
from jaxehr.training.config import TrainConfig

Backbone = Literal["gru", "transformer"]
Numbers = Literal["normal", "unit"]
CodesAs = Literal["one-hot", "log"]
WIDEST = 256  # units of one direction, if chosen for the columns
HEADS = 4  # of the transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimediffConfig:
    """Model and optimisation of TimeDiff."""

    backbone: Backbone = "gru"
    """A bidirectional GRU (the public code), or a transformer of the same width."""
    hidden: int = 0
    """Units of one direction; 0 = four for each number and category, at most 256."""
    num_layers: int = 3
    """Layers of the backbone."""
    numbers: Numbers = "normal"
    """Numbers as normal scores, or as quantile levels in [-1, 1]."""
    codes_as: CodesAs = "one-hot"
    """What the network sees of noisy codes; `log` of one-hot is the public code's."""
    diffusion_steps: int = 1000
    """Noise levels, of the cosine schedule; sampling takes them all."""
    loss_lambda: float = 0.8
    """Weight of the codes."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(clip_norm=1.0, ema_decay=0.995)
    )
    """Optimisation."""

    def __post_init__(self) -> None:
        known("backbone", self.backbone, get_args(Backbone))
        known("numbers", self.numbers, get_args(Numbers))
        known("codes_as", self.codes_as, get_args(CodesAs))
        within("hidden", self.hidden, 0, 100_000)
        if self.backbone == "transformer" and self.hidden % 2:
            raise InputError(
                f"hidden {self.hidden} must be even: the transformer's {HEADS} heads "
                "share twice as many units."
            )
        positive(num_layers=self.num_layers, diffusion_steps=self.diffusion_steps)
        within("loss_lambda", self.loss_lambda, 0.0, 1e6)


AUTHORS = {
    "numbers": "unit",
    "codes_as": "log",
    # Two batches of 32 for one step of the optimiser. Their average moves by 0.995 once
    # in ten steps.
    "train": {
        "steps": 700_000,
        "batch_size": 64,
        "chunk_rows": 32,
        "learning_rate": 8e-5,
        "ema_decay": 0.9995,
    },
}
PRESETS: dict[str, dict[str, Any]] = {
    "authors": AUTHORS,
    "authors-eicu": {**AUTHORS, "hidden": 256},
    "small": {
        "hidden": 48,
        "num_layers": 2,
        "diffusion_steps": 100,
        "train": {"steps": 3000, "batch_size": 64, "lr_schedule": "cosine"},
    },
}


class Model(NamedTuple):
    """What the functions below need; hashable."""

    config: TimediffConfig
    numbers: int  # P
    codes: Groups
    steps: int  # L

    @property
    def plan(self) -> ddpm.Schedule:
        return ddpm.schedule(ddpm.clean_betas("cosine", self.config.diffusion_steps))

    @property
    def hidden(self) -> int:
        """Units of one direction."""
        return self.config.hidden or min(4 * (self.numbers + self.codes.width), WIDEST)


class Denoiser(nn.Module):
    """x [B, L, P + W] and t [B] in [0, 1) -> eps_hat and logits [B, L, P + W]."""

    backbone: str
    hidden: int
    num_layers: int

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        if self.backbone == "gru":
            h = BiGru(self.hidden, self.num_layers, name="backbone")(x)
            h = nn.LayerNorm(name="norm")(h)
        else:  # ends in a layer normalisation itself
            width = 2 * self.hidden
            encoder = TransformerEncoder(width, HEADS, self.num_layers, name="backbone")
            h = encoder(x)
        h = Film(name="film")(h, TimeEmbedding(name="time")(t))
        return nn.Dense(x.shape[-1], name="output")(h)


def timediff(schema: Schema, config: TimediffConfig | None = None) -> GenerativeModel:
    """TimeDiff for cohorts of `schema`."""
    config = config or TimediffConfig()
    recipe = Recipe(
        "timediff", config, series_form, learn, draw, one_stage, conditional=False
    )
    return build(schema, recipe)


def series_form(config: TimediffConfig, is_sparse: bool) -> Form:
    """Series, whatever the table."""
    del config, is_sparse
    return SERIES


def model_of(layout: Layout, config: TimediffConfig) -> Model:
    """The model of a cohort."""
    return Model(config, layout.numbers, Groups(layout.cardinalities), layout.steps)


def predict(
    model: Model, params: Params, x: jax.Array, codes: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """eps_hat [B, L, P] and logits of x_0 [B, L, W] of noisy series at t, Int [B]."""
    seen = model.codes.one_hot(codes)
    if model.config.codes_as == "log":
        seen = (1.0 - seen) * LOG_ZERO
    network = Denoiser(model.config.backbone, model.hidden, model.config.num_layers)
    level = (t - 1) / model.config.diffusion_steps
    inputs = (jnp.concatenate([x, seen], -1), level)
    out = jnp.asarray(network.apply({"params": params}, *inputs))
    return out[..., : model.numbers], out[..., model.numbers :]


def numbers_of(model: Model, numeric: jax.Array) -> jax.Array:
    """x_0 of normal scores."""
    numeric = jnp.asarray(numeric)
    return 2.0 * ndtr(numeric) - 1.0 if model.config.numbers == "unit" else numeric


def scores_of(model: Model, x: jax.Array) -> jax.Array:
    """The inverse of `numbers_of`."""
    if model.config.numbers == "normal":
        return x
    return ndtri(jnp.clip(0.5 * (x + 1.0), EDGE, 1.0 - EDGE))


def init(model: Model, key: jax.Array, batch: Batch) -> Params:
    """Random weights."""
    rows = jnp.shape(batch.codes)[0]
    network = Denoiser(model.config.backbone, model.hidden, model.config.num_layers)
    x = jnp.zeros((rows, model.steps, model.numbers + model.codes.width))
    return network.init(key, x, jnp.zeros(rows))["params"]


def loss(
    model: Model, params: Params, key: jax.Array, batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of the module docstring, averaged over rows."""
    keys, plan = jax.random.split(key, 3), model.plan
    codes = jnp.asarray(batch.codes, jnp.int32)
    x0, rows = numbers_of(model, batch.numeric), codes.shape[0]
    level = jnp.floor(plan.num_steps * low_discrepancy(keys[0], rows))
    t = jnp.minimum(1 + level.astype(jnp.int32), plan.num_steps)  # may round up
    eps = jax.random.normal(keys[1], x0.shape)
    signal, noise = (scale[..., None] for scale in ddpm.scales(plan, t))
    noisy = model.codes.corrupt(keys[2], plan, codes, t)
    guess, logits = predict(model, params, signal * x0 + noise * eps, noisy, t)
    normal = jnp.sum((eps - guess) ** 2) / max(eps.size, 1)
    bound = model.codes.bound(plan, logits, codes, noisy, t)  # [B, L, Q]
    multinomial = bound.sum() / (rows * max(codes.shape[-1], 1))
    total = normal + model.config.loss_lambda * multinomial
    return total, {"normal": normal, "multinomial": multinomial}


def learn(key: jax.Array, config: TimediffConfig, task: Task) -> Params:
    """One training; `low` and `high` are the ends [P] of the numbers of training."""
    model, bound = model_of(task.layout, config), functools.partial
    objective = Objective(
        bound(init, model), bound(loss, model), bound(task.form.take, task.layout)
    )
    run = task.stages.run
    trained = run("all", key, objective, task.data, config.train, valid=task.valid)
    numeric = np.asarray(task.data.batch.numeric)
    ends = np.stack([numeric.min((0, 1)), numeric.max((0, 1))])
    low, high = np.asarray(numbers_of(model, jnp.asarray(ends)))
    return {"network": trained.params, "low": low, "high": high}


def draw(
    layout: Layout,
    config: TimediffConfig,
    options: Any,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """Ancestral sampling from noise, all levels."""
    model, rows = model_of(layout, config), keys.shape[0]
    plan, shape = model.plan, (model.steps, model.numbers)
    each = jax.vmap(functools.partial(jax.random.split, num=4))(keys)
    at = lambda place, t: jax.vmap(jax.random.fold_in, (0, None))(each[:, place], t)
    normals = jax.vmap(lambda key: jax.random.normal(key, shape))
    start = jax.vmap(lambda key: model.codes.start(key, (model.steps,)))

    def step(state: Any, t: jax.Array) -> tuple[Any, None]:
        x, codes = state
        eps, logits = predict(
            model, weights["network"], x, codes, jnp.broadcast_to(t, rows)
        )
        signal, noise = ddpm.scales(plan, t[None])
        x0 = jnp.clip((x - noise * eps) / signal, weights["low"], weights["high"])
        x = ddpm.posterior(plan, x0, x, t, normals(at(2, t)))
        reverse = lambda mode: jax.vmap(
            lambda key, logits, codes: model.codes.reverse(
                key, plan, logits, codes, t, mode=mode
            )
        )(at(3, t), logits, codes)
        fresh = reverse(False)
        if options.decode == "mode":  # the last step has the most probable codes
            fresh = jnp.where(t == 1, reverse(True), fresh)
        return (x, fresh), None

    levels = jnp.arange(plan.num_steps, 0, -1, dtype=jnp.int32)
    state = (normals(each[:, 0]), start(each[:, 1]))
    (x, codes), _ = jax.lax.scan(step, state, levels)
    none = jnp.zeros((rows, model.steps, 0))
    label = jnp.asarray(label, jnp.int32)
    return Batch(label, jnp.zeros_like(label), scores_of(model, x), codes, none)
