"""Every choice of CDMT-EHR; free of JAX so that the command line starts fast.

Numbers that the paper's text lost are fields, with the recommendation of public code as
default (README, "Deviations").
"""

import dataclasses
from typing import Any, Literal, get_args

from jaxehr.core.checks import InputError, known, positive, within
from jaxehr.core.configs import replace
from jaxehr.training.config import TrainConfig

Mode = Literal["conditional", "unconditional"]
Solver = Literal["auto", "euler", "heun", "dpmpp-2m", "adams-3"]

RHO_CAP = 50.0  # see `diffusion.schedules.rho_of`
RHO_MOST = 40.0  # of a start; the soft cap changes it by less than 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class CdmtConfig:
    """Model and optimisation of CDMT-EHR [cdmt2026]."""

    mode: Mode = "conditional"
    """`conditional`: the label steers by classifier-free guidance; `unconditional`: it
    is one more diffused feature, decided by a vote over time."""
    categorical: Literal["embedding", "mask"] = "embedding"
    """Continuous embeddings (the paper), or mask diffusion (its "Ours-Mask")."""
    schedule: Literal["learned", "fixed"] = "learned"
    """Noise schedule learned per feature and time step, or fixed at its start value."""
    masks: bool = True
    """Model which values are missing; without it no synthetic value is."""
    hidden: int = 64
    """GRU units per direction."""
    num_layers: int = 3
    """Bidirectional GRU layers."""
    gru: Literal["auto", "blocked", "recomputed", "plain", "kernel"] = "auto"
    """How they run; `auto` is `kernel` (one GPU kernel for the loop over time) on a GPU
    (of NVIDIA since Ampere, compute capability 8.0; at most 64 units) and `blocked`
    elsewhere; `recomputed` takes less memory and more time."""
    unroll: int = 1
    """Time steps in one turn of their loop (not of `kernel`)."""
    products: Literal["float32", "bfloat16"] = "float32"
    """Rounds the factors of the GRU's products: faster where the processor multiplies
    bfloat16 (AMX, GPU, TPU)."""
    embedding_dim: int = 16
    """Coordinates of a category's embedding."""
    embedding_bias: bool = False
    """Learn a bias per feature before normalising (CDTD)."""
    sigma_min: float = 0.002
    """Smallest noise level."""
    sigma_max: float = 80.0
    """Largest noise level of numeric features."""
    sigma_max_embedding: float = 100.0
    """Largest noise level of embeddings."""
    sigma_data: float = 1.0
    """Standard deviation that preconditioning and loss assume of clean data. Encoded
    numbers have variance 1 and embeddings RMS 1 whatever it is: keep 1, or the loss
    weighs noise levels unevenly and a learned rho climbs to its cap."""
    rho: float = 7.0
    """Start shape of the power-mean schedule of numeric features."""
    rho_embedding: float = 11.0
    """Start shape of the power-mean schedule of embeddings; the paper's is lost."""
    rho_floor: float = 5.0
    """A learned rho stays above this [tabdiff2025]. Deviation: the paper names none.
    Without it, columns that others predict drift to rho = 1, where 50 steps fail."""
    rho_kind: Literal["softplus", "additive_clamped"] = "softplus"
    """How rho = global + feature + step is kept valid; both are capped at 50."""
    weight_numeric: float = 1.0
    """Weight of the denoising loss of numeric features."""
    weight_categorical: float = 1.0
    """Weight of the cross-entropy of categorical features."""
    weight_static: float = 1.0
    """Weight of the static features' loss (ours; the paper has none)."""
    categorical_norm: Literal["none", "entropy", "log_k"] = "none"
    """Divide each feature's cross-entropy by its marginal entropy, or by log K."""
    label_drop: float = 0.1
    """Share of patients whose label is hidden in training, for guidance."""
    time_input: Literal["t", "c_noise"] = "t"
    """What the network is told of the noise: t, or ln(sigma)/4 of a fixed schedule."""
    noise_at: Literal["output", "both"] = "both"
    """Where: after the GRU (the paper), or also as an input of it (ours)."""
    prior: Literal["normal", "independent"] = "normal"
    """What series are before the network has learned. `normal` (ours): normal scores
    with their covariance over columns and steps and means by class; what is missing is
    latents of the same law, one for columns that are measured together, and series go
    on behind a patient's end. `independent` (the paper): independent scores, gaps
    filled by the last value, a code a column that says what is missing."""
    max_knots: int = 1000
    """Knots of the quantile transform of a numeric feature."""
    train: TrainConfig = dataclasses.field(
        # What is kept of a layer of 32 patients x 25 steps fits into 2 MiB of cache.
        default_factory=lambda: TrainConfig(chunk_rows=32)
    )
    """Optimisation."""

    def __post_init__(self) -> None:
        positive(
            unroll=self.unroll,
            hidden=self.hidden,
            num_layers=self.num_layers,
            embedding_dim=self.embedding_dim,
            sigma_min=self.sigma_min,
            sigma_data=self.sigma_data,
            rho=self.rho,
            rho_embedding=self.rho_embedding,
            rho_floor=self.rho_floor,
            max_knots=self.max_knots,
        )
        known("mode", self.mode, ("conditional", "unconditional"))
        known("categorical", self.categorical, ("embedding", "mask"))
        known("schedule", self.schedule, ("learned", "fixed"))
        known("categorical_norm", self.categorical_norm, ("none", "entropy", "log_k"))
        known("time_input", self.time_input, ("t", "c_noise"))
        known("noise_at", self.noise_at, ("output", "both"))
        known("prior", self.prior, ("normal", "independent"))
        known("rho_kind", self.rho_kind, ("softplus", "additive_clamped"))
        known("gru", self.gru, ("auto", "blocked", "recomputed", "plain", "kernel"))
        known("products", self.products, ("float32", "bfloat16"))
        within("label_drop", self.label_drop, 0.0, 0.99)
        if self.embedding_bias and self.categorical == "mask":
            raise InputError("embedding_bias is one of embeddings; mask has none.")
        if self.sigma_min >= min(self.sigma_max, self.sigma_max_embedding):
            raise InputError(
                f"sigma_min {self.sigma_min} must lie below sigma_max {self.sigma_max} "
                f"and sigma_max_embedding {self.sigma_max_embedding}."
            )
        if min(self.rho, self.rho_embedding) <= self.rho_floor:
            raise InputError(
                f"rho and rho_embedding must exceed rho_floor {self.rho_floor}; got "
                f"{self.rho} and {self.rho_embedding}."
            )
        if max(self.rho, self.rho_embedding) > RHO_MOST:
            raise InputError(
                f"rho and rho_embedding must be at most {RHO_MOST}, or their soft cap "
                f"at {RHO_CAP} changes them; got {self.rho} and {self.rho_embedding}."
            )
        for name in ("weight_numeric", "weight_categorical", "weight_static"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CdmtSampling:
    """How patients are drawn from a trained model."""

    steps: int = 50
    """Noise levels; a network call for each, with Heun two but for the last."""
    solver: Solver = "auto"
    """First order (`euler`, the paper); second order (`heun`; `dpmpp-2m`, DPM-Solver++
    2M); third order (`adams-3`, exponential). `auto` is dpmpp-2m, as many network calls
    as euler and nearer the limit of many; mask diffusion has euler only."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance for numeric features; 0 = none."""
    guidance_categorical: float | None = None
    """The same for categorical features and for what is missing; by default equal to
    `guidance`."""
    decode: Literal["nearest", "argmax"] = "nearest"
    """Category of a sampled embedding: the nearest one, or the most probable one."""
    products: Literal["as-trained", "float32", "bfloat16"] = "as-trained"
    """Factors of the GRU's products; see the option of training."""

    def __post_init__(self) -> None:
        positive(steps=self.steps)
        known("solver", self.solver, get_args(Solver))
        known("decode", self.decode, ("nearest", "argmax"))
        known("products", self.products, ("as-trained", "float32", "bfloat16"))
        for weight in (self.guidance, self.guidance_categorical or 0.0):
            if not -1.0 <= weight < float("inf"):
                raise InputError(
                    f"guidance must be at least -1 (no label at all), got {weight}."
                )


# Without what is ours in the denoiser.
PAPER: dict[str, Any] = {"prior": "independent", "noise_at": "output"}
PRESETS: dict[str, dict[str, Any]] = {
    # Table 1 and Sec. 4.4: 8,000 epochs of 6 and of 12 batches.
    "paper-mimic3": PAPER | {"train": {"steps": 48_000, "batch_size": 4096}},
    "paper-eicu": PAPER | {"train": {"steps": 96_000, "batch_size": 4096}},
    "small": {
        "hidden": 32,
        "num_layers": 2,
        "embedding_dim": 4,  # most codes have two categories; 16 cost twice the time
        "train": {
            "steps": 2000,
            "batch_size": 256,
            "learning_rate": 3e-3,
            "lr_schedule": "cosine",
            "eval_every": 200,
            "checkpoint_every": 500,
        },
    },
}


def preset(name: str) -> CdmtConfig:
    """The configuration called `name`."""
    known("preset", name, PRESETS)
    return replace(CdmtConfig(), PRESETS[name])
