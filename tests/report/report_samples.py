"""Invented cohorts, results and a run, and a strict HTML parser, for tests."""

import html.parser
from typing import Any

import numpy as np

from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Label,
    Schema,
    Table,
    coded_features,
    make_cohort,
    numeric_features,
)
from jaxehr.core.contracts import Definition, Result, Value

SCHEMA = Schema(
    static=(
        Feature(name="age", kind="integer", unit="years"),
        Feature(name="sex", kind="binary", categories=("female", "male")),
    ),
    temporal=(
        Feature(name="HR", kind="integer", unit="bpm"),
        Feature(name="Temp <core>", kind="numeric", unit="°C"),
        Feature(name="vent", kind="categorical", categories=("none", "mask", "tube")),
    ),
    num_steps=6,
    label=Label(name="died", classes=(0, 1)),
)


def make_dataset(
    seed: int, schema: Schema = SCHEMA, num: int = 60, missing: float = 0.2
) -> Dataset:
    """`num` invented patients; `missing` is the share of values not observed."""
    generator = np.random.default_rng(seed)

    def table(shape, features) -> Table:
        numeric, coded = numeric_features(features), coded_features(features)
        codes = [generator.integers(0, f.cardinality, shape) for f in coded]
        return Table(
            generator.normal(80, 9, (*shape, len(numeric))).round(1),
            np.stack(codes, -1) if codes else np.zeros((*shape, 0), int),
            generator.random((*shape, len(features))) >= missing,
        )

    cohort = make_cohort(
        table((num,), schema.static),
        table((num, schema.num_steps), schema.temporal),
        generator.integers(min(schema.num_steps, 2), schema.num_steps + 1, num),
        generator.integers(0, max(schema.num_classes, 1), num),
    )
    ids = np.arange(num)
    return Dataset(schema, cohort, ids, ids, {"source": "invented", "seed": seed})


# name, group, direction, ideal, value, reference, low, high
_ROWS: list[tuple[Any, ...]] = [
    ("mmd", "fidelity", "lower", 0.0, 0.0021, 0.0009, 0.0017, 0.0025),
    ("correlation_mae", "fidelity", "lower", 0.0, 0.0312, 0.0121, 0.027, 0.036),
    ("tvd", "fidelity", "lower", 0.0, 0.0131, 0.0064, None, None),
    ("acf_mse", "temporal", "lower", 0.0, 0.0016, 0.0002, 0.0012, 0.0021),
    ("dtw_multivariate", "temporal", "target", 49.3, 51.2, 49.3, 48.1, 54.3),
    ("transition_distance", "temporal", "lower", 0.0, None, None, None, None),
    ("c2st_logistic", "discriminability", "target", 0.5, 0.53, 0.50, 0.495, 0.565),
    ("c2st_mlp", "discriminability", "target", 0.5, 0.64, 0.502, 0.61, 0.67),
    ("c2st_lstm", "discriminability", "target", 0.5, 0.71, 0.497, 0.68, 0.74),
    ("tstr_bilstm", "utility", "higher", 1.0, 0.712, 0.731, 0.69, 0.73),
    ("tstr_transformer", "utility", "higher", 1.0, 0.704, 0.729, 0.68, 0.73),
    ("tstr_cnnlstm", "utility", "higher", 1.0, 0.698, 0.722, 0.67, 0.72),
    ("tstr_mean", "utility", "higher", 1.0, 0.705, 0.727, 0.69, 0.72),
]
_TITLES = {
    "mmd": "Maximum mean discrepancy",
    "correlation_mae": "Error of correlations",
    "tvd": "Total variation distance",
    "acf_mse": "Error of autocorrelation",
    "dtw_multivariate": "Dynamic time warping distance",
    "transition_distance": "Distance of transitions",
}
REASON = "no coded variable changes over time"
RUN: dict[str, Any] = {
    "model": "cdmt",
    "config": {
        "hidden": 64,
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "sigma_max_embedding": 100.0,
        "rho": 7.0,
        "rho_embedding": 7.0,
        "train": {"steps": 2000, "batch_size": 256, "seed": 0},
    },
    "steps": 2000,
    "seconds": 612.4,
    "machine": "2 CPU cores",
    "sampler": {"solver": "euler", "steps": 50, "seed": 1},
    "losses": [
        {
            "step": 20 * k,
            "loss": 1.6 * 0.97**k + 0.6,
            "valid_loss": 1.5 * 0.97**k + 0.62 if k % 10 == 0 else None,
        }
        for k in range(1, 101)
    ],
}


def results() -> list[Result]:
    """The thirteen metrics of the first evaluation, with invented values."""
    out = []
    for name, group, direction, ideal, *numbers in _ROWS:
        title = _TITLES.get(name, name.replace("_", " ").upper())
        text = f"What {title} measures, in one sentence."
        definition = Definition(title, text, direction, ideal, "[cdmt2026, Sec. 4]")
        reason = REASON if numbers[0] is None else ""
        detail = {"HR": np.float32(0.1), "Temp": float("nan")}
        out.append(Result(name, group, definition, Value(*numbers, reason, detail)))
    return out


VOID = {"meta", "link", "br", "img", "hr", "input"}


class _Page(html.parser.HTMLParser):
    """Checks that tags are balanced; collects ids, references, tables and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        keys = ("href", "src", "xlink:href", "action", "srcset", "data")
        self.references += [given[key] for key in keys if key in given]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parse(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page
