"""Networks of EHR-M-GAN by loops in NumPy; its branches, turns and choices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import ehrmgan_networks as nets
from jaxehr.baselines import ehrmgan_players as play
from jaxehr.baselines.adversarial import prepared
from jaxehr.baselines.ehrmgan import (
    PRESETS,
    EhrmganConfig,
    autoencoders,
    draw,
    ehrmgan,
)
from jaxehr.baselines.forms.series import SERIES
from jaxehr.baselines.recipe import Sampling
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature
from jaxehr.core.configs import replace
from jaxehr.core.sparse import SparseTable
from jaxehr.training.config import TrainConfig
from jaxehr.training.loop import train

MADE = schema()
KEY = jax.random.key(0)
SMALL = {"hidden": 5, "generator": 6, "discriminator": 4, "num_layers": 2, "latent": 3}
CONFIG = EhrmganConfig(
    **SMALL, dropout=0.0, train=TrainConfig(steps=2, batch_size=16, ema_decay=0.0)
)
WIDTHS, CLASSES, STEPS = (4, 7), 2, 3
X = np.random.default_rng(0).random((8, STEPS, WIDTHS[0])).astype(np.float32)
TOLD = np.eye(2, dtype=np.float32)[np.arange(8) % 2]


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@functools.cache
def autoencoder():
    return nets.init_autoencoder(KEY, CONFIG, WIDTHS, CLASSES)


def test_parameters_by_hand():
    """At the published sizes, of 14 numbers and 9 codes over 24 steps."""
    config, widths = EhrmganConfig(), (14, 9)
    lstm = lambda inputs, units: 4 * units * (inputs + units + 1)
    shape = lambda make, *rest: jax.eval_shape(lambda: make(KEY, config, widths, *rest))
    found = shape(nets.init_autoencoder, CLASSES)
    heads = 2 * (128 + 1) * 25
    assert count(found["shared"]) == lstm(128, 128) + lstm(25 + 2, 128) + heads
    for name, width in zip(nets.BRANCHES, widths):
        encoder = lstm(2 * width + 2, 128) + lstm(128, 128)
        decoder = 2 * lstm(128, 128) + 129 * width
        assert count(found[name]) == encoder + decoder
    found = shape(nets.init_generators, CLASSES)
    for name, width in zip(nets.BRANCHES, widths):
        first = 4 * 512 * (width // 2 + 2 + 2 * 512)
        assert count(found[name]) == first + 2 * 4 * 512 * 3 * 512 + 513 * 25
    found = shape(nets.init_discriminators, 24)
    for name, width in zip(nets.BRANCHES, widths):
        layers = lstm(width, 256) + 2 * lstm(256, 256)
        assert count(found[name]) == layers + 24 * 256 + 1


def test_wide_branches_are_projected_first():
    config, widths = EhrmganConfig(projection=16, **SMALL), (300, 7)
    found = nets.init_autoencoder(KEY, config, widths, 0)
    assert count(found["continuous"]["projection"]) == 301 * 16
    assert "projection" not in found["discrete"]
    assert found["continuous"]["encoder_0"]["w_input"].shape == (32, 4 * 5)
    judges = nets.init_discriminators(KEY, config, widths, STEPS)
    assert judges["continuous"]["layer_0"]["w_input"].shape == (16, 4 * 4)
    x, key = jnp.ones((2, STEPS, 300)), jax.random.key(1)
    run = functools.partial(nets.autoencode, config, found["continuous"])
    logits = run(found["shared"], key, x, jnp.zeros((2, 0)))[0]
    assert logits.shape == x.shape


def step(weights, x, state, other=None):
    """An LSTM cell in NumPy."""
    w = {name: np.asarray(leaf, float) for name, leaf in weights.items()}
    parts = x @ w["w_input"] + state[0] @ w["w_hidden"] + w.get("bias", 0.0)
    if other is not None:
        parts = parts + other @ w["w_other"]
    i, f, g, o = np.split(parts, 4, -1)
    c = expit(f) * state[1] + expit(i) * np.tanh(g)
    return expit(o) * np.tanh(c), c


def dense(weights, x):
    return x @ np.asarray(weights["kernel"], float) + np.asarray(weights["bias"], float)


def test_the_autoencoder_by_a_loop():
    """Its error goes back into the encoder; one e makes the latents of all steps."""
    weights, key = autoencoder(), jax.random.key(3)
    own, shared = weights["continuous"], weights["shared"]
    run = jax.jit(functools.partial(nets.autoencode, CONFIG))
    logits, mean, log_std, z = run(own, shared, key, X, TOLD)
    e = np.asarray(z[:, 0] - mean[:, 0]) / np.exp(log_std[:, 0])
    assert 0.5 < e.std() < 1.5
    zero = np.zeros((8, 5))
    states, c = [(zero, zero)] * 4, np.zeros((8, WIDTHS[0]))
    for t in range(STEPS):
        h = np.concatenate([X[:, t], TOLD, X[:, t] - expit(c)], 1)
        for i, layer in enumerate((own["encoder_0"], shared["encoder"])):
            states[i] = step(layer, h, states[i])
            h = states[i][0]
        center, spread = dense(shared["mean"], h), dense(shared["deviation"], h)
        np.testing.assert_allclose(mean[:, t], center, atol=1e-4)
        np.testing.assert_allclose(log_std[:, t], spread, atol=1e-4)
        h = center + np.exp(spread) * e
        np.testing.assert_allclose(z[:, t], h, atol=1e-4)
        h = np.concatenate([h, TOLD], 1)
        for i, layer in enumerate((shared["decoder"], own["decoder_0"]), 2):
            states[i] = step(layer, h, states[i])
            h = states[i][0]
        c = dense(own["out"], h)
        np.testing.assert_allclose(logits[:, t], c, atol=1e-4)
    again = nets.decode(CONFIG, own, shared, z, jnp.asarray(TOLD))
    np.testing.assert_allclose(again, logits, atol=1e-5)


def test_the_generators_by_a_loop():
    weights = nets.init_generators(KEY, CONFIG, WIDTHS, CLASSES)
    rng, sizes = np.random.default_rng(1), nets.noise_sizes(WIDTHS)
    assert sizes == (2, 3)
    noise = [rng.random((8, STEPS, size)).astype(np.float32) for size in sizes]
    run = jax.jit(functools.partial(nets.generate, CONFIG, weights))
    found = run(tuple(noise), TOLD)
    states = [[(np.zeros((8, 6)),) * 2] * 2] * 2
    for t in range(STEPS):
        new = [[], []]
        for k, name in enumerate(nets.BRANCHES):
            h = np.concatenate([noise[k][:, t], TOLD], 1)
            for i in range(2):
                other = states[1 - k][i][0]
                layer = weights[name][f"layer_{i}"]
                new[k].append(step(layer, h, states[k][i], other))
                h = new[k][i][0]
            wanted = dense(weights[name]["out"], h)
            np.testing.assert_allclose(found[k][:, t], wanted, atol=1e-5)
        states = new
    noise[0][:, 0] += 1.0
    moved = np.abs(run(tuple(noise), TOLD)[1] - found[1]).max((0, 2))
    assert moved[0] == 0.0  # only the state of the step before is read
    assert (moved[1:] > 1e-6).all()
    bound = replace(CONFIG, {"latents": "sigmoid"})
    squashed = nets.generate(bound, weights, tuple(noise), jnp.asarray(TOLD))[0]
    wanted = expit(run(tuple(noise), TOLD)[0])
    np.testing.assert_allclose(squashed, wanted, atol=1e-6)


def test_dropout_keeps_the_mean():
    """Within 5 standard errors of 40,000 draws."""
    h = nets.dropped(0.2, KEY, jnp.ones(40_000))
    assert set(np.unique(h).round(5)) == {0.0, 1.25}
    assert abs(float(h.mean()) - 1.0) < 5 * 0.5 / 200


def layout_of(made, people, conditional=True):
    fitted = SERIES.fit(made, people, conditional)
    layout = SERIES.layout(made, fitted)
    return layout, SERIES.encode(fitted, layout, people)


@functools.cache
def dense_layout():
    return layout_of(MADE, complete(cohort(MADE)))


def test_branches_by_kinds_and_by_parts():
    layout, _ = dense_layout()
    kinds = play.branches_of(layout, CONFIG)
    assert kinds.continuous.tolist() == list(range(layout.numbers)) == [0, 1, 2]
    for split in ("kinds", "parts"):
        found = play.branches_of(layout, replace(CONFIG, {"branches": split}))
        everything = np.sort(np.concatenate(found))
        np.testing.assert_array_equal(everything, np.arange(layout.width))
    # temporal: hr, lab, their masks, vent, its mask, rhythm of 3 codes and its mask
    parts = replace(CONFIG, {"branches": "parts"})
    temporal = play.branches_of(layout, parts).continuous
    part = layout.parts[0]
    wide = sum(k if k > 2 else k - 1 for k in part.cardinalities)
    assert len(temporal) == len(part.numeric) + wide
    made = sparse_schema()
    thin, _ = layout_of(made, sparse_cohort(made)[0])
    assert len(play.branches_of(thin, CONFIG).continuous) == 11


def test_one_kind_of_column_is_refused():
    numbers = (Feature(name="hr", kind="numeric"),)
    made = schema(static=(), temporal=numbers)
    people = cohort(made, missing=0.0, variable=False)
    layout, _ = layout_of(made, people)
    with pytest.raises(InputError, match="by parts have 1 and 0 columns"):
        play.branches_of(layout, CONFIG)


@functools.cache
def whole():
    """(layout, data, places, state before stage 2)."""
    layout, data = dense_layout()
    places = play.branches_of(layout, CONFIG)
    init = functools.partial(play.init_autoencoders, layout, CONFIG, places)
    objective = play.players(layout, CONFIG, places)
    state = prepared(objective, CONFIG.train, KEY, init(jax.random.key(1), None))
    return layout, data, places, state


def test_rounds_and_what_they_move():
    """By default 1, 3 and 1 updates in a round; everyone moves their own only."""
    layout, data, places, state = whole()
    take = functools.partial(SERIES.take, layout)
    objective = play.players(layout, CONFIG, places)._replace(take=take)
    assert objective.whole  # moments of the batch are in the losses
    assert autoencoders(layout, CONFIG, places).whole
    done = train(KEY, objective, data, config=CONFIG.train, start=state).state
    counts = [
        int(leaf)
        for one in done.opt_state
        for leaf in jax.tree.leaves(one)
        if leaf.ndim == 0
    ]
    assert counts == [2 * 1, 2 * 3, 2 * 1]
    assert [player.moves for player in objective.players] == [
        ("discriminators",),
        ("generators",),
        ("autoencoder",),
    ]
    for name in state.params:
        pairs = zip(
            jax.tree.leaves(state.params[name]), jax.tree.leaves(done.params[name])
        )
        assert any((a != b).any() for a, b in pairs)


def test_the_loss_of_the_autoencoders_is_the_weighted_sum():
    layout, data, places, state = whole()
    batch = SERIES.take(layout, data, jnp.arange(8))
    loss = functools.partial(play.autoencoding, layout)
    found, told = loss(CONFIG, places, state.params, KEY, batch)
    wanted = told["numbers"] + told["codes"] + 0.5 * told["kl"]
    wanted += 0.1 * told["matching"] + 0.1 * told["contrast"] + told["semantics"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    slope = jax.grad(lambda p: loss(CONFIG, places, p, KEY, batch)[0])(state.params)
    shared = slope["autoencoder"]["shared"]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(shared))
    mean = replace(CONFIG, {"reconstruction": "mean"})
    _, other = loss(mean, places, state.params, KEY, batch)
    cells = layout.steps * np.array(places.widths)
    np.testing.assert_allclose(other["codes"] * cells[1], told["codes"], rtol=1e-4)
    scale = cells[0] / (2 * CONFIG.deviation**2)
    np.testing.assert_allclose(other["numbers"] * scale, told["numbers"], rtol=1e-4)


def test_losses_of_the_other_players():
    layout, data, places, state = whole()
    batch = SERIES.take(layout, data, jnp.arange(8))
    run = (layout, CONFIG, places, state.params, KEY, batch)
    logits, features, series = play.judged(*run)
    fooled = sum(np.log1p(np.exp(-np.asarray(one[0], float))).mean() for one in logits)
    gap = play.losses.feature_gap(*features[0]) + play.losses.data_gap(*series[1])
    found, told = play.generating(*run)
    np.testing.assert_allclose(found, fooled + 20 * gap, rtol=1e-4)
    for made, real in series:
        assert made.shape == real.shape
        assert made.min() >= 0.0
        assert made.max() <= 1.0
    found, told = play.judging(*run)
    np.testing.assert_allclose(found, told["numbers"] + told["codes"], rtol=1e-6)
    assert 1.2 < float(found) / 2 < 1.6  # two times log 2 of a judge at random


def test_what_lasts_is_drawn_once():
    layout, _, _, state = whole()
    lasts = play.lasting(layout)
    first = len(layout.parts[0].cardinalities)
    assert lasts.sum() == len(lasts) - first - 1  # all static codes but "ended"
    assert not lasts[[*range(first), layout.extra["ended"]]].any()
    keys, label = jax.random.split(jax.random.key(5), 50), jnp.arange(50) % 2
    drawn = draw(layout, CONFIG, Sampling(), state.params, keys, label)
    changes = (drawn.codes != drawn.codes[:, :1]).any((0, 1))
    assert not changes[lasts].any()
    assert changes[~lasts].mean() > 0.5
    some = draw(layout, CONFIG, Sampling(), state.params, keys[7:9], label[7:9])
    np.testing.assert_array_equal(some.codes, drawn.codes[7:9])
    np.testing.assert_allclose(some.numeric, drawn.numeric[7:9], atol=1e-4)


def test_presets_are_known_choices():
    for fields in PRESETS.values():
        replace(EhrmganConfig(), fields)
    authors = replace(EhrmganConfig(), PRESETS["authors"])
    assert (authors.kl, authors.train.batch_size) == ("published", 256)


def test_a_sparse_table_without_the_label_told():
    brief = {"autoencoder_epochs": 1, "conditional": False}
    settings = {"steps": 2, "batch_size": 16}
    config = replace(EhrmganConfig(**SMALL), {**brief, "train": settings})
    made = sparse_schema()
    people = sparse_cohort(made, count=60)[0]
    model = ehrmgan(made, config)
    params = model.fit(KEY, people)
    assert "label as column" in str(params["input"])
    assert "classifier" not in params["weights"]["autoencoder"]
    found = model.sample(jax.random.key(1), params, None, 5)
    assert isinstance(found.temporal, SparseTable)
    with pytest.raises(InputError, match="draws the label itself"):
        model.sample(KEY, params, 1, 5)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"branches": "x"}, "unknown branches 'x'"),
        ({"latents": "x"}, "unknown latents 'x'"),
        ({"kl": "x"}, "unknown kl 'x'"),
        ({"reconstruction": "x"}, "unknown reconstruction 'x'"),
        ({"hidden": 0}, "hidden must be positive, got 0"),
        ({"generator": 0}, "generator must be positive, got 0"),
        ({"discriminator": 0}, "discriminator must be positive, got 0"),
        ({"latent": 0}, "latent must be positive, got 0"),
        ({"deviation": 0.0}, "deviation must be positive, got 0"),
        ({"projection": 0}, "projection must be positive, got 0"),
        ({"generator_updates": 0}, "generator_updates must be positive, got 0"),
        ({"autoencoder_epochs": 0}, "autoencoder_epochs must be positive, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0.0, 0.99\], got 1.0"),
        ({"num_layers": 1}, r"num_layers must lie in \[2, 9\], got 1"),
        ({"features": -1.0}, r"features must lie in \[0.0"),
    ],
)
def test_refused_choices(fields, match):
    with pytest.raises(InputError, match=match):
        EhrmganConfig(**fields)
