"""One cell of a suite: time a short training, train, draw, compare."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxehr.devices import configure

PARTS = ("probe", "training", "sampling", "sampling_1000", "metrics")
PROBE_STEPS = 40  # of the longest stage in the training that is timed


class Data(NamedTuple):
    """People of a cell, of one schema."""

    real: Any  # all that a model may see
    fit: Any
    valid: Any
    test: Any


class Trained(NamedTuple):
    """A trained model, and what its training took."""

    run: Any
    told: dict[str, Any]


def run_cell(
    suite: Any,
    settings: dict[str, Any],
    work: pathlib.Path,
    folders: tuple[pathlib.Path, ...],
    cell: Any,
) -> dict[str, Any]:
    """What is measured, JSON-able; or the reason of a failure.

    Args:
      suite: `suite.Suite`. settings: fields of `suite.Options`. work: where trainings
        are kept. folders: of the training people, and perhaps of the test people.
      cell: `suite.Cell`.
    """
    configure()
    from jaxehr.core.checks import InputError
    from jaxehr.training.loop import Stopped

    try:
        hide = suite.variants[cell.variant].hide
        data = load(folders, settings["patients"], hide, cell.seed)
        place = training_place(work, settings, folders, suite, cell)
        found = measured(suite, settings, place, data, cell)
        told = {"data": told_of(data.real, folders), "training": place.name}
        return found | told
    except Stopped:
        raise
    except Exception as error:  # also what an accelerator says: one cell, one line
        if not isinstance(error, InputError):
            traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}


def load(
    folders: tuple[pathlib.Path, ...],
    patients: int,
    hide: dict[str, float],
    seed: int,
) -> Data:
    """The people of a cell: to learn from, to choose the average by, held out.

    Only those to learn from and to choose by lose what is hidden.
    """
    import numpy as np

    from jaxehr.core.cohort import take
    from jaxehr.data.missing import drop_entries, drop_modalities
    from jaxehr.data.split import split
    from jaxehr.data.store import load_cohort
    from jaxehr.runs.training import VALID_SHARE

    real, *others = (load_cohort(folder) for folder in folders)
    test = others[0] if others else None
    if test is None:
        real, test = split(real, 0.2)
    if patients:
        real = take(real, np.arange(min(patients, len(real.ids))))
    left, static, temporal = real, hide.get("static", 0.0), hide.get("temporal", 0.0)
    if static or temporal:
        left, _ = drop_modalities(left, static, temporal, seed)
    if hide.get("entries"):
        fill = bool(hide.get("filled"))
        left = drop_entries(left, hide["entries"], seed, fill=fill)
    return Data(real, *split(left, VALID_SHARE, salt="valid"), test)


def told_of(real: Any, folders: tuple[pathlib.Path, ...]) -> dict[str, Any]:
    """Whose data they are, and where they lie."""
    source = str(real.provenance.get("source", "unknown"))
    return {"source": source, "folders": [str(folder) for folder in folders]}


def training_place(
    work: pathlib.Path,
    settings: dict[str, Any],
    folders: tuple[pathlib.Path, ...],
    suite: Any,
    cell: Any,
) -> pathlib.Path:
    """The folder of a training: one for all variants, of any suite, that learn the same
    from the same cohort."""
    from experiments.cells import marks_of, named_config

    variant = suite.variants[cell.variant]
    cohort = dict(marks_of(suite, cell.variant, folders))["cohort"]
    settings = {k: v for k, v in settings.items() if k != "metric_code"}
    # Whole, so that a changed default is another training.
    config = dataclasses.asdict(named_config(variant, settings["preset"]))
    same = [variant.model, config, variant.hide, settings, cohort]
    text = json.dumps(same, sort_keys=True)
    mark = hashlib.sha256(text.encode()).hexdigest()[:12]
    return work / f"{cell.cohort}-{variant.model}-{cell.seed}-{mark}"


def told_at(place: pathlib.Path) -> pathlib.Path:
    """The file that says what a training took; it is there when the training is."""
    return place.with_name(f"{place.name}.json")


def measured(
    suite: Any, settings: dict[str, Any], place: pathlib.Path, data: Data, cell: Any
) -> dict[str, Any]:
    """The cell."""
    from experiments.cells import machine

    variant = suite.variants[cell.variant]
    trained = trained_once(place, settings, data, variant, cell.seed)
    laps = dict(trained.told["seconds"])
    lap = stopwatch(laps)
    people = suite.drawn * len(data.real.ids)
    made = drawings(variant, trained.run, people, cell.seed, lap)
    memory = peak_bytes()
    kept = place.parent / "classifiers"
    metrics, notes = compared(suite, data, made, cell.seed, kept)
    lap("metrics")
    return trained.told | {
        "people": {part: len(getattr(data, part).ids) for part in Data._fields},
        "seconds": laps,
        "peak_bytes": max(memory, trained.told["peak_bytes"]),
        "metrics": metrics,
        "notes": notes,
        "machine": machine(),
    }


def trained_once(
    place: pathlib.Path,
    settings: dict[str, Any],
    data: Data,
    variant: Any,
    seed: int,
) -> Trained:
    """The training of a variant; another one of the same model and configuration may
    have made it before, on the same kind of device (and by code of the same number,
    see `cells.CODE`)."""
    import jax

    from jaxehr.core.files import read_json, write_json
    from jaxehr.runs import load_run, save_run

    told, device = told_at(place), jax.devices()[0].device_kind
    made = lambda: told.is_file() and read_json(told).get("device", device) == device
    if not made():
        found = train(settings, data, variant, seed)
        if not made():  # another process may have made it meanwhile
            shutil.rmtree(place, ignore_errors=True)
            save_run(found.run, place)
            write_json(told, found.told | {"device": device})
    return Trained(load_run(place), read_json(told))


def train(settings: dict[str, Any], data: Data, variant: Any, seed: int) -> Trained:
    """A training of as many seconds as the settings say."""
    import jax
    import numpy as np

    from experiments.cells import revision
    from jaxehr.models.flexgen.alignment import from_text
    from jaxehr.runs import Run, describe, make

    laps: dict[str, float] = {}
    keys = jax.random.split(jax.random.key(seed))
    lap, config = stopwatch(laps), config_of(variant, settings["preset"], data)
    if hasattr(config, "train"):
        full = full_cost(variant.model, data, config, keys[0])
        config = scaled(config, settings["seconds"] / full)
    lap("probe")
    heard = [0]
    params = make(variant.model, data.real.schema, config).fit(
        keys[1],
        data.fit.cohort,
        valid=data.valid.cohort,
        callbacks=[lambda step, told: heard.append(step)],
    )
    lap("training")
    weights = jax.tree.leaves(params.get("weights", {}))
    told = {
        "steps": heard[-1],
        "parameters": sum(int(np.size(leaf)) for leaf in weights),
        "input": str(params.get("input", "")),
        "seconds": laps,
        "peak_bytes": peak_bytes(),
        "trained_by": revision(),
    }
    if "diagnostics" in params:
        told["alignment"] = {"used": from_text(params["diagnostics"])["used"]}
    info = describe(variant.model, data.real, config, seed, 0.0)
    return Trained(Run(variant.model, config, data.real.schema, params, info), told)


def peak_bytes() -> int:
    """Most memory that this process had at once, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def drawings(
    variant: Any, run: Any, people: int, seed: int, lap: Callable[..., None]
) -> Any:
    """As many patients as `people`; then as many as `whole_blocks` says by the program
    of before, whose time is kept as that of 1,000."""
    from jaxehr.core.configs import replace
    from jaxehr.registry import find, model_entry
    from jaxehr.runs import sample_run

    options = replace(find(model_entry(run.name).sampling)(), variant.sampling)
    draw = functools.partial(
        sample_run, run, label=variant.label or None, seed=seed, options=options
    )
    made = draw(people)
    lap("sampling")
    draw(count := whole_blocks())
    lap("sampling_1000", 1000 / count)
    return made


