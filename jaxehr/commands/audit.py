"""`jaxehr audit`: attack synthetic patients; exit 0 if a policy is kept, else 1."""

import contextlib
import dataclasses
import importlib.resources
import pathlib
from typing import Any

import tyro

from jaxehr.commands.evaluate import load_real, read_lines
from jaxehr.commands.flags import flag, read_flags
from jaxehr.commands.outputs import check_output
from jaxehr.core.checks import InputError, check_seed
from jaxehr.core.files import read_json
from jaxehr.devices import configure
from jaxehr.progress import Progress

SWITCH = tyro.conf.FlagCreatePairsOff[bool]
TEXT = "Attack synthetic patients, and hold what is reached against a policy."
ABOUT = """Exit code 0: every limit of the policy is kept; 1: one is not; 2: bad input.

A policy is a JSON file. Of a number, {"max": x} limits the upper end of its
95 % interval, {"max_excess": x} that of its excess over the same number for
real patients, {"max_sure_excess": x} the lower end of that excess. What is not
defined, or whose attack misses its control, fails. Distances are diagnostics
and cannot be limited. The default policy, which --print-policy prints alone as
a file to start from:

"""
FLAGS = [
    flag(
        "real",
        pathlib.Path,
        "The cohort that the model was trained on.",
        metavar="COHORT",
    ),
    flag("synthetic", pathlib.Path, "The synthetic patients.", metavar="COHORT"),
    flag(
        "holdout",
        pathlib.Path | None,
        "A cohort of real people that the model has not seen; by default the share of "
        "--real that `jaxehr train` left out.",
        None,
        metavar="COHORT",
    ),
    flag(
        "policy",
        pathlib.Path | None,
        "The limits, a JSON file; by default those of --print-policy, without those "
        "on the model (loss, shadow) where --run or --shadow is not given.",
        None,
        metavar="FILE",
    ),
    flag(
        "run",
        pathlib.Path | None,
        "The run folder, trained on --real: attack the model itself too. Attacks then "
        "count only people it learned from as trained on; without --run also those "
        "who validated.",
        None,
        metavar="RUN",
    ),
    flag(
        "out",
        pathlib.Path | None,
        "The folder to make, with audit.html and audit.json; an older one is replaced.",
        None,
        metavar="AUDIT",
    ),
    flag(
        "releasable",
        SWITCH,
        "Leave out everything about single patients: ids, distances.",
        False,
    ),
    flag(
        "shadow",
        int,
        "Shadow models to train for the strongest attack on --run, such as 16; 0 = "
        "none. Takes as many trainings.",
        0,
    ),
    flag("shadow_steps", int, "Optimiser steps of each; 0 = those of --run.", 0),
    flag("quick", SWITCH, "Fewer rows and draws: a first look.", False),
    flag("seed", int, "Same seed, same numbers.", 0),
    flag("print_policy", SWITCH, "Print the default policy and end.", False),
]


def run(words: list[str]) -> int:
    if "--print-policy" in words:
        print(policy_text(), end="")
        return 0
    if any(word in ("-h", "--help") for word in words):
        with contextlib.suppress(SystemExit):
            read_flags("jaxehr audit", TEXT, FLAGS, words)
        print(ABOUT + policy_text(), end="")
        return 0
    arguments = read_flags("jaxehr audit", TEXT, FLAGS, words)
    check_seed(arguments.seed)
    configure()
    if arguments.out:
        from jaxehr.report.audit import AUDIT

        check_output(arguments.out, AUDIT)
    found = audit(arguments, config_of(arguments))
    if arguments.out:
        found.save(arguments.out, releasable=arguments.releasable)
    show(found.findings)
    if arguments.out:
        print(f"{arguments.out / 'audit.html'}: open it in a browser")
    return 0 if found.passed else 1


def policy_text() -> str:
    """The default policy as a file."""
    folder = importlib.resources.files("jaxehr.metrics")
    return folder.joinpath("policy.json").read_text(encoding="utf-8")


def config_of(arguments: Any) -> Any:
    """How much work goes into the attacks.

    Raises:
      InputError: shadow models that cannot be made.
    """
    if arguments.shadow and arguments.run is None:
        raise InputError("--shadow attacks the model itself; give its --run.")
    if arguments.shadow_steps and not arguments.shadow:
        raise InputError("--shadow-steps belongs to --shadow; give both.")
    from jaxehr.metrics.evaluate import DEFAULT, QUICK

    config = QUICK if arguments.quick else DEFAULT
    if not arguments.shadow:
        return config
    changes = {"shadows": arguments.shadow, "shadow_steps": arguments.shadow_steps}
    return dataclasses.replace(config, **changes)


def audit(arguments: Any, config: Any) -> Any:
    """Reads the files and makes the attacks, with a progress bar."""
    from jaxehr.api import attack_numbers
    from jaxehr.api import audit as attack
    from jaxehr.data.store import load_cohort
    from jaxehr.metrics.release import check_policy
    from jaxehr.runs import load_run

    policy = None
    if where := arguments.policy:
        policy = check_policy(read_json(where), attack_numbers(), str(where))
    model = load_run(arguments.run) if arguments.run else None
    real = load_real("--real", arguments.real)
    synthetic = load_cohort(arguments.synthetic)
    holdout = None
    if arguments.holdout:
        holdout = load_real("--holdout", arguments.holdout)
    with Progress("auditing", 0) as bar:

        def progress(name: str, done: int, total: int) -> None:
            bar.total = total
            bar.update(done, name)

        return attack(
            real,
            synthetic,
            holdout,
            policy=policy,
            model=model,
            lines=read_lines(arguments.run) if arguments.run else None,
            shadow=arguments.shadow > 0,
            seed=arguments.seed,
            config=config,
            progress=progress,
        )


def show(found: Any) -> None:
    """The table of limits and of all other numbers, and the verdict."""
    from jaxehr.report.audit import sentence

    values = {result.name: result.value for result in found.results}
    names = [*values, *(v.name for v in found.verdicts if v.name not in values)]
    width = max(map(len, names))
    head = f"{'value':>9} {'95 % interval':>20} {'reached':>9}   limit"
    print(f"{'number':<{width}} {head}")
    for name in names:
        start = f"{name:<{width}} {shown(values.get(name))}"
        limits = [v for v in found.verdicts if v.name == name]
        for verdict in limits:
            mark = "pass" if verdict.passed else f"FAIL ({verdict.reason})"
            limit = f"{verdict.bound} {verdict.limit:g}: {mark}"
            print(f"{start} {number(verdict.reached):>9}   {limit}")
        if not limits:
            print(f"{start} {'-':>9}   {values[name].reason}".rstrip())
    for note in found.notes:
        print(f"note: {note}")
    print(sentence(found))


def shown(value: Any) -> str:
    """A number and its interval, in columns."""
    if value is None or value.value is None:
        return f"{'-':>9} {'-':>20}"
    interval = f"{number(value.low)} to {number(value.high)}"
    return f"{number(value.value):>9} {interval:>20}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
