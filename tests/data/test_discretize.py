"""FIDDLE's binary form of a cohort: by hand, invariances, and the training share."""

import contextlib
import json

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from strategies import datasets

from jaxehr.api import evaluate
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Label,
    Schema,
    Table,
    empty_table,
    make_cohort,
    take,
)
from jaxehr.core.sparse import SparseTable, density
from jaxehr.data.discretize import (
    DiscretizeOptions,
    apply,
    delta_time,
    discretize,
    edge_texts,
    fit,
    rule_of,
)
from jaxehr.data.physionet2012 import Physionet2012Options
from jaxehr.data.physionet2012 import read as read_2012
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.data.split import split
from jaxehr.data.store import load_cohort, save_cohort
from jaxehr.runs.identity import fingerprint
from jaxehr.runs.training import to_learn_from

ALL = DiscretizeOptions(holdout_fraction=0.0)
NAN = np.nan


def table(numeric, codes):
    """A Table of values with NaN, and codes with -1, where nothing was observed."""
    numeric, codes = np.asarray(numeric, float), np.asarray(codes, int)
    seen = np.concatenate([np.isfinite(numeric), codes >= 0], -1)
    return Table(np.nan_to_num(numeric), codes.clip(0), seen)


def five():
    """The fourth of five patients lacks the static part, the fifth the temporal one."""
    schema = Schema(
        static=(
            Feature(name="age", kind="integer"),
            Feature(name="sex", kind="binary", dtype="string", categories=("F", "M")),
        ),
        temporal=(
            Feature(name="hr", kind="numeric"),
            Feature(name="gcs", kind="integer"),
            Feature(name="vent", kind="constant", dtype="int8", categories=(1,)),
        ),
        num_steps=3,
        label=Label(name="died", classes=(0, 1)),
    )
    static = table(
        [[50], [33], [40], [NAN], [41]],
        [[1], [1], [0], [-1], [-1]],
    )
    hr = [[60, 70, NAN], [NAN, 80, 90], [100, NAN, NAN], [NAN, NAN, NAN], [1, 1, 1]]
    gcs = [[3, 15, 3], [NAN, NAN, 15], [3, NAN, NAN], [NAN, NAN, NAN], [8, 8, 8]]
    vent = [[-1, 0, 0], [-1, -1, -1], [-1, -1, -1], [-1, 0, -1], [0, 0, 0]]
    temporal = table(np.stack([hr, gcs], -1), np.array(vent)[..., None])
    length = np.array([3, 3, 2, 3, 0])
    cohort = make_cohort(static, temporal, length, np.array([0, 1, 0, 1, 0]))
    ids = np.arange(5)
    return Dataset(schema, cohort, ids, ids, {"source": "five"})


def static_only():
    data = five()
    empty = empty_table((5, 3), ())
    cohort = make_cohort(data.cohort.static, empty, np.zeros(5), data.cohort.label)
    return data._replace(cohort=cohort, schema=data.schema.replace(temporal=()))


def column(data, name):
    names = [f.name for f in data.schema.temporal]
    return data.cohort.temporal.codes[..., names.index(name)].tolist()


def test_five_patients_by_hand():
    data = discretize(five(), ALL)
    # quantiles 0, 20, ... 100 % of 33, 40, 41, 50 (nobody in the third fifth) and of
    # 60, 70, 80, 90, 100
    assert [f.name for f in data.schema.static] == [
        "age_value_(32.999, 37.2]",
        "age_value_(37.2, 40.2]",
        "age_value_(40.8, 44.6]",
        "age_value_(44.6, 50.0]",
        "sex_value_M",
    ]
    assert data.cohort.static.codes.tolist() == [
        [0, 0, 0, 1, 1],
        [1, 0, 0, 0, 1],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0],
    ]
    assert data.cohort.static.observed.all(1).tolist() == [True] * 3 + [False, True]
    # sex F is the second age bin: it is the third patient only
    aliases = data.provenance["discretize"]["static"]["aliases"]
    assert aliases == {"age_value_(37.2, 40.2]": ["sex_value_F"]}
    assert [f.name for f in data.schema.temporal] == [
        "hr_value_(59.999, 68.0]",
        "hr_value_(68.0, 76.0]",
        "hr_value_(76.0, 84.0]",
        "hr_value_(84.0, 92.0]",
        "hr_value_(92.0, 100.0]",
        "hr_mask",
        "hr_delta_time_0",
        "gcs_value_3",
        "gcs_value_15",
        "gcs_mask",
        "gcs_delta_time_0",
        "vent_value_1",
        "vent_delta_time_0",
    ]
    rest = [0, 0, 0]
    assert column(data, "hr_mask") == [[1, 1, 0], [0, 1, 1], [1, 0, 0], rest, rest]
    assert column(data, "hr_value_(76.0, 84.0]") == [rest, [0, 1, 0], rest, rest, rest]
    assert column(data, "gcs_value_3") == [[1, 0, 1], rest, [1, 0, 0], rest, rest]
    # steps since the last value; 0 at a value and before the first; not at padding
    ones = [1, 1, 1]
    assert column(data, "hr_delta_time_0") == [
        [1, 1, 0],
        ones,
        [1, 0, 0],
        ones,
        rest,
    ]
    assert column(data, "vent_value_1") == [[0, 1, 1], rest, rest, [0, 1, 0], rest]
    aliases = data.provenance["discretize"]["temporal"]["aliases"]
    assert aliases["hr_delta_time_0"] == ["~{hr_delta_time_1}"]
    assert aliases["vent_value_1"] == ["vent_mask"]
    assert "vent_delta_time_0" in aliases
    assert data.cohort.length.tolist() == [3, 3, 2, 3, 0]
    assert data.cohort.has_static.tolist() == [True, True, True, False, True]
    assert data.cohort.label.tolist() == [0, 1, 0, 1, 0]
    assert data.schema.label == five().schema.label


