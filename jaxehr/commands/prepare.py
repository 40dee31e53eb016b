"""`jaxehr prepare SOURCE`: records -> cohort folder."""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

from jaxehr.commands.flags import flag, read_flags, section
from jaxehr.commands.listing import lines, sources
from jaxehr.commands.outputs import check_output
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Dataset, num_patients, valid_steps
from jaxehr.core.sparse import SparseTable, density
from jaxehr.registry import SOURCES, find, source_entry

USAGE = """usage: jaxehr prepare SOURCE [PATH ...] --out COHORT [OPTIONS]

Read records into a cohort folder: two Parquet tables, a schema.json.

sources:
{sources}

`jaxehr prepare SOURCE --help` shows the options of a source.
"""


DISCRETIZE = [
    flag(
        "discretize",
        Literal["none", "fiddle"],
        "Turn columns into binary ones, as FIDDLE does: quintile bins, categories, "
        "masks, times since the last value.",
        "none",
    ),
    flag(
        "discretize_holdout",
        float,
        "Share of people whose values choose no edge and no column: those whom `train` "
        "holds out; 0 fits on everybody.",
        0.2,
    ),
    flag(
        "discretize_like",
        pathlib.Path | None,
        "Take the edges and columns of this discretized cohort instead.",
        None,
        metavar="COHORT",
    ),
]


def run(words: list[str]) -> int:
    if words and words[0] in ("-h", "--help"):
        print(USAGE.format(sources="\n".join(lines(sources()))), end="")
        return 0
    if not words:
        raise InputError(f"prepare: name a source; known: {', '.join(SOURCES)}.")
    name, *rest = words
    entry = source_entry(name)
    arguments = parse(name, rest)
    from jaxehr.data.store import MARKER, save_cohort

    check_output(arguments.out, marker=MARKER)
    change = discretizer(arguments)
    found, reader = arguments.options, find(entry.reader)
    with told():
        data = reader(arguments.paths, found) if entry.takes_paths else reader(found)
    data = change(data)
    save_cohort(data, arguments.out)
    if name == "tables" and arguments.discretize == "none":
        show_schema(data, arguments.out / MARKER)
    print(summary(data, arguments.out))
    return 0


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Prints the steps that a reader logs."""
    log, handler = (
        logging.getLogger("jaxehr.prepare"),
        logging.StreamHandler(sys.stdout),
    )
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def discretizer(arguments: Any) -> Callable[[Dataset], Dataset]:
    """What makes the columns of a cohort binary; without --discretize nothing does."""
    from jaxehr.data.discretize import DiscretizeOptions, apply, discretize, rule_of
    from jaxehr.data.store import load_cohort

    like = arguments.discretize_like
    if arguments.discretize == "none":
        if like:
            raise InputError("prepare: --discretize-like needs --discretize fiddle.")
        return lambda data: data
    if like:
        rule = rule_of(load_cohort(like), str(like))
        return lambda data: apply(rule, data)
    options = DiscretizeOptions(holdout_fraction=arguments.discretize_holdout)
    return lambda data: discretize(data, options)


def parse(name: str, words: list[str]) -> Any:
    """The arguments of one source: its options as flags, paths, and --out."""
    entry = source_entry(name)
    fields = [
        flag("out", pathlib.Path, "The cohort folder to make.", metavar="COHORT"),
        *DISCRETIZE,
        section("options", find(entry.options)),
    ]
    if entry.takes_paths:
        text = "Folders or archives as distributed; several sets at once."
        fields.insert(
            0,
            flag("paths", list[str], text, metavar="PATH [PATH ...]", positional=True),
        )
    text = f"Read {entry.text}, into a cohort folder."
    arguments = read_flags(f"jaxehr prepare {name}", text, fields, words)
    if entry.takes_paths and not arguments.paths:
        raise InputError(f"prepare {name}: name at least one folder or archive.")
    return arguments


def show_schema(data: Dataset, path: pathlib.Path) -> None:
    """The schema as a table, for review."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from jaxehr.data.tables import HEADER, schema_table

    table = Table(*HEADER, title="schema", title_justify="left")
    for row in schema_table(data.schema, data):
        table.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else 120  # not cut in a file
    Console(highlight=False, width=width).print(table)
    print(f"to change it: edit a copy of {path}, then prepare again with --schema COPY")


def summary(data: Dataset, out: pathlib.Path) -> str:
    """One line: how many patients, features, steps, and how the label falls."""
    cohort, schema = data.cohort, data.schema
    text = f"{out}: {num_patients(cohort)} patients, {len(schema.static)} static"
    if not schema.temporal:
        text += " features"
    else:
        text += (
            f" and {len(schema.temporal)} temporal features, {schema.num_steps} steps "
            f"of {schema.step:g} {schema.time_unit} ({filled(cohort)})"
        )
    if schema.label:
        shares = [
            f"{value}: {int((cohort.label == code).sum())}"
            for code, value in enumerate(schema.label.classes)
        ]
        text += f"; label {schema.label.name} ({', '.join(shares)})"
    return text + notes(data)


def filled(cohort: Cohort) -> str:
    """How much of the temporal table is missing; of a sparse one, how much is 1."""
    if isinstance(cohort.temporal, SparseTable):
        return f"{density(cohort.temporal):.1%} ones"
    seen = cohort.temporal.observed[valid_steps(cohort)]
    missing = 1.0 - seen.mean() if seen.size else 1.0
    return f"{missing:.0%} missing"


def notes(data: Dataset) -> str:
    """The split that came with the data, and the people that bins were fitted on."""
    text = ""
    if data.provenance.get("source") == "fiddle":
        found = data.provenance["partition"]
        text += "; no partition in the files"
        if found:
            sizes = ", ".join(f"{name} {n}" for name, n in found["stays"].items())
            text = f"; partition in {found['source']} ({sizes})"
    rule = data.provenance.get("discretize")
    return text + (f"; bins fitted on {rule['fitted_on']} patients" if rule else "")
