"""What is run next, the figures, and the page of all results."""

import dataclasses
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from experiments import figures, report, run_all, suite, tables
from experiments.cells import append_cell, made_on, marks_of
from experiments.report import Report, beside, command, write_report
from experiments.run_all import Choice, RunAll, cheapest, cost, jobs_of, seconds_of
from experiments.suite import Cell, Options, load_suite
from jaxehr.core.checks import InputError
from jaxehr.core.files import write_json
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.store import save_cohort
from jaxehr.models.cdmt.config import CdmtConfig
from jaxehr.report.fitting import noise_level
from jaxehr.runs import Run, folder

CLOCK = {f"{part}_clock": 1.0 for part in ("probe", "sampling", "sampling_1000")}
SETTINGS = Options(cohorts=("x",)).settings()


def line(variant, seed=0, cohort="law", **more):
    """A cell as it stands in cells.jsonl; every number is drawn from its name."""
    number = 0.5 + seed / 100
    names = ["tstr_mean", "mmd", "c2st_logistic", "correlation_mae", "acf_mse", "tvd"]
    metrics = {name: {"value": number, "reference": 0.7} for name in names}
    return {
        "cohort": cohort,
        "variant": variant,
        "seed": seed,
        "settings": SETTINGS,
        "people": {"fit": 8, "valid": 1, "test": 2},
        "metrics": metrics,
        "seconds": CLOCK | {"training_clock": 60.0, "metrics_clock": 30.0},
        "machine": {"machine": "m", "jax": "1"},
        "data": {"source": "physionet2019", "folders": ["a", "b"]},
    } | more


