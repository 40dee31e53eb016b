"""`jaxehr train MODEL COHORT --out RUN`: learn; go on after a stop."""

import dataclasses
import pathlib
import sys
from typing import Any

import tyro

from jaxehr.core.checks import known, within
from jaxehr.devices import configure
from jaxehr.progress import Progress
from jaxehr.registry import MODELS, find, model_entry


def run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:<14} {entry.text}" for name, entry in MODELS.items()]
        print("usage: jaxehr train MODEL COHORT --out RUN\n\nmodels:")
        print("\n".join(lines))
        print("\n`jaxehr train MODEL --help` shows every option of a model.")
        return 0
    name, *rest = words
    arguments = parse(name, rest)
    within("holdout_fraction", arguments.holdout_fraction, 0.0, 0.9)
    configure()
    from jaxehr.data.store import load_cohort
    from jaxehr.training.loop import Stopped

    data = load_cohort(arguments.cohort)
    try:
        train(
            name,
            data,
            arguments.out,
            arguments.config,
            seed=arguments.seed,
            holdout_fraction=arguments.holdout_fraction,
        )
    except Stopped as stop:
        print(
            f"jaxehr: stopped at step {stop.step}, saved; the same command goes on.",
            file=sys.stderr,
        )
        return 128 + stop.signum
    return 0


def parse(name: str, words: list[str]) -> Any:
    """The cohort, --out, and every field of the model's configuration as a flag."""
    entry = model_entry(name)
    kind, presets = find(entry.config), find(entry.presets)
    chosen = preset_name(words)
    default = kind()
    if chosen:
        known("preset", chosen, presets)
        default = find(entry.presets.replace("PRESETS", "preset"))(chosen)
    fields: list[Any] = [
        ("cohort", tyro.conf.Positional[pathlib.Path]),
        ("out", pathlib.Path),
        ("preset", str, dataclasses.field(default="")),
        ("seed", int, dataclasses.field(default=0)),
        ("holdout_fraction", float, dataclasses.field(default=0.2)),
        (
            "config",
            tyro.conf.OmitArgPrefixes[kind],
            dataclasses.field(default_factory=lambda: default),
        ),
    ]
    arguments = dataclasses.make_dataclass("Train", fields, kw_only=True)
    arguments.__doc__ = (
        f"Train {entry.text}.\n\nArgs:\n"
        "    cohort: A cohort folder, from `jaxehr prepare`.\n"
        "    out: The run folder; if it holds this run, training goes on.\n"
        f"    preset: Start from one of: {', '.join(presets)}.\n"
        "    seed: Same seed, same result.\n"
        "    holdout_fraction: Share of people that training does not touch, so that\n"
        "        `jaxehr evaluate` has new ones; 0 if you keep a hold-out apart.\n"
    )
    return tyro.cli(
        arguments,
        prog=f"jaxehr train {name}",
        args=words,
        config=(tyro.conf.FlagConversionOff,),
    )


def preset_name(words: list[str]) -> str:
    """The value of --preset, needed before the other defaults are known."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "--preset":
            return after
        if word.startswith("--preset="):
            return word.partition("=")[2]
    return ""


def train(name: str, data: Any, out: Any, config: Any, **options: Any) -> Any:
    """`train_run` with a progress bar, as the shell shows it."""
    from jaxehr.runs import train_run

    with Progress("training", 1) as bar:

        def show(step: int, metrics: dict[str, float]) -> None:
            bar.total = step + int(metrics["steps_left"])
            if bar.bar is not None:
                bar.bar.update(bar.task, total=bar.total)
            note = f"loss {metrics['loss']:.4f}"
            bar.update(step, note)

        result = train_run(
            name,
            data,
            out,
            config,
            callbacks=(show,),
            announce=lambda text: print(text, file=sys.stderr, flush=True),
            **options,
        )
    print(f"{out}: trained; next: jaxehr sample {out} --n 1000 --out SYNTHETIC")
    return result
