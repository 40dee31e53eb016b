"""The plan of cells, the floors, what is hidden, and the report of an experiment."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from missing_people import people

from experiments.cells import CELLS, SETTINGS, append_cell, read_cells, spread
from experiments.flexgen_missing import (
    FLOORS,
    METHODS,
    UNSEEN,
    Cell,
    Missing,
    chosen,
    model_config,
    plan,
    twin,
)
from experiments.flexgen_missing_parts import floor, hide, part_error, remembering
from experiments.flexgen_missing_report import (
    groups_of,
    table,
    versus,
    write_report,
)
from jaxehr.core.checks import InputError
from jaxehr.core.files import read_json, write_json
from jaxehr.metrics.classifiers import Rows
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.learners import FOREST


def test_the_plan_has_every_cell_once_and_begins_with_what_tells_most():
    cells = list(plan(3))
    assert len(set(cells)) == len(cells) == 3 * (2 + 1 + 12 * 8 + 2)
    assert [c.name for c in cells[:4]] == [
        "s0-t0/independent/0",
        "s0-t0/independent-by-class/0",
        "s0-t0/complete/0",
        "s40-t40/fused/0",
    ]
    seeds = [c.seed for c in cells]
    assert seeds == sorted(seeds)
    both = {(c.static, c.temporal) for c in cells}
    assert both == {(p, p) for p in (0, 10, 20, 30, 40)} | {
        pair for p in (20, 40, 60, 80) for pair in ((p, 0), (0, p))
    }


def test_the_imputation_alone_is_told_apart_from_the_alignment():
    """The paper's does not see the label; the default without it is beside it."""
    asked = Missing(train=pathlib.Path("a"), test=pathlib.Path("b"))
    of = lambda method: model_config(asked, method).alignment
    assert (of("signed").by_class, of("signed").fallback) == (False, False)
    assert of(UNSEEN) == dataclasses.replace(of("fused"), by_class=False)
    assert of("fused").by_class


def test_cells_are_chosen_by_name():
    cell = Cell(40, 40, "ridge", 2)
    assert chosen(cell, ())
    assert chosen(cell, ("x", "s40-*/ridge/*"))
    assert not chosen(cell, ("s40-t0/*", "*/0"))


@pytest.mark.parametrize("by_class", [False, True])
def test_a_floor_keeps_each_column_and_nothing_else(by_class):
    real = people(0, 300)
    made = floor(jax.random.key(0), real, by_class=by_class)
    label, cohort = real.cohort.label, made.cohort
    dense = [np.asarray(d.cohort.temporal.codes) for d in (real, made)]
    for group in (0, 1) if by_class else (slice(None),):
        rows = slice(None) if not by_class else label == group
        # the courses of each column are the same, in another order
        for column in range(dense[0].shape[2]):
            courses = [np.sort(d[rows][..., column] @ [1, 2, 4]) for d in dense]
            np.testing.assert_array_equal(*courses)
        totals = [d.cohort.static.codes[rows].sum(0) for d in (real, made)]
        np.testing.assert_array_equal(*totals)
    np.testing.assert_array_equal(cohort.label, label)
    # the first two columns are equal in `people`: no longer
    assert (dense[0][..., 0] == dense[0][..., 1]).all()
    assert (dense[1][..., 0] != dense[1][..., 1]).any()


def test_what_is_hidden_is_known_and_never_both():
    data = people(0, 400)
    (fit, valid), hidden = hide(data, 40, 20, seed=1)
    assert len(fit.ids) + len(valid.ids) == 400
    assert len(hidden["static"].left.ids) == 160
    assert len(hidden["temporal"].left.ids) == 80
    for part, other in (("static", "temporal"), ("temporal", "static")):
        truth, left, base = hidden[part]
        assert not getattr(left.cohort, f"has_{part}").any()
        assert getattr(left.cohort, f"has_{other}").all()
        assert getattr(truth.cohort, f"has_{part}").all()
        kept = data.cohort.temporal if part == "temporal" else data.cohort.static
        share = np.asarray(kept.codes, float).mean(tuple(range(kept.codes.ndim - 1)))
        np.testing.assert_allclose(base.shares, share, atol=0.1)


