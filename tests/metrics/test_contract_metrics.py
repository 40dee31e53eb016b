"""One contract for all metric families, on one small cohort of every kind of column.

Families are those of the registry; numbers that are left out of a check stand in a
dictionary with the reason. Sets are cached: a set is measured once for all families.
"""

import dataclasses
import functools
import json
import math

import jax
import numpy as np
import pytest
from builders import schema, simulate

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Feature,
    Label,
    Table,
    concatenate,
    make_cohort,
    take,
)
from jaxehr.core.rules import Order
from jaxehr.metrics.augmentation import augmented
from jaxehr.metrics.evaluate import MetricConfig, comparison, run_metrics
from jaxehr.metrics.learners import FOREST
from jaxehr.metrics.utility import pooled_family
from jaxehr.registry import METRICS, find

COUNT, STEPS = 200, 6
CONFIG = MetricConfig(
    seeds=2,
    epochs=3,
    mlp_epochs=3,
    batch_size=64,
    learning_rate=1e-2,
    max_rows=COUNT,
    mmd_rows=COUNT,
    pooled_rows=COUNT,
    draws=2,
    trees=20,
    pairs=100,
    resamples=20,
)
OF_THE_MODEL = ("membership_loss", "membership_shadow")  # see test_model_attacks.py
EVERY = {
    name: find(path)(CONFIG)
    for name, path in METRICS.items()
    if name not in OF_THE_MODEL
}
# Its networks take minutes to compile; a third of the patients leaves it enough
# synthetic ones.
EVERY["augmentation"] = augmented(
    pooled_family("forest", "random forest", FOREST),
    dataclasses.replace(CONFIG, max_rows=COUNT // 3),
)
PRIVACY = [name for name, metric in EVERY.items() if metric.group == "privacy"]
OTHERS = [name for name in EVERY if name not in PRIVACY]
LIKENESS = [
    name
    for name, metric in EVERY.items()
    if metric.group in ("fidelity", "temporal", "missingness")
]
BASE = schema(steps=STEPS)
RARE = 6
CODE = Feature(
    name="code",
    kind="categorical",
    dtype="int64",
    categories=tuple(range(2 + RARE)),
)
LAW = BASE.replace(
    static=(*BASE.static, CODE), rules=(Order(columns=("x0", "x1"), margin=-6),)
)


def patients(seed, count=COUNT, **law):
    """The law of `builders`, values missing more often in the ill, six rare codes."""
    data, rng = (
        simulate(seed, count, BASE, effect=3.0, **law),
        np.random.default_rng(seed),
    )
    cohort = data.cohort
    codes = rng.integers(0, 2, (count, 1))
    codes[:RARE, 0] = 2 + np.arange(RARE)
    static, temporal = cohort.static, cohort.temporal
    ill = 0.3 * cohort.label[:, None, None]
    # No classifier separates the classes, or a calibration slope would be infinite.
    label = np.where(rng.random(count) < 0.1, 1 - cohort.label, cohort.label)
    seen = temporal.observed & (rng.random(temporal.observed.shape) >= ill)
    static = Table(
        static.numeric,
        np.concatenate([static.codes, codes], 1),
        np.concatenate([static.observed, np.ones((count, 1), bool)], 1),
    )
    return with_tables(data, static, temporal._replace(observed=seen), label=label)


def with_tables(data, static, temporal, length=None, label=None):
    cohort = data.cohort
    length = cohort.length if length is None else length
    label = cohort.label if label is None else label
    made = make_cohort(static, temporal, length, label)
    return data._replace(schema=LAW, cohort=made)


def broken(seed):
    """Nothing of the law: noise, no course, other gaps and lengths, no label."""
    data = patients(seed, noise=8.0, scramble=True, missing=0.5)
    rng, cohort = np.random.default_rng(seed), data.cohort
    static = cohort.static._replace(
        numeric=rng.permutation(cohort.static.numeric), codes=cohort.static.codes * 0
    )
    length = np.minimum(cohort.length, 3)
    label = rng.permutation(cohort.label)
    return with_tables(data, static, cohort.temporal, length, label)


def spoiled(share):
    """Fresh patients, the last ones of them replaced by broken ones."""
    bad = int(share * COUNT)
    parts = [take(patients(3), np.arange(COUNT - bad)), take(broken(4), np.arange(bad))]
    ids = np.arange(COUNT) + 9_000_000
    cohort = concatenate([part.cohort for part in parts])
    return parts[0]._replace(cohort=cohort, ids=ids, groups=ids)


def each(change):
    """The three sets with their tables changed."""
    sets = []
    for seed in (1, 3, 2):
        data = patients(seed)
        sets.append(
            with_tables(data, *change(data.cohort.static, data.cohort.temporal))
        )
    return sets


def constant(static, temporal):
    """One number and one coded column of the series, and a static number, are equal."""
    numeric, codes = temporal.numeric.copy(), temporal.codes.copy()
    numeric[..., 0], codes[..., 0] = 3.3, 1
    static = static._replace(numeric=static.numeric * 0 + 50)
    return static, temporal._replace(numeric=numeric, codes=codes)


def unseen(static, temporal):
    """Nobody has these columns."""
    seen, other = static.observed.copy(), temporal.observed.copy()
    seen[:, 0] = other[..., 1] = other[..., 4] = False
    return static._replace(observed=seen), temporal._replace(observed=other)


def flat(static, temporal):
    """Among synthetic patients a number and a coded column of the series are equal."""
    return static, constant(static, temporal)[1]


def empty(static, temporal):
    """Nobody has anything but the code."""
    seen = np.zeros_like(static.observed)
    seen[:, -1] = True
    nothing = np.zeros_like(temporal.observed)
    return static._replace(observed=seen), temporal._replace(observed=nothing)


def one_class(data, code=0):
    static, temporal = data.cohort[:2]
    return with_tables(data, static, temporal, label=data.cohort.label * 0 + code)


def shuffled(data):
    order = np.random.default_rng(0).permutation(COUNT)
    ids = np.arange(COUNT) + 8_000_000
    return take(data, order)._replace(ids=ids, groups=ids)


SETS = {
    "fresh": lambda: (patients(1), patients(3), patients(2)),
    "again": lambda: (patients(1), patients(3), patients(2)),
    "mixed up": lambda: (patients(1), shuffled(patients(3)), patients(2)),
    "a third": lambda: (patients(1), spoiled(0.33), patients(2)),
    "two thirds": lambda: (patients(1), spoiled(0.67), patients(2)),
    "broken": lambda: (patients(1), spoiled(1.0), patients(2)),
    "copy": lambda: (patients(1), patients(1), patients(2)),
    "few": lambda: (patients(1), patients(3, 49), patients(2)),
    "one class": lambda: tuple(map(one_class, map(patients, (1, 3, 2)))),
    "one class made": lambda: (patients(1), one_class(patients(3)), patients(2)),
    "constant": lambda: each(constant),
    "unseen": lambda: each(unseen),
    "unseen made": lambda: (patients(1), each(unseen)[1], patients(2)),
    "flat made": lambda: (patients(1), each(flat)[1], patients(2)),
    "empty made": lambda: (patients(1), each(empty)[1], patients(2)),
}


@functools.cache
def measured(kind, seed=0):
    real, synthetic, held = SETS[kind]()
    ours = synthetic._replace(provenance={"kind": "synthetic"})
    results = run_metrics(jax.random.key(seed), comparison(real, ours, held), EVERY)
    return {result.name: result for result in results}


def numbers(kind, family, seed=0):
    found = measured(kind, seed)
    return {name: found[name].value for name in EVERY[family].names}


def badness(name, value):
    """How far on the bad side; the reference is the ideal where there is none."""
    definition = measured("fresh")[name].definition
    ideal = value.reference if definition.ideal is None else definition.ideal
    if definition.direction == "lower":
        return value.value - ideal
    return (
        ideal - value.value
        if definition.direction == "higher"
        else abs(value.value - ideal)
    )


@pytest.mark.parametrize("family", EVERY)
def test_the_same_key_gives_the_same_numbers(family):
    assert numbers("fresh", family) == numbers("again", family)


def test_another_key_may_change_numbers_but_no_reason():
    one, other = measured("fresh"), measured("fresh", seed=1)
    assert [r.value.reason for r in one.values()] == [""] * len(other)
    assert [r.value.reason for r in other.values()] == [""] * len(other)
    assert any(one[name].value != other[name].value for name in one)


@pytest.mark.parametrize("family", EVERY)
def test_the_order_of_patients_plays_no_part(family):
    assert numbers("fresh", family) == numbers("mixed up", family)


@pytest.mark.parametrize("family", EVERY)
def test_fresh_patients_are_near_the_reference(family):
    far = numbers("broken", family)
    for name, value in numbers("fresh", family).items():
        slack = 0.2 * abs(far[name].value - value.reference)
        if value.low is not None:
            slack = max(slack, 1.5 * (value.high - value.low))
        assert abs(value.value - value.reference) <= slack, (name, value)


@pytest.mark.parametrize("family", OTHERS)
def test_broken_patients_are_seen(family):
    seen = []
    for name, value in numbers("broken", family).items():
        low = value.value if value.low is None else value.low
        high = value.value if value.high is None else value.high
        worse = badness(name, value) > badness(
            name, value._replace(value=value.reference)
        )
        seen.append(worse and not low <= value.reference <= high)
    assert any(seen), numbers("broken", family)


@pytest.mark.parametrize("family", PRIVACY)
def test_copies_are_caught(family):
    caught = []
    for value in numbers("copy", family).values():
        ends = value.detail["reference_interval"]
        caught.append(value.low > ends[1] or value.high < ends[0])
    assert any(caught), numbers("copy", family)


# Numbers that do not get worse with every patient that is broken
UNEVEN = {"recall": "a broken patient lies far out, and its neighbourhood is wide"}


@pytest.mark.parametrize("family", LIKENESS)
def test_the_more_is_broken_the_worse(family):
    kinds = ("fresh", "a third", "two thirds", "broken")
    found = [numbers(kind, family) for kind in kinds]
    for name in found[0]:
        levels = [badness(name, side[name]) for side in found]
        noise = 0.05 * (levels[-1] - levels[0])  # of 200 patients
        assert noise > 0, (name, levels)
        if name not in UNEVEN:
            assert np.diff(levels).min() > -noise, (name, levels)


# Real patients may separate the classes where synthetic ones do not.
NO_REFERENCE = ("_slope",)


@pytest.mark.parametrize("family", EVERY)
def test_a_number_or_a_reason_never_neither(family):
    for kind in SETS:
        for name, value in numbers(kind, family).items():
            json.dumps(value._asdict(), allow_nan=False)
            if value.value is None:
                assert value.reason, (kind, name)
                assert "\n" not in value.reason
                assert value.low is value.high is value.reference is None
                continue
            assert not value.reason, (kind, name)
            assert math.isfinite(value.value), (kind, name)
            if value.reference is None:
                assert name.endswith(NO_REFERENCE), (kind, name)
            else:
                assert math.isfinite(value.reference), (kind, name)
            assert (value.low is None) == (value.high is None)
            if value.low is not None:
                assert value.low <= value.value <= value.high, (kind, name)


@pytest.mark.parametrize("family", EVERY)
def test_definitions_are_complete(family):
    for name, result in EVERY[family].names.items():
        assert result.title
        assert result.text.endswith("."), name
        assert result.direction in ("lower", "higher", "target"), name
        assert result.ideal is None or math.isfinite(result.ideal)


@pytest.mark.parametrize("family", EVERY)
def test_fewer_than_fifty_patients_give_the_reason(family):
    for value in numbers("few", family).values():
        assert value.reason == "fewer than 50 patients in one of the data sets (49)"


LABELLED = (
    *("mask_auroc", "tstr", "utility_forest", "utility_logistic"),
    "augmentation",
)


@pytest.mark.parametrize("family", EVERY)
def test_one_class_concerns_those_who_use_the_label(family):
    for kind, where in (("one class", "training"), ("one class made", "synthetic")):
        for name, value in numbers(kind, family).items():
            if family in LABELLED:
                assert value.reason == f"one class only in the {where} data", name
            else:
                assert value.value is not None, (name, value.reason)


# Of what synthetic patients lack these families cannot or need not tell
BLIND = {
    "rare_categories": "the rare values are there",
    "rules": "who has no value breaks no rule",
    "length_of_stay": "the lengths are those of fresh patients",
}


@pytest.mark.parametrize("kind", ["unseen made", "flat made", "empty made"])
@pytest.mark.parametrize("family", LIKENESS)
def test_a_column_that_synthetic_patients_lack_never_helps(family, kind):
    """It makes the numbers worse, or is named as left out, or nothing is left."""
    fresh = numbers("fresh", family)
    for name, value in numbers(kind, family).items():
        if value.value is None or "left_out" in (value.detail or {}):
            continue
        far = badness(name, numbers("broken", family)[name])
        near = badness(name, fresh[name])
        slack = 0.15 * (far - near)
        assert family in BLIND or badness(name, value) > near - slack, name


def change(data, **parts):
    return data._replace(schema=data.schema.replace(**parts))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"static": LAW.static[1:]}, "static column 'sex' only in real"),
        ({"temporal": LAW.temporal[::-1]}, "temporal columns are in another order"),
        ({"label": None}, "label: 'died' with classes .* against None"),
        ({"label": Label(name="died", classes=("0", "1"))}, r"classes \['0', '1'\]"),
    ],
)
def test_other_columns_are_refused_for_all_families(parts, message):
    with pytest.raises(InputError, match=message):
        comparison(patients(1), change(patients(3), rules=(), **parts), patients(2))


@pytest.mark.parametrize("family", OF_THE_MODEL)
def test_attacks_on_the_model_say_that_none_was_given(family):
    sets = comparison(patients(1), patients(3), patients(2))
    metric = find(METRICS[family])(CONFIG)
    results = run_metrics(jax.random.key(0), sets, {family: metric})
    assert {r.value.reason for r in results} == {"no model was given"}
    assert {r.value.value for r in results} == {None}


def test_every_number_has_one_name():
    names = [name for metric in EVERY.values() for name in metric.names]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("family", EVERY)
def test_what_is_defined(family):
    """All of a sound cohort; something of one with constant or empty columns."""
    for name, value in numbers("fresh", family).items():
        assert value.value is not None, (name, value.reason)
    for kind in ("constant", "unseen", "unseen made"):
        assert any(v.value is not None for v in numbers(kind, family).values()), kind
