"""Figures 2 to 4 of FLEXGEN-EHR: whole modalities missing, beside EHR-M-GAN.

    python -m experiments.flexgen_fig2_fig3_fig4 2012=cohorts/2012a:cohorts/2012b

Cells of `configs/flexgen.json`, shared with the other tables of the paper
(results/flexgen/cells.jsonl); cohorts and budget as in `experiments.benchmark`, in the
paper's form by `jaxehr prepare ... --discretize fiddle`. Expected: 2 to 4 minutes a
cell on 2 CPU cores at the default 120 s of training, under 2 on one H200. What to
expect: FLEXGEN-EHR flat up to 40 / 40 %; EHR-M-GAN learns from patients completed by
their 5 nearest neighbours. R² and AUROC are drawn beside the table;
`experiments.flexgen_missing` has every alternative.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("flexgen", "flexgen_fig2_fig3_fig4")))
