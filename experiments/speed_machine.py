"""What this machine can do: rate of a product of matrices, rate of a copy.

Utilisation in the tables of `experiments.speed` is against these, measured in the same
round. On a GPU or TPU both are measured there, products at JAX's default precision.
"""

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from experiments.speed_work import Ready

GEMM, GEMM_SMALL = 2048, 128
GEMM_DEVICE = 8192  # a smaller product is over before its launch is
COPY, COPY_SMALL = 64 << 20, 1 << 16  # floats: 256 MB, far above a cache
LOOPS = 3


def rates(sizes: dict[str, Any]) -> Ready:
    """FLOP/s of a product and bytes/s of a copy; the best of `LOOPS` each."""
    small = sizes.get("small", False)
    size, count = (GEMM_SMALL, COPY_SMALL) if small else (GEMM, COPY)
    import jax

    on_cpu = jax.default_backend() == "cpu"
    size = size if on_cpu or small else GEMM_DEVICE
    product, copied = (on_host if on_cpu else on_device)(size, count)

    for call in (product, copied):
        call()  # compiled, and its threads started

    def run() -> dict[str, Any]:
        return {
            "gemm": 2.0 * size**3 / best(product),
            "copy": 8.0 * count / best(copied),  # read, and written
            "device": jax.devices()[0].device_kind,
        }

    return Ready(run, tell=dict)


def best(call: Any) -> float:
    """Seconds of the fastest of `LOOPS` calls."""
    found = []
    for _ in range(LOOPS):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return min(found)


def on_host(size: int, count: int) -> tuple[Any, Any]:
    """NumPy on all cores: BLAS by itself, the copy by a thread a core."""
    generator = np.random.default_rng(0)
    left, right = generator.random((2, size, size), np.float32)
    out = np.empty_like(left)
    source, target = np.ones(count, np.float32), np.zeros(count, np.float32)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    threads = threads or os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads)
    ends = np.linspace(0, count, threads + 1).astype(int)
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]

    def copied() -> None:  # NumPy lets other threads run while it copies
        list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))

    return lambda: np.matmul(left, right, out=out), copied


def on_device(size: int, count: int) -> tuple[Any, Any]:
    """The first accelerator; a copy is x + 1, which reads and writes once."""
    import jax
    import jax.numpy as jnp

    left = jax.random.normal(jax.random.key(0), (size, size))
    long = jnp.ones(count)
    multiply, add = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1.0)
    return (
        lambda: jax.block_until_ready(multiply(left, left)),
        lambda: jax.block_until_ready(add(long)),
    )
