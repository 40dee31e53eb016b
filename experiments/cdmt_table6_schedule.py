"""Table 6 of CDMT-EHR: noise schedule learned per feature and step, or fixed.

    python -m experiments.cdmt_table6_schedule 2019=cohorts/2019a

Cells of `configs/cdmt.json`, shared with the other tables of the paper
(results/cdmt/cells.jsonl); flags as in `experiments.benchmark`. Cohorts of yours
(`prepare mimic3 --task vitals24`, `prepare eicu`), or without any the stand-in of
`experiments.standins`. Expected: 6 to 10 minutes a cell on 2 CPU cores at the default
120 s of training, 6 cells a seed; under 3 (not measured) on one H200. What to expect:
no difference after a minute of training, in the paper a gain of .02; the learned rho by
feature and time step is drawn beside the table. Both sides are the paper's denoiser and
sampler but for the schedule, and see as many seconds of training, not steps.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("cdmt", "cdmt_table6_schedule")))