@pytest.mark.parametrize("part", ["static", "temporal"])
def test_errors_of_the_truth_and_of_strangers(part):
    hidden = hide(people(0, 400), 40, 40, seed=0)[1][part]
    schema, truth = hidden.truth.schema, hidden.truth.cohort
    perfect = part_error(schema, part, truth, [truth, truth], hidden.base)
    np.testing.assert_allclose(perfect["brier_skill"], 1.0)
    np.testing.assert_allclose(perfect["person_nrmse"], 0.0, atol=1e-7)
    others = [people(10 + i, len(truth.label)).cohort for i in range(8)]
    none = part_error(schema, part, truth, others, hidden.base)
    np.testing.assert_allclose(none["brier_skill"], 0.0, atol=0.05)
    np.testing.assert_allclose(none["person_nrmse"], 1.0, atol=0.05)


def cell(static, temporal, method, seed, auroc, settings=None):
    """A finished cell with few numbers."""
    number = {"value": auroc, "reference": 0.9, "low": None, "high": None}
    metrics = {"forest_auroc": number, "dimension_r2_pearson": number}
    return {
        **Cell(static, temporal, method, seed)._asdict(),
        "settings": settings or {"steps": 5},
        "machine": {"machine": "one"},
        "seconds": {"metrics": 2.0},
        "metrics": metrics,
        "imputation": {"static": {"brier_skill": 0.25}} if static else {},
    }


def cells():
    found = [
        cell(40, 40, method, seed, 0.7 + 0.1 * seed)
        for method in METHODS
        for seed in (0, 1)
    ]
    found += [cell(0, 0, name, 0, 0.5) for name in FLOORS]
    return [*found, cell(0, 0, "complete", 0, 0.8), cell(80, 0, "fused", 0, 0.6)]


def test_table_and_summary(tmp_path):
    done = cells()
    text = table(groups_of(done), done).splitlines()
    assert "| real training patients | 0.900 |" in text[2]
    assert "columns shuffled |" in text[3]
    assert text[5].startswith("| 0 % | 0 % | all methods | 0.800 |")
    expected = "| 40 % | 40 % | FLEXGEN, labels and anchors | 0.750 ± 0.071 |"
    fused = next(line for line in text if line.startswith(expected))
    assert fused.endswith("| 0.250 ± 0.000 |  |  | 2 |")
    write_report(tmp_path, done, {"steps": 5})
    found = read_json(tmp_path / "summary.json")
    assert found["cells"] == len(done)
    assert found["seconds"] == 2.0 * len(done)
    assert found["rows"][-1]["AUPR"] is None
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert np.isnan(spread(done, "metrics.absent.value")[0])


def test_the_default_is_compared_by_pairs():
    """Of the same pattern and seed; the worst pattern is named, with its error."""
    number = lambda c, mmd: c["metrics"] | {"mmd_pooled_squared": {"value": mmd}}
    done = [cell(40, 40, "fused", seed, 0.8 + 0.1 * seed) for seed in (0, 1, 2)]
    done += [cell(40, 40, "knn", seed, 0.7 + 0.09 * seed) for seed in (0, 1)]
    done += [cell(80, 0, "fused", 0, 0.6), cell(80, 0, "knn", 0, 0.7)]
    done += [cell(20, 0, "knn", 0, 0.7)]  # the default has no such cell
    for found in done:
        ours = found["method"] == "fused"
        found["metrics"] = number(found, 0.004 if ours and found["static"] == 40 else 0)
    heading, _, knn, _, note, *_ = versus(groups_of(done)).splitlines()
    assert heading.count("worst") == 2
    # .1 and .11 of 40/40, -.1 of 80/0; standard errors of 3 and of 1 pair
    start = "| 5 nearest neighbours | +0.037 ± 0.068 | -0.100 (80/0) |"
    assert knn == f"{start} +2.67 ± 1.33 | +4.00 ± 0.00 (40/40) | 3 |"
    assert note.startswith("Pairs: ")
    assert versus(groups_of(done[:3])) == ""


