"""Geometry of CorGAN at any width, convolutions by loops, clipped critic, its turns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import corgan as module
from jaxehr.baselines.corgan import DOWN, LENGTH, PRESETS, UP, CorganConfig, corgan
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.rows import FLAT
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import rows_of
from jaxehr.core.configs import replace
from jaxehr.core.sparse import SparseTable
from jaxehr.training.config import TrainConfig
from jaxehr.training.loop import train

MADE = schema()
KEY = jax.random.key(0)
RATE = 1e-3
CONFIG = CorganConfig(
    channels=1,
    critic=8,
    l2=0.01,
    train=TrainConfig(steps=3, batch_size=16, learning_rate=RATE, ema_decay=0.0),
)


@functools.cache
def start():
    """(layout, data, batch, parameters of both stages)."""
    people = complete(cohort(MADE))
    fitted = FLAT.fit(MADE, people, False)
    layout = FLAT.layout(MADE, fitted)
    data = FLAT.encode(fitted, layout, people)
    batch = FLAT.take(layout, data, jnp.arange(8))
    params = jax.jit(module.autoencoder(layout, CONFIG).init)(KEY, batch)
    params |= module.duel(layout, CONFIG).init(jax.random.key(1), None)
    return layout, data, batch, params


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_lengths_by_the_formula():
    """1071 -> 1 by (L - k) / s + 1, and back by s (L - 1) + k."""
    lengths = [LENGTH]
    for kernel, stride, _ in DOWN:
        lengths.append((lengths[-1] - kernel) // stride + 1)
    assert lengths == [1071, 534, 265, 87, 28, 8, 1]
    lengths = [1]
    for kernel, stride, _ in UP:
        lengths.append(stride * (lengths[-1] - 1) + kernel)
    assert lengths == [1, 5, 21, 87, 265, 535, 1071]


@pytest.mark.parametrize(
    ("width", "folds", "copies"),
    [(3, 1, 357), (400, 1, 2), (1071, 1, 1), (1072, 2, 1), (2000, 2, 1)],
)
def test_the_geometry_closes(width, folds, copies):
    x = 1.0 + jnp.arange(2.0 * width).reshape(2, width)
    folded = module.fold(x)
    assert folded.shape == (2, LENGTH, folds)
    np.testing.assert_allclose(module.unfold(folded, width), x, rtol=1e-6)
    places = np.asarray(folded[0].T).ravel()  # the second channel goes on
    np.testing.assert_array_equal(places[: width * copies : copies], x[0])
    np.testing.assert_array_equal(places[copies - 1 : width * copies : copies], x[0])
    assert not places[width * copies :].any()
    z, _ = jax.eval_shape(module.Encoder(4).init_with_output, KEY, folded)
    assert z.shape == (2, 128)
    out, _ = jax.eval_shape(module.Decoder(4, folds).init_with_output, KEY, z)
    assert out.shape == (2, LENGTH, folds)


def test_parameters_by_hand():
    """At the published sizes: 4 to 128 channels, a critic of three layers of 256."""
    layout, _, batch, _ = start()
    config, d = CorganConfig(), layout.width
    first = jax.eval_shape(module.autoencoder(layout, config).init, KEY, batch)
    down, up = [1, 4, 8, 16, 32, 64, 128], [128, 64, 32, 16, 8, 4, 1]
    kernels = [5, 5, 5, 5, 5, 8], [5, 5, 7, 7, 7, 3]
    convolutions = lambda sizes, kernels: sum(
        (k * one + 1) * two for k, one, two in zip(kernels, sizes, sizes[1:])
    )
    norms = lambda sizes: 2 * sum(sizes[2:6])
    assert count(first["encoder"]) == convolutions(down, kernels[0]) + norms(down)
    assert count(first["decoder"]) == convolutions(up, kernels[1]) + norms(up)
    second = jax.eval_shape(lambda: module.duel(layout, config).init(KEY, None))
    assert count(second["generator"]) == 2 * (128 * 128 + 2 * 128)
    assert count(second["critic"]) == (d + 1) * 256 + 2 * 257 * 256 + 257


def test_convolutions_by_loops():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 11, 3)).astype(np.float32)
    layer = module.Narrow(4, 5, 3)
    params = layer.init(KEY, x)["params"]["kernel"]
    found = layer.apply({"params": {"kernel": params}}, x)
    kernel = np.asarray(params["kernel"]).reshape(5, 3, 4)
    wanted = [
        np.einsum("bkc,kcf->bf", x[:, at : at + 5], kernel) for at in range(0, 7, 3)
    ]
    np.testing.assert_allclose(found, np.stack(wanted, 1), rtol=1e-4, atol=1e-5)
    layer = module.Widen(4, 5, 3)
    params = layer.init(KEY, x)["params"]
    params = {**params, "bias": jnp.arange(4.0)}
    kernel = np.asarray(params["kernel"]["kernel"]).reshape(3, 5, 4)
    wanted = np.zeros((2, 3 * 10 + 5, 4)) + np.arange(4.0)
    for at in range(11):
        wanted[:, 3 * at : 3 * at + 5] += np.einsum("bc,ckf->bkf", x[:, at], kernel)
    found = layer.apply({"params": params}, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def judge(params, x):
    """Mean of the critic in NumPy."""
    for layer in range(4):
        dense = params[f"layer_{layer}"]
        x = x @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
        x = np.maximum(x, 0.0) if layer < 3 else x
    return x.mean()


def test_losses_of_both_players_by_hand():
    layout, _, batch, params = start()
    key = jax.random.key(4)
    z = jax.random.normal(key, (8, CONFIG.latent))
    logits, _ = module.generate(layout, CONFIG, params, z, {})
    made = judge(params["critic"], matrix.probabilities(layout, logits, unit=True))
    real = judge(params["critic"], matrix.matrix_of(layout, batch, unit=True))
    squares = lambda *names: sum(
        float((leaf**2).sum()) for leaf in jax.tree.leaves([params[n] for n in names])
    )
    one, two = module.duel(layout, CONFIG).players
    assert module.duel(layout, CONFIG).whole  # batches are normalised
    assert module.autoencoder(layout, CONFIG).whole
    found, told = one.loss(params, key, batch)
    decay = 0.005 * squares("critic")
    np.testing.assert_allclose(found, made - real + decay, rtol=1e-4)
    np.testing.assert_allclose(told["distance"], real - made, rtol=1e-3, atol=1e-6)
    found, _ = two.loss(params, key, batch)
    decay = 0.005 * squares("generator", "decoder")
    np.testing.assert_allclose(found, decay - made, rtol=1e-4)


def test_turns_clipped_weights_and_a_slow_decoder():
    """Five updates of the critic a step; Adam's steps are at first its step size."""
    layout, data, _, params = start()
    take = functools.partial(FLAT.take, layout)
    objective = module.duel(layout, CONFIG)._replace(take=take)
    begun = {"decoder": params["decoder"]}
    state = module.shared.prepared(objective, CONFIG.train, KEY, begun)
    done = train(KEY, objective, data, config=CONFIG.train, start=state).state
    counts = [
        int(leaf)
        for one in done.opt_state
        for leaf in jax.tree.leaves(one)
        if leaf.ndim == 0
    ]
    assert counts == [5 * 3, 3]
    largest = lambda tree: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))
    assert largest(state.params["critic"]) > 2 * CONFIG.clip
    assert largest(done.params["critic"]) <= CONFIG.clip * (1 + 1e-5)
    change = jax.tree.map(jnp.subtract, done.params, state.params)
    np.testing.assert_allclose(largest(change["generator"]), 3 * RATE, rtol=0.1)
    np.testing.assert_allclose(largest(change["decoder"]), 0.3 * RATE, rtol=0.1)


