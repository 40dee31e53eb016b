"""`jaxehr sample RUN --n N --out COHORT`: draw synthetic patients."""

import dataclasses
import pathlib
from typing import Any

import tyro

from jaxehr.core.checks import InputError, positive
from jaxehr.core.files import read_json
from jaxehr.devices import configure
from jaxehr.progress import Progress
from jaxehr.registry import find, model_entry


def run(words: list[str]) -> int:
    arguments = parse(words)
    positive(n=arguments.n)
    if arguments.balance and arguments.label:
        raise InputError("--label and --balance exclude each other.")
    configure()
    from jaxehr.data.store import save_cohort
    from jaxehr.runs import load_run

    found = load_run(arguments.run)
    label = "balanced" if arguments.balance else arguments.label or None
    data = sample(found, arguments.n, label, arguments.seed, arguments.options)
    save_cohort(data, arguments.out, overwrite=arguments.overwrite)
    print(f"{arguments.out}: {arguments.n} synthetic patients")
    return 0


def parse(words: list[str]) -> Any:
    """RUN, --n, --out, --label, and the sampler's options of the run's model."""
    name = model_of(words)
    kind = find(model_entry(name).sampling)
    fields: list[Any] = [
        ("run", tyro.conf.Positional[pathlib.Path]),
        ("n", int),
        ("out", pathlib.Path),
        ("label", str, dataclasses.field(default="")),
        ("balance", bool, dataclasses.field(default=False)),
        ("seed", int, dataclasses.field(default=0)),
        ("overwrite", bool, dataclasses.field(default=False)),
        (
            "options",
            tyro.conf.OmitArgPrefixes[kind],
            dataclasses.field(default_factory=kind),
        ),
    ]
    arguments = dataclasses.make_dataclass("Sample", fields, kw_only=True)
    arguments.__doc__ = (
        "Draw synthetic patients from a trained model.\n\nArgs:\n"
        "    run: A run folder, from `jaxehr train`.\n"
        "    n: Number of patients.\n"
        "    out: The cohort folder to make.\n"
        "    label: Every patient has this class; default: as often as in training.\n"
        "    balance: Every class alike.\n"
        "    seed: Same seed, same patients; patient i is the same for every n.\n"
        "    overwrite: Replace an older cohort folder.\n"
    )
    return tyro.cli(arguments, prog="jaxehr sample", args=words)


def model_of(words: list[str]) -> str:
    """The model of the run folder among the words; its options depend on it."""
    for word in words:
        path = pathlib.Path(word) / "run.json"
        if not word.startswith("-") and path.is_file():
            info = read_json(path)
            if isinstance(info, dict) and "model" in info:
                return info["model"]
    return "cdmt"


def sample(found: Any, num: int, label: Any, seed: int, options: Any) -> Any:
    """`sample_run` with a progress bar."""
    from jaxehr.runs import sample_run

    with Progress("sampling", num) as bar:
        bar.update(0)
        return sample_run(
            found, num, label=label, seed=seed, options=options, progress=bar.update
        )
