"""Cohorts of every shape end in a page: parts, labels, steps and values may lack."""

import re

import numpy as np
import pytest
from report_samples import SCHEMA, make_dataset, parse, results

from jaxehr.core.cohort import Feature, Label, Table, make_cohort
from jaxehr.core.contracts import Comparison
from jaxehr.report import write_report
from jaxehr.report.style import look, panels, picture

SCHEMAS = {
    "no static": SCHEMA.replace(static=()),
    "no temporal": SCHEMA.replace(temporal=(), num_steps=0),
    "no label": SCHEMA.replace(label=None),
    "many classes": SCHEMA.replace(
        label=Label(name="unit", classes=tuple(f"ward {k}" for k in range(20)))
    ),
    "one step": SCHEMA.replace(num_steps=1),
    "constant": SCHEMA.replace(
        static=(Feature(name="site", kind="constant", categories=("A",)),)
    ),
    "constant series": SCHEMA.replace(
        temporal=(Feature(name="site", kind="constant", categories=("A",)),)
    ),
    "codes only": SCHEMA.replace(temporal=SCHEMA.temporal[2:]),
    "many categories": SCHEMA.replace(
        temporal=(
            Feature(
                name="ward", kind="categorical", categories=tuple(map(str, range(30)))
            ),
        )
    ),
}


def page_of(tmp_path, *sides) -> str:
    write_report(tmp_path / "out", Comparison(*sides), results()[:2])
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    parse(text)
    return text


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_shape_of_cohort(tmp_path, name):
    schema = SCHEMAS[name]
    sides = [make_dataset(k, schema, num=40) for k in range(3)]
    text = page_of(tmp_path, *sides)
    says = {
        "no temporal": "There is no time-series part.",
        "no label": "The data have no label.",
        "many classes": "Shown are the 12 of 20 features with the largest difference.",
        "one step": "The data have no series of two or more steps to draw.",
        "constant series": "The data have no series of two or more steps to draw.",
        "many categories": "23 others",
    }
    assert says.get(name, "Limits of use") in text


def test_a_feature_that_one_side_never_has(tmp_path):
    real, other = make_dataset(0), make_dataset(1)
    temporal = other.cohort.temporal
    observed = temporal.observed.copy()
    observed[..., 0] = False
    cohort = make_cohort(
        other.cohort.static,
        Table(temporal.numeric, temporal.codes, observed),
        other.cohort.length,
        other.cohort.label,
    )
    text = page_of(tmp_path, real, real, other._replace(cohort=cohort))
    assert "HR: no value on the synthetic side." in text
    assert "100.0 % of synthetic values" in text


def test_a_side_with_no_value_at_all(tmp_path):
    empty = make_dataset(1, missing=1.1)
    text = page_of(tmp_path, make_dataset(0), make_dataset(2), empty)
    assert "no value on the synthetic side" in text


def test_features_that_are_never_missing_are_named(tmp_path):
    sides = [make_dataset(k, missing=0.0) for k in range(3)]
    text = page_of(tmp_path, *sides)
    assert "Never missing on either side: HR, Temp &lt;core&gt;, vent." in text


def test_of_many_features_the_twelve_that_differ_most_are_shown(tmp_path):
    features = tuple(Feature(name=f"v{k:02d}", kind="numeric") for k in range(20))
    schema = SCHEMA.replace(temporal=features)
    real, synthetic = make_dataset(0, schema), make_dataset(1, schema)
    shifted = synthetic.cohort.temporal.numeric.copy()
    shifted[..., 8:] += 40.0
    temporal = synthetic.cohort.temporal._replace(numeric=shifted)
    cohort = synthetic.cohort._replace(temporal=temporal)
    text = page_of(tmp_path, real, real, synthetic._replace(cohort=cohort))
    assert "Shown are the 12 of 20 features with the largest difference." in text
    marginals = text.split('<section id="marginals"')[1].split("</section>")[0]
    shown = [f.name for f in features if f"{f.name}: " in marginals]
    assert shown == [f.name for f in features[8:]]


def test_the_same_data_on_both_sides_overlap_fully(tmp_path):
    data = make_dataset(0)
    text = page_of(tmp_path, data, data, data)
    assert "HR: 100 % of the two distributions overlap." in text
    assert "Mean absolute difference over all pairs: 0; largest: 0." in text
    assert np.isfinite(data.cohort.temporal.numeric).all()


def test_what_is_written_in_a_picture_is_written_whole():
    with look():
        figure, (axes,) = panels(300, 200)
        axes.plot([0.123456, 1.0], [0.0, 1.0])
        axes.set_title("copay_$_vs_$, 0.125 mg")
        axes.text(0.2, 0.2, "0.019")
        text = str(picture(figure, "one", "a line").svg)
    assert "copay_$_vs_$, 0.125 mg" in text
    assert ">0.019<" in text
    assert not re.search(r'd="[^"]*\d\.\d{3}', text)  # coordinates are short
