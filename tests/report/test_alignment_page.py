"""The page of an alignment: every state, any class count, whatever is missing."""

import copy
import itertools
import json
import re
import shutil
from typing import Any

import numpy as np
import pytest
from alignment_samples import FOUR, RUN, made_up
from report_samples import parse

from jaxehr.core.checks import InputError
from jaxehr.report import align_words, coupling
from jaxehr.report.alignment import write_alignment


@pytest.fixture
def page(tmp_path):
    """Writes the page, checks what holds for every page, and returns its text."""

    numbers = itertools.count()

    def write(diagnostics, run=RUN):
        folder = tmp_path / str(next(numbers))
        write_alignment(folder, diagnostics, run)
        text = (folder / "alignment.html").read_text(encoding="utf-8")
        sound(text)
        strict = json.loads(
            (folder / "alignment.json").read_text(), parse_constant=pytest.fail
        )
        return text, strict

    return write


def sound(text: str) -> None:
    """Balanced, offline, accessible, and nothing undefined on it."""
    found = parse(text)
    assert len(found.ids) == len(set(found.ids))
    for reference in found.references:
        assert reference.startswith("#")
        assert reference[1:] in found.ids
    assert not re.search(r"https?:|@import|url\((?!#)|<script|<link", text)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("svg") == tags.count("figure") == tags.count("figcaption")
    assert tags.count("table") == tags.count("caption")
    for tag, given in found.tags:
        if tag == "svg":
            assert given["role"] == "img"
            assert len(given["aria-label"]) > 10
    assert not re.search(r"\b(nan|NaN|inf|None)\b", text)


# The whole page


@pytest.mark.parametrize(("count", "run"), [(2, RUN), (4, FOUR), (4, RUN), (2, {})])
def test_page_shows_every_part(count, run, page):
    text, found = page(made_up(count), run)
    assert re.findall(r'<section id="(\w+)"', text) == [
        "hidden",
        "weights",
        "coupling",
        "classes",
        "objective",
        "numbers",
        "made",
        "limits",
    ]
    assert text.count("<svg") == 3
    assert "160 patients" in text
    assert "80.0 % of the plan" in text
    assert "25.0 %</td>" in text  # the objective of the plan against the product
    assert "<li>3 target rows are left out</li>" in text
    assert "weight 0.1" in text
    assert "Why this state: nearly one-to-one." in text
    assert found["diagnostics"] == made_up(count)
    assert found["status"] == "ok"
    assert found["method"] == "fused"
    named = len(run.get("classes", [])) == count
    for name in run["classes"] if named else [f"class {k}" for k in range(count)]:
        assert f"static: {name}".replace("<", "&lt;").replace(">", "&gt;") in text


def test_what_the_latents_hold_is_shown(page):
    part = {"active": 3, "coordinates": 16, "nats": 4.25}
    text, _ = page(made_up() | {"latents": {"static": part, "temporal": part}})
    row = r"static part</th>\s*<td[^>]*>3 of 16</td>\s*<td[^>]*>4.25"
    assert re.search(row, text)


def test_the_drift_is_shown_where_there_is_one(page):
    text, _ = page(made_up() | {"moment_drift": None})
    assert "Change on records drawn anew" not in text
    text, _ = page(made_up() | {"moment_drift": 0.0731})
    assert re.search(r"Change on records drawn anew</th>\s*<td[^>]*>0\.0731<", text)


def test_the_errors_stand_beside_their_methods(page):
    text, _ = page(made_up())
    row = r'alignment \(fused\), chosen</th><td class="n">0.660</td><td class="n">0.740'
    assert re.search(row, text)
    assert "error of 0.66 for static parts (best simple alternative: ridge, 0.67)" in (
        text
    )
    assert "0.74 for temporal parts (best simple alternative: ridge, 0.73)" in text
    (picture,) = re.findall(r'aria-label="(Bar chart. Temporal[^"]*)"', text)
    assert "fused 0.74, ridge 0.73, knn 2.60" in picture
    assert "\N{RIGHTWARDS ARROW} 2.60" in text  # the bar is cut


