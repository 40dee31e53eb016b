"""All results on one page: results/README.md.

    python -m experiments.report

Every folder of results/ that has cells: the tables and figures of its suite are written
anew from cells.jsonl, and stand on the page with their command, seeds, versions,
machine, time and whose data they are. Tables of other experiments stand as they wrote
them. Seconds on any machine. What to expect: mean and standard deviation over seeds
and their number in the last column; a variant without a cell is named as not run.
"""

import dataclasses
import pathlib
import re
import sys
from collections.abc import Iterable

import tyro

from experiments.cells import CELLS, CODE, Found, made_on, read_cells
from experiments.suite import (
    RESULTS,
    Options,
    Suite,
    folder_for,
    load_suite,
    shell,
    suites,
)
from experiments.tables import (
    BLOCKS,
    cells_of,
    document,
    measured_by,
    publish,
    whose,
)
from jaxehr.core.checks import InputError
from jaxehr.core.files import write_text

HERE = pathlib.Path(__file__).parent
HEAD = (
    "# Results\n\n"
    "Written by `python -m experiments.report` from the cells in these folders; a "
    "repeated command goes on where it stopped, or begins beside cells of other code. "
    "Mean ± standard deviation over seeds, their number in the last column. The "
    "papers' cohorts (MIMIC-III, eICU) need an agreement; open cohorts that stand in "
    "for them are named as such, and what a paper says of its own patients is no "
    "yardstick for them.\n"
)
CLOCKS = ("sampling", "sampling_1000", "metrics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Write the page of all results."""

    folder: tyro.conf.Positional[pathlib.Path] = RESULTS
    """The folder with a folder for each experiment."""


def write_report(arguments: Report) -> pathlib.Path:
    """Writes README.md into the folder.

    Raises:
      InputError: no experiment there has a cell.
    """
    root = arguments.folder
    folders = sorted(path.parent for path in root.glob(f"*/{CELLS}"))
    if not folders:
        raise InputError(f"{root}: no folder there has a {CELLS}.")
    parts = [HEAD, *(section(folder, root) for folder in folders), *others(root)]
    write_text(arguments.folder / "README.md", "\n".join(parts))
    print(arguments.folder / "README.md")
    return arguments.folder / "README.md"


def others(root: pathlib.Path) -> list[str]:
    """Results that are not made of cells: sizes of cohorts, and files of numbers."""
    found = []
    for path in sorted((root / "sizes").glob("*.md")):
        line = f"python -m experiments.{path.stem}"
        found.append(f"## {path.stem}\n\n```sh\n{line}\n```\n\n{path.read_text()}")
    files = sorted([*root.glob("*.json"), *root.glob("*/summary.json")])
    files = [path for path in files if not (path.parent / CELLS).is_file()]
    if files:
        names = [path.relative_to(root).as_posix() for path in files]
        links = "\n".join(f"- [{name}]({name})" for name in names)
        found.append(
            f"## Other numbers\n\nTold in the README of the project.\n\n{links}\n"
        )
    return found


def section(folder: pathlib.Path, root: pathlib.Path) -> str:
    """One experiment: what was run, then its tables and figures."""
    # benchmark-epyc is the suite `benchmark` on other terms.
    name, title = folder.name.partition("-")[0], f"## {folder.name}\n"
    if name not in suites():
        texts = sorted(path.stem for path in folder.glob("*.md"))
        parts = [title, facts(read_cells(folder, {}))]
        if (HERE / f"{name}.py").is_file():
            parts.append(f"The command: `experiments/{name}.py`.\n")
        return "\n".join([*parts, *(entry(folder, root, t, "") for t in texts)])
    suite, done = load_suite(name), cells_of(folder)
    parts = [title, facts(done)]
    if not suite.tables:
        told = measured_by(suite)
        write_text(folder / "table.md", document(done, BLOCKS, measured=told))
        line = command(name, done, suite.variants) + beside(folder, root, done)
        return "\n".join([*parts, entry(folder, root, "table", line)])
    publish(suite, tuple(suite.tables), folder, root / "work")
    for table in suite.tables:
        module = table if (HERE / f"{table}.py").is_file() else name
        own = suite.variants if module == name else suite.tables[table]["variants"]
        made = [cell for cell in done if cell["variant"] in own]
        if made and (folder / f"{table}.md").is_file():
            line = command(module, made, own) + beside(folder, root, done)
            parts.append(entry(folder, root, table, line))
        else:
            parts.append(f"### {table}\n\nNot run.\n")
    return "\n".join([*parts, share_done(suite, done)])


def entry(folder: pathlib.Path, root: pathlib.Path, name: str, line: str) -> str:
    """A table with its command, and the figures that begin with its name."""
    text = (folder / f"{name}.md").read_text()
    text = re.sub(r"^(#+) ", r"##\1 ", text, flags=re.MULTILINE)
    shown = f"```sh\n{line}\n```\n" if line else ""
    pictures = sorted(
        path
        for kind in ("png", "svg")
        for path in folder.glob(f"*.{kind}")
        if name == "table" or path.stem == name or path.stem.startswith(f"{name}-")
    )
    drawn = [f"![{p.stem}]({p.relative_to(root).as_posix()})\n" for p in pictures]
    return "\n".join([f"### {name}\n", shown, text, *drawn])


def command(module: str, done: Found, wanted: Iterable[str] = ()) -> str:
    """The command that made the cells.

    Args:
      wanted: variants that the module runs if none are named.
    """
    cohorts = {cell["cohort"]: f"{cell['cohort']}=..." for cell in done}
    for cell in done:
        if "data" in cell:
            folders = ":".join(cell["data"]["folders"])
            cohorts[cell["cohort"]] = f"{cell['cohort']}={folders}"
    usual = {f.name: f.default for f in dataclasses.fields(Options)}
    flags = [
        f"--{name.replace('_', '-')} {value if value != '' else repr('')}"
        for name, value in done[0]["settings"].items()
        if name in usual and value != usual[name]  # not the numbers of the code
    ]
    made = dict.fromkeys(cell["variant"] for cell in done)
    if set(made) < set(wanted):
        flags.append(f"--only {' '.join(made)}")
    count = 1 + max(cell["seed"] for cell in done)
    if count != usual["seeds"]:
        flags.append(f"--seeds {count}")
    limit = max(cell.get("limit", 0.0) for cell in done)  # of those that ran into it
    if limit:
        flags.append(f"--limit {limit:g}")
    return " ".join([f"python -m experiments.{module}", *cohorts.values(), *flags])


def beside(folder: pathlib.Path, root: pathlib.Path, done: Found) -> str:
    """The flag of a folder that the command would not choose by itself."""
    name = folder.name.partition("-")[0]
    usual = folder_for(root, name, done[0]["settings"]) == folder
    usual |= any(done[0]["settings"].get(key, 1) != n for key, n in CODE.items())
    return "" if usual else f" --out {folder.as_posix()}"


def facts(done: Found) -> str:
    """Cells, seeds, failures, versions, machine and time; whose data they are."""
    good = [cell for cell in done if "failed" not in cell]
    seeds = ", ".join(str(seed) for seed in sorted({cell["seed"] for cell in done}))
    bad = len(done) - len(good)
    failed = f" ({bad} failed)" if bad else ""
    return (
        f"{len(done)} cells{failed}; seeds {seeds}; {made_on(good)}; "
        f"{minutes(good):.0f} minutes by the clock. {whose(done)}\n"
    )


def minutes(done: Found) -> float:
    """Time of all cells, every shared training once."""
    trainings, total = {}, 0.0
    for i, cell in enumerate(done):
        laps = cell.get("seconds", {})
        if "training_clock" not in laps:
            total += sum(laps.values())
            continue
        total += sum(laps.get(f"{part}_clock", 0.0) for part in CLOCKS)
        trained = laps["training_clock"] + laps.get("probe_clock", 0.0)
        trainings[cell.get("training", i)] = trained
    return (total + sum(trainings.values())) / 60


def share_done(suite: Suite, done: Found) -> str:
    """How many of the variants have a cell."""
    variants = {cell["variant"] for cell in done if "failed" not in cell}
    missing = [name for name in suite.variants if name not in variants]
    if not missing:
        return "Every variant has a cell.\n"
    return f"Not run, or failed: {', '.join(missing)}.\n"


if __name__ == "__main__":
    sys.exit(shell(write_report, Report))
