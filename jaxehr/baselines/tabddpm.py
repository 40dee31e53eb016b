"""TabDDPM: Gaussian and multinomial diffusion of one row a patient [kotelnikov2023].

Numbers x, normal scores, and codes c wander for T steps on one schedule,

    q(x_t | x_0) = N(sqrt(abar_t) x_0, 1 - abar_t),
    q(c_t | c_0) = abar_t c_0 + (1 - abar_t) / K,

and one network, told t and the label y, predicts the noise of x and the chances of c_0.
With t uniform in 1 ... T,

    loss = mean |eps - eps_hat|^2 + mean over codes of the bound on -log p(c_0),

see `diffusion.multinomial`; patients are drawn by T ancestral steps. Patients who lack
a modality are completed by their neighbours.
"""

# Deviation: the authors tune layers, T and step size for each data set by the utility
# of the samples; here they are fields, and those published are presets.
# Deviation: the network sees one-hot codes, not their logarithms (`Groups.one_hot`).
# Deviation: the clean numbers that a step predicts are bounded (`clip`). At t = T an
# error of the noise is multiplied by 1 / sqrt(alpha_T) = 32, and nothing brings a row
# back that the network has never seen: with 44 numbers of 1,499 ICU stays and the
# preset `small` their standard deviation came to 80 - 290 instead of 1.
# Deviation: the sum is as wide as the row (`embedding`). The authors' tables have at
# most some dozen columns. The noise of 24 hours x 7 numbers does not pass through 128
# coordinates: with them R^2 was below 0 on 4,000 ICU stays.
# Deviation: a column that repeats one value is spread over its quantile levels
# (`data.transforms`) where scikit-learn puts all of it on one point.
# Deviation: sums over time of a sparse table are numbers by their quantiles; the
# authors have no such columns, [flexgen2024] fed them so.

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxehr.baselines.forms import scores as forms
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.baselines.recipe import (
    ROWS,
    Recipe,
    Rows,
    Task,
    build,
    one_stage,
    rows_form,
)
from jaxehr.core.checks import InputError, known, positive, within
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params
from jaxehr.diffusion import ddpm
from jaxehr.diffusion.multinomial import Groups
from jaxehr.nn.tabular import RowDenoiser
from jaxehr.training.config import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabddpmConfig:
    """Model and optimisation of TabDDPM."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""
    num_steps: int = 1000
    """T, noise levels; each is one network call of the sampler."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Share of the signal over the noise levels."""
    clip: float = 5.0
    """Bound, in standard deviations, on the clean numbers that a step of the sampler
    predicts; 0 = none, as the authors."""
    embedding: int = 0
    """Coordinates of the noise level, the label and the row where they are summed; 0 =
    128 (the authors), or more where a row has more columns."""
    num_layers: int = 4
    """Hidden layers."""
    first: int = 512
    """Units of the first hidden layer."""
    middle: int = 1024
    """Units of the hidden layers between the first and the last."""
    last: int = 512
    """Units of the last hidden layer, if there are two or more."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(lr_schedule="linear", ema_decay=0.0)
    )
    """Optimisation; the authors keep no average of the weights."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)
        known("schedule", self.schedule, ("cosine", "linear"))
        within("clip", self.clip, 0.0, 1e6)
        positive(
            num_steps=self.num_steps,
            num_layers=self.num_layers,
            first=self.first,
            middle=self.middle,
            last=self.last,
        )
        if self.embedding % 2 or self.embedding < 0:
            raise InputError(
                f"embedding must be even and not negative, got {self.embedding}."
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of every hidden layer."""
        inner = (self.middle,) * (self.num_layers - 2)
        return (self.first, *inner, self.last)[: self.num_layers]


def published(steps: int, **fields: Any) -> dict[str, Any]:
    """Fields of the authors' trainings."""
    train = {"steps": 30_000, "batch_size": 4096, "lr_schedule": "linear"}
    rate = {"learning_rate": fields.pop("learning_rate"), "ema_decay": 0.0}
    return {"num_steps": steps, "embedding": 128, **fields, "train": train | rate}


PRESETS: dict[str, dict[str, Any]] = {
    # exp/adult/ddpm_cb_best, exp/adult/ddpm_mlp_best and exp/churn2/ddpm_cb_best of the
    # public code, tuned for a boosted tree and for a dense network.
    "adult": published(
        100, num_layers=6, first=256, last=256, learning_rate=0.00200994
    ),
    "adult-mlp": published(
        1000, num_layers=2, first=1024, last=512, learning_rate=0.00180982
    ),
    "churn": published(
        100, num_layers=6, first=512, last=512, learning_rate=0.000805709
    ),
    # configs/tabddpm/default_class.yaml of [mueller2025]: as large as CDTD.
    "cdtd": published(
        200,
        embedding=256,
        num_layers=5,
        first=798,
        middle=798,
        last=798,
        learning_rate=1e-3,
    ),
    "small": {
        "num_steps": 100,
        "num_layers": 2,
        "first": 512,
        "last": 512,
        "train": {"steps": 4000, "batch_size": 256, "lr_schedule": "linear"},
    },
}


def tabddpm(schema: Schema, config: TabddpmConfig | None = None) -> GenerativeModel:
    """TabDDPM for cohorts of `schema`."""
    config = config or TabddpmConfig()
    return build(schema, Recipe("tabddpm", config, rows_form, learn, draw, one_stage))


class Model(NamedTuple):
    """The fixed parts of one model."""

    layout: Layout
    config: TabddpmConfig
    plan: ddpm.Schedule
    groups: Groups
    numbers: int  # P + S


def make_model(layout: Layout, config: TabddpmConfig) -> Model:
    """What the layout and the configuration say together."""
    plan = ddpm.schedule(ddpm.clean_betas(config.schedule, config.num_steps))
    groups = Groups(layout.cardinalities)
    return Model(layout, config, plan, groups, layout.numbers + layout.sums)


def network(model: Model) -> RowDenoiser:
    """[B, numbers + W] -> noise of the numbers and logits of the codes, as wide."""
    config = model.config
    width = model.numbers + model.groups.width
    columns = model.numbers + len(model.layout.cardinalities)
    size = config.embedding or max(128, -(-columns // 128) * 128)
    return RowDenoiser(config.widths, size, width)


def inputs(model: Model, x: jax.Array, codes: jax.Array) -> jax.Array:
    """What the network sees: numbers and one-hot codes."""
    return jnp.concatenate([x, model.groups.one_hot(codes)], -1)


def predict(
    model: Model,
    params: Params,
    x: jax.Array,
    codes: jax.Array,
    t: jax.Array,
    label: Any,
) -> tuple[jax.Array, jax.Array]:
    """Noise of the numbers [B, P + S] and logits [B, W] of clean codes; t Int [B]."""
    told = jax.nn.one_hot(jnp.asarray(label), model.layout.classes)
    # The public code counts its levels from 0.
    level = (t - 1).astype(jnp.float32)
    out = network(model).apply({"params": params}, inputs(model, x, codes), level, told)
    eps, logits = jnp.split(jnp.asarray(out), [model.numbers], axis=-1)
    return eps, logits


def init(model: Model, scores: Params, key: jax.Array, batch: Batch) -> Params:
    """Random weights."""
    x = inputs(model, forms.numbers_of(scores, batch), batch.codes)
    told = jax.nn.one_hot(jnp.asarray(batch.label), model.layout.classes)
    return network(model).init(key, x, jnp.zeros(len(x)), told)["params"]


def loss(
    model: Model, scores: Params, params: Params, key: jax.Array, batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of the module docstring, averaged over rows."""
    key_t, key_eps, key_codes = jax.random.split(key, 3)
    codes, x0 = jnp.asarray(batch.codes), forms.numbers_of(scores, batch)
    plan, groups, rows = model.plan, model.groups, len(x0)
    t = jax.random.randint(key_t, (rows,), 1, plan.num_steps + 1)
    eps = jax.random.normal(key_eps, x0.shape)
    x = ddpm.q_sample(plan, x0, t, eps)
    noisy = groups.corrupt(key_codes, plan, codes, t)
    eps_hat, logits = predict(model, params, x, noisy, t, batch.label)
    bound = groups.bound(plan, logits, codes, noisy, t)
    gaussian = jnp.sum((eps - eps_hat) ** 2) / max(x0.size, 1)
    multinomial = jnp.sum(bound) / max(codes.size, 1)
    told = {"loss_numeric": gaussian, "loss_coded": multinomial}
    return gaussian + multinomial, told


def bounded(
    plan: ddpm.Schedule, x: jax.Array, t: jax.Array, eps: jax.Array, most: float
) -> jax.Array:
    """The predicted noise whose clean row stays within +- `most`; t Int [B]."""
    signal, noise = ddpm.scales(plan, t)
    clean = jnp.clip(ddpm.clean_of(plan, x, t, eps), -most, most)
    return (x - signal * clean) / noise


def learn(key: jax.Array, config: TabddpmConfig, task: Task) -> Params:
    """One training."""
    model = make_model(task.layout, config)
    scores = forms.fit_scores(task.form, task.layout, task.data)
    bound = functools.partial
    objective = Objective(
        bound(init, model, scores),
        bound(loss, model, scores),
        bound(task.form.take, task.layout),
    )
    run = task.stages.run
    trained = run("all", key, objective, task.data, config.train, valid=task.valid)
    return {"network": trained.params, "scores": scores}


def draw(
    layout: Layout,
    config: TabddpmConfig,
    options: Any,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """T ancestral steps from noise; `mode` takes the last step of codes without it."""
    model, rows = make_model(layout, config), len(keys)
    plan, groups = model.plan, model.groups
    noise = jax.vmap(lambda key: jax.random.normal(key, (model.numbers,)))
    # Of the start, and of the steps.
    first, second, each = jax.vmap(lambda key: jax.random.split(key, 3))(keys).T

    def step(state: Any, t: jax.Array, mode: bool = False) -> tuple[Any, None]:
        x, codes = state
        at = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, t)))(each)
        level = jnp.full((rows,), t)
        eps, logits = predict(model, weights["network"], x, codes, level, label)
        if config.clip:
            eps = bounded(plan, x, level, eps, config.clip)
        x = ddpm.ancestral(plan, x, t, eps, noise(at[:, 0]))
        one = lambda key, logits, codes: groups.reverse(
            key, plan, logits, codes, t, mode=mode
        )
        return (x, jax.vmap(one)(at[:, 1], logits, codes)), None

    state = noise(first), jax.vmap(groups.start)(second)
    state = jax.lax.scan(step, state, jnp.arange(plan.num_steps, 1, -1))[0]
    (x, codes), _ = step(state, jnp.int32(1), options.decode == "mode")
    return forms.rows_of(layout, weights.get("scores", {}), x, codes, label)
