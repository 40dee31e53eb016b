"""Table 1 of CDMT-EHR: cohort sizes and columns.

    python -m experiments.cdmt_table1 2012=cohorts/2012a:cohorts/2012b

Seconds on any machine. What to expect: the sizes of the cohorts you name. In the paper:
26,150 stays of 25 hours with 7 vitals and their masks in MIMIC-III,
65,118 of 272 steps with 4 in eICU.
"""

import sys

from experiments.sizes import Sizes, table1
from experiments.suite import shell

if __name__ == "__main__":
    sys.exit(shell(table1("cdmt_table1"), Sizes))
