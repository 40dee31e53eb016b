"""Encoded patients of one size in a file, to be read in any order.

A record holds all arrays of one patient one after the other, so that one patient is one
read. The file is made once, shard after shard, and is whole or not there.
"""

import os
import pathlib
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.checks import InputError


class Records(NamedTuple):
    """A file of records, and where the record of each patient is.

    Attributes:
      form: the NamedTuple that a batch is; its fields are those of `kind`.
      kind: structured dtype of a record.
      slots: Int [N]: the place of patient i in the file.
    """

    path: pathlib.Path
    form: Any
    kind: np.dtype
    slots: np.ndarray

    def take(self, rows: np.ndarray) -> Any:
        """The patients `rows` [n] as arrays [n, ...]; safe from several threads.

        Raises:
          InputError: the file is gone, or was cut off.
        """
        found = np.empty(len(rows), self.kind)
        # Not a memory map: pages of a map count as memory of the process.
        target, size = memoryview(found.view(np.uint8)), self.kind.itemsize  # type: ignore
        try:
            with self.path.open("rb", buffering=0) as stream:
                for i, slot in enumerate(self.slots[rows].tolist()):
                    stream.seek(slot * size)
                    if stream.readinto(target[i * size : (i + 1) * size]) != size:
                        raise InputError(f"{self.path}: was cut off; train again.")
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read ({error.strerror}); train again."
            ) from error
        names = self.kind.names or ()
        return self.form(*(np.ascontiguousarray(found[name]) for name in names))


def kind_of(batch: Any) -> np.dtype:
    """The dtype of a record of a batch: a NamedTuple of arrays [n, ...]."""
    fields = zip(batch._fields, batch, strict=True)
    return np.dtype([(name, leaf.dtype, leaf.shape[1:]) for name, leaf in fields])


def is_whole(path: pathlib.Path, kind: np.dtype, count: int) -> bool:
    """Whether the file has `count` records."""
    return path.is_file() and path.stat().st_size == count * kind.itemsize


def write_records(path: pathlib.Path, kind: np.dtype, batches: Iterable[Any]) -> None:
    """Writes the patients of the batches in their order, whole or not at all.

    Raises:
      InputError: a full disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as stream:
            for batch in batches:
                records = np.empty(len(batch[0]), kind)
                for name, leaf in zip(batch._fields, batch, strict=True):
                    records[name] = leaf
                records.tofile(stream)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}).") from error
    finally:
        temporary.unlink(missing_ok=True)