def test_a_coupling_that_was_not_used_is_named():
    """A row of a method that fell back is the fallback's, and says so."""
    done = [cell(40, 40, "signed", seed, 0.7) for seed in (0, 1)]
    done[0]["alignment"] = {"used": dict.fromkeys("fb", "ridge on pairs")}
    done[1]["alignment"] = {"used": {"f": "ridge on pairs", "b": "map"}}
    text = table(groups_of(done), done)
    assert "| FLEXGEN, the paper's (ridge used in 3 of 4 maps) |" in text


def test_ridge_under_a_second_name_is_not_trained_again():
    """Only where labels and anchors gave every map of the same patients to ridge."""
    fused = cell(40, 40, "fused", 0, 0.7)
    wanted = Cell(40, 40, "ridge", 0)
    assert twin(wanted, [fused]) is None  # nothing is known of its maps
    fused["alignment"] = {"used": {"f": "ridge on pairs", "b": "map"}}
    assert twin(wanted, [fused]) is None
    fused["alignment"]["used"]["b"] = "ridge on pairs"
    found = twin(wanted, [fused])
    assert found is not None
    assert found["metrics"] == fused["metrics"]
    assert found["imputation"] == fused["imputation"]
    assert (found["method"], found["seconds"]) == ("ridge", {})
    # A row of ridge does not say that ridge stood in for something.
    text = table(groups_of([found]), [found])
    assert "| ridge on complete patients |" in text
    assert twin(wanted._replace(seed=1), [fused]) is None
    assert twin(wanted._replace(method="knn"), [fused]) is None


def test_a_forest_of_the_same_rows_grows_once():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    table = Rows(x, np.ones(60, np.int32), (x[:, 0] > 0).astype(np.int32))
    config, keys = MetricConfig(trees=5), jax.random.split(jax.random.key(0), 2)
    rows = np.stack([np.arange(40), np.arange(20, 60)])
    forest = remembering(FOREST)
    first = forest.fit(config, keys, 2, table, rows)
    plain = FOREST.fit(config, keys, 2, table, rows)
    every = np.tile(np.arange(60), (2, 1))
    chances = [forest.chance(2, models, table, every) for models in (first, plain)]
    np.testing.assert_array_equal(chances[0], chances[1])
    assert (forest.fit(config, keys, 2, table, rows) == first).all()
    others = (
        forest.fit(config, keys[::-1], 2, table, rows),
        forest.fit(config, keys, 2, table._replace(x=x + 1), rows),
        forest.fit(MetricConfig(trees=6), keys, 2, table, rows),
    )
    assert not any((other == first).any() for other in others)
    # Only the last few are kept.
    assert (forest.fit(config, keys, 2, table, rows) != first).all()


def test_nothing_is_written_without_a_cell(tmp_path):
    write_report(tmp_path, [], {})
    assert not list(tmp_path.iterdir())


def test_cells_of_other_settings_are_refused(tmp_path):
    append_cell(tmp_path, cell(0, 0, "complete", 0, 0.8))
    assert len(read_cells(tmp_path, {"steps": 5})) == 1
    with pytest.raises(InputError, match=r"another steps \(5, now 6\); choose another"):
        read_cells(tmp_path, {"steps": 6})


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    for seed in (0, 1):
        append_cell(tmp_path, cell(0, 0, "complete", seed, 0.8))
    path = tmp_path / CELLS
    path.write_text(path.read_text()[:-20])
    assert [c["seed"] for c in read_cells(tmp_path, {"steps": 5})] == [0]
    append_cell(tmp_path, cell(0, 0, "complete", 1, 0.8))
    assert [c["seed"] for c in read_cells(tmp_path, {"steps": 5})] == [0, 1]


def test_what_an_interrupted_cell_left_is_not_used_with_other_settings(tmp_path):
    write_json(tmp_path / SETTINGS, {"latent": 32, "trees": 500})
    assert read_cells(tmp_path, {"latent": 32, "trees": 500}) == []
    with pytest.raises(InputError, match=r"another latent \(32, now 16\)"):
        read_cells(tmp_path, {"latent": 16, "trees": 500})
