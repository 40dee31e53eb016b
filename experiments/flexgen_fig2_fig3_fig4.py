"""Figures 2 to 4 of FLEXGEN-EHR: whole modalities missing, beside EHR-M-GAN.

    python -m experiments.flexgen_fig2_fig3_fig4

Cells of `configs/flexgen.json`, shared with the other tables of the paper
(results/flexgen/cells.jsonl); flags as in `experiments.benchmark`. Cohorts of yours as
NAME=TRAIN:TEST (`prepare fiddle`, or any source with `--discretize fiddle`), or without
any the stand-in of `experiments.standins`. Expected: 2 to 4 minutes a cell on 2 CPU
cores at the default 120 s of training, 10 cells a seed; under 2 (not measured) on one
H200. What to expect: FLEXGEN-EHR flat up to 40 / 40 %; EHR-M-GAN learns from patients
completed by their 5 nearest neighbours. R² and AUROC are drawn beside the table;
`experiments.flexgen_missing` has every alternative.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("flexgen", "flexgen_fig2_fig3_fig4")))
