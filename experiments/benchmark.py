"""Every model on every cohort at the same training time: one line of JSON a cell.

    python -m experiments.benchmark 2019=cohorts/2019a --seconds 120

A cohort is a folder that `jaxehr prepare` made, named as NAME=TRAIN, or as
NAME=TRAIN:TEST with other real people to compare with; without them a fifth of the
people (by hashed id) is held out. A cell is one model on one cohort with one seed, in
a process of its own: it times a short training, trains as many steps as the budget
allows, draws as many patients as there are training people and compares them with the
people held out. The budget counts the seconds of all processors on a CPU, those of the
clock on an accelerator. A cell that fails is a line with its reason. The same command
goes on where it stopped; `python -m experiments.tables` makes tables of the lines.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import tyro

from jaxehr.devices import configure

NOT_SETTINGS = ("cohorts", "models", "seeds", "out", "budget", "again")


class Cell(NamedTuple):
    """One training."""

    cohort: str
    model: str
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Train, sample and compare every model, cell by cell."""

    cohorts: tyro.conf.Positional[tuple[str, ...]]
    """NAME=TRAIN or NAME=TRAIN:TEST: folders that `jaxehr prepare` made."""
    out: pathlib.Path = pathlib.Path("results/benchmark")
    """The folder to make or go on with: cells.jsonl and settings.json."""
    models: tuple[str, ...] = ()
    """Names as in `jaxehr list models`; empty = all."""
    seeds: int = 3
    """Repetitions: other initial weights, batches and draws."""
    seconds: float = 120.0
    """Training time of each model; of all processors together on a CPU."""
    preset: str = "small"
    """Preset of every model that has one of this name; others take their defaults."""
    patients: int = 0
    """Only the first so many training people; 0 = all (for a quick look)."""
    budget: float = 0.0
    """Minutes after which no further cell is begun; 0 = no limit."""
    again: bool = False
    """Also repeat the cells that failed."""


def plan(arguments: Benchmark, cohorts: dict[str, Any]) -> Iterator[Cell]:
    """All cells; every model once before the next seed."""
    from jaxehr.core.checks import known
    from jaxehr.registry import MODELS

    for name in arguments.models:
        known("model", name, MODELS)
    for seed in range(arguments.seeds):
        for model in arguments.models or MODELS:
            yield from (Cell(cohort, model, seed) for cohort in cohorts)


def folders_of(texts: tuple[str, ...]) -> dict[str, tuple[pathlib.Path, ...]]:
    """Name -> folder of the training people, and of the test people if given.

    Raises:
      InputError: no name, or no such folder.
    """
    from jaxehr.core.checks import InputError

    found = {}
    for text in texts:
        name, equals, paths = text.partition("=")
        folders = tuple(pathlib.Path(path) for path in paths.split(":"))
        if not equals or not name or len(folders) > 2:
            raise InputError(f"cohort {text!r}: must be NAME=TRAIN or NAME=TRAIN:TEST.")
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"cohort {text!r}: there is no folder {folder}.")
        found[name] = folders
    if not found:
        raise InputError("no cohort; name at least one as NAME=FOLDER.")
    return found


def main(arguments: Benchmark) -> None:
    """Runs the cells that are left, then says how many there are."""
    from experiments.cells import SETTINGS, append_cell, read_cells
    from jaxehr.core.files import write_json

    cohorts, begun = folders_of(arguments.cohorts), time.perf_counter()
    wanted = list(plan(arguments, cohorts))
    settings = {
        name: value
        for name, value in dataclasses.asdict(arguments).items()
        if name not in NOT_SETTINGS
    }
    done = read_cells(arguments.out, settings)
    keep = lambda cell: not (arguments.again and "failed" in cell)
    finished = {tuple(c[name] for name in Cell._fields) for c in done if keep(c)}
    left, longest = [cell for cell in wanted if cell not in finished], 0.0
    while left:
        minutes = (time.perf_counter() - begun) / 60
        if arguments.budget and minutes + longest > arguments.budget:
            break
        write_json(arguments.out / SETTINGS, settings)
        start, cell = time.perf_counter(), left.pop(0)
        found = apart(settings, cohorts[cell.cohort], cell)
        append_cell(arguments.out, cell._asdict() | found | {"settings": settings})
        seconds = time.perf_counter() - start
        longest = max(longest, seconds / 60)
        said = found.get("failed", "done")
        print(f"{'/'.join(map(str, cell))}: {seconds:.0f} s, {said}", flush=True)
    print(f"{len(wanted) - len(left)} of {len(wanted)} cells; {arguments.out}")


def apart(
    settings: dict[str, Any], folders: tuple[pathlib.Path, ...], cell: Cell
) -> dict[str, Any]:
    """A cell in a process of its own; its peak memory is its own, and so is its end."""
    from experiments.benchmark_cell import run_cell

    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh) as pool:
        try:
            return pool.submit(run_cell, settings, folders, *cell).result()
        except BrokenProcessPool:
            return {"failed": "the process was killed; out of memory?"}


def run() -> int:
    """The shell's entry: a refusal is one line."""
    configure()
    from jaxehr.core.checks import InputError

    try:
        main(tyro.cli(Benchmark))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run())
