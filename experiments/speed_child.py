"""The process of one contender: makes itself ready, then works at every "go".

    python -m experiments.speed_child MODULE:FUNCTION SIZES

Lines of JSON on stdout answer lines on stdin. The first answer says that the contender
is ready, or why it is left out.
"""

import importlib
import json
import os
import pathlib
import resource
import sys
import time
from typing import Any, TextIO

from experiments.speed_work import LeftOut, Ready

# Packages that a contender may lack: it is then left out, and nothing else is.
OPTIONAL = ("torch", "ot")
STATUS = pathlib.Path("/proc/self/status")


def main(words: list[str]) -> int:
    answers = private_stdout()
    target, sizes = words
    try:
        ready = make(target, json.loads(sizes))
    except LeftOut as reason:
        answer(answers, {"missing": str(reason)})
        return 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in OPTIONAL:
            raise
        reason = f"{package} is not installed (extra `bench`)"
        answer(answers, {"missing": reason})
        return 0
    begun = time.perf_counter()
    ready.run()
    seconds = time.perf_counter() - begun
    answer(answers, {"first": seconds, "total_cpu": cpu_seconds()})
    for line in sys.stdin:
        if line.strip() != "go":
            break
        answer(answers, work(ready))
    return 0


def make(target: str, sizes: dict[str, Any]) -> Ready:
    """The contender that `MODULE:FUNCTION` makes of its sizes."""
    module, function = target.split(":")
    return getattr(importlib.import_module(module), function)(sizes)


def work(ready: Ready) -> dict[str, Any]:
    """One piece of work: wall and CPU seconds, peak memory, what it tells."""
    cpu, begun = cpu_seconds(), time.perf_counter()
    result = ready.run()
    seconds = time.perf_counter() - begun
    told = {"seconds": seconds, "cpu": cpu_seconds() - cpu, "peak": peak_bytes()}
    told |= {"flop": ready.flop, "bytes": ready.bytes}
    on_device = device_gib()  # before `tell`, which may need more
    said = ready.tell(result) | ({"device GiB": on_device} if on_device else {})
    told |= {name: said.pop(name) for name in ("flop", "bytes") if name in said}
    return told | {"told": said, "total_cpu": cpu_seconds()}


def cpu_seconds() -> float:
    """User and system time of this process and of its ended children."""
    # os.times counts in ticks of 10 ms; of ended children there is nothing finer.
    return time.process_time() + sum(os.times()[2:4])


def peak_bytes() -> int:
    """Largest resident memory so far, of this process or of an ended child.

    ru_maxrss of the process itself would start at that of the parent.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM"):
                return max(int(line.split()[1]) * 1024, children)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(own, children)


def device_gib() -> float:
    """Largest memory held on the first GPU or TPU so far; 0 where there is none."""
    found = 0
    if torch := sys.modules.get("torch"):
        found = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    elif jax := sys.modules.get("jax"):
        found = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return found / 2**30


def private_stdout() -> TextIO:
    """The pipe to the parent; whatever libraries print goes to stderr instead."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe


def answer(pipe: TextIO, told: dict[str, Any]) -> None:
    print(json.dumps(told), file=pipe, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
