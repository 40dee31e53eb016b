"""RUN folders: a training run that can be stopped, resumed, and sampled from.

A folder holds `run.json` (model, config, schema, seed, cohort fingerprint, versions),
`metrics.jsonl`, `checkpoints/`, and, once training has ended, `params.npz`.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core import arrays
from jaxehr.core.checks import InputError, known
from jaxehr.core.cohort import Cohort, Dataset, Schema, num_patients
from jaxehr.core.configs import differences, from_dict, to_dict
from jaxehr.core.contracts import Callback, GenerativeModel, Params
from jaxehr.core.files import PathLike, read_json, write_bytes, write_json
from jaxehr.data.schema_json import schema_from_json, schema_to_json
from jaxehr.data.split import split
from jaxehr.registry import MODELS, find, model_entry
from jaxehr.training.config import resolve

RUN_FILE, PARAMS, METRICS, CHECKPOINTS = (
    "run.json",
    "params.npz",
    "metrics.jsonl",
    "checkpoints",
)
FORMAT = 1
VALID_SHARE = 0.1  # of the people who are not held out; chooses the best average
# Fields that may change when a run goes on: they do not change what a step does.
LIMITS = ("config.train.max_minutes", "config.train.keep")


class Run(NamedTuple):
    """A trained model: everything `sample` needs."""

    name: str
    config: Any
    schema: Schema
    params: Params
    info: dict[str, Any]

    @property
    def model(self) -> GenerativeModel:
        return make(self.name, self.schema, self.config)


def make(name: str, schema: Schema, config: Any = None) -> GenerativeModel:
    """The generative model `name` for cohorts of `schema`."""
    return find(model_entry(name).factory)(schema, config)


def fingerprint(data: Dataset) -> str:
    """A hash of the schema, the people and every value."""
    digest = hashlib.sha256(json.dumps(schema_to_json(data.schema)).encode())
    for leaf in jax.tree.leaves(data.cohort):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    digest.update("\0".join(map(str, data.ids)).encode())
    return digest.hexdigest()[:16]


def describe(
    name: str, data: Dataset, config: Any, seed: int, holdout_fraction: float
) -> dict[str, Any]:
    """The content of run.json, but for the sizes that were chosen automatically."""
    device = jax.devices()[0]
    versions = {p: importlib.metadata.version(p) for p in ("jaxehr", "jax", "flax")}
    return {
        "format": FORMAT,
        "model": name,
        "config": to_dict(config),
        "schema": schema_to_json(data.schema),
        "seed": seed,
        "holdout_fraction": holdout_fraction,
        "cohort": fingerprint(data),
        "patients": num_patients(data.cohort),
        "versions": versions,
        "machine": f"{platform.machine()}, {jax.device_count()} {device.device_kind}",
    }


def train_run(
    name: str,
    data: Dataset,
    out: PathLike,
    config: Any,
    *,
    seed: int = 0,
    holdout_fraction: float = 0.2,
    callbacks: Sequence[Callback] = (),
    announce: Callable[[str], None] | None = None,
) -> Run:
    """Trains into the folder `out`, or goes on where an earlier call stopped.

    People whose hashed id falls into `holdout_fraction` are not touched; `evaluate`
    takes the same people as its hold-out. A tenth of the others only chooses the best
    average.

    Raises:
      InputError: `out` belongs to another run, or is not a run folder.
      Stopped: the user stopped; the same call goes on.
    """
    folder = pathlib.Path(out)
    rest = split(data, holdout_fraction)[0] if holdout_fraction else data
    fit, valid = split(rest, VALID_SHARE, salt="valid")
    sizes = [num_patients(part.cohort) for part in (fit, valid, data)]
    config, asked = settle(folder, config, sizes[0], max(data.schema.num_steps, 1))
    info = describe(name, data, config, seed, holdout_fraction) | {"automatic": asked}
    with opened(folder, info):
        if announce:
            announce(
                f"{name}: {sizes[0]} people to learn from, {sizes[1]} to validate, "
                f"{sizes[2] - sizes[0] - sizes[1]} held out; "
                f"{config.train.steps} steps of {config.train.batch_size}"
            )
        params = make(name, data.schema, config).fit(
            jax.random.key(seed),
            fit.cohort,
            valid=valid.cohort,
            callbacks=(json_lines(folder / METRICS), *callbacks),
            checkpoint=str(folder / CHECKPOINTS),
            announce=announce,
        )
        run = Run(name, config, data.schema, params, info)
        write_params(run, folder)
    return run


def settle(
    folder: pathlib.Path, config: Any, patients: int, num_steps: int
) -> tuple[Any, list[str]]:
    """`config` with its automatic sizes filled in, and the names of these.

    A run that goes on keeps the sizes that it began with, on whatever machine.
    """
    train = to_dict(config.train)
    asked = [name for name in ("steps", "batch_size") if not train[name]]
    if asked and (folder / RUN_FILE).is_file():
        old = read_info(folder)
        if old.get("automatic") == asked:
            before = old.get("config", {}).get("train", {})
            train |= {name: before[name] for name in asked if name in before}
    found = from_dict(type(config.train), train)
    accelerator = jax.default_backend() != "cpu"
    found = resolve(found, patients, num_steps, accelerator=accelerator)
    return dataclasses.replace(config, train=found), asked


@contextmanager
def opened(folder: pathlib.Path, info: dict[str, Any]) -> Iterator[None]:
    """Opens the folder; a refusal before the first checkpoint removes what it made."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    new = not (folder / RUN_FILE).exists()
    ours = False  # only what this call wrote is removed
    try:
        open_run(folder, info)
        ours = new
        yield
    except Exception as error:
        reason = storage_reason(error)
        if not reason and not isinstance(error, InputError):
            raise
        saved = (folder / CHECKPOINTS).glob("*")
        if ours and not any(path.name.isdigit() for path in saved):
            for name in (RUN_FILE, METRICS):
                (folder / name).unlink(missing_ok=True)
            remove(folder / CHECKPOINTS)
        for made in missing:  # from the innermost
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()
        if reason:
            raise InputError(f"{folder / CHECKPOINTS}: {reason}") from None
        raise


