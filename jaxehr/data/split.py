"""Splitting by person with a stable hash: no draw, no order, no state."""

import hashlib

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, take


def fewer(groups: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """Bool [N]: at most `most` of the stays `rows`, by the hash of the person."""
    places = np.flatnonzero(rows)
    order = np.argsort(hashed_share(groups[places], "fewer"), kind="stable")
    kept = np.zeros(len(rows), bool)
    kept[places[order[:most]]] = True
    return kept


def hashed_share(groups: np.ndarray, salt: str = "") -> np.ndarray:
    """A number in [0, 1) for each stay [N], equal for stays of one person.

    It is blake2b(salt + NUL + str(group)) / 2^64, truncated to 53 bits: it depends on
    the person and the salt alone, so adding or reordering stays moves nobody.
    """
    unique, inverse = np.unique(np.asarray(groups), return_inverse=True)
    shares = [one_share(f"{salt}\0{group}") for group in unique]
    return np.array(shares, np.float64)[inverse.reshape(-1)]


def one_share(text: str) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def split(
    data: Dataset, holdout_fraction: float, salt: str = ""
) -> tuple[Dataset, Dataset]:
    """Training and hold-out part; a person with share >= 1 - fraction is held out.

    Args:
      holdout_fraction: the expected share of people held out, in (0, 1).
      salt: another salt gives another split.

    Raises:
      InputError: a fraction outside (0, 1), or a side without any stay.
    """
    held = held_out(data.groups, holdout_fraction, salt)
    return take(data, ~held), take(data, held)


def held_out(groups: np.ndarray, holdout_fraction: float, salt: str = "") -> np.ndarray:
    """Bool [N]: the stays of the hold-out part of `split`."""
    if not 0.0 < holdout_fraction < 1.0:
        raise InputError(
            f"holdout_fraction must lie between 0 and 1, got {holdout_fraction}."
        )
    held = hashed_share(groups, salt) >= 1.0 - holdout_fraction
    if held.all() or not held.any():
        side = "training" if held.all() else "hold-out"
        people = len(np.unique(groups))
        raise InputError(
            f"split: the {side} part is empty: holdout_fraction {holdout_fraction} of "
            f"{people} people. Choose another fraction or salt, or bring more people."
        )
    return held
