"""Columns that are measured together, and what a row lacks of each as one code.

A laboratory reports panels and a monitor has several channels, so one column of a panel
tells almost surely which others have a value. Columns that have values in mostly the
same rows form a panel; what is missing of it is a code, ordered by how much that is
(0 = nothing). A model that draws codes cannot tear a panel apart.
M columns, P panels, K codes of the panel that has most.
"""

from typing import NamedTuple

import numpy as np

MOST = 6  # columns of a panel, so that there are at most 64 patterns
LEAST = 0.85  # mean Jaccard index of the rows where two columns have values


class Panels(NamedTuple):
    """What was found in training rows, as arrays."""

    member: np.ndarray  # Int [M]: the panel of a column; -1 if it never varies
    never: np.ndarray  # Bool [M]: no row has a value
    place: np.ndarray  # Int [M]: its bit in the patterns of the panel
    code: np.ndarray  # Int [P, 2^MOST]: of each pattern, or of the nearest one seen
    pattern: np.ndarray  # Int [P, K]: of each code; the last one again behind it
    sizes: np.ndarray  # Int [P]: codes of each panel


def fit(missing: np.ndarray) -> Panels:
    """The panels of rows: Bool [rows, M], True where a value is missing."""
    columns = missing.shape[1]
    share = missing.mean(0) if len(missing) else np.zeros(columns)
    groups = linked(missing, np.flatnonzero((share > 0) & (share < 1)))
    member, place = np.full(columns, -1), np.zeros(columns, int)
    code, patterns = np.zeros((len(groups), 2**MOST), int), []
    for i, group in enumerate(groups):
        member[group], place[group] = i, np.arange(len(group))
        bits = missing[:, group] @ (1 << np.arange(len(group)))
        counts = np.bincount(bits, minlength=2**MOST)
        seen = np.flatnonzero(counts)
        seen = seen[np.lexsort((-counts[seen], ones(seen)))]
        away = ones(np.arange(2**MOST)[:, None] ^ seen).astype(float)
        code[i] = np.argmin(away - counts[seen] / (1.0 + counts.sum()), 1)
        patterns.append(seen)
    sizes = np.array([len(seen) for seen in patterns], int)
    most = sizes.max(initial=1)
    wide = [np.pad(seen, (0, most - len(seen)), "edge") for seen in patterns]
    pattern = np.array(wide, int).reshape(len(groups), most)
    return Panels(member, share == 1, place, code, pattern, sizes)


def linked(missing: np.ndarray, columns: np.ndarray) -> list[list[int]]:
    """Groups of `columns`: the two that are nearest are joined, again and again."""
    there = ~missing[:, columns]
    both = there.T.astype(np.float64) @ there
    count = np.diag(both)
    near = both / np.maximum(count[:, None] + count - both, 1.0)
    np.fill_diagonal(near, 0.0)
    groups = [[int(column)] for column in columns]
    size = np.ones(len(columns))
    while near.size:
        fits = size[:, None] + size <= MOST
        place = int(np.argmax(np.where(fits, near, 0.0)))
        i, j = sorted(divmod(place, len(columns)))
        if near[i, j] < LEAST or not fits[i, j]:
            break
        # the mean over all pairs of both
        near[i] = (size[i] * near[i] + size[j] * near[j]) / (size[i] + size[j])
        near[i, i], near[j] = 0.0, 0.0
        near[:, i], near[:, j] = near[i], 0.0
        size[i] += size[j]
        groups[i], groups[j] = sorted(groups[i] + groups[j]), []
    return [group for group in groups if group]


def ones(bits: np.ndarray) -> np.ndarray:
    """How many bits are set."""
    return np.sum(bits[..., None] >> np.arange(MOST) & 1, -1)


def codes_of(panels: Panels, missing: np.ndarray) -> np.ndarray:
    """Int [.., P] from Bool [.., M]."""
    count = len(panels.sizes)
    bits = np.zeros((*missing.shape[:-1], count), int)
    for column in np.flatnonzero(panels.member >= 0):
        gap = missing[..., column].astype(int) << panels.place[column]
        bits[..., panels.member[column]] += gap
    return panels.code[np.arange(count), bits]


def missing_of(panels: Panels, codes: np.ndarray) -> np.ndarray:
    """Bool [.., M] from Int [.., P]; columns without a panel as they always were."""
    bits = panels.pattern[np.arange(len(panels.sizes)), codes]
    shape = (*codes.shape[:-1], len(panels.member))
    missing = np.broadcast_to(panels.never, shape).copy()
    for column in np.flatnonzero(panels.member >= 0):
        mine = bits[..., panels.member[column]] >> panels.place[column]
        missing[..., column] = mine & 1 == 1
    return missing
