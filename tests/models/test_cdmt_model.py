"""The model as users see it: fit, sample, save, load; cohorts of every shape."""

import functools

import jax
import numpy as np
import pytest
from cdmt_builders import compilations, config, untrained
from small_cohorts import STATIC, TEMPORAL, cohort, schema

from jaxehr import runs
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import (
    Dataset,
    Feature,
    Schema,
    Table,
    empty_table,
    make_cohort,
    num_patients,
    valid_steps,
)
from jaxehr.models.cdmt import model as cdmt_model
from jaxehr.models.cdmt.config import CdmtSampling
from jaxehr.models.cdmt.model import cdmt, learned_schedule
from jaxehr.training.loop import Trained

KEY = jax.random.key(8)
FEW = CdmtSampling(steps=3)


def assert_same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def assert_of(found, made: Schema, num: int):
    """A cohort of this schema: shapes, codes in range, nothing at padding."""
    assert num_patients(found) == num
    for features, table, shape in (
        (made.static, found.static, (num,)),
        (made.temporal, found.temporal, (num, made.num_steps)),
    ):
        sizes = [f.cardinality for f in features if not f.is_numeric]
        numbers = len(features) - len(sizes)
        assert table.numeric.shape == (*shape, numbers)
        assert table.observed.shape == (*shape, len(features))
        assert np.isfinite(table.numeric).all()
        assert (table.codes >= 0).all()
        assert (table.codes < np.array(sizes, int)).all()
    assert not found.temporal.observed[~valid_steps(found)].any()
    assert (found.label >= 0).all()
    assert (found.label < max(made.num_classes, 1)).all()


CASES = {
    "static only": ({"temporal": (), "static": STATIC[:2]}, {}, {}),
    "temporal only": ({"static": (), "temporal": TEMPORAL[:2]}, {}, {}),
    "both, three classes": ({"classes": 3}, {}, {}),
    "no label": ({"static": (), "temporal": TEMPORAL[:1], "classes": 0}, {}, {}),
    "vote": (
        {"static": STATIC[1:2], "temporal": TEMPORAL[1:2], "classes": 3},
        {"mode": "unconditional"},
        {"variable": False},
    ),
    "mask": (
        {"static": STATIC[1:2], "temporal": TEMPORAL[:2]},
        {"categorical": "mask", "masks": False},
        {},
    ),
    "constants only": ({"static": STATIC[2:], "temporal": TEMPORAL[2:3]}, {}, {}),
}


def parts_of(case):
    fields, options, draw = CASES[case]
    made = schema(**fields)
    settings = config(train={"steps": 2, "batch_size": 16}, **options)
    return made, settings, cohort(made, count=40, **draw)


def check(case, params):
    made, settings, people = parts_of(case)
    found = cdmt(made, settings).sample(KEY, params, None, 20, options=FEW)
    assert_of(found, made, 20)
    assert set(found.length) <= set(people.length)
    if not settings.masks:
        assert found.temporal.observed[valid_steps(found)].all()


@pytest.mark.parametrize("case", CASES)
def test_samples_of_every_shape(case):
    check(case, untrained(*parts_of(case), spread=0.15)[1])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_training_of_every_shape(case):
    made, settings, people = parts_of(case)
    params = cdmt(made, settings).fit(KEY, people)
    for leaf in jax.tree.leaves(params["weights"]):
        assert np.isfinite(leaf).all()
    check(case, params)


@functools.cache
def small():
    made = schema(static=STATIC[:2], temporal=TEMPORAL[:2])
    return made, config(), cohort(made), cohort(made, seed=5, count=12)


@functools.cache
def trained():
    made, settings, people, _ = small()
    return untrained(made, settings, people, spread=0.15)[1]


def test_fitted_on_train_only(monkeypatch):
    """Preprocessing takes nothing from validation patients, who are encoded with it."""
    made, settings, people, valid = small()
    encoded = []

    def no_training(key, objective, data, *, valid, **_):
        encoded.append(valid)
        return Trained({}, None, 0.0)

    monkeypatch.setattr(cdmt_model, "train", no_training)
    for others in (valid, cohort(made, seed=6, count=12), None):
        found = cdmt(made, settings).fit(KEY, people, valid=others)
        assert_same(found["fitted"], trained()["fitted"])
    assert encoded[0].numeric.shape == (12, 4, 1)
    assert encoded[2] is None


