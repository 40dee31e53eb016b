"""Tables of the benchmark: one row a model, one table a cohort.

    python -m experiments.tables results/benchmark

Reads cells.jsonl and writes table.md beside it: mean and standard deviation over seeds,
the same numbers of real people first. Takes a second.
"""

import dataclasses
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tyro

from experiments.cells import (
    CELLS,
    Column,
    Found,
    at,
    column,
    fell_back,
    found_at,
    made_on,
    metric,
    spread,
)
from experiments.figures import draw, draw_schedules
from experiments.standins import prepared
from experiments.suite import Options, Suite, load_suite, run_suite, shell, suites
from jaxehr.core.checks import InputError
from jaxehr.core.files import write_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """Write the tables of a benchmark."""

    folder: tyro.conf.Positional[pathlib.Path] = pathlib.Path("results/benchmark")
    """Folder of cells.jsonl; table.md is written there."""


QUALITY = (
    metric("AUROC networks ↑", "tstr_mean"),
    metric("AUROC forest ↑", "forest_auroc"),
    metric("AUROC logistic ↑", "logistic_auroc"),
    metric("C2ST boosting ↓", "c2st_boosting"),
    metric("C2ST logistic ↓", "c2st_logistic"),
    metric("R² ↑", "dimension_r2_score"),
    metric("MMD² x 1000 ↓", "mmd_squared", 2, 1000.0),
    metric("correlation ↓", "correlation_mae"),
    metric("TVD ↓", "tvd"),
    metric("KS ↓", "ks"),
    metric("ACF x 1000 ↓", "acf_mse", 2, 1000.0),
    metric("transitions ↓", "transition_distance"),
    metric("missing rate ↓", "missing_rate_mae"),
)
PRIVACY = (
    metric("membership AUROC → 0.5", "membership_hamming_auroc"),
    metric("NNAA loss → 0", "nnaa_loss"),
    metric("exact copies ↓", "exact_copies"),
)
COST = (
    Column("steps", "steps", 0),
    Column("parameters", "parameters", 0),
    Column("training, s", "seconds.training", 0),
    Column("1,000 patients, s", "seconds.sampling_1000", 2),
    Column("memory, GiB", "peak_bytes", 1, 2.0**-30),
)
PUBLISHED = pathlib.Path(__file__).parent / "published.json"
# Sources of the papers' cohorts; everything else stands in for them.
PAPERS = ("mimic3", "eicu", "fiddle")
BLOCKS = {"Quality": QUALITY, "Privacy": PRIVACY, "Cost": COST}


def main(arguments: Tables) -> None:
    """Reads the cells and writes the tables."""
    done, name = cells_of(arguments.folder), arguments.folder.name.partition("-")[0]
    told = measured_by(load_suite(name)) if name in suites() else ""
    text = document(done, BLOCKS, measured=told)
    write_text(arguments.folder / "table.md", text)
    print(arguments.folder / "table.md")


def cells_of(folder: pathlib.Path) -> Found:
    """The cells of a folder.

    Raises:
      InputError: there is none.
    """
    path = folder / CELLS
    text = path.read_text() if path.is_file() else ""
    lines = text.splitlines(keepends=True)
    done = latest([json.loads(line) for line in lines if line.endswith("\n")])
    if not done:
        raise InputError(f"{path}: there is no cell; run the experiment first.")
    return done


def paper_table(suite_name: str, *names: str) -> Callable[[Options], None]:
    """The entry point of published tables: runs their cells, then writes NAME.md.

    Args:
      names: of the suite's tables; none = all of them.
    """

    def main(options: Options) -> None:
        suite = load_suite(suite_name)
        wanted = names or tuple(suite.tables)
        used = dict.fromkeys(v for n in wanted for v in suite.tables[n]["variants"])
        only = options.only or tuple(used)
        cohorts = options.cohorts or prepared(suite.standins)
        options = dataclasses.replace(options, cohorts=cohorts)
        out = run_suite(suite, dataclasses.replace(options, only=only))
        for path in publish(suite, wanted, out, options.trainings()):
            print(path)

    return main


