"""The folder: one offline page with every number, and strict JSON."""

import json
import re

import numpy as np
import pytest
from report_samples import REASON, RUN, SCHEMA, make_dataset, parse, results

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature
from jaxehr.core.contracts import Comparison
from jaxehr.core.sparse import from_dense
from jaxehr.report import write_report
from jaxehr.report.fitting import noise_level

RHO = 7 + np.random.default_rng(0).normal(size=(6, 2))


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return Comparison(make_dataset(0), make_dataset(1, num=30), make_dataset(2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, comparison):
    tmp_path = tmp_path_factory.mktemp("report")
    schedule = {
        "numeric": {"rho": RHO.tolist(), "names": ["HR", "Temp <core>"]},
        "static_numeric": {"rho": [[7.5]], "names": ["age"]},
    }
    run = RUN | {"schedule": schedule, "label": None}
    write_report(tmp_path / "out", comparison, results(), run=run, notes=["A <note>."])
    return tmp_path / "out"


def test_page_is_sound_and_asks_for_nothing_outside(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = parse(text)
    assert len(page.ids) == len(set(page.ids))
    assert page.references
    for reference in page.references:
        assert reference.startswith("#")
        assert reference[1:] in page.ids
    for used in re.findall(r"url\(#([^)]*)\)", text):
        assert used in page.ids
    assert not re.search(r"https?:|@import|url\((?!#)|<script|<link", text)


def test_page_shows_every_metric_and_why_one_is_not_defined(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    for result in results():
        assert f"<code>{result.name}</code>" in text
    assert f"Not defined: {REASON}" in text
    assert not re.search(r"\b(nan|NaN|inf|None)\b", text)
    assert "A &lt;note&gt;." in text
    assert "Not assessed: privacy attacks" in text


def test_page_is_accessible_in_both_themes(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = parse(text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    tags = [tag for tag, _ in page.tags]
    assert tags.count("svg") == tags.count("figure") == tags.count("figcaption") > 10
    assert tags.count("table") == tags.count("caption")
    for tag, given in page.tags:
        if tag == "svg":
            assert given["role"] == "img"
            assert len(given["aria-label"]) > 10
        if tag == "th":
            assert given["scope"] in ("col", "row", "rowgroup")
    for element in text.split("<svg")[1:]:
        assert element.split("</svg>")[0].count("<") < 2000 * 2


def test_sections_stand_in_the_order_of_the_story(folder):
    page = parse((folder / "report.html").read_text(encoding="utf-8"))
    assert [given["id"] for tag, given in page.tags if tag == "section"] == [
        "metrics",
        "marginals",
        "missing",
        "patients",
        "course",
        "correlations",
        "lengths",
        "label",
        "static",
        "schedule",
        "losses",
        "made",
        "limits",
    ]


def test_same_input_gives_the_same_bytes_whatever_the_users_style(
    tmp_path, comparison, monkeypatch
):
    import matplotlib

    write_report(tmp_path / "a", comparison, results(), run=RUN)
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    write_report(tmp_path / "b", comparison, results(), run=RUN)
    for name in ("report.html", "metrics.json"):
        assert (tmp_path / "a" / name).read_bytes() == (
            tmp_path / "b" / name
        ).read_bytes()
    assert matplotlib.rcParams["lines.linewidth"] == 9.0


def test_json_is_strict_and_holds_every_number(folder):
    def refuse(word):
        raise AssertionError(word)

    text = (folder / "metrics.json").read_text(encoding="utf-8")
    document = json.loads(text, parse_constant=refuse)
    entries = {entry["name"]: entry for entry in document["metrics"]}
    for result in results():
        entry = entries[result.name]
        assert entry["value"] == result.value.value
        assert entry["reference"] == result.value.reference
        assert (entry["low"], entry["high"]) == (result.value.low, result.value.high)
        assert entry["direction"] == result.definition.direction
        assert entry["group"] == result.group
        assert entry["detail"]["Temp"] is None
        assert entry["detail"]["HR"] == pytest.approx(0.1)
    assert entries["transition_distance"]["reason"] == REASON
    assert document["sizes"]["holdout"]["patients"] == 30
    assert document["seeds"]["train.seed"] == 0
    assert document["seeds"]["run.config.train.seed"] == 0
    assert document["versions"]["numpy"] == np.__version__


def test_a_report_is_replaced_but_nothing_else(tmp_path, comparison):
    write_report(tmp_path / "mine", comparison, [])
    write_report(tmp_path / "mine", comparison, results()[:1])
    assert "<code>mmd</code>" in (tmp_path / "mine" / "report.html").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="other: already exists"):
        write_report(tmp_path / "other", comparison, [])
    (tmp_path / "other" / "metrics.json").write_text('{"accuracy": 0.9}')
    with pytest.raises(InputError, match="other: already exists and is no report"):
        write_report(tmp_path / "other", comparison, [])
    assert (tmp_path / "other" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"mine: holds thesis.txt, which is not of a"):
        write_report(tmp_path / "mine", comparison, [])
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_no_identifier_of_a_patient_is_on_the_page(tmp_path, comparison: Comparison):
    named = [
        data._replace(ids=np.array([f"patient-{k}-id" for k in range(len(data.ids))]))
        for data in comparison
    ]
    write_report(tmp_path / "out", Comparison(*named), results())
    text = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"patient-\d+-id", text)


def test_a_schedule_given_as_sigma_is_drawn(tmp_path, comparison):
    t = np.linspace(0, 1, 11)
    bent = np.where(t < 0.5, 0.1, t)[:, None, None] * np.ones((1, 6, 1))
    power = noise_level(t[:, None, None], RHO, 0.002, 80.0)
    for name, sigma, said in (
        ("power", power, "Shape rho, numeric series"),
        ("bent", bent, "No map of rho: the schedule is not a power mean."),
    ):
        entry = {"t": t.tolist(), "sigma": sigma.tolist()}
        write_report(
            tmp_path / name, comparison, [], run={"schedule": {"numeric": entry}}
        )
        text = (tmp_path / name / "report.html").read_text(encoding="utf-8")
        assert said in text
        assert "Noise level sigma(t), numeric series" in text


def sparse_dataset(seed: int, num: int = 60):
    """The invented patients with binary temporal columns, kept sparse."""
    binary = tuple(
        Feature(name=f"b{i}", kind="binary", categories=(0, 1)) for i in range(4)
    )
    data = make_dataset(seed, SCHEMA, num)
    length, shape = data.cohort.length, (num, SCHEMA.num_steps, 4)
    codes = np.random.default_rng(seed).random(shape) < 0.3
    cohort = data.cohort._replace(temporal=from_dense(codes, length))
    return data._replace(schema=SCHEMA.replace(temporal=binary), cohort=cohort)


@pytest.mark.parametrize("most", [10**8, 1000])
def test_sparse_tables_are_drawn_and_large_ones_in_part(tmp_path, monkeypatch, most):
    monkeypatch.setattr("jaxehr.report.html.DRAWN_CELLS", most)
    compared = Comparison(*map(sparse_dataset, range(3)))
    write_report(tmp_path / "out", compared, results())
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    page = re.sub(r"<[^>]*>", "", text)
    assert "b3" in page
    # 1000 cells are 41 patients of 24 cells
    told = "too large: 41 of 60, 41 of 60, 41 of 60" in page
    assert told == (most == 1000)
    found = json.loads((tmp_path / "out/metrics.json").read_text())["sizes"]["train"]
    data = compared.train.cohort
    cells = data.static.observed.sum() + 4 * data.length.sum()
    assert found["observed_values"] == cells