def remove(folder: pathlib.Path) -> None:
    """Removes a folder into which threads of Orbax may still write for a moment."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def storage_reason(error: Exception) -> str:
    """What went wrong on disk if `error` is one of Orbax's or TensorStore's; or ""."""
    text = str(error)
    if found := re.search(r"([^:\[\]]+) \[os_error_code", text):
        return (
            f"cannot be written ({found[1].strip()}); make room, then repeat the "
            "command, which goes on from the last checkpoint."
        )
    if type(error) is Exception:  # what Orbax raises for damaged arrays
        first = text.partition(". See")[0].partition("\n")[0][:120]
        return (
            f"a checkpoint is damaged ({first}); remove the newest one, or train into "
            "another folder."
        )
    return ""


def open_run(folder: pathlib.Path, info: dict[str, Any]) -> None:
    """Makes the folder, or checks that it holds the same run."""
    if (folder / RUN_FILE).is_file():
        changed = changes(read_info(folder), info)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise InputError(
                f"{folder}: holds another run ({'; '.join(changed[:3])}{more}); train "
                "into another folder, or repeat the command that made it."
            )
    elif folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose another folder.")
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder}: is not empty and not a run; choose another folder."
        )
    write_json(folder / RUN_FILE, info)


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two runs, each in a few words."""
    ignored = ("versions", "machine", "automatic")
    keep = lambda info: {k: v for k, v in info.items() if k not in ignored}
    plain = json.loads(json.dumps(new))  # tuples become lists, as in a file
    found = differences(keep(old), keep(plain))
    found = [line for line in found if not line.startswith(LIMITS)]
    return [line if len(line) <= 80 else f"{line[:77]}..." for line in found]


def write_params(run: Run, folder: pathlib.Path) -> None:
    content = run.params | {"run": np.array(identity(run.info))}
    write_bytes(folder / PARAMS, arrays.to_bytes(content))


