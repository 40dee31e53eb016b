"""Rates, joint rates and the outcome from masks against plain counting."""

import jax
import numpy as np
from builders import compared, simulate

from jaxehr.core.cohort import make_cohort
from jaxehr.metrics.evaluate import MetricConfig
from jaxehr.metrics.missingness import (
    Gaps,
    co_missing,
    gap_shares,
    mask_auroc,
    missing_rate,
)

KEY = jax.random.key(0)
SMALL = MetricConfig(resamples=40)


def unseen(data, where):
    """The data set without the temporal values at `where`, Bool [N, T, F]."""
    cohort = data.cohort
    table = cohort.temporal._replace(observed=cohort.temporal.observed & ~where)
    cohort = make_cohort(cohort.static, table, cohort.length, cohort.label)
    return data._replace(cohort=cohort)


def informative(seed, chance, count=600):
    """x0 is missing with chance 0.1, in those with label 1 with `chance`."""
    data, rng = simulate(seed, count, missing=0.0), np.random.default_rng(seed)
    where = np.zeros(data.cohort.temporal.observed.shape, bool)
    each = np.where(data.cohort.label == 1, chance, 0.1)[:, None]
    where[..., 0] = rng.random(where.shape[:2]) < each
    return unseen(data, where)


def test_rates_by_hand():
    real = compared(simulate(3, missing=0.0), missing=0.0)
    where = np.zeros(real.synthetic.cohort.temporal.observed.shape, bool)
    where[:100, 2, 1] = True  # x1 at 2 h in a quarter of the patients
    synthetic = unseen(real.synthetic, where)
    found = missing_rate(SMALL).run(KEY, real._replace(synthetic=synthetic))
    worst = found["missing_rate_max"]
    assert worst.detail["per_feature"] == {"x1 at 2 h": 0.25}
    steps = np.sum(
        [(d.cohort.length[:, None] > np.arange(8)).sum(0) >= 50 for d in real], 0
    )
    compared_steps = (steps == 3).sum()
    np.testing.assert_allclose(found["missing_rate_mae"].value, 0.25 / compared_steps)
    assert set(found["missing_rate_mae"].detail["per_feature"]) == {"x1"}
    assert worst.reference == 0.0


def test_joint_rates_by_hand():
    real = compared(simulate(3, missing=0.2), missing=0.2)
    found = co_missing(SMALL).run(KEY, real)["co_missing_mae"]

    def shares(data):
        valid = np.arange(8) < data.cohort.length[:, None]
        steps = ~data.cohort.temporal.observed
        static = np.broadcast_to(~data.cohort.static.observed[:, None], (400, 8, 2))
        masks = np.concatenate([steps, static], -1)[valid].astype(float)
        return masks.T @ masks / len(masks)

    gap = np.abs(shares(real.synthetic) - shares(real.holdout))
    expected = gap[np.triu_indices(7, 1)].mean()
    np.testing.assert_allclose(found.value, expected)


def test_columns_that_are_missing_together_are_seen_where_their_rates_agree():
    rng = np.random.default_rng(0)

    def shared(data, alone):
        where = np.zeros(data.cohort.temporal.observed.shape, bool)
        where[..., :3] = rng.random((*where.shape[:2], 3 if alone else 1)) < 0.4
        return unseen(data, where)

    data = [simulate(i, missing=0.0) for i in (1, 2, 3)]
    real = compared(data[2])._make(
        [shared(data[0], False), shared(data[1], False), None]
    )
    good, bad = (shared(data[2], alone) for alone in (False, True))
    values = {}
    for name, synthetic in (("good", good), ("bad", bad)):
        side = real._replace(synthetic=synthetic)
        rates = missing_rate(SMALL).run(KEY, side)["missing_rate_mae"]
        assert rates.value < 0.06
        values[name] = co_missing(SMALL).run(KEY, side)["co_missing_mae"]
    # 0.4 against 0.16 in each pair
    np.testing.assert_allclose(values["bad"].value, 0.24, atol=0.03)
    assert values["bad"].low > values["bad"].reference
    assert values["good"].value < 0.05


def test_the_outcome_from_masks_is_lost_where_these_tell_the_opposite():
    real = [informative(seed, 0.5) for seed in (1, 2)]
    made = compared(real[0])._make([*real, informative(3, 0.5)])
    same = mask_auroc(SMALL).run(KEY, made)["mask_auroc"]
    assert same.low <= same.reference <= same.high
    assert same.reference > 0.9  # of eight steps 4 against 0.8 are missing
    backwards = compared(real[0])._make([*real, informative(3, 0.0)])
    wrong = mask_auroc(SMALL).run(KEY, backwards)["mask_auroc"]
    assert wrong.high < 0.3  # synthetic masks that tell the opposite
    copy = compared(real[0])._make([*real, real[0]])
    found = mask_auroc(SMALL).run(KEY, copy)["mask_auroc"]
    assert found.value == found.reference


def test_one_class_only():
    data = simulate(3)
    one = data._replace(cohort=data.cohort._replace(label=np.zeros(400, np.int32)))
    found = mask_auroc(SMALL).run(KEY, compared(one))["mask_auroc"]
    assert found.reason == "one class only in the synthetic data"


def test_shares_of_thirds_do_not_tell_the_length_of_stay():
    missing = np.asarray([[1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6], bool)
    valid = np.arange(6) < np.asarray([6, 2, 0])[:, None]
    static = np.asarray([[True], [False], [False]])
    found = gap_shares(Gaps(["x", "y"], missing[..., None], static, valid))
    np.testing.assert_allclose(
        found, [[0.5, 1.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.0], [0.0] * 4]
    )
