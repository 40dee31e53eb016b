"""Table 1 of CDMT-EHR: cohort sizes and columns.

    python -m experiments.cdmt_table1 2019=cohorts/2019a 2012=cohorts/2012a

Cohorts of yours (`prepare mimic3 --task vitals24`, `prepare eicu`), or without any the
stand-ins of `experiments.standins`. Seconds on any machine. What to expect: the sizes
of these cohorts. In the paper: 26,150 stays of 25 hours with 7 vitals and their masks
in MIMIC-III, 65,118 of 272 steps with 4 in eICU.
"""

import sys

from experiments.sizes import Sizes, table1
from experiments.suite import shell

if __name__ == "__main__":
    sys.exit(shell(table1("cdmt_table1", "2019", "2012"), Sizes))
