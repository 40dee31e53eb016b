"""Quality of CDMT-EHR against the number of steps of four solvers, beside TimeDiff.

    python -m experiments.cdmt_steps 2019=cohorts/2019a

Cells of `configs/cdmt_steps.json` (results/cdmt_steps/cells.jsonl): all solvers draw
from one training, TimeDiff takes its own 1,000 steps. The figure counts network calls,
of which Heun makes two a step. Expected: 1 to 4 minutes a cell on 2 CPU cores at the
default 120 s of training, under 2 (not measured) on one H200; 27 cells a seed. What to
expect: third-order Adams near the limit of all solvers from 10 to 20 steps on,
DPM-Solver++(2M) from 20 to 50, Euler from 50.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("cdmt_steps", "cdmt_steps")))
