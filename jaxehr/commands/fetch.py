"""`jaxehr fetch NAME --out FOLDER`: an open data set from its publisher."""

import pathlib
from typing import Any

from jaxehr.commands.flags import flag, read_flags
from jaxehr.core.checks import known
from jaxehr.data.fetch import SETS, fetch
from jaxehr.progress import Progress

FIELDS = [
    flag("name", str, ", ".join(SETS) + ".", metavar="NAME", positional=True),
    flag("out", pathlib.Path, "The folder to fill.", metavar="FOLDER"),
    flag(
        "source",
        str,
        "A folder or a URL with the publisher's files; empty = the publisher.",
        "",
        metavar="URL|FOLDER",
    ),
]


def run(words: list[str]) -> int:
    text = "Download an open data set; nothing else in jaxehr uses the network."
    arguments = read_flags("jaxehr fetch", text, FIELDS, words)
    known("open data set", arguments.name, SETS)
    found = SETS[arguments.name]
    source = arguments.source or found.url
    print(f"{arguments.name}: {found.text}; licence {found.licence}; from {source}")
    files, now = fetch(found, arguments.out, arguments.source, watch)
    print(f"{arguments.out}: {files} files, {now} fetched now, all checksums right")
    print(f"read it: jaxehr prepare {found.prepare.format(out=arguments.out)}")
    return 0


def watch(text: str, total: int) -> Any:
    return Progress(text, total)
