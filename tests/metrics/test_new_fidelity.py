"""What all metrics of fidelity and missingness owe: both ends, monotone, any order."""

import jax
import numpy as np
import pytest
from builders import schema, simulate, sparse_pair

from jaxehr.core.cohort import Feature, concatenate, make_cohort, take
from jaxehr.metrics.coverage import prdc, rare_categories
from jaxehr.metrics.durations import durations, first_event, length_of_stay
from jaxehr.metrics.evaluate import MetricConfig, comparison, run_metrics
from jaxehr.metrics.fidelity import spearman
from jaxehr.metrics.lagged import lag_correlation
from jaxehr.metrics.marginals import ks, tails, wasserstein
from jaxehr.metrics.missingness import co_missing, mask_auroc, missing_rate

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=30)
FACTORIES = [
    ks,
    wasserstein,
    tails,
    spearman,
    lag_correlation,
    length_of_stay,
    durations,
    first_event,
    prdc,
    missing_rate,
    co_missing,
]
METRICS = {f.__name__: f(SMALL) for f in FACTORIES}
OTHERS = {"rare": rare_categories(SMALL), "mask": mask_auroc(SMALL)}
COUNT = 400


def shortened(data):
    """Stays of at most three steps."""
    cohort = data.cohort
    length = np.minimum(cohort.length, 3)
    cohort = make_cohort(cohort.static, cohort.temporal, length, cohort.label)
    return data._replace(cohort=cohort)


def mixed(share):
    """Patients of the law, and a share of patients that have nothing of it."""
    law, bad = simulate(3, COUNT), int(share * COUNT)
    noise = shortened(simulate(4, COUNT, noise=8.0, scramble=True, missing=0.5))
    parts = [take(law, np.arange(COUNT - bad)), take(noise, np.arange(bad))]
    cohort = concatenate([part.cohort for part in parts])
    ids = np.arange(COUNT)
    return law._replace(cohort=cohort, ids=ids, groups=ids)


def run(synthetic, metrics=METRICS):
    compared = comparison(simulate(1, COUNT), synthetic, simulate(2, COUNT))
    return {r.name: r for r in run_metrics(KEY, compared, metrics)}


def badness(result):
    return abs(result.value.value - result.definition.ideal)


def test_a_copy_is_ideal_and_noise_is_not():
    copy, half, noise = run(simulate(2, COUNT)), run(mixed(0.5)), run(mixed(1.0))
    assert len(copy) == 20
    for name in copy:
        levels = [badness(side[name]) for side in (copy, half, noise)]
        if name == "density":  # every x is in its own ball too: (k + 1) / k
            np.testing.assert_allclose(levels[0], 0.2)
        else:
            assert levels[0] < 1e-9, name
            assert levels == sorted(levels), name
        end = noise[name].value
        if name == "recall":  # rests on few far-out patients: a wide interval
            continue
        assert not end.low <= end.reference <= end.high, name


def test_fresh_patients_are_as_good_as_the_reference():
    found = run(mixed(0.0)).values()
    inside = [r.value.low <= r.value.reference <= r.value.high for r in found]
    assert np.mean(inside) > 0.8  # at 95 % each, and numbers of one metric go together
    for result in found:
        value = result.value
        assert value.low <= value.value <= value.high
        assert (
            badness(result) < 5 * abs(value.reference - result.definition.ideal) + 0.1
        )


def test_no_number_depends_on_the_order_of_patients():
    rng = np.random.default_rng(0)
    synthetic = mixed(0.3)
    one, other = run(synthetic), run(take(synthetic, rng.permutation(COUNT)))
    assert [r.value for r in one.values()] == [r.value for r in other.values()]


def test_sparse_tables_give_the_numbers_of_dense_ones(monkeypatch):
    pairs = [sparse_pair(i, 200) for i in (1, 3, 2)]
    metrics = METRICS | OTHERS
    sides = [comparison(*side) for side in zip(*pairs, strict=True)]
    found = [{r.name: r.value for r in run_metrics(KEY, s, metrics)} for s in sides]
    for name, value in found[0].items():
        assert value.reason == found[1][name].reason
        if value.value is not None:
            np.testing.assert_allclose(value[:2], found[1][name][:2], rtol=1e-6)
    assert found[0]["lag_correlation_mae"].reason == "no numeric column"
    monkeypatch.setattr("jaxehr.core.sparse.MOST_BYTES", 1000)
    large = {r.name: r.value for r in run_metrics(KEY, sides[0], metrics)}
    for name, value in large.items():
        if name.startswith(("run_length", "first_event", "spearman")):
            assert "takes no sparse table" in value.reason
        else:
            assert value.value == found[0][name].value