# States


@pytest.mark.parametrize(
    ("status", "method", "words", "warns"),
    [
        ("ok", "fused", "The alignment settled on a plan", False),
        ("collapsed", "gromov", "The alignment collapsed", True),
        ("not_converged", "fused", "had not settled", True),
        ("failed", "signed", "The alignment failed", True),
        ("none", "ridge", "ridge on complete patients fills in", False),
        ("none", "complete", "cannot fill in a missing part", False),
        (None, "fused", "is not recorded in this run", True),
        ("odd", "fused", "is not recorded in this run", True),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_each_state_in_words(status, method, words, warns, bare, page):
    diagnostics = {} if bare else made_up()
    text, found = page(diagnostics | {"status": status, "method": method})
    assert words in text
    assert words in found["verdict"]
    assert ('<p class="warn"><strong>' in text) == warns
    if bare:
        assert "<svg" not in text
        assert "Not measured: too few complete patients" in text


def test_the_verdict_says_what_is_used_instead():
    say = lambda used, method="fused": align_words.used_sentence({"used": used}, method)
    assert say({"forward": "mean", "backward": "mean"}) == (
        "Missing parts are filled in by the mean of all patients."
    )
    assert say({"forward": "mean", "backward": "ridge on pairs"}) == (
        "Missing static parts are filled in by the mean of all patients. Missing "
        "temporal parts are filled in by ridge on complete patients."
    )
    assert "the matches (weight" not in say("coupling (sample)")
    assert say({"forward": "knn", "backward": "knn"}, "knn") == ""
    assert say(None) == say({}) == say({"forward": None}) == ""


def test_doubts_are_said_although_the_calculation_went_well(page):
    poor = {"knn": {"static": 1.02, "temporal": 0.6}, "ridge": {"temporal": 0.5}}
    diagnostics = made_up() | {"method": "knn", "hidden": poor}
    found = align_words.doubts(diagnostics, "knn")
    assert found == [
        "Static parts are filled in hardly better than by the mean.",
        "For temporal parts ridge is clearly better: train with --method ridge.",
    ]
    text, _ = page(diagnostics)
    assert '<p class="warn"><strong>The alignment settled' in text
    assert align_words.doubts(made_up(), "fused") == []
    mixed = {"status": "ok", "label_agreement": 0.7, "label_chance": 0.69}
    mixed["used"] = {"forward": "coupling (sample)"}
    assert align_words.doubts(mixed, "fused") == [
        "The plan hardly keeps the class of the label."
    ]
    assert align_words.doubts(mixed | {"used": "ridge on pairs"}, "fused") == []
    assert align_words.worth({"hidden": poor}, "fused") == ""


@pytest.mark.parametrize("status", ["collapsed", "not_converged"])
def test_what_is_used_decides_what_is_said_of_a_poor_plan(status, page):
    """The paper's preset uses a collapsed one; weights of 0 leave a good one out."""
    diagnostics = made_up() | {"status": status, "method": "signed"}
    diagnostics |= {"label_agreement": 0.51, "label_chance": 0.5}
    hardly = "The plan hardly keeps the class"
    text, found = page(diagnostics | {"used": "map of the coupling"})
    assert "; it was used all the same: read" in found["verdict"]
    assert hardly in found["verdict"]
    assert "learned from the matches alone" in text
    assert "<caption>Error on complete patients, 1 = mean" in text
    text, found = page(diagnostics | {"used": "ridge on pairs"})
    assert "; it was not used. Missing parts" in found["verdict"]
    assert hardly not in found["verdict"]
    if status == "collapsed":  # ridge takes its place
        assert "The alignment adds nothing" in text
        assert "<caption>Error on complete patients set aside" in text
    assert "used" not in align_words.state_sentence({"status": status})


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("fused", "at several weights"),
        ("signed", "from the matches alone"),
        ("knn", ""),
    ],
)
def test_weights_are_shown_where_there_are_matches(method, words, page):
    text, _ = page(made_up() | {"method": method})
    assert ('id="weights"' in text) == bool(words)
    assert words in text


