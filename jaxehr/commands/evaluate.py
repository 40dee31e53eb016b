"""`jaxehr evaluate`: real against synthetic; report.html and metrics.json."""

import dataclasses
import json
import pathlib
from typing import Annotated, Any

import tyro

from jaxehr.core.checks import InputError, known
from jaxehr.devices import configure
from jaxehr.progress import Progress
from jaxehr.registry import METRICS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Compare synthetic with real patients."""

    real: pathlib.Path
    """The cohort that the model was trained on."""
    synthetic: pathlib.Path
    """A cohort of synthetic patients."""
    out: pathlib.Path
    """The report folder to make; an older report is replaced."""
    holdout: pathlib.Path | None = None
    """A cohort of real people that the model has not seen; by default the share of --real
    that `jaxehr train` left out."""
    run: Annotated[pathlib.Path | None, tyro.conf.arg(name="run")] = None
    """The run folder, to show the learned noise schedule and the training losses."""
    metrics: str = ""
    """Names of metrics, with commas; default: all (`jaxehr list metrics`)."""
    quick: bool = False
    """Fewer seeds, epochs and rows: a first look in a minute."""
    seeds: int | None = None
    """Trainings of each classifier; default 5, with --quick 2."""
    seed: int = 0
    """Same seed, same numbers."""


def run(words: list[str]) -> int:
    arguments = tyro.cli(Evaluate, prog="jaxehr evaluate", args=words)
    names = [name for name in arguments.metrics.split(",") if name]
    for name in names:
        known("metric", name, METRICS)
    configure()
    from jaxehr.data.store import load_cohort
    from jaxehr.metrics.evaluate import DEFAULT, QUICK
    from jaxehr.runs import load_run

    config = QUICK if arguments.quick else DEFAULT
    if arguments.seeds is not None:
        config = dataclasses.replace(config, seeds=arguments.seeds)
    real, synthetic = load_cohort(arguments.real), load_cohort(arguments.synthetic)
    holdout = load_cohort(arguments.holdout) if arguments.holdout else None
    model = load_run(arguments.run) if arguments.run else None
    if model is not None and model.schema != real.schema:
        raise InputError(f"{arguments.run}: trained on other columns than --real.")
    lines = read_lines(arguments.run) if arguments.run else []
    report(
        real,
        synthetic,
        arguments.out,
        holdout=holdout,
        seed=arguments.seed,
        config=config,
        metrics=names or None,
        model=model,
        lines=lines,
    )
    return 0


def read_lines(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The metrics that training left."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def report(
    real: Any,
    synthetic: Any,
    out: pathlib.Path,
    *,
    model: Any,
    lines: Any,
    **options: Any,
) -> Any:
    """`evaluate` with a progress bar; writes the folder and prints the table."""
    from jaxehr.api import describe_run, evaluate

    described = describe_run(model, synthetic, lines) if model is not None else None
    with Progress("evaluating", len(options.get("metrics") or METRICS)) as bar:
        bar.update(0)
        found = evaluate(
            real,
            synthetic,
            run=described,
            progress=lambda name, done, total: bar.update(done, name),
            **options,
        )
    found.save(out)
    show(found.results)
    for note in found.notes:
        print(f"note: {note}")
    print(f"{out / 'report.html'}: open it in a browser")
    return found


def show(results: list[Any]) -> None:
    """The table of results: name, value, reference."""
    number = lambda value: "-" if value is None else f"{value:.4f}"
    print(f"{'metric':<24} {'synthetic':>10} {'real':>10}   better")
    for result in results:
        value = result.value
        row = (
            f"{result.name:<24} {number(value.value):>10} {number(value.reference):>10}"
        )
        definition = result.definition
        aim = f"{definition.direction} ({definition.ideal:g})"
        print(
            f"{row}   {aim}" if value.value is not None else f"{row}   {value.reason}"
        )
