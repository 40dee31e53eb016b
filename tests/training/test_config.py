"""Sizes chosen for the cohort and the machine; refused values."""

import pytest

from jaxehr.core.checks import InputError
from jaxehr.training.config import CPU_BUDGET, TrainConfig, resolve


@pytest.mark.parametrize(
    ("patients", "num_steps", "accelerator", "batch", "steps"),
    [
        (20_000, 25, True, 4096, 48_000),
        (100, 25, True, 100, 48_000),  # at most the patients
        (1, 1, False, 1, 500),
        (3, 5, False, 3, 500),
        (600, 1, False, 64, 3700),  # 400 epochs: 400 * 600 // 64, cut to hundreds
        (100_000, 24, False, 512, 8100),  # the budget: 1e8 // (512 * 24)
        (10**6, 1, False, 512, 48_000),
        (100_000, 10**6, False, 512, 500),
    ],
)
def test_sizes(patients, num_steps, accelerator, batch, steps):
    found = resolve(TrainConfig(), patients, num_steps, accelerator=accelerator)
    assert (found.batch_size, found.steps) == (batch, steps)
    assert batch <= patients
    assert steps == 500 or accelerator or batch * num_steps * steps <= CPU_BUDGET
    # What is chosen is chosen: a resumed run finds the same sizes.
    assert resolve(found, 5, 5, accelerator=not accelerator) == found


def test_given_sizes_stay():
    config = TrainConfig(steps=40, batch_size=7, eval_every=500)
    found = resolve(config, 1000, 10, accelerator=False)
    assert (found.steps, found.batch_size) == (40, 7)
    assert found.eval_every == 4  # at least ten validations
    assert resolve(TrainConfig(steps=3), 10, 1, accelerator=False).eval_every == 1


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"chunk_rows": 0}, "chunk_rows must be positive, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"eval_every": 0}, "eval_every must be positive"),
        ({"valid_draws": 0}, "valid_draws must be positive"),
        ({"checkpoint_every": 0}, "checkpoint_every must be positive"),
        ({"keep": 0}, "keep must be positive"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0.0, 0.999999\], got 1.0"),
        ({"lr_schedule": "step"}, "unknown lr_schedule 'step'; known: constant, cos"),
        ({"ema_unit": "batch"}, "unknown ema_unit 'batch'; known: step, epoch"),
        ({"steps": -1}, "steps must not be negative, got -1"),
        ({"batch_size": -2}, "batch_size must not be negative, got -2"),
        ({"warmup_steps": -3}, "warmup_steps must not be negative"),
        ({"clip_norm": -0.5}, "clip_norm must not be negative, got -0.5"),
        ({"weight_decay": -0.5}, "weight_decay must not be negative"),
        ({"max_minutes": -1.0}, "max_minutes must not be negative"),
    ],
)
def test_refused(fields, match):
    with pytest.raises(InputError, match=match):
        TrainConfig(**fields)
