"""What the page says of a number."""

import pytest
from report_samples import results

from jaxehr.core.contracts import Definition, Result, Value
from jaxehr.report import provenance, words


def reading(direction, ideal, *numbers, reason="", **detail):
    definition = Definition("title", "text", direction, ideal)
    value = Value(*numbers)._replace(reason=reason, detail=detail)
    return words.read(Result("name", "group", definition, value))


@pytest.mark.parametrize(
    ("direction", "ideal", "numbers", "mark"),
    [
        ("lower", 0.0, (0.2, 0.3), "as real"),
        ("lower", 0.0, (0.4, 0.3), "differs"),
        ("lower", 0.0, (0.4, 0.3, 0.25, 0.55), "as real"),
        ("higher", 1.0, (0.7, 0.8), "differs"),
        ("higher", 1.0, (0.8, 0.8), "as real"),
        ("target", 0.5, (0.45, 0.56), "as real"),
        ("target", 0.5, (0.40, 0.56), "differs"),
        ("target", None, (48.0, 49.0), "differs"),
        ("target", None, (48.0, 49.0, 47.0, 50.0), "as real"),
        ("lower", 0.0, (0.4,), "no reference"),
        ("lower", 0.0, (float("nan"), 0.3), "not defined"),
    ],
)
def test_mark_follows_the_reference(direction, ideal, numbers, mark):
    assert reading(direction, ideal, *numbers).mark == mark


@pytest.mark.parametrize(
    ("paired", "mark"),
    [([-0.02, 0.0], "as real"), ([-0.03, -0.01], "differs"), ([None, None], "differs")],
)
def test_the_interval_of_the_difference_decides_where_there_is_one(paired, mark):
    for ends in ((0.6, 0.9), (0.69, 0.71)):  # of the value alone
        found = reading(
            "higher", 1.0, 0.7, 0.72, *ends, above_reference_interval=paired
        )
        assert found.mark == mark


def test_without_an_interval_for_want_of_patients_nothing_is_shown():
    why = {"no_interval": "few were tested"}
    found = reading("higher", 1.0, 0.7, 0.72, **why)
    assert found.mark == "not shown"
    assert "few were tested" in found.sentence
    assert reading("higher", 1.0, 0.73, 0.72, **why).mark == "as real"
    definition = Definition("title", "text", "higher", 1.0)
    result = Result("name", "group", definition, Value(0.7, 0.72, detail=why))
    assert words.count_readings([result]).endswith(
        "0 differ, 1 without an interval to tell."
    )


def test_difference_is_said_in_the_metrics_own_terms():
    assert "Reaches 97.5 %" in reading("higher", 1.0, 0.78, 0.8).sentence
    assert reading("lower", 0.0, 0.4, 0.2).sentence.startswith("2 times")
    said = reading("lower", 0.0, None, reason="no coded column")
    assert said.sentence == "Not defined: no coded column"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0021, "0.0021"),
        (0.5, "0.5"),
        (12345.6, "12,346"),
        (123.4, "123"),
        (0.9997, "1"),
        (9.996, "10"),
        (999.6, "1,000"),
        (0, "0"),
        (-0.25, "\N{MINUS SIGN}0.25"),
        (1e-7, "1.0e\N{MINUS SIGN}07"),
    ],
)
def test_number(value, text):
    assert words.number(value) == text


def test_headlines_are_use_detection_and_fidelity():
    chosen = [result.name for result in words.headlines(results())]
    assert chosen == ["tstr_mean", "c2st_lstm", "correlation_mae"]
    assert words.headlines([]) == []


def attack(name, value, reference, caught=True):
    definition = Definition(f"The {name}: AUROC", "text", "lower", 0.0)
    detail = {"leaky_generator_caught": caught}
    found = Value(value, reference, value, value, detail=detail)
    return Result(name, "privacy", definition, found)


def test_privacy_is_said_in_one_sentence():
    found = [attack("a", 0.3, 0.1), attack("b", 0.1, 0.1), attack("c", 0, 0, False)]
    assert words.privacy_sentence(found) == (
        "1 of 3 numbers of attacks on privacy are worse than for fresh real patients: "
        "The a. Too weak to see even their control: The c: AUROC."
    )
    assert words.privacy_sentence(found[1:2]).endswith("fresh real patients.")


def test_a_number_no_worse_than_the_ideal_is_no_leak():
    assert words.privacy_sentence([attack("a", -0.05, -0.1)]).startswith("0 of 1")


def test_what_chance_explains_is_no_leak():
    found = attack("a", 0.3, 0.1)
    for detail, worse in (
        ({"chance": 0.2}, 0),
        ({"chance": 0.01}, 1),
        ({"reference_interval": [0.0, 0.4]}, 0),
    ):
        result = found._replace(value=found.value._replace(detail=detail))
        assert words.privacy_sentence([result]).startswith(f"{worse} of 1")


@pytest.mark.parametrize(
    ("names", "held", "untried"),
    [
        (("mir",), "the synthetic patients only.", "holds the model itself, were"),
        (("membership_shadow_tpr",), "the model only.", "holds the synthetic pat"),
        (("mir", "membership_loss_tpr"), "the synthetic patients and the model.", ""),
        (("mir", "membership_shadow_tpr"), "the synthetic patients and the model.", ""),
    ],
)
def test_what_the_attackers_held_is_said(names, held, untried):
    found = [attack(name, 0.1, 0.1) for name in names]
    found.append(attack("membership_loss_auroc", None, None))  # not defined
    (block,) = provenance.limits(found, []).blocks
    assert f"were made with {held}" in block.items[0]
    assert (untried or "stronger than these") in words.untried_sentence(found)


def test_diagnostics_and_failed_attacks_are_no_assessment():
    undefined = attack("a", None, None)
    assert words.privacy_sentence([attack("nnaa_holdout", 0.9, 0.5)]) == ""
    assert words.privacy_sentence([attack("nndr", 0.5, 0.5), undefined]) == ""
    assert words.privacy_sentence(results()) == ""
