"""Puts real and synthetic patients side by side and runs metrics on them.

Every number has a reference: the same number for real training patients against real
hold-out patients. What a metric draws depends on the key and on its own name only, so
adding or removing a metric changes no other number.
"""

import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxehr.core.checks import InputError, positive
from jaxehr.core.cohort import (
    Dataset,
    Table,
    cleared,
    num_patients,
    take,
    to_dense,
)
from jaxehr.core.contracts import (
    Attacked,
    Comparison,
    Metric,
    Result,
    Scored,
    Value,
)
from jaxehr.core.sparse import SparseTable
from jaxehr.data.schema_json import same_columns
from jaxehr.data.split import split
from jaxehr.metrics.people import as_many


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricConfig:
    """How much work goes into the metrics; the defaults are [cdmt2026, Sec. 5.1].

    Ours: the bound on patients, there for speed, and what is marked so below.
    """

    seeds: int = 5
    """Trainings of every classifier."""
    epochs: int = 20
    """Passes over the training rows; the best one on a validation part counts."""
    mlp_epochs: int = 50
    """The same for the flat network of the two-sample test (ours)."""
    batch_size: int = 256
    """Patients in one optimiser step of a classifier."""
    learning_rate: float = 1e-3
    """Adam step size of a classifier."""
    max_rows: int = 4000
    """Patients of each data set that one training of a classifier sees; 0 = all."""
    augment: float = 1.0
    """Synthetic patients for each real one where a classifier trains on both; 0 = none
    does."""
    margin: float = 0.03
    """AUROC that may be lost against real training data: non-inferiority (ours)."""
    mmd_rows: int = 2000
    """Patients of each side in one draw of the maximum mean discrepancy."""
    pooled_rows: int = 5000
    """The same for the discrepancy of patients pooled over time."""
    draws: int = 5
    """Draws of both."""
    trees: int = 500
    """Trees of a random forest."""
    pairs: int = 1000
    """Pairs of patients for dynamic time warping."""
    resamples: int = 200
    """Bootstrap draws behind the confidence intervals (ours)."""
    loss_levels: int = 16
    """Noise levels of a patient's losses, for attacks on the model itself."""
    loss_repeats: int = 4
    """Draws of noise at each level."""
    control_steps: int = 600
    """Optimiser steps of their control, a model overfitted on purpose."""
    shadows: int = 16
    """Shadow models; an even number, at least 8."""
    shadow_steps: int = 0
    """Optimiser steps of each; 0 = as many as the model itself made."""
    remember: str = ""
    """Folder that keeps trained networks, see `jaxehr.metrics.memory`; "" = none."""

    def __post_init__(self) -> None:
        values = dataclasses.asdict(self)
        del values["remember"]
        for name in ("max_rows", "shadow_steps", "augment"):
            if values.pop(name) < 0:
                value = getattr(self, name)
                raise InputError(f"{name} must not be negative, got {value}.")
        positive(**values)
        if self.shadows % 2 or self.shadows < 8:
            raise InputError(
                f"shadows must be an even number of at least 8, got {self.shadows}."
            )


DEFAULT = MetricConfig()
QUICK = MetricConfig(
    seeds=2,
    epochs=5,
    mlp_epochs=15,
    max_rows=2000,
    mmd_rows=1000,
    pooled_rows=1000,
    draws=2,
    trees=100,
    pairs=300,
    loss_levels=8,
    loss_repeats=2,
)
NO_MODEL = "no model was given"


