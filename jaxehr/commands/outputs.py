"""Refuses an output folder before the work, not after it."""

import os
import pathlib

from jaxehr.core.checks import InputError
from jaxehr.core.files import Kind, check_free


def check_output(path: pathlib.Path, replaces: Kind | None = None) -> None:
    """Raises unless a folder can be made at `path`.

    Args:
      replaces: the kind of folder that may be replaced, if any may.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; choose another folder.")
    check_free(path, replaces)
    check_writable(path, path.absolute().parent)


def check_writable(shown: object, folder: pathlib.Path) -> None:
    """Raises unless files can be made in a folder, or the folder itself, of which
    `shown` is what the user wrote."""
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise InputError(f"{shown}: {above} is a file; choose another folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{shown}: {above} is not writable; choose another folder.")