def test_too_few_patients():
    data = [simulate(i, 60) for i in (1, 3)]
    compared = comparison(data[0], data[1], simulate(2, 40))
    for result in run_metrics(KEY, compared, METRICS | OTHERS):
        assert result.value.value is None
        assert "fewer than 50 patients" in result.value.reason


@pytest.mark.parametrize(
    ("law", "missing", "reasons"),
    [
        (
            schema(static=False, numeric=0),
            0.1,
            {
                "ks": "no numeric column",
                "spearman_mae": "0 numeric column(s)",
                "lag_correlation_mae": "no numeric column",
            },
        ),
        (
            schema(static=False, coded=False),
            0.0,
            {
                "run_length": "no coded column",
                "first_event_worst": "no coded column",
                "missing_rate_mae": "no column with missing values",
                "co_missing_mae": "0 column(s) with missing values",
                "mask_auroc": "no column with missing values",
                "length_error": "all stays have the length",
                "rare_category_error": "no value that fewer than 1 %",
            },
        ),
        (
            schema(steps=0, numeric=0, coded=False, label=False),
            0.1,
            {
                "length_error": "no temporal part",
                "run_length": "no temporal part",
                "mask_auroc": "no label",
            },
        ),
        (schema(steps=1), 0.1, {"lag_correlation_mae": "one step only"}),
    ],
)
def test_undefined_by_the_schema(law, missing, reasons):
    data = [simulate(i, 60, law, missing=missing, ragged=False) for i in (1, 3, 2)]
    results = run_metrics(KEY, comparison(*data), METRICS | OTHERS)
    found = {r.name: r.value for r in results}
    for name, reason in reasons.items():
        assert found[name].value is None
        assert reason in found[name].reason
    for value in found.values():
        assert (value.value is None) == bool(value.reason)
        assert value.value is None or np.isfinite(value[:2]).all()


def test_constant_and_empty_columns_are_left_out():
    law = schema(static=False, numeric=3)

    def spoiled(seed):
        data = simulate(seed, 80, law)
        table = data.cohort.temporal
        numeric, observed = table.numeric.copy(), table.observed.copy()
        numeric[..., 0] = np.where(observed[..., 0], 3.3, 0.0)
        observed[..., 1] = False
        table = table._replace(numeric=numeric, observed=observed)
        cohort = data.cohort
        cohort = make_cohort(cohort.static, table, cohort.length, cohort.label)
        return data._replace(cohort=cohort)

    results = run_metrics(KEY, comparison(*map(spoiled, (1, 3, 2))), METRICS)
    found = {r.name: r.value for r in results}
    for name in ("ks", "wasserstein", "tail_error"):
        assert set(found[name].detail["per_feature"]) == {"x2"}
    assert found["spearman_mae"].reason == "too few columns that vary"
    assert set(found["lag_correlation_mae"].detail["per_feature"]) == {"x2"}
    assert "x1" in found["missing_rate_mae"].detail["per_feature"]


def test_a_constant_that_synthetic_patients_do_not_keep():
    """KS sees it; without a deviation the distances leave it out. Rounding is none."""
    law, sets = schema(static=False, numeric=2), []
    for seed, noise in ((1, 0.0), (3, 1.0), (3, 1e-7), (2, 0.0)):
        data, rng = simulate(seed, 80, law, missing=0.0), np.random.default_rng(seed)
        table = data.cohort.temporal
        numeric = table.numeric.copy()
        numeric[..., 0] = 70.0 + noise * rng.normal(size=numeric.shape[:2])
        cohort = data.cohort
        table = table._replace(numeric=numeric)
        cohort = make_cohort(cohort.static, table, cohort.length, cohort.label)
        sets.append(data._replace(cohort=cohort))
    real, varying, rounded, held = sets
    for made, there in ((varying, True), (rounded, False)):
        results = run_metrics(KEY, comparison(real, made, held), METRICS)
        found = {r.name: r.value for r in results}
        assert ("x0" in found["ks"].detail["per_feature"]) == there
        for name in ("wasserstein", "tail_error_worst"):
            value, left = found[name], ["x0"] if there else None
            assert value.value is not None
            assert value.detail.get("left_out") == left
            assert "x0" not in value.detail["per_feature"]
    results = run_metrics(KEY, comparison(real, varying, held), METRICS)
    (worst,) = [r.value for r in results if r.name == "ks_worst"]
    assert worst.value > 0.4  # on both sides of the constant


