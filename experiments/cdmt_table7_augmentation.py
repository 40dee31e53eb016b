"""Table 7 of CDMT-EHR: real patients filled up or extended by synthetic ones.

    python -m experiments.cdmt_table7_augmentation 2019=cohorts/2019a

Cells of `configs/cdmt_table7.json` (results/cdmt_table7/cells.jsonl); trainings are
shared with the other tables of the paper, drawings are three times as many as real
people. At most 4,000 real people train a classifier, for as many steps as 12 passes
over all of them take. Expected: 8 to 12 minutes a cell on 2 CPU cores at the default
120 s of training, under 4 (not measured) on one H200; 5 cells a seed, 3 classifiers x 3
seeds. What to expect: a gain at 10 and 25 % of the real people that falls with their
share, none or a loss on top of all; `independent`, columns without their relations,
loses.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("cdmt_table7", "cdmt_table7_augmentation")))
