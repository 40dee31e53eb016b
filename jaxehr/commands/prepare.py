"""`jaxehr prepare SOURCE`: records -> cohort folder."""

import dataclasses
import pathlib
import typing
from typing import Any

import tyro

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, num_patients
from jaxehr.core.files import write_json
from jaxehr.registry import SOURCES, find, source_entry


def run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:<14} {entry.text}" for name, entry in SOURCES.items()]
        print("usage: jaxehr prepare SOURCE [PATH ...] --out COHORT\n\nsources:")
        print("\n".join(lines))
        print("\n`jaxehr prepare SOURCE --help` shows the options of a source.")
        return 0
    name, *rest = words
    entry = source_entry(name)
    options = find(entry.options)
    rest = split_lists(options, rest)
    arguments = parse(name, options, entry.takes_paths, rest)
    reader = find(entry.reader)
    found = arguments.options
    data = reader(arguments.paths, found) if entry.takes_paths else reader(found)
    from jaxehr.data.store import save_cohort

    if name == "tables":
        show_schema(data)
    save_cohort(data, arguments.out)
    if arguments.schema_out:
        from jaxehr.data.schema_json import schema_to_json

        write_json(arguments.schema_out, schema_to_json(data.schema))
    print(summary(data, arguments.out))
    return 0


def parse(name: str, options: Any, takes_paths: bool, words: list[str]) -> Any:
    """The arguments of one source: its options as flags, paths, and --out."""
    fields: list[Any] = [
        (
            "options",
            tyro.conf.OmitArgPrefixes[options],
            dataclasses.field(default_factory=options),
        ),
        ("out", pathlib.Path),
        ("schema_out", str, dataclasses.field(default="")),
    ]
    if takes_paths:
        fields.insert(0, ("paths", tyro.conf.Positional[tuple[str, ...]]))
    fields.sort(key=lambda field: len(field))  # those without default first
    kind = dataclasses.make_dataclass("Prepare", fields, kw_only=True)
    kind.__doc__ = (
        f"Read {SOURCES[name].text} into a cohort folder.\n\nArgs:\n"
        "    paths: Folders or archives, as distributed.\n"
        "    out: The cohort folder to make.\n"
        "    schema_out: Also write the schema, to be edited and given to --schema.\n"
    )
    arguments = tyro.cli(kind, prog=f"jaxehr prepare {name}", args=words)
    if takes_paths and not arguments.paths:
        raise InputError(f"prepare {name}: name at least one folder or archive.")
    return arguments


def split_lists(options: type, words: list[str]) -> list[str]:
    """`--variables HR,Temp` becomes `--variables HR Temp` for fields that are lists."""
    hints = typing.get_type_hints(options)
    lists = {
        "--" + name.replace("_", "-")
        for name, hint in hints.items()
        if typing.get_origin(hint) is tuple
    }
    out: list[str] = []
    inside = False
    for word in words:
        flag, _, value = word.partition("=")
        if word.startswith("--"):
            inside = flag in lists
            values = [part for part in value.split(",") if part]
            out += [flag, *values] if inside else [word]
        else:
            out += [part for part in word.split(",") if part] if inside else [word]
    return out


def show_schema(data: Dataset) -> None:
    """The inferred schema as a table, for review."""
    from rich.console import Console
    from rich.table import Table

    from jaxehr.data.tables import schema_table

    rows = schema_table(data)
    table = Table(title="schema (review it; edit schema.json and pass it to --schema)")
    for heading in rows[0]:
        table.add_column(str(heading))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def summary(data: Dataset, out: pathlib.Path) -> str:
    """One paragraph: how many patients, features, steps, and how the label falls."""
    cohort, schema = data.cohort, data.schema
    count = num_patients(cohort)
    text = f"{out}: {count} patients, {len(schema.static)} static features"
    if schema.temporal:
        missing = 1.0 - cohort.temporal.observed[cohort.has_temporal].mean()
        text += (
            f", {len(schema.temporal)} temporal features on {schema.num_steps} steps of "
            f"{schema.step:g} {schema.time_unit} ({missing:.0%} missing)"
        )
    if schema.label:
        shares = [
            f"{value}: {int((cohort.label == code).sum())}"
            for code, value in enumerate(schema.label.classes)
        ]
        text += f"; {schema.label.name}: {', '.join(shares)}"
    return text
