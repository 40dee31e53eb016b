"""The whole model on small cohorts: fit, sample, impute; what must not change."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flexgen_cohorts import small
from small_cohorts import cohort, schema

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import map_patients
from jaxehr.core.sparse import SparseTable, from_dense
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.models.flexgen import preprocessing
from jaxehr.models.flexgen.alignment import from_text
from jaxehr.models.flexgen.autoencoders import make_autoencoder
from jaxehr.models.flexgen.config import PRESETS, FlexgenSampling, preset
from jaxehr.models.flexgen.imputation import alike
from jaxehr.models.flexgen.model import flexgen
from jaxehr.models.flexgen.records import joint
from jaxehr.models.flexgen.training import layout_of
from jaxehr.ot.config import AlignmentConfig

MADE = schema()
KEY = jax.random.key(0)


RIDGE = small(alignment=AlignmentConfig(method="ridge"))


@functools.cache
def trained(config=RIDGE):
    return flexgen(MADE, config).fit(KEY, cohort(MADE, count=80))


@functools.cache
def gappy(config=RIDGE):
    """Learned from values most of which are missing, in any column."""
    return flexgen(MADE, config).fit(KEY, cohort(MADE, count=80, missing=0.7))


def same(one, two):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_samples_have_the_form_of_the_data():
    params = trained()
    made = flexgen(MADE, RIDGE).sample(KEY, params, None, 50)
    real = cohort(MADE, count=80)
    for one, two in zip(jax.tree.leaves(made), jax.tree.leaves(real), strict=True):
        assert one.dtype == two.dtype
        assert one.shape[1:] == two.shape[1:]
    assert (made.length <= real.length.max()).all()
    counts = joint(params["fitted"]["presence"])
    assert counts[:, 0, 0].sum() == 0
    seen = {tuple(np.argwhere(counts)[i]) for i in range(np.count_nonzero(counts))}
    drawn = zip(made.label, made.has_static * 1, made.has_temporal * 1)
    assert set(drawn) <= seen


def test_a_patient_is_the_same_in_any_batch():
    model, params = flexgen(MADE, RIDGE), trained()
    every = model.sample(KEY, params, None, 200)
    few = model.sample(KEY, params, None, 2, index=[150, 3])
    same(map_patients(lambda leaf: leaf[[150, 3]], every), few)


@pytest.mark.parametrize("decode", ["sample", "mode"])
@pytest.mark.parametrize(
    ("missing", "static", "temporal"),
    [("none", True, True), ("static", False, True), ("temporal", True, False)],
)
def test_the_missing_modality_can_be_chosen(missing, static, temporal, decode):
    options = FlexgenSampling(
        missing=missing, solver="ddim", steps=5, guidance=0.5, decode=decode
    )
    made = flexgen(MADE, RIDGE).sample(KEY, gappy(), 1, 30, options=options)
    assert (made.has_temporal == temporal).all()
    assert (made.has_static == static).all()
    seen = made.temporal.observed.any((1, 2))
    np.testing.assert_array_equal(seen, made.has_temporal)
    assert (made.label == 1).all()


@pytest.mark.parametrize("method", ["ridge", "knn"])
def test_imputed_patients_keep_what_was_observed(method):
    real = cohort(MADE, seed=5, count=40, missing=0.7)
    keep = real.has_static | real.has_temporal
    real = map_patients(lambda leaf: leaf[keep], real)
    config = small(alignment=AlignmentConfig(method=method))
    model, params = flexgen(MADE, config), gappy(config)
    made = model.impute(KEY, params, real)
    has_static, has_temporal = real.has_static, real.has_temporal
    assert not has_static.all()
    assert not has_temporal.all()
    for name, has in (("static", has_static), ("temporal", has_temporal)):
        for one, two in zip(getattr(made, name), getattr(real, name), strict=True):
            np.testing.assert_array_equal(one[has], two[has])
    assert made.has_static.all()
    assert made.has_temporal.all()
    np.testing.assert_array_equal(made.label, real.label)
    other = model.impute(jax.random.key(1), params, real)
    assert (np.asarray(other.length) != np.asarray(made.length)).any() or any(
        (a != b).any() for a, b in zip(other.temporal, made.temporal, strict=True)
    )
    # A patient's draw does not depend on the others.
    rows = np.array([7, 0, 21])
    some = map_patients(lambda leaf: leaf[rows], real)
    found = model.impute(KEY, params, some, index=rows)
    whole = map_patients(lambda leaf: leaf[rows], made)
    for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", ["ridge", "class-mean"])
def test_imputation_does_not_read_the_label(method):
    params = trained()
    config = RIDGE
    if method == "class-mean":
        config = small(alignment=AlignmentConfig(method=method))
        params = trained(config)
    real = cohort(MADE, seed=5, count=30)
    keep = real.has_static | real.has_temporal
    real = map_patients(lambda leaf: leaf[keep], real)
    model = flexgen(MADE, config)
    one = model.impute(KEY, params, real)
    two = model.impute(KEY, params, real._replace(label=1 - real.label))
    same(one[:5], two[:5])
    told = dataclasses.replace(config, label_in_encoder=True)
    with pytest.raises(InputError, match=r"--label-in-encoder.* give the outcome away"):
        flexgen(MADE, told).impute(KEY, params, real)


def test_losses_are_those_of_the_objectives():
    """Bounds by part, their mean that of the training; noise levels at their mean."""
    people, params, model = cohort(MADE, count=80), trained(), flexgen(MADE, RIDGE)
    each = model.losses(KEY, params, people, levels=5, repeats=40)
    assert each.shape == (80, 7)
    static, temporal = each[:, -2:].T
    np.testing.assert_array_equal(static == 0, ~people.has_static)
    np.testing.assert_array_equal(temporal == 0, ~people.has_temporal)
    nobody = ~(people.has_static | people.has_temporal)
    np.testing.assert_array_equal(each[:, 0] == 0, nobody)
    layout = layout_of(MADE, RIDGE, params["fitted"])
    data = preprocessing.encode(params["fitted"], layout, people)
    for which, column in (("static", static), ("temporal", temporal)):
        objective = make_autoencoder(layout, RIDGE, which).objective(params["fitted"])
        found = preprocessing.records(data, which)
        batch = objective.take(found, np.arange(len(found.label)))
        loss = jax.jit(objective.loss)
        keys = jax.random.split(jax.random.key(3), 40)
        wanted = [loss(params["weights"][which], key, batch)[0] for key in keys]
        # 200 shared draws of a latent against 40 of each patient's own
        np.testing.assert_allclose(
            column[column != 0].mean(), np.mean(wanted), rtol=0.02
        )


def test_a_patient_has_the_same_losses_in_any_batch():
    people, params, model = cohort(MADE, count=80), trained(), flexgen(MADE, RIDGE)
    each = model.losses(KEY, params, people, levels=5, repeats=40)
    rows = np.array([71, 3, 40])
    few = map_patients(lambda leaf: leaf[rows], people)
    some = model.losses(KEY, params, few, levels=5, repeats=40)
    np.testing.assert_array_equal(some, each[rows])


def test_complete_patients_come_back_as_they_are():
    real = cohort(MADE, count=20, variable=False)
    same(flexgen(MADE, RIDGE).impute(KEY, trained(), real), real)


def test_imputation_needs_something_to_start_from():
    model, params = flexgen(MADE, RIDGE), trained()
    real = cohort(MADE, count=20)
    nothing = real._replace(
        has_static=np.zeros(20, bool), has_temporal=np.arange(20) != 4
    )
    with pytest.raises(InputError, match=r"1 of 20 patients have neither .* row 5"):
        model.impute(KEY, params, nothing)
    config = small(alignment=AlignmentConfig(method="complete"))
    model = flexgen(MADE, config)
    params = model.fit(KEY, cohort(MADE, count=80))
    with pytest.raises(InputError, match="--method complete"):
        model.impute(KEY, params, real)
    assert from_text(params["diagnostics"])["status"] == "none"
    assert model.sample(KEY, params, None, 5).label.shape == (5,)


def test_a_schema_without_a_modality_is_refused():
    with pytest.raises(InputError, match="no static feature"):
        flexgen(schema(static=()))


@pytest.mark.parametrize(
    "name",
    # The turns of "paper" are compiled for half a minute; see `test_flexgen_turns`.
    [pytest.param(n, marks=[pytest.mark.slow] * (n == "paper")) for n in PRESETS],
)
def test_presets_train(name):
    config = dataclasses.replace(
        preset(name),
        latent=4,
        hidden=8,
        hidden_sequence=8,
        width=16,
        turns=2,
        autoencoder_epochs=1,
        warmup_epochs=1,
        train=dataclasses.replace(preset(name).train, steps=4, batch_size=32),
    )
    model = flexgen(MADE, config)
    params = model.fit(KEY, cohort(MADE, count=60))
    made = model.sample(KEY, params, None, 3)
    assert np.isfinite(made.temporal.numeric).all()


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path):
    data = cohort(MADE, count=60)
    model = flexgen(MADE, RIDGE)
    whole = model.fit(KEY, data, checkpoint=str(tmp_path / "whole"))

    class Enough(Exception):
        pass

    def stop(limit):
        def callback(step, metrics):
            if step >= limit:
                raise Enough

        return callback

    for limit in (2, 8, 20):
        with pytest.raises(Enough):
            model.fit(
                KEY, data, checkpoint=str(tmp_path / "parts"), callbacks=(stop(limit),)
            )
    again = model.fit(KEY, data, checkpoint=str(tmp_path / "parts"))
    same(again["weights"], whole["weights"])


def test_more_time_goes_to_stages_that_rest_on_no_other_checkpoint(tmp_path):
    data, folder = cohort(MADE, count=60), str(tmp_path / "run")
    train = dataclasses.replace(RIDGE.train, max_minutes=1e-6)
    hasty = dataclasses.replace(RIDGE, train=train)
    first = flexgen(MADE, hasty).fit(KEY, data, checkpoint=folder)["weights"]
    # The score network has seen latents of these encoders: they stay.
    again = flexgen(MADE, RIDGE).fit(KEY, data, checkpoint=folder)["weights"]
    same([again["static"], again["temporal"]], [first["static"], first["temporal"]])
    pairs = zip(jax.tree.leaves(again["score"]), jax.tree.leaves(first["score"]))
    assert any((one != two).any() for one, two in pairs)


def test_steps_and_seconds_count_on_over_the_stages():
    heard = []
    tell = lambda step, metrics: heard.append((step, metrics["steps_left"]))
    flexgen(MADE, RIDGE).fit(KEY, cohort(MADE, count=60), callbacks=(tell,))
    steps = [step for step, _ in heard]
    assert steps == sorted(set(steps))
    assert {step + left for step, left in heard} == {steps[-1]}


def test_a_sparse_table_stays_sparse():
    data = binary_cohort()
    made, config = data[0], RIDGE
    dense, packed = data[1], data[2]
    model = flexgen(made, config)
    params = model.fit(KEY, packed)
    people = model.sample(KEY, params, None, 10)
    assert isinstance(people.temporal, SparseTable)
    filled = model.impute(KEY, params, packed)
    assert isinstance(filled.temporal, SparseTable)
    has = packed.has_temporal
    np.testing.assert_array_equal(filled.temporal.codes[has], dense.temporal.codes[has])


def test_a_run_imputes_the_other_form_of_its_columns():
    made, dense, packed = binary_cohort()
    model, has = flexgen(made, RIDGE), packed.has_temporal
    filled = model.impute(KEY, model.fit(KEY, packed), dense)
    assert not isinstance(filled.temporal, SparseTable)
    np.testing.assert_array_equal(filled.temporal.codes[has], dense.temporal.codes[has])
    params = model.fit(KEY, dense)
    filled = model.impute(KEY, params, packed)
    assert isinstance(filled.temporal, SparseTable)
    np.testing.assert_array_equal(filled.temporal.codes[has], dense.temporal.codes[has])
    assert filled.has_temporal.all()
    # A run that learned from missing values draws missing ones.
    seen = dense.temporal.observed.copy()
    seen[1, 0, :2] = False
    gaps = dense._replace(temporal=dense.temporal._replace(observed=seen))
    with pytest.raises(InputError, match=r"is sparse, .* drew 2;"):
        alike(packed, gaps)


def binary_cohort():
    """A schema of binary columns, and its patients dense and sparse."""
    from jaxehr.core.cohort import Feature, Label, Schema, Table, make_cohort

    features = lambda names: tuple(
        Feature(name=n, kind="binary", categories=(0, 1), dtype="int64") for n in names
    )
    made = Schema(
        static=features("ab"),
        temporal=features("xyz"),
        num_steps=3,
        label=Label(name="died", classes=(0, 1)),
    )
    rng = np.random.default_rng(0)
    count = 60
    length = np.where(np.arange(count) % 4 == 0, 0, 3)
    static = Table(
        np.zeros((count, 0)),
        rng.integers(2, size=(count, 2)),
        np.repeat(np.arange(count)[:, None] % 4 != 1, 2, 1),
    )
    codes = (
        rng.integers(2, size=(count, 3, 3))
        * (np.arange(3) < length[:, None])[..., None]
    )
    temporal = Table(np.zeros((count, 3, 0)), codes, np.ones((count, 3, 3), bool))
    label = rng.integers(2, size=count)
    dense = make_cohort(static, temporal, length, label)
    packed = make_cohort(static, from_dense(codes, length), length, label)
    return made, dense, packed


@pytest.mark.slow
def test_a_known_law_is_learned():
    """Marginals and the link of static and temporal part of a simulated cohort."""
    data = simulate(SimulateOptions(n=2000))
    config = dataclasses.replace(preset("small"), autoencoder_epochs=60)
    model = flexgen(data.schema, config)
    params = model.fit(KEY, data.cohort)
    made = model.sample(KEY, params, None, 2000)
    share = lambda c: c.label.mean()
    assert abs(share(made) - share(data.cohort)) < 0.05
    seen = lambda c: np.where(
        c.temporal.observed[..., :1], c.temporal.numeric[..., :1], np.nan
    )
    one, two = np.nanmean(seen(made)), np.nanmean(seen(data.cohort))
    assert abs(one - two) < 0.1 * np.nanstd(seen(data.cohort))
