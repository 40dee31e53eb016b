"""Training into a run folder."""

import dataclasses
import importlib.metadata
import pathlib
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxehr.core.checks import InputError, check_seed
from jaxehr.core.cohort import Dataset, Schema, num_patients, take
from jaxehr.core.configs import from_dict, to_dict
from jaxehr.core.contracts import Callback, GenerativeModel
from jaxehr.core.files import PathLike
from jaxehr.data.dataset_checks import check_dataset
from jaxehr.data.discretize import check_holdout
from jaxehr.data.missing import drop_modalities
from jaxehr.data.schema_json import schema_to_json
from jaxehr.data.shards import Shards, dense_bytes, memory_for
from jaxehr.data.split import fewer, held_out, split
from jaxehr.registry import model_entry
from jaxehr.runs.folder import (
    CHECKPOINTS,
    FEED,
    FORMAT,
    METRICS,
    RUN_FILE,
    json_lines,
    opened,
    outdated,
    read_info,
    remove_feeds,
    write_params,
)
from jaxehr.runs.identity import fingerprint, fingerprint_of_shards
from jaxehr.runs.model import Run, config_of, make
from jaxehr.training.config import resolve
from jaxehr.training.sharding import agreed, leads, led

MEMORY = 4_000_000_000  # bytes, where a cohort in shards is not held
VALID_BYTES = 2**30  # of the people who validate, where they are on disk
VALID_SHARE = 0.1  # of the people who are not held out; chooses the best average


def train_run(
    name: str,
    data: Dataset | Shards,
    out: PathLike,
    config: Any = None,
    *,
    seed: int = 0,
    holdout_fraction: float = 0.2,
    drop_static: float = 0.0,
    drop_temporal: float = 0.0,
    memory: int = MEMORY,
    callbacks: Sequence[Callback] = (),
    announce: Callable[[str], None] | None = None,
) -> Run:
    """Trains into the folder `out`, or goes on where an earlier call stopped.

    The people of `holdout_fraction`, by hashed id, are not touched: they are the
    hold-out of `evaluate`. A tenth of the others only chooses the best average. Without
    `config` the model has its defaults. `drop_static` and `drop_temporal` are shares of
    whom a modality is hidden, for experiments. `memory`: bytes of `Shards` to hold.

    Raises:
      InputError: data, config or memory that do not suit; something else in `out`.
      Stopped: the user stopped; the same call goes on.
    """
    check_seed(seed)
    folder, drop = pathlib.Path(out), {"static": drop_static, "temporal": drop_temporal}
    if isinstance(data, Shards):
        refuse_shards(name, data, config, drop)
        people = sharded_learners(data, holdout_fraction, folder, memory)
    else:
        people = learners(data, holdout_fraction, drop, seed)
    config, asked = settle(folder, name, config, people.learn, data.schema)
    info = describe(name, data, config, seed, holdout_fraction)
    info |= {"automatic": asked, "drop": drop, "validate": people.judge}
    log = (json_lines(folder / METRICS), outdated(folder)) if leads() else ()
    with opened(folder, info):
        if announce:
            announce(words_of(name, people, config))
        params = people.fit(
            make(name, data.schema, config),
            jax.random.key(seed),
            callbacks=(*log, *callbacks),
            checkpoint=str(folder / CHECKPOINTS),
            announce=announce,
        )
        run = Run(name, config, data.schema, params, info)
        led(lambda: write_params(run, folder))
        forget(folder)
    return run


class Learners(NamedTuple):
    """How many people learn, judge, are held out; (model, key, ...) -> params."""

    learn: int
    judge: int
    held: int
    fit: Callable[..., Any]


def learners(
    whole: Dataset, holdout_fraction: float, drop: dict[str, float], seed: int
) -> Learners:
    """People in memory, of the cohort `whole`."""
    check_dataset(whole)
    fit, valid = to_learn_from(whole, holdout_fraction, drop, seed)

    def run(model: GenerativeModel, key: jax.Array, **options: Any) -> Any:
        return model.fit(key, fit.cohort, valid=valid.cohort, **options)

    sizes = num_patients(fit.cohort), num_patients(valid.cohort)
    return Learners(*sizes, len(whole.ids) - sum(sizes), run)


def sharded_learners(
    shards: Shards, holdout_fraction: float, folder: pathlib.Path, memory: int
) -> Learners:
    """People on disk: the same as `to_learn_from` takes.

    Validation has to fit into memory: at most `VALID_BYTES` of values. So that the
    result does not depend on the limit, the cap does not.
    """
    check_holdout(shards.provenance, shards.groups, holdout_fraction)
    rest = np.ones(len(shards.groups), bool)
    if holdout_fraction:
        rest = ~held_out(shards.groups, holdout_fraction)
    judge = np.zeros(len(rest), bool)
    judge[rest] = who_judges(shards.groups[rest])
    learn, most = rest & ~judge, VALID_BYTES // dense_bytes(shards.schema, 1)
    judge = fewer(shards.groups, judge, max(most, 1))

    def run(model: GenerativeModel, key: jax.Array, **options: Any) -> Any:
        assert model.fit_shards is not None  # `refuse_shards`
        room = {"scratch": scratch_of(folder), "memory": memory}
        return model.fit_shards(key, shards, learn, judge, **room, **options)

    return Learners(int(learn.sum()), int(judge.sum()), int((~rest).sum()), run)


