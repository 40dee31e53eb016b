"""Table 5 of CDMT-EHR: categories by mask diffusion or by continuous embeddings.

    python -m experiments.cdmt_table5_mask_vs_embedding 2019=cohorts/2019a

Cells of `configs/cdmt.json`, shared with the other tables of the paper
(results/cdmt/cells.jsonl); flags as in `experiments.benchmark`. Cohorts of yours
(`prepare mimic3 --task vitals24`, `prepare eicu`), or without any the stand-in of
`experiments.standins`. Expected: 6 to 10 minutes a cell on 2 CPU cores at the default
120 s of training, 6 cells a seed; under 3 (not measured) on one H200. What to expect:
after a minute of training masks ahead, which are learned in fewer steps, but for
transitions; in the paper embeddings are. Both sides are the paper's denoiser and
sampler but for the categories, and see as many seconds of training, not steps; what
this library does by default has no code for what is missing (`--prior normal`).
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("cdmt", "cdmt_table5_mask_vs_embedding")))
