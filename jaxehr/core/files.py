"""Writing that leaves nothing half done: a temporary sibling, then one rename.

Who may read what is written is the user's choice: it is made as the umask says.
"""

import contextlib
import fnmatch
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxehr.core.checks import InputError

PathLike = str | os.PathLike[str]
FOREIGN = (".DS_Store", "._*", "Thumbs.db", "desktop.ini")  # of file managers


class Kind(NamedTuple):
    """A kind of folder that we write, which another one of its kind may replace.

    Attributes:
      name: of one, in messages.
      files: patterns of the paths of all files that it may hold.
      marker: the JSON file that tells what the folder is.
      is_ours: whether the object in the marker is one that we wrote.
    """

    name: str
    files: tuple[str, ...]
    marker: str
    is_ours: Callable[[Mapping[str, Any]], bool]


def check_free(path: PathLike, kind: Kind | None = None) -> None:
    """Raises InputError where something is at `path` that may not be replaced.

    Args:
      kind: what may be replaced if it holds nothing else; None = nothing.
    """
    target = pathlib.Path(path)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if kind is None or not target.is_dir():
        raise InputError(
            f"{target}: already exists; choose another folder, or remove it first."
        )
    try:
        said = read_json(target / kind.marker)
    except InputError:
        said = None
    if not isinstance(said, dict) or not kind.is_ours(said):
        raise InputError(
            f"{target}: already exists and is no {kind.name} of ours ({kind.marker} "
            "does not say so); choose another folder."
        )
    patterns = *kind.files, *(p for name in FOREIGN for p in (name, f"*/{name}"))
    for inner in sorted(target.rglob("*")):
        name = inner.relative_to(target).as_posix()
        known = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        if not known and (inner.is_symlink() or not inner.is_dir()):
            raise InputError(
                f"{target}: holds {name}, which is not of a {kind.name} and would be "
                "lost; move it away, or choose another folder."
            )


@contextlib.contextmanager
def new_folder(
    path: PathLike, *, replaces: Kind | None = None
) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that becomes `path` when the block ends without error.

    Args:
      replaces: the kind of folder that may be replaced; anything else never is.

    Raises:
      InputError: `path` exists and may not be replaced, or cannot be written.
    """
    target = pathlib.Path(path)
    check_free(target, replaces)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = sibling(target)
        temporary.mkdir()
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror or error})."
        ) from error
    try:
        yield temporary
        replace_folder(temporary, target)
    except OSError as error:
        if error.errno is None:
            raise
        raise InputError(f"{target}: cannot be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sibling(target: pathlib.Path, kind: str = "") -> pathlib.Path:
    """A hidden name beside `target` that nothing has yet."""
    return target.parent / f".{target.name}.{kind}{secrets.token_hex(4)}"


def replace_folder(source: pathlib.Path, target: pathlib.Path) -> None:
    """Moves `source` to `target`; an old one is back in place after any error.

    Only a process that is killed between the two renames leaves it beside the target,
    as .NAME.old.*.
    """
    if not target.exists():
        os.rename(source, target)
        return
    old = sibling(target, "old.")
    try:
        os.rename(target, old)
        os.rename(source, target)
    finally:  # also Ctrl-C, which may come after either of them
        if old.exists() and not target.exists():
            os.rename(old, target)
        if old.is_symlink():
            old.unlink()
        else:
            shutil.rmtree(old, ignore_errors=True)


def write_text(path: PathLike, text: str) -> None:
    """Writes a whole file or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes a whole file or nothing."""
    target = pathlib.Path(path)
    temporary = sibling(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())  # or a name may outlive what it names
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}).") from error


def write_json(path: PathLike, value: Any) -> None:
    write_text(
        path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_json(path: PathLike) -> Any:
    """Reads a JSON file; a missing or broken one is an `InputError` with its place."""
    target = pathlib.Path(path)
    try:
        # Editors of Windows write a mark at the start of UTF-8.
        return json.loads(target.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{target}: no such file.") from None
    except OSError as error:
        raise InputError(f"{target}: cannot be read ({error.strerror}).") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{target}: not valid JSON ({error}).") from error
