"""What the encodings of several models share: host arrays, codes, missing columns."""

from collections.abc import Iterable

import numpy as np

from jaxehr.core.cohort import Cohort, Feature, Table, coded_features
from jaxehr.core.sparse import SparseTable


def host(cohort: Cohort) -> Cohort:
    """The cohort as NumPy arrays; a sparse table stays sparse."""
    static, temporal = cohort.static, cohort.temporal
    if not isinstance(temporal, SparseTable):
        temporal = Table(*map(np.asarray, temporal))
    static = Table(*map(np.asarray, static))
    return Cohort(static, temporal, *map(np.asarray, cohort[2:]))


def sizes(features: tuple[Feature, ...]) -> tuple[int, ...]:
    """Cardinality of every coded feature, constants included."""
    return tuple(f.cardinality for f in coded_features(features))


def small(codes: np.ndarray, cardinalities: Iterable[int]) -> np.ndarray:
    """Codes in one byte where those of all columns fit: they are most of a cohort's
    memory.

    JAX counts the categories of a column, a mask among them, in the dtype of its codes:
    that depends on how many there may be, not on those that are there.
    """
    fits = max(cardinalities, default=0) < 128
    return codes.astype(np.int8 if fits else np.int32)


def missing_shares(observed: np.ndarray) -> np.ndarray:
    """Float64 [features]: share of missing values of rows [rows, features]; 1 of none.

    With `as_in_training` on synthetic rows.
    """
    if not len(observed):
        return np.ones(observed.shape[-1])
    return 1.0 - observed.mean(0)


def as_in_training(observed: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """`observed` with columns that were never (always) missing in training kept so.

    The model saw no example of the other. `missing` are the `missing_shares`.
    """
    missing = np.asarray(missing)
    return (observed | (missing == 0.0)) & (missing < 1.0)
