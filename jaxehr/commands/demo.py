"""`jaxehr demo`: prepare, train, sample and evaluate on a small real cohort."""

import dataclasses
import pathlib

import tyro

from jaxehr.core.cohort import num_patients
from jaxehr.core.files import PathLike
from jaxehr.devices import configure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Learn a small real cohort (NAFLD, people followed for ten years) and report."""

    out: pathlib.Path = pathlib.Path("jaxehr-demo")
    """The folder to make: real/, run/, synthetic/ and report/. A stopped demo goes on."""
    n: int = 2000
    """People in the cohort, and synthetic people."""
    steps: int = 2500
    """Optimiser steps."""
    seed: int = 0
    """Same seed, same result."""


def run(words: list[str]) -> int:
    arguments = tyro.cli(Demo, prog="jaxehr demo", args=words)
    configure()
    from jaxehr.commands.evaluate import read_lines, report
    from jaxehr.commands.prepare import summary
    from jaxehr.commands.sample import sample
    from jaxehr.commands.train import train
    from jaxehr.data.registry_cohorts import NafldOptions, nafld
    from jaxehr.data.store import load_cohort, save_cohort
    from jaxehr.metrics.evaluate import QUICK
    from jaxehr.models.cdmt.config import CdmtConfig, CdmtSampling
    from jaxehr.training.config import TrainConfig

    out = arguments.out
    if not holds_cohort(out / "real"):
        save_cohort(nafld(NafldOptions(n=arguments.n)), out / "real")
    real = load_cohort(out / "real")
    print(summary(real, out / "real"))
    settings = TrainConfig(
        steps=arguments.steps,
        batch_size=256,
        learning_rate=2e-3,
        lr_schedule="cosine",
        eval_every=250,
    )
    config = CdmtConfig(train=settings)
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
    )
    return 0


def holds_cohort(folder: PathLike) -> bool:
    return (pathlib.Path(folder) / "schema.json").is_file()
