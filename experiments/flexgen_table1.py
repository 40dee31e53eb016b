"""Table 1 of FLEXGEN-EHR: cohort sizes and columns.

    python -m experiments.flexgen_table1 2012=cohorts/2012a:cohorts/2012b

Seconds on any machine. What to expect: the sizes of the cohorts you name. In the paper:
8,577 stays of 48 x 7,307 binary columns in MIMIC-III mortality,
138,840 of 4 x 5,854 in eICU ARF.
"""

import sys

from experiments.sizes import Sizes, table1
from experiments.suite import shell

if __name__ == "__main__":
    sys.exit(shell(table1("flexgen_table1"), Sizes))
