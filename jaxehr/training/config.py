"""Optimisation of one stage; free of JAX so that the command line starts fast."""

import dataclasses
from typing import Literal

from jaxehr.core.checks import InputError, known, positive, within


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation of one stage; defaults are [cdmt2026, Sec. 4.4] unless noted."""

    steps: int = 0
    """Optimiser steps; 0 = chosen for the cohort and the machine."""
    batch_size: int = 0
    """Patients in one optimiser step; 0 = chosen for the cohort and the machine."""
    chunk_rows: int = 128
    """Patients whose gradient is computed at once on a CPU, so that a network stays
    in its cache; an accelerator takes 64 times as many. A batch sums chunks (ours)."""
    learning_rate: float = 1e-3
    """Adam step size."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Step size over time; `cosine` falls to zero at the last step (ours), `linear`
    likewise on a straight line."""
    warmup_steps: int = 0
    """Steps over which the step size rises from zero, at most half of all (ours)."""
    clip_norm: float = 0.0
    """Global gradient norm above which gradients shrink; 0 = off, as in the paper."""
    weight_decay: float = 0.0
    """Decoupled weight decay; 0 = Adam, as in the paper."""
    ema_decay: float = 0.997
    """Decay of the moving average of the parameters, which is what is kept."""
    ema_unit: Literal["step", "epoch"] = "step"
    """When the average moves: each step, or once an epoch (TabDiff's trainer)."""
    eval_every: int = 500
    """Steps between two validation losses, at most a tenth of all; the best average
    so far is kept."""
    valid_draws: int = 4
    """Fixed noise draws per validation patient."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; a multiple of `eval_every` is not needed."""
    keep: int = 2
    """Checkpoints kept on disk."""
    max_minutes: float = 0.0
    """Training ends after this time even if steps are left; 0 = no limit."""

    def __post_init__(self) -> None:
        positive(
            chunk_rows=self.chunk_rows,
            learning_rate=self.learning_rate,
            eval_every=self.eval_every,
            valid_draws=self.valid_draws,
            checkpoint_every=self.checkpoint_every,
            keep=self.keep,
        )
        within("ema_decay", self.ema_decay, 0.0, 0.999999)
        known("lr_schedule", self.lr_schedule, ("constant", "cosine", "linear"))
        known("ema_unit", self.ema_unit, ("step", "epoch"))
        counts = ("steps", "batch_size", "warmup_steps")
        for name in (*counts, "clip_norm", "weight_decay", "max_minutes"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"{name} must not be negative, got {getattr(self, name)}."
                )

    def over(self, seconds: float) -> bool:
        """Whether `max_minutes` have passed after `seconds` of training."""
        return 0 < 60 * self.max_minutes < seconds


# Patients x time steps that a small network passes in about 20 minutes on 2 CPU cores.
CPU_BUDGET = 100_000_000
PAPER_STEPS, PAPER_BATCH = 48_000, 4096


def resolve(
    config: TrainConfig, patients: int, num_steps: int, *, accelerator: bool
) -> TrainConfig:
    """`config` with its automatic sizes filled in, the same for the same arguments.

    On an accelerator the paper's 48,000 steps of 4,096 patients; on a CPU about 30
    batches an epoch, at most 400 epochs and `CPU_BUDGET` patients x time steps.
    """
    batch, steps = config.batch_size, config.steps
    if not batch:
        wanted = PAPER_BATCH if accelerator else max(64, min(512, patients // 30))
        batch = min(1 << (wanted.bit_length() - 1), max(patients, 1))
    if not steps:
        steps = PAPER_STEPS
        if not accelerator:
            epochs = 400 * patients // batch
            budget = CPU_BUDGET // (batch * max(num_steps, 4))
            steps = max(500, min(epochs, budget, PAPER_STEPS))
            steps = steps // 100 * 100
    every = min(config.eval_every, max(steps // 10, 1))
    return dataclasses.replace(config, steps=steps, batch_size=batch, eval_every=every)
