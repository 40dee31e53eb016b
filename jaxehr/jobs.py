"""One process of a job on several hosts or GPUs: how it joins, speaks and ends."""

import contextlib
import os
import re
import sys
from typing import Any, TextIO

from jaxehr.core.checks import InputError

ADDRESS, COUNT, NUMBER = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
JOIN_SECONDS = 300  # that the first process waits for the last one
PARTNER = re.compile(
    "gloo|nccl|barrier|heartbeat|connection|socket|UNAVAILABLE|ABORTED|"
    "DEADLINE_EXCEEDED|coordination|distributed service",
    re.IGNORECASE,
)


def join() -> None:
    """Meets the other processes of the job; only process 0 speaks from then on.

    Raises:
      InputError: nothing says where they are, or they did not come.
    """
    import jax

    if joined():
        return
    count, number = integer(COUNT), integer(NUMBER)
    # It would take SIGTERM from us, and nobody would answer it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            num_processes=count,
            process_id=number,
            local_device_ids=own_gpus(),
            initialization_timeout=JOIN_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(
            f"--distributed: cannot join ({reason}); start one process for each host "
            f"or GPU under SLURM, Open MPI or GKE, or set {ADDRESS} (HOST:PORT of "
            f"process 0), {COUNT} and {NUMBER}."
        ) from error
    sys.excepthook = broken
    meet()


def own_gpus() -> list[int] | None:
    """[] = all that this process sees; None = as JAX chooses.

    Under SLURM and Open MPI it takes the one with the process's number on its host. A
    process that is alone there would leave the others idle, and one that sees a single
    GPU would not find that number.
    """
    told = lambda name: os.environ.get(name, "")
    if told("JAX_LOCAL_DEVICE_IDS"):
        return None
    tasks = told("SLURM_STEP_NUM_TASKS")
    alone = bool(tasks) and tasks == told("SLURM_STEP_NUM_NODES")
    alone = alone or told("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
    return [] if alone or told("CUDA_VISIBLE_DEVICES").isdecimal() else None


def meet() -> None:
    """Connects the processes; only the output of process 0 is heard from then on."""
    import jax

    from jaxehr.training.sharding import agreed

    sys.stdout.flush()
    heard = os.dup(1)
    # Gloo, which connects CPUs, writes to the descriptor.
    with silence() as nowhere:
        os.dup2(nowhere.fileno(), 1)
    agreed(0)
    if jax.process_index() == 0:
        os.dup2(heard, 1)
    os.close(heard)


def integer(name: str) -> int | None:
    """The number in an environment variable, if it is set."""
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise InputError(f"{name}={text}: is not a whole number.")
    return int(text) if text else None


def joined() -> bool:
    """Whether this process is one of several of a job; does not import JAX."""
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.distributed.is_initialized())


def progress_stream() -> TextIO | None:
    """Where progress is shown: by process 0 on stderr (None), else nowhere."""
    return silence() if joined() and sys.modules["jax"].process_index() else None


def silence() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def partner_lost(error: Exception) -> bool:
    """Whether an error of JAX comes from a process of the job that has died."""
    return joined() and bool(PARTNER.search(str(error)))


def broken(*error: Any) -> None:
    """Shows an error that nobody expected, and ends the job."""
    with contextlib.suppress(OSError, ValueError):
        sys.__excepthook__(*error)
    leave(1)


def leave(code: int) -> None:
    """Ends a process that failed within a job at once.

    At the usual end JAX waits minutes for the others, who wait for this one.
    """
    if joined():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody listens any more
                stream.flush()
        os._exit(code)
