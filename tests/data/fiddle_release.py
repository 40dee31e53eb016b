"""Three stays in the layout of FIDDLE's release, for its tests."""

import json

import numpy as np

NAMES = {"s": ["AGE_value_(1.0, 2.0]", "SEX_value_F"], "X": ["HR_mask", "HR_a", "B"]}
ONES = {
    "s": ([0, 2], [1, 0]),
    "X": ([0, 0, 1, 2], [0, 1, 0, 1], [2, 0, 1, 1]),
}
SHAPES = {"s": (3, 2), "X": (3, 2, 3)}
POPULATION = "ID,ARF_ONSET_HOUR,ARF_LABEL\n12,,0\n3,5.5,1\n7,,0\n"


def write_matrix(folder, stem, **changes):
    coords = np.array(ONES[stem.lower() if stem in "sS" else stem], np.int32)
    stem_of = "s" if stem in "sS" else "X"
    arrays = {
        "data": np.ones(coords.shape[1], np.int64),
        "coords": coords,
        "shape": np.array(SHAPES[stem_of], np.int64),
        "fill_value": np.array(0),
    } | changes
    np.savez_compressed(
        folder / f"{stem}.npz", **{k: v for k, v in arrays.items() if v is not None}
    )


def write_release(folder):
    """The root of a release in `folder`; its stays are listed out of order."""
    root = folder / "FIDDLE_mimic3"
    task = root / "features" / "ARF_4h"
    task.mkdir(parents=True)
    for stem, names in NAMES.items():
        write_matrix(task, stem)
        (task / f"{stem}.feature_names.json").write_text(json.dumps(names))
    aliases = json.dumps({"B": ["~{C}"]})
    (task / "X.feature_aliases.json").write_text(aliases)
    (root / "population").mkdir()
    population(root).write_text(POPULATION)
    return root


def population(root):
    return root / "population" / "ARF_4h.csv"
