"""`jaxehr impute RUN COHORT --out COHORT`: draw the modality that patients lack."""

import pathlib
from typing import Any

import numpy as np

from jaxehr.commands.flags import flag, read_flags
from jaxehr.commands.outputs import check_output
from jaxehr.core.checks import check_seed, positive
from jaxehr.devices import configure
from jaxehr.progress import Progress


def parse(words: list[str]) -> Any:
    """RUN, COHORT, --out, --draws and --seed."""
    fields = [
        flag(
            "run",
            pathlib.Path,
            "A run folder of a model that imputes (flexgen).",
            metavar="RUN",
            positional=True,
        ),
        flag(
            "cohort",
            pathlib.Path,
            "A cohort folder with the columns of the run; patients may lack one part.",
            metavar="COHORT",
            positional=True,
        ),
        flag(
            "out",
            pathlib.Path,
            "The cohort folder to make: the first draw, every draw in draws/, and how "
            "far they lie apart in spread.parquet.",
            metavar="COHORT",
        ),
        flag("draws", int, "How often each missing part is drawn.", 20),
        flag("seed", int, "Same seed, same draws.", 0),
    ]
    text = "Draw the static or the temporal part that real patients lack."
    return read_flags("jaxehr impute", text, fields, words)


def run(words: list[str]) -> int:
    arguments = parse(words)
    positive(draws=arguments.draws)
    check_seed(arguments.seed)
    configure()
    from jaxehr.data.store import load_cohort
    from jaxehr.runs import load_run
    from jaxehr.runs.imputing import impute_run, save_imputed

    check_output(arguments.out)
    found, data = load_run(arguments.run), load_cohort(arguments.cohort)
    with Progress("imputing", arguments.draws) as bar:
        bar.update(0)
        made = impute_run(
            found, data, arguments.draws, seed=arguments.seed, progress=bar.update
        )
    save_imputed(data, made, arguments.out)
    lacks = {
        name: int(np.sum(~np.asarray(getattr(data.cohort, f"has_{name}"))))
        for name in ("static", "temporal")
    }
    print(
        f"{arguments.out}: {arguments.draws} draw(s) of the static part of "
        f"{lacks['static']} and the temporal part of {lacks['temporal']} patients"
    )
    return 0