def whole_blocks() -> int:
    """A number of patients, at least 1,000, who fill the largest block of a network
    (FLEXGEN-EHR's is two of `block_rows`): padding takes as much time as patients."""
    import jax

    from jaxehr.core.blocks import block_rows

    size = 2 * block_rows() * jax.device_count()
    return -(-1000 // size) * size


def compared(
    suite: Any, data: Data, made: Any, seed: int, kept: pathlib.Path
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """All metrics of the suite, with their references and intervals; what was doubtful.

    Networks that learn from the same rows are trained once for all cells, in `kept`.
    """
    from jaxehr.api import evaluate
    from jaxehr.core.configs import replace
    from jaxehr.metrics.evaluate import QUICK

    report = evaluate(
        data.real,
        made,
        data.test,
        seed=seed,
        config=replace(QUICK, suite.quick | {"remember": str(kept)}),
        metrics=list(suite.metrics),
    )
    return {r.name: told_number(r.value) for r in report.results}, report.notes


def told_number(value: Any) -> dict[str, Any]:
    """A number with its reference and interval; or the reason why there is none."""
    from jaxehr.report.json_out import plain

    names = ("value", "reference", "low", "high")
    found = {name: getattr(value, name) for name in names}
    if plain(value.value) is None:
        found["reason"] = value.reason or "no reason was given"
    return found


def config_of(variant: Any, preset: str, data: Data) -> Any:
    """`named_config`, with the numbers that depend on the people."""
    import jax

    from experiments.cells import named_config
    from jaxehr.registry import model_entry
    from jaxehr.training.config import resolve

    entry, config = model_entry(variant.model), named_config(variant, preset)
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


def stopwatch(laps: dict[str, float]) -> Callable[..., None]:
    """Writes the seconds since the last call into `laps`; those of the clock too. A
    lap may be told as a share of itself."""
    last = [seconds_now(), time.perf_counter()]

    def lap(name: str, share: float = 1.0) -> None:
        now = [seconds_now(), time.perf_counter()]
        laps[name], laps[f"{name}_clock"] = (
            round(share * (end - begin), 4)
            for begin, end in zip(last, now, strict=True)
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
    hear = lambda step, told: events.append(
        (told.get("stage", 0.0), step, seconds_now())
    )
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
    sys.exit("this is a part of the suites, such as `python -m experiments.benchmark`.")
