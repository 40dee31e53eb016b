"""Latent diffusion of one row a patient [ldm2022]: FLEXGEN-EHR without its two halves.

One autoencoder of the whole row, then a diffusion of its latents, told the label:

    1. -E_q[log p(x | z, y)] + kl_weight KL(q(z | x, y) || N(0, I)),  kl_weight 1e-6
    2. E |eps - eps_hat(z_t, t, y)|^2 of z / std(z)

with the likelihoods of `vae` and the noise network of `guided`, which is FLEXGEN's. No
second encoder and no optimal transport: patients who lack a modality are completed by
their neighbours.
"""

# Deviation: [ldm2022] autoencodes images by convolutions and tells the class by cross
# attention. A row has no neighbourhood: both networks are dense layers here, and the
# label is told as in FLEXGEN-EHR, which the paper's comparison asks for.
# Deviation: the public code divides latents by the deviation of the first batch; here
# it is that of all training patients.

import dataclasses
import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.baselines import guided, vae
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.baselines.guided import Betas, GuidedSampling
from jaxehr.baselines.recipe import ROWS, Recipe, Rows, Task, build, rows_form
from jaxehr.baselines.vae import VaeConfig
from jaxehr.core.blocks import blocks_of
from jaxehr.core.checks import known, positive, within
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params
from jaxehr.diffusion.whitening import Whitening, colour, fit_whitening, whiten
from jaxehr.nn.likelihoods import raw_sigma
from jaxehr.training.config import TrainConfig
from jaxehr.training.sharding import computed_once