def forget(folder: pathlib.Path) -> None:
    """Removes the encoded patients of all processes, once none reads them any more."""
    agreed(0)
    if leads():
        remove_feeds(folder)


def scratch_of(folder: pathlib.Path) -> pathlib.Path:
    """Where this process keeps encoded patients."""
    return folder / (FEED if leads() else f"{FEED}-{jax.process_index()}")


def refuse_shards(
    name: str, shards: Shards, config: Any, drop: dict[str, float]
) -> None:
    """Raises InputError where a cohort has to be in memory as a whole."""
    size = f"{memory_for(shards) / 1e9:.1f} GB"
    advice = f"raise --memory-limit to {size}, or take fewer patients."
    if make(name, shards.schema, config).fit_shards is None:
        raise InputError(
            f"model {name} learns from cohorts in memory only, and this one needs "
            f"about {size}; {advice}"
        )
    if any(drop.values()):
        raise InputError(
            f"--drop-static and --drop-temporal need the cohort in memory; {advice}"
        )


def to_learn_from(
    data: Dataset, holdout_fraction: float, drop: dict[str, float], seed: int
) -> tuple[Dataset, Dataset]:
    """People to learn from and to validate with, modalities hidden as `drop` says."""
    check_holdout(data.provenance, data.groups, holdout_fraction)
    rest = split(data, holdout_fraction)[0] if holdout_fraction else data
    if any(drop.values()):
        rest = drop_modalities(rest, **drop, seed=seed)[0]
    judge = who_judges(rest.groups)
    return take(rest, ~judge), take(rest, judge)


def who_judges(groups: np.ndarray) -> np.ndarray:
    """Bool [N]: the stays of the people by whom the best average is chosen.

    Raises:
      InputError: there is nobody, or nobody is left to learn from.
    """
    try:
        return held_out(groups, VALID_SHARE, "valid")
    except InputError:
        raise InputError(
            f"{len(np.unique(groups))} people to learn from are too few to set a tenth "
            "of them apart, by which the best weights are chosen; bring more people, "
            "or hold out fewer."
        ) from None


def settle(
    folder: pathlib.Path, name: str, config: Any, patients: int, schema: Schema
) -> tuple[Any, list[str]]:
    """`config` with its automatic sizes filled in, and the names of these.

    A run that goes on keeps the sizes that it began with, on whatever machine. A model
    without training has none.
    """
    config = config_of(name, config)
    if not hasattr(config, "train"):
        return config, []
    train = to_dict(config.train)
    asked = [name for name in ("steps", "batch_size") if not train[name]]
    found = from_dict(type(config.train), train | sizes_before(folder, asked))
    accelerator = jax.default_backend() != "cpu"
    num_steps = 1 if model_entry(name).latent else max(schema.num_steps, 1)
    found = resolve(found, patients, num_steps, accelerator=accelerator)
    return dataclasses.replace(config, train=found), asked


def sizes_before(folder: pathlib.Path, asked: list[str]) -> dict[str, int]:
    """The sizes that a run began with, as process 0 finds them; 0 in a new one."""
    sizes = np.zeros(len(asked), int)

    def look() -> None:
        old = read_info(folder) if (folder / RUN_FILE).is_file() else {}
        if old.get("automatic") == asked:
            before = old.get("config", {}).get("train", {})
            found = [before.get(name) for name in asked]
            sizes[:] = [size if isinstance(size, int) else 0 for size in found]

    if asked:
        led(look)
        sizes = agreed(sizes)[0]
    return dict(zip(asked, sizes.tolist(), strict=True))


def words_of(name: str, people: Learners, config: Any) -> str:
    """Who learns, and the steps of the training, if there is one."""
    plan = "no training"
    if hasattr(config, "train"):
        plan = f"{config.train.steps} steps of {config.train.batch_size}"
    return (
        f"{name}: {people.learn} people to learn from, {people.judge} to validate, "
        f"{people.held} held out; {plan}"
    )


def describe(
    name: str,
    data: Dataset | Shards,
    config: Any,
    seed: int,
    holdout_fraction: float,
) -> dict[str, Any]:
    """The content of run.json, but for the sizes that were chosen automatically."""
    device = jax.devices()[0]
    print_of: Any = fingerprint_of_shards if isinstance(data, Shards) else fingerprint
    versions = {p: importlib.metadata.version(p) for p in ("jaxehr", "jax", "flax")}
    return {
        "format": FORMAT,
        "model": name,
        "config": to_dict(config),
        "schema": schema_to_json(data.schema),
        "seed": seed,
        "holdout_fraction": holdout_fraction,
        "cohort": print_of(data),
        "patients": len(data.ids),
        "versions": versions,
        "machine": f"{platform.machine()}, {jax.device_count()} {device.device_kind}",
    }
