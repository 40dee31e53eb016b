"""Quality of CDMT-EHR against the weight of classifier-free guidance.

    python -m experiments.cdmt_guidance 2019=cohorts/2019a

The paper's weight is lost, so that it has to be chosen: cells of
`configs/cdmt_guidance.json` (results/cdmt_guidance/cells.jsonl), which all draw from
one training. Guidance trades the truth of the label's effect for a clearer one.
Expected: 3 to 6 minutes a cell on 2 CPU cores at the default 120 s of training, under 2
(not measured) on one H200; 6 cells a seed. What to expect: the label is found more
easily in synthetic people than in real ones and classifiers become too sure (slope
below 1) from a weight on that is far below 1.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("cdmt_guidance", "cdmt_guidance")))
