"""Thousands of small delimited files, in a folder or an archive, as one Arrow table.

A set is a folder, .zip, .tar, .tar.gz, .tar.xz or .tar.bz2 that holds one file a stay.
Members are streamed: their bodies are joined to buffers of 16 MB and parsed at once,
so the only loop is over files.
"""

import lzma
import pathlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from jaxehr.core.checks import InputError
from jaxehr.core.files import PathLike

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
BUFFER = 16 * 2**20
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,  # a password; a compression that zipfile lacks (NotImplementedError)
)
STAY, ROW = "stay", "row"


class Format(NamedTuple):
    """How the files of a set look; `pattern` matches the whole name of a file."""

    pattern: str
    delimiter: str
    types: dict[str, Any]  # column -> Arrow type, of the columns that are wanted
    null_values: tuple[str, ...]


def find_sets(paths: Iterable[PathLike], pattern: str) -> list[pathlib.Path]:
    """The folders and archives to read; a folder of archives stands for its archives.

    Raises:
      InputError: no path, no such path, or neither a stay's file nor an archive in it.
    """
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder.")
        if path.is_file():
            if not path.name.lower().endswith(ENDINGS):
                raise InputError(
                    f"{path}: a folder or an archive ({', '.join(ENDINGS)}) is needed."
                )
            found.append(path)
        elif any(re.fullmatch(pattern, item.name) for item in path.rglob("*")):
            found.append(path)
        else:
            archives = [p for p in path.iterdir() if p.name.lower().endswith(ENDINGS)]
            if not archives:
                raise InputError(
                    f"{path}: no file named like {pattern!r} and no archive "
                    f"({', '.join(ENDINGS)}) in this folder."
                )
            found += sorted(archives)
    if not found:
        raise InputError("no path given; name the folder(s) or archive(s) of the sets.")
    return found


def read_members(path: pathlib.Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yields (file name, bytes) of the members whose file name matches `pattern`.

    Raises:
      InputError: the archive is damaged or cannot be read.
    """
    if path.is_dir():
        for item in sorted(path.rglob("*")):
            if re.fullmatch(pattern, item.name) and item.is_file():
                yield item.name, item.read_bytes()
        return
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    last = name.rsplit("/", 1)[-1]
                    if re.fullmatch(pattern, last):
                        yield last, archive.read(name)
            return
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                last = member.name.rsplit("/", 1)[-1]
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is not None and re.fullmatch(pattern, last):
                    yield last, stream.read()
    except DAMAGE as error:
        raise InputError(f"{path}: cannot be read as an archive ({error}).") from error


def read_stays(path: pathlib.Path, form: Format) -> tuple[pa.Table, np.ndarray]:
    """All files of one set.

    Returns:
      The rows of all files: `stay` (number of the file), `row` (number of the row in
      its file, header not counted) and the columns of `form.types`; and the stems of
      the file names [files], sorted.

    Raises:
      InputError: no file, a header without a wanted column, or a value of a wrong type,
        with the file that has it.
    """
    members = sorted(read_members(path, form.pattern))
    if not members:
        raise InputError(f"{path}: no file named like {form.pattern!r} in it.")
    stems = np.array([name.rsplit(".", 1)[0] for name, _ in members])
    parts, chunk, size, first, header = [], [], 0, 0, None
    for number, (name, data) in enumerate(members):
        head, body = split_header(data)
        if head != header and chunk:
            parts.append(parse(path, form, header or "", chunk, first))
            first, chunk, size = number, [], 0
        header = head
        chunk.append((name, body))
        size += len(body)
        if size >= BUFFER:
            parts.append(parse(path, form, header, chunk, first))
            first, chunk, size = number + 1, [], 0
    if chunk:
        parts.append(parse(path, form, header or "", chunk, first))
    return pa.concat_tables(parts), stems


def split_header(data: bytes) -> tuple[str, bytes]:
    """The first line, and the rest without blank lines, each line ended."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    head, _, body = data.lstrip(b"\xef\xbb\xbf\n").partition(b"\n")
    body = body.strip(b"\n")
    while b"\n\n" in body:
        body = body.replace(b"\n\n", b"\n")
    return head.decode("utf-8", "replace").strip(), body + b"\n" if body else b""


def parse(
    path: pathlib.Path,
    form: Format,
    header: str,
    chunk: list[tuple[str, bytes]],
    first: int,
) -> pa.Table:
    """One Arrow table of files that share a header; the first has number `first`."""
    names = [name.strip() for name in header.split(form.delimiter)]
    absent = [name for name in form.types if name not in names]
    if absent:
        raise InputError(
            f"{path}: {chunk[0][0]}: column(s) {absent} missing; the header is "
            f"{header[:120]!r}."
        )
    counts = [body.count(b"\n") for _, body in chunk]
    try:
        table = parse_bytes(b"".join(body for _, body in chunk), names, form)
    except pa.ArrowInvalid as error:
        for name, body in chunk:  # found again alone, to name the file
            try:
                parse_bytes(body, names, form)
            except pa.ArrowInvalid as alone:
                reason = " ".join(str(alone).split())
                raise InputError(f"{path}: {name}: {reason}") from error
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error
    stays = np.repeat(np.arange(first, first + len(chunk), dtype=np.int32), counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rows = (np.arange(len(stays)) - starts).astype(np.int32)
    return table.append_column(STAY, pa.array(stays)).append_column(ROW, pa.array(rows))


def parse_bytes(data: bytes, names: list[str], form: Format) -> pa.Table:
    """The wanted columns of delimited lines; one thread, so errors name the row."""
    if not data:
        return pa.table({name: pa.array([], kind) for name, kind in form.types.items()})
    return pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=form.delimiter, quote_char=False, double_quote=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=form.types,
            include_columns=list(form.types),
            null_values=list(form.null_values),
            strings_can_be_null=False,
        ),
    )
