"""Sampling: each patient by number alone, frames by frequency, closed forms."""

import functools
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cdmt_builders import compilations, config, sampled, untrained
from scipy import stats
from small_cohorts import STATIC, TEMPORAL, cohort, schema

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Label, rows_of
from jaxehr.models.cdmt import sampling
from jaxehr.models.cdmt.config import CdmtSampling
from jaxehr.models.cdmt.model import cdmt
from jaxehr.models.cdmt.network import Blocks
from jaxehr.models.cdmt.objective import complete, denoise, make_frame

KEY = jax.random.key(4)
MADE = schema(static=STATIC[:2], temporal=TEMPORAL[:2])
PEOPLE = cohort(MADE, count=60)
FEW = CdmtSampling(steps=3)


@functools.cache
def perturbed(**fields):
    """Parameters whose samples depend on everything."""
    return untrained(MADE, config(**fields), PEOPLE, spread=0.15)


def draw(num, label=None, *, options=FEW, fields=None, made=MADE, **rest):
    fields = fields or {}
    _, params, _ = perturbed(**fields)
    model = cdmt(made, config(**fields))
    return model.sample(KEY, params, label, num, options=options, **rest)


def assert_same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def rows(people, index):
    return jax.tree.map(lambda leaf: leaf[np.asarray(index)], people)


def raw(index, **fields):
    """Encoded patients: every bit of the network's numbers."""
    model, params, _ = perturbed(**fields)
    frames = np.asarray(params["fitted"]["frames"], np.float32)
    index = np.asarray(index, np.int32)
    anyone = np.full(len(index), -1, np.int32)
    weights = complete(params["weights"], params["fitted"])
    return sampled(model, FEW, KEY, weights, frames, index, anyone)


@pytest.mark.parametrize(
    "fields",
    [{}, {"categorical": "mask"}, {"prior": "normal", "noise_at": "both"}],
    ids=str,
)
def test_a_patient_depends_on_its_number_only(fields):
    """300 patients fill two blocks of 128 and part of a third."""
    many = raw(range(300), **fields)
    back = np.arange(300)[::-1]
    for index in (range(5), range(130), back, [299, 7]):
        assert_same(raw(index, **fields), rows(many, index))
    values = many.numeric[np.arange(4)[None, :] < many.length[:, None]]
    assert len(np.unique(values)) == values.size


def test_decoded_patients_too():
    many = draw(140)
    assert_same(draw(3, index=[139, 0, 7]), rows(many, [139, 0, 7]))
    assert_same(draw(5), rows(many, range(5)))


def test_patients_are_the_same_on_two_devices():
    here = pathlib.Path(__file__).parent
    root = str(here.parent.parent)
    folders = os.pathsep.join([str(here), str(here.parent), root])
    program = """
        import jax
        jax.config.update("jax_num_cpu_devices", 2)
        from test_cdmt_sampling import assert_same, raw
        assert jax.device_count() == 2
        two = raw(range(130))
        jax.device_count = lambda: 1
        assert_same(raw(range(130)), two)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        env=os.environ | {"PYTHONPATH": folders, "JAX_PLATFORMS": "cpu"},
    )


def test_a_second_call_compiles_nothing():
    draw(3)
    before = compilations[0]
    draw(140)
    draw(9, label=1)
    assert compilations[0] == before


def test_progress_and_no_patient():
    done = []
    draw(130, progress=done.append)
    assert done == [128, 130]
    none = draw(0)
    assert none.temporal.numeric.shape == (0, 4, 1)
    assert none.label.shape == (0,)


def test_labels_are_obeyed():
    assert (draw(20, label=1).label == 1).all()
    assert (draw(20, label=0).label == 0).all()
    wanted = np.arange(20) % 2
    assert (draw(20, label=wanted).label == wanted).all()


def frame_keys(count):
    return jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(count))


def test_frames_follow_their_joint_frequency():
    """Chi-square of 20,000 draws over all cells of label, presence and length."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 40, (3, 2, 5))
    counts[0, 0] = 0
    counts[1, 1, 2] = 0
    draws = sampling.draw_frames(
        frame_keys(20_000), jnp.asarray(counts, jnp.float32), jnp.full(20_000, -1)
    )
    found = np.zeros(counts.shape)
    np.add.at(found, tuple(np.asarray(part, int) for part in draws), 1)
    assert not found[counts == 0].any()
    wanted = counts / counts.sum() * 20_000
    inside = counts > 0
    assert stats.chisquare(found[inside], wanted[inside]).pvalue > 1e-3


