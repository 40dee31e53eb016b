"""Typed flags from dataclasses: one parser for every command, one line for an error."""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from jaxehr.core.checks import InputError

WIDE = "4000"  # columns of an error message that is to become one line
REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def comma_list(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A tuple of names is one word with commas, so that a path may follow it."""
    if info.type != tuple[str, ...]:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,...",
        instance_from_str=lambda words: tuple(w for w in words[0].split(",") if w),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(value)],
    )


def flag(
    name: str,
    kind: Any,
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    metavar: str | None = None,
    positional: bool = False,
) -> tuple[str, Any, Any]:
    """One flag for `make_command`; without a default it is required."""
    kind = tyro.conf.Positional[kind] if positional else kind
    hint = {None: "", dataclasses.MISSING: "(required)"}.get(default)
    marks = tyro.conf.arg(metavar=metavar, help=help, help_behavior_hint=hint)
    kind = Annotated[kind, marks]
    return name, kind, dataclasses.field(default=default)


def profile_flag() -> tuple[str, Any, Any]:
    """--profile DIR, the same for every command that has it."""
    return flag(
        "profile",
        pathlib.Path | None,
        "Write a trace of a few dispatches into this folder, for TensorBoard and "
        "Perfetto.",
        None,
        metavar="DIR",
    )


def distributed_flag() -> tuple[str, Any, Any]:
    """--distributed, the same for every command that has it."""
    return flag(
        "distributed",
        bool,
        "One process of a job on several hosts or GPUs: SLURM, Open MPI, TPU pods and "
        "GKE are recognised; else set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and "
        "JAX_PROCESS_ID.",
        False,
    )


def section(
    name: str, kind: type, default: Any = dataclasses.MISSING
) -> tuple[str, Any, Any]:
    """Every field of the dataclass `kind` as a flag without a prefix."""
    marked = Annotated[kind, tyro.conf.arg(name="")]
    return name, marked, dataclasses.field(default=default)


def wants_help(words: list[str]) -> bool:
    return any(word in ("-h", "--help") for word in words)


def read_flags(
    prog: str, text: str, fields: list[Any], words: list[str], shows: str = ""
) -> Any:
    """The words of the shell as an object with these fields.

    Args:
      shows: the command that shows the help, if another one than `prog` --help.

    Raises:
      InputError: an unknown flag, a missing or a wrong value; in one line.
      SystemExit: --help was shown.
    """
    kind = dataclasses.make_dataclass("Arguments", fields, kw_only=True)
    kind.__doc__ = text
    settings: dict[str, Any] = {
        "prog": prog,
        "args": words,
        "config": (tyro.conf.OmitArgPrefixes,),
    }
    with REGISTRY:
        if wants_help(words):
            return tyro.cli(kind, **settings)
        said = io.StringIO()
        # tyro draws the frames that `one_line` reads only for a terminal of UTF-8.
        screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        try:
            with (
                columns(WIDE),
                contextlib.redirect_stderr(said),
                contextlib.redirect_stdout(screen),
            ):
                return tyro.cli(kind, **settings)
        except SystemExit as stop:
            if stop.code in (0, None):  # what completes words in a shell
                screen.seek(0)
                print(screen.read(), end="")
                raise
            raise InputError(one_line(prog, said.getvalue(), shows)) from None


@contextlib.contextmanager
def columns(width: str) -> Iterator[None]:
    """The width of the terminal that tyro sees."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = width
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def one_line(prog: str, box: str, shows: str) -> str:
    """The text of tyro's box: its sections, without help texts and frame."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines():
        if not line.startswith("│"):
            continue
        line = line.strip("│").rstrip()
        if set(line.strip()) == {"─"}:
            sections.append([])
        elif len(line) - len(line.lstrip()) < 8:  # help texts stand further right
            sections[-1].append(line.strip())
    told = [" ".join(lines) for lines in sections if lines]
    told = [line for line in told if not line.startswith("For full helptext")]
    text = "; ".join(told) or " ".join(box.split())
    text = re.sub(r"^Error parsing [^:]*: ", "", text)
    text = text.replace(f"Missing from {prog}:", "missing:")
    text = re.sub(r"^(.*?); Argument helptext: (-\S+ \S+).*$", r"\2: \1", text)
    text = re.sub(r"\s*\((required|default[^()]*)\)", "", text)
    return f"{prog}: {text.rstrip('.')}; see `{shows or f'{prog} --help'}`."