def failed(variant, seed=0):
    """A cell that failed."""
    return {
        "cohort": "law",
        "variant": variant,
        "seed": seed,
        "settings": SETTINGS,
        "failed": "MemoryError: too wide",
    }


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200.0), ("90m", 5400.0), ("1h30m", 5400.0)]
)
def test_a_budget_is_hours_and_minutes(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2 hours"])
def test_other_budgets_are_refused(text):
    with pytest.raises(InputError, match="must be a time such as 2h"):
        seconds_of(text)


def test_a_cell_costs_what_its_variant_cost_before():
    done = [line("slow"), line("slow", 1, "other"), failed("new")]
    known = cost(done, Cell("law", "slow", 2), False, 120.0)
    assert known == pytest.approx(run_all.START + 93.0)
    assert cost(done, Cell("x", "slow", 2), True, 120.0) == run_all.START + 32.0
    unknown, begin = Cell("law", "new", 1), run_all.START + run_all.COMPILE
    assert cost(done, unknown, False, 120.0) == begin + 120.0 + 32.0
    assert cost(done, unknown, True, 120.0) == begin + 32.0
    assert cost(done[2:], unknown, False, 120.0) == begin + 240.0


def test_the_next_cell_is_the_cheapest_of_the_first_seed_that_fits():
    of = lambda seconds, seed: Choice(seconds, None, Cell("law", str(seconds), seed))
    left = [of(50.0, 0), of(40.0, 0), of(10.0, 1)]
    assert cheapest(left, 60.0) == left[1]
    assert cheapest(left, 30.0) == left[2]
    assert cheapest(left, 5.0) is None


@pytest.fixture
def cohort(tmp_path):
    path = tmp_path / "law"
    save_cohort(simulate(SimulateOptions(n=60, steps=3, numeric=2)), path)
    return path


def test_everything_is_run_within_the_budget_and_goes_on(cohort, tmp_path, monkeypatch):
    """Two suites that share a training; the clock moves by what cells say."""
    now, ran = [0.0], []
    marks = lambda found, cell: dict(marks_of(found, cell.variant, (cohort,)))

    def run_one(found, options, cell):
        ran.append((found.name, cell.variant, cell.seed))
        made = line(cell.variant, cell.seed, marks=marks(found, cell))
        (options.folder(found)).mkdir(parents=True, exist_ok=True)
        append_cell(options.folder(found), made)
        now[0] += 100.0

    monkeypatch.setattr(run_all, "run_one", run_one)
    monkeypatch.setattr(run_all.time, "perf_counter", lambda: now[0])
    asked = RunAll(
        cohorts=(f"law={cohort}",),
        budget="10m",
        suites=("cdmt_steps", "cdmt"),
        results=tmp_path / "results",
    )
    run_all.main(asked)
    # 315 s, then 227 s each as far as is known; then a second seed of a known one fits.
    assert [seed for _, _, seed in ran] == [0, 0, 0, 0, 1]
    assert ran[0][1] == ran[4][1]
    page = (tmp_path / "results" / "README.md").read_text()
    assert "physionet2019" in page
    run_all.main(dataclasses.replace(asked, budget="5m"))
    assert [seed for _, _, seed in ran[5:]] == [0, 1]
    assert len(set(ran)) == len(ran)
    with pytest.raises(InputError, match="suite 'x'"):
        jobs_of(dataclasses.replace(asked, suites=("x",)))


def test_what_fails_again_is_tried_once(cohort, tmp_path, monkeypatch):
    ran = []

    def run_one(found, options, cell):
        ran.append(cell)
        assert len(ran) < 50
        marks = {"marks": dict(marks_of(found, cell.variant, (cohort,)))}
        append_cell(options.folder(found), failed(cell.variant, cell.seed) | marks)

    monkeypatch.setattr(run_all, "run_one", run_one)
    monkeypatch.setattr(run_all, "write_report", lambda asked: None)
    asked = RunAll(cohorts=(f"law={cohort}",), suites=("cdmt_guidance",), seeds=1)
    asked = dataclasses.replace(asked, budget="9h", results=tmp_path, again=True)
    (tmp_path / "cdmt_guidance").mkdir()
    for _ in range(2):
        run_all.main(asked)
    assert len(ran) == 2 * len(set(ran)) == 12


def test_heun_makes_two_calls_a_step_but_for_the_last():
    found = load_suite("cdmt_steps")
    for curve in found.tables["cdmt_steps"]["figure"]["lines"].values():
        for calls, name in curve.items():
            solver, steps = name.rsplit("-", 1)
            twice = solver == "heun"
            assert int(calls) == (2 * int(steps) - 1 if twice else int(steps))
    trained = {(v.model, str(v.config)) for v in found.variants.values()}
    assert len(trained) == 3  # one of each model, one in bfloat16


def test_the_page_has_tables_figures_commands_and_says_whose_data(tmp_path):
    for variant in ("euler-5", "euler-50", "heun-5", "timediff-1000"):
        for seed in (0, 1):
            (tmp_path / "cdmt_steps").mkdir(exist_ok=True)
            append_cell(tmp_path / "cdmt_steps", line(variant, seed))
    append_cell(tmp_path / "cdmt_steps", failed("adams-3-5"))
    other = tmp_path / "elsewhere"
    other.mkdir()
    append_cell(
        other,
        {"method": "x", "seed": 3, "seconds": {"all": 60.0}}
        | {
            "settings": {},
            "machine": {"machine": "m"},
        },
    )
    (other / "table.md").write_text("| a |\n")
    write_report(Report(folder=tmp_path))
    page = (tmp_path / "README.md").read_text()
    assert "| euler-5 | 0.505 ± 0.007 |" in page
    assert "9 cells (1 failed); seeds 0, 1; m, jax 1" in page
    assert "law (physionet2019): an open stand-in, not the papers' patients" in page
    assert page.index("open stand-in, not") < page.index("The paper, of its own")
    assert "python -m experiments.cdmt_steps law=a:b --only euler-5" in page
    assert "![cdmt_steps-law](cdmt_steps/cdmt_steps-law.png)" in page
    drawn = (tmp_path / "cdmt_steps" / "cdmt_steps-law.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert "Not run, or failed: " in page
    assert "adams-3-5, seed 0, failed: MemoryError: too wide" in page
    assert "1 cells; seeds 3; m; 1 minutes" in page
    assert "| a |" in page
    write_report(Report(folder=tmp_path))
    assert (tmp_path / "README.md").read_text() == page
    assert (tmp_path / "cdmt_steps" / "cdmt_steps-law.png").read_bytes() == drawn


def test_a_folder_without_cells_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no folder there has a cells\.jsonl"):
        write_report(Report(folder=tmp_path))


def test_the_command_names_what_is_not_usual():
    settings = SETTINGS | {"seconds": 5.0, "preset": ""}
    done = [line("vae", seed, settings=settings) for seed in range(3)]
    made = command("benchmark", done)
    assert made == ("python -m experiments.benchmark law=a:b --seconds 5.0 --preset ''")
    assert command("benchmark", done, ["vae"]) == made
    assert "--only vae" in command("benchmark", done, ["vae", "ldm"])
    late = failed("vae") | {"limit": 5.5}
    assert command("benchmark", [*done, late], ["vae"]).endswith(" --limit 5.5")


def test_the_command_names_the_folder_that_it_would_not_choose(tmp_path):
    place = tmp_path / "benchmark"
    write_json(place / "settings.json", SETTINGS)
    done = [line("vae")]
    assert beside(place, tmp_path, done) == ""
    other = tmp_path / "benchmark-epyc"
    assert beside(other, tmp_path, done) == f" --out {other.as_posix()}"
    done = [line("vae", settings=SETTINGS | {"seconds": 5.0, "model_code": 9})]
    other = tmp_path / f"benchmark-5s-small-code9.{SETTINGS['metric_code']}"
    assert beside(other, tmp_path, done) == ""


def test_sources_of_the_papers_are_told_apart():
    mine = line("vae", data={"source": "mimic3", "folders": []})
    assert "a source of the papers" in tables.whose([mine])
    assert "was not recorded" in tables.whose([failed("vae")])


def test_another_code_of_a_training_is_told():
    machine = {"machine": "m", "jaxehr": "0.1.0 abc"}
    cells = [{"machine": machine, "trained_by": by} for by in ("abc", "ab", "ab")]
    told = "m, jaxehr 0.1.0 abc"
    assert made_on([*cells, {}]) == f"{told}; {told}, trained by ab"


def test_time_counts_a_shared_training_once():
    one = [line(v, training="t") for v in ("a", "b")]
    assert report.minutes(one) == pytest.approx((61.0 + 2 * 32.0) / 60)
    assert math.isclose(report.minutes([line("a"), line("b")]), 186.0 / 60)


def test_the_learned_rho_is_drawn_as_a_file_of_its_own(tmp_path, monkeypatch):
    rho, t = np.linspace(6.0, 8.0, 6).reshape(3, 2), np.linspace(0.0, 1.0, 51)
    sigma = noise_level(t[:, None, None], rho, 0.002, 80.0)
    block = {"names": ["HR", "MAP"], "t": t.tolist(), "sigma": sigma}
    monkeypatch.setattr(figures, "find", lambda path: lambda *run: {"numeric": block})
    schema = simulate(SimulateOptions(n=4, steps=3)).schema
    run = Run("cdmt", CdmtConfig(), schema, {}, {})
    monkeypatch.setattr(folder, "load_run", lambda place: run)
    (tmp_path / "work" / "t").mkdir(parents=True)
    done = [line("cdmt-comb", seed, training="t") for seed in (1, 0)]
    drawn = lambda work: figures.draw_schedules(
        done, "cdmt-comb", tmp_path / work, tmp_path, "table6"
    )
    (path,) = drawn("work")
    assert path.name == "table6-law-numeric.svg"
    text = path.read_text()
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "MAP" in text
    assert "var(" not in text
    assert drawn("no-such") == []


def test_suites_share_trainings_but_not_of_other_cohorts(tmp_path):
    from experiments import cell as cell_module
    from experiments.cell import training_place

    cell = Cell("law", "cdmt-comb", 0)
    place = lambda name, folder: training_place(
        tmp_path, SETTINGS, (tmp_path / folder,), suite.load_suite(name), cell
    )
    for letter in "ab":
        (tmp_path / letter).mkdir()
        (tmp_path / letter / "schema.json").write_text(letter)
    told = cell_module.told_at(tmp_path / "mimic3.v1-vae-0-abc")
    assert told.name == "mimic3.v1-vae-0-abc.json"  # a dot in a cohort's name
    assert place("cdmt", "a") == place("cdmt_table7", "a")
    assert place("cdmt", "a") != place("cdmt", "b")
