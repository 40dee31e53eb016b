"""EHR-M-GAN: numbers and codes as two coupled series [li2023].

Stage 1 trains a recurrent autoencoder of each branch x in [0, 1]^(T x W). Both share
layers, and their latents of one patient are drawn together:

    L_V = E_c + E_d + kl_weight (KL_c + 0.1 KL_d) + matching |z_c - z_d|^2
          + contrast NT-Xent(z_c, z_d) + semantics CE(label | z_c, z_d).

Stage 2 plays rounds of three: discriminators of the series (one a branch), generators
of latents that read each other, decoded by the autoencoders, and the autoencoders.

    L_G = -log D(dec(G(n))) of both branches + features (gap_c + gap_d),

the gaps between moments of made and real patients: of what the discriminator of the
numbers computes, and of the codes themselves. n is uniform on [0, 1]. Discriminators
are trained to soft, noisy labels. The label is told to generators and autoencoders.

B patients, T steps, W columns of a branch, K classes, l latent coordinates.
"""

# Deviation: the authors have vital signs and interventions, no static columns. Those
# are in the branch of their kind, the same at every step; where every temporal column
# is a code, the temporal columns are the one branch and the static ones the other.
# Deviation: the authors' KL puts deviations where variances belong; `--kl published`.
# Deviation: the authors average errors over steps and columns, and sum the divergence
# over them, so that nothing is worth encoding. Here errors are a likelihood, summed
# alike (a deviation of 0.1 for a number); `--reconstruction mean` is theirs.
# Deviation: the latents of their generators end in a sigmoid, those of their encoders
# do not: here neither does; `--latents sigmoid` is theirs.
# Deviation: in a round theirs move one branch after the other, each by its own loss and
# on the same batch; here both at once, by the sum, each turn on another batch.

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.baselines import ehrmgan_players as play
from jaxehr.baselines.adversarial import WHOLE, passes, prepared
from jaxehr.baselines.ehrmgan_losses import Divergence
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.layout import Batch, Form, Layout
from jaxehr.baselines.forms.series import SERIES
from jaxehr.baselines.recipe import Recipe, Task, build
from jaxehr.core.checks import known, positive, within
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params
from jaxehr.training.config import TrainConfig

