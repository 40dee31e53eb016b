"""`jaxehr sample RUN --n N --out COHORT`: draw synthetic patients."""

import pathlib
from collections.abc import Callable
from typing import Any

from jaxehr.commands.flags import (
    distributed_flag,
    flag,
    profile_flag,
    read_flags,
    section,
    wants_help,
)
from jaxehr.commands.outputs import check_output
from jaxehr.core.checks import InputError, check_seed, known, positive
from jaxehr.core.cohort import Dataset, Schema
from jaxehr.core.files import read_json
from jaxehr.devices import Profile, configure
from jaxehr.jobs import progress_stream
from jaxehr.progress import Progress
from jaxehr.registry import MODELS, find, model_entry

SHOWS = "jaxehr sample RUN --help"


def run(words: list[str]) -> int:
    arguments = parse(words)
    positive(n=arguments.n)
    check_seed(arguments.seed)
    if arguments.balance and arguments.label is not None:
        raise InputError("--label and --balance exclude each other; give one of them.")
    configure(arguments.distributed)
    from jaxehr.data.store import SYNTHETIC, save_cohort
    from jaxehr.runs import load_run
    from jaxehr.training.sharding import led

    check_output(arguments.out, SYNTHETIC if arguments.overwrite else None)
    found = load_run(arguments.run)
    finish = enforcing(arguments, found.schema)
    label = "balanced" if arguments.balance else arguments.label
    asked = arguments.n, label, arguments.seed, arguments.options
    data = finish(sample(found, *asked, arguments.profile))
    how = {"overwrite": arguments.overwrite, "shards": 0}
    led(lambda: save_cohort(data, arguments.out, **how))
    told = data.provenance.get("rules")
    more = f", {told['patients_changed']} changed to keep rules" if told else ""
    print(f"{arguments.out}: {arguments.n} synthetic patients{more}")
    return 0


def enforcing(arguments: Any, schema: Schema) -> Callable[[Dataset], Dataset]:
    """What is done with drawn patients; refusals come before anything is drawn."""
    from jaxehr.data.enforce import check_enforceable, enforce_rules
    from jaxehr.data.schema_json import same_columns, schema_from_json

    given = arguments.schema
    if not arguments.enforce_rules:
        if given:
            raise InputError("--schema names rules to enforce: add --enforce-rules.")
        return lambda data: data
    if given:
        other = schema_from_json(read_json(given), str(given))
        same_columns(schema, other, ("the run", str(given)))
        parts = {p: getattr(other, p) for p in ("static", "temporal", "rules")}
        schema = schema.replace(**parts)
    check_enforceable(schema)
    return lambda data: enforce_rules(data, schema)


def parse(words: list[str]) -> Any:
    """RUN, --n, --out, --label, and the sampler's options of the run's model."""
    name, text = model_of(words), "Draw synthetic patients from a trained model."
    fields: list[Any] = [
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
        *rule_flags(),
        flag("overwrite", bool, "Replace a folder of synthetic patients.", False),
        profile_flag(),
        distributed_flag(),
    ]
    if name is None and wants_help(words):
        text += f"\n`{SHOWS}` shows the options of its model too."
    else:  # without a run, options of some model pass: then it is the run that is wrong
        kind = find(model_entry(name or next(iter(MODELS))).sampling)
        fields.append(section("options", kind))
    return read_flags("jaxehr sample", text, fields, words, SHOWS)


def rule_flags() -> list[Any]:
    """Flags that say which rules are enforced."""
    return [
        flag(
            "enforce_rules",
            bool,
            "Change what breaks a rule or a bound of the schema, as little as "
            "possible; provenance.json counts it.",
            False,
        ),
        flag(
            "schema",
            pathlib.Path | None,
            "Enforce the rules and bounds of this schema.json, of the same columns, "
            "instead of the run's.",
            None,
            metavar="FILE",
        ),
    ]


def model_of(words: list[str]) -> str | None:
    """The model of the run folder among the words; the options depend on it."""
    for word in words:
        path = pathlib.Path(word) / "run.json"
        if not word.startswith("-") and path.is_file():
            info = read_json(path)
            name = info.get("model") if isinstance(info, dict) else None
            known(f"model in {path}", name, MODELS)
            return str(name)
    return None


def sample(
    found: Any,
    num: int,
    label: Any,
    seed: int,
    options: Any,
    profile: pathlib.Path | None = None,
) -> Any:
    """`sample_run` with a progress bar."""
    from jaxehr.runs import sample_run

    with Progress("sampling", num, progress_stream()) as bar, Profile(profile) as trace:
        bar.update(0)

        def show(done: int) -> None:
            bar.update(done)
            trace.tick()

        return sample_run(
            found, num, label=label, seed=seed, options=options, progress=show
        )
