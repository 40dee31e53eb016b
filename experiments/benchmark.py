"""Every model on every cohort at the same training time: one line of JSON a cell.

    python -m experiments.benchmark 2019=cohorts/2019a 2012=cohorts/2012a:cohorts/2012b

A cohort is a folder that `jaxehr prepare` made, named as NAME=TRAIN, or as
NAME=TRAIN:TEST with other real people to compare with; without them a fifth of the
people (by hashed id) is held out. Without any the stand-ins of `experiments.standins`
are taken. Each cell times a short training, trains as many steps as the budget allows,
draws as many patients as there are training people and compares them with the people
held out. The budget counts the seconds of all processors on a CPU, those of the clock
on an accelerator. A cell that fails is a line with its reason. The same command goes on
where it stopped; `python -m experiments.tables` makes tables of the lines. Expected: 2
to 4 minutes a cell on 2 CPU cores, under 3 (not measured) on one H200; 17 cells a
cohort and seed. What to expect: `bootstrap` first and caught by the membership attack,
`cdmt` first of the others in C2ST by boosting; by a linear classifier others are ahead
(`halo` and `ldm` on 2019, `independent` and `flexgen` on 2012).
"""

import dataclasses
import sys

from experiments.standins import prepared
from experiments.suite import Options, load_suite, run_suite, shell


def main(options: Options) -> None:
    """Runs the cells that are left."""
    suite = load_suite("benchmark")
    cohorts = options.cohorts or prepared(suite.standins)
    run_suite(suite, dataclasses.replace(options, cohorts=cohorts))


if __name__ == "__main__":
    sys.exit(shell(main))
