"""The bound of the VAE against the exact likelihood; its start; refused choices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import vae as module
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.rows import FLAT
from jaxehr.baselines.recipe import Sampling
from jaxehr.baselines.vae import PRESETS, VaeConfig, vae
from jaxehr.core.checks import InputError
from jaxehr.core.configs import replace
from jaxehr.core.sparse import SparseTable
from jaxehr.nn.likelihoods import sigma_of
from jaxehr.training.config import TrainConfig

MADE = schema()
CONFIG = VaeConfig(hidden=8, num_layers=1, latent=2, train=TrainConfig(steps=4))


@functools.cache
def start():
    """(layout, params, batch) of a VAE before training."""
    people = complete(cohort(MADE))
    fitted = FLAT.fit(MADE, people, True)
    layout = FLAT.layout(MADE, fitted)
    data = FLAT.encode(fitted, layout, people)
    batch = FLAT.take(layout, data, jnp.arange(8))
    params = module.init(layout, CONFIG, fitted, jax.random.key(0), batch)
    return layout, params, batch


def test_the_bound_is_below_the_likelihood():
    """log p(x) by the mean over a grid of z in 2 dimensions, to 0.1 nats."""
    layout, params, batch = start()
    grid = np.linspace(-5, 5, 41)
    z = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2).astype(np.float32)
    sigma = sigma_of(params["sigma"])

    def exact(row):
        one = jax.tree.map(lambda leaf: leaf[None], row)
        label = jnp.full(len(z), row.label)
        outputs = module.decode(layout, CONFIG, params, z, label)
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(z), 0), one)
        log_p = matrix.log_likelihood(layout, outputs, sigma, many)
        prior = -0.5 * jnp.sum(z**2, -1) - jnp.log(2 * jnp.pi)
        return jax.scipy.special.logsumexp(log_p + prior) + 2 * jnp.log(1 / 4)

    wanted = float(jnp.mean(jax.lax.map(exact, batch)))
    keys = jax.random.split(jax.random.key(1), 16)
    loss = jax.jit(functools.partial(module.loss, layout, CONFIG, params))
    values, told = zip(*(loss(key, batch) for key in keys), strict=True)
    bound = -np.mean([float(value) for value in values])
    assert bound < wanted + 0.1
    assert bound > wanted - 20.0  # an encoder at random
    for value, parts in zip(values, told):
        np.testing.assert_allclose(value, parts["reconstruction"] + parts["kl"], 1e-5)


def test_the_divergence_is_weighted():
    layout, params, batch = start()
    light = replace(CONFIG, {"kl_weight": 0.1})
    value, told = module.loss(layout, light, params, jax.random.key(1), batch)
    wanted = told["reconstruction"] + 0.1 * told["kl"]
    np.testing.assert_allclose(value, wanted, rtol=1e-6)


def test_the_label_is_told_to_the_decoder():
    layout, params, _ = start()
    z = jnp.zeros((2, 2))
    one, two = module.decode(layout, CONFIG, params, z, jnp.array([0, 1]))
    assert (one != two).any()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train(name):
    config = replace(VaeConfig(), PRESETS[name])
    config = replace(config, {"hidden": 8, "train": {"steps": 2, "batch_size": 16}})
    people = cohort(MADE)
    model = vae(MADE, config)
    params = model.fit(jax.random.key(0), people, valid=cohort(MADE, seed=3, count=9))
    made = model.sample(jax.random.key(1), params, None, 5)
    assert np.isfinite(made.temporal.numeric).all()
    assert "kNN (k = 5) imputed" in str(params["input"])


def test_sums_of_a_sparse_table_are_learned_and_drawn_sparse():
    made = sparse_schema()
    thin, _ = sparse_cohort(made, count=80)
    config = VaeConfig(
        hidden=16,
        num_layers=1,
        latent=4,
        train=TrainConfig(steps=120, batch_size=40, learning_rate=3e-3, ema_decay=0.9),
    )
    model = vae(made, config)
    params = model.fit(jax.random.key(0), thin)
    for decode in ("sample", "mode"):
        options = Sampling(decode=decode)
        found = model.sample(jax.random.key(1), params, None, 300, options=options)
        assert isinstance(found.temporal, SparseTable)
        share = found.temporal.codes.sum((0, 1)) / found.length.sum()
        wanted = thin.temporal.codes.sum((0, 1)) / thin.length.sum()
        assert np.abs(share - wanted).max() < 0.1


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"hidden": 0}, "hidden must be positive, got 0"),
        ({"num_layers": 0}, "num_layers must be positive, got 0"),
        ({"latent": -1}, "latent must be positive, got -1"),
        ({"kl_weight": -1.0}, r"kl_weight must lie in \[0.0"),
        ({"rows": "long"}, "unknown rows 'long'"),
    ],
)
def test_refused_choices(fields, match):
    with pytest.raises(InputError, match=match):
        VaeConfig(**fields)
