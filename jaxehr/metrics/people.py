"""Drawing people whole: the stays of one person are not independent.

A person is what `Dataset.groups` names; people are numbered by their first stay, so
that their names play no part. N stays.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.cohort import Dataset, take
from jaxehr.core.contracts import Comparison


class People(NamedTuple):
    """Vectors of stays, and the numbers of those whose they are."""

    rows: np.ndarray  # [N, D]
    person: np.ndarray  # Int [N]


def picked(people: People, rows: Any) -> People:
    """The stays `rows`, numbers or a slice."""
    return People(people.rows[rows], people.person[rows])


def joined(one: People, other: People) -> People:
    """Stays below stays, of different people."""
    person = other.person + int(one.person.max(initial=-1)) + 1
    rows = np.concatenate([one.rows, other.rows])
    return People(rows, np.concatenate([one.person, person]))


def numbered(person: np.ndarray) -> np.ndarray:
    """People [N] as numbers 0, 1, ... in the order they come, whatever their names."""
    first, place = np.unique(person, return_index=True, return_inverse=True)[1:]
    return np.argsort(np.argsort(first))[place.reshape(-1)]


def mixed(rng: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """Int [N]: all rows, people in random order, the stays of each side by side."""
    number = numbered(person)
    place = np.argsort(rng.permutation(int(number.max(initial=-1)) + 1))
    return np.argsort(place[number], kind="stable")


def borders(person: np.ndarray) -> np.ndarray:
    """Where the rows [N] of people who stand side by side can be cut between two."""
    return np.flatnonzero(person[1:] != person[:-1]) + 1


def cut(person: np.ndarray, size: int) -> int:
    """Where to cut rows [N] whose people stand side by side: next to `size`, between
    two people, with somebody on both sides (at `size` itself if there is one person).
    """
    between = borders(person)
    if not between.size:
        return size
    return int(between[np.abs(between - size).argmin()])


def at_most(person: np.ndarray, size: int) -> int:
    """Where to cut rows [N] so that about `size` of them stay; N where fewer are."""
    return len(person) if len(person) <= size else cut(person, size)


def halfway(person: np.ndarray) -> int:
    """Where to cut rows [N] whose people stand side by side, for two halves of the
    people: one with most of the rows leaves many people on both sides."""
    between = borders(person)
    if not between.size:
        return len(person) // 2
    return int(between[(between.size + 1) // 2 - 1])


def halves(
    rng: np.random.Generator, person: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two halves of the people, in random order."""
    rows = mixed(rng, person)
    first, other = np.split(rows, [halfway(person[rows])])
    return first, other


def one_each(person: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The first of the rows [n] of every person: they are independent."""
    return rows[np.sort(np.unique(person[rows], return_index=True)[1])]


def as_many(rng: np.random.Generator, real: Comparison) -> Comparison:
    """As many synthetic as training patients: of the larger side some are drawn.

    A distance of samples is the larger the smaller they are, so a reference has to be
    one of as many patients.
    """
    sides = {"train": real.train, "synthetic": real.synthetic}
    size = min(len(data.ids) for data in sides.values())
    return real._replace(**{k: fewer(rng, data, size) for k, data in sides.items()})


def fewer(rng: np.random.Generator, data: Dataset, size: int) -> Dataset:
    """About `size` stays of people drawn at random, in their old order."""
    if len(data.ids) <= size:
        return data
    rows = mixed(rng, data.groups)
    return take(data, np.sort(rows[: cut(data.groups[rows], size)]))
