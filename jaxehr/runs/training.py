"""Training into a run folder."""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxehr.core.cohort import Dataset, num_patients
from jaxehr.core.configs import from_dict, to_dict
from jaxehr.core.contracts import Callback
from jaxehr.core.files import PathLike
from jaxehr.data.missing import drop_modalities
from jaxehr.data.schema_json import schema_to_json
from jaxehr.data.split import split
from jaxehr.registry import model_entry
from jaxehr.runs.folder import (
    CHECKPOINTS,
    FORMAT,
    METRICS,
    RUN_FILE,
    json_lines,
    opened,
    read_info,
    write_params,
)
from jaxehr.runs.model import Run, make
from jaxehr.training.config import resolve

VALID_SHARE = 0.1  # of the people who are not held out; chooses the best average


def train_run(
    name: str,
    data: Dataset,
    out: PathLike,
    config: Any,
    *,
    seed: int = 0,
    holdout_fraction: float = 0.2,
    drop_static: float = 0.0,
    drop_temporal: float = 0.0,
    callbacks: Sequence[Callback] = (),
    announce: Callable[[str], None] | None = None,
) -> Run:
    """Trains into the folder `out`, or goes on where an earlier call stopped.

    People whose hashed id falls into `holdout_fraction` are not touched; `evaluate`
    takes the same people as its hold-out. A tenth of the others only chooses the best
    average. `drop_static` and `drop_temporal` are shares of the people to learn from
    whose modality is hidden, for experiments.

    Raises:
      InputError: `out` belongs to another run, or is not a run folder.
      Stopped: the user stopped; the same call goes on.
    """
    folder, drop = pathlib.Path(out), {"static": drop_static, "temporal": drop_temporal}
    fit, valid = to_learn_from(data, holdout_fraction, drop, seed)
    sizes = [num_patients(part.cohort) for part in (fit, valid, data)]
    num_steps = 1 if model_entry(name).latent else max(data.schema.num_steps, 1)
    config, asked = settle(folder, config, sizes[0], num_steps)
    info = describe(name, data, config, seed, holdout_fraction)
    info |= {"automatic": asked, "drop": drop}
    with opened(folder, info):
        if announce:
            announce(
                f"{name}: {sizes[0]} people to learn from, {sizes[1]} to validate, "
                f"{sizes[2] - sizes[0] - sizes[1]} held out; {plan_in_words(config)}"
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


def to_learn_from(
    data: Dataset, holdout_fraction: float, drop: dict[str, float], seed: int
) -> tuple[Dataset, Dataset]:
    """People to learn from and to validate with, modalities hidden as `drop` says."""
    rest = split(data, holdout_fraction)[0] if holdout_fraction else data
    if any(drop.values()):
        rest = drop_modalities(rest, **drop, seed=seed)[0]
    return split(rest, VALID_SHARE, salt="valid")


def settle(
    folder: pathlib.Path, config: Any, patients: int, num_steps: int
) -> tuple[Any, list[str]]:
    """`config` with its automatic sizes filled in, and the names of these.

    A run that goes on keeps the sizes that it began with, on whatever machine. A model
    without training has none.
    """
    if not hasattr(config, "train"):
        return config, []
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


def plan_in_words(config: Any) -> str:
    """The steps of a training, if there is one."""
    if not hasattr(config, "train"):
        return "no training"
    return f"{config.train.steps} steps of {config.train.batch_size}"


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


def fingerprint(data: Dataset) -> str:
    """A hash of the schema without its rules, the people and every value."""
    schema = schema_to_json(data.schema)
    del schema["rules"]
    digest = hashlib.sha256(json.dumps(schema).encode())
    for leaf in jax.tree.leaves(data.cohort):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    digest.update("\0".join(map(str, data.ids)).encode())
    return digest.hexdigest()[:16]
