"""Filling of missing values: the last one, then the patient's mean, then the cohort's.

Numeric values take the last observed value of the patient (LOCF), then the mean of the
patient's observed values (leading gaps), then the training mean; codes likewise with
the most frequent code in place of the mean [cdmt2026, Sec. 4.1]. Masks are taken before
filling. Everything but `Fill` depends on one patient only, and `Fill` on train only.
"""

import math
from typing import NamedTuple

import numpy as np

from jaxehr.core.cohort import Cohort, Schema, Table, coded_features, valid_steps


class Fill(NamedTuple):
    """What a feature gets where a patient has no value at all; fitted on train."""

    numeric: np.ndarray  # Float [numeric features]: mean; 0 when never observed
    codes: np.ndarray  # Int [coded features]: most frequent code, the lowest of equals


class Filled(NamedTuple):
    """Tables without gaps: static gaps filled, and temporal ones before `length`."""

    static: Table
    temporal: Table


def fit_fill(table: Table, cardinalities: tuple[int, ...]) -> Fill:
    """Mean and mode of the observed values of a table of any shape [..., features].

    `observed` must be False at padding, as it is in every cohort. `cardinalities` are
    the numbers of categories of the coded features.
    """
    count, rows = table.numeric.shape[-1], math.prod(table.observed.shape[:-1])
    observed = np.asarray(table.observed, bool).reshape(rows, table.observed.shape[-1])
    values = np.asarray(table.numeric, np.float64).reshape(rows, count)
    seen = observed[:, :count]
    total = np.where(seen, values, 0.0).sum(axis=0)
    means = total / np.maximum(seen.sum(axis=0), 1)
    codes = np.asarray(table.codes).reshape(rows, table.codes.shape[-1])
    modes = [
        np.bincount(codes[observed[:, count + d], d], minlength=size).argmax()
        for d, size in enumerate(cardinalities)
    ]
    return Fill(means, np.array(modes, np.int32))


def locf(values: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Last observation carried forward along axis 1.

    Args:
      values: [N, T, D]; observed: Bool [N, T, D].

    Returns:
      The values, and Bool [N, T, D]: True where there was an observation at or before.
    """
    steps = np.arange(values.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(observed, steps, -1), axis=1)
    carried = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    return carried, last >= 0


def patient_mean(
    values: np.ndarray, observed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the observed values of each patient [N, D]; Bool [N, D]: there is one."""
    count = observed.sum(axis=1)
    total = np.where(observed, values, 0.0).sum(axis=1)
    return total / np.maximum(count, 1), count > 0


def patient_mode(
    codes: np.ndarray, observed: np.ndarray, cardinalities: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Most frequent observed code [N, D] (lowest of equals); Bool [N, D]: any seen."""
    patients = len(codes)
    modes = np.zeros((patients, codes.shape[-1]), np.int32)
    for d, size in enumerate(cardinalities):
        rows, steps = np.nonzero(observed[..., d])
        cells = rows * size + codes[rows, steps, d]
        counts = np.bincount(cells, minlength=patients * size).reshape(patients, size)
        modes[:, d] = counts.argmax(axis=1)
    return modes, np.any(observed, axis=1)


def impute_numeric(
    values: np.ndarray, observed: np.ndarray, valid: np.ndarray, fill: np.ndarray
) -> np.ndarray:
    """Float [N, T, D] without gaps: LOCF, the patient's mean, `fill` [D]; 0 at padding.

    Args:
      values: Float [N, T, D]; observed: Bool [N, T, D]; valid: Bool [N, T] steps.
    """
    observed = observed & valid[..., None]
    carried, known = locf(values, observed)
    mean, any_known = patient_mean(values, observed)
    rest = np.where(any_known, mean, fill)[:, None, :]
    return np.where(valid[..., None], np.where(known, carried, rest), 0.0)


def impute_codes(
    codes: np.ndarray,
    observed: np.ndarray,
    valid: np.ndarray,
    fill: np.ndarray,
    cardinalities: tuple[int, ...],
) -> np.ndarray:
    """Int [N, T, D] without gaps: LOCF, the patient's mode, `fill`; 0 at padding."""
    observed = observed & valid[..., None]
    carried, known = locf(codes, observed)
    mode, any_known = patient_mode(codes, observed, cardinalities)
    rest = np.where(any_known, mode, fill)[:, None, :]
    filled = np.where(valid[..., None], np.where(known, carried, rest), 0)
    return filled.astype(np.int32)


def impute_static(table: Table, fill: Fill) -> Table:
    """Static values [N, D] with gaps filled from train; `observed` is kept."""
    count = table.numeric.shape[-1]
    seen = np.asarray(table.observed, bool)
    numeric = np.where(seen[:, :count], table.numeric, fill.numeric)
    codes = np.where(seen[:, count:], table.codes, fill.codes).astype(np.int32)
    return Table(numeric, codes, seen)


def impute_temporal(
    table: Table, valid: np.ndarray, fill: Fill, cardinalities: tuple[int, ...]
) -> Table:
    """Temporal values [N, T, D] with gaps filled; 0 at padding; `observed` is kept."""
    count = table.numeric.shape[-1]
    seen = np.asarray(table.observed, bool)
    numeric = impute_numeric(
        np.asarray(table.numeric), seen[..., :count], valid, fill.numeric
    )
    codes = impute_codes(
        np.asarray(table.codes), seen[..., count:], valid, fill.codes, cardinalities
    )
    return Table(numeric, codes, seen)


def impute(schema: Schema, cohort: Cohort, train: Cohort | None = None) -> Filled:
    """Both tables of a cohort without gaps; `fill` is fitted on `train` (or itself)."""
    source = cohort if train is None else train
    static = tuple(f.cardinality for f in coded_features(schema.static))
    temporal = tuple(f.cardinality for f in coded_features(schema.temporal))
    return Filled(
        impute_static(cohort.static, fit_fill(source.static, static)),
        impute_temporal(
            cohort.temporal,
            valid_steps(cohort),
            fit_fill(source.temporal, temporal),
            temporal,
        ),
    )
