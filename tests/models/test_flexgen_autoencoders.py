"""Autoencoders: the bound, what must not matter, collapse, reconstruction."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flexgen_cohorts import config, encoded
from scipy import integrate, stats
from small_cohorts import cohort, schema, sparse_cohort, sparse_schema

from jaxehr.core import sparse
from jaxehr.core.checks import InputError
from jaxehr.data.simulate import SimulateOptions, simulate
from jaxehr.models.flexgen import autoencoders, networks
from jaxehr.models.flexgen.autoencoders import encode_all, make_autoencoder
from jaxehr.models.flexgen.preprocessing import decode, encode, records, take
from jaxehr.training.config import TrainConfig
from jaxehr.training.loop import train

KEY = jax.random.key(0)
PARTS = ["static", "lstm", "cnn1d", "sum"]


@functools.cache
def model(name, **fields):
    """(autoencoder, objective, batch, random params) of the cohort of every kind."""
    which = "static" if name == "static" else "temporal"
    encoder = "lstm" if name == "static" else name
    made = schema()
    settings = config(encoder=encoder, **fields)
    layout, fitted, data = encoded(made, settings, cohort(made, count=20))
    found = make_autoencoder(layout, settings, which)
    objective = found.objective(fitted)
    batch = jax.tree.map(jnp.asarray, records(data, which, np.arange(20)))
    params = jax.jit(objective.init)(KEY, batch)
    noise = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape).astype("f4"), params
    )
    return found, objective, batch, params


def test_divergence_against_integration():
    for mean, std in ((0.0, 1.0), (1.3, 0.4), (-2.0, 1.7)):
        q, p = stats.norm(mean, std), stats.norm()
        integrand = lambda z, q=q, p=p: q.pdf(z) * (q.logpdf(z) - p.logpdf(z))
        wanted = integrate.quad(integrand, mean - 12 * std, mean + 12 * std)[0]
        found = autoencoders.divergence(jnp.float32(mean), jnp.float32(std))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["static", "lstm"])
def test_the_loss_is_the_bound(name):
    """Reconstruction of z = mean + std eps, plus the weighted divergence; per row."""
    found, objective, batch, params = model(name, kl_weight=0.3)
    loss, metrics = jax.jit(objective.loss)(params, KEY, batch)
    mean, std = jax.jit(found.encode)(params, batch)
    z = mean + std * jax.random.normal(KEY, mean.shape)
    likelihood = jax.jit(found.log_likelihood)(params, z, batch)
    has = batch.length > 0
    if name == "static":
        has = batch.block.observed.any(-1)
    assert 0 < has.sum() < 20
    value = jnp.where(has, likelihood, 0.0)
    each = jnp.where(has[:, None], autoencoders.divergence(mean, std), 0.0)
    np.testing.assert_allclose(metrics["reconstruction"], -value.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["kl"], each.sum() / 20, rtol=1e-4)
    assert metrics["active_units"] == (each.mean(0) > autoencoders.ACTIVE).sum()
    wanted = -value.mean() + 0.3 * each.sum() / 20
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)


@pytest.mark.parametrize("name", PARTS)
def test_missing_values_padding_and_absent_rows_change_nothing(name):
    """Not a bit of the loss, of any gradient, or of an encoding."""
    found, objective, batch, params = model(name)
    block, valid = batch.block, batch.block.observed.any(-1)
    if found.part.steps:
        valid = jnp.arange(found.part.steps) < batch.length[:, None]
    seen = block.observed & valid[..., None]
    numeric, coded = block.numeric.shape[-1], block.codes.shape[-1]
    other = block._replace(
        numeric=jnp.where(seen[..., :numeric], block.numeric, 7.0),
        codes=jnp.where(seen[..., numeric : numeric + coded], block.codes, 1),
        observed=jnp.where(valid[..., None], block.observed, not found.part.steps),
    )
    if not found.part.steps:  # an absent row is one with nothing observed
        other = other._replace(observed=block.observed)
    changed = batch._replace(block=other)
    encode = jax.jit(found.encode)
    jax.tree.map(
        np.testing.assert_array_equal, encode(params, changed), encode(params, batch)
    )
    if name in ("cnn1d", "sum"):  # they share the loss of the LSTM
        return
    grad = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))
    jax.tree.map(
        np.testing.assert_array_equal,
        grad(params, KEY, changed),
        grad(params, KEY, batch),
    )


@pytest.mark.parametrize("name", ["lstm", "cnn1d", "sum"])
def test_a_longer_grid_changes_no_encoding(name):
    """Three more steps of padding; the encoder's weights know no grid."""
    found, _, batch, params = model(name)
    longer = dataclasses.replace(found.part, steps=found.part.steps + 3)
    more = jax.tree.map(
        lambda leaf: jnp.pad(leaf, ((0, 0), (0, 3), (0, 0))), batch.block
    )
    none = jnp.zeros((20, 0))
    settings = config(encoder=name)
    run = lambda part, batch: jax.jit(networks.TemporalEncoder(part, settings).apply)(
        {"params": params["encoder"]}, batch, none
    )
    wanted = run(found.part, batch)
    got = run(longer, batch._replace(block=more))
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [5, 8])
def test_convolution_against_lax(size):
    x = jax.random.normal(KEY, (2, 7, 3))
    layer = networks.Convolution(4, size)
    params = jax.jit(layer.init)(KEY, x)
    kernel = params["params"]["kernel"]["kernel"].reshape(3, size, 4)
    wanted = jax.lax.conv_general_dilated(
        x,
        kernel.transpose(1, 0, 2),
        (1,),
        [(size // 2, size // 2)],
        dimension_numbers=("NHC", "HIO", "NHC"),
    )
    np.testing.assert_allclose(layer.apply(params, x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [4, 7])
def test_the_convolutions_are_those_of_ada(steps):
    """Convolution, norm, ReLU, MaxPool(2, 2, padding 1), thrice; then the mean."""
    x = jax.random.normal(KEY, (2, steps, 3))
    layer, length = networks.Convolutions(), jnp.full(2, steps)
    variables = jax.jit(layer.init)(KEY, x, length)
    params = variables["params"]

    @jax.jit
    def plain(x):
        for i, (features, size) in enumerate(networks.CONVOLUTIONS):
            conv = networks.Convolution(features, size)
            x = conv.apply({"params": params[f"block_{i}"]}, x)
            x = nn.relu(nn.LayerNorm().apply({"params": params[f"norm_{i}"]}, x))
            x = nn.max_pool(x, (2,), strides=(2,), padding=((1, 1),))
        return x.mean(1)

    found = jax.jit(layer.apply)(variables, x, length)
    np.testing.assert_allclose(found, plain(x), rtol=1e-4, atol=1e-5)


def test_a_dense_layer_over_rows_is_flax_dense():
    x = jax.random.normal(KEY, (4, 3, 5))
    params = networks.RowDense(6).init(KEY, x)
    params = jax.tree.map(lambda leaf: leaf + 0.5, params)
    wanted = nn.Dense(6).apply(params, x)
    found = networks.RowDense(6).apply(params, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ["lstm", "cnn1d", "sum"])
def test_sparse_and_dense_give_the_same_bits(encoder):
    """Encodings; loss and gradients too, once."""
    made, settings = sparse_schema(), config(encoder=encoder)
    thin, whole = sparse_cohort(made)
    layout, fitted, data = encoded(made, settings, thin)
    found = make_autoencoder(layout, settings, "temporal")
    objective = found.objective(fitted)
    both = [records(data, "temporal")]
    both.append(records(encode(fitted, layout, whole), "temporal"))
    rows = jnp.arange(16)
    params = jax.jit(objective.init)(KEY, objective.take(both[0], rows))
    results = [encode_all(found, params, d, 8) for d in both]
    jax.tree.map(np.testing.assert_array_equal, *results)
    if encoder != "lstm":
        return
    step = jax.jit(
        lambda params, data: jax.value_and_grad(objective.loss, has_aux=True)(
            params, KEY, objective.take(data, rows)
        )
    )
    jax.tree.map(np.testing.assert_array_equal, *(step(params, d) for d in both))


def test_encode_all_is_encode_in_blocks():
    found, _, batch, params = model("lstm")
    data = jax.tree.map(np.asarray, batch)
    wanted = jax.jit(found.encode)(params, batch)
    mean, std = encode_all(found, params, data, 7)
    np.testing.assert_allclose(mean, wanted[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, wanted[1], rtol=1e-5)
    none = take(found.part, data, np.zeros(0, int))
    assert encode_all(found, params, none)[0].shape == (0, 4)


def test_the_label_reaches_the_encoder_on_request_only():
    for told in (False, True):
        found, _, batch, params = model("static", label_in_encoder=told)
        flipped = batch._replace(label=1 - batch.label)
        encode_it = jax.jit(found.encode)
        mean, other = (encode_it(params, b)[0] for b in (batch, flipped))
        assert bool((mean != other).any()) is told
    label = jax.nn.one_hot(batch.label, 2)
    decode_it = jax.jit(found.decode)
    heads = [decode_it(params, mean, y).heads for y in (label, 1 - label)]
    assert (heads[0] != heads[1]).any()


def test_the_first_prediction_is_near_the_training_marginal():
    """Within 0.2 nats a patient: the start is the model without latent."""
    made, settings = schema(), config()
    people = cohort(made, count=200)
    layout, fitted, data = encoded(made, settings, people)
    for which in ("static", "temporal"):
        found = make_autoencoder(layout, settings, which)
        batch = records(data, which, np.arange(200))
        objective = found.objective(fitted)
        params = jax.jit(objective.init)(KEY, batch)
        flat = jax.tree.map(jnp.zeros_like, params)
        bias = params["decoder"]["heads"]["all"]["bias"]
        flat["decoder"]["heads"]["all"]["bias"] = bias
        if which == "temporal":
            flat["decoder"]["length"]["bias"] = params["decoder"]["length"]["bias"]
        value = jax.jit(
            lambda p, f=found, b=batch: f.log_likelihood(
                p, jnp.zeros((200, 4)), b
            ).mean()
        )
        assert abs(value(params) - value(flat)) < 0.2


def fit_small(which, settings, people, made, steps, rate=1e-2):
    layout, fitted, data = encoded(made, settings, people)
    found = make_autoencoder(layout, settings, which)
    lines = []
    trained = train(
        KEY,
        found.objective(fitted),
        records(data, which),
        config=TrainConfig(
            steps=steps, batch_size=128, learning_rate=rate, ema_decay=0.9
        ),
        callbacks=[lambda step, told: lines.append(told)],
    )
    return found, trained.params, (layout, fitted, data), lines


def test_an_overfitted_autoencoder_returns_its_patients():
    """Encode, decode, take the mode: 24 patients with 4 steps, nearly themselves."""
    made = simulate(SimulateOptions(n=24, steps=4, numeric=2, variable_length=True))
    settings = config(latent=24, hidden=96, hidden_sequence=48, kl_weight=1e-4)
    people = made.cohort
    for which, steps in (("static", 300), ("temporal", 600)):
        found, params, rest, _ = fit_small(which, settings, people, made.schema, steps)
        layout, fitted, data = rest
        rows = records(data, which)
        mean, _ = encode_all(found, params, rows)
        label = jax.nn.one_hot(rows.label, 2)
        drawn = found.mode(jax.jit(found.decode)(params, jnp.asarray(mean), label))
        again = data._replace(**{which: jax.tree.map(np.asarray, drawn.block)})
        if which == "temporal":
            np.testing.assert_array_equal(drawn.length, people.length)
        back = getattr(decode(fitted, layout, again), which)
        real = getattr(people, which)
        assert (back.observed == real.observed).mean() > 0.99
        both = back.observed & real.observed
        count = real.numeric.shape[-1]
        right = (back.codes == real.codes)[both[..., count:]]
        assert right.mean() > 0.99
        for column in range(count):
            seen = both[..., column]
            a, b = (t.numeric[..., column][seen] for t in (back, real))
            assert np.corrcoef(a, b)[0, 1] > 0.95, (which, column)


def test_the_authors_sums_collapse():
    """16 binary columns of 2 factors: no coordinate is left, where ours keep some."""
    rng = np.random.default_rng(0)
    made = sparse_schema(columns=16, steps=1)
    factors = rng.normal(size=(256, 1, 2)) @ rng.normal(size=(2, 16))
    thin, _ = sparse_cohort(made, count=256)
    codes = (3 * factors + rng.logistic(size=factors.shape) > 0).astype(np.int32)
    length = np.ones(256, np.int32)
    thin = thin._replace(
        temporal=sparse.from_dense(codes, length),
        length=length,
        has_temporal=length > 0,
    )
    active, gain = {}, {}
    for reduction in ("patient", "batch"):
        settings = config(encoder="sum", kl_reduction=reduction, kl_weight=1.0)
        found, params, rest, lines = fit_small("temporal", settings, thin, made, 200)
        mean, std = encode_all(found, params, records(rest[2], "temporal"))
        kl = np.asarray(autoencoders.divergence(mean, std)).mean(0)
        active[reduction] = int((kl > autoencoders.ACTIVE).sum())
        gain[reduction] = lines[0]["reconstruction"] - lines[-1]["reconstruction"]
    assert active["patient"] >= 1
    assert active["batch"] == 0
    assert gain["patient"] > gain["batch"] + 0.5


def test_unknown_part():
    found, *_ = model("static")
    made, settings = schema(), config()
    layout, _, _ = encoded(made, settings, cohort(made))
    with pytest.raises(InputError, match="unknown part 'both'; known: static, temp"):
        make_autoencoder(layout, settings, "both")
    assert found.num_classes == 2
