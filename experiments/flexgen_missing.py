"""FLEXGEN-EHR with whole modalities missing, beside every simple alternative.

    python -m experiments.flexgen_missing set-a.tar.xz set-b.tar.xz --budget 120

Challenge 2012 a as FIDDLE's binary columns (steps of 4 h, so that a cell takes 1 to 2
minutes on 2 CPU cores), mortality as label. A cell hides the static part of p % of the
training patients and the temporal part of q % of others, trains, draws as many
complete synthetic patients, and compares them with the real patients of b; it also
imputes what it hid. One line of cells.jsonl a cell; the same command goes on where it
stopped. Autoencoders are trained once for each pattern and seed and serve all methods.
Table, figure and summary are written anew after each cell; work/ holds the cohorts and
autoencoders and may be removed.
"""

import dataclasses
import fnmatch
import functools
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import tyro

from experiments.suite import shell

if TYPE_CHECKING:
    from jaxehr.core.cohort import Dataset
    from jaxehr.models.flexgen.config import FlexgenConfig

METHODS = (
    "fused",
    "ridge",
    "complete",
    "class-mean",
    "knn",
    "signed",
    "bures",
    "gromov",
)
# The default with an imputation that does not see the label, as that of `signed`.
UNSEEN = "fused-no-by-class"
UNSEEN_AT = ((40, 40), (0, 80))
FLOORS = ("independent", "independent-by-class")  # no model: columns shuffled
# Percent without static and without temporal part, the most telling first.
PATTERNS = (
    *((0, 0), (40, 40), (20, 20), (80, 0), (0, 80), (10, 10), (30, 30)),
    *((40, 0), (0, 40), (20, 0), (0, 20), (60, 0), (0, 60)),
)
MAPS = ("forward", "backward")
NOT_SETTINGS = ("train", "test", "out", "budget", "cells", "seeds")
MODEL = 2  # raised when the model's numbers change: cells of two models do not mix


class Cell(NamedTuple):
    """One training: percent without static, percent without temporal part."""

    static: int
    temporal: int
    method: str
    seed: int

    @property
    def pattern(self) -> str:
        return f"s{self.static}-t{self.temporal}"

    @property
    def name(self) -> str:
        return f"{self.pattern}/{self.method}/{self.seed}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Missing:
    """Hide modalities, train, sample, impute, compare; cell by cell."""

    train: tyro.conf.Positional[pathlib.Path]
    """Challenge 2012 set a as distributed, its Outcomes file beside it."""
    test: tyro.conf.Positional[pathlib.Path]
    """The same for set b: the real test patients."""
    out: pathlib.Path = pathlib.Path("results/flexgen_missing")
    """The folder to make or go on with: cells.jsonl, table.md, figure.png, work/."""
    budget: float = 0.0
    """Minutes after which no further cell is begun; 0 = no limit."""
    cells: tuple[str, ...] = ()
    """Only cells whose name matches one of these, as in "s40-t40/*/0"; empty = all."""
    seeds: int = 3
    """Repetitions: other patients hidden, other initial weights and draws."""
    patients: int = 0
    """Only the first so many patients of each set; 0 = all (for a quick look)."""
    bin_hours: float = 4.0
    """Width of a time step."""
    encoder: Literal["sum", "cnn1d", "lstm"] = "lstm"
    """Temporal encoder."""
    latent: int = 32
    """Coordinates of each latent."""
    hidden: int = 128
    """Units of the dense layers of the autoencoders."""
    hidden_sequence: int = 64
    """Units of the LSTMs."""
    kl_weight: float = 0.1
    """Weight of the divergence in the autoencoders' bound; 0.1 made results/, 1 is the
    model's default."""
    autoencoder_epochs: int = 60
    """Passes of the autoencoders."""
    width: int = 256
    """Units of the score network."""
    steps: int = 4000
    """Optimiser steps of the latent diffusion, 128 patients each."""
    draws: int = 10
    """Draws of each hidden modality."""
    hidden_patients: int = 400
    """At most so many patients of each kind whose hidden part is imputed."""
    trees: int = 500
    """Trees of the random forest."""


