"""Ours beside its rivals on one machine, in rounds that take turns.

    python -m experiments.speed --json results/speed.json

Every contender lives in its own process from the start of a case to its end and works
when it is told to, alone; in each round also the rate of a product of matrices and of a
copy are measured, and the CPU use of all other processes. Prints a Markdown table:
medians, ratios with their least and largest value, compile time, peak memory, work and
its share of what the machine can do. Load of other processes inflates the ratios: read
the column of foreign cores first. Rivals: flax, torch (extra `bench`; left out where it
is missing), ott-jax, POT. Expected on 2 CPU cores: 25 minutes with 5 rounds.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import platform
import shlex
import sys
from typing import Any

import tyro

from experiments.speed_cases import CASES, Case
from experiments.speed_rounds import cores, run_case
from experiments.speed_table import compare, machine_line, rows_of, table
from jaxehr.core.checks import InputError, known, positive, within
from jaxehr.core.files import read_json, write_text

PACKAGES = ("jaxehr", "jax", "flax", "ott-jax", "torch", "pot", "numpy")
CPUINFO = pathlib.Path("/proc/cpuinfo")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time ours beside its rivals."""

    cases: tuple[str, ...] = ()
    """Only these; empty = all."""
    contenders: tuple[str, ...] = ()
    """Only those whose name holds one of these words, beside the first one of a case,
    to which ratios refer; cases without any are left out. Empty = all."""
    repeats: int = 0
    """Optimiser steps or network calls of one piece of work; 0 = as many as a CPU
    needs for a second or more, for a GPU too few."""
    rounds: int = 5
    """Times that every contender works."""
    json: pathlib.Path | None = None
    """Write every number of every round here."""
    compare: pathlib.Path | None = None
    """Set the medians beside those of this older file."""
    small: bool = False
    """Tiny sizes, to see that everything runs."""


def main(arguments: Arguments) -> int:
    """0; 1 where a contender died, 2 where the arguments are wrong."""
    try:
        positive(rounds=arguments.rounds)
        within("repeats", arguments.repeats, 0, 1_000_000)
        for name in arguments.cases:
            known("case", name, CASES)
        cases = chosen([CASES[n] for n in arguments.cases or CASES], arguments)
        old = read_json(arguments.compare) if arguments.compare else None
    except (InputError, OSError) as error:
        say(f"speed: error: {error}")
        return 2
    found = []
    for case in cases:
        found.append(
            run_case(case, arguments.rounds, arguments.small, say, arguments.repeats)
        )
        # What is done is shown, should a later case be stopped.
        print(f"{machine_line(found[-1])}\n{table(rows_of(found[-1]))}\n", flush=True)
    result = describe() | {
        "rounds": arguments.rounds,
        "small": arguments.small,
        "cases": found,
        "rows": [row for one in found for row in rows_of(one)],
    }
    if len(found) > 1:
        print(table(result["rows"]))
    if arguments.json:
        write_text(arguments.json, json.dumps(result, indent=1) + "\n")
    if old is not None:
        print(f"\n{compare(old, result)}")
    return int(any(died(entry) for one in found for entry in one["contenders"]))


def chosen(cases: list[Case], arguments: Arguments) -> list[Case]:
    """The cases with the contenders that were asked for."""
    if not arguments.contenders:
        return cases
    named = lambda one: any(word in one[0] for word in arguments.contenders)
    kept = []
    for case in cases:
        if any(named(one) for one in case.contenders):
            first, *others = case.contenders
            kept.append(case._replace(contenders=[first, *filter(named, others)]))
    if not kept:
        names = {one[0] for case in cases for one in case.contenders}
        raise InputError(
            f"no contender is named so; there are {'; '.join(sorted(names))}"
        )
    return kept


def died(entry: dict[str, Any]) -> bool:
    """Whether a contender failed, other than by a package that is not there."""
    return bool(entry["reason"]) and not entry.get("left_out")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def describe() -> dict[str, Any]:
    """Machine, date, command and versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "experiments.speed", *sys.argv[1:]]),
        "processor": processor(),
        "cores": len(cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    """Its name, where the system tells it."""
    if CPUINFO.is_file():
        for line in CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
