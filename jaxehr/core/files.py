"""Writing that leaves nothing half done: a temporary sibling, then one rename.

Who may read what is written is the user's choice: it is made as the umask says.
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

from jaxehr.core.checks import InputError

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def new_folder(
    path: PathLike, *, marker: str, overwrite: bool = False
) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that becomes `path` when the block ends without error.

    Args:
      marker: a file name that an existing `path` must contain to count as ours.
      overwrite: whether a folder of ours may be replaced; anything else never is.

    Raises:
      InputError: `path` exists and may not be replaced, or cannot be written.
    """
    target = pathlib.Path(path)
    used = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if used and not (overwrite and (target / marker).is_file()):
        raise InputError(
            f"{target}: already exists; choose another folder, or remove it first."
        )
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
        return json.loads(target.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{target}: no such file.") from None
    except OSError as error:
        raise InputError(f"{target}: cannot be read ({error.strerror}).") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{target}: not valid JSON ({error}).") from error
