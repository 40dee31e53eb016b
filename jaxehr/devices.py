"""JAX settings of the command line, made before JAX starts its devices."""

import contextlib
import functools
import logging
import os
import pathlib
import sys
import warnings
from typing import Any

from jaxehr.jobs import join

TRACED = 3  # dispatches in a profile; a whole run would be gigabytes


def configure(distributed: bool = False) -> None:
    """One CPU device per core, and compiled programs kept for the next start.

    XLA's own threads split the small products of a recurrent network badly; one
    single-threaded device per core uses all cores. A GPU or TPU is not touched.
    With `distributed` this process joins the others of its job; see `jobs`.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    import jax

    quiet_orbax()

    if "xla_force_host_platform_device_count" not in flags:
        # JAX refuses once it has started its devices, as when Python code calls `main`.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", cores())
    jax.config.update("jax_compilation_cache_dir", cache_folder())
    # Small programs too: a training has hundreds, of 20 to 40 ms each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # A cache that cannot be used only costs each start some seconds.
    unusable = "Error (reading|writing) persistent compilation cache"
    warnings.filterwarnings("ignore", unusable)
    if distributed:
        join()


@functools.cache
def quiet_orbax() -> None:
    """Orbax prints what it also raises; a refusal of ours is one line."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # A write that a full disk cut off before it began.
    warnings.filterwarnings(
        "ignore", "coroutine 'async_serialize.* was never awaited", RuntimeWarning
    )
    report = sys.unraisablehook

    def unless_closed(found: Any) -> None:
        # Orbax's writing threads say it after one of them met a full disk.
        if str(found.exc_value) != "Event loop is closed":
            report(found)

    sys.unraisablehook = unless_closed


class Profile:
    """A trace of `TRACED` dispatches for TensorBoard and Perfetto, in a folder.

    Call `tick` after every dispatch; a context manager. The first dispatch, which
    compiles, is not traced. Without a folder nothing happens.
    """

    def __init__(self, folder: pathlib.Path | None) -> None:
        self.folder, self.ticks, self.running = folder, 0, False

    def __enter__(self) -> "Profile":
        if self.folder:  # a folder that cannot be made is refused before the work
            self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.stop()
        if self.folder and not self.ticks > 1 and kind is None:
            print(
                "jaxehr: --profile: nothing was traced, all of it was one dispatch; "
                "take more steps, or more patients.",
                file=sys.stderr,
            )

    def tick(self, *_: Any) -> None:
        """One dispatch has ended."""
        if not self.folder:
            return
        import jax

        self.ticks += 1
        if jax.process_index():
            return  # two traces in one folder are none
        if self.ticks == 1:
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self.running = True
        elif self.ticks > TRACED:
            self.stop()

    def stop(self) -> None:
        if self.running:
            import jax

            self.running = False
            jax.profiler.stop_trace()


def cores() -> int:
    """The largest power of two that does not exceed this process's cores."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    count = min(count or os.cpu_count() or 1, quota())
    return 1 << (count.bit_length() - 1)


def quota(file: pathlib.Path = pathlib.Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that a container may use at once on Linux; without a limit very many."""
    with contextlib.suppress(OSError, ValueError):
        most, period = file.read_text().split()
        return max(round(int(most) / int(period)), 1)
    return sys.maxsize


def free_memory(
    host: pathlib.Path = pathlib.Path("/proc"),
    groups: pathlib.Path = pathlib.Path("/sys/fs/cgroup"),
) -> int:
    """Bytes that are free on Linux, at most what the group of this process (that of a
    container or a job) may take; 0 elsewhere."""
    free, limits = 0, [sys.maxsize]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (host / "meminfo").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("MemAvailable:")]
        free = int(line.split()[1]) * 1024
        for line in (host / "self" / "cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            # Of the second version, whose line names no controller, and of the first.
            top = groups / "memory" if names == "memory" else groups
            place = top / path.lstrip("/")
            for folder in (place, *place.parents):
                for name in ("memory.max", "memory.limit_in_bytes"):
                    with contextlib.suppress(OSError, ValueError):
                        limits.append(int((folder / name).read_text()))
    return min(free, *limits)


def cache_folder() -> str | None:
    """Of compiled programs: JAX_COMPILATION_CACHE_DIR, or in the user's cache; None
    for a user without a home."""
    if folder := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return folder
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = base or os.path.join(pathlib.Path.home(), ".cache")
    except RuntimeError:
        return None
    return os.path.join(base, "jaxehr", "xla")
