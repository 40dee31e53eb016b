"""CDMT-EHR on real ICU stays: every metric of the paper beside its real reference.

    python -m experiments.cdmt_quickcheck training_setA.tar.xz --out results/quickcheck

Challenge 2019 A, stays of at least 24 h, the first 24 h hourly, 7 vitals and their
masks, sepsis as label; 80 % of the patients for training, 20 % held out. About 75
minutes on 2 CPU cores (training at most 45), minutes on a GPU, where it trains the
paper's 48,000 steps of 4,096 patients. A stopped run goes on where it was. What to
expect stands in the README, "Results".
"""

import dataclasses
import json
import pathlib
import time
from typing import TYPE_CHECKING

import tyro

from jaxehr.devices import configure

if TYPE_CHECKING:
    from jaxehr.models.cdmt.config import CdmtConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quickcheck:
    """Train on Challenge 2019 A, sample, and compare."""

    path: tyro.conf.Positional[pathlib.Path]
    """training_setA as distributed: a folder or an archive."""
    out: pathlib.Path = pathlib.Path("results/quickcheck")
    """The folder to make: cohort/, run/, synthetic/, report/ and summary.json."""
    steps: int = 0
    """Optimiser steps; 0 = 25,000 of 256 patients on a CPU, the paper's on a GPU."""
    max_minutes: float = 45.0
    """Training ends after this time on a CPU."""
    learning_rate: float = 2e-3
    """Adam step size on a CPU; on a GPU the paper's 1e-3."""
    solver: str = "euler"
    """euler (the paper) or heun."""
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
    configure()
    import jax

    from jaxehr.commands.evaluate import read_lines, report
    from jaxehr.commands.sample import sample
    from jaxehr.commands.train import train
    from jaxehr.core.files import write_json
    from jaxehr.data.physionet2019 import Physionet2019Options, read
    from jaxehr.data.split import split
    from jaxehr.data.store import load_cohort, save_cohort
    from jaxehr.metrics.evaluate import DEFAULT
    from jaxehr.models.cdmt.config import CdmtSampling

    out, seed = arguments.out, arguments.seed
    if not (out / "cohort").is_dir():
        options = Physionet2019Options(hours=24, min_hours=24, static=())
        save_cohort(read([arguments.path], options), out / "cohort")
    real = load_cohort(out / "cohort")
    fit, _ = split(real, 0.2)
    config = model_config(arguments, jax.default_backend() == "cpu")
    model = train("cdmt", real, out / "run", config, seed=seed, holdout_fraction=0.2)
    begun = time.perf_counter()
    options = CdmtSampling(
        steps=arguments.sampler_steps,
        solver=arguments.solver,  # type: ignore[arg-type]
        guidance=arguments.guidance,
    )
    label = "balanced" if arguments.balance else None
    drawn = sample(model, len(fit.ids), label, seed, options)
    sampling = time.perf_counter() - begun
    save_cohort(drawn, out / "synthetic", overwrite=True)
    begun = time.perf_counter()
    found = report(
        real,
        drawn,
        out / "report",
        seed=seed,
        config=DEFAULT,
        model=model,
        lines=read_lines(out / "run"),
    )
    lines = read_lines(out / "run")
    summary = {
        "machine": model.info["machine"],
        "versions": model.info["versions"],
        "training_seconds": lines[-1]["seconds"],
        "steps": lines[-1]["step"],
        "batch_size": model.config.train.batch_size,
        "sampling_seconds": sampling,
        "evaluation_seconds": time.perf_counter() - begun,
        "settings": json.loads(json.dumps(dataclasses.asdict(arguments), default=str)),
        "results": {
            r.name: {"value": r.value.value, "reference": r.value.reference}
            for r in found.results
        },
    }
    del summary["settings"]["path"], summary["settings"]["out"]
    write_json(out / "summary.json", summary)


def model_config(arguments: Quickcheck, cpu: bool) -> "CdmtConfig":
    """The paper's model; on a CPU smaller batches and a falling step size."""
    from jaxehr.models.cdmt.config import CdmtConfig, preset
    from jaxehr.training.config import TrainConfig

    if not cpu:
        paper = preset("paper-mimic3")
        steps = arguments.steps or paper.train.steps
        train = dataclasses.replace(paper.train, steps=steps)
        return dataclasses.replace(paper, train=train)
    train = TrainConfig(
        steps=arguments.steps or 25_000,
        batch_size=256,
        learning_rate=arguments.learning_rate,
        lr_schedule="cosine",
        warmup_steps=200,
        eval_every=1000,
        max_minutes=arguments.max_minutes,
    )
    return CdmtConfig(train=train)


if __name__ == "__main__":
    main(tyro.cli(Quickcheck))
