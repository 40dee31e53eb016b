"""Refuses an output folder before the work, not after it."""

import os
import pathlib

from jaxehr.core.checks import InputError


def check_output(path: pathlib.Path, *, marker: str, overwrite: bool = False) -> None:
    """Raises unless a folder can be made at `path`.

    Args:
      marker: a file that tells a folder of ours, which `overwrite` may replace.
    """
    if path.is_dir() and any(path.iterdir()):
        if not (path / marker).is_file():
            raise InputError(
                f"{path}: is not empty and not ours (no {marker}); choose "
                "another folder."
            )
        if not overwrite:
            raise InputError(
                f"{path}: already exists; choose another folder, or remove it first."
            )
    elif path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; choose another folder.")
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
