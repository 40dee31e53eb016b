"""Rounds of a case: every contender in its own process, one at work at a time."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from experiments.speed_cases import MACHINE, Case

ROOT = pathlib.Path(__file__).parent.parent
STAT = pathlib.Path("/proc/stat")
BUSY = (1, 2, 3, 6, 7, 8)  # user, nice, system, irq, softirq, steal


class Died(Exception):
    """A contender ended before it answered."""


class Child:
    """A contender, alive from its first answer to the end of the case."""

    def __init__(self, target: str, sizes: dict[str, Any], scratch: str) -> None:
        self.log = tempfile.TemporaryFile("w+", dir=scratch)  # noqa: SIM115
        # A cache of its own, empty: compile times are those of a first start.
        cache = tempfile.mkdtemp(dir=scratch)
        # All contenders live at once: none may take the whole memory of a GPU.
        own = {"JAX_COMPILATION_CACHE_DIR": cache}
        own |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "experiments.speed_child",
                target,
                json.dumps(sizes),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=ROOT,
            env=os.environ | own,
        )

    def hear(self) -> dict[str, Any]:
        """The next answer; `Died` where there is none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.log.seek(0)
        said = [text.strip() for text in self.log if text.strip()]
        raise Died(f"died with exit code {code}: {said[-1] if said else 'no word'}")

    def go(self) -> dict[str, Any]:
        """One piece of work."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `hear` finds out how it ended
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self.hear()

    def close(self) -> None:
        """Ends the process, also one that is at work."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def busy_seconds(text: str, numbers: set[int], ticks: int) -> float:
    """CPU seconds of the cores `numbers` in the text of /proc/stat, by whomever."""
    total = 0
    for line in text.splitlines():
        words = line.split()
        # The line "cpu" without a number is the sum over all cores.
        number = words[0].removeprefix("cpu") if words else ""
        if number.isdigit() and int(number) in numbers:
            total += sum(int(words[i]) for i in BUSY)
    return total / ticks


def cores() -> set[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def busy_now() -> float | None:
    """`busy_seconds` of the cores that we may use; None where the system has none."""
    if not STAT.is_file():
        return None
    return busy_seconds(STAT.read_text(), cores(), os.sysconf("SC_CLK_TCK"))


class Record:
    """What is known of one contender; `entry` is its part of the JSON."""

    def __init__(self, name: str, child: Child) -> None:
        self.child, self.total_cpu = child, 0.0
        self.entry: dict[str, Any] = {
            "name": name,
            "reason": "",
            "seconds": [],
            "cpu": [],
            "foreign": [],
            "load": [],
            "told": [],
        }

    @property
    def alive(self) -> bool:
        return not self.entry["reason"]

    def start(self) -> None:
        """Waits until it is ready, or notes why it is not."""
        with self.deaths():
            told = self.child.hear()
            if "missing" in told:
                self.entry |= {"reason": told["missing"], "left_out": True}
                return
            self.entry["first"], self.total_cpu = told["first"], told["total_cpu"]

    def round(self) -> None:
        """One piece of work, and the CPU use of all other processes meanwhile."""
        with self.deaths():
            before, begun = busy_now(), time.perf_counter()
            told = self.child.go()
            after, wall = busy_now(), time.perf_counter() - begun
            own, self.total_cpu = told["total_cpu"] - self.total_cpu, told["total_cpu"]
            foreign = None
            if before is not None and after is not None:
                foreign = max(after - before - own, 0.0) / wall
            entry = self.entry
            entry["foreign"].append(foreign)
            entry["load"].append(os.getloadavg()[0])
            for name in ("seconds", "cpu", "told"):
                entry[name].append(told[name])
            entry |= {name: told[name] for name in ("flop", "bytes")}
            # Of round 1: what a contender tells of its result may need more memory.
            entry.setdefault("peak", told["peak"])

    @contextmanager
    def deaths(self) -> Iterator[None]:
        try:
            yield
        except Died as died:
            done = len(self.entry["seconds"])
            self.entry["reason"] = f"{died} (after {done} rounds)"


def run_case(
    case: Case, rounds: int, small: bool, say: Callable[[str], None], repeats: int = 0
) -> dict[str, Any]:
    """All rounds of a case; contenders that fail are named, the others go on.

    `repeats` other than 0 replaces the size of this name, where the case has one.

    Each round measures the machine first. The order of the contenders turns by one
    place a round, so that none always follows the same other one.
    """
    sizes = case.small if small else case.sizes
    if repeats and case.repeats:
        sizes = sizes | {case.repeats: repeats}
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        records = []
        for name, target, more in [("machine", MACHINE, {}), *case.contenders]:
            child = Child(target, sizes | more | {"small": small}, scratch)
            stack.callback(child.close)
            records.append(Record(name, child))
            records[-1].start()  # one after the other: nothing else runs meanwhile
            say(f"{case.name}: {name}: {records[-1].entry['reason'] or 'ready'}")
        machine, others = records[0], records[1:]
        for number in range(rounds):
            turn = number % len(others)
            for record in [machine, *others[turn:], *others[:turn]]:
                if record.alive:
                    record.round()
            say(f"{case.name}: round {number + 1} of {rounds}")
    told = machine.entry["told"]
    return {
        "case": case.name,
        "text": case.text,
        "sizes": sizes,
        "by": case.by,
        "per": case.per(sizes),
        "quoted": [quoted._asdict() for quoted in case.quoted],
        "machine": {k: [one[k] for one in told] for k in ("gemm", "copy")},
        "device": told[0]["device"] if told else "",
        "machine_reason": machine.entry["reason"],
        "contenders": [record.entry for record in others],
    }
