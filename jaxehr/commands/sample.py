"""`jaxehr sample RUN --n N --out COHORT`: draw synthetic patients."""

import pathlib
from typing import Any

from jaxehr.commands.flags import flag, read_flags, section
from jaxehr.commands.outputs import check_output
from jaxehr.core.checks import InputError, known, positive
from jaxehr.core.files import read_json
from jaxehr.devices import check_seed, configure
from jaxehr.progress import Progress
from jaxehr.registry import MODELS, find, model_entry


def run(words: list[str]) -> int:
    arguments = parse(words)
    positive(n=arguments.n)
    check_seed(arguments.seed)
    if arguments.balance and arguments.label is not None:
        raise InputError("--label and --balance exclude each other; give one of them.")
    configure()
    from jaxehr.data.store import MARKER, save_cohort
    from jaxehr.runs import load_run

    check_output(arguments.out, marker=MARKER, overwrite=arguments.overwrite)
    found = load_run(arguments.run)
    label = "balanced" if arguments.balance else arguments.label
    data = sample(found, arguments.n, label, arguments.seed, arguments.options)
    save_cohort(data, arguments.out, overwrite=arguments.overwrite)
    print(f"{arguments.out}: {arguments.n} synthetic patients")
    return 0


def parse(words: list[str]) -> Any:
    """RUN, --n, --out, --label, and the sampler's options of the run's model."""
    kind = find(model_entry(model_of(words)).sampling)
    fields = [
        flag(
            "run",
            pathlib.Path,
            "A run folder, from `jaxehr train`.",
            metavar="RUN",
            positional=True,
        ),
        flag("n", int, "Number of patients."),
        flag("out", pathlib.Path, "The cohort folder to make.", metavar="COHORT"),
        flag(
            "label",
            str | None,
            "Every patient has this class; by default as often as in training.",
            None,
            metavar="CLASS",
        ),
        flag("balance", bool, "Draw every class alike often.", False),
        flag(
            "seed",
            int,
            "Same seed, same patients; patient i is the same for every n.",
            0,
        ),
        flag("overwrite", bool, "Replace an older cohort folder.", False),
        section("options", kind),
    ]
    text = "Draw synthetic patients from a trained model."
    return read_flags("jaxehr sample", text, fields, words)


def model_of(words: list[str]) -> str:
    """The model of the run folder among the words; its options depend on it."""
    for word in words:
        path = pathlib.Path(word) / "run.json"
        if not word.startswith("-") and path.is_file():
            info = read_json(path)
            name = info.get("model") if isinstance(info, dict) else None
            known(f"model in {path}", name, MODELS)
            return str(name)
    return next(iter(MODELS))


def sample(found: Any, num: int, label: Any, seed: int, options: Any) -> Any:
    """`sample_run` with a progress bar."""
    from jaxehr.runs import sample_run

    with Progress("sampling", num) as bar:
        bar.update(0)
        return sample_run(
            found, num, label=label, seed=seed, options=options, progress=bar.update
        )
