"""MMD of pooled vectors: closed form for Gaussians, bounds, sparse, undefined."""

import jax
import numpy as np
from builders import compared, simulate, sparse_pair

from jaxehr.core.cohort import take
from jaxehr.core.contracts import Comparison
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.mmd import (
    WIDTHS,
    kernel_sums,
    median_distance,
    mmd_pooled,
    pooled_gaps,
)

KEY = jax.random.key(0)
SMALL = MetricConfig(pooled_rows=200, draws=3)


def gaussian_mmd(shift, width, dim):
    """MMD^2 of N(0, I) and N(m, I) for the kernel exp(-|x - y|^2 / (2 w^2))."""
    scale = (width**2 / (width**2 + 2)) ** (dim / 2)
    return 2 * scale * (1 - np.exp(-(shift**2) / (2 * (width**2 + 2))))


def test_unbiased_mmd_meets_the_closed_form_on_average():
    rng, dim, n, shift, width = np.random.default_rng(0), 3, 300, 1.0, 1.5
    found = []
    for _ in range(20):
        a, b = rng.normal(size=(2, n, dim))
        a[:, 0] += shift
        one, five = pooled_gaps(a, b, width)
        found.append((one.unbiased, one.biased, five.biased))
    unbiased, biased, several = np.array(found).T
    error = unbiased.std(ddof=1) / np.sqrt(20)
    assert abs(unbiased.mean() - gaussian_mmd(shift, width, dim)) < 4 * error
    # the biased one is larger by what k(x, x) = 1 adds
    near = gaussian_mmd(shift, width, dim) * (n - 1) / n
    scale = (width**2 / (width**2 + 2)) ** (dim / 2)
    np.testing.assert_allclose(
        biased.mean(), near + 2 * (1 - scale) / n, atol=4 * error
    )
    total = sum(
        gaussian_mmd(shift, w * width, dim)
        + 2 * (1 - (w**2 * width**2 / (w**2 * width**2 + 2)) ** (dim / 2)) / n
        for w in WIDTHS
    )
    error = several.std(ddof=1) / np.sqrt(20)
    # (n - 1) / n is left out above: less than 1 % of the sum
    assert abs(several.mean() - total) < 4 * error + 0.01 * total


def test_two_samples_of_one_law_are_at_distance_zero():
    rng = np.random.default_rng(1)
    found = [
        pooled_gaps(*rng.normal(size=(2, 300, 3)), 1.5)[0].unbiased for _ in range(40)
    ]
    error = np.std(found, ddof=1) / np.sqrt(40)
    assert abs(np.mean(found)) < 4 * error < gaussian_mmd(0.2, 1.5, 3)


def test_kernel_sums_and_median_are_the_double_loop():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 15, 4))
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    five = [np.exp(-(distance**2) / (2 * (1.3 * width) ** 2)) for width in WIDTHS]
    kernels = five[WIDTHS.index(1.0)], np.sum(five, axis=0)
    for kernel, found in zip(kernels, kernel_sums(a, b, 1.3), strict=True):
        np.testing.assert_allclose(found.rows, kernel.mean(1), rtol=1e-10)
        np.testing.assert_allclose(found.columns, kernel.mean(0), rtol=1e-10)
        np.testing.assert_allclose(found.mean, kernel.mean(), rtol=1e-10)
        centred = kernel - kernel.mean(1)[:, None] - kernel.mean(0) + kernel.mean()
        np.testing.assert_allclose(found.square, (centred**2).mean(), rtol=1e-10)
    within = kernel_sums(a, a, 1.3)[0]
    gaps = np.linalg.norm(a[:, None] - a[None], axis=-1)
    kernel, pairs = np.exp(-(gaps**2) / (2 * 1.3**2)), ~np.eye(15, dtype=bool)
    centred = kernel - kernel.mean(1)[:, None] - kernel.mean(0) + kernel.mean()
    np.testing.assert_allclose(within.mean, kernel[pairs].mean(), rtol=1e-10)
    np.testing.assert_allclose(within.square, (centred[pairs] ** 2).mean(), rtol=1e-10)
    pairs = [np.linalg.norm(a[i] - a[j]) for i in range(15) for j in range(i)]
    middle = np.sort(pairs)[[52, 52]]  # 105 pairs
    np.testing.assert_allclose(median_distance(a), middle.mean(), rtol=1e-10)


def test_bounds_and_ends():
    one, five = pooled_gaps(np.zeros((50, 2)), np.full((50, 2), 1e6), 1.0)
    found = one.unbiased, one.biased, five.biased
    np.testing.assert_allclose(found, (2.0, 2.0, 10.0))
    a = np.random.default_rng(0).normal(size=(50, 2))
    same, _ = pooled_gaps(a, a[::-1], 1.0)
    np.testing.assert_allclose(same.biased, 0.0, atol=1e-12)
    assert same.unbiased < 0  # pairs of one patient with himself do not count within


def test_a_fresh_draw_is_as_real_and_noise_is_not():
    good = mmd_pooled(SMALL).run(KEY, compared(simulate(3)))
    bad = mmd_pooled(SMALL).run(KEY, compared(simulate(3, shift=5.0)))
    for name, value in good.items():
        assert abs(value.value - value.reference) < 0.1
        assert bad[name].low > 3 * abs(value.reference)
    assert good["mmd_pooled_squared"].low < 0.0 < good["mmd_pooled"].low
    detail = good["mmd_pooled"].detail
    assert detail["rows"] == 200
    assert len(detail["per_draw"]) == 3
    again = mmd_pooled(SMALL).run(KEY, compared(simulate(3)))
    assert again == good


def test_sparse_and_dense_tables_give_equal_numbers():
    pairs = [sparse_pair(i) for i in range(3)]
    config = MetricConfig(pooled_rows=60, draws=2)
    sparse, dense = (
        mmd_pooled(config).run(KEY, Comparison(*side))
        for side in zip(*pairs, strict=True)
    )
    for name in sparse:
        np.testing.assert_allclose(sparse[name].value, dense[name].value, rtol=1e-4)


def test_undefined():
    few = mmd_pooled(SMALL).run(KEY, compared(simulate(3, 49), count=60))
    assert all("fewer than 50 patients" in value.reason for value in few.values())
    same = take(sparse_pair(0)[0], np.zeros(80, int))._replace(groups=np.arange(80))
    found = mmd_pooled(SMALL).run(KEY, Comparison(same, same, same))
    assert all(
        v.reason == "half of the real patients are equal" for v in found.values()
    )