def test_balanced_classes_and_their_own_frames():
    """Each class alike within 4 s.e.; a class without patients is never drawn."""
    counts = np.zeros((3, 2, 5))
    counts[0, 1, 4], counts[2, 0, 1] = 970, 30
    draws = sampling.draw_frames(
        frame_keys(4000), jnp.asarray(counts, jnp.float32), jnp.full(4000, -2)
    )
    label = np.asarray(draws.label)
    assert set(label) == {0, 2}
    assert abs((label == 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    np.testing.assert_array_equal(draws.length, np.where(label == 0, 4, 1))
    np.testing.assert_array_equal(draws.has_static, label == 0)


def test_balanced_patients():
    label = draw(300, label="balanced").label
    assert abs(label.mean() - 0.5) < 4 * 0.5 / np.sqrt(300)


@functools.cache
def guided_calls():
    """Predictions at one noisy state: conditional, unconditional, and by weight."""
    model, params, batch = perturbed()
    frame = make_frame(model, batch.label, batch.length, batch.has_static)
    null = frame._replace(condition=jnp.zeros_like(frame.condition))
    x = sampling.start_noise(model, frame_keys(60), sampling.block_shapes(model, 4))
    sigma = Blocks(2.0, jnp.float32(3.0), 2.0, jnp.float32(3.0))

    @jax.jit
    def every(weights):
        time = jnp.full(60, 0.5)
        found = {
            "label": denoise(model, weights, x, sigma, time, frame),
            "none": denoise(model, weights, x, sigma, time, null),
        }
        for w, coded in GUIDANCE:
            options = CdmtSampling(guidance=w, guidance_categorical=coded)
            call = sampling.guided(model, weights, options, frame)
            found[f"{w} {coded}"] = call(x, sigma, jnp.float32(0.5))
        return found

    return every(params["weights"])


GUIDANCE = [(0.0, None), (-1.0, None), (1.5, None), (0.0, 2.0)]


def mixed(weights):
    """(1 + w) conditional - w unconditional, block by block."""
    found = guided_calls()
    return [
        (1 + w) * c - w * u
        for w, c, u in zip(weights, found["label"], found["none"], strict=True)
    ]


@pytest.mark.parametrize(("w", "coded"), GUIDANCE)
def test_guidance(w, coded):
    other = w if coded is None else coded
    found, wanted = guided_calls()[f"{w} {coded}"], mixed([w, other, w, other])
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


def test_the_label_changes_the_prediction():
    found = guided_calls()
    change = np.abs(np.asarray(found["label"].numeric - found["none"].numeric))
    assert change.max() > 1e-3


@pytest.mark.parametrize(
    ("categorical", "solver"), [("embedding", "dpmpp-2m"), ("mask", "euler")]
)
def test_the_solver_that_auto_stands_for(categorical, solver):
    fields = {"categorical": categorical}
    found, wanted = (
        draw(3, fields=fields, options=CdmtSampling(steps=3, solver=name))
        for name in ("auto", solver)
    )
    assert_same(found, wanted)


@functools.cache
def at_start(categorical="embedding"):
    """The model before training: F = 0 and logits = log frequencies."""
    settings = config(categorical=categorical)
    return untrained(
        MADE, settings, cohort(MADE, count=400, variable=False, missing=0.3)
    )


def encoded(options, num=640, categorical="embedding"):
    model, params, _ = at_start(categorical)
    frames = np.asarray(params["fitted"]["frames"], np.float32)
    everyone = np.full(num, -1, np.int32)
    return sampled(
        model, options, KEY, params["weights"], frames, np.arange(num), everyone
    )


@pytest.mark.parametrize(
    ("solver", "steps", "std"),
    [
        ("euler", 50, 0.9488),
        ("euler", 18, 0.8595),
        ("heun", 50, 1.0),
        ("dpmpp-2m", 50, 1.0052),
        ("adams-3", 50, 0.9990),
    ],
)
def test_standard_deviation_of_the_flow(solver, steps, std):
    """D = x / (1 + sigma^2), the exact denoiser of N(0, 1) data, at rho = 7."""
    z = encoded(CdmtSampling(solver=solver, steps=steps)).numeric
    error = std / np.sqrt(2 * z.size)
    assert abs(z.std() - std) < 4 * error + 0.002
    assert abs(z.mean()) < 4 * std / np.sqrt(z.size)


def test_argmax_gives_the_most_frequent_code():
    _, params, _ = at_start()
    found = encoded(CdmtSampling(steps=2, decode="argmax"), num=10)
    for block, where in (("codes", "temporal"), ("static_codes", "static")):
        codes = getattr(found, block)
        modes = params["fitted"]["frequency"][where].argmax(-1)
        np.testing.assert_array_equal(codes, np.broadcast_to(modes, codes.shape))


def test_unmasking_draws_the_marginal():
    """Constant logits: codes are independent draws; 4 s.e. over the columns."""
    _, params, _ = at_start("mask")
    found = encoded(CdmtSampling(steps=8), categorical="mask")
    for block, where in (("codes", "temporal"), ("static_codes", "static")):
        codes = getattr(found, block)
        for column, shares in enumerate(params["fitted"]["frequency"][where]):
            values = codes[..., column].reshape(-1)
            share = np.bincount(values, minlength=len(shares)) / values.size
            assert len(share) == len(shares)  # no mask is left
            error = np.sqrt(shares * (1 - shares) / values.size)
            assert (np.abs(share - shares) <= 4 * error).all()


def test_refused_options():
    with pytest.raises(InputError, match="mask diffusion has the euler sampler only"):
        draw(1, fields={"categorical": "mask"}, options=CdmtSampling(solver="heun"))
    guided = CdmtSampling(guidance=1.0)
    with pytest.raises(InputError, match="guidance needs a model trained with --mode"):
        draw(1, fields={"mode": "unconditional"}, options=guided)
    with pytest.raises(InputError, match="guidance needs a model"):
        draw(1, made=MADE.replace(label=None), options=guided)


@pytest.mark.parametrize(
    ("label", "match"),
    [
        (2, r"label codes must lie in \[0, 2\), got 2 to 2; the classes are \[0, 1\]"),
        ([0, -1, 1], r"got -1 to 1"),
    ],
)
def test_refused_labels(label, match):
    with pytest.raises(InputError, match=match):
        draw(np.size(label), label=label)


def test_a_label_for_a_model_that_draws_its_own():
    with pytest.raises(InputError, match="this model draws the label itself"):
        draw(1, label=1, fields={"mode": "unconditional"})
    with pytest.raises(InputError, match="this model draws the label itself"):
        draw(1, label="balanced", made=MADE.replace(label=None))


def test_a_class_without_training_patients():
    wider = MADE.replace(label=Label(name="died", classes=(0, 1, 2)))
    people = PEOPLE._replace(label=PEOPLE.label * 2)
    _, params, _ = untrained(wider, config(), people, spread=0.5)
    model = cdmt(wider, config())
    with pytest.raises(InputError, match="no training patient has 'died' = 1; ask for"):
        model.sample(KEY, params, 1, 3, options=FEW)


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_blocks_come_in_order_however_many_are_under_way(ahead):
    begun = []
    items = (begun.append(i) or i for i in range(4))
    seen = [(item, len(begun)) for item in sampling.kept_ahead(items, ahead)]
    assert seen == [(i, min(i + 1 + ahead, 4)) for i in range(4)]


def test_guidance_without_labels_hidden_in_training():
    model = cdmt(MADE, config(label_drop=0.0))
    with pytest.raises(InputError, match="label-drop above 0"):
        model.sample(KEY, perturbed()[1], None, 2, options=CdmtSampling(guidance=1.0))


def test_mask_diffusion_has_nothing_to_decode():
    model = cdmt(MADE, config(categorical="mask"))
    with pytest.raises(InputError, match="decode is for embeddings"):
        model.sample(KEY, {}, None, 2, options=CdmtSampling(decode="argmax"))


def test_patients_are_drawn_by_length_and_come_back_in_order():
    _, params, _ = perturbed()
    frames = np.asarray(params["fitted"]["frames"], np.float32)
    numbers, label = np.arange(40, dtype=np.int32), np.full(40, -1, np.int32)
    order = sampling.by_length(KEY, frames, numbers, label)
    drawn = draw(40).length
    np.testing.assert_array_equal(np.sort(drawn), drawn[order])
    assert len(set(drawn)) > 2
    assert_same(draw(40, index=numbers[::-1]), rows_of(draw(40), numbers[::-1]))
    one = frames * (np.arange(frames.shape[-1]) == 3)
    np.testing.assert_array_equal(sampling.by_length(KEY, one, numbers, label), numbers)
