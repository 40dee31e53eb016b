"""Losses of medGAN in NumPy, its turns, counts of parameters; refused choices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import medgan as module
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.rows import FLAT
from jaxehr.baselines.medgan import PRESETS, MedganConfig, medgan
from jaxehr.core.checks import InputError
from jaxehr.core.cohort import rows_of
from jaxehr.core.configs import replace
from jaxehr.core.sparse import SparseTable
from jaxehr.training.config import TrainConfig
from jaxehr.training.loop import train

MADE = schema()
CONFIG = MedganConfig(
    latent=5, discriminator=8, l2=0.01, train=TrainConfig(steps=4, batch_size=16)
)
KEY = jax.random.key(0)


@functools.cache
def start():
    """(layout, data, batch, parameters of both stages)."""
    people = complete(cohort(MADE))
    fitted = FLAT.fit(MADE, people, False)
    layout = FLAT.layout(MADE, fitted)
    data = FLAT.encode(fitted, layout, people)
    batch = FLAT.take(layout, data, jnp.arange(8))
    params = module.autoencoder(layout, CONFIG).init(KEY, batch)
    params |= module.duel(layout, CONFIG).init(jax.random.key(1), None)
    return layout, data, batch, params


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("hidden", [0, 512])
def test_parameters_by_hand(hidden):
    """At the published sizes: 128 coordinates, 256 and 128 units."""
    layout, _, batch, _ = start()
    config, d, size = MedganConfig(hidden=hidden), layout.width, 128
    first = jax.eval_shape(module.autoencoder(layout, config).init, KEY, batch)
    init = functools.partial(module.duel(layout, config).init, batch=None)
    second = jax.eval_shape(init, KEY)
    if hidden:
        wanted = (d + 1) * 512 + 513 * size, (size + 1) * 512 + 513 * d
    else:
        wanted = (d + 1) * size, (size + 1) * d
    assert (count(first["encoder"]), count(first["decoder"])) == wanted
    assert count(second["generator"]) == 3 * (128 * 128 + 2 * 128)
    judging = (2 * d + 1) * 256 + 257 * 128 + 129
    assert count(second["discriminator"]) == judging


def judge(params, x):
    """Logits in NumPy, of rows with the mean of the batch beside them."""
    h = np.concatenate([x, np.broadcast_to(x.mean(0), x.shape)], 1)
    for layer in range(3):
        dense = params["mlp"][f"layer_{layer}"]
        h = h @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
        h = np.maximum(h, 0.0) if layer < 2 else h
    return h[:, 0]


def test_losses_of_both_players_by_hand():
    layout, _, batch, params = start()
    objective, key = module.duel(layout, CONFIG), jax.random.key(4)
    assert objective.whole  # both see the batch
    z = jax.random.normal(key, (8, 5))
    logits = module.logits_of(layout, CONFIG, params, z)
    fake = np.asarray(matrix.probabilities(layout, logits, unit=True))
    assert fake.min() >= 0.0
    assert fake.max() <= 1.0
    real = np.asarray(matrix.matrix_of(layout, batch, unit=True))
    squares = lambda *names: sum(
        float((leaf**2).sum()) for leaf in jax.tree.leaves([params[n] for n in names])
    )
    said = lambda x: special.expit(judge(params["discriminator"], x))
    one, two = objective.players
    wanted = -np.log(said(real)).mean() - np.log(1 - said(fake)).mean()
    found, told = one.loss(params, key, batch)
    decay = 0.005 * squares("discriminator")
    np.testing.assert_allclose(found, wanted + decay, rtol=1e-4)
    np.testing.assert_allclose(told["real"] + told["fake"], wanted, rtol=1e-4)
    found, told = two.loss(params, key, batch)
    wanted = -np.log(said(fake)).mean()
    decay = 0.005 * squares("generator", "decoder")
    np.testing.assert_allclose(found, wanted + decay, rtol=1e-4)
    np.testing.assert_allclose(told["fooled"], wanted, rtol=1e-4)


def test_the_autoencoder_reads_a_row_through_its_latent():
    layout, _, batch, params = start()
    both = {name: params[name] for name in ("encoder", "decoder")}
    value, told = module.autoencoder(layout, CONFIG).loss(both, KEY, batch)
    x = np.asarray(matrix.matrix_of(layout, batch, unit=True))
    flat = lambda name: [np.asarray(v) for v in jax.tree.leaves(params[name])]
    bias, kernel = flat("encoder")
    z = np.tanh(x @ kernel + bias)
    bias, kernel = flat("decoder")
    outputs = jnp.asarray(z @ kernel + bias)
    error = module.shared.cross_entropy(layout, outputs, batch).mean()
    np.testing.assert_allclose(told["reconstruction"], error, rtol=1e-4)
    assert value > told["reconstruction"]


def test_turns_and_what_they_move():
    """Two updates of the discriminator in a step, one of generator and decoder."""
    layout, data, _, params = start()
    objective = module.duel(layout, CONFIG)
    take = functools.partial(FLAT.take, layout)
    begun = {"decoder": params["decoder"]}
    state = module.shared.prepared(objective, CONFIG.train, KEY, begun)
    np.testing.assert_array_equal(
        *(jax.tree.leaves(p["decoder"])[0] for p in (state.params, params))
    )
    done = train(
        KEY, objective._replace(take=take), data, config=CONFIG.train, start=state
    ).state
    counts = [
        int(leaf)
        for one in done.opt_state
        for leaf in jax.tree.leaves(one)
        if leaf.ndim == 0
    ]
    assert counts == [2 * 4, 4]
    for name in ("generator", "decoder", "discriminator"):
        pairs = (jax.tree.leaves(p[name])[0] for p in (done.params, params))
        assert (next(pairs) != next(pairs)).any()


def test_presets_are_known_choices():
    for fields in PRESETS.values():
        replace(MedganConfig(), fields)
    assert replace(MedganConfig(), PRESETS["authors"]).train.batch_size == 1000


@pytest.mark.parametrize("name", ["paper", "small"])
def test_presets_train(name):
    """One of them on sums over time of a sparse table, which are drawn sparse."""
    config = replace(MedganConfig(), PRESETS[name])
    tiny = {"latent": 4, "discriminator": 8, "autoencoder_epochs": 1}
    config = replace(config, {**tiny, "train": {"steps": 2, "batch_size": 16}})
    made = sparse_schema() if name == "small" else MADE
    people = sparse_cohort(made, count=60)[0] if name == "small" else cohort(made)
    model = medgan(made, config)
    params = model.fit(KEY, people, valid=rows_of(people, np.arange(9)))
    assert set(params["weights"]) == {"generator", "decoder", "moments"}
    found = model.sample(jax.random.key(1), params, None, 5)
    assert isinstance(found.temporal, SparseTable) is (name == "small")
    assert np.isfinite(found.static.numeric).all()
    assert "kNN (k = 5) imputed" in str(params["input"])


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"hidden": -1}, r"hidden must lie in \[0"),
        ({"latent": 0}, "latent must be positive, got 0"),
        ({"num_layers": 0}, "num_layers must be positive, got 0"),
        ({"discriminator": 0}, "discriminator must be positive, got 0"),
        ({"discriminator_updates": 0}, "discriminator_updates must be positive"),
        ({"l2": -1.0}, r"l2 must lie in \[0.0"),
        ({"autoencoder_epochs": 0}, "autoencoder_epochs must be positive, got 0"),
        ({"autoencoder_batch": 0}, "autoencoder_batch must be positive, got 0"),
        ({"rows": "long"}, "unknown rows 'long'"),
    ],
)
def test_refused_choices(fields, match):
    with pytest.raises(InputError, match=match):
        MedganConfig(**fields)
