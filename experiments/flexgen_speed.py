"""Seconds per 1,000 patients of FLEXGEN-EHR against TabDDPM (the paper: 5 times).

    python -m experiments.flexgen_speed

Cells of `configs/flexgen.json`, shared with the other tables of the paper
(results/flexgen/cells.jsonl); flags as in `experiments.benchmark`. Cohorts of yours as
NAME=TRAIN:TEST (`prepare fiddle`, or any source with `--discretize fiddle`), or without
any the stand-in of `experiments.standins`. Expected: 2 to 4 minutes a cell on 2 CPU
cores at the default 120 s of training, 4 cells a seed; under 2 (not measured) on one
H200. What to expect: `small` has 50 levels in FLEXGEN-EHR and 100 in TabDDPM,
`tabddpm-50` as many; by `--preset ''` both have their own.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("flexgen", "flexgen_speed")))