@pytest.mark.parametrize("constant", [0.0, 70.0])
@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (0.0, ""),
        (1e-8, ""),  # rounding, of 0 too
        (1.0, "dose differs among synthetic ones"),
        (None, "dose is absent among synthetic ones"),
    ],
)
def test_a_rare_constant_is_left_out_of_distances(constant, made, reason):
    """And no number of the other columns is lost; alone it leaves none."""
    for numeric in (2, 0):
        law = schema(static=False, numeric=numeric)
        law = law.replace(static=(Feature(name="dose", kind="numeric"),))
        sets = [
            with_dose(simulate_static(1, law), constant, 0.0),
            with_dose(simulate_static(3, law), constant, made),
            with_dose(simulate_static(2, law), constant, 0.0),
        ]
        chosen = {name: METRICS[name] for name in ("ks", "wasserstein", "tails")}
        results = run_metrics(KEY, comparison(*sets), chosen)
        for result in results:
            value, free = result.value, result.name.startswith("ks")
            if numeric or (free and reason):
                found = value.detail.get("left_out", [])
                assert found == (["dose"] if reason and not free else [])
            elif reason:
                assert value.reason.endswith(f"training patients, {reason}")
            else:
                assert value.reason == "no numeric column that varies"


def with_dose(data, constant, noise):
    """The static number near a constant; None = in nobody."""
    table = data.cohort.static
    numeric = constant + (noise or 0.0) * table.numeric
    seen = np.full_like(table.observed, noise is not None)
    table = table._replace(numeric=numeric, observed=seen)
    cohort = data.cohort
    cohort = make_cohort(table, cohort.temporal, cohort.length, cohort.label)
    return data._replace(cohort=cohort)


def test_a_column_that_nobody_synthetic_has():
    law = schema(static=False).replace(
        static=(Feature(name="lactate", kind="numeric"),),
    )
    real = [simulate_static(i, law) for i in (1, 3, 2)]
    table = real[1].cohort.static
    table = table._replace(observed=np.zeros_like(table.observed))
    cohort = real[1].cohort
    cohort = make_cohort(table, cohort.temporal, cohort.length, cohort.label)
    compared = comparison(real[0], real[1]._replace(cohort=cohort), real[2])
    found = {r.name: r.value for r in run_metrics(KEY, compared, METRICS)}
    assert found["ks_worst"].detail["per_feature"] == {"lactate": 1.0}
    held, train = (d.cohort.static.numeric[:, 0] for d in (real[2], real[0]))
    # As if all lay at the far end of the real range
    farthest = max(held.max() - held.mean(), held.mean() - held.min()) / train.std()
    worst = found["wasserstein_worst"].detail["per_feature"]
    assert worst == {"lactate": pytest.approx(farthest)}
    cut = lambda share: np.quantile(held, share, method="inverted_cdf")
    gaps = [
        np.mean([abs(cut(q) - end) for q in (0.01, 0.05, 0.95, 0.99)]) / train.std()
        for end in (held.min(), held.max())
    ]
    value = found["tail_error"].detail["per_feature"]["lactate"]
    np.testing.assert_allclose(value, max(gaps))
    assert found["missing_rate_max"].detail["per_feature"] == {"lactate": 1.0}


def simulate_static(seed, law):
    """One static number, always observed."""
    data = simulate(seed, 80, law.replace(static=schema().static))
    cohort, rng = data.cohort, np.random.default_rng(seed)
    table = cohort.static._replace(
        numeric=rng.normal(size=(80, 1)),
        codes=np.zeros((80, 0), int),
        observed=np.ones((80, 1), bool),
    )
    cohort = make_cohort(table, cohort.temporal, cohort.length, cohort.label)
    return data._replace(schema=law, cohort=cohort)
