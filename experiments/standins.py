"""Open cohorts that stand in for the papers', prepared on request.

    python -m experiments.standins 2019 2012

Experiments that are called without a cohort take these. They lie in cohorts/; those
that do not are prepared from the folder that JAXEHR_DATA names, with `physionet2012/`
and `physionet2019/` as distributed. Expected: half a minute each on any machine. What
to expect: 15,837 stays of 24 x 7 (2019), 4,000 and 4,000 to test of 12 x 37 and 5
static columns (2012), the same as FIDDLE's binary columns (2012-fiddle).

Who has the papers' cohorts names them instead: MIMIC3=FOLDER after `jaxehr prepare
mimic3 ... --task vitals24` (CDMT-EHR), `--task mortality48`, `arf4` or `jaxehr prepare
fiddle` (FLEXGEN-EHR), and `jaxehr prepare eicu` likewise.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import tyro

from experiments.suite import shell

COHORTS = pathlib.Path("cohorts")
HOURLY_2019 = ("--hours", "24", "--min-hours", "24", "--static", "")


class Part(NamedTuple):
    """One call of `jaxehr prepare`."""

    folder: str  # in `COHORTS`
    source: str
    files: tuple[str, ...]  # in JAXEHR_DATA, the first that is there
    flags: tuple[str, ...]

    def file(self, data: pathlib.Path) -> str:
        """The file or folder that is there; the first, if none is."""
        found = [name for name in self.files if (data / name).exists()]
        return (data / (found or self.files)[0]).as_posix()

    def command(self, data: pathlib.Path) -> list[str]:
        """The arguments of `jaxehr`."""
        out = ["--out", (COHORTS / self.folder).as_posix()]
        return ["prepare", self.source, self.file(data), *self.flags, *out]


def sets_of_2012(suffix: str, *flags: str) -> tuple[Part, ...]:
    """Set a to learn from, set b to test; b takes the columns of a."""
    found = []
    for letter in "ab":
        more = flags
        if flags and letter == "b":
            more = (*flags, "--discretize-like", f"{COHORTS.as_posix()}/2012a{suffix}")
        path = f"physionet2012/set-{letter}"
        files = (f"{path}.tar.gz", f"{path}.tar.xz", f"{path}.zip", path)
        steps = ("--bin-hours", "4", *more)
        found.append(Part(f"2012{letter}{suffix}", "physionet2012", files, steps))
    return tuple(found)


STANDINS: dict[str, tuple[Part, ...]] = {
    "2019": (
        Part(
            "2019a",
            "physionet2019",
            (
                "physionet2019/training/training_setA",
                "physionet2019/training_setA.tar.xz",
                "physionet2019/training_setA.zip",
                "physionet2019/training_setA",
            ),
            HOURLY_2019,
        ),
    ),
    "2012": sets_of_2012(""),
    "2012-fiddle": sets_of_2012("-fiddle", "--discretize", "fiddle"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standins:
    """Prepare open cohorts that stand in for the papers'."""

    names: tyro.conf.Positional[tuple[str, ...]] = tuple(STANDINS)
    """Which."""


def main(arguments: Standins) -> None:
    """Prepares what is not there, then prints what to name."""
    print(" ".join(prepared(arguments.names)))


def prepared(names: tuple[str, ...]) -> tuple[str, ...]:
    """NAME=FOLDER or NAME=TRAIN:TEST of stand-ins, which are prepared if need be.

    Raises:
      InputError: an unknown name; a cohort is not there and JAXEHR_DATA names no folder
        to prepare it from, or that fails.
    """
    from jaxehr.core.checks import known

    for name in names:
        known("stand-in", name, tuple(STANDINS))
    for part in (part for name in names for part in STANDINS[name]):
        if not (COHORTS / part.folder).is_dir():
            prepare(part)
    found = []
    for name in names:
        folders = [(COHORTS / part.folder).as_posix() for part in STANDINS[name]]
        found.append(f"{name}={':'.join(folders)}")
    return tuple(found)


def prepare(part: Part) -> None:
    """Makes one folder, by the command that a user would give."""
    from jaxehr.core.checks import InputError

    data = pathlib.Path(os.environ.get("JAXEHR_DATA") or "DATA")
    if not pathlib.Path(part.file(data)).exists():
        line = " ".join(word or "''" for word in part.command(data))
        raise InputError(
            f"no cohort is named, and the stand-in {COHORTS / part.folder} is not "
            f"there. Run `jaxehr fetch {part.source} --out {data}/{part.source}` and "
            f"set JAXEHR_DATA to {data}, or run `jaxehr {line}`, or name a cohort of "
            "yours as NAME=FOLDER."
        )
    call = [sys.executable, "-m", "jaxehr", *part.command(data)]
    done = subprocess.run(call, capture_output=True, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise InputError(f"{COHORTS / part.folder}: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(shell(main, Standins))
