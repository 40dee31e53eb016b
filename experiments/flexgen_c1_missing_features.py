"""Appendix C.1 of FLEXGEN-EHR: single entries missing, beside LDM and medGAN.

    python -m experiments.flexgen_c1_missing_features 2012=cohorts/2012a:cohorts/2012b

Cells of `configs/flexgen.json`, shared with the other tables of the paper
(results/flexgen/cells.jsonl); cohorts and budget as in `experiments.benchmark`, in the
paper's form by `jaxehr prepare ... --discretize fiddle`. Expected: 2 to 4 minutes a
cell on 2 CPU cores at the default 120 s of training, under 2 on one H200. What to
expect: FLEXGEN-EHR masks what is missing out of its loss; the others see filled values
and masks. Drawn beside the table. The protocol is ours, the paper's table is absent.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("flexgen", "flexgen_c1_missing_features")))
