"""Comparison and the run of all metrics: refusals, determinism, independence."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from builders import schema, simulate, sparse_pair

from jaxehr.api import evaluate
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Feature,
    Label,
    concatenate,
    empty_table,
    make_cohort,
    take,
)
from jaxehr.core.sparse import SparseTable
from jaxehr.metrics.dimensions import dimensions
from jaxehr.metrics.evaluate import MetricConfig, comparison, name_key, run_metrics
from jaxehr.metrics.fidelity import correlation, tvd
from jaxehr.metrics.mmd import mmd
from jaxehr.metrics.temporal import acf, dtw, transition

KEY = jax.random.key(0)
SMALL = MetricConfig(mmd_rows=60, draws=2, resamples=5, pairs=50)
METRICS = {
    "mmd": mmd(SMALL),
    "correlation": correlation(SMALL),
    "tvd": tvd(SMALL),
    "acf": acf(SMALL),
    "dtw": dtw(SMALL),
    "transition": transition(SMALL),
}


def renamed(data, **changes):
    return data._replace(schema=data.schema.replace(**changes))


def test_without_a_hold_out_one_is_split_off_by_person():
    real = simulate(1)
    found = comparison(real, simulate(3), holdout_fraction=0.25)
    assert not np.intersect1d(found.train.groups, found.holdout.groups).size
    both = np.concatenate([found.train.ids, found.holdout.ids])
    np.testing.assert_array_equal(np.sort(both), np.sort(real.ids))
    assert 0.15 < len(found.holdout.ids) / 400 < 0.35


def test_no_number_depends_on_order_or_ids():
    real, synthetic, held = simulate(1), simulate(3, noise=1.0), simulate(2)
    rng = np.random.default_rng(0)

    def mixed(data):
        data = take(data, rng.permutation(400))
        return data._replace(ids=np.arange(400), groups=data.groups)

    one = run_metrics(KEY, comparison(real, synthetic, held), METRICS)
    other = run_metrics(
        KEY, comparison(mixed(real), mixed(synthetic), mixed(held)), METRICS
    )
    assert [(r.name, r.value) for r in one] == [(r.name, r.value) for r in other]


def test_a_metric_does_not_depend_on_its_neighbours_but_on_the_key():
    compared = comparison(simulate(1), simulate(3, noise=1.0), simulate(2))
    every = {r.name: r.value for r in run_metrics(KEY, compared, METRICS)}
    alone = run_metrics(KEY, compared, {"mmd": METRICS["mmd"]})
    assert all(every[r.name] == r.value for r in alone)
    other = run_metrics(jax.random.key(1), compared, {"mmd": METRICS["mmd"]})
    assert all(every[r.name] != r.value for r in other)


def test_results_are_complete_and_fit_into_json():
    compared = comparison(simulate(1), simulate(3), simulate(2))
    calls = []
    results = run_metrics(
        KEY, compared, METRICS, progress=lambda *call: calls.append(call)
    )
    assert [call[1:] for call in calls] == [(i, 6) for i in range(7)]
    names = [r.name for r in results]
    assert len(set(names)) == len(names) == 9
    for result in results:
        text = json.dumps(result.value._asdict(), allow_nan=False)
        assert json.loads(text)["reason"] == ""
        json.dumps(result.definition._asdict(), allow_nan=False)
        assert result.definition.direction in ("lower", "higher", "target")
        value = result.value
        assert value.low is None or value.low <= value.value <= value.high


def test_name_keys_are_stable():
    data = jax.random.key_data(name_key(KEY, "mmd"))
    np.testing.assert_array_equal(data, jax.random.key_data(name_key(KEY, "mmd")))
    assert (data != jax.random.key_data(name_key(KEY, "dtw"))).any()


def test_people_on_both_sides_give_a_warning():
    real = simulate(1)
    with pytest.warns(UserWarning, match="400 patient"):
        comparison(real, simulate(3), real)


def test_equal_patients_under_another_id_give_a_warning():
    real, held = simulate(1, missing=0.0), simulate(2)
    join = lambda x, y: np.concatenate([x[:20], y])
    ids = np.arange(420) + 5_000_000
    both = concatenate([take(real, np.arange(20)).cohort, held.cohort])
    mixed = held._replace(cohort=both, ids=ids, groups=ids)
    text = r"20 of 420 hold-out patients equal .* \(0 of 400 training patients equal"
    with pytest.warns(UserWarning, match=text):
        comparison(real, simulate(3), mixed)
    found = evaluate(real, simulate(3), mixed, metrics=["dimensions"])
    assert [note[:24] for note in found.notes] == ["20 of 420 hold-out patie"]
    named = mixed._replace(ids=join(real.ids, held.ids))
    with pytest.warns(UserWarning, match=r"20 patient.*hold-out data; the") as told:
        comparison(real, simulate(3), named._replace(groups=named.ids))
    assert len(told) == 1  # the same people are told once


def test_patients_of_few_coarse_columns_are_equal_by_chance(recwarn):
    law = schema(steps=0, numeric=0, coded=False)
    law = law.replace(static=law.static[:1])

    def coarse(seed):
        cohort = simulate(seed).cohort
        static = cohort.static._replace(
            numeric=np.zeros((400, 0)), observed=cohort.static.observed[:, 1:]
        )
        nothing = empty_table((400, 0), ())
        made = make_cohort(static, nothing, np.zeros(400), cohort.label)
        return simulate(seed)._replace(schema=law, cohort=made)

    comparison(*map(coarse, (1, 3, 2)))
    assert not recwarn.list


def test_patients_without_values_are_nobody_in_particular(recwarn):
    real, held = (simulate(i, missing=1.0) for i in (1, 2))
    comparison(real, simulate(3), held)
    sparse = [sparse_pair(i)[0] for i in (1, 3, 2)]
    comparison(*sparse)
    assert not recwarn.list


def test_synthetic_patients_with_the_id_of_a_real_one_give_a_warning(recwarn):
    real, held, made = simulate(1), simulate(2), simulate(3)
    ids = np.where(np.arange(400) < 7, held.ids, made.ids)
    with pytest.warns(UserWarning, match="7 of 400 .* the id of a real one; make"):
        comparison(real, made._replace(ids=ids), held)
    ours = made._replace(ids=ids, provenance={"kind": "synthetic"})
    recwarn.clear()
    comparison(real, ours, held)  # numbered from 1 by `jaxehr sample`
    assert not recwarn.list


def feature(law, column, **changes):
    part = tuple(
        dataclasses.replace(f, **changes) if f.name == column else f
        for f in law.temporal
    )
    return {"temporal": part}


LAW = schema()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (feature(LAW, "x1", name="y"), "temporal column 'x1' only in real"),
        ({"temporal": LAW.temporal[::-1]}, "temporal columns are in another order"),
        ({"static": ()}, "static column 'sex' only in real"),
        (feature(LAW, "x1", kind="integer"), "'x1': kind 'numeric' against 'integer'"),
        (
            feature(LAW, "on", categories=(1, 2)),
            r"'on': categories .* against \(1, 2\)",
        ),
        ({"num_steps": 9}, "num_steps: 8 against 9"),
        ({"step": 2.0}, "step: 1.0 against 2.0"),
        ({"label": None}, "label: .* against None"),
        ({"label": Label(name="died", classes=(1, 0))}, r"with classes \[1, 0\]"),
    ],
)
def test_other_columns_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        comparison(simulate(1), renamed(simulate(3), **changes), simulate(2))


def test_the_hold_out_is_checked_too():
    held = renamed(simulate(2), static=(Feature(name="z", kind="numeric"),))
    with pytest.raises(
        InputError, match="schemas of real and hold-out differ: static column"
    ):
        comparison(simulate(1), simulate(3), held)


def test_empty_data_are_refused():
    nobody = take(simulate(3), np.zeros(400, bool))
    with pytest.raises(InputError, match="the synthetic data hold no patient"):
        comparison(simulate(1), nobody, simulate(2))


def test_config_is_checked():
    with pytest.raises(InputError, match="seeds must be positive, got 0"):
        MetricConfig(seeds=0)
    with pytest.raises(InputError, match="max_rows must not be negative, got -1"):
        MetricConfig(max_rows=-1)
    with pytest.raises(InputError, match="shadow_steps must not be negative, got -2"):
        MetricConfig(shadow_steps=-2)
    with pytest.raises(InputError, match="augment must not be negative"):
        MetricConfig(augment=-0.5)
    for count in (6, 9):
        text = f"shadows must be an even number of at least 8, got {count}"
        with pytest.raises(InputError, match=text):
            MetricConfig(shadows=count)


def test_sparse_tables_give_the_numbers_of_dense_ones(monkeypatch):
    """Metrics that take no sparse table see a dense one; above the limit, a reason."""
    pairs = [sparse_pair(i) for i in (1, 3, 2)]
    metrics = {"tvd": tvd(SMALL), "dimensions": dimensions(SMALL)}
    found = [
        {r.name: r for r in run_metrics(KEY, comparison(*side), metrics)}
        for side in zip(*pairs, strict=True)
    ]
    assert found[0]["tvd"].value.value > 0
    for name in found[0]:
        a, b = (side[name].value for side in found)
        np.testing.assert_allclose(a.reference, b.reference, rtol=1e-6)
        np.testing.assert_allclose(a.value, b.value, rtol=1e-6)
    monkeypatch.setattr("jaxehr.core.sparse.MOST_BYTES", 1000)
    results = run_metrics(KEY, comparison(*[pair[0] for pair in pairs]), metrics)
    values = {r.name: r.value for r in results}
    assert "takes no sparse table, and the sparse table of 80" in values["tvd"].reason
    assert values["dimension_rmse"].value is not None


def test_the_order_of_patients_in_a_sparse_table_plays_no_part():
    real, synthetic, held = (sparse_pair(i)[0] for i in (1, 3, 2))
    mixed = take(synthetic, np.random.default_rng(0).permutation(80))
    one, other = (comparison(real, data, held).synthetic for data in (synthetic, mixed))
    for a, b in zip(one.cohort.temporal[:3], other.cohort.temporal[:3], strict=True):
        np.testing.assert_array_equal(a, b)


def test_sparse_real_and_dense_synthetic_patients_are_compared():
    sparse, dense = sparse_pair(1)
    alike = comparison(dense, dense, dense)
    mixed = comparison(sparse, dense, sparse)
    for part in mixed:
        assert not isinstance(part.cohort.temporal, SparseTable)
    run = lambda pair: tvd(SMALL).run(KEY, pair)["tvd"].value
    assert run(mixed) == run(alike)
