"""What suites compare, which cohorts they take, and what their cells are made of."""

import dataclasses
import json
import pathlib
import pickle

import numpy as np
import pytest

from experiments import cell as cell_module
from experiments import standins, suite, tables
from experiments.cell import training_place
from experiments.cells import CODE, FIRST, append_cell, fell_back, marks_of, read_cells
from experiments.report import others
from experiments.run_all import suited
from experiments.sizes import row_of
from experiments.standins import STANDINS, prepared
from experiments.suite import (
    Cell,
    Options,
    folder_for,
    load_suite,
    unfinished,
    unfit,
)
from jaxehr.core.checks import InputError
from jaxehr.core.configs import replace
from jaxehr.core.contracts import Value
from jaxehr.core.files import write_json
from jaxehr.core.sparse import SparseTable
from jaxehr.data.discretize import discretize
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import load_cohort, save_cohort
from jaxehr.models.cdmt.config import CdmtConfig
from jaxehr.models.cdmt.layout import make_layout
from jaxehr.report.json_out import plain
from jaxehr.training.loop import Stopped

ROOT = pathlib.Path(__file__).parents[2]
DATA = simulate(SimulateOptions(n=60, steps=3, numeric=2, missing=0.1))
SETTINGS = Options(cohorts=("x",)).settings()


@pytest.fixture
def folders(tmp_path):
    """A cohort of values and gaps, the same as binary columns, and its series alone."""
    series = DATA._replace(
        schema=DATA.schema.replace(static=()),
        cohort=DATA.cohort._replace(
            static=type(DATA.cohort.static)(
                *(leaf[:, :0] for leaf in DATA.cohort.static)
            ),
            has_static=np.zeros_like(DATA.cohort.has_static),
        ),
    )
    made = {"dense": DATA, "binary": discretize(DATA), "series": series}
    for name, data in made.items():
        save_cohort(data, tmp_path / name)
    return {name: (tmp_path / name,) for name in made}


@pytest.mark.parametrize(
    ("table", "other", "field"),
    [
        ("cdmt_table5_mask_vs_embedding", "mask", "categorical"),
        ("cdmt_table6_schedule", "fixed", "schedule"),
    ],
)
def test_an_ablation_differs_in_what_it_is_about_alone(table, other, field):
    """What is missing is a code on both sides, or masks would have nothing to do."""
    found = load_suite("cdmt")
    for how in ("unconditional", "comb", "bal"):
        one, two = (found.variants[f"{name}-{how}"] for name in ("paper", other))
        names = set(found.tables[table]["variants"])
        assert {f"paper-{how}", f"{other}-{how}"} <= names
        assert one.sampling == two.sampling
        assert one.sampling["solver"] == "euler"
        configs = [replace(CdmtConfig(), v.config) for v in (one, two)]
        values = [dataclasses.asdict(config) for config in configs]
        assert [key for key in values[0] if values[0][key] != values[1][key]] == [field]
        for config in configs:
            coded = make_layout(DATA.schema, config).temporal.cardinalities
            assert len(coded) >= len(DATA.schema.temporal)


def test_cohorts_that_a_suite_cannot_take_are_told_apart(folders):
    cdmt, flexgen = load_suite("cdmt"), load_suite("flexgen")
    assert not unfit(cdmt, folders["dense"])
    assert "binary columns only" in unfit(cdmt, folders["binary"])
    assert not unfit(cdmt, folders["series"])
    assert "no static column" in unfit(flexgen, folders["series"])
    texts = tuple(f"{name}={paths[0]}" for name, paths in folders.items())
    assert suited(cdmt, texts) == (texts[0], texts[2])
    assert suited(flexgen, texts) == texts[:2]
    options = Options(cohorts=(texts[1],), out=folders["dense"][0].parent / "out")
    with pytest.raises(InputError, match=r"cohort 'binary': .*; cdmt cannot take it"):
        suite.run_suite(cdmt, options)


def test_without_a_cohort_the_stand_ins_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXEHR_DATA", raising=False)
    assert set(load_suite("benchmark").standins) < set(STANDINS)
    with pytest.raises(
        InputError, match=r"`jaxehr fetch physionet2012 .* `jaxehr prepare"
    ):
        prepared(("2012-fiddle",))
    with pytest.raises(InputError, match="stand-in '2020'"):
        prepared(("2020",))
    for part in (part for parts in STANDINS.values() for part in parts):
        (standins.COHORTS / part.folder).mkdir(parents=True)
    assert prepared(("2019", "2012")) == (
        "2019=cohorts/2019a",
        "2012=cohorts/2012a:cohorts/2012b",
    )


