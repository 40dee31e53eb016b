"""One cell of the benchmark: time a short training, train, draw, compare."""

import dataclasses
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxehr.devices import configure

METRICS = (
    *("dimensions", "mmd", "correlation", "tvd", "ks", "prdc"),
    *("acf", "transition", "missing_rate"),
    *("c2st_logistic", "c2st_boosting"),
    *("tstr", "utility_forest", "utility_logistic"),
    *("membership_hamming", "nnaa", "copies"),
)
PROBE_STEPS = 40  # of the longest stage in the training that is timed
DRAWN = 1000  # patients of the timed drawing


class Data(NamedTuple):
    """People of a cell, of one schema."""

    real: Any  # all that a model may see
    fit: Any
    valid: Any
    test: Any


def run_cell(
    settings: dict[str, Any],
    folders: tuple[pathlib.Path, ...],
    cohort: str,
    model: str,
    seed: int,
) -> dict[str, Any]:
    """What is measured, JSON-able; or the reason of a failure.

    Args:
      settings: fields of `benchmark.Benchmark`. folders: of the training people, and
        perhaps of the test people.
    """
    del cohort
    configure()
    from jaxehr.core.checks import InputError

    try:
        return measured(settings, load(folders, settings["patients"]), model, seed)
    except (InputError, FloatingPointError, MemoryError, ValueError) as error:
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}


def load(folders: tuple[pathlib.Path, ...], patients: int) -> Data:
    """The people of a cell: to learn from, to choose the average by, held out."""
    import numpy as np

    from jaxehr.core.cohort import take
    from jaxehr.data.split import split
    from jaxehr.data.store import load_cohort
    from jaxehr.runs.training import VALID_SHARE

    real, *others = (load_cohort(folder) for folder in folders)
    test = others[0] if others else None
    if test is None:
        real, test = split(real, 0.2)
    if patients:
        real = take(real, np.arange(min(patients, len(real.ids))))
    return Data(real, *split(real, VALID_SHARE, salt="valid"), test)


def measured(
    settings: dict[str, Any], data: Data, name: str, seed: int
) -> dict[str, Any]:
    """The cell."""
    import jax
    import numpy as np

    from experiments.cells import machine
    from jaxehr.runs import make

    keys, laps = jax.random.split(jax.random.key(seed), 4), {}
    lap, config = stopwatch(laps), config_of(name, settings["preset"], data)
    if hasattr(config, "train"):
        full = full_cost(name, data, config, keys[0])
        config = scaled(config, settings["seconds"] / full)
    lap("probe")
    model, heard = make(name, data.real.schema, config), [0]
    params = model.fit(
        keys[1],
        data.fit.cohort,
        valid=data.valid.cohort,
        callbacks=[lambda step, told: heard.append(step)],
    )
    lap("training")
    made = drawings(name, model, keys[2], params, len(data.real.ids), lap)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    metrics = compared(data, made, seed)
    lap("metrics")
    weights = jax.tree.leaves(params.get("weights", {}))
    return {
        "people": {part: len(getattr(data, part).ids) for part in Data._fields},
        "steps": heard[-1],
        "parameters": sum(int(np.size(leaf)) for leaf in weights),
        "seconds": laps,
        "peak_bytes": memory,
        "input": str(params.get("input", "")),
        "metrics": metrics,
        "machine": machine(),
    }


def drawings(
    name: str,
    model: Any,
    key: Any,
    params: Any,
    people: int,
    lap: Callable[[str], None],
) -> Any:
    """As many patients as there are people; then `DRAWN` by a program that is warm."""
    from jaxehr.registry import find, model_entry

    options = find(model_entry(name).sampling)()
    made = model.sample(key, params, None, people, options=options)
    lap("sampling")
    model.sample(key, params, None, DRAWN, options=options)
    lap("warm")
    model.sample(key, params, None, DRAWN, options=options)
    lap("sampling_1000")
    return made