def test_delta_time_by_hand():
    seen = np.array([[0, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]], bool)
    assert delta_time(seen).tolist() == [[0, 0, 0, 1, 2, 0, 1], [0, 1, 2, 3, 4, 5, 6]]


def test_the_edges_of_fiddle_itself(data_dir):
    """small_test: the ages 50, 33, 40 give the edges that FIDDLE wrote."""
    data = five()
    ages = Table(np.array([[50.0], [33], [40]]), np.zeros((3, 0), int), None)
    ages = ages._replace(observed=np.ones((3, 1), bool))
    schema = Schema(static=(Feature(name="AGE", kind="numeric"),))
    cohort = take(data, np.arange(3)).cohort
    cohort = make_cohort(ages, empty_table((3, 0), ()), np.zeros(3), cohort.label)
    found = fit(Dataset(schema, cohort, np.arange(3), np.arange(3), {}), ALL)
    folder = data_dir / "fiddle-example" / "small_test" / "output-2"
    wanted = json.loads((folder / "S_all.discretization.json").read_text())
    edges = found["static"]["columns"]["AGE"]["edges"]
    np.testing.assert_allclose(edges, wanted["AGE_value"], rtol=1e-12)
    names = json.loads((folder / "S.feature_names.json").read_text())
    assert found["static"]["kept"] == [n for n in names if n.startswith("AGE")]


def test_edges_that_are_close_get_more_decimals():
    assert edge_texts([0.0, 1.0, 2.0]) == ["-0.001", "1.0", "2.0"]
    assert edge_texts([0.1, 0.10001, 2.0]) == ["0.09999", "0.10001", "2.0"]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(datasets())
def test_bins_are_a_partition_of_the_observed_cells(data):
    """Every observed cell is in one bin of its column, a missing one in none."""
    options = DiscretizeOptions(holdout_fraction=0.0, rarest=0.0)
    rule = fit(data, options)
    if not rule["static"]["kept"] and not rule["temporal"]["kept"]:
        with pytest.raises(InputError, match="no column is left"):
            apply(rule, data)
        return
    made = apply(json.loads(json.dumps(rule)), data)
    for part in ("static", "temporal"):
        features = getattr(made.schema, part)
        codes = np.asarray(getattr(made.cohort, part).codes)
        assert set(np.unique(codes)) <= {0, 1}
        for feature in getattr(data.schema, part):
            starts = tuple(f"{feature.name}_value_{end}" for end in ("(", ""))
            mine = [i for i, f in enumerate(features) if f.name.startswith(starts)]
            others = [f for f in getattr(data.schema, part) if f.name != feature.name]
            if not any(f"{f.name}_value_".startswith(starts[1]) for f in others):
                assert codes[..., mine].sum(-1).max(initial=0) <= 1
    steps = data.cohort.length if rule["temporal"]["kept"] else 0 * data.cohort.length
    np.testing.assert_array_equal(made.cohort.length, steps)
    np.testing.assert_array_equal(made.cohort.label, data.cohort.label)


def test_nothing_is_fitted_on_those_held_out():
    data = simulate(SimulateOptions(n=200, steps=4, numeric=2))
    train, held = split(data, 0.2)
    rule = fit(data)
    assert rule["fitted_on"] == len(train.ids)
    assert fit(train, ALL)["static"] == rule["static"]
    assert fit(train, ALL)["temporal"] == rule["temporal"]
    whole = apply(rule, data)
    rows = np.flatnonzero(np.isin(data.ids, held.ids))
    parts = apply(rule, held).cohort
    jax.tree.map(np.testing.assert_array_equal, take(whole, rows).cohort, parts)


def test_values_beyond_the_edges_go_to_the_outer_bins():
    data = five()
    rule = fit(data, ALL)
    numeric = data.cohort.temporal.numeric.copy()
    numeric[0, :2, 0] = [-1000.0, 1000.0]
    temporal = data.cohort.temporal._replace(numeric=numeric)
    made = apply(rule, data._replace(cohort=data.cohort._replace(temporal=temporal)))
    assert column(made, "hr_value_(59.999, 68.0]")[0] == [1, 0, 0]
    assert column(made, "hr_value_(92.0, 100.0]")[0] == [0, 1, 0]


