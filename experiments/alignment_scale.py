"""Time and memory of an alignment of many records.

    python -m experiments.alignment_scale

Simulated clouds (clusters, rotated, with noise); prints one line of JSON.
"""

import dataclasses
import json
import resource
import time
from typing import Any

import jax
import numpy as np
import tyro

from jaxehr.ot import imputers
from jaxehr.ot.align import Alignment, Clouds, align
from jaxehr.ot.config import AlignmentConfig, Method

CLASSES = 2
HELD = 5000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    records: int = 138_840
    """Records a side (eICU-ARF of the paper: 138,840)."""
    latent: int = 64
    pairs: int = 0
    """Records that both sides hold."""
    noise: float = 0.5
    method: Method = "fused"
    seed: int = 0


def simulate(arguments: Arguments) -> tuple[Clouds, tuple[np.ndarray, ...]]:
    """Clouds, and rows (source, label, target) that are in neither."""
    generator = np.random.default_rng(arguments.seed)
    n, size = arguments.records, arguments.latent
    centres = generator.normal(size=(12, size)).astype(np.float32)
    turn = np.linalg.qr(generator.normal(size=(size, size)))[0].astype(np.float32)

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        cluster = generator.integers(0, len(centres), count)
        spread = generator.standard_normal((count, size), np.float32)
        return centres[cluster] + 0.5 * spread, (cluster < 3).astype(np.int64)

    def other(z: np.ndarray) -> np.ndarray:
        noise = generator.standard_normal(z.shape, np.float32)
        return z @ turn + arguments.noise * 0.5 * noise

    source, label = rows(n)
    both = np.arange(arguments.pairs)
    fresh, fresh_label = rows(n - arguments.pairs)
    target = other(np.concatenate([source[both], fresh]))
    target_label = np.concatenate([label[both], fresh_label])
    held, held_label = rows(HELD)
    none = np.zeros(size, np.float32)
    pairs = np.stack([both, both], 1)
    clouds = Clouds(source, label, target, target_label, pairs, none, none)
    return clouds, (held, held_label, other(held))


def judge(
    aligned: Alignment,
    config: AlignmentConfig,
    clouds: Clouds,
    held: tuple[np.ndarray, ...],
) -> dict[str, Any]:
    """Error on rows (source, label, target) in neither cloud; how it came about.

    nrmse: 1 is that of the target's mean.
    """
    source, label, target = held
    guess = np.asarray(imputers.predict(aligned.forward, config, source, label))
    scale = np.sum((target - clouds.target.mean(0)) ** 2)
    told = aligned.diagnostics
    return {
        "nrmse": float(np.sqrt(np.sum((guess - target) ** 2) / scale)),
        "status": told["status"],
        "used": told["used"]["forward"],
        "label_agreement": told["label_agreement"],
        "gw_starts": told["gw_starts"],
    }


def main(arguments: Arguments) -> None:
    clouds, held = simulate(arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    config = AlignmentConfig(method=arguments.method)
    began, worked = time.perf_counter(), time.process_time()
    aligned = align(jax.random.key(arguments.seed), clouds, CLASSES, config)
    seconds = time.perf_counter() - began
    worked = time.process_time() - worked
    result = dataclasses.asdict(arguments) | {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(worked, 1),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "gib_before": before,
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(result | judge(aligned, config, clouds, held)))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
