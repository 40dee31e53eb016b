"""Suites: variants of models x cohorts x seeds, cell by cell, resumable.

A suite is a file of `experiments/configs`: what is trained and how it is sampled, which
metrics are made. A cell is one variant on one cohort with one seed, in a process of its
own (`cell.py`). Variants that differ in sampling only share one training.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import tyro

from jaxehr.devices import configure

CONFIGS = pathlib.Path(__file__).parent / "configs"
RESULTS = pathlib.Path("results")
NEEDS = {
    "static": "has no static column",
    "temporal": "has no temporal column",
    "dense": "has binary columns only (--discretize), not values and gaps",
}
NOT_SETTINGS = ("cohorts", "only", "seeds", "out", "work", "budget", "limit", "again")


class Variant(NamedTuple):
    """What is trained, and how it is sampled.

    Attributes:
      model: as in `jaxehr list models`. config: changes to its configuration.
      sampling: changes to its sampling options. label: "" = training frequency,
      "balanced", or the text of a class. hide: shares of the people to learn from who
      lose the `static` or the `temporal` part, and of `entries`; those are `filled`
      with what is common for models that do without missing values.
    """

    model: str
    config: dict[str, Any] = {}  # noqa: RUF012
    sampling: dict[str, Any] = {}  # noqa: RUF012
    label: str = ""
    hide: dict[str, float] = {}  # noqa: RUF012


class Suite(NamedTuple):
    """What is compared.

    Attributes:
      name: of the file in `configs`. variants: by name. metrics: families to make.
      quick: changes to the quick metric configuration. tables: by name, the `variants`
      of a published table and its `columns`, see `cells.column`; perhaps a `figure`,
      see `figures.draw`, and what the `paper` says. drawn: synthetic patients for each
      real one. standins: open cohorts that it takes where none is named, see
      `standins`. needs: what a cohort must have, keys of `NEEDS`.
    """

    name: str
    variants: dict[str, Variant]
    metrics: tuple[str, ...]
    quick: dict[str, Any]
    tables: dict[str, dict[str, Any]] = {}  # noqa: RUF012
    drawn: int = 1
    standins: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


class Cell(NamedTuple):
    """One line of cells.jsonl."""

    cohort: str
    variant: str
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which cells are run, and how large they are."""

    cohorts: tyro.conf.Positional[tuple[str, ...]] = ()
    """NAME=TRAIN or NAME=TRAIN:TEST: folders that `jaxehr prepare` made; none = open
    ones that stand in for the papers' (`python -m experiments.standins`)."""
    out: pathlib.Path | None = None
    """The folder to make or go on with; by default results/ and the suite's name, and
    where cells of other settings or code are there also the settings."""
    work: pathlib.Path | None = None
    """The folder of trainings; by default results/work, shared by all suites, or work
    in --out. It may be removed."""
    only: tuple[str, ...] = ()
    """Only these variants; empty = all."""
    seeds: int = 3
    """Repetitions: other initial weights, batches and draws."""
    seconds: float = 120.0
    """Training time of each variant; of all processors together on a CPU."""
    preset: str = "small"
    """Preset of every model that has one of this name; others take their defaults."""
    patients: int = 0
    """Only the first so many training people; 0 = all (for a quick look)."""
    budget: float = 0.0
    """Minutes after which no further cell is begun; 0 = no limit."""
    limit: float = 0.0
    """Minutes after which a cell is given up and counts as failed; 0 = none."""
    again: bool = False
    """Also repeat the cells that failed."""

    def folder(self, suite: Suite) -> pathlib.Path:
        """Where the cells are kept."""
        return self.out or folder_for(RESULTS, suite.name, self.settings())

    def trainings(self) -> pathlib.Path:
        """Where the trainings are kept."""
        return self.work or (self.out or RESULTS) / "work"

    def settings(self) -> dict[str, Any]:
        """What all cells of a folder have in common; the numbers of the code too."""
        from experiments.cells import CODE

        values = dataclasses.asdict(self).items()
        made = {name: value for name, value in values if name not in NOT_SETTINGS}
        return made | CODE


def folder_for(root: pathlib.Path, name: str, settings: dict[str, Any]) -> pathlib.Path:
    """Where the cells of a suite are kept: ROOT/NAME, or beside it if cells of other
    settings or code are there, such as those that come with this repository."""
    from experiments.cells import CODE, FIRST, SETTINGS
    from jaxehr.core.files import read_json

    file, settings = root / name / SETTINGS, FIRST | settings
    if not file.is_file() or FIRST | read_json(file) == settings:
        return root / name
    words = [name, f"{settings['seconds']:g}s", settings["preset"]]
    if settings["patients"]:
        words.append(f"{settings['patients']}people")
    code = [settings[key] for key in CODE]
    if code != list(FIRST.values()):
        words.append("code" + ".".join(map(str, code)))
    return root / "-".join(filter(None, words))


def load_suite(name: str) -> Suite:
    """The suite of `configs/NAME.json`."""
    from jaxehr.core.files import read_json

    made = read_json(CONFIGS / f"{name}.json")
    variants = {key: Variant(**value) for key, value in made["variants"].items()}
    more = {key: made[key] for key in ("tables", "drawn") if key in made}
    more |= {key: tuple(made.get(key, ())) for key in ("standins", "needs")}
    quick = made.get("quick", {})
    return Suite(name, variants, tuple(made["metrics"]), quick, **more)


