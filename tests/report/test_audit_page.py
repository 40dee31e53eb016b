"""The page of an audit, from invented findings."""

import pytest
from report_samples import make_dataset

from jaxehr.core.contracts import Comparison, Definition, Result, Value
from jaxehr.metrics.release import judge
from jaxehr.report import words
from jaxehr.report.audit import Findings, render, without_records


def result(name, value):
    definition = Definition(f"{name}: TPR", "Threat model: someone.", "lower", 0.0)
    number = None if value is None else value / 2
    return Result(name, "privacy", definition, Value(value, 0.0, number, value))


@pytest.mark.parametrize(
    ("on_model", "lead"),
    [
        (None, "from the synthetic patients; the policy"),
        (0.1, "from the synthetic patients and the model (cdmt); the policy"),
    ],
)
def test_the_model_is_attacked_only_where_a_number_says_so(on_model, lead):
    """A run of other people is given, too, and cannot be attacked."""
    sets = Comparison(make_dataset(0), make_dataset(1), make_dataset(2))
    found = [result("mir", 0.1), result("membership_loss_tpr", on_model)]
    verdicts = judge(found, {"mir": {"max": 0.2}})
    run = {"model": "cdmt"}
    page = render(Findings(sets, found, verdicts, [], {}, run, []), False)
    assert f"Attacks try to learn of training patients {lead}" in page
    assert f"on its control, {words.CONTROL}, whom" in page


def test_a_releasable_page_says_what_the_patients_are():
    origin = {"kind": "synthetic", "model": "bootstrap", "run": {"cohort": "secret"}}
    sets = Comparison(make_dataset(0), make_dataset(1), make_dataset(2))
    sets = sets._replace(synthetic=sets.synthetic._replace(provenance=origin))
    verdicts = judge([], {"mir": {"max": 0.2}})
    found = without_records(Findings(sets, [], verdicts, [], {}, {}, []))
    page = render(found, True)
    assert "60 copies of real patients are compared with real patients" in page
    assert "Origin: real" not in page
    assert "secret" not in page
