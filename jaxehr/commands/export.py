"""`jaxehr export FORMAT COHORT --out FOLDER`: a cohort in a common format."""

import pathlib
from typing import Literal

from jaxehr.commands.flags import flag, read_flags
from jaxehr.commands.outputs import check_output

FIELDS = [
    flag("format", Literal["meds"], "The format.", metavar="meds", positional=True),
    flag(
        "cohort",
        pathlib.Path,
        "A cohort folder, real or synthetic.",
        metavar="COHORT",
        positional=True,
    ),
    flag("out", pathlib.Path, "The folder to make.", metavar="FOLDER"),
    flag(
        "split",
        Literal["train", "tuning", "held_out"],
        "The part of the MEDS dataset that the patients are written to.",
        "train",
    ),
]


def run(words: list[str]) -> int:
    text = "Write a cohort in a common format (MEDS: Medical Event Data Standard)."
    arguments = read_flags("jaxehr export", text, FIELDS, words)
    from jaxehr.data.meds_export import save_meds
    from jaxehr.data.store import load_cohort

    check_output(arguments.out)
    data = load_cohort(arguments.cohort)
    save_meds(data, arguments.out, split=arguments.split)
    print(f"{arguments.out}: {len(data.ids)} patients in MEDS")
    return 0