def identity(info: dict[str, Any]) -> str:
    """A hash of what the parameters depend on; finds an edited run.json."""
    config = info.get("config")
    if isinstance(config, dict) and isinstance(config.get("train"), dict):
        limits = [name.rpartition(".")[2] for name in LIMITS]
        train = {k: v for k, v in config["train"].items() if k not in limits}
        config = config | {"train": train}
    text = json.dumps([info.get("model"), config, info.get("schema")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_info(folder: pathlib.Path) -> dict[str, Any]:
    """run.json, checked to be one of ours."""
    info = read_json(folder / RUN_FILE)
    where = folder / RUN_FILE
    if not isinstance(info, dict) or "format" not in info or "model" not in info:
        raise InputError(f"{where}: not a run of jaxehr (no format, or no model).")
    if info["format"] != FORMAT:
        raise InputError(
            f"{where}: has format {info['format']!r}, this version reads {FORMAT}; use "
            "the version of jaxehr that made it, or train anew."
        )
    known(f"model in {where}", info["model"], MODELS)
    return info


def load_run(path: PathLike) -> Run:
    """A trained run.

    Raises:
      InputError: no run there, training has not ended, or a file is damaged.
    """
    folder = pathlib.Path(path)
    if not (folder / RUN_FILE).is_file():
        raise InputError(
            f"{folder}: not a run folder (no {RUN_FILE}); see `jaxehr train`."
        )
    info = read_info(folder)
    if not (folder / PARAMS).is_file():
        raise InputError(
            f"{folder}: training has not ended; repeat the `jaxehr train` command."
        )
    entry = model_entry(info["model"])
    where = str(folder / RUN_FILE)
    try:
        config = from_dict(find(entry.config), info["config"], where)
        schema = schema_from_json(info["schema"], where)
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: damaged ({error}).") from error
    params = arrays.read_arrays(folder / PARAMS)
    missing = [name for name in ("fitted", "weights", "run") if name not in params]
    if missing:
        raise InputError(
            f"{folder / PARAMS}: damaged ({', '.join(missing)} missing); repeat the "
            "`jaxehr train` command."
        )
    if str(params.pop("run")) != identity(info):
        raise InputError(
            f"{where}: was edited after training, or belongs to another {PARAMS}; "
            "bring the original back, or train anew."
        )
    return Run(info["model"], config, schema, params, info)


def save_run(run: Run, path: PathLike) -> None:
    """Writes a model trained in Python as a folder that `load_run` reads."""
    folder = pathlib.Path(path)
    with opened(folder, run.info):
        write_params(run, folder)


def sample_run(
    run: Run,
    num: int,
    *,
    label: Any | None = None,
    seed: int = 0,
    options: Any | None = None,
    progress: Callable[[int], None] | None = None,
) -> Dataset:
    """`num` synthetic people with the columns, dtypes and categories of the input.

    Args:
      label: None = training frequency, "balanced", or one of the label's classes.
    """
    if num < 1:
        raise InputError(f"the number of patients must be positive, got {num}.")
    code = class_code(run.schema, label)
    cohort = run.model.sample(
        jax.random.key(seed), run.params, code, num, options=options, progress=progress
    )
    made = {
        "kind": "synthetic",
        "model": run.name,
        "config": to_dict(run.config),
        "run": {k: v for k, v in run.info.items() if k not in ("schema", "config")},
        "sampling": {} if options is None else to_dict(options),
        "label": None if label is None else str(label),
        "seed": seed,
    }
    return synthetic(run.schema, cohort, made)


def class_code(schema: Schema, label: Any | None) -> Any | None:
    """The code of a class given by value or by its text."""
    if label is None or label == "balanced" or schema.label is None:
        return label
    names = [str(value) for value in schema.label.classes]
    known(f"class of label {schema.label.name!r}", str(label), names)
    return names.index(str(label))


def synthetic(schema: Schema, cohort: Cohort, provenance: dict[str, Any]) -> Dataset:
    """Synthetic people, numbered from 1, as a dataset."""
    numbers = np.arange(1, num_patients(cohort) + 1)
    text = "string" in schema.id_dtype
    ids = np.array([f"synthetic-{n:07d}" for n in numbers]) if text else numbers
    return Dataset(schema, cohort, ids, ids, provenance)


def json_lines(path: pathlib.Path) -> Callback:
    """Appends to a JSONL file; a resumed run first drops the lines of later steps."""
    started = False

    def write(step: int, metrics: dict[str, float]) -> None:
        nonlocal started
        if not started:
            lines = path.read_text().splitlines() if path.is_file() else []
            kept = [line for line in lines if earlier(line, step)]
            write_bytes(path, "".join(f"{line}\n" for line in kept).encode())
            started = True
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": step} | metrics) + "\n")
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror})."
            ) from error

    return write


def earlier(line: str, step: int) -> bool:
    """Whether a line of metrics is whole and older than `step`."""
    try:
        return json.loads(line)["step"] < step
    except (json.JSONDecodeError, KeyError, TypeError):
        return False
