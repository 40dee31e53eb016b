"""What users call from Python beside training: reading tables, and evaluation."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Dataset
from jaxehr.core.contracts import Comparison, Result
from jaxehr.core.files import PathLike
from jaxehr.metrics.evaluate import MetricConfig, comparison, run_metrics
from jaxehr.registry import METRICS, find, model_entry
from jaxehr.report import write_report
from jaxehr.runs import Run


class Report(NamedTuple):
    """What `evaluate` returns; `save` writes report.html and metrics.json."""

    comparison: Comparison
    results: list[Result]
    run: dict[str, Any] | None
    notes: list[str]

    def value(self, name: str) -> float | None:
        """One number of `results`; None where it is not defined."""
        values = {r.name: r.value.value for r in self.results}
        known("number", name, values)
        return values[name]

    def save(self, path: PathLike) -> None:
        write_report(
            path, self.comparison, self.results, run=self.run, notes=self.notes
        )


def read_tables(static: str = "", temporal: str = "", **options: Any) -> Dataset:
    """A dataset from two CSV or Parquet files; `options` as in `TablesOptions`.

    Raises:
      InputError: an unknown option, or what `jaxehr prepare tables` refuses.
    """
    from jaxehr.data.tables import TablesOptions, read

    names = [field.name for field in dataclasses.fields(TablesOptions)]
    for name in options:
        known("option", name, names)
    if "id" not in options:
        raise InputError("read_tables: id is needed, the name of the id column.")
    return read(TablesOptions(static=static, temporal=temporal, **options))


def evaluate(
    real: Dataset,
    synthetic: Dataset,
    holdout: Dataset | None = None,
    *,
    seed: int = 0,
    config: MetricConfig | None = None,
    metrics: list[str] | None = None,
    run: dict[str, Any] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Compares synthetic with real patients.

    Args:
      real: the training cohort. Without `holdout`, the people that training leaves out
        (a hashed share of it, see `jaxehr.train`) are the hold-out.
      metrics: names of metric families (`jaxehr list metrics`); None = all.
      run: a description of the model for the report, from `describe_run`.
    """
    for name in metrics or []:
        known("metric", name, METRICS)
    config = config or MetricConfig()
    made = synthetic.provenance.get("run", {})
    fraction = made.get("holdout_fraction") or 0.2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        pair = comparison(real, synthetic, holdout, holdout_fraction=fraction)
    notes = [str(w.message) for w in caught if w.category is UserWarning]
    if holdout is None and made.get("holdout_fraction") == 0.0:
        notes.append(
            "The model was trained on all of these people: its hold-out is not new to "
            "it, and the comparison with the hold-out is too favourable."
        )
    chosen = {name: find(METRICS[name])(config) for name in metrics or METRICS}
    results = run_metrics(jax.random.key(seed), pair, chosen, progress=progress)
    return Report(pair, results, run, notes)


def describe_run(run: Run, synthetic: Dataset, lines: list[dict] | None = None) -> dict:
    """What the report shows of the model: its choices, losses and learned schedule."""
    schedule, path = {}, model_entry(run.name).schedule
    levels = find(path)(run.schema, run.config, run.params) if path else {}
    for block, found in levels.items():
        schedule[block] = found | {"sigma": found["sigma"].tolist()}
    train, taken_in = getattr(run.config, "train", None), run.params.get("input")
    return {
        "model": run.name,
        "input": None if taken_in is None else str(taken_in),
        "config": run.info["config"],
        "machine": run.info["machine"],
        "seed": run.info["seed"],
        "steps": lines[-1]["step"] if lines else train and train.steps,
        "seconds": lines[-1]["seconds"] if lines else None,
        "losses": lines or [],
        "schedule": schedule,
        "sampler": synthetic.provenance.get("sampling", {}),
        "label": synthetic.provenance.get("label"),
    }