def comparison(
    real: Dataset,
    synthetic: Dataset,
    holdout: Dataset | None = None,
    *,
    holdout_fraction: float = 0.2,
    salt: str = "",
) -> Comparison:
    """Checks that the data sets belong together; splits off a hold-out if needed.

    Rows are put in an order that follows from their content, so that no number depends
    on the order of the files. Patients that are in two sets give a warning, by person
    or by all of their values.

    Args:
      real: real patients; with `holdout` all of them count as training patients.
      holdout: real patients that the model has not seen.
      holdout_fraction, salt: of `jaxehr.data.split.split`; the same as in training.

    Raises:
      InputError: columns, kinds, categories, time grid or label differ; a set is
        empty.
    """
    same_columns(real.schema, synthetic.schema)
    if holdout is None:
        real, holdout = split(real, holdout_fraction, salt)
    same_columns(real.schema, holdout.schema, ("real", "hold-out"))
    named = {"real": real, "hold-out": holdout, "synthetic": synthetic}
    for name, data in named.items():
        if num_patients(data.cohort) == 0:
            raise InputError(f"the {name} data hold no patient; nothing to compare.")
    # What stands beside a gap is no value, and by it copies would not be equal.
    sets = [
        data._replace(cohort=cleared(data.cohort))
        for data in one_form(list(named.values()))
    ]
    prints = [fingerprints(data) for data in sets]
    for text in overlaps(sets, prints):
        warnings.warn(text, stacklevel=2)
    # Sorted by their hash, names and ids play no part
    ordered = [
        take(d, np.argsort(p, kind="stable")) for d, p in zip(sets, prints, strict=True)
    ]
    return Comparison(*ordered)


def overlaps(sets: list[Dataset], prints: list[np.ndarray]) -> list[str]:
    """What is in two of the sets real, hold-out, synthetic and should not be.

    No text names a patient, for it comes to stand in the model card.

    Args:
      prints: `fingerprints` of each set.
    """
    real, holdout, synthetic = sets
    found = []
    common = np.intersect1d(real.groups, holdout.groups)
    if common.size:
        found.append(
            f"{common.size} patient(s) are in the training and in the hold-out data; "
            "the references are too good."
        )
    new = ~np.isin(holdout.groups, common) & has_values(holdout)
    equal = int(np.isin(prints[1][new], prints[0]).sum())
    _, again = np.unique(prints[0], return_counts=True)
    twins = int(again[again > 1].sum())
    if equal * len(prints[0]) > twins * len(new):  # more than there are by chance
        found.append(
            f"{equal} of {len(new)} hold-out patients equal a training patient of "
            f"another id in every value ({twins} of {len(prints[0])} training patients "
            "equal another one); if they are the same people, the references are too "
            "good."
        )
    # `jaxehr sample` numbers its patients from 1
    if synthetic.provenance.get("kind") != "synthetic":
        ids = np.union1d(real.ids, holdout.ids).astype(str)
        shared = int(np.isin(synthetic.ids.astype(str), ids).sum())
        if shared:
            found.append(
                f"{shared} of {len(synthetic.ids)} synthetic patients have the id of a "
                "real one; make sure that no real person is among them."
            )
    return found


def has_values(data: Dataset) -> np.ndarray:
    """Bool [N]: some value of the patient is observed (of a sparse table: is 1)."""
    static, temporal = data.cohort.static, data.cohort.temporal
    if isinstance(temporal, SparseTable):
        return static.observed.any(-1) | (temporal.counts > 0)
    return static.observed.any(-1) | temporal.observed.any((1, 2))


def one_form(sets: list[Dataset]) -> list[Dataset]:
    """All sets sparse or all dense; a model may draw dense patients for sparse ones."""
    sparse = [isinstance(data.cohort.temporal, SparseTable) for data in sets]
    if all(sparse) or not any(sparse):
        return sets
    return [data._replace(cohort=to_dense(data.cohort)) for data in sets]


