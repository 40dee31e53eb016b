"""`jaxehr evaluate`: real against synthetic; the report and the files beside it."""

import dataclasses
import json
import pathlib
from typing import Any

from jaxehr.commands.flags import distributed_flag, flag, read_flags
from jaxehr.commands.outputs import check_output, check_writable
from jaxehr.core.checks import InputError, check_seed
from jaxehr.devices import configure
from jaxehr.jobs import progress_stream
from jaxehr.progress import Progress
from jaxehr.registry import chosen_metrics

FLAGS = [
    flag(
        "real",
        pathlib.Path,
        "The cohort that the model was trained on.",
        metavar="COHORT",
    ),
    flag("synthetic", pathlib.Path, "The synthetic patients.", metavar="COHORT"),
    flag(
        "out",
        pathlib.Path,
        "The report folder to make; an older report is replaced.",
        metavar="REPORT",
    ),
    flag(
        "holdout",
        pathlib.Path | None,
        "A cohort of real people that the model has not seen; by default the share of "
        "--real that `jaxehr train` left out.",
        None,
        metavar="COHORT",
    ),
    flag(
        "run",
        pathlib.Path | None,
        "The run folder, to show the learned noise schedule and the training losses, "
        "and to attack the model itself. Attacks then count only people it learned "
        "from as trained on; without --run also those who validated.",
        None,
        metavar="RUN",
    ),
    flag(
        "metrics",
        tuple[str, ...],
        "Only these metrics (`jaxehr list metrics`); empty = all but those on request.",
        (),
    ),
    flag("quick", bool, "Fewer seeds, epochs and rows: a first look.", False),
    flag("seeds", int | None, "Trainings of each classifier; 5, with --quick 2.", None),
    flag(
        "rows",
        int | None,
        "Patients of each data set that one training of a classifier sees; 0 = all. "
        "4000, with --quick 2000.",
        None,
    ),
    flag("seed", int, "Same seed, same numbers.", 0),
    flag(
        "remember",
        pathlib.Path | None,
        "A folder that keeps the trained networks, those of real patients too: other "
        "synthetic patients beside the same real ones then take half of the time, and "
        "an evaluation that was stopped goes on; numbers agree to rounding. As "
        "confidential as the patients.",
        None,
        metavar="FOLDER",
    ),
    distributed_flag(),
]


def run(words: list[str]) -> int:
    text = "Compare synthetic with real patients: report.html and metrics.json."
    arguments = read_flags("jaxehr evaluate", text, FLAGS, words)
    chosen_metrics(arguments.metrics)
    check_seed(arguments.seed)
    if arguments.rows is not None and arguments.rows < 0:
        raise InputError(f"--rows must not be negative, got {arguments.rows}.")
    check_remember(arguments.remember, arguments.distributed)
    configure(arguments.distributed)
    from jaxehr.data.store import load_cohort
    from jaxehr.metrics.evaluate import DEFAULT, QUICK
    from jaxehr.report.html import REPORT
    from jaxehr.runs import load_run

    check_output(arguments.out, REPORT)

    config = QUICK if arguments.quick else DEFAULT
    asked = {"seeds": arguments.seeds, "max_rows": arguments.rows}
    given = {name: value for name, value in asked.items() if value is not None}
    if arguments.remember:
        given["remember"] = str(arguments.remember)
    config = dataclasses.replace(config, **given)
    model = load_run(arguments.run) if arguments.run else None
    real = load_real("--real", arguments.real)
    synthetic = load_cohort(arguments.synthetic)
    holdout = None
    if arguments.holdout:
        holdout = load_real("--holdout", arguments.holdout)
    if model is not None and without_rules(model.schema) != without_rules(real.schema):
        raise InputError(
            f"{arguments.run}: was trained on other columns than {arguments.real} has; "
            "give the run of these cohorts, or leave --run out."
        )
    report(
        real,
        synthetic,
        arguments.out,
        holdout=holdout,
        seed=arguments.seed,
        config=config,
        metrics=list(arguments.metrics),
        model=model,
        lines=read_lines(arguments.run) if arguments.run else [],
        folder=arguments.synthetic,
    )
    return 0


def load_real(name: str, folder: pathlib.Path) -> Any:
    """The cohort of a flag for real people.

    Raises:
      InputError: synthetic people, as where two flags were mixed up.
    """
    from jaxehr.data.store import load_cohort

    data = load_cohort(folder)
    if data.provenance.get("kind") == "synthetic":
        raise InputError(
            f"{name} {folder}: holds synthetic patients; name real ones here, and "
            "those as --synthetic."
        )
    return data


def check_remember(folder: pathlib.Path | None, distributed: bool) -> None:
    """Refuses a place that cannot keep networks before any is trained."""
    if folder is None:
        return
    if distributed:
        raise InputError(
            "--remember keeps the networks of one process; leave it or --distributed "
            "out."
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--remember {folder}: must be a folder, is a file.")
    check_writable(f"--remember {folder}", folder)


def without_rules(schema: Any) -> Any:
    """The schema as far as training takes it."""
    return schema.replace(rules=())


def read_lines(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The metrics that training left."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line]
        if all({"step", "seconds", "loss"} <= set(line) for line in lines):
            return lines
        reason = "a line without step, seconds or loss"
    except (ValueError, TypeError) as error:
        reason = str(error)
    raise InputError(f"{path}: damaged ({reason}); mend its lines, or remove the file.")


def report(
    real: Any,
    synthetic: Any,
    out: pathlib.Path,
    *,
    metrics: list[str] | None = None,
    model: Any,
    lines: Any,
    folder: pathlib.Path,
    **options: Any,
) -> Any:
    """`evaluate` with a progress bar; writes the folder and prints the table."""
    from jaxehr.api import describe_run, evaluate
    from jaxehr.training.sharding import led

    described = describe_run(model, synthetic, lines) if model is not None else None
    total = len(chosen_metrics(metrics))
    with Progress("evaluating", total, progress_stream()) as bar:
        found = evaluate(
            real,
            synthetic,
            metrics=metrics,
            run=described,
            model=model,
            progress=lambda name, done, total: bar.update(done, name),
            **options,
        )
    led(lambda: found.save(out, synthetic=folder))
    show(found.results)
    for note in found.notes:
        print(f"note: {note}")
    print(f"{out / 'report.html'}: open it in a browser")
    return found


def show(results: list[Any]) -> None:
    """The table of results: name, value, reference."""
    number = lambda value: "-" if value is None else f"{value:.4f}"
    width = max([len("metric"), *(len(result.name) for result in results)])
    print(f"{'metric':<{width}} {'synthetic':>10} {'real':>10}   better")
    for result in results:
        value, definition = result.value, result.definition
        ideal = "real" if definition.ideal is None else f"{definition.ideal:g}"
        better = f"{definition.direction} ({ideal})"
        note = better if value.value is not None else value.reason
        numbers = f"{number(value.value):>10} {number(value.reference):>10}"
        print(f"{result.name:<{width}} {numbers}   {note}")
