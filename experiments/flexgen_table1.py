"""Table 1 of FLEXGEN-EHR: cohort sizes and columns.

    python -m experiments.flexgen_table1

Cohorts of yours (`prepare fiddle`, or any source with `--discretize fiddle`), or
without any the stand-in of `experiments.standins`. Seconds on any machine. What to
expect: the sizes of these cohorts. In the paper, binary columns: 8,577 stays of 48 x
7,307 in MIMIC-III mortality, 138,840 of 4 x 5,854 in eICU ARF.
"""

import sys

from experiments.sizes import Sizes, table1
from experiments.suite import shell

if __name__ == "__main__":
    sys.exit(shell(table1("flexgen_table1", "2012-fiddle"), Sizes))