def suites() -> list[str]:
    """The names of all suites."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


def plan(suite: Suite, options: Options, cohorts: dict[str, Any]) -> Iterator[Cell]:
    """All cells; every variant once before the next seed."""
    from jaxehr.core.checks import known

    for name in options.only:
        known("variant", name, suite.variants)
    for seed in range(options.seeds):
        for variant in options.only or suite.variants:
            yield from (Cell(cohort, variant, seed) for cohort in cohorts)


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
            if not (folder / "schema.json").is_file():
                raise InputError(
                    f"cohort {text!r}: {folder} has no schema.json; make it by `jaxehr "
                    "prepare`."
                )
        found[name] = folders
    if not found:
        raise InputError("no cohort; name at least one as NAME=FOLDER.")
    return found


def unfit(suite: Suite, folders: tuple[pathlib.Path, ...]) -> str:
    """What a cohort lacks that the suite needs; "" = nothing."""
    from jaxehr.core.files import read_json

    for folder in folders:
        schema = read_json(folder / "schema.json")
        sparse = any(folder.glob("**/temporal.npz"))
        lacks = {
            "static": not schema["static"],
            "temporal": not schema["temporal"],
            "dense": sparse,
        }
        for need in suite.needs:
            if lacks[need]:
                return f"{folder}: {NEEDS[need]}"
    return ""


def run_suite(suite: Suite, options: Options) -> pathlib.Path:
    """Runs the cells that are left, then says how many there are.

    Returns:
      The folder of the cells.

    Raises:
      InputError: a cohort that the suite cannot take; see `unfinished` too.
    """
    from jaxehr.core.checks import InputError

    cohorts, out = folders_of(options.cohorts), options.folder(suite)
    for name, folders in cohorts.items():
        if said := unfit(suite, folders):
            raise InputError(f"cohort {name!r}: {said}; {suite.name} cannot take it.")
    begun, longest = time.perf_counter(), 0.0
    total, left = len(list(plan(suite, options, cohorts))), unfinished(suite, options)
    while left:
        minutes = (time.perf_counter() - begun) / 60
        if options.budget and minutes + longest > options.budget:
            break
        longest = max(longest, run_one(suite, options, left.pop(0)) / 60)
    print(f"{total - len(left)} of {total} cells; {out}")
    return out


def unfinished(suite: Suite, options: Options) -> list[Cell]:
    """The cells that are left, in the order of the plan.

    Raises:
      InputError: there are cells that were made with other settings, of another cohort
        of this name, or of another variant or metrics of this name.
    """
    from experiments.cells import read_cells

    folders = folders_of(options.cohorts)
    done = read_cells(options.folder(suite), options.settings())
    keep = lambda cell: not (options.again and "failed" in cell)
    finished = {tuple(c[name] for name in Cell._fields): c for c in done if keep(c)}
    left = []
    for cell in plan(suite, options, folders):
        if cell not in finished:
            left.append(cell)
        else:
            same_cell(options.folder(suite), suite, folders, finished[cell])
    return left


def same_cell(
    out: pathlib.Path, suite: Suite, folders: Any, found: dict[str, Any]
) -> None:
    """Refuses a cell of another cohort, variant or metrics under the names of now; a
    cell that does not say of which is of others."""
    from experiments.cells import marks_of
    from jaxehr.core.checks import InputError

    told = found.get("marks", {})
    for name, mark in marks_of(suite, found["variant"], folders[found["cohort"]]):
        if told.get(name) != mark:
            raise InputError(
                f"{out}: the cells of {found['cohort']}/{found['variant']} were made "
                f"with another {name}; choose another --out, or the old {name}."
            )


def run_one(suite: Suite, options: Options, cell: Cell) -> float:
    """Runs a cell and keeps its line; the seconds that it took."""
    from experiments.cells import SETTINGS, append_cell, marks_of
    from jaxehr.core.files import write_json

    out, settings = options.folder(suite), options.settings()
    folders, start = folders_of(options.cohorts)[cell.cohort], time.perf_counter()
    write_json(out / SETTINGS, settings)
    work, limit = options.trainings(), options.limit
    found = apart(suite, settings, work, folders, cell, limit)
    told = {"marks": dict(marks_of(suite, cell.variant, folders)), "settings": settings}
    append_cell(out, cell._asdict() | found | told)
    seconds = time.perf_counter() - start
    said = found.get("failed", "done")
    print(f"{'/'.join(map(str, cell))}: {seconds:.0f} s, {said}", flush=True)
    return seconds


def apart(
    suite: Suite,
    settings: dict[str, Any],
    work: pathlib.Path,
    folders: tuple[pathlib.Path, ...],
    cell: Cell,
    limit: float,
) -> dict[str, Any]:
    """A cell in a process of its own; its peak memory is its own, and so is its end."""
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh) as pool:
        start = time.perf_counter()
        try:
            asked = suite, settings, work, folders, cell
            return pool.submit(in_time, limit, *asked).result()
        except BrokenProcessPool:
            said = {"failed": "the process was killed; out of memory?"}
            if limit and time.perf_counter() - start >= 60 * limit:
                reason = f"the process was killed; took more than {limit:g} minutes"
                said = {"failed": reason, "limit": limit}
            return said


def in_time(limit: float, *asked: Any) -> dict[str, Any]:
    """`cell.run_cell` in a process that ends after so many minutes; 0 = never."""
    from experiments.cell import run_cell

    if limit:  # unanswered, it kills the process, also inside a compiled program
        signal.setitimer(signal.ITIMER_REAL, 60 * limit)
    return run_cell(*asked)


def shell(main: Callable[[Any], Any], options: Any = Options) -> int:
    """The shell's entry of an experiment: a refusal or a stop is one line."""
    configure()
    from jaxehr.core.checks import InputError
    from jaxehr.training.loop import Stopped

    try:
        main(tyro.cli(options))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Stopped, KeyboardInterrupt) as stop:
        print("stopped; the same command goes on.")
        return 128 + getattr(stop, "signum", signal.SIGINT)
    return 0
