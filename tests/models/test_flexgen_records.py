"""Who lacks what: refusals, frames of synthetic patients, labels that are asked for."""

import re

import jax
import numpy as np
import pytest
from small_cohorts import cohort, schema

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Cohort
from jaxehr.core.labels import label_codes
from jaxehr.models.flexgen import records
from jaxehr.models.flexgen.alignment import Posterior, latents_in_words, latents_told

MADE = schema()


def people(has_static, has_temporal, label):
    """A cohort of which only presence and label are read."""
    each = [
        np.asarray(part) for part in (has_static, has_temporal, has_temporal, label)
    ]
    return Cohort(None, None, *each)


def count_frames(made):
    counts = np.zeros((2, 2, 2))
    np.add.at(counts, (made.label, made.has_static * 1, made.has_temporal * 1), 1)
    return records.joint(counts)


@pytest.mark.parametrize("which", ["static", "temporal"])
def test_a_modality_that_no_patient_has_is_refused(which):
    has = {"static": np.ones(6, bool), "temporal": np.ones(6, bool)}
    has[which][:] = False
    found = people(has["static"], has["temporal"], np.arange(6) % 2)
    with pytest.raises(InputError, match=f"none of 6 patients .* has a {which} part"):
        records.check_cohort(MADE, found, "fused")


def test_a_class_that_lacks_a_modality_is_refused():
    label = np.array([0, 0, 0, 1, 1])
    found = people(label == 0, np.ones(5, bool), label)
    message = "none of the 2 patients of class 1 has a static part"
    with pytest.raises(InputError, match=message):
        records.check_cohort(MADE, found, "fused")


@pytest.mark.parametrize("method", records.NEEDS_PAIRS)
def test_methods_that_need_complete_patients(method):
    static = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    label = np.arange(8) % 2
    with pytest.raises(InputError, match=f"method {method} .* there are 0"):
        records.check_cohort(MADE, people(static, ~static, label), method)
    records.check_cohort(MADE, people(static, ~static, label), "gromov")


def test_frames_are_counted_and_drawn_as_often():
    made = cohort(MADE, count=200)
    counts = count_frames(made)
    neither = ~made.has_static & ~made.has_temporal
    assert counts.sum() == 200 - neither.sum()
    num = 20_000
    frames = records.draw_frames(
        jax.random.key(0), counts, np.arange(num), np.full(num, -1), "as-training"
    )
    drawn = np.zeros_like(counts)
    places = (
        frames.label,
        frames.has_static.astype(int),
        frames.has_temporal.astype(int),
    )
    np.add.at(drawn, places, 1)
    share = counts / counts.sum()
    # Four standard errors of a share.
    error = 4 * np.sqrt(share * (1 - share) / num)
    assert (np.abs(drawn / num - share) <= error).all()


@pytest.mark.parametrize(
    ("how", "static", "temporal"),
    [("none", True, True), ("static", False, True), ("temporal", True, False)],
)
def test_a_pattern_can_be_chosen(how, static, temporal):
    counts = count_frames(cohort(MADE))
    frames = records.draw_frames(
        jax.random.key(0), counts, np.arange(50), np.full(50, 1), how
    )
    assert (frames.has_static == static).all()
    assert (frames.has_temporal == temporal).all()
    assert (frames.label == 1).all()


def test_a_frame_depends_on_its_number_alone():
    counts = count_frames(cohort(MADE))
    draw = lambda index: records.draw_frames(
        jax.random.key(3), counts, index, np.full(len(index), -1), "as-training"
    )
    every, some = draw(np.arange(40)), draw(np.array([31, 4]))
    for one, two in zip(every, some, strict=True):
        np.testing.assert_array_equal(one[[31, 4]], two)


def test_balanced_draws_every_class_alike():
    counts = np.zeros((3, 2, 2))
    counts[:, 1, 1] = [90, 9, 0]
    num = 4000
    codes = label_codes(schema(classes=3), counts.sum((1, 2)), "balanced", num)
    frames = records.draw_frames(
        jax.random.key(0), counts, np.arange(num), codes, "as-training"
    )
    share = np.bincount(frames.label, minlength=3) / num
    np.testing.assert_allclose(share, [0.5, 0.5, 0.0], atol=4 * 0.5 / np.sqrt(num))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (2, "label codes must lie in [0, 2), got 2 to 2; the classes are [0, 1]"),
        (1, "no training patient has 'died' = 1"),
    ],
)
def test_labels_that_cannot_be_drawn(label, message):
    with pytest.raises(InputError, match=re.escape(message)):
        label_codes(MADE, np.array([5, 0]), label, 3)


def test_a_label_needs_classes():
    with pytest.raises(InputError, match="has no label"):
        label_codes(schema(classes=0), np.array([5]), 0, 3)


def test_latents_that_hold_nothing_are_named():
    """One of two static coordinates says something; no temporal one does."""
    rng = np.random.default_rng(0)
    static = np.stack([rng.normal(size=50), np.zeros(50)], 1)
    has = np.arange(50) < 40
    found = Posterior(
        static_mean=static,
        static_std=np.tile([0.5, 1.0], (50, 1)),
        temporal_mean=np.zeros((50, 2)),
        temporal_std=np.ones((50, 2)),
        has_static=has,
        has_temporal=~has,
        label=np.zeros(50, int),
    )
    told = latents_told(found)
    square = (static[has, 0] ** 2).mean()
    wanted = 0.5 * (square + 0.25 - 1) - np.log(0.5)
    np.testing.assert_allclose(told["static"]["nats"], wanted, rtol=1e-5)
    assert (told["static"]["active"], told["static"]["coordinates"]) == (1, 2)
    assert told["temporal"] == {"nats": 0.0, "active": 0, "coordinates": 2}
    text = latents_in_words(told)
    assert text.startswith("static 1 of 2 coordinates active, ")
    assert "temporal collapsed: " in text
    assert "static and" not in text
