"""Every model on every cohort at the same training time: one line of JSON a cell.

    python -m experiments.benchmark 2019=cohorts/2019a 2012=cohorts/2012a:cohorts/2012b

A cohort is a folder that `jaxehr prepare` made, named as NAME=TRAIN, or as
NAME=TRAIN:TEST with other real people to compare with; without them a fifth of the
people (by hashed id) is held out. Each cell times a short training, trains as many
steps as the budget allows, draws as many patients as there are training people and
compares them with the people held out. The budget counts the seconds of all processors
on a CPU, those of the clock on an accelerator. A cell that fails is a line with its
reason. The same command goes on where it stopped; `python -m experiments.tables` makes
tables of the lines. Expected on 2 CPU cores: 2 to 4 minutes a cell.
"""

import sys

from experiments.suite import Options, load_suite, run_suite, shell


def main(options: Options) -> None:
    """Runs the cells that are left."""
    run_suite(load_suite("benchmark"), options)


if __name__ == "__main__":
    sys.exit(shell(main))
