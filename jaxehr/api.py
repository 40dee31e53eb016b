"""What users call from Python beside training: reading tables, and evaluation."""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxehr.core.checks import InputError, check_seed, known
from jaxehr.core.cohort import Dataset
from jaxehr.core.contracts import Attacked, Comparison, Result, Scored
from jaxehr.core.files import PathLike
from jaxehr.data.dataset_checks import check_dataset
from jaxehr.data.discretize import check_holdout
from jaxehr.metrics.evaluate import NO_MODEL, MetricConfig, comparison, run_metrics
from jaxehr.metrics.exposure import beyond, exposure_of, neighbours
from jaxehr.metrics.model_loss import unfit_kind
from jaxehr.metrics.release import (
    Policy,
    Verdict,
    check_policy,
    default_policy,
    judge,
)
from jaxehr.registry import (
    METRICS,
    ON_REQUEST,
    chosen_metrics,
    find,
    model_entry,
)
from jaxehr.report import write_report
from jaxehr.report.audit import Findings, write_audit
from jaxehr.report.croissant import hashes
from jaxehr.runs import Run
from jaxehr.runs.attacked import (
    attacked,
    doubt,
    left_out,
    new_people,
    refuse_unknown,
)

SHADOWS = "membership_shadow"
MOST_EXPOSED = 20  # training patients that an audit lists
IN_DOUBT = (
    "Until then no attack on the synthetic patients is made, for none can be judged, "
    "and numbers that compare with the hold-out may be too favourable."
)
OTHER_COHORT = (
    "The run that drew the synthetic patients was trained on another cohort than the "
    "real one: make sure that nobody of the hold-out was in it."
)


class Report(NamedTuple):
    """What `evaluate` returns; `save` writes the page and the files beside it."""

    comparison: Comparison
    results: list[Result]
    run: dict[str, Any] | None
    notes: list[str]

    def value(self, name: str) -> float | None:
        """One number of `results`; None where it is not defined."""
        values = {r.name: r.value.value for r in self.results}
        known("number", name, values)
        return values[name]

    def save(self, path: PathLike, *, synthetic: PathLike | None = None) -> None:
        """Writes report.html, metrics.json, model_card.md and croissant.json.

        Args:
          synthetic: the folder of the synthetic cohort, so that croissant.json can
            name its files.
        """
        write_report(
            path,
            self.comparison,
            self.results,
            run=self.run,
            notes=self.notes,
            files=hashes(pathlib.Path(synthetic)) if synthetic else None,
        )


def read_tables(
    static: PathLike = "", temporal: PathLike = "", **options: Any
) -> Dataset:
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
    paths = {"static": os.fspath(static), "temporal": os.fspath(temporal)}
    return read(TablesOptions(**paths, **options))


