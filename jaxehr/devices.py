"""JAX settings of the command line, made before JAX starts its devices."""

import os
import pathlib


def configure() -> None:
    """One CPU device per core, and compiled programs kept for the next start.

    XLA's own threads split the small products of a recurrent network badly; one
    single-threaded device per core uses all cores. On a GPU or TPU this changes nothing.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    import jax

    if "xla_force_host_platform_device_count" not in flags:
        jax.config.update("jax_num_cpu_devices", cores())
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def cores() -> int:
    """The largest power of two that does not exceed this process's cores."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    count = count or os.cpu_count() or 1
    return 1 << (count.bit_length() - 1)


def cache_folder() -> pathlib.Path:
    """Where compiled programs are kept: JAX_COMPILATION_CACHE_DIR, or the user's cache."""
    if folder := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return pathlib.Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "jaxehr" / "xla"
