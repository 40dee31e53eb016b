"""The plan, the budget, failures and tables of the benchmark."""

import dataclasses

import pytest

from experiments import benchmark_cell, tables
from experiments.benchmark import Benchmark, Cell, folders_of, main, plan
from experiments.cells import CELLS, append_cell, read_cells
from jaxehr.core.checks import InputError
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import save_cohort
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.training.config import TrainConfig


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohorts") / "law"
    save_cohort(simulate(SimulateOptions(n=400, steps=3, numeric=2)), folder)
    return folder


def settings(**changes):
    fixed = {"seconds": 2.0, "preset": "small", "patients": 0}
    return fixed | changes


def test_the_plan_has_every_model_once_before_the_next_seed():
    asked = Benchmark(cohorts=("x=.",), models=("vae", "copula"), seeds=2)
    cells = list(plan(asked, {"x": (), "y": ()}))
    assert len(set(cells)) == len(cells) == 8
    assert cells[:3] == [
        Cell("x", "vae", 0),
        Cell("y", "vae", 0),
        Cell("x", "copula", 0),
    ]
    with pytest.raises(InputError, match=r"model .*unet.*vae"):
        list(plan(dataclasses.replace(asked, models=("unet",)), {}))


@pytest.mark.parametrize(
    ("text", "said"),
    [("tmp", "NAME=TRAIN"), ("a=b:c:d", "NAME=TRAIN"), ("a=no-such", "no folder")],
)
def test_a_cohort_that_is_not_there_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        folders_of((text,))


def test_every_stage_is_scaled_alike():
    config = FlexgenConfig(
        autoencoder_epochs=60, warmup_epochs=20, train=TrainConfig(steps=1000)
    )
    small = benchmark_cell.scaled(config, 0.1)
    assert small.train.steps == 100
    assert (small.autoencoder_epochs, small.warmup_epochs) == (6, 2)
    assert benchmark_cell.scaled(config, 1e-9).autoencoder_epochs == 1


def test_the_cost_is_that_of_all_steps_without_compilation():
    """A stage of 40 steps at 0.1 s, one of 10 at 2 s, one that is a single step."""
    first = [(0.0, 1, 30.0), (0.0, 20, 31.9), (0.0, 40, 33.9)]
    events = [*first, (1.0, 41, 90.0), (1.0, 50, 108.0), (2.0, 51, 200.0)]
    assert benchmark_cell.cost_of(events) == pytest.approx(4.0 + 20.0)


def test_a_cell_tells_what_it_measured(cohort, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark_cell, "METRICS", ("dimensions", "correlation"))
    found = benchmark_cell.run_cell(settings(), (cohort,), "law", "vae", 1)
    assert found["steps"] >= benchmark_cell.PROBE_STEPS
    assert found["parameters"] > 1000
    assert found["peak_bytes"] > 2**27
    assert found["seconds"]["sampling_1000"] > 0
    assert "label as condition" in found["input"]
    people = found["people"]
    assert people["fit"] + people["valid"] == people["real"] == 400 - people["test"]
    assert found["metrics"]["dimension_r2_score"]["reference"] > 0.9
    cell = {"cohort": "law", "model": "vae", "seed": 1, "settings": settings()}
    append_cell(tmp_path, cell | found)
    append_cell(tmp_path, cell | {"seed": 2, "failed": "MemoryError: too wide"})
    tables.main(tables.Tables(folder=tmp_path))
    text = (tmp_path / "table.md").read_text()
    assert "| vae | " in text
    assert "vae, seed 2, failed: MemoryError: too wide" in text
    assert "C2ST" not in text


def test_a_cell_that_fails_is_a_line_and_is_not_repeated_unasked(tmp_path, cohort):
    """One patient is nothing to compare with; the process is its own."""
    out = tmp_path / "out"
    asked = Benchmark(cohorts=(f"law={cohort}",), models=("vae",), seeds=1, out=out)
    asked = dataclasses.replace(asked, patients=1)
    main(asked)
    (line,) = read_cells(out, {})
    assert line["failed"]
    before = (out / CELLS).read_text()
    main(asked)
    assert (out / CELLS).read_text() == before
    main(dataclasses.replace(asked, again=True))
    assert len((out / CELLS).read_text().splitlines()) == 2


def test_other_settings_are_refused(tmp_path, cohort):
    cell = {"cohort": "law", "model": "vae", "seed": 0, "failed": "x"}
    append_cell(tmp_path, cell | {"settings": settings()})
    asked = Benchmark(cohorts=(f"law={cohort}",), out=tmp_path, seconds=3.0)
    with pytest.raises(InputError, match="another seconds"):
        main(asked)


def test_a_repetition_counts_instead_of_the_failure():
    cell = {"cohort": "law", "model": "vae", "seed": 0}
    assert tables.latest([cell | {"failed": "x"}, cell | {"steps": 3}]) == [
        cell | {"steps": 3}
    ]


def test_numbers_of_seeds_are_shown_with_their_spread():
    column = tables.metric("MMD² x 1000", "mmd_squared", 2, 1000.0)
    cells = [{"metrics": {"mmd_squared": {"value": v}}} for v in (0.001, 0.003)]
    assert tables.shown(cells, column.path, column) == "2.00 ± 1.41"
    assert tables.shown(cells[:1], column.path, column) == "1.00"
    assert tables.shown([{}], column.path, column) == "not defined"
    assert column.reference == "metrics.mmd_squared.reference"