def evaluate(
    real: Dataset,
    synthetic: Dataset,
    holdout: Dataset | None = None,
    *,
    seed: int = 0,
    config: MetricConfig | None = None,
    metrics: list[str] | None = None,
    run: dict[str, Any] | None = None,
    model: Run | None = None,
    keep: Callable[[str, Scored], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Compares synthetic with real patients.

    Args:
      real: the training cohort. Without `holdout`, the people that training leaves out
        (a hashed share of it, see `jaxehr.train`) are the hold-out. Where it is not
        known that the model never saw the hold-out, a note says so, and attacks on the
        synthetic patients are not defined. A few hold-out people who are in `real` too
        are taken out.
      metrics: names of metric families (`jaxehr list metrics`); None = all but those
        on request.
      run: a description of the model for the report, from `describe_run`.
      model: the run itself, trained on `real`, for attacks on it. Attacks count only
        people it learned from as trained on; without it also those who validated.
      keep, progress: of `run_metrics`.

    Raises:
      InputError: data that do not fit their schema (an observed NaN, an unknown code),
        or that do not belong together; an unknown metric.
    """
    check_seed(seed)
    check_sets(real, synthetic, holdout)
    config = config or MetricConfig()
    chosen = {name: find(METRICS[name])(config) for name in chosen_metrics(metrics)}
    reason = doubt(real, synthetic, holdout, model)
    pair, notes = compare(real, synthetic, holdout, reason)
    inside: Attacked | str = attacked(model, real, pair) if model else NO_MODEL
    results = run_metrics(
        jax.random.key(seed),
        pair,
        chosen,
        model=inside,
        doubt=reason,
        keep=keep,
        progress=progress,
    )
    return Report(pair, results, run, notes)


def check_sets(real: Dataset, synthetic: Dataset, holdout: Dataset | None) -> None:
    """Raises InputError unless each of the data sets fits its schema."""
    check_dataset(real, "real")
    check_dataset(synthetic, "synthetic")
    if holdout is not None:
        check_dataset(holdout, "hold-out")


def compare(
    real: Dataset,
    synthetic: Dataset,
    holdout: Dataset | None,
    reason: str = "",
) -> tuple[Comparison, list[str]]:
    """The data side by side, and what is doubtful of that.

    Args:
      reason: what `doubt` says.
    """
    share, said = left_out(real, synthetic), ""
    if holdout is None:
        check_holdout(real.provenance, real.groups, share or 0.0)
    else:
        holdout, said = new_people(real, holdout)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        pair = comparison(real, synthetic, holdout, holdout_fraction=share or 0.2)
    notes = [str(w.message) for w in caught if w.category is UserWarning]
    if said:
        notes.insert(0, said)
    if reason:
        notes.insert(0, f"{reason[:1].upper()}{reason[1:]} {IN_DOUBT}")
    elif share is None and "cohort" in synthetic.provenance.get("run", {}):
        notes.insert(0, OTHER_COHORT)
    return pair, notes


class Audit(NamedTuple):
    """What `audit` returns; `save` writes audit.html and audit.json."""

    findings: Findings

    @property
    def passed(self) -> bool:
        """Whether every limit of the policy is kept."""
        return self.findings.passed

    def save(self, path: PathLike, *, releasable: bool = False) -> None:
        write_audit(path, self.findings, releasable=releasable)


def audit(
    real: Dataset,
    synthetic: Dataset,
    holdout: Dataset | None = None,
    *,
    policy: Policy | None = None,
    model: Run | None = None,
    lines: list[dict[str, Any]] | None = None,
    shadow: bool = False,
    seed: int = 0,
    config: MetricConfig | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Audit:
    """Makes all attacks on privacy and holds what they reach against limits.

    Of a release too small to be judged limits fail; a note says how many to draw.

    Args:
      real: the training cohort. Without `holdout`, the people that training left out
        are the hold-out; the synthetic patients must then be drawn by a run on `real`.
      policy: number -> {bound: limit}, see `jaxehr.metrics.release`; None =
        `default_policy` for what is measured and what this kind of model allows; a note
        names the rest.
      model, lines: the run itself, trained on `real`, for attacks on it; its metrics.
      shadow: make `membership_shadow` too, which trains `config.shadows` models.

    Raises:
      InputError: as `evaluate`; it is not known who is new to the model; a bad policy.
    """
    check_seed(seed)
    check_sets(real, synthetic, holdout)
    metrics = [n for n in privacy_metrics() if shadow or n not in ON_REQUEST]
    policy, said = measured_limits(metrics, model) if policy is None else (policy, [])
    check_policy(policy, attack_numbers())
    refuse_unknown(real, synthetic, holdout, model)
    scored: dict[str, Scored] = {}
    found = evaluate(
        real,
        synthetic,
        holdout,
        seed=seed,
        config=config,
        metrics=metrics,
        run=describe_run(model, synthetic, lines) if model else {},
        model=model,
        keep=scored.__setitem__,
        progress=progress,
    )
    found = found._replace(notes=[*found.notes, *said, *too_few_copies(found)])
    return Audit(findings_of(found, judge(found.results, policy), scored))


def findings_of(
    found: Report, verdicts: list[Verdict], scored: dict[str, Scored]
) -> Findings:
    """What the pages of an audit show; `scored` are the patients by attack."""
    return Findings(
        found.comparison,
        found.results,
        verdicts,
        most_exposed(found.comparison, scored),
        beyond(scored),
        found.run or {},
        found.notes,
    )


def too_few_copies(found: Report) -> list[str]:
    """A sentence where attacks miss a release so small that it holds few copies."""
    sets = found.comparison
    made, trained = len(sets.synthetic.ids), len(sets.train.ids)
    details = [result.value.detail or {} for result in found.results]
    missed = any(d.get("leaky_generator_caught") is False for d in details)
    if made >= trained or not missed:
        return []
    return [
        f"{made} synthetic patients are too few for some attacks to show copies of "
        f"{trained} training patients; draw at least {trained}."
    ]


def privacy_metrics() -> list[str]:
    """The families of attacks, those on request included."""
    return [name for name, path in METRICS.items() if find(path)().group == "privacy"]


def measured_limits(metrics: list[str], model: Run | None) -> tuple[Policy, list[str]]:
    """The default limits on these families, on a model only where there is one that
    can be attacked so; and sentences on those that a model of its kind leaves out."""
    limits, names, said = default_policy(), [], []
    for family in metrics:
        metric, reason = find(METRICS[family])(), ""
        if "model" in metric.takes:
            if model is None:
                continue
            reason = unfit_kind(model.model, shadows=family == SHADOWS)
        if reason:
            said.append(f"The default policy sets no limit on {family}: {reason}.")
        else:
            names += metric.names
    return {name: limits[name] for name in names if name in limits}, said


def attack_numbers() -> list[str]:
    """The numbers that a policy may limit, and diagnostics."""
    return [n for family in privacy_metrics() for n in find(METRICS[family])().names]


def most_exposed(
    compared: Comparison, scored: dict[str, Scored]
) -> list[dict[str, Any]]:
    """The training patients whom the attacks suspect most; see `exposure`."""
    if not scored:
        return []
    exposure = exposure_of(scored, len(compared.train.ids))
    rows = exposure.order[:MOST_EXPOSED]
    near = neighbours(compared, rows)
    return [
        {
            "id": compared.train.ids[row].item(),
            "attack": exposure.attacks[exposure.share[:, row].argmin()],
            "share": float(exposure.smallest[row]),
            "nearest_synthetic": compared.synthetic.ids[other].item(),
            "distance": float(distance),
        }
        for row, other, distance in zip(rows, near.row, near.distance, strict=True)
    ]


def describe_run(
    run: Run, synthetic: Dataset, lines: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """What the report shows of the model: its choices, losses and learned schedule.

    Args:
      lines: the lines of the run's metrics.jsonl; only they tell how many steps were
        made and how long they took.
    """
    schedule, path = {}, model_entry(run.name).schedule
    levels = find(path)(run.schema, run.config, run.params) if path else {}
    for block, found in levels.items():
        schedule[block] = found | {"sigma": found["sigma"].tolist()}
    taken_in = run.params.get("input")
    return {
        "model": run.name,
        "input": None if taken_in is None else str(taken_in),
        "config": run.info["config"],
        "machine": run.info["machine"],
        "seed": run.info["seed"],
        "steps": lines[-1]["step"] if lines else None,
        "seconds": lines[-1]["seconds"] if lines else None,
        "losses": lines or [],
        "schedule": schedule,
        "sampler": synthetic.provenance.get("sampling", {}),
        "label": synthetic.provenance.get("label"),
    }