class World(NamedTuple):
    """Real patients who have both modalities."""

    train: "Dataset"
    test: "Dataset"


def plan(seeds: int) -> Iterator[Cell]:
    """All cells, the most informative first."""
    for seed in range(seeds):
        yield from (Cell(0, 0, name, seed) for name in FLOORS)
        for static, temporal in PATTERNS:
            # Where nothing is hidden all methods are one.
            methods = METHODS if static or temporal else ("complete",)
            if (static, temporal) in UNSEEN_AT:
                methods = (*methods, UNSEEN)
            yield from (Cell(static, temporal, method, seed) for method in methods)


def main(arguments: Missing) -> None:
    """Runs the cells that are left, then says how many there are."""
    import jax

    from experiments.cells import SETTINGS, append_cell, read_cells
    from experiments.flexgen_missing_report import write_report
    from jaxehr.core.checks import InputError
    from jaxehr.core.files import write_json
    from jaxehr.report.json_out import plain

    wanted = [c for c in plan(arguments.seeds) if chosen(c, arguments.cells)]
    if not wanted:
        raise InputError(f"cells {list(arguments.cells)}: no cell has such a name.")
    settings = {
        name: value
        for name, value in dataclasses.asdict(arguments).items()
        if name not in NOT_SETTINGS
    } | {"model": MODEL}
    done = read_cells(arguments.out, settings)
    finished = {tuple(cell[name] for name in Cell._fields) for cell in done}
    left = [cell for cell in wanted if cell not in finished]
    begun, longest, world = time.perf_counter(), 0.0, None
    while left:
        cell = left[0]
        minutes = (time.perf_counter() - begun) / 60
        if arguments.budget and minutes + longest > arguments.budget:
            break
        # Before the cohorts and autoencoders, which are kept without their settings.
        write_json(arguments.out / SETTINGS, plain(settings))
        world = world or load(arguments)
        start = time.perf_counter()
        found = twin(cell, done) or run_cell(arguments, world, cell)
        found |= {"settings": settings}
        append_cell(arguments.out, found)
        jax.clear_caches()  # or the programs of all cells stay in memory
        seconds = time.perf_counter() - start
        longest = max(longest, seconds / 60)
        done.append(found)
        left.pop(0)
        write_report(arguments.out, done, settings)
        print(f"{cell.name}: {seconds:.0f} s", flush=True)
    write_report(arguments.out, done, settings)
    ended = len(wanted) - len(left)
    print(f"{ended} of {len(wanted)} cells; {arguments.out / 'table.md'}")


def chosen(cell: Cell, patterns: tuple[str, ...]) -> bool:
    """Whether the name of a cell matches one of the patterns; none = all do."""
    if not patterns:
        return True
    return any(fnmatch.fnmatchcase(cell.name, pattern) for pattern in patterns)