def test_settled_moments_are_those_of_all_layers():
    """Generator and decoder: moments of other noise within 5 standard errors."""
    layout, _, _, params = start()
    run = lambda moments, z: module.generate(layout, CONFIG, params, z, moments)[1]
    settle = jax.jit(lambda key: module.shared.settle(key, run, CONFIG.latent))
    moments = settle(jax.random.key(2))
    assert set(moments["decoder"]) == {f"norm_{i}" for i in (1, 2, 3, 4)}
    z = jax.random.normal(jax.random.key(3), (1500, CONFIG.latent))
    found = jax.jit(run)(moments, z)
    layers = lambda tree: [*tree["generator"].items(), *tree["decoder"].items()]
    for (_, kept), (_, fresh) in zip(layers(moments), layers(found), strict=True):
        std = np.sqrt(kept["square"] - kept["mean"] ** 2)
        gap = np.abs(kept["mean"] - fresh["mean"]) / std
        assert gap.max() < 5 * np.sqrt(1 / 16384 + 1 / 1500)


def test_presets_are_known_choices():
    for fields in PRESETS.values():
        replace(CorganConfig(), fields)
    authors = replace(CorganConfig(), PRESETS["authors"])
    assert (authors.latent, authors.train.batch_size) == (128, 512)


def test_sums_of_a_sparse_table_are_drawn_sparse():
    tiny = {"channels": 1, "critic": 8, "autoencoder_epochs": 1}
    settings = {"steps": 2, "batch_size": 16}
    config = replace(CorganConfig(), {**tiny, "train": settings})
    made = sparse_schema()
    people = sparse_cohort(made, count=60)[0]
    model = corgan(made, config)
    params = model.fit(KEY, people, valid=rows_of(people, np.arange(9)))
    assert set(params["weights"]) == {"generator", "decoder", "moments"}
    found = model.sample(jax.random.key(1), params, None, 5)
    assert isinstance(found.temporal, SparseTable)
    assert "kNN (k = 5) imputed" in str(params["input"])


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"channels": 0}, "channels must be positive, got 0"),
        ({"critic": 0}, "critic must be positive, got 0"),
        ({"critic_updates": 0}, "critic_updates must be positive, got 0"),
        ({"clip": 0.0}, "clip must be positive, got 0"),
        ({"autoencoder_epochs": 0}, "autoencoder_epochs must be positive, got 0"),
        ({"decoder_rate": -1.0}, r"decoder_rate must lie in \[0.0"),
        ({"l2": -1.0}, r"l2 must lie in \[0.0"),
        ({"rows": "long"}, "unknown rows 'long'"),
    ],
)
def test_refused_choices(fields, match):
    with pytest.raises(InputError, match=match):
        CorganConfig(**fields)