def publish(
    suite: Suite, names: Iterable[str], out: pathlib.Path, work: pathlib.Path
) -> list[pathlib.Path]:
    """Writes the tables and the figures of the cells that are done beside them.

    Args:
      work: the folder of trainings.
    """
    paths, every = [], cells_of(out)
    for name in names:
        spec = suite.tables[name]
        places = {variant: i for i, variant in enumerate(spec["variants"])}
        done = [cell for cell in every if cell["variant"] in places]
        done.sort(key=lambda cell: places[cell["variant"]])
        if not done:
            continue
        columns = tuple(map(column, spec["columns"]))
        if "relative" in spec:
            columns += (relative(done, **spec["relative"]),)
        blocks, interval = {spec["title"]: columns}, spec.get("interval", False)
        text = document(done, blocks, interval, measured_by(suite))
        if "paper" in spec:
            text += f"\nThe paper, of its own patients: {spec['paper']}\n"
        text += published(name)
        write_text(out / f"{name}.md", text)
        paths.append(out / f"{name}.md")
        if "figure" in spec:
            paths += draw(done, spec["figure"], columns, out, name)
        if "schedule" in spec:
            drawn = draw_schedules(done, spec["schedule"], work, out, name)
            if not drawn and not any(out.glob(f"{name}-*.svg")):
                print(f"{name}: rho is not drawn; its training is not in {work}.")
            paths += drawn
    return paths


def measured_by(suite: Suite) -> str:
    """How much the networks learn that measure utility or tell patients apart; "" =
    there are none."""
    if not {"tstr", "c2st_lstm", "augmentation"} & set(suite.metrics):
        return ""
    from jaxehr.core.configs import replace
    from jaxehr.metrics.evaluate import QUICK

    config = replace(QUICK, suite.quick)
    rows = f"at most {config.max_rows:,} people" if config.max_rows else "all people"
    flat = f" ({config.mlp_epochs} of the MLP)" if "c2st_mlp" in suite.metrics else ""
    return (
        f"Networks that measure: {config.seeds} seeds of {config.epochs} passes{flat} "
        f"over {rows} a side. "
    )


def published(name: str) -> str:
    """What a paper says of its own patients, under its own heading; "" = nothing."""
    found = json.loads(PUBLISHED.read_text()).get(name)
    if found is None:
        return ""
    rows = [["", *found["columns"]], ["---", *["---:"] * len(found["columns"])]]
    lines = [f"| {' | '.join(row)} |" for row in [*rows, *found["rows"]]]
    text = f"The paper, of its own patients. {found.get('note', '')}".strip()
    return "\n".join(["", "## As published", "", text, "", *lines, ""])


def relative(done: Found, title: str, path: str, to: str) -> Column:
    """A column of the number at `path` over that of the variant `to`, which is written
    into the cells."""
    base = {
        (cell["cohort"], cell["seed"]): at(cell, path)
        for cell in done
        if cell["variant"] == to
    }
    for cell in done:
        of = base.get((cell["cohort"], cell["seed"]), 0.0)
        cell["relative"] = at(cell, path) / of if of > 0 else None
    return Column(title, "relative", 1)


def document(
    done: Found,
    blocks: dict[str, tuple[Column, ...]],
    interval: bool = False,
    measured: str = "",
) -> str:
    """All tables as Markdown, and how their numbers were made.

    Args:
      interval: show that of a number where there is one seed.
      measured: see `measured_by`.
    """
    return "\n".join([*sections(done, blocks, interval), note(done, measured)])


def latest(done: Found) -> Found:
    """One line a cell: a repetition counts instead of the failure before it."""
    found = {(c["cohort"], c["variant"], c["seed"]): c for c in done}
    return list(found.values())


def sections(
    done: Found, blocks: dict[str, tuple[Column, ...]], interval: bool = False
) -> list[str]:
    """Markdown of every cohort: a title, and a table of each block of columns."""
    found = []
    for cohort in dict.fromkeys(cell["cohort"] for cell in done):
        cells = [cell for cell in done if cell["cohort"] == cohort]
        good = [cell for cell in cells if "failed" not in cell]
        found.append(f"## {cohort}\n")
        if good:
            sizes = good[0]["people"]
            found.append(
                f"{sizes['fit']} people to learn from, {sizes['valid']} to choose the "
                f"average by, {sizes['test']} held out.\n"
            )
            found += [table(name, cs, good, interval) for name, cs in blocks.items()]
            found += doubts(good)
        found += [
            f"{cell['variant']}, seed {cell['seed']}, failed: {cell['failed']}\n"
            for cell in cells
            if "failed" in cell
        ]
    return found