def test_a_stand_in_is_prepared_like_any_cohort(data_dir, tmp_path, monkeypatch):
    """Set b takes the columns of set a."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXEHR_DATA", str(data_dir))
    (found,) = prepared(("2012-fiddle",))
    assert found == "2012-fiddle=cohorts/2012a-fiddle:cohorts/2012b-fiddle"
    one, two = (load_cohort(standins.COHORTS / f"2012{x}-fiddle") for x in "ab")
    assert one.schema == two.schema
    assert len(one.ids) == len(two.ids) == 4000
    assert isinstance(two.cohort.temporal, SparseTable)
    files = [part.file(data_dir) for parts in STANDINS.values() for part in parts]
    assert all(pathlib.Path(file).exists() for file in files)


def test_cells_of_another_cohort_or_variant_are_not_taken_for_these(folders, tmp_path):
    found, out = load_suite("flexgen"), tmp_path / "out"
    out.mkdir()
    marks = dict(marks_of(found, "vae", folders["dense"]))
    line = {"cohort": "law", "variant": "vae", "seed": 0, "settings": SETTINGS}
    append_cell(out, line | {"marks": marks})
    asked = Options(cohorts=(f"law={folders['dense'][0]}",), out=out, only=("vae",))
    assert [cell.seed for cell in unfinished(found, asked)] == [1, 2]
    other = dataclasses.replace(asked, cohorts=(f"law={folders['binary'][0]}",))
    with pytest.raises(InputError, match="law/vae were made with another cohort"):
        unfinished(found, other)
    with pytest.raises(InputError, match="made with another variant or metrics"):
        unfinished(found._replace(quick={"trees": 7}), asked)


@pytest.mark.parametrize("more", [{}, {"failed": "x"}])
def test_cells_that_do_not_say_of_which_cohort_are_of_another(folders, tmp_path, more):
    line = {"cohort": "law", "variant": "vae", "seed": 0, "settings": SETTINGS}
    append_cell(tmp_path, line | more)
    asked = Options(cohorts=(f"law={folders['dense'][0]}",), out=tmp_path)
    with pytest.raises(InputError, match="law/vae were made with another cohort"):
        unfinished(load_suite("flexgen"), asked)


@pytest.mark.parametrize("name", suite.suites())
def test_the_usual_command_goes_on_or_goes_beside_what_is_there(name, monkeypatch):
    """Also in this repository, whose results were made with other settings."""
    monkeypatch.chdir(ROOT)
    found, usual = suite.load_suite(name), suite.Options()
    place = usual.folder(found)
    assert place.name.partition("-")[0] == name
    read_cells(place, usual.settings())  # refuses other settings
    kept = suite.RESULTS / name / "settings.json"
    if kept.is_file():
        made = json.loads(kept.read_text())
        assert folder_for(suite.RESULTS, name, made) == suite.RESULTS / name
        asked = suite.Options(**{key: made[key] for key in made.keys() - CODE.keys()})
        again = asked.folder(found) == suite.RESULTS / name
        assert again == (FIRST | made == asked.settings())


def test_cells_of_other_code_are_not_continued(folders, tmp_path, monkeypatch):
    """Nor trainings, but these stand as long as only what is measured is moved."""
    monkeypatch.setattr(suite, "RESULTS", tmp_path)
    found, asked = (
        load_suite("flexgen"),
        Options(cohorts=(f"law={folders['dense'][0]}",)),
    )
    place = lambda: training_place(
        tmp_path, asked.settings(), folders["dense"], found, Cell("law", "vae", 0)
    )
    old = {key: value for key, value in asked.settings().items() if key not in CODE}
    (tmp_path / "flexgen").mkdir()
    line = {"cohort": "law", "variant": "vae", "seed": 0, "settings": old}
    append_cell(tmp_path / "flexgen", line)
    write_json(tmp_path / "flexgen" / "settings.json", old)
    seen = [(tmp_path / "flexgen", place())]
    for name, number in (("metric_code", 1), ("model_code", 1), ("metric_code", 7)):
        monkeypatch.setitem(CODE, name, number)
        seen.append((asked.folder(found), place()))
    (_, two), (_, same), (first, one), (third, still) = seen
    assert two == same != one == still
    assert first.name == "flexgen"
    assert third.name == "flexgen-120s-small-code1.7"
    with pytest.raises(InputError, match=r"another metric_code \(1, now 7\); choose "):
        unfinished(found, dataclasses.replace(asked, out=first))


def test_a_stop_is_known_in_another_process():
    stop = pickle.loads(pickle.dumps(Stopped(15, 7)))
    assert (stop.signum, stop.step, str(stop)) == (15, 7, "stopped at step 7")


def test_a_hash_is_of_the_content_wherever_it_lies(folders, tmp_path):
    found = load_suite("flexgen")
    save_cohort(DATA, tmp_path / "copy")
    mark = lambda *paths: dict(marks_of(found, "vae", paths))["cohort"]
    assert mark(tmp_path / "copy") == mark(*folders["dense"])
    assert mark(tmp_path / "copy") != mark(*folders["series"])


def test_what_was_published_stands_under_its_own_heading():
    names = [name for s in suite.suites() for name in load_suite(s).tables]
    made = {name: tables.published(name) for name in names}
    for text in filter(None, made.values()):
        assert text.startswith("\n## As published\n\nThe paper, of its own patients.")
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) == 1
    assert "| FLEXGEN-EHR | 0.739 ± 0.045 | 0.681 ± 0.042 |" in made["flexgen_table2"]
    assert made["cdmt_steps"] == ""


def test_numbers_are_put_beside_that_of_one_variant():
    line = lambda name, seed, value: {
        "cohort": "law",
        "variant": name,
        "seed": seed,
        "seconds": {"x": value},
    }
    done = [line("a", 0, 2.0), line("a", 1, 4.0), line("b", 0, 10.0), line("b", 2, 1.0)]
    column = tables.relative(done, "/ a", "seconds.x", "a")
    assert [cell["relative"] for cell in done] == [1.0, 1.0, 5.0, None]
    assert tables.shown(done[2:], column.path, column) == "5.0"


def test_real_people_are_one_row_of_each_seed():
    """Three variants of one seed have one reference, which has no deviation."""
    value = {"value": 0.6, "reference": 0.7}
    line = lambda name: {"cohort": "law", "variant": name, "seed": 0}
    cells = [line(name) | {"metrics": {"x": value}} for name in "abc"]
    text = tables.table("t", (tables.metric("x", "x"),), cells)
    assert "| real people | 0.700 |  |" in text


def test_real_people_of_other_numbers_have_a_row_of_their_own():
    """What is equal to the digits that are shown is equal."""
    line = lambda name, seed, real: {
        "variant": name,
        "seed": seed,
        "metrics": {"x": {"value": 0.6, "reference": real}},
    }
    cells = [line("a", 0, 0.7), line("b", 0, 0.7001), line("b", 1, 0.8)]
    columns = (tables.metric("x", "x"), tables.Column("steps", "steps"))
    assert tables.real_people(columns, cells) == [
        ["real people", "0.750 ± 0.071", "", ""]
    ]
    assert tables.real_people(columns, [*cells, line("c", 1, 0.83)]) == [
        ["real people of a, b", "0.750 ± 0.071", "", ""],
        ["real people of c", "0.830", "", ""],
    ]


def test_all_draw_complete_patients_where_entries_are_missing():
    for name, variant in load_suite("flexgen").variants.items():
        if variant.hide:
            assert variant.sampling["missing"] == "none", name


def test_what_is_not_defined_says_why():
    """Also a column without any number, unless it was not asked for."""
    line = lambda name, **metrics: (
        {"cohort": "law", "variant": name, "seed": 0}
        | {
            "metrics": metrics,
            "people": dict.fromkeys(("fit", "valid", "test"), 9),
            "notes": ["Too good."] if name == "b" else [],
        }
    )
    known = cell_module.told_number(Value(0.6, 0.7))
    assert "reason" not in known
    why = cell_module.told_number(Value(float("nan"), reason="too few"))
    assert why["reason"] == "too few"
    cells = [line("a", x=known, y=why), line("b", x=why, y=why), line("c", x=known)]
    columns = tuple(tables.metric(name, name) for name in "xyz")
    text = "\n".join(tables.sections(plain(cells), {"t": columns}))
    assert "| t | x | y | seeds |" in text
    assert "| a | 0.600 | - | 1 |\n| b | - | - | 1 |" in text
    assert "\n\n- x, y of b, a: too few.\n" in text
    assert text.endswith("\nb: Too good.\n")


def test_accuracy_is_shown_with_its_interval_where_there_is_one_seed():
    value = {"value": 0.1, "low": 0.0, "high": 0.2, "reference": 0.02}
    cells = [{"metrics": {"advantage": value}}] * 2
    column = tables.metric("accuracy", "advantage", 2, 0.5, 0.5)
    show = lambda cells, path=column.path: tables.shown(cells, path, column, True)
    assert show(cells[:1]) == "0.55 (0.50 to 0.60)"
    assert show(cells) == "0.55 ± 0.00"
    assert show(cells[:1], column.reference) == "0.51"


def test_a_row_says_where_ridge_stood_in():
    used = {"forward": "ridge on pairs", "backward": "coupling"}
    cell = {"alignment": {"used": used}}
    assert fell_back([cell, {}]) == " (ridge used in 1 of 2 maps)"
    assert fell_back([{}]) == ""


def test_sizes_count_columns_with_gaps():
    titles = ("static", "numeric", "coded", "masks", "steps", "step")
    row = dict(zip(("cohort", "patients", "test", *titles), row_of("law", [DATA])))
    assert row["numeric"] == str(sum(f.is_numeric for f in DATA.schema.temporal))
    assert row["masks"] == str(len(DATA.schema.temporal))
    assert (row["steps"], row["step"]) == ("3", "1 h")


def test_files_of_numbers_are_on_the_page(tmp_path):
    (tmp_path / "sizes").mkdir()
    (tmp_path / "sizes" / "cdmt_table1.md").write_text("| 15,837 |")
    (tmp_path / "speed.json").write_text("{}")
    sizes, rest = others(tmp_path)
    assert "python -m experiments.cdmt_table1" in sizes
    assert "| 15,837 |" in sizes
    assert "[speed.json](speed.json)" in rest
