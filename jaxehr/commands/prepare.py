"""`jaxehr prepare SOURCE`: records -> cohort folder."""

import contextlib
import logging
import math
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

from jaxehr.commands.flags import flag, read_flags, section
from jaxehr.commands.listing import lines, sources
from jaxehr.commands.outputs import check_output
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort, Dataset, num_patients, valid_steps
from jaxehr.core.sparse import SparseTable
from jaxehr.registry import SOURCES, find, source_entry

USAGE = """usage: jaxehr prepare SOURCE [PATH ...] --out COHORT [OPTIONS]

Read records into a cohort folder: two Parquet tables, a schema.json.

sources:
{sources}

`jaxehr prepare SOURCE --help` shows the options of a source.
"""


MOST_SHARDS = 10_000
SHARDS = flag(
    "shards",
    int,
    "Parts of the cohort on disk, people by hashed id; 0 = one up to 1 GiB of values, "
    "above it parts of about 128 MiB. `train` need not have them in memory together.",
    0,
)
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
        float | None,
        "Share of people whose values choose no edge and no column: those whom `train` "
        "holds out; by default 0.2, and 0 fits on everybody.",
        None,
        metavar="FLOAT",
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
    arguments = parse(name, rest)
    if arguments.shards < 0 or arguments.shards > MOST_SHARDS:
        raise InputError(
            f"shards must lie in [0, {MOST_SHARDS}], got {arguments.shards}."
        )
    from jaxehr.data.store import MARKER, save_parts

    check_output(arguments.out)
    told = Summary()
    with progress_told(), opened(name, arguments) as parts:
        save_parts(parts, arguments.out, told.add)
    if name == "tables" and arguments.discretize == "none" and parts.whole:
        show_schema(parts.whole, arguments.out / MARKER)
    print(told.text(arguments.out, parts.number))
    return 0


@contextlib.contextmanager
def opened(name: str, arguments: Any) -> Iterator[Any]:
    """The cohort in its shards: made one by one where the source can, else cut."""
    from jaxehr.data.shards import parts_of

    entry, options = source_entry(name), arguments.options
    change = discretizer(arguments)
    if entry.parts and arguments.discretize == "none":
        with find(entry.parts)(arguments.paths, options, arguments.shards) as parts:
            yield parts
        return
    reader = find(entry.reader)
    data = reader(arguments.paths, options) if entry.takes_paths else reader(options)
    yield parts_of(change(data), arguments.shards)


@contextlib.contextmanager
def progress_told() -> Iterator[None]:
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

    like, held = arguments.discretize_like, arguments.discretize_holdout
    for name, value in (("like", like), ("holdout", held)):
        if value is not None and arguments.discretize == "none":
            raise InputError(f"prepare: --discretize-{name} needs --discretize fiddle.")
    if like and held is not None:
        raise InputError(
            "prepare: --discretize-like takes edges and columns as they are; leave "
            "--discretize-holdout out."
        )
    if arguments.discretize == "none":
        return lambda data: data
    if like:
        rule = rule_of(load_cohort(like), str(like))
        return lambda data: apply(rule | {"like": like.name}, data)
    given = {} if held is None else {"holdout_fraction": held}
    options = DiscretizeOptions(**given)
    return lambda data: discretize(data, options)


def parse(name: str, words: list[str]) -> Any:
    """The arguments of one source: its options as flags, paths, and --out."""
    entry = source_entry(name)
    fields = [
        flag("out", pathlib.Path, "The cohort folder to make.", metavar="COHORT"),
        SHARDS,
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

    from jaxehr.data.schema_rows import HEADER, schema_table

    table = Table(*HEADER, title="schema", title_justify="left")
    for row in schema_table(data.schema, data):
        table.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else 120  # not cut in a file
    Console(highlight=False, width=width).print(table)
    print(f"to change it: edit a copy of {path}, then prepare again with --schema COPY")


def summary(data: Dataset, out: pathlib.Path) -> str:
    """One line: how many patients, features, steps, and how the label falls."""
    told = Summary()
    told.add(data)
    return told.text(out)


class Summary:
    """What is told of a cohort, from its parts.

    Attributes:
      last: the part that came last.
    """

    def __init__(self) -> None:
        self.last: Dataset | None = None
        self.patients, self.shown, self.cells = 0, 0, 0
        self.labels: dict[int, int] = {}

    def add(self, data: Dataset) -> None:
        """Counts the patients, labels and cells of a part."""
        cohort, self.last = data.cohort, data
        self.patients += num_patients(cohort)
        shown, cells = filled(cohort)
        self.shown, self.cells = self.shown + shown, self.cells + cells
        for code in range(data.schema.num_classes):
            count = int((cohort.label == code).sum())
            self.labels[code] = self.labels.get(code, 0) + count

    def text(self, out: pathlib.Path, shards: int = 1) -> str:
        """The line that ends `prepare`."""
        assert self.last is not None
        schema = self.last.schema
        text = f"{out}: {self.patients} patients, {len(schema.static)} static"
        if not schema.temporal:
            text += " features"
        else:
            text += (
                f" and {len(schema.temporal)} temporal features, {schema.num_steps} "
                f"steps of {schema.step:g} {schema.time_unit} ({self.density()})"
            )
        if schema.label:
            shares = [
                f"{value}: {self.labels[code]}"
                for code, value in enumerate(schema.label.classes)
            ]
            text += f"; label {schema.label.name} ({', '.join(shares)})"
        text += f"; in {shards} shards" if shards > 1 else ""
        return text + notes(self.last)

    def density(self) -> str:
        """How much of the temporal table is missing; of a sparse one, how much is 1."""
        assert self.last is not None
        share = self.shown / self.cells if self.cells else math.nan
        if isinstance(self.last.cohort.temporal, SparseTable):
            return f"{share:.1%} ones"
        return f"{1.0 - share if self.cells else 1.0:.0%} missing"


def filled(cohort: Cohort) -> tuple[int, int]:
    """Observed cells (of a sparse table, ones) and cells of valid steps."""
    if isinstance(cohort.temporal, SparseTable):
        table = cohort.temporal
        return len(table.cells), int(table.length.sum(dtype="int64")) * table.features
    seen = cohort.temporal.observed[valid_steps(cohort)]
    return int(seen.sum()), seen.size


def notes(data: Dataset) -> str:
    """What came or did not come with the data: split, persons, stays, bins."""
    text = ""
    if data.provenance.get("source") == "fiddle":
        found = data.provenance["partition"]
        text += "; no partition in the files"
        if found:
            sizes = ", ".join(f"{name} {n}" for name, n in found["stays"].items())
            text = f"; partition in {found['source']} ({sizes})"
        if data.schema.group is None:
            text += f"; persons {data.provenance['persons']}"
    alone = data.provenance.get("unmatched") or {"static": 0, "temporal": 0}
    if any(alone.values()):
        text += f"; only in static: {alone['static']} stays, "
        text += f"only in temporal: {alone['temporal']}"
    outside = data.provenance.get("outside")
    if outside and outside["rows"]:
        text += f"; {outside['rows']} rows lie outside the window and are left out"
        text += f", {outside['stays']} stays have no other row"
    rule = data.provenance.get("discretize")
    return text + (f"; bins fitted on {rule['fitted_on']} patients" if rule else "")