def test_rare_columns_are_dropped():
    """One patient of 100 has the value: kept below 1 %, dropped at it."""
    codes = np.zeros((100, 1), int)
    codes[7] = 1
    codes[:30] += 1
    feature = Feature(name="x", kind="categorical", dtype="int8", categories=(0, 1, 2))
    static = Table(np.zeros((100, 0)), codes, np.ones((100, 1), bool))
    empty = empty_table((100, 0), ())
    cohort = make_cohort(static, empty, np.zeros(100), np.zeros(100))
    ids = np.arange(100)
    data = Dataset(Schema(static=(feature,)), cohort, ids, ids, {})
    for rarest, names in ((0.009, ["0", "1", "2"]), (0.01, ["0", "1"])):
        found = fit(data, DiscretizeOptions(holdout_fraction=0.0, rarest=rarest))
        kept = [name.removeprefix("x_value_") for name in found["static"]["kept"]]
        assert kept == names


def test_a_static_cohort_keeps_an_empty_temporal_table(tmp_path):
    made = discretize(static_only(), ALL)
    assert isinstance(made.cohort.temporal, Table)
    assert made.schema.num_steps == 0  # `cdmt` would look for series in them
    assert made.cohort.temporal.observed.shape == (5, 0, 0)
    save_cohort(made, tmp_path / "cohort")
    assert load_cohort(tmp_path / "cohort").schema == made.schema


def test_a_discretised_cohort_is_read_back_and_gives_its_rule(tmp_path):
    made = discretize(five(), ALL)
    save_cohort(made, tmp_path / "cohort")
    again = load_cohort(tmp_path / "cohort")
    jax.tree.map(np.testing.assert_array_equal, again.cohort, made.cohort)
    other = apply(rule_of(again, "cohort"), five())
    jax.tree.map(np.testing.assert_array_equal, other.cohort, made.cohort)
    with pytest.raises(InputError, match="there: was not made with --discretize"):
        rule_of(five(), "there")


def test_whom_training_holds_out_has_chosen_nothing():
    data = simulate(SimulateOptions(n=120, steps=3, numeric=1))
    made = discretize(data, DiscretizeOptions(holdout_fraction=0.1))
    learn, judge = to_learn_from(made, 0.1, {}, 0)
    assert len(learn.ids) + len(judge.ids) == made.provenance["discretize"]["fitted_on"]
    text = r"--discretize-holdout 0.1, so also by people of a hold-out of 0.2; prepare"
    with pytest.raises(InputError, match=text):
        to_learn_from(made, 0.2, {}, 0)
    to_learn_from(data, 0.2, {}, 0)
    others = data._replace(groups=np.asarray(data.groups) + len(data.groups))
    for people in (others, data):  # nobody of the others chose anything
        applied = apply(rule_of(made, "made"), people)
        with (
            contextlib.nullcontext()
            if people is others
            else pytest.raises(InputError, match=text)
        ):
            to_learn_from(applied, 0.2, {}, 0)
    run = {"cohort": fingerprint(made), "holdout_fraction": 0.2}
    drawn = made._replace(provenance={"kind": "synthetic", "run": run})
    with pytest.raises(InputError, match=text):
        evaluate(made, drawn, metrics=["dimensions"])


def test_refusals():
    made = discretize(five(), ALL)
    for call in (lambda: fit(made, ALL), lambda: apply(fit(five(), ALL), made)):
        with pytest.raises(InputError, match="discretize: the cohort is binary alrea"):
            call()
    lacking = five().schema.static[1:]
    other = five()._replace(schema=five().schema.replace(static=lacking))
    with pytest.raises(InputError, match=r"1 static column\(s\) of the rule .* 'age'"):
        apply(fit(five(), ALL), other)
    twin = take(static_only(), np.array([0, 0]))
    with pytest.raises(InputError, match="no column is left; every one"):
        discretize(twin, ALL)
    for wrong, message in (
        ({"bins": 0}, "bins must be positive, got 0"),
        ({"rarest": 0.6}, r"rarest must lie in \[0.0, 0.5\], got 0.6"),
        ({"holdout_fraction": 1.0}, r"holdout_fraction must lie in \[0.0, 0.99\]"),
    ):
        with pytest.raises(InputError, match=message):
            DiscretizeOptions(**wrong)


def test_challenge_2012_takes_the_form_of_fiddle(data_dir, tmp_path):
    stays = data_dir / "physionet2012" / "set-a.tar.xz"
    data = read_2012([stays], Physionet2012Options(hours=12))
    made = discretize(data)
    assert isinstance(made.cohort.temporal, SparseTable)
    names = [f.name for f in made.schema.temporal]
    assert 200 < len(names) < 400
    assert 0.05 < density(made.cohort.temporal) < 0.3
    mask = names.index("HR_mask")
    order = [f.name for f in data.schema.temporal if f.is_numeric]
    np.testing.assert_array_equal(
        made.cohort.temporal.codes[..., mask] == 1,
        data.cohort.temporal.observed[..., order.index("HR")],
    )
    bins = [i for i, name in enumerate(names) if name.startswith("HR_value_")]
    assert len(bins) == 5
    shares = made.cohort.temporal.codes[..., bins].mean((0, 1))
    assert shares.min() > 0.7 * shares.max()  # fifths of the training share
