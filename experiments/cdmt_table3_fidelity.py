"""Table 3 of CDMT-EHR: six measures of fidelity.

    python -m experiments.cdmt_table3_fidelity 2019=cohorts/2019a

Cells of `configs/cdmt.json`, shared with the other tables of the paper
(results/cdmt/cells.jsonl); flags as in `experiments.benchmark`. Cohorts of yours
(`prepare mimic3 --task vitals24`, `prepare eicu`), or without any the stand-in of
`experiments.standins`. Expected: 6 to 10 minutes a cell on 2 CPU cores at the default
120 s of training, 8 cells a seed; under 3 (not measured) on one H200. What to expect:
CDMT-EHR nearest to the real row; TimeDiff learns 1,000 noise levels in the same time.
`paper` is the paper's denoiser and sampler with our floor of rho, at the size of
--preset (its own: paper-mimic3), `cdmt` what this library does by default.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("cdmt", "cdmt_table3_fidelity")))