def table(
    name: str, columns: tuple[Column, ...], cells: Found, interval: bool = False
) -> str:
    """One block of columns: real people first, then models in the order they ran; at
    last why numbers are not defined."""
    told = lambda c: spread(cells, c.path)[2] or any(why_not(x, c) for x in cells)
    columns = tuple(filter(told, columns))
    rows = [[name, *(c.title for c in columns), "seeds"]]
    rows.append(["---", *(["---:"] * (len(columns) + 1))])
    if any(column.reference for column in columns):
        rows += real_people(columns, cells)
    for model in dict.fromkeys(cell["variant"] for cell in cells):
        own = [cell for cell in cells if cell["variant"] == model]
        numbers = [shown(own, c.path, c, interval) for c in columns]
        rows.append([model + fell_back(own), *numbers, str(len(own))])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, *undefined(columns, cells), ""])


def real_people(columns: tuple[Column, ...], cells: Found) -> list[list[str]]:
    """A row of real people; one for each group of variants where these stand beside
    other numbers of theirs, as where a metric sees real people in another form."""
    row = lambda each: [
        shown(each, c.reference, c) if c.reference else "" for c in columns
    ]
    groups: list[tuple[list[str], dict[int, dict[str, Any]]]] = []
    for variant in dict.fromkeys(cell["variant"] for cell in cells):
        own = {cell["seed"]: cell for cell in cells if cell["variant"] == variant}
        for names, each in groups:
            if all(row([each.get(seed, c)]) == row([c]) for seed, c in own.items()):
                names.append(variant)
                each.update(own)
                break
        else:
            groups.append(([variant], own))
    of = lambda names: f" of {', '.join(names)}" if len(groups) > 1 else ""
    return [
        [f"real people{of(names)}", *row(list(each.values())), ""]
        for names, each in groups
    ]


def why_not(cell: dict[str, Any], column: Column) -> str:
    """Why a metric is not defined; "" = it is, or it was not asked for."""
    return found_at(cell, column.reason) or "" if column.reason else ""


def undefined(columns: tuple[Column, ...], cells: Found) -> Iterator[str]:
    """The reasons why numbers are not defined, and which."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for c, cell in itertools.product(columns, cells):
        if reason := why_not(cell, c):
            titles, variants = found.setdefault(reason, ({}, {}))
            titles[c.title], variants[cell["variant"]] = None, None
    for reason, (titles, variants) in found.items():
        yield f"\n- {', '.join(titles)} of {', '.join(variants)}: {reason.rstrip('.')}."


def doubts(cells: Found) -> Iterator[str]:
    """What is doubtful of the people that were compared, and in whose cells."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for said in cell.get("notes", ()):
            found.setdefault(said, {})[cell["variant"]] = None
    yield from (f"{', '.join(names)}: {said}\n" for said, names in found.items())


def shown(cells: Found, path: str, column: Column, interval: bool = False) -> str:
    """Mean and standard deviation over seeds as text; an interval of one seed."""
    mean, std, count = spread(cells, path)
    if not count:
        return "-"
    number = lambda value: f"{value:,.{column.digits}f}"
    place = lambda value: number(value * column.scale + column.offset)
    if count > 1:
        return f"{place(mean)} ± {number(std * column.scale)}"
    low, high = (
        spread(cells, path.replace(".value", end))[0] for end in (".low", ".high")
    )
    if not interval or path != column.path or low != low:
        return place(mean)
    return f"{place(mean)} ({place(low)} to {place(high)})"


def note(done: Found, measured: str = "") -> str:
    """How the numbers were made, and of whom."""
    settings = done[0]["settings"]
    return (
        f"Training time of each model: {settings['seconds']:.0f} s (of all processors "
        f"together on a CPU), preset {settings['preset']} where a model has it. Mean ± "
        "standard deviation over seeds; ↑ higher is better, ↓ lower is better; real "
        "people: the same number of real training against real held-out people. "
        f"{measured}{whose(done)} Machines: {made_on(done)}.\n"
    )


def whose(done: Found) -> str:
    """A sentence: are they the papers' patients, or open stand-ins?"""
    found: dict[str, set[str]] = {}
    for cell in done:
        if source := cell.get("data", {}).get("source"):
            found.setdefault(source, set()).add(cell.get("cohort", "these patients"))
    if not found:
        return "Whose data they are was not recorded."
    said = []
    for source, cohorts in sorted(found.items()):
        names = f"{', '.join(sorted(cohorts))} ({source})"
        if source in PAPERS:
            said.append(f"{names}: a source of the papers; compare the sizes first.")
        else:
            said.append(
                f"{names}: an open stand-in, not the papers' patients; no number of "
                "the papers can be compared with these."
            )
    return " ".join(said)


if __name__ == "__main__":
    sys.exit(shell(main, Tables))
