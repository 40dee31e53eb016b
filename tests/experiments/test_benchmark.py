"""Suites: the plan, the budget, shared trainings, failures and tables."""

import dataclasses
import re

import numpy as np
import pytest

from experiments import cell, suite, tables
from experiments.cells import CELLS, append_cell, marks_of, read_cells
from experiments.suite import Cell, Options, Suite, Variant, folders_of, plan
from jaxehr.core.checks import InputError
from jaxehr.core.configs import replace
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import save_cohort
from jaxehr.metrics.evaluate import QUICK
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.registry import METRICS, MODELS, find, model_entry
from jaxehr.training.config import TrainConfig

SETTINGS = {"seconds": 2.0, "preset": "small", "patients": 0}
SMALL = Suite(
    "small",
    {
        "vae": Variant("vae", {"hidden": 16}),
        "vae-mode": Variant("vae", {"hidden": 16}, {"decode": "mode"}, "balanced"),
    },
    ("dimensions", "correlation"),
    {"draws": 1},
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohorts") / "law"
    save_cohort(simulate(SimulateOptions(n=400, steps=3, numeric=2)), folder)
    return folder


def numbers(found):
    """The numbers that the metrics of a suite make."""
    config = replace(QUICK, found.quick)
    made = (find(METRICS[name])(config).names for name in found.metrics)
    return set().union(*made)


@pytest.mark.parametrize("name", suite.suites())
def test_every_config_is_made_of_what_exists(name):
    """Also what a variant changes: the dataclasses refuse unknown fields and values."""
    found = suite.load_suite(name)
    assert set(found.metrics) <= set(METRICS)
    for table in found.tables.values():
        assert set(table["variants"]) <= set(found.variants)
        drawn = table.get("figure", {"panels": [], "lines": {}})
        assert set(drawn["panels"]) <= {spec[0] for spec in table["columns"]}
        for line in drawn["lines"].values():
            assert set(line.values()) <= set(table["variants"])
        if "schedule" in table:
            assert table["schedule"] in table["variants"]
        for spec in table["columns"]:
            kind, *rest = tables.column(spec).path.split(".")
            if kind == "metrics":
                assert rest[0] in numbers(found)
            else:
                assert kind == "steps" or rest[0] in cell.PARTS
    for variant in found.variants.values():
        entry = model_entry(variant.model)
        replace(find(entry.config)(), variant.config)
        replace(find(entry.sampling)(), variant.sampling)


def test_the_benchmark_has_every_model():
    models = {v.model for v in suite.load_suite("benchmark").variants.values()}
    assert models == set(MODELS)


def test_the_plan_has_every_variant_once_before_the_next_seed():
    asked = Options(cohorts=("x=.",), seeds=2)
    cells = list(plan(SMALL, asked, {"x": (), "y": ()}))
    assert len(set(cells)) == len(cells) == 8
    assert cells[:3] == [
        Cell("x", "vae", 0),
        Cell("y", "vae", 0),
        Cell("x", "vae-mode", 0),
    ]
    only = list(plan(SMALL, dataclasses.replace(asked, only=("vae",)), {"x": ()}))
    assert only == [Cell("x", "vae", 0), Cell("x", "vae", 1)]
    with pytest.raises(InputError, match=r"variant .*unet.*vae"):
        list(plan(SMALL, dataclasses.replace(asked, only=("unet",)), {}))


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
    small = cell.scaled(config, 0.1)
    assert small.train.steps == 100
    assert (small.autoencoder_epochs, small.warmup_epochs) == (6, 2)
    assert cell.scaled(config, 1e-9).autoencoder_epochs == 1


def test_the_cost_is_that_of_all_steps_without_compilation():
    """A stage of 40 steps at 0.1 s, one of 10 at 2 s, one that is a single step."""
    first = [(0.0, 1, 30.0), (0.0, 20, 31.9), (0.0, 40, 33.9)]
    events = [*first, (1.0, 41, 90.0), (1.0, 50, 108.0), (2.0, 51, 200.0)]
    assert cell.cost_of(events) == pytest.approx(4.0 + 20.0)


@pytest.mark.parametrize(
    ("backend", "devices", "count"),
    [("cpu", 1, 1024), ("cpu", 2, 1024), ("cpu", 8, 2048), ("gpu", 1, 8192)],
)
def test_the_timed_drawing_fills_whole_blocks(monkeypatch, backend, devices, count):
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    monkeypatch.setattr("jax.device_count", lambda: devices)
    assert cell.whole_blocks() == count


def test_a_lap_is_told_as_a_share_of_itself(monkeypatch):
    clock = iter((0.0, 0.0, 8.192, 4.096))
    monkeypatch.setattr(cell, "seconds_now", lambda: next(clock))
    monkeypatch.setattr(cell.time, "perf_counter", lambda: next(clock))
    laps = {}
    cell.stopwatch(laps)("sampling_1000", 1000 / 8192)
    assert laps == {"sampling_1000": 1.0, "sampling_1000_clock": 0.5}


def test_a_cell_that_takes_too_long_is_given_up(cohort, tmp_path):
    asked = SMALL, SETTINGS, tmp_path / "work", (cohort,), Cell("law", "vae", 1)
    found = suite.apart(*asked, 0.005)
    reason = "the process was killed; took more than 0.005 minutes"
    assert found == {"failed": reason, "limit": 0.005}


def test_a_cell_tells_what_it_measured_and_its_training_is_shared(cohort, tmp_path):
    run = lambda name: cell.run_cell(
        SMALL, SETTINGS, tmp_path / "work", (cohort,), Cell("law", name, 1)
    )
    found = run("vae")
    assert found["steps"] >= cell.PROBE_STEPS
    assert found["parameters"] > 500
    assert found["peak_bytes"] > 2**27
    assert found["seconds"]["sampling_1000"] > 0
    assert "label as condition" in found["input"]
    people = found["people"]
    assert people["fit"] + people["valid"] == people["real"] == 400 - people["test"]
    assert found["metrics"]["dimension_r2_score"]["reference"] > 0.9
    assert found["data"] == {"source": "simulate", "folders": [str(cohort)]}
    assert found["notes"] == []
    (trained,) = (tmp_path / "work").glob("*.json")
    assert trained.stem == found["training"]
    before = trained.stat().st_mtime_ns
    other = run("vae-mode")
    assert trained.stat().st_mtime_ns == before
    assert other["seconds"]["training"] == found["seconds"]["training"]
    assert other["metrics"] != found["metrics"]
    line = {"cohort": "law", "variant": "vae", "seed": 1, "settings": SETTINGS}
    append_cell(tmp_path, line | found)
    append_cell(tmp_path, line | {"seed": 2, "failed": "MemoryError: too wide"})
    tables.main(tables.Tables(folder=tmp_path))
    text = (tmp_path / "table.md").read_text()
    assert "| vae | " in text
    assert "vae, seed 2, failed: MemoryError: too wide" in text
    assert "C2ST" not in text


def test_only_people_to_learn_from_lose_what_is_hidden(cohort):
    hide = {"static": 0.3, "temporal": 0.2, "entries": 0.1}
    whole, left = (cell.load((cohort,), 0, h, 3) for h in ({}, hide))
    for part in ("real", "test"):
        one, two = (getattr(data, part).cohort for data in (whole, left))
        np.testing.assert_array_equal(one.static.observed, two.static.observed)
    lacks = [1.0 - left.fit.cohort.has_static.mean()]
    lacks += [1.0 - left.fit.cohort.has_temporal.mean()]
    np.testing.assert_allclose(lacks, [0.3, 0.2], atol=0.06)
    np.testing.assert_array_equal(whole.fit.ids, left.fit.ids)


def test_a_cell_that_fails_is_a_line_and_is_not_repeated_unasked(tmp_path, cohort):
    """One patient is nothing to compare with; the process is its own."""
    out = tmp_path / "out"
    asked = Options(
        cohorts=(f"law={cohort}",), only=("vae",), seeds=1, out=out, patients=1
    )
    suite.run_suite(SMALL, asked)
    (line,) = read_cells(out, {})
    assert line["failed"]
    assert line["marks"] == dict(marks_of(SMALL, "vae", (cohort,)))
    before = (out / CELLS).read_text()
    suite.run_suite(SMALL, asked)
    assert (out / CELLS).read_text() == before
    suite.run_suite(SMALL, dataclasses.replace(asked, again=True))
    assert len((out / CELLS).read_text().splitlines()) == 2


def test_other_settings_are_refused(tmp_path, cohort):
    line = {"cohort": "law", "variant": "vae", "seed": 0, "failed": "x"}
    append_cell(tmp_path, line | {"settings": SETTINGS})
    asked = Options(cohorts=(f"law={cohort}",), out=tmp_path, seconds=3.0)
    with pytest.raises(InputError, match="another seconds"):
        suite.run_suite(SMALL, asked)


def test_a_repetition_counts_instead_of_the_failure():
    line = {"cohort": "law", "variant": "vae", "seed": 0}
    assert tables.latest([line | {"failed": "x"}, line | {"steps": 3}]) == [
        line | {"steps": 3}
    ]


def test_numbers_of_seeds_are_shown_with_their_spread():
    column = tables.metric("MMD² x 1000", "mmd_squared", 2, 1000.0)
    cells = [{"metrics": {"mmd_squared": {"value": v}}} for v in (0.001, 0.003)]
    assert tables.shown(cells, column.path, column) == "2.00 ± 1.41"
    assert tables.shown(cells[:1], column.path, column) == "1.00"
    assert tables.shown([{}], column.path, column) == "-"
    assert column.reference == "metrics.mmd_squared.reference"


def test_every_published_table_has_an_entry_point():
    """Named as in the config, with the command in its docstring, or as the suite."""
    for name in suite.suites():
        for table in suite.load_suite(name).tables:
            path, words = suite.CONFIGS.parent / f"{table}.py", f'"{name}", "{table}"'
            if not path.is_file():
                path, words = suite.CONFIGS.parent / f"{name}.py", f'"{name}"'
            text = path.read_text()
            assert re.search(rf"python -m experiments\.{path.stem}\s", text)
            assert f"paper_table({words})" in text
