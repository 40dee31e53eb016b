"""Sizes of memory as a user writes them: 500MB, 2GB, 1.5 GiB."""

import re

from jaxehr.core.checks import InputError

SIZE = re.compile(r"([1-9][0-9]*(?:\.[0-9]+)?) ?([KMGT])(i?)B")
POWERS = {letter: i + 1 for i, letter in enumerate("KMGT")}


def check_size(name: str, text: str) -> None:
    """Raises InputError unless `text` is a size."""
    if not SIZE.fullmatch(text):
        raise InputError(f"{name} must be a size like 2GB or 500MB, got {text!r}.")


def size_in_bytes(name: str, text: str) -> int:
    """Bytes: 1 kB = 1000, 1 KiB = 1024.

    Raises:
      InputError: not a size.
    """
    check_size(name, text)
    found = SIZE.fullmatch(text)
    assert found is not None
    number, letter, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** POWERS[letter])
