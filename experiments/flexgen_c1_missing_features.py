"""Appendix C.1 of FLEXGEN-EHR: single entries missing, beside LDM and medGAN.

    python -m experiments.flexgen_c1_missing_features

Cells of `configs/flexgen.json`, shared with the other tables of the paper
(results/flexgen/cells.jsonl); flags as in `experiments.benchmark`. Cohorts of yours as
NAME=TRAIN:TEST (`prepare fiddle`, or any source with `--discretize fiddle`), or without
any the stand-in of `experiments.standins`. Expected: 2 to 4 minutes a cell on 2 CPU
cores at the default 120 s of training, 9 cells a seed; under 2 (not measured) on one
H200. What to expect: FLEXGEN-EHR masks what is missing out of its loss; for the others
it is filled with what is most common. All draw complete patients, who are compared with
complete ones. Drawn beside the table. The protocol is ours (the binary columns of one
variable are hidden together), the paper's table is absent. Tables with gaps are dense:
the others learn every step of them. Without gaps they are sparse, and the others learn
sums over time: another form, so that a line from 0 % would show that change.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("flexgen", "flexgen_c1_missing_features")))
