"""CDMT-EHR on real ICU stays: every metric of the paper beside its real reference.

    python -m experiments.cdmt_quickcheck training_setA.tar.xz --out results/quickcheck

Challenge 2019 A, stays of at least 24 h, the first 24 h hourly, 7 vitals and their
masks, sepsis as label; 80 % of the patients for training, 20 % held out. About 50
minutes on 2 CPU cores (training at most 45), minutes on a GPU, where it trains the
paper's 48,000 steps of 4,096 patients. A stopped run goes on where it was. What to
expect stands in the README, "Results".
"""

import dataclasses
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Literal

import tyro

from experiments.suite import shell

if TYPE_CHECKING:
    from jaxehr.core.cohort import Dataset
    from jaxehr.core.contracts import Result
    from jaxehr.models.cdmt.config import CdmtConfig
    from jaxehr.runs import Run

HELD = 0.2  # share of the people who are held out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quickcheck:
    """Train on Challenge 2019 A, sample, and compare."""

    path: tyro.conf.Positional[pathlib.Path]
    """training_setA as distributed: a folder or an archive."""
    out: pathlib.Path = pathlib.Path("results/quickcheck")
    """The folder to make: cohort/, run/, synthetic/, report/ and summary.json."""
    steps: int = 0
    """Optimiser steps; 0 = 20,000 of 256 patients on a CPU, the paper's on a GPU."""
    max_minutes: float = 45.0
    """Training ends after this time on a CPU."""
    learning_rate: float = 2e-3
    """Adam step size on a CPU; on a GPU the paper's 1e-3."""
    solver: Literal["euler", "heun", "dpmpp-2m", "adams-3"] = "euler"
    """euler (the paper), or of higher order."""
    sampler_steps: int = 50
    """Noise levels of the sampler."""
    guidance: float = 0.0
    """Weight of classifier-free guidance."""
    balance: bool = False
    """Sample every class alike."""
    seed: int = 0
    """Same seed, same result."""


def main(arguments: Quickcheck) -> None:
    """Prepares, trains, samples and evaluates; each finished part is kept."""
    import jax

    from jaxehr.commands.evaluate import read_lines, report
    from jaxehr.commands.train import train
    from jaxehr.metrics.evaluate import DEFAULT

    out, seed = arguments.out, arguments.seed
    real = cohort(arguments)
    config = model_config(arguments, jax.default_backend() == "cpu")
    model = train("cdmt", real, out / "run", config, seed=seed, holdout_fraction=HELD)
    lines = read_lines(out / "run")
    begun = time.perf_counter()
    synthetic = draw(arguments, real, model)
    drawn = time.perf_counter()
    found = report(
        real,
        synthetic,
        out / "report",
        seed=seed,
        config=dataclasses.replace(DEFAULT, max_rows=0),
        model=model,
        lines=lines,
        folder=out / "synthetic",
    )
    seconds = {
        "training": lines[-1]["seconds"],
        "sampling": drawn - begun,
        "evaluation": time.perf_counter() - drawn,
    }
    save_summary(arguments, model, lines[-1]["step"], seconds, found.results)


def cohort(arguments: Quickcheck) -> "Dataset":
    """The cohort, prepared once."""
    from jaxehr.data.physionet2019 import Physionet2019Options, read
    from jaxehr.data.store import load_cohort, save_cohort

    folder = arguments.out / "cohort"
    if not folder.is_dir():
        options = Physionet2019Options(hours=24, min_hours=24, static=())
        save_cohort(read([arguments.path], options), folder)
    return load_cohort(folder)


def draw(arguments: Quickcheck, real: "Dataset", model: "Run") -> "Dataset":
    """As many synthetic people as there are training people."""
    from jaxehr.commands.sample import sample
    from jaxehr.data.split import split
    from jaxehr.data.store import save_cohort
    from jaxehr.models.cdmt.config import CdmtSampling

    options = CdmtSampling(
        steps=arguments.sampler_steps,
        solver=arguments.solver,
        guidance=arguments.guidance,
    )
    people = len(split(real, HELD)[0].ids)
    label = "balanced" if arguments.balance else None
    synthetic = sample(model, people, label, arguments.seed, options)
    save_cohort(synthetic, arguments.out / "synthetic", overwrite=True)
    return synthetic


def save_summary(
    arguments: Quickcheck,
    model: "Run",
    steps: int,
    seconds: dict[str, float],
    results: list["Result"],
) -> None:
    """Numbers, settings, machine and time, for the README."""
    from experiments.cells import revision
    from jaxehr.core.files import write_json

    settings = dataclasses.asdict(arguments)
    del settings["path"], settings["out"]
    summary = {
        "machine": model.info["machine"],
        "versions": model.info["versions"],
        "settings": settings,
        "model": dataclasses.asdict(model.config),
        "code": revision(),
        "steps": steps,
        "seconds": seconds,
        "results": {
            r.name: {
                "value": r.value.value,
                "reference": r.value.reference,
                "low": r.value.low,
                "high": r.value.high,
            }
            for r in results
        },
    }
    write_json(arguments.out / "summary.json", summary)


def model_config(arguments: Quickcheck, cpu: bool) -> "CdmtConfig":
    """The paper's denoiser; on a CPU smaller batches and a falling step size."""
    from jaxehr.models.cdmt.config import CdmtConfig, preset
    from jaxehr.training.config import TrainConfig

    if not cpu:
        paper = preset("paper-mimic3")
        steps = arguments.steps or paper.train.steps
        train = dataclasses.replace(paper.train, steps=steps)
        return dataclasses.replace(paper, train=train)
    train = TrainConfig(
        steps=arguments.steps or 20_000,
        batch_size=256,
        learning_rate=arguments.learning_rate,
        lr_schedule="cosine",
        warmup_steps=200,
        eval_every=1000,
        max_minutes=arguments.max_minutes,
    )
    paper = {"prior": "independent", "noise_at": "output", "embedding_dim": 16}
    return CdmtConfig(train=train, **paper)


if __name__ == "__main__":
    sys.exit(shell(main, Quickcheck))
