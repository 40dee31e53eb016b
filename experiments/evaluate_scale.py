"""Time and memory of all metrics on many patients.

    python -m experiments.evaluate_scale

Simulated patients in place of real and synthetic ones: 25 steps of 7 columns and their
masks. Prints the seconds of each family as they end, then one line of JSON. Expected on
2 CPU cores: under 10 minutes and 6 GB.
"""

import dataclasses
import json
import platform
import resource
import tempfile
import time
from typing import TYPE_CHECKING

import tyro

from jaxehr.devices import configure

if TYPE_CHECKING:
    from jaxehr.core.cohort import Dataset
    from jaxehr.runs import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Evaluate simulated patients against others of the same law."""

    patients: int = 20_000
    """Real patients to train on, and as many synthetic ones; a quarter more held
    out."""
    steps: int = 25
    """Hourly steps."""
    metrics: tuple[str, ...] = ()
    """Only these families; empty = all that run unasked."""
    model_steps: int = 200
    """Optimiser steps of a small CDMT-EHR for the attack on the model itself, trained
    before the clock starts; 0 = no such attack."""
    quick: bool = False
    """The smaller setting of `jaxehr evaluate --quick`."""


def small_model(data: "Dataset", steps: int) -> "Run":
    """A model of all of the patients, not trained to the end."""
    from jaxehr.core.configs import replace
    from jaxehr.models.cdmt.config import preset
    from jaxehr.runs import train_run

    train = {"steps": steps, "lr_schedule": "constant", "max_minutes": 0.0}
    config = replace(preset("small"), {"train": train})
    with tempfile.TemporaryDirectory() as folder:
        return train_run("cdmt", data, folder + "/run", config, holdout_fraction=0.0)


def main(arguments: Scale) -> None:
    import jax

    from jaxehr.api import evaluate
    from jaxehr.data.simulate import SimulateOptions, simulate
    from jaxehr.metrics.evaluate import DEFAULT, QUICK

    sizes = (arguments.patients, arguments.patients // 4, arguments.patients)
    train, holdout, made = (
        simulate(SimulateOptions(n=n, steps=arguments.steps, numeric=4, seed=seed))
        for seed, n in enumerate(sizes)
    )
    steps = arguments.model_steps
    model = small_model(train, steps) if steps else None
    laps, last = {}, [time.perf_counter(), ""]
    begun = last[0]

    def note(name: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if last[1]:
            laps[last[1]] = round(now - last[0], 1)
            print(f"{last[1]}: {laps[last[1]]} s", flush=True)
        last[:] = now, name

    found = evaluate(
        train,
        made._replace(ids=made.ids + 10**6, groups=made.groups + 10**6),
        holdout._replace(ids=holdout.ids + 10**7, groups=holdout.groups + 10**7),
        config=QUICK if arguments.quick else DEFAULT,
        metrics=list(arguments.metrics) or None,
        model=model,
        progress=note,
    )
    result = dataclasses.asdict(arguments) | {
        "seconds": round(time.perf_counter() - begun, 1),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "seconds_of": laps,
        "numbers": len(found.results),
        "not_defined": [r.name for r in found.results if r.value.value is None],
        "machine": f"{platform.machine()}, {jax.device_count()} devices",
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    configure()
    main(tyro.cli(Scale))