def test_another_instance_compiles_nothing():
    made, settings, _, _ = small()
    wanted = cdmt(made, settings).sample(KEY, trained(), None, 9, options=FEW)
    before = compilations[0]
    found = cdmt(made, settings).sample(KEY, trained(), None, 9, options=FEW)
    assert compilations[0] == before
    assert_same(found, wanted)


def test_saved_and_loaded_runs_sample_the_same(tmp_path):
    made, settings, people, _ = small()
    numbers = np.arange(60)
    data = Dataset(made, people, numbers, numbers, {})
    info = runs.describe("cdmt", data, settings, 3, 0.2)
    run = runs.Run("cdmt", settings, made, trained(), info)
    runs.save_run(run, tmp_path / "run")
    loaded = runs.load_run(tmp_path / "run")
    assert loaded.config == settings
    assert loaded.schema == made
    assert_same(loaded.params, run.params)
    found, wanted = (
        runs.sample_run(r, 7, seed=1, label=1, options=FEW) for r in (loaded, run)
    )
    assert_same(found.cohort, wanted.cohort)
    assert (found.cohort.label == 1).all()
    assert found.ids.tolist() == list(range(1, 8))


def test_learned_schedule_for_plots():
    made, settings, _, _ = small()
    blocks = learned_schedule(made, settings, trained())
    assert blocks["numeric"]["names"] == ["hr"]
    assert blocks["coded"]["names"] == ["rhythm", "hr missing", "rhythm missing"]
    assert blocks["numeric"]["sigma"].shape == (51, 4, 1)
    assert blocks["static_coded"]["sigma"].shape == (51, 1, 3)
    for block in blocks.values():
        assert (np.diff(block["sigma"], axis=0) > 0).all()
    np.testing.assert_allclose(blocks["numeric"]["sigma"][0], 0.002, rtol=1e-5)
    np.testing.assert_allclose(blocks["numeric"]["sigma"][-1], 80.0, rtol=1e-5)
    np.testing.assert_allclose(blocks["coded"]["sigma"][-1], 100.0, rtol=1e-5)


def test_a_vote_needs_patients_with_steps():
    made = schema()
    people = cohort(made)
    silent = int((people.length == 0).sum())
    model = cdmt(made, config(mode="unconditional"))
    with pytest.raises(InputError, match=f"but {silent} patients have none"):
        model.fit(KEY, people)


def dependent(count):
    """b is 1 with probability 0.2 at each step; x is 10 where b = 0 and 20 where 1."""
    features = (
        Feature(name="b", kind="binary", categories=(0, 1)),
        Feature(name="x", kind="numeric"),
    )
    b = np.random.default_rng(0).random((count, 2)) < 0.2
    values = np.where(b, 20.0, 10.0)[..., None]
    seen = np.ones((count, 2, 2), bool)
    table = Table(values, b[..., None].astype(np.int32), seen)
    none = np.zeros(count, int)
    made = Schema(temporal=features, num_steps=2)
    return made, make_cohort(empty_table((count,), ()), table, none + 2, none)


def test_a_known_law_is_learned():
    """P(b = 1) within 4 s.e. of 1,024 independent values, and 98 % of x fit b."""
    made, people = dependent(2048)
    settings = config(
        hidden=16,
        masks=False,
        train={
            "steps": 300,
            "batch_size": 128,
            "learning_rate": 1e-2,
            "lr_schedule": "cosine",
            "eval_every": 300,
        },
    )
    model = cdmt(made, settings)
    params = model.fit(KEY, people)
    found = model.sample(KEY, params, None, 512, options=CdmtSampling(steps=30))
    b = found.temporal.codes[..., 0]
    assert abs(b.mean() - 0.2) < 4 * 0.4 / np.sqrt(b.size)
    fits = found.temporal.numeric[..., 0] == np.where(b, 20.0, 10.0)
    assert fits.mean() > 0.98
    one_step = (b[:, 0] * b[:, 1]).mean()  # the steps are independent
    assert abs(one_step - 0.04) < 4 * np.sqrt(0.04 * 0.96 / 512)
