"""What FLEXGEN-EHR owes to its parts: alignment, noise schedule, divergence, encoder.

    python -m experiments.ablations

Cells of `configs/ablations.json` (results/ablations/cells.jsonl), in the paper's form
by `jaxehr prepare ... --discretize fiddle`, or the stand-in of `experiments.standins`
where no cohort is named (NAME=TRAIN:TEST); alignments learn from people of whom 30 %
lack the static and 30 % the temporal part. Expected: 4 to 6 minutes a cell on 2 CPU
cores at the default 120 s of training, under 2 (not measured) on one H200; 25 cells a
seed. What to expect: the alignments close to each other (many are ridge in the end,
which the rows say; as pairs of many seeds: `flexgen_missing`); `paper` without
whitening loses its main directions; `kl-batch` collapses.
"""

import sys

from experiments.suite import shell
from experiments.tables import paper_table

if __name__ == "__main__":
    sys.exit(shell(paper_table("ablations")))
