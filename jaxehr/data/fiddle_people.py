"""The stays of FIDDLE's arrays: ids, labels, persons, and FIDDLE's own partition."""

import pathlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Label
from jaxehr.data.columns import listing
from jaxehr.data.fiddle_files import TASK, one_column, read_csv, values_of

ID, MOST_CLASSES = "ID", 10
STAYS = ("id", "icustay_id", "icustayid", "patientunitstayid")
PEOPLE = ("subject_id", "patientid", "uniquepid")


class Place(NamedTuple):
    """Where the files of one task lie."""

    features: pathlib.Path  # the folder with s.npz and X.npz
    root: pathlib.Path  # the folder with population/ and prep/
    task: str  # "" where no name tells


class People(NamedTuple):
    """The stays in the order of the arrays."""

    where: pathlib.Path  # the file that lists them
    ids: np.ndarray
    label: Label | None
    codes: np.ndarray
    groups: np.ndarray | None  # persons, where a file tells
    parts: np.ndarray | None  # FIDDLE's partition; "" for a stay without
    parts_from: str


def read_people(place: Place, population: str = "", label: str = "") -> People:
    """Ids, labels, persons and partition of the stays, in ascending order of id.

    Args:
      population, label: a file and a column in place of those of the release.

    Raises:
      InputError: no list of stays, ids that are not ascending in IDs.csv or repeat, a
        stay without a label, no label column found.
    """
    listed = [place.features / name for name in ("IDs.csv", "S.ID.csv", "s.ID.csv")]
    listed = next((path for path in listed if path.is_file()), None)
    ids = None if listed is None else read_ids(listed, read_csv(listed))
    if ids is not None and (ids[1:] <= ids[:-1]).any():
        raise InputError(f"{listed}: IDs must ascend, as FIDDLE writes them.")
    path = find_population(place, population)
    if path is None and listed and ids is not None and not label:
        zeros = np.zeros(len(ids), np.int32)
        return People(listed, ids, None, zeros, *stay_table(place, ids))
    if path is None:
        raise InputError(
            f"{place.features}: no population file ({place.task or '<task>'}.csv) "
            "in population/; name it: --population FILE."
        )
    table = read_csv(path)
    found = read_ids(path, table)
    order = np.argsort(found, kind="stable")
    repeated = found[order][1:] == found[order][:-1]
    if repeated.any():
        raise InputError(
            f"{path}: every ID must occur once; {found[order][1:][repeated][0]} "
            f"occurs twice ({repeated.sum()} repeat)."
        )
    ids = found[order] if ids is None else ids
    rows = order[lookup(found[order], ids, f"{path}: label missing")]
    outcome, codes = read_label(path, table, place.task, label)
    groups, parts, source = stay_table(place, ids)
    if "partition" in table.column_names:
        parts = values_of(path, table, "partition").astype(str)[rows]
        source = path.name
    return People(path, ids, outcome, codes[rows], groups, parts, source)


def read_ids(path: pathlib.Path, table: pa.Table) -> np.ndarray:
    name = one_column(table, STAYS)
    if name is None:
        raise InputError(
            f"{path}: no column {ID!r}; there are: {listing(table.column_names)}."
        )
    return values_of(path, table, name)


def lookup(ordered: np.ndarray, ids: np.ndarray, what: str) -> np.ndarray:
    """Places of `ids` in the ascending array `ordered`; one that lacks is refused."""
    if ordered.dtype.kind != ids.dtype.kind:
        ordered, ids = ordered.astype(str), ids.astype(str)
        order = np.argsort(ordered)
        return order[lookup(ordered[order], ids, what)]
    at = np.searchsorted(ordered, ids).clip(max=max(len(ordered) - 1, 0))
    lacking = ordered[at] != ids if len(ordered) else np.ones(len(ids), bool)
    if lacking.any():
        raise InputError(
            f"{what} for {lacking.sum()} of {len(ids)} stays, e.g. ID "
            f"{ids[lacking][0]}; add their rows."
        )
    return at


def find_population(place: Place, named: str) -> pathlib.Path | None:
    """The population file: named, or where release and old versions have it."""
    if named:
        path = pathlib.Path(named)
        if not path.is_file():
            raise InputError(f"{path}: no such population file.")
        return path
    names = [place.task]
    if parts := TASK.fullmatch(place.task):
        names.append(f"{parts['name']}_{float(parts['hours'])}h")
        names.append(f"pop.{parts['name']}_benchmark")
    folder = place.root / "population"
    found = [folder / f"{name}.csv" for name in names if name]
    return next((path for path in found if path.is_file()), None)


def read_label(
    path: pathlib.Path, table: pa.Table, task: str, name: str
) -> tuple[Label, np.ndarray]:
    """The label and its codes int32 [rows of the file]."""
    names = table.column_names
    if name:
        known(f"label column in {path}", name, names)
    else:
        parts = TASK.fullmatch(task)
        wanted = f"{parts['name']}_label".lower() if parts else ""
        ends = [n for n in names if n.lower().endswith("_label")]
        exact = [n for n in ends if n.lower() == wanted]
        name = exact[0] if exact else ends[0] if len(ends) == 1 else ""
    if not name:
        raise InputError(
            f"{path}: no single column ends in _LABEL; name one with --label: "
            f"{listing(names)}."
        )
    values = values_of(path, table, name)
    classes, codes = np.unique(values, return_inverse=True)
    if len(classes) > MOST_CLASSES:
        raise InputError(
            f"{path}: label {name!r} has {len(classes)} different values; a label is a "
            f"class with at most {MOST_CLASSES}."
        )
    dtype = "int64" if values.dtype.kind == "i" else "string"
    label = Label(name=name, classes=tuple(classes.tolist()), dtype=dtype)
    return label, codes.reshape(-1).astype(np.int32)


def stay_table(
    place: Place, ids: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """Persons and partition [N] from prep/icustays*.csv, where it has the stays.

    Raises:
      InputError: a table with persons lists some of the stays, and none lists all.
    """
    partial = None
    for path in sorted((place.root / "prep").glob("icustays*.csv"), reverse=True):
        table = read_csv(path)
        stay, person = one_column(table, STAYS), one_column(table, PEOPLE)
        if stay is None:
            continue
        listed = values_of(path, table, stay)
        rows = {str(value): row for row, value in enumerate(listed.tolist())}
        at = np.array([rows.get(str(value), -1) for value in ids.tolist()])
        lacking = at < 0
        if lacking.all():
            continue
        if person and lacking.any():
            partial = partial or (path, lacking)
            continue
        groups = values_of(path, table, person)[at] if person else None
        parts = None
        if "partition" in table.column_names:
            parts = values_of(path, table, "partition").astype(str)[at]
            parts = np.where(lacking, "", parts)
        return groups, parts, f"prep/{path.name}"
    if partial:
        path, lacking = partial
        raise InputError(
            f"{path}: person missing for {lacking.sum()} of {len(ids)} stays, e.g. ID "
            f"{ids[lacking][0]}; add their rows, or move the file away to split by "
            "stay."
        )
    return None, None, ""
