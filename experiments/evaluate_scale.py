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
import time

import tyro

from jaxehr.devices import configure


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
    quick: bool = False
    """The smaller setting of `jaxehr evaluate --quick`."""


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
