"""`jaxehr train MODEL COHORT --out RUN`: learn; go on after a stop."""

import itertools
import pathlib
import sys
from typing import Any

from jaxehr.commands.evaluate import read_lines
from jaxehr.commands.flags import (
    distributed_flag,
    flag,
    profile_flag,
    read_flags,
    section,
)
from jaxehr.commands.listing import lines, models
from jaxehr.core.checks import InputError, check_seed, known, within
from jaxehr.core.configs import replace
from jaxehr.core.sizes import size_in_bytes
from jaxehr.devices import Profile, configure, free_memory
from jaxehr.jobs import progress_stream
from jaxehr.progress import Progress
from jaxehr.registry import MODELS, find, model_entry

LEAST = 4_000_000_000  # bytes of the default of --memory-limit

USAGE = """usage: jaxehr train MODEL COHORT --out RUN [OPTIONS]

Learn a cohort. Stopped at any time, the same command goes on where it stopped.

models:
{models}

`jaxehr train MODEL --help` shows every option of a model.
"""


def run(words: list[str]) -> int:
    if words and words[0] in ("-h", "--help"):
        print(USAGE.format(models="\n".join(lines(models()))), end="")
        return 0
    if not words:
        raise InputError(f"train: name a model; known: {', '.join(MODELS)}.")
    name, *rest = words
    arguments = parse(name, rest)
    within("holdout-fraction", arguments.holdout_fraction, 0.0, 0.9)
    within("drop-static", arguments.drop_static, 0.0, 1.0)
    within("drop-temporal", arguments.drop_temporal, 0.0, 1.0)
    check_seed(arguments.seed)
    given = arguments.memory_limit
    memory = None if given is None else size_in_bytes("memory-limit", given)
    configure(arguments.distributed)
    from jaxehr.training.loop import Stopped

    data, memory = opened(arguments.cohort, memory)
    try:
        train(
            name,
            data,
            arguments.out,
            arguments.config,
            seed=arguments.seed,
            holdout_fraction=arguments.holdout_fraction,
            drop_static=arguments.drop_static,
            drop_temporal=arguments.drop_temporal,
            memory=memory,
            profile=arguments.profile,
        )
    except Stopped as stop:
        print(
            f"jaxehr: stopped at step {stop.step}, saved; the same command goes on.",
            file=sys.stderr,
        )
        return 128 + stop.signum
    return 0


def opened(path: pathlib.Path, limit: int | None) -> tuple[Any, int]:
    """The cohort in memory, or where its shards are if they do not fit; the limit."""
    from jaxehr.data.shards import is_sharded, memory_for, open_shards
    from jaxehr.data.store import load_cohort

    if not is_sharded(path):
        return load_cohort(path), 0
    shards = open_shards(path)
    needed, most = memory_for(shards), limit or half_of_memory()
    held = needed <= most
    if not limit and needed > LEAST:
        say(
            f"memory: about {needed / 1e9:.1f} GB needed, {most / 1e9:.1f} GB allowed, "
            f"half of what is free: patients {'are held' if held else 'stay on disk'}"
        )
    return (load_cohort(path) if held else shards), most


def half_of_memory() -> int:
    """Bytes: half of what is free, at least `LEAST`; the same in all processes of a
    job, who may share a host."""
    import jax

    from jaxehr.training.sharding import agreed

    share = free_memory() // (2 * jax.process_count())
    # JAX has no numbers above 2**31.
    return max(int(agreed(share // 10**6).min()) * 10**6, LEAST)


def parse(name: str, words: list[str]) -> Any:
    """The cohort, --out, and every field of the model's configuration as a flag."""
    entry = model_entry(name)
    kind, presets = find(entry.config), find(entry.presets)
    chosen = preset_name(words)
    default = kind()
    if chosen is not None:
        if not presets:
            raise InputError(f"{name} has no presets; leave --preset out.")
        known("preset", chosen, presets)
        default = replace(default, presets[chosen])
    fields = [
        flag(
            "cohort",
            pathlib.Path,
            "A cohort folder, from `jaxehr prepare`.",
            metavar="COHORT",
            positional=True,
        ),
        flag(
            "out",
            pathlib.Path,
            "The run folder; if it holds this run, training goes on.",
            metavar="RUN",
        ),
        *(preset_flags(presets) if presets else ()),
        flag("seed", int, "Same seed, same result.", 0),
        *shares(),
        flag(
            "memory_limit",
            str | None,
            "A cohort in shards that needs more stays on disk, from where people are "
            "read ahead of each step (cdmt; extra `shards`). At most 1 GiB validates. "
            "By default half of the memory that is free, at least 4GB.",
            None,
            metavar="SIZE",
        ),
        profile_flag(),
        distributed_flag(),
        section("config", kind, default),
    ]
    return read_flags(f"jaxehr train {name}", f"Train {entry.text}.", fields, words)


def preset_flags(presets: dict[str, Any]) -> list[Any]:
    """The flag that names other defaults."""
    names = "{" + ",".join(presets) + "}"
    text = "Other defaults for the options below."
    return [flag("preset", str | None, text, None, metavar=names)]


def shares() -> list[Any]:
    """Flags that say of whom training learns what."""
    return [
        flag(
            "holdout_fraction",
            float,
            "Share of people that training does not touch, so that `jaxehr evaluate` "
            "has new ones; 0 if you keep a hold-out apart.",
            0.2,
        ),
        flag(
            "drop_static",
            float,
            "For experiments: hide the static part of this share of the people.",
            0.0,
        ),
        flag(
            "drop_temporal",
            float,
            "The same for the temporal part, of other people.",
            0.0,
        ),
    ]


def preset_name(words: list[str]) -> str | None:
    """The value of --preset, needed before the other defaults are known."""
    found = None
    for word, after in itertools.zip_longest(words, words[1:]):
        if word == "--preset":
            found = after
        if word.startswith("--preset="):
            found = word.partition("=")[2]
    return found


def say(text: str) -> None:
    print(text, flush=True)


def train(
    name: str,
    data: Any,
    out: Any,
    config: Any,
    *,
    profile: pathlib.Path | None = None,
    **options: Any,
) -> Any:
    """`train_run` with a progress bar, as the shell shows it."""
    from jaxehr.runs import train_run

    with Progress("training", 0, progress_stream()) as bar, Profile(profile) as trace:

        def show(step: int, metrics: dict[str, float]) -> None:
            bar.total = step + int(metrics["steps_left"])
            bar.update(step, f"loss {metrics['loss']:.4f}")
            trace.tick()

        result = train_run(
            name, data, out, config, callbacks=(show,), announce=say, **options
        )
    lines, told = read_lines(pathlib.Path(out)), ""
    if hasattr(result.config, "train"):
        steps = lines[-1]["step"] if lines else result.config.train.steps
        told = f", {steps} steps of {result.config.train.batch_size} patients"
    if lines and "waiting" in lines[-1]:
        told += f", at most {lines[-1]['waiting']:.1%} of the time waiting for them"
    print(
        f"{out}: trained{told}; next: "
        f"jaxehr sample {out} --n {result.info['patients']} --out SYNTHETIC"
    )
    return result