# Whatever is missing


@pytest.mark.parametrize("key", made_up())
def test_any_key_may_be_missing(key, page):
    diagnostics = made_up()
    del diagnostics[key]
    page(diagnostics)


@pytest.mark.parametrize("seed", range(8))
def test_any_keys_may_hold_anything(seed, page):
    generator = np.random.default_rng(seed)
    odd = [None, float("nan"), float("inf"), [], {}, "text", -1, True, [[1.0]], [None]]
    diagnostics = made_up()
    for key in diagnostics:
        if generator.random() < 0.5:
            diagnostics[key] = odd[generator.integers(len(odd))]
    page(diagnostics)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), {}, "text"])
def test_any_number_inside_may_be_missing(value, page):
    diagnostics: Any = copy.deepcopy(made_up())
    diagnostics["heat"][0][0] = value if value is None else float("nan")
    diagnostics["class_mass"][0][1] = None
    diagnostics["gw_starts"][0] = value
    diagnostics["cv"]["forward"] = {"ridge": value}
    diagnostics["cv"]["backward"] = value
    diagnostics["hidden"]["ridge"] = value
    diagnostics["hidden"]["fused"]["static"] = value
    diagnostics["hidden"]["patients"] = value
    diagnostics["used"]["forward"] = value
    text, _ = page(diagnostics, {"config": value, "classes": None, "label": None})
    assert "not given" in text


def test_no_method_gives_one_chart_less(page):
    diagnostics = made_up()
    for each in ("fused", "ridge", "knn"):
        diagnostics["hidden"][each]["static"] = float("nan")
    text, _ = page(diagnostics)
    assert text.count("<svg") == 2


# The picture


def test_a_product_plan_is_at_chance_everywhere():
    rows, columns = np.array([0.2, 0.3, 0.5]), np.array([0.6, 0.4, 0.0])
    ratio = coupling.against_chance(np.outer(rows, columns))
    np.testing.assert_allclose(ratio[:, :2], 1.0, rtol=1e-12)
    np.testing.assert_array_equal(ratio[:, 2], 0.0)


def test_borders_lie_where_the_classes_end():
    # Reweighted clouds: blocks of the second class weigh three times as much.
    sums = np.array([1.0, 1.0, 1.0, 3.0, 3.0]) / 9
    found = coupling.borders(sums, np.array([3.0, 6.0]) / 9)
    np.testing.assert_allclose(found, [0, 3, 5], atol=1e-9)
    half = coupling.borders(np.full(4, 0.25), np.array([0.375, 0.0, 0.625]))
    np.testing.assert_allclose(half, [0, 1.5, 1.5, 4], atol=1e-9)


def test_matrix_takes_tables_of_mass_only():
    for value in (None, [], [1.0], [[0.0]], [[1.0], [1.0, 2.0]], "text", [["a"]], {}):
        assert coupling.matrix(value) is None
    found = coupling.matrix([[1, None], [float("inf"), 3]])
    np.testing.assert_array_equal(found, [[0.25, 0], [0, 0.75]])


def test_a_large_heat_map_stays_small(page):
    diagnostics = made_up(4, 60)
    noise = np.random.default_rng(0).random((60, 60))
    diagnostics["heat"] = (np.asarray(diagnostics["heat"]) * noise).tolist()
    text, _ = page(diagnostics, FOUR)
    assert len(text.encode()) < 500_000


# The folder


def test_a_page_is_replaced_when_asked_and_nothing_else_is(tmp_path):
    folder = tmp_path / "out"
    write_alignment(folder, made_up(), RUN)
    before = (folder / "alignment.html").read_bytes()
    with pytest.raises(InputError, match="out: already exists"):
        write_alignment(folder, made_up(), RUN)
    write_alignment(folder, made_up(), RUN, overwrite=True)
    assert (folder / "alignment.html").read_bytes() == before
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="out: already exists"):
        write_alignment(folder, made_up(), RUN, overwrite=True)
    assert (folder / "thesis.txt").read_text() == "years of work"
