"""Table 6 of CDMT-EHR: noise schedule learned per feature and step, or fixed.

    python -m experiments.cdmt_table6_schedule 2019=cohorts/2019a

Cells of `configs/cdmt.json`, shared with the other tables of the paper
(results/cdmt/cells.jsonl); cohorts and budget as in `experiments.benchmark`. Expected:
4 to 6 minutes a cell on 2 CPU cores at the default 120 s of training, under 3 on one
H200. What to expect:
a small gain; the learned rho by feature and time step is drawn beside the table.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("cdmt", "cdmt_table6_schedule")))