def twin(cell: Cell, done: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The numbers of a cell that is another one under a second name, if it is.

    Where labels and anchors gave every map to ridge, ridge has the same folds, imputers
    and keys, so that its training would give the same bits.
    """
    if cell.method != "ridge":
        return None
    fused = cell._replace(method="fused")
    for other in done:
        used = set(other.get("alignment", {}).get("used", {}).values())
        same = fused == tuple(other[name] for name in Cell._fields)
        if same and used == {"ridge on pairs"}:
            # What is told of the coupling is fused's: ridge has none.
            told = {"alignment": {"used": dict.fromkeys(MAPS, "ridge")}}
            return other | cell._asdict() | told | {"seconds": {}}
    return None


def load(arguments: Missing) -> World:
    """Both sets as binary columns fitted on the training set; prepared once."""
    import numpy as np

    from jaxehr.core.cohort import take
    from jaxehr.data import discretize
    from jaxehr.data.physionet2012 import Physionet2012Options, read
    from jaxehr.data.store import load_cohort, save_cohort

    folders = [arguments.out / "work" / name for name in ("train", "test")]
    if not all(folder.is_dir() for folder in folders):
        options = Physionet2012Options(bin_hours=arguments.bin_hours)
        sets = [read([path], options) for path in (arguments.train, arguments.test)]
        names = [f.name for f in sets[0].schema.temporal]
        # A parameter that occurs in one set only: both get the columns of the first.
        if [f.name for f in sets[1].schema.temporal] != names:
            options = dataclasses.replace(options, variables=tuple(names))
            sets[1] = read([arguments.test], options)
        rule = discretize.fit(
            sets[0], discretize.DiscretizeOptions(holdout_fraction=0.0)
        )
        for data, folder in zip(sets, folders, strict=True):
            save_cohort(discretize.apply(rule, data), folder, overwrite=True)
    found = []
    for data in map(load_cohort, folders):
        whole = np.flatnonzero(data.cohort.has_static & data.cohort.has_temporal)
        found.append(take(data, whole[: arguments.patients or None]))
    return World(*found)


def model_config(arguments: Missing, method: Any) -> "FlexgenConfig":
    """The model of a cell."""
    from jaxehr.models.flexgen.config import FlexgenConfig
    from jaxehr.ot.config import AlignmentConfig
    from jaxehr.training.config import TrainConfig

    same = ("encoder", "latent", "hidden", "hidden_sequence", "kl_weight", "width")
    train = TrainConfig(steps=arguments.steps, batch_size=128, checkpoint_every=10**9)
    unseen = method in ("signed", UNSEEN)
    return FlexgenConfig(
        **{name: getattr(arguments, name) for name in same},
        autoencoder_epochs=arguments.autoencoder_epochs,
        alignment=AlignmentConfig(
            method="fused" if method == UNSEEN else method,
            # The paper's coupling is used even where it is about a product plan, and
            # its imputation does not see the label.
            fallback=method != "signed",
            by_class=not unseen,
        ),
        train=train,
    )


def run_cell(arguments: Missing, world: World, cell: Cell) -> dict[str, Any]:
    """Everything that is measured in a cell, JSON-able."""
    import jax

    from experiments import flexgen_missing_parts as part
    from experiments.cells import machine
    from jaxehr.models.flexgen import alignment, model, training
    from jaxehr.models.flexgen.config import FlexgenSampling
    from jaxehr.runs.sampling import synthetic

    keys = jax.random.split(jax.random.key(cell.seed), 5)
    clock, schema = part.Clock(), world.train.schema
    found: dict[str, Any] = cell._asdict() | {"machine": machine()}
    found["data"] = {"source": world.train.provenance["source"]}
    if cell.method in FLOORS:
        made = part.floor(keys[2], world.train, by_class=cell.method != "independent")
    else:
        config = model_config(arguments, cell.method)
        left, hidden = part.hide(world.train, cell.static, cell.temporal, cell.seed)
        path = arguments.out / "work" / f"{cell.pattern}-{cell.seed}.npz"
        parts = part.fit_parts(path, schema, config, keys[0], left)
        clock.lap("autoencoders")
        fit, valid = left
        params = training.diffuse(
            schema,
            config,
            keys[1],
            parts,
            fit.cohort,
            valid=valid.cohort,
            hidden=False,  # the error on what was hidden is measured below
        )
        clock.lap("diffusion")
        draw = functools.partial(model.sample, options=FlexgenSampling(missing="none"))
        number = len(world.train.ids)
        drawn = draw(schema, config, keys[2], params, None, number)
        made = synthetic(schema, drawn, {"kind": "synthetic"})
        clock.lap("sampling")
        found["alignment"] = alignment.from_text(params["diagnostics"])
        found["alignment"].pop("heat", None)  # a whole picture
        if cell.method != "complete" and (cell.static or cell.temporal):
            found["imputation"] = part.imputation(
                keys[3], schema, config, params, hidden, arguments
            )
            clock.lap("imputation")
    found["metrics"] = part.compare(keys[4], world, made, arguments.trees)
    clock.lap("metrics")
    return found | {"seconds": clock.seconds}


if __name__ == "__main__":
    sys.exit(shell(main, Missing))
