"""Every choice of FLEXGEN-EHR; free of JAX so that the command line starts fast.

The paper contradicts itself and its public code (README, "Deviations"); the presets
`paper` and `authors` keep their choices in training. The authors sample with guidance
0.5 and decode mode, which no preset of a training can say.
"""

import dataclasses
from typing import Any, Literal, get_args

from jaxehr.core.checks import InputError, known, positive, within
from jaxehr.core.configs import replace
from jaxehr.core.labels import PATTERNS, Missing
from jaxehr.ot.config import AlignmentConfig
from jaxehr.training.config import TrainConfig

Encoder = Literal["sum", "cnn1d", "lstm"]
Betas = Literal["scaled", "paper", "code", "long"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlexgenConfig:
    """Model and optimisation of FLEXGEN-EHR [flexgen2024]."""

    encoder: Encoder = "lstm"
    """Temporal encoder: the mean over time and an MLP (the authors' code), three
    convolutions (the paper's B.1), or an LSTM (its Sec. 4.2)."""
    latent: int = 64
    """Coordinates of each modality's latent; 128 in the authors' code."""
    hidden: int = 256
    """Units of the dense layers."""
    hidden_sequence: int = 128
    """Units of the LSTM, and of the sequence decoder."""
    kl_weight: float = 1.0
    """Weight of the divergence in the bound of each patient; 1 = the bound itself."""
    kl_reduction: Literal["patient", "batch"] = "patient"
    """`batch` sums the divergence over the batch against a mean reconstruction, as in
    the authors' code; the posterior then collapses."""
    label_in_encoder: bool = False
    """Tell the encoders the label, as the authors' code does."""
    masks: bool = True
    """Model which values are missing; without it no synthetic value is."""
    integers: Literal["gaussian", "count"] = "gaussian"
    """Likelihood of integer columns: normal after a quantile transform, or negative
    binomial."""
    max_knots: int = 1000
    """Knots of the quantile transform of a numeric feature."""
    autoencoder_epochs: int = 100
    """Passes over the patients for each autoencoder."""
    autoencoder_learning_rate: float = 1e-3
    """Adam step size of the autoencoders."""
    betas: Betas = "scaled"
    """Noise schedule: scaled = paper x 1000 / steps; paper = 50 steps, 1e-4 to 1e-2;
    code = to 2e-2; long = 1000 steps, 1e-4 to 2e-2."""
    diffusion_steps: int = 50
    """Noise levels of the latent diffusion (1000 for `long`)."""
    whiten: bool = True
    """Whiten the fused latents before diffusion; inverted after sampling."""
    width: int = 512
    """Units of the score network."""
    last_activation: Literal["none", "gelu"] = "none"
    """`gelu` bounds predicted noise at -0.17, as in the authors' code."""
    label_drop: float = 0.1
    """Share of patients whose label is hidden in training, for guidance."""
    order: Literal["two-stage", "alternating"] = "two-stage"
    """Autoencoders first, then the diffusion; or Algorithm 1, in turns, where those who
    validate choose the average of the last one."""
    warmup_epochs: int = 20
    """Passes of the autoencoders before the first turn (alternating)."""
    turns: int = 10
    """Alignments of an alternating training."""
    decoder_weight: float = 0.1
    """Weight of the decoders' loss on denoised latents (alternating)."""
    alignment: AlignmentConfig = dataclasses.field(default_factory=AlignmentConfig)
    """Alignment of the two latent spaces."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            batch_size=128, chunk_rows=512, checkpoint_every=5000
        )
    )
    """Optimisation of the latent diffusion; its batch holds for autoencoders too."""

    def __post_init__(self) -> None:
        known("encoder", self.encoder, get_args(Encoder))
        known("kl_reduction", self.kl_reduction, ("patient", "batch"))
        known("integers", self.integers, ("gaussian", "count"))
        known("betas", self.betas, get_args(Betas))
        known("last_activation", self.last_activation, ("none", "gelu"))
        known("order", self.order, ("two-stage", "alternating"))
        positive(
            latent=self.latent,
            hidden=self.hidden,
            hidden_sequence=self.hidden_sequence,
            max_knots=self.max_knots,
            autoencoder_epochs=self.autoencoder_epochs,
            autoencoder_learning_rate=self.autoencoder_learning_rate,
            diffusion_steps=self.diffusion_steps,
            width=self.width,
            warmup_epochs=self.warmup_epochs,
            turns=self.turns,
        )
        within("kl_weight", self.kl_weight, 0.0, 1e6)
        within("label_drop", self.label_drop, 0.0, 0.99)
        within("decoder_weight", self.decoder_weight, 0.0, 1e6)
        if self.order == "alternating" and self.train.lr_schedule != "constant":
            # The count of the schedule goes on over the turns, its end is a turn's.
            raise InputError(
                f"order alternating needs lr_schedule constant, got "
                f"{self.train.lr_schedule}: after the first turn the rate would be 0. "
                "Use order two-stage."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlexgenSampling:
    """How patients are drawn from a trained model."""

    solver: Literal["ddpm", "ddim"] = "ddpm"
    """Ancestral sampling (the authors' code), or the deterministic DDIM (App. A)."""
    steps: int = 0
    """Network calls of ddim; 0 = one for each noise level. ddpm takes every level."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance; 0.5 in the authors' code, 0 = none."""
    missing: Missing = "as-training"
    """Which patients lack a modality: as often as in training; no one; all lack the
    static part; all lack the temporal part."""
    decode: Literal["sample", "mode"] = "sample"
    """Draw values from the decoder's likelihoods, or take the most probable (the
    authors' threshold at 0.5)."""

    def __post_init__(self) -> None:
        known("solver", self.solver, ("ddpm", "ddim"))
        known("missing", self.missing, PATTERNS)
        known("decode", self.decode, ("sample", "mode"))
        within("steps", self.steps, 0, 1000)
        within("guidance", self.guidance, -1.0, 100.0)


PRESETS: dict[str, dict[str, Any]] = {
    # What the text says: B.1, Sec. 5.1; T = 50 with 1e-4 to 1e-2, signed cosine.
    "paper": {
        "encoder": "cnn1d",
        "betas": "paper",
        "whiten": False,
        "order": "alternating",
        "alignment": {
            "method": "signed",
            "imputation": "linear",
            "by_class": False,
            "fallback": False,
        },
    },
    # What the public code does, where it does something.
    "authors": {
        "encoder": "sum",
        "latent": 128,
        "kl_weight": 1.0,
        "kl_reduction": "batch",
        "label_in_encoder": True,
        "betas": "code",
        "whiten": False,
        "last_activation": "gelu",
        "alignment": {"method": "complete"},
        "autoencoder_epochs": 70,
        "train": {
            "batch_size": 512,
            "learning_rate": 1e-4,
            "lr_schedule": "linear",
            "ema_decay": 0.0,
            "chunk_rows": 512,
        },
    },
    "small": {
        "latent": 16,
        "hidden": 64,
        "hidden_sequence": 32,
        "width": 128,
        "autoencoder_epochs": 60,
        "train": {"steps": 2000, "batch_size": 128, "chunk_rows": 128},
    },
}


def preset(name: str) -> FlexgenConfig:
    """The configuration called `name`."""
    known("preset", name, PRESETS)
    return replace(FlexgenConfig(), PRESETS[name])
