"""How well a hidden modality was imputed: draws against the hidden truth.

Pure functions of the true table and of draws of it, dense or sparse. Draws answer two
questions: how far is their mean from the truth, and is their spread right? Errors of
means of few draws are corrected for their number [ferro2014], so that methods with
much and with little noise compare, and five draws with fifty.

M patients, d draws, T steps, D columns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature, Table, coded_features, numeric_features
from jaxehr.core.sparse import SparseTable
from jaxehr.metrics.pooled import codes_of, columns_of
from jaxehr.metrics.ranking import ranks, roc_area

CENTRAL = 0.9


class Baseline(NamedTuple):
    """What is known without the patient: means and shares of training patients."""

    means: np.ndarray  # [numbers]
    shares: np.ndarray  # [values of codes], in the order of `columns_of`


def baseline(
    features: tuple[Feature, ...], table: Table | SparseTable, length: Any = None
) -> Baseline:
    """Means and shares of the observed values; `length` [N] for a temporal table."""
    numbers, coded = [], []
    if isinstance(table, SparseTable):
        cells = max(int(np.sum(table.length, dtype=np.int64)), 1)
        ones = np.bincount(table.cells % table.features, minlength=table.features)
        return Baseline(np.zeros(0), ones / cells)
    seen = known(table, length)
    count = table.numeric.shape[-1]
    for i in range(count):
        values = table.numeric[..., i][seen[..., i]]
        numbers.append(values.mean() if values.size else 0.0)
    for i, feature in enumerate(coded_features(features)):
        values = table.codes[..., i][seen[..., count + i]]
        coded += [np.mean(values == k) if values.size else 0 for k in codes_of(feature)]
    return Baseline(np.asarray(numbers, float), np.asarray(coded, float))


def known(table: Any, length: Any = None) -> np.ndarray:
    """Bool, where a value is observed at a valid step."""
    seen = np.asarray(table.observed, bool)
    if seen.ndim < 3:
        return seen
    if length is None:
        raise InputError("imputation: a temporal table needs the lengths of its stays.")
    valid = np.arange(seen.shape[1]) < np.asarray(length)[:, None]
    return seen & valid[..., None]


class Tally(NamedTuple):
    """Cells by how many draws gave a value at all (g) and this value (v).

    Column v (d + 1) + g of each array counts the cells with these numbers.
    """

    positive: np.ndarray  # [D, (d + 1)^2] cells with the value
    negative: np.ndarray  # [D, (d + 1)^2] cells without it


def imputation_error(
    features: tuple[Feature, ...],
    truth: Table | SparseTable,
    draws: Sequence[Table | SparseTable],
    base: Baseline,
    *,
    length: Any = None,
    draw_lengths: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """The error of imputed values, for every column and overall.

    Args:
      truth: the patients whose modality was hidden, [M, ...].
      draws: d completed tables of these patients, in the same order.
      base: of the training patients, from `baseline`.
      length, draw_lengths: valid steps [M] of the truth and of each draw, for a
        temporal table (a sparse one brings its own).

    Returns:
      `numeric`: name -> nrmse, coverage, n; `coded`: name -> brier_skill, auroc, n;
      `overall`: nrmse, coverage, brier_skill, auroc (None where there is no such
      column). nrmse 1 and brier_skill 0 are what training means give; coverage should
      be 0.9. Draws without a value are left out; where none has one, the training
      mean or share stands for them.

    Raises:
      InputError: no draw, other shapes, lengths missing.
    """
    shapes = {shape_of(table) for table in (truth, *draws)}
    if not draws or len(shapes) > 1:
        raise InputError(
            f"imputation: at least one draw of the shape of the truth is needed, got "
            f"{len(draws)} draw(s); shapes {sorted(shapes)}."
        )
    lengths = draw_lengths or [length] * len(draws)
    names = columns_of(features).names
    count = len(numeric_features(features))
    if isinstance(truth, SparseTable):
        tally, numeric = tally_sparse(truth, draws), {}
    else:
        seen = [known(table, n) for table, n in zip(draws, lengths, strict=True)]
        here = known(truth, length)
        numeric = {
            names[i]: numeric_error(truth, draws, (here, seen), i, base.means[i])
            for i in range(count)
        }
        tally = tally_dense(features, truth, draws, here, seen)
    coded = coded_error(tally, base.shares, names[count:])
    return {"numeric": numeric, "coded": coded, "overall": overall(numeric, coded)}


def shape_of(table: Table | SparseTable) -> tuple[int, ...]:
    """Patients, steps and features; computed without making a sparse table dense."""
    if isinstance(table, SparseTable):
        return (len(table.length), table.steps, table.features)
    return tuple(np.shape(table.observed))


def numeric_error(
    truth: Table, draws: Sequence[Any], seen: Any, column: int, mean: float
) -> dict[str, float]:
    """NRMSE and coverage of one number."""
    here = seen[0][..., column]
    values = np.stack([table.numeric[..., column][here] for table in draws])
    given = np.stack([known[..., column][here] for known in seen[1]])
    true = truth.numeric[..., column][here]
    return {
        "nrmse": nrmse(true, np.where(given, values, np.nan), mean),
        "coverage": coverage(true, np.where(given, values, np.nan)),
        "n": float(true.size),
    }


def nrmse(truth: np.ndarray, draws: np.ndarray, mean: Any) -> float:
    """Root of sum (x - m)^2 - s^2/d over sum (x - mean)^2; 1 = the training mean.

    m and s are mean and standard deviation of the d draws of a cell: s^2/d is what the
    finite number of draws adds to the error of their mean (0 for one draw).

    Args:
      truth: [n]; draws: [d, n], NaN where a draw has no value; mean: training mean,
        one number or [n].
    """
    given = np.isfinite(draws)
    count = given.sum(0)
    total = np.where(given, draws, 0.0).sum(0)
    middle = np.where(count > 0, total / np.maximum(count, 1), mean)
    square = np.where(given, (draws - middle) ** 2, 0.0).sum(0)
    noise = square / (np.maximum(count - 1, 1) * np.maximum(count, 1))
    error = ((truth - middle) ** 2).sum() - noise.sum()
    spread = ((truth - mean) ** 2).sum()
    return float(np.sqrt(max(error, 0.0) / spread)) if spread > 0 else float("nan")


def coverage(truth: np.ndarray, draws: np.ndarray, share: float = CENTRAL) -> float:
    """Share of the truth [n] inside the central `share` of its draws [d, n].

    Quantiles at positions p (k + 1) of the k draws that have a value, for which draws
    of the true law cover exactly `share`. Cells with (k - 1) / (k + 1) < share (fewer
    than 19 draws for 0.9) are left out; NaN without any other.
    """
    count = np.isfinite(draws).sum(0)
    enough = (count - 1) / (count + 1) >= share - 1e-9
    if not enough.any():
        return float("nan")
    ordered, count = np.sort(draws[:, enough], axis=0), count[enough]  # NaN come last
    ends = []
    for tail in ((1 - share) / 2, (1 + share) / 2):
        place = np.clip(tail * (count + 1) - 1, 0, count - 1)
        below = np.minimum(np.floor(place).astype(int), count - 1)
        above = np.minimum(below + 1, count - 1)
        at = lambda row: np.take_along_axis(ordered, row[None], 0)[0]
        ends.append(at(below) + (place - below) * (at(above) - at(below)))
    true = truth[enough]
    return float(np.mean((ends[0] <= true) & (true <= ends[1])))


def tally_dense(
    features: tuple[Feature, ...],
    truth: Table,
    draws: Sequence[Any],
    here: np.ndarray,
    seen: Sequence[np.ndarray],
) -> Tally:
    """Counts of a dense table."""
    positive, negative = [], []
    count, width = truth.numeric.shape[-1], len(draws) + 1
    for i, feature in enumerate(coded_features(features)):
        cells = here[..., count + i]
        given = np.sum([k[..., count + i][cells] for k in seen], axis=0)
        codes = [
            np.where(k[..., count + i], table.codes[..., i], -1)[cells]
            for table, k in zip(draws, seen, strict=True)
        ]
        true = truth.codes[..., i][cells]
        for code in codes_of(feature):
            place = np.sum([c == code for c in codes], axis=0) * width + given
            for side, chosen in ((positive, true == code), (negative, true != code)):
                side.append(np.bincount(place[chosen], minlength=width**2))
    shape = (len(positive), width**2)
    return Tally(*(np.reshape(np.asarray(x), shape) for x in (positive, negative)))


def tally_sparse(truth: SparseTable, draws: Sequence[Any]) -> Tally:
    """Counts of a sparse table, from the cells that are 1 somewhere."""
    size, width, steps = truth.features, len(draws) + 1, np.arange(truth.steps)
    valid = steps < np.asarray(truth.length)[:, None]
    given = np.sum([steps < np.asarray(d.length)[:, None] for d in draws], axis=0)
    true = places(truth)  # ascending
    drawn, votes = np.unique(np.concatenate([*map(places, draws)]), return_counts=True)
    every, back = np.unique(np.concatenate([true, drawn]), return_inverse=True)
    count, positive = np.zeros(len(every), int), np.zeros(len(every), bool)
    count[back[len(true) :]], positive[back[: len(true)]] = votes, True
    step, column = np.divmod(every, max(size, 1))
    inside = valid.reshape(-1)[step]
    step, column, count, positive = (x[inside] for x in (step, column, count, positive))
    place = column * width**2 + count * width + given.reshape(-1)[step]
    tally = lambda chosen: np.bincount(
        place[chosen], minlength=size * width**2
    ).reshape(size, width**2)
    found = Tally(tally(positive), tally(~positive))
    # the cells that are 0 everywhere
    whole = np.bincount(given[valid], minlength=width)
    by_given = (found.positive + found.negative).reshape(size, width, width).sum(1)
    found.negative[:, :width] += whole - by_given
    return found


def places(table: SparseTable) -> np.ndarray:
    """Int64 [ones]: (patient * T + step) * D + column of every 1, ascending."""
    owner = np.repeat(np.arange(len(table.length)), np.diff(table.offsets))
    return owner * np.int64(table.steps * table.features) + table.cells


def coded_error(
    tally: Tally, shares: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Brier skill and AUROC of every value of a code, and the parts of their sums."""
    width = round(tally.positive.shape[1] ** 0.5)
    votes, given = np.divmod(np.arange(width**2), width)
    found = {}
    for i, name in enumerate(names):
        positive, negative = tally.positive[i], tally.negative[i]
        chance = np.where(given > 0, votes / np.maximum(given, 1), shares[i])
        noise = np.where(given > 1, chance * (1 - chance) / np.maximum(given - 1, 1), 0)
        error = positive @ ((1 - chance) ** 2 - noise)
        error += negative @ (chance**2 - noise)
        ones, zeros = positive.sum(), negative.sum()
        spread = ones * (1 - shares[i]) ** 2 + zeros * shares[i] ** 2
        place, size = ranks(chance)
        sides = [np.bincount(place, side, size) for side in (positive, negative)]
        found[name] = {
            "brier_skill": float(1 - error / spread) if spread > 0 else float("nan"),
            "auroc": float(roc_area(*sides)),
            "n": float(ones + zeros),
            "error": float(error),
            "spread": float(spread),
        }
    return found


def overall(numeric: dict[str, Any], coded: dict[str, Any]) -> dict[str, float | None]:
    """Means over columns; the Brier skill is that of all cells together."""
    pick = lambda table, key: mean_of([column[key] for column in table.values()])
    spread = sum(column["spread"] for column in coded.values())
    error = sum(column["error"] for column in coded.values())
    return {
        "nrmse": pick(numeric, "nrmse"),
        "coverage": pick(numeric, "coverage"),
        "brier_skill": 1 - error / spread if spread > 0 else None,
        "auroc": pick(coded, "auroc"),
    }


def mean_of(values: list[float]) -> float | None:
    """Mean of the values that are numbers; None without one."""
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else None