Scale = Literal["std", "whiten"]
BLOCK = 256  # patients encoded at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class LdmConfig:
    """Model and optimisation of the latent diffusion."""

    rows: Rows = "auto"
    """One column a step (`flat`), or sums over time (`sums`, of binary columns); `auto`
    takes sums of a sparse table."""
    latent: int = 256
    """Coordinates of the latent."""
    hidden: int = 256
    """Units of each dense layer of the autoencoder."""
    num_layers: int = 2
    """Dense layers of the encoder, and of the decoder."""
    kl_weight: float = 1e-6
    """Weight of the divergence; the value of the public code."""
    autoencoder_epochs: int = 100
    """Passes over the patients for the autoencoder."""
    autoencoder_learning_rate: float = 1e-3
    """Adam step size of the autoencoder."""
    scale: Scale = "std"
    """Latents of the diffusion: divided by one deviation (the public code), or white
    (as in FLEXGEN-EHR)."""
    betas: Betas = "scaled"
    """Noise schedule: scaled = paper x 1000 / steps, FLEXGEN's; paper = 1e-4 to 1e-2;
    code = to 2e-2; sqrt = 0.0015 to 0.0195, roots on a line (the public code). With
    few levels only scaled ends in noise alone, from which samples start."""
    diffusion_steps: int = 50
    """Noise levels; 1000 in the public code, which all but scaled need."""
    width: int = 512
    """Units of the noise network."""
    label_drop: float = 0.1
    """Share of patients whose label is hidden in training, for guidance."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            batch_size=128, chunk_rows=512, checkpoint_every=5000
        )
    )
    """Optimisation of the diffusion; its batch holds for the autoencoder too."""

    def __post_init__(self) -> None:
        known("rows", self.rows, ROWS)
        known("scale", self.scale, get_args(Scale))
        positive(
            latent=self.latent,
            hidden=self.hidden,
            num_layers=self.num_layers,
            autoencoder_epochs=self.autoencoder_epochs,
            autoencoder_learning_rate=self.autoencoder_learning_rate,
        )
        within("kl_weight", self.kl_weight, 0.0, 1e6)
        guided.check_config(self)


PRESETS: dict[str, dict[str, Any]] = {
    # The schedule of [ldm2022]; sample with --solver ddim --steps 50.
    "authors": {"betas": "sqrt", "diffusion_steps": 1000},
    "small": {
        "latent": 32,
        "hidden": 128,
        "width": 256,
        "autoencoder_epochs": 150,
        "train": {"steps": 3000, "lr_schedule": "cosine", "ema_decay": 0.99},
    },
}


class Latents(NamedTuple):
    """The data of the diffusion."""

    label: Any  # int32 [N]
    mean: Any  # float32 [N, l] of q
    std: Any


def ldm(schema: Schema, config: LdmConfig | None = None) -> GenerativeModel:
    """The latent diffusion for cohorts of `schema`."""
    config = config or LdmConfig()
    recipe = Recipe(
        "ldm", config, rows_form, learn, draw, plan, sampling=GuidedSampling
    )
    return build(schema, recipe)


def plan(config: LdmConfig, patients: int) -> dict[str, int]:
    """Steps of both stages."""
    per_epoch = max(patients // autoencoder_batch(config, patients), 1)
    epochs = config.autoencoder_epochs
    return {"autoencoder": epochs * per_epoch, "diffusion": config.train.steps}


def autoencoder_batch(config: LdmConfig, patients: int) -> int:
    """The batch of the diffusion, or an eighth of a small cohort."""
    return max(min(config.train.batch_size, max(patients // 8, 16), patients), 1)


def coder_of(config: LdmConfig) -> VaeConfig:
    """The autoencoder, as one of `vae`."""
    return VaeConfig(
        hidden=config.hidden,
        num_layers=config.num_layers,
        latent=config.latent,
        kl_weight=config.kl_weight,
    )


def coder_train(config: LdmConfig, patients: int, steps: int) -> TrainConfig:
    """Optimisation of the autoencoder; its limits are the diffusion's."""
    return dataclasses.replace(
        config.train,
        batch_size=autoencoder_batch(config, patients),
        learning_rate=config.autoencoder_learning_rate,
        chunk_rows=min(config.train.chunk_rows, 128),
        eval_every=max(steps // 40, 1),
        valid_draws=1,
    )


def learn(key: jax.Array, config: LdmConfig, task: Task) -> Params:
    """The autoencoder, then the diffusion of its latents."""
    key_rows, key_latents = jax.random.split(key)
    coder, layout = coder_of(config), task.layout
    run, bound = task.stages.run, functools.partial
    guided.announce_signal(config, task.stages)
    rows = Objective(
        bound(vae.init, layout, coder, task.fitted),
        bound(vae.loss, layout, coder),
        bound(task.form.take, layout),
    )
    steps = task.stages.plan["autoencoder"]
    train = coder_train(config, len(task.data.label), steps)
    trained = run("autoencoder", key_rows, rows, task.data, train, valid=task.valid)
    weights = jax.tree.map(np.asarray, trained.params)
    found, error = encode_all(coder, task, weights, task.data)
    weights["sigma"] = np.asarray(raw_sigma(jnp.asarray(error)))
    judged = None
    if task.valid is not None:
        judged, _ = encode_all(coder, task, weights, task.valid)
    scaling = scaling_of(config, found)
    latents = guided.objective(
        config, config.latent, layout.classes, bound(clean, scaling), take
    )
    trained = run("diffusion", key_latents, latents, found, config.train, valid=judged)
    return {
        "autoencoder": weights,
        "scaling": scaling._asdict(),
        "network": trained.params,
    }


@computed_once
def encode_all(
    coder: VaeConfig, task: Task, weights: Params, data: Any
) -> tuple[Latents, np.ndarray]:
    """What the encoder says of every patient, and the error [P] of the numbers.

    The error is the root mean square of what the decoder makes of the means of q, which
    is the likeliest deviation. The loss moves that deviation too, but in the few steps
    of an autoencoder no further than some tenths from its start at 1.
    """

    def run(weights: Params, data: Any, rows: jax.Array) -> Any:
        batch = task.form.take(task.layout, data, rows)
        mean, std = vae.encode(task.layout, coder, weights, batch)
        outputs = vae.decode(task.layout, coder, weights, mean, batch.label)
        return mean, std, outputs[:, : task.layout.numbers] - batch.numeric

    compiled, blocks = jax.jit(run), []
    weights, data = jax.device_put((weights, data))
    for rows, kept in blocks_of(len(data.label), BLOCK):
        leaves = compiled(weights, data, rows)
        blocks.append([np.asarray(leaf)[kept] for leaf in leaves])
    mean, std, off = (np.concatenate(leaves) for leaves in zip(*blocks, strict=True))
    error = np.sqrt(np.mean(off**2, 0))
    return Latents(np.asarray(data.label), mean, std), error


def scaling_of(config: LdmConfig, found: Latents) -> Whitening:
    """How latents become the data of the diffusion.

    `std`: z / s with s^2 the variance of all coordinates of all draws of q, about one
    mean, and no shift. `whiten`: mean 0 and covariance I of the means.
    """
    if config.scale == "whiten":
        return fit_whitening(found.mean)
    variance = found.mean.var(dtype=np.float64) + np.mean(found.std**2)
    one = np.eye(config.latent, dtype=np.float32)
    scale = np.float32(max(np.sqrt(variance), 1e-6))
    return Whitening(np.zeros(config.latent, np.float32), one / scale, one * scale)


def clean(scaling: Whitening, key: jax.Array, batch: Latents) -> jax.Array:
    """Scaled draws [B, l] of q."""
    noise = jax.random.normal(key, batch.mean.shape)
    return whiten(scaling, batch.mean + batch.std * noise)


def take(data: Latents, rows: jax.Array) -> Latents:
    """The patients `rows` [B]."""
    return Latents(*(jnp.asarray(leaf)[rows] for leaf in data))


def draw(
    layout: Layout,
    config: LdmConfig,
    options: GuidedSampling,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """Latents by the diffusion, then rows by the decoder."""
    each = jax.vmap(functools.partial(jax.random.split, num=3))(keys)
    inputs = (options, weights["network"], each[:, 0], label)
    x = guided.draw(config, config.latent, layout.classes, *inputs)
    z = colour(Whitening(**weights["scaling"]), x)
    mode, part = options.decode == "mode", weights["autoencoder"]
    inputs = (part, each[:, 1:], z, label)
    return vae.draw_rows(layout, coder_of(config), *inputs, mode=mode)