def compared(data: Data, made: Any, seed: int) -> dict[str, dict[str, float | None]]:
    """All metrics of the benchmark, with their references and intervals."""
    from jaxehr.api import evaluate
    from jaxehr.metrics.evaluate import QUICK
    from jaxehr.runs.sampling import synthetic

    report = evaluate(
        data.real,
        synthetic(data.real.schema, made, {"kind": "synthetic"}),
        data.test,
        seed=seed,
        config=dataclasses.replace(QUICK, max_rows=0, trees=300),
        metrics=list(METRICS),
    )
    names = ("value", "reference", "low", "high")
    return {r.name: {n: getattr(r.value, n) for n in names} for r in report.results}


def config_of(name: str, preset: str, data: Data) -> Any:
    """The configuration of a model: a preset if it has one of that name."""
    import jax

    from jaxehr.core.configs import replace
    from jaxehr.registry import find, model_entry
    from jaxehr.training.config import resolve

    entry = model_entry(name)
    config = find(entry.config)()
    config = replace(config, find(entry.presets).get(preset, {}))
    if not hasattr(config, "train"):
        return config
    steps = 1 if entry.latent else max(data.real.schema.num_steps, 1)
    accelerator = jax.default_backend() != "cpu"
    train = resolve(config.train, len(data.fit.ids), steps, accelerator=accelerator)
    return dataclasses.replace(config, train=train)


def seconds_now() -> float:
    """Seconds of all processors on a CPU, of the clock on an accelerator."""
    import jax

    cpu = jax.default_backend() == "cpu"
    return time.process_time() if cpu else time.perf_counter()


def stopwatch(laps: dict[str, float]) -> Callable[[str], None]:
    """Writes the seconds since the last call into `laps`; those of the clock too."""
    last = [seconds_now(), time.perf_counter()]

    def lap(name: str) -> None:
        now = [seconds_now(), time.perf_counter()]
        laps[name], laps[f"{name}_clock"] = (
            round(end - begin, 2) for begin, end in zip(last, now, strict=True)
        )
        last[:] = now

    return lap


def full_cost(name: str, data: Data, config: Any, key: Any) -> float:
    """Seconds that a whole training by `config` would take, without compilation.

    From a short training whose stages are all shorter by the same factor.
    """
    from jaxehr.runs import make

    train, epochs = config.train, [value for _, value in epochs_of(config)]
    factor = max([PROBE_STEPS / train.steps, *(1.0 / value for value in epochs)])
    small = scaled(config, factor)
    train = dataclasses.replace(
        small.train, eval_every=max(small.train.steps // 4, 1), ema_decay=0.0
    )
    small, events = dataclasses.replace(small, train=train), []
    hear = lambda step, told: events.append((told["stage"], step, seconds_now()))
    make(name, data.real.schema, small).fit(key, data.fit.cohort, callbacks=[hear])
    return cost_of(events) / factor


def cost_of(events: list[tuple[float, int, float]]) -> float:
    """Seconds of all steps at the pace of each stage after its first dispatch.

    Args:
      events: stage, steps since the start of all stages, seconds.
    """
    cost, first = 0.0, 0
    for stage in sorted({event[0] for event in events}):
        told = [(step, now) for place, step, now in events if place == stage]
        (begin, start), (end, stop) = told[0], told[-1]
        if end > begin:
            cost += (stop - start) / (end - begin) * (end - first)
        first = end
    return max(cost, 1e-3)


def epochs_of(config: Any) -> list[tuple[str, int]]:
    """The fields that are passes over the patients."""
    names = [f.name for f in dataclasses.fields(config) if f.name.endswith("_epochs")]
    return [(name, getattr(config, name)) for name in names if getattr(config, name)]


def scaled(config: Any, factor: float) -> Any:
    """Every stage longer or shorter by `factor`, at least 1 pass or `PROBE_STEPS`."""
    steps = max(round(config.train.steps * factor), PROBE_STEPS)
    train = dataclasses.replace(
        config.train,
        steps=steps,
        eval_every=max(steps // 10, 1),
        checkpoint_every=10**9,
        warmup_steps=min(config.train.warmup_steps, steps // 10),
    )
    passes = {name: max(round(n * factor), 1) for name, n in epochs_of(config)}
    return dataclasses.replace(config, train=train, **passes)


if __name__ == "__main__":
    sys.exit("this is a part of `python -m experiments.benchmark`.")