def fingerprints(data: Dataset) -> np.ndarray:
    """A hash of everything known of each patient but the id: text [N]."""
    count, cohort = num_patients(data.cohort), data.cohort
    rows: list[Any] = []
    if isinstance(cohort.temporal, SparseTable):
        rows.append(np.split(cohort.temporal.cells, cohort.temporal.offsets[1:-1]))
        cohort = cohort._replace(temporal=())
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(cohort)]
    rows += [leaf.reshape(count, -1) for leaf in leaves]
    # + 0.0 turns a negative zero into a positive one
    rows = [r + 0.0 if getattr(r, "dtype", None) == np.float64 else r for r in rows]
    digest = lambda parts: hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()
    return np.asarray([digest(r[i].tobytes() for r in rows) for i in range(count)])


def name_key(key: jax.Array, name: str) -> jax.Array:
    """A key that depends on `key` and the name, through a hash that never changes."""
    digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
    return jax.random.fold_in(key, int.from_bytes(digest, "little"))


def run_metrics(
    key: jax.Array,
    compared: Comparison,
    metrics: Mapping[str, Metric],
    *,
    model: Attacked | str = NO_MODEL,
    doubt: str = "",
    keep: Callable[[str, Scored], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Result]:
    """Runs every metric; equal keys and data give equal numbers.

    Args:
      metrics: name in the registry -> metric.
      model: the model that attacks may look into, or why there is none.
      doubt: why attacks on the synthetic patients cannot be judged, if they cannot.
      keep: receives (name, scores of all training patients) from membership attacks.
      progress: called with (name, metrics done, metrics in all) before each metric, and
        with ("", all, all) at the end.
    """
    results, seen, even = [], None, drawn_once(name_key(key, "as_many"))
    for done, (name, metric) in enumerate(metrics.items()):
        if progress:
            progress(name, done, len(metrics))
        if seen is None and not metric.sparse:
            seen = dense_tables(compared)
        given = {
            "model": model,
            "keep": keep and functools.partial(keep, name),
            "learned": model.learned if isinstance(model, Attacked) else None,
            "even": even,
        }
        if doubt and metric.group == "privacy" and "model" not in metric.takes:
            values = {number: Value(None, reason=doubt) for number in metric.names}
        else:
            values = run_one(name_key(key, name), metric, compared, seen, given)
        results += [
            Result(number, metric.group, definition, values[number])
            for number, definition in metric.names.items()
        ]
    if progress:
        progress("", len(metrics), len(metrics))
    return results


def run_one(
    key: jax.Array,
    metric: Metric,
    compared: Comparison,
    seen: Comparison | str | None,
    given: Mapping[str, Any],
) -> dict[str, Value]:
    """Runs a metric on the view it takes; a text in place of what it needs says why
    there is none."""
    view = compared if metric.sparse or seen is None else seen
    wanted = {name: given[name] for name in metric.takes}
    if "even" in wanted and not isinstance(view, str):
        wanted["even"] = given["even"](view)
    for need in (view, *wanted.values()):
        if isinstance(need, str):
            return {name: Value(None, reason=need) for name in metric.names}
    return metric.run(key, view, **wanted)


def drawn_once(key: jax.Array) -> Callable[[Comparison], Comparison]:
    """`as_many` of a view, kept: it copies most of a large data set."""
    kept: dict[int, Comparison] = {}

    def even(view: Comparison) -> Comparison:
        if id(view) not in kept:
            seed = np.asarray(jax.random.key_data(key)).tolist()
            kept[id(view)] = as_many(np.random.default_rng(seed), view)
        return kept[id(view)]

    return even


def dense_tables(compared: Comparison) -> Comparison | str:
    """The data with dense temporal tables, or the reason why these are too large."""
    if not any(isinstance(d.cohort.temporal, SparseTable) for d in compared):
        return compared
    try:
        return Comparison(*map(with_dense_table, compared))
    except InputError as error:
        return f"the metric takes no sparse table, and the {error}"


def with_dense_table(data: Dataset) -> Dataset:
    """The data set with a dense temporal table; refused above 4 GiB."""
    table = data.cohort.temporal
    dense = Table(table.numeric, table.codes, table.observed)
    return data._replace(cohort=data.cohort._replace(temporal=dense))
