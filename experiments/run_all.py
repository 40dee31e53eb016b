"""All suites, as far as a budget of time goes: cell by cell, cheapest first.

    python -m experiments.run_all --budget 2h

Every variant has its first seed before any has its second; within a seed the cheapest
cell that still fits is next. What a cell costs is known from cells of its variant that
are done, those of the same cohort if there are any. Else it is reckoned as a minute to
compile, `--seconds` of training, and drawing and measuring as in the other cells of its
suite, or as long as the training. A training that another suite has made costs nothing.
A cell that was begun is finished. The same command goes on where it stopped. Ends with
the tables and figures, and results/README.md by `experiments.report`. Expected: the
budget and some minutes; 3 to 6 minutes a cell on 2 CPU cores, 1 to 3 on one H200. Not a
part of it: `flexgen_missing`, `cdmt_quickcheck` and the speed tables.
"""

import dataclasses
import pathlib
import re
import sys
import time
from typing import NamedTuple

import tyro

from experiments.cell import PARTS, told_at, training_place
from experiments.cells import CELLS, Found, at, read_cells
from experiments.report import Report, write_report
from experiments.standins import prepared
from experiments.suite import (
    RESULTS,
    Cell,
    Options,
    Suite,
    folder_for,
    folders_of,
    load_suite,
    run_one,
    shell,
    suites,
    unfinished,
    unfit,
)
from jaxehr.core.checks import InputError, known

START = 15.0  # seconds to start a process and to read a cohort
COMPILE = 60.0  # seconds, where nothing is known
TRAINING = 2  # of `PARTS`: the timed steps and the training itself


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunAll:
    """Run what fits of all suites."""

    cohorts: tyro.conf.Positional[tuple[str, ...]] = ()
    """NAME=TRAIN or NAME=TRAIN:TEST: folders that `jaxehr prepare` made; each suite
    takes those that suit it. None = the stand-ins of every suite."""
    budget: str = "2h"
    """Time for the cells: 2h, 90m, or both as 1h30m."""
    suites: tuple[str, ...] = ()
    """Only these suites (files of experiments/configs); empty = all."""
    seeds: int = 3
    """Repetitions: other initial weights, batches and draws."""
    seconds: float = 120.0
    """Training time of each variant; of all processors together on a CPU."""
    preset: str = "small"
    """Preset of every model that has one of this name; others take their defaults."""
    patients: int = 0
    """Only the first so many training people; 0 = all (for a quick look)."""
    limit: float = 30.0
    """Minutes after which a cell is given up and counts as failed; 0 = none."""
    again: bool = False
    """Also repeat the cells that failed."""
    results: pathlib.Path = RESULTS
    """The folder with a folder for each suite, and one for all trainings."""


class Job(NamedTuple):
    """A suite and how its cells are run."""

    suite: Suite
    options: Options


class Choice(NamedTuple):
    """A cell that is left, and the seconds it will take."""

    seconds: float
    job: Job
    cell: Cell


def main(arguments: RunAll) -> None:
    """Runs cells until none fits, then writes tables, figures and the report."""
    begun, budget = time.perf_counter(), seconds_of(arguments.budget)
    jobs, tried = jobs_of(arguments), set()
    while True:
        rest = budget - (time.perf_counter() - begun)
        left = [choice for job in jobs for choice in choices(job)]
        # One that fails again would be the cheapest for ever.
        left = [c for c in left if (c.job.suite.name, c.cell) not in tried]
        chosen = cheapest(left, rest)
        if chosen is None:
            break
        tried.add((chosen.job.suite.name, chosen.cell))
        print(f"{chosen.job.suite.name}, about {chosen.seconds:.0f} s:", flush=True)
        run_one(chosen.job.suite, chosen.job.options, chosen.cell)
    print(f"{len(left)} cells are left.")
    if any((job.options.folder(job.suite) / CELLS).is_file() for job in jobs):
        write_report(Report(folder=arguments.results))


def jobs_of(arguments: RunAll) -> list[Job]:
    """Every suite with its options.

    Raises:
      InputError: an unknown suite.
    """
    names = suites()
    for name in arguments.suites:
        known("suite", name, names)
    jobs = []
    for name in arguments.suites or names:
        suite = load_suite(name)
        cohorts = suited(suite, arguments.cohorts)
        if not cohorts:
            print(f"{name}: no cohort suits it.")
            continue
        options = Options(
            cohorts=cohorts,
            work=arguments.results / "work",
            seeds=arguments.seeds,
            seconds=arguments.seconds,
            preset=arguments.preset,
            patients=arguments.patients,
            limit=arguments.limit,
            again=arguments.again,
        )
        out = folder_for(arguments.results, name, options.settings())
        jobs.append(Job(suite, dataclasses.replace(options, out=out)))
    return jobs


def suited(suite: Suite, texts: tuple[str, ...]) -> tuple[str, ...]:
    """The cohorts that a suite can take; its stand-ins where none is named."""
    named = zip(texts, folders_of(texts).values(), strict=True) if texts else ()
    chosen = tuple(text for text, folders in named if not unfit(suite, folders))
    return chosen if texts else prepared(suite.standins)


def choices(job: Job) -> list[Choice]:
    """The cells of a suite that are left, and what each will take."""
    suite, options = job
    settings, folders = options.settings(), folders_of(options.cohorts)
    done = read_cells(options.folder(suite), settings)
    found = []
    for cell in unfinished(suite, options):
        paths = folders[cell.cohort]
        place = training_place(options.trainings(), settings, paths, suite, cell)
        trained = told_at(place).is_file()
        found.append(Choice(cost(done, cell, trained, options.seconds), job, cell))
    return found


def cost(done: Found, cell: Cell, trained: bool, seconds: float) -> float:
    """Seconds that a cell will take, by the clock.

    Args:
      done: cells of its suite. trained: whether its training is there.
      seconds: the training time that is asked for.
    """
    good = [c for c in done if "failed" not in c]
    own = [c for c in good if c["variant"] == cell.variant]
    own = [c for c in own if c["cohort"] == cell.cohort] or own
    if own:
        return START + clock(own, PARTS[TRAINING:] if trained else PARTS)
    training = 0.0 if trained else seconds
    rest = clock(good, PARTS[TRAINING:]) if good else seconds
    return START + COMPILE + training + rest


def clock(cells: Found, parts: tuple[str, ...]) -> float:
    """Mean seconds of these parts of cells, by the clock."""
    took = [sum(at(c, f"seconds.{part}_clock") for part in parts) for c in cells]
    return sum(took) / len(took)


def cheapest(left: list[Choice], rest: float) -> Choice | None:
    """The next cell: of the first seed that is left, the cheapest that fits."""
    fits = [choice for choice in left if choice.seconds <= rest]
    return min(fits, key=lambda c: (c.cell.seed, c.seconds), default=None)


def seconds_of(text: str) -> float:
    """Seconds of a time such as 2h, 90m or 1h30m.

    Raises:
      InputError: another form.
    """
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?", text)
    if not text or found is None:
        raise InputError(f"budget {text!r}: must be a time such as 2h, 90m or 1h30m.")
    hours, minutes = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes


if __name__ == "__main__":
    sys.exit(shell(main, RunAll))
