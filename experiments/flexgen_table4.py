"""Table 4 of FLEXGEN-EHR: membership inference by the nearest synthetic patient.

    python -m experiments.flexgen_table4

Cells of `configs/flexgen.json`, shared with the other tables of the paper
(results/flexgen/cells.jsonl); flags as in `experiments.benchmark`. Cohorts of yours as
NAME=TRAIN:TEST (`prepare fiddle`, or any source with `--discretize fiddle`), or without
any the stand-in of `experiments.standins`. Expected: 2 to 4 minutes a cell on 2 CPU
cores at the default 120 s of training, 7 cells a seed; under 2 (not measured) on one
H200. What to expect: accuracy .5 within the interval (shown where there is one seed)
for everybody who does not copy.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("flexgen", "flexgen_table4")))
