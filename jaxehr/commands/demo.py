"""`jaxehr demo`: prepare, train, sample and evaluate on a small real cohort."""

import pathlib
from typing import Any

from jaxehr.commands.flags import flag, read_flags
from jaxehr.commands.outputs import check_output
from jaxehr.core.checks import InputError, check_seed, positive
from jaxehr.core.files import PathLike
from jaxehr.devices import configure

FLAGS = [
    flag(
        "out",
        pathlib.Path,
        "The folder to make: real/, run/, synthetic/, report/. A stopped demo goes on.",
        pathlib.Path("jaxehr-demo"),
        metavar="FOLDER",
    ),
    flag("n", int, "People in the cohort, and synthetic people.", 2000),
    flag("steps", int, "Optimiser steps.", 2500),
    flag("seed", int, "Same seed, same result.", 0),
]


def run(words: list[str]) -> int:
    text = "Learn a small real cohort (NAFLD: people followed for ten years); report."
    arguments = read_flags("jaxehr demo", text, FLAGS, words)
    positive(n=arguments.n, steps=arguments.steps)
    check_seed(arguments.seed)
    check_folder(arguments.out)
    configure()
    from jaxehr.commands.evaluate import read_lines, report
    from jaxehr.commands.prepare import summary
    from jaxehr.commands.sample import sample
    from jaxehr.commands.train import train
    from jaxehr.core.cohort import num_patients
    from jaxehr.data.registry_cohorts import NafldOptions, nafld
    from jaxehr.data.store import SYNTHETIC, load_cohort, save_cohort
    from jaxehr.metrics.evaluate import QUICK
    from jaxehr.models.cdmt.config import CdmtConfig, CdmtSampling
    from jaxehr.report.html import REPORT

    out = arguments.out
    check_output(out / "synthetic", SYNTHETIC)
    check_output(out / "report", REPORT)
    if holds_cohort(out / "real"):
        check_size(out, load_cohort(out / "real").provenance, arguments.n)
    else:
        save_cohort(nafld(NafldOptions(n=arguments.n)), out / "real")
    real = load_cohort(out / "real")
    print(summary(real, out / "real"))
    config = CdmtConfig(train=settings(arguments.steps))
    model = train("cdmt", real, out / "run", config, seed=arguments.seed)
    options = CdmtSampling()
    data = sample(model, num_patients(real.cohort), None, arguments.seed, options)
    save_cohort(data, out / "synthetic", overwrite=True)
    report(
        real,
        data,
        out / "report",
        seed=arguments.seed,
        config=QUICK,
        model=model,
        lines=read_lines(out / "run"),
        folder=out / "synthetic",
    )
    return 0


def settings(steps: int) -> Any:
    """How the model is trained, a `TrainConfig`."""
    from jaxehr.training.config import TrainConfig

    return TrainConfig(
        steps=steps,
        batch_size=256,
        learning_rate=2e-3,
        lr_schedule="cosine",
        eval_every=250,
    )


def check_size(out: pathlib.Path, made: dict[str, Any], asked: int) -> None:
    """Raises where an earlier demo was asked for more or fewer people."""
    held = made.get("options", {}).get("n", asked)
    if held != asked:
        raise InputError(
            f"{out}: holds a demo of {held} people; take --n {held}, or another --out."
        )


def check_folder(path: pathlib.Path) -> None:
    """Raises unless the folder is new, empty, or one that a demo made."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; choose another folder.")
    if path.is_dir() and any(path.iterdir()) and not holds_cohort(path / "real"):
        raise InputError(
            f"{path}: is not empty and holds no demo; choose another --out."
        )


def holds_cohort(folder: PathLike) -> bool:
    return (pathlib.Path(folder) / "schema.json").is_file()