Split = Literal["auto", "kinds", "parts"]
Reconstruction = Literal["likelihood", "mean"]
Latents = Literal["linear", "sigmoid"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EhrmganConfig:
    """Model and optimisation of EHR-M-GAN; defaults are the authors' unless noted."""

    conditional: bool = True
    """The label is told; otherwise it is one of the codes."""
    branches: Split = "auto"
    """What the branches are: numbers and codes (`kinds`), or temporal and static
    columns (`parts`); `auto` takes parts where the temporal table is sparse, or where
    there are no numbers (ours)."""
    hidden: int = 128
    """Units of the LSTMs of the autoencoders."""
    generator: int = 512
    """Units of the generators' bilateral LSTMs."""
    discriminator: int = 256
    """Units of the discriminators' LSTMs."""
    num_layers: int = 3
    """LSTM layers of each network; at least 2."""
    latent: int = 25
    """Latent coordinates of a step and branch."""
    latents: Latents = "linear"
    """Outputs of the generators: as they are (ours), or in (0, 1) as the authors'."""
    dropout: float = 0.2
    """Share of an LSTM's outputs that are set to 0 in training."""
    projection: int = 256
    """Inputs wider than this pass a dense layer of this width first (ours)."""
    kl: Divergence = "corrected"
    """The divergence: of normals (ours), or the formula of the authors' code."""
    reconstruction: Reconstruction = "likelihood"
    """Errors summed over steps and columns as -log p (ours), or their mean."""
    deviation: float = 0.1
    """Of a number given its latent, in quantile levels; with `likelihood` (ours)."""
    kl_weight: float = 0.5
    """Weight of the divergence."""
    matching: float = 0.1
    """Weight of the distance of both branches' latents."""
    contrast: float = 0.1
    """Weight of telling a patient's latents from other patients'."""
    semantics: float = 1.0
    """Weight of reading the label off the latents, where it is told."""
    features: float = 20.0
    """Weight of the gaps between moments of made and real patients."""
    discriminator_updates: int = 1
    """Updates of the discriminators in a round."""
    generator_updates: int = 3
    """Updates of the generators in a round."""
    autoencoder_updates: int = 1
    """Updates of the autoencoders in a round."""
    autoencoder_epochs: int = 500
    """Passes over the patients of the first stage."""
    autoencoder_learning_rate: float = 5e-4
    """Adam step size of the first stage."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-4, chunk_rows=WHOLE, ema_decay=0.99
        )
    )
    """Optimisation of the second stage. Both are on one device, since moments and
    contrasts are those of a batch; with chunks below the batch, those of a chunk."""

    def __post_init__(self) -> None:
        known("branches", self.branches, get_args(Split))
        known("latents", self.latents, get_args(Latents))
        known("kl", self.kl, get_args(Divergence))
        known("reconstruction", self.reconstruction, get_args(Reconstruction))
        names = ("hidden", "generator", "discriminator", "latent", "deviation")
        names += ("projection", "autoencoder_epochs", "autoencoder_learning_rate")
        names += ("discriminator_updates", "generator_updates", "autoencoder_updates")
        positive(**{name: getattr(self, name) for name in names})
        within("dropout", self.dropout, 0.0, 0.99)
        within("num_layers", self.num_layers, 2, 9)
        for name in ("kl_weight", "matching", "contrast", "semantics", "features"):
            within(name, getattr(self, name), 0.0, 1e6)


PRESETS: dict[str, dict[str, Any]] = {
    # [li2023], main_train.py; 800 epochs after 500 of the autoencoders.
    "authors": {
        "kl": "published",
        "reconstruction": "mean",
        "latents": "sigmoid",
        "train": {"batch_size": 256, "ema_decay": 0.0},
    },
    "small": {
        "hidden": 48,
        "generator": 64,
        "discriminator": 48,
        "num_layers": 2,
        "latent": 12,
        "autoencoder_epochs": 40,
        "autoencoder_learning_rate": 3e-3,
        "train": {"steps": 800, "batch_size": 64, "learning_rate": 1e-3},
    },
}


def ehrmgan(schema: Schema, config: EhrmganConfig | None = None) -> GenerativeModel:
    """EHR-M-GAN for cohorts of `schema`."""
    config = config or EhrmganConfig()
    recipe = Recipe(
        "ehrmgan", config, form, learn, draw, plan, conditional=config.conditional
    )
    return build(schema, recipe)


def form(config: EhrmganConfig, is_sparse: bool) -> Form:
    """Series."""
    del config, is_sparse
    return SERIES


def plan(config: EhrmganConfig, patients: int) -> dict[str, int]:
    """Both stages."""
    batch = config.train.batch_size
    first = passes(config.autoencoder_epochs, batch, patients)
    return {"autoencoder": first, "gan": config.train.steps}


def autoencoders(layout: Any, config: EhrmganConfig, places: Any) -> Objective:
    """The first stage, whose losses have moments of the batch."""
    bound = functools.partial
    return Objective(
        bound(play.init_autoencoders, layout, config, places),
        bound(play.autoencoding, layout, config, places),
        whole=True,
    )


def learn(key: jax.Array, config: EhrmganConfig, task: Task) -> Params:
    """Autoencoders, then rounds of the three players."""
    keys, layout, run = jax.random.split(key, 3), task.layout, task.stages.run
    bound, places = functools.partial, play.branches_of(layout, config)
    take = bound(task.form.take, layout)
    first = autoencoders(layout, config, places)._replace(take=take)
    rate = config.autoencoder_learning_rate
    settings = dataclasses.replace(config.train, learning_rate=rate)
    done = run("autoencoder", keys[0], first, task.data, settings, valid=task.valid)
    objective = play.players(layout, config, places)._replace(take=take)
    start = prepared(objective, config.train, keys[1], done.params)
    # No validation: the loss of a player says nothing of how good the patients are.
    done = run("gan", keys[2], objective, task.data, config.train, start=start)
    return {name: done.params[name] for name in ("autoencoder", "generators")}


def draw(
    layout: Layout,
    config: EhrmganConfig,
    options: Any,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Batch:
    """Series of uniform noise, given the label if it is told.

    A code that lasts is drawn once, by the mean of its chances over the steps.
    """
    places = play.branches_of(layout, config)
    pairs = jax.vmap(jax.random.split)(keys)
    noise = play.rows_of_noise(layout, places, pairs[:, 0])
    made = play.made_of(config, weights, noise, play.told_of(layout, label))
    rows = jnp.zeros((*made[0].shape[:2], layout.width))
    for place, series in zip(places, made, strict=True):
        rows = rows.at[..., place].set(series)
    lasts = play.lasting(layout)
    fixed = play.columns_of(layout, np.zeros(layout.numbers, bool), lasts)
    rows = jnp.where(fixed, rows.mean(1, keepdims=True), rows)
    mode = options.decode == "mode"
    drawn = matrix.batch_of(layout, pairs[:, 1], rows, label, mode=mode, unit=True)
    return drawn._replace(codes=jnp.where(lasts, drawn.codes[:, :1], drawn.codes))
