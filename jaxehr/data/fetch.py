"""Download of open data sets from their publisher, on request only.

A set is what a folder of the publisher lists in its SHA256SUMS.txt and `pattern`
matches. A file that is there with its checksum is not fetched again; a part of one is
continued. Every file is checked before it gets its name. The source may also be a
folder with the same files, or another server with them.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxehr.core.checks import InputError
from jaxehr.core.files import PathLike

SUMS = "SHA256SUMS.txt"
BLOCK, TRIES, MANY, SECONDS = 2**20, 3, 50, 60.0
PHYSIONET = "https://physionet.org/files/"


class OpenSet(NamedTuple):
    """Where a set is, which of its files are wanted, and what its licence is."""

    url: str
    pattern: str
    licence: str
    text: str
    prepare: str  # what reads it


SETS = {
    "physionet2012": OpenSet(
        f"{PHYSIONET}challenge-2012/1.0.0/",
        r"(set-[ab]\.tar\.gz|Outcomes-[ab]\.txt)",
        "ODC-By 1.0",
        "PhysioNet/CinC Challenge 2012, sets a and b: 8,000 ICU stays",
        "physionet2012 {out}/set-a.tar.gz",
    ),
    "physionet2019": OpenSet(
        f"{PHYSIONET}challenge-2019/1.0.0/",
        r"training/training_set[AB]/p\d+\.psv",
        "CC BY 4.0",
        "PhysioNet/CinC Challenge 2019: 40,336 ICU stays, one small file each",
        "physionet2019 {out}/training/training_setA",
    ),
    "mimic3-demo": OpenSet(
        f"{PHYSIONET}mimiciii-demo/1.4/",
        r"[A-Z_]+\.csv",
        "ODbL 1.0",
        "MIMIC-III Clinical Database Demo 1.4: 100 patients",
        "mimic3 {out}",
    ),
    "eicu-demo": OpenSet(
        f"{PHYSIONET}eicu-crd-demo/2.0.1/",
        r"[A-Za-z]+\.csv\.gz",
        "ODbL 1.0",
        "eICU Collaborative Research Database Demo 2.0.1: 2,520 stays",
        "eicu {out}",
    ),
}
Watch = Callable[[str, int], Any]  # (text, total) -> context manager with update(done)


class Unreachable(Exception):
    """The source did not answer, or stopped in the middle."""


def fetch(found: OpenSet, out: PathLike, source: str, watch: Watch) -> tuple[int, int]:
    """Fetches the files of a set into `out`.

    Args:
      source: a URL or a folder; empty = the publisher's URL.
      watch: makes the progress bar of a file, or of all where there are many.

    Returns:
      Number of files of the set, and of those fetched now.

    Raises:
      InputError: the source cannot be reached or lists no such file; a file that is
        not there or whose checksum differs after all tries; `out` cannot be written.
    """
    base = source or found.url
    folder = pathlib.Path(out)
    sums = wanted(read_sums(base), found.pattern, base)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lacking = [n for n in sums if not is_whole(folder / n, sums[n])]
        if len(lacking) > MANY:
            with watch(f"{len(lacking)} files", len(lacking)) as bar:
                fetch_many(base, folder, {n: sums[n] for n in lacking}, bar)
        else:
            for name in lacking:
                fetch_one(base, folder, name, sums[name], watch)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}).") from error
    return len(sums), len(lacking)


def fetch_many(base: str, folder: pathlib.Path, sums: dict[str, str], bar: Any) -> None:
    """Small files, eight at a time; the first failure ends all."""
    quiet: Watch = lambda text, total: contextlib.nullcontext()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        load = functools.partial(fetch_one, base, folder, watch=quiet)
        tasks = [pool.submit(load, name, digest) for name, digest in sums.items()]
        try:
            for done, task in enumerate(concurrent.futures.as_completed(tasks), 1):
                task.result()
                bar.update(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def read_sums(base: str) -> dict[str, str]:
    """File name -> SHA-256, from the list beside the files."""
    try:
        if is_url(base):
            with open_url(base, SUMS, 0) as answer:
                text = answer.read().decode("utf-8", "replace")
        else:
            text = (pathlib.Path(base) / SUMS).read_text(encoding="utf-8")
    except (OSError, Unreachable) as error:
        raise InputError(
            f"{base}: {SUMS} cannot be read ({reason(error)}); with a copy at hand, "
            "name its folder: --source FOLDER."
        ) from error
    lines = (re.fullmatch(r"([0-9a-fA-F]{64}) [ *]?(.+)", x) for x in text.splitlines())
    return {line[2].removeprefix("./"): line[1].lower() for line in lines if line}


def wanted(sums: dict[str, str], pattern: str, base: str) -> dict[str, str]:
    """The listed files that belong to the set, sorted."""
    names = sorted(name for name in sums if re.fullmatch(pattern, name))
    if not names:
        raise InputError(
            f"{base}: {SUMS} lists no file like {pattern!r} ({len(sums)} others); is "
            "it the right version?"
        )
    return {name: sums[name] for name in names}


def fetch_one(
    base: str, folder: pathlib.Path, name: str, digest: str, watch: Watch
) -> None:
    """One file, continued where it stopped, checked, then named."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    trouble = ""
    for _ in range(TRIES):
        try:
            load(base, name, part, watch)
        except Unreachable as error:
            trouble = str(error)
            continue
        if is_whole(part, digest):
            os.replace(part, target)
            return
        part.unlink(missing_ok=True)
        trouble = f"its SHA-256 is not {digest[:12]}... as {SUMS} says"
    raise InputError(
        f"{base}: {name} could not be fetched in {TRIES} tries ({trouble}); run the "
        "same command again to go on."
    )


def load(base: str, name: str, part: pathlib.Path, watch: Watch) -> None:
    """Appends to `part` what it lacks of the file."""
    if not is_url(base):
        source = pathlib.Path(base) / name
        if not source.is_file():
            raise Unreachable("no such file there")
        shutil.copyfile(source, part)
        return
    start = part.stat().st_size if part.exists() else 0
    with open_url(base, name, start) as answer:
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        done = start if goes_on else 0
        total = done + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if goes_on else "wb") as out, watch(name, total) as bar:
            try:
                while block := answer.read(BLOCK):
                    out.write(block)
                    done += len(block)
                    if bar is not None:
                        bar.update(done)
            except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
                raise Unreachable(reason(error)) from error
    if done < total:
        raise Unreachable(f"stopped after {done} of {total} bytes")


def open_url(base: str, name: str, start: int) -> Any:
    """The answer of the server, from byte `start` on where it can.

    A server that has nothing after `start` is asked for the whole file.
    """
    url = urllib.parse.urljoin(base.rstrip("/") + "/", urllib.parse.quote(name))
    request = urllib.request.Request(url, headers={"User-Agent": "jaxehr"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        return urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if start and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return open_url(base, name, 0)
        raise Unreachable(f"{url}: {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url}: {reason(error)}") from error


def is_url(base: str) -> bool:
    return base.startswith(("http://", "https://"))


def is_whole(path: pathlib.Path, digest: str) -> bool:
    """Whether the file is there with this SHA-256."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == digest


def reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "reason", "") or error).split())[:200]
