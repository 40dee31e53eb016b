"""Quantile transform: exact inverse, unit variance, atoms, oracle where continuous."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.preprocessing import QuantileTransformer

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature
from jaxehr.data.transforms import (
    QuantileNormal,
    fit_quantile_normal,
    forward,
    inverse,
)


def numeric(*names, **options):
    return tuple(Feature(name=name, kind="numeric", **options) for name in names)


def columns(n, seed=0):
    draw = np.random.default_rng(seed)
    inflated = np.where(draw.random(n) < 0.9, 0.0, np.round(draw.lognormal(size=n), 2))
    return {
        "heavy": np.round(draw.standard_cauchy(n) * 10, 2),
        "inflated": inflated,
        "two": np.where(draw.random(n) < 0.3, 2.5, 7.0),
        "constant": np.full(n, 36.6),
        "continuous": draw.normal(80, 12, n),
        "integer": draw.poisson(90, n).astype(float),
        "tenths": np.round(draw.normal(37, 0.7, n), 1),
    }


@pytest.mark.parametrize("n", [7, 300, 5000])
@pytest.mark.parametrize("max_knots", [50, 1000])
def test_inverse_undoes_forward_and_z_is_standard(n, max_knots):
    data = columns(n)
    values = np.stack(list(data.values()), -1)
    draw = np.random.default_rng(1)
    observed = draw.random(values.shape) < 0.8
    observed[:2] = True
    params = fit_quantile_normal(values, observed, numeric(*data), max_knots)
    z = forward(params, values)
    back = inverse(params, z)
    assert np.isfinite(z).all()
    for d, name in enumerate(data):
        seen = observed[:, d]
        if name == "continuous":  # no decimals to round to
            np.testing.assert_allclose(back[seen, d], values[seen, d], rtol=1e-9)
        else:
            np.testing.assert_array_equal(back[seen, d], values[seen, d])
        spread = 0.0 if len(np.unique(values[seen, d])) == 1 else 1.0
        np.testing.assert_allclose(z[seen, d].mean(), 0, atol=1e-9)
        np.testing.assert_allclose(z[seen, d].std(), spread, atol=1e-9)
        order = np.argsort(values[:, d], kind="stable")
        assert (np.diff(z[order, d]) >= 0).all()


def test_atoms_go_to_the_middle_of_their_segment_by_hand():
    values = np.array([0, 0, 0, 0, 0, 0, 5.0, 9.0])[:, None]
    params = fit_quantile_normal(values, values >= 0, numeric("x"))
    u = np.array([6 / 16] * 6 + [13 / 16, 15 / 16])
    z = norm.ppf(u)
    z = (z - z.mean()) / z.std()
    np.testing.assert_allclose(forward(params, values)[:, 0], z, rtol=1e-12)
    # Everything inside the segment of the zeros comes back as zero.
    inside = (norm.ppf([0.01, 0.3, 0.74]) - params.mean[0]) / params.std[0]
    np.testing.assert_array_equal(inverse(params, inside[:, None])[:, 0], 0)


def test_few_repeated_values_come_back_only_as_themselves():
    values = np.repeat([1.0, 2.0, 4.0], [5, 3, 2])[:, None]
    params = fit_quantile_normal(values, values > 0, numeric("x"))
    back = inverse(params, np.linspace(-6, 6, 1001)[:, None])
    assert set(np.unique(back)) == {1.0, 2.0, 4.0}


def test_equals_scikit_learn_on_continuous_data():
    values = np.random.default_rng(2).gamma(2.0, size=(900, 1))
    params = fit_quantile_normal(values, values > 0, numeric("x"))
    u = norm.cdf(forward(params, values) * params.std + params.mean)
    oracle = QuantileTransformer(n_quantiles=900, subsample=None).fit_transform(values)
    # (i + 1/2) / n against i / (n - 1): at most 1 / (2 n) apart.
    np.testing.assert_allclose(u, oracle, atol=0.5 / 900 + 1e-9)


def test_large_sample_stays_close_to_the_true_quantiles():
    values = np.random.default_rng(3).standard_normal((50_000, 1))
    params = fit_quantile_normal(values, np.ones_like(values, bool), numeric("x"), 200)
    assert params.levels.shape[1] <= 203
    # Sup distance of an empirical distribution function: 1.95 / sqrt(n) at 0.1 %.
    u = norm.cdf(forward(params, values) * params.std + params.mean)
    assert np.abs(u - norm.cdf(values)).max() < 1.95 / np.sqrt(50_000) + 0.5 / 100


def test_sampled_values_are_integers_inside_the_bounds():
    features = (
        Feature(name="n", kind="integer", dtype="int64", lower=0, upper=20),
        Feature(name="x", kind="numeric"),
    )
    draw = np.random.default_rng(4)
    values = np.stack([draw.poisson(3, 400), draw.normal(size=400)], -1).astype(float)
    params = fit_quantile_normal(values, np.ones_like(values, bool), features)
    back = inverse(params, 5 * draw.standard_normal((2000, 2)))
    np.testing.assert_array_equal(back[:, 0], np.rint(back[:, 0]))
    assert back[:, 0].min() >= 0
    assert back[:, 1].min() >= values[:, 1].min()
    assert back[:, 1].max() <= values[:, 1].max()


def test_single_precision_keeps_atoms_and_dtype():
    values = np.repeat([0.1, 0.3, 36.6], [50, 30, 20])[:, None]
    params = fit_quantile_normal(values, values > 0, numeric("x"))
    z = forward(params, values.astype(np.float32))
    assert z.dtype == np.float32
    np.testing.assert_array_equal(inverse(params, z), values)


def test_columns_of_32_bits_keep_their_decimals_and_atoms():
    """36.6 is 36.599998 there; what comes back is so, too, and to one decimal."""
    draw = np.random.default_rng(5)
    tenths = np.round(draw.normal(37, 0.7, 3000), 1)
    values = np.stack([tenths, draw.normal(80, 12, 3000)], -1).astype(np.float32)
    columns = numeric("temp", "continuous", dtype="float")
    for given in (values, tenths[:, None]):  # also doubles not yet cut to 32 bits
        given = given.astype(np.float64)
        features = columns[: given.shape[1]]
        params = fit_quantile_normal(given, np.ones_like(given, bool), features)
        assert params.decimals[0] == 1
        back = inverse(params, forward(params, given))
        np.testing.assert_array_equal(back[:, 0], values[:, 0].astype(np.float64))
        drawn = inverse(params, draw.standard_normal((500, given.shape[1])))
        np.testing.assert_array_equal(drawn, drawn.astype(np.float32))
        tenth = np.round(drawn[:, 0], 1).astype(np.float32)
        np.testing.assert_array_equal(drawn[:, 0], tenth.astype(np.float64))


def test_parameters_of_old_runs_know_no_32_bits():
    values = np.array([[1.25], [2.5], [2.5]])
    params = fit_quantile_normal(values, values > 0, numeric("x"))
    old = {k: v for k, v in params._asdict().items() if k != "single"}
    again = QuantileNormal(**old)
    np.testing.assert_array_equal(inverse(again, forward(again, values)), values)


def test_missing_values_and_their_placeholders_do_not_count():
    values = np.array([[1.0, 0], [2, 0], [0, 0], [4, 0]])
    observed = np.array([[1, 0], [1, 0], [0, 0], [1, 0]], bool)
    params = fit_quantile_normal(values, observed, numeric("a", "never"))
    assert params.count.tolist() == [3, 0]
    np.testing.assert_array_equal(inverse(params, forward(params, values))[:, 1], 0)


def test_parameters_survive_a_round_trip_as_arrays(tmp_path):
    data = columns(100)
    values = np.stack(list(data.values()), -1)
    params = fit_quantile_normal(values, np.ones_like(values, bool), numeric(*data))
    np.savez(tmp_path / "p.npz", **params._asdict())
    with np.load(tmp_path / "p.npz") as stored:
        again = QuantileNormal(**stored)
    np.testing.assert_array_equal(forward(again, values), forward(params, values))


def test_bad_input_is_refused():
    values = np.array([[1.0], [np.inf]])
    with pytest.raises(InputError, match="'x': 1 of 2 observed values are not finite"):
        fit_quantile_normal(values, np.ones((2, 1), bool), numeric("x"))
    with pytest.raises(InputError, match=r"\(2, 1\).* and 2 features disagree"):
        fit_quantile_normal(values, np.ones((2, 1), bool), numeric("x", "y"))
    with pytest.raises(InputError, match="max_knots must lie in"):
        fit_quantile_normal(values, np.ones((2, 1), bool), numeric("x"), 3)
