"""The scale of the latents, both stages, the autoencoder's draws; refused choices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cohorts import cohort, complete, schema, sparse_cohort, sparse_schema

from jaxehr.baselines import ldm as module
from jaxehr.baselines.forms.rows import FLAT
from jaxehr.baselines.guided import GuidedSampling
from jaxehr.baselines.ldm import PRESETS, Latents, LdmConfig, ldm
from jaxehr.baselines.recipe import Task
from jaxehr.core.checks import InputError
from jaxehr.core.configs import replace
from jaxehr.core.sparse import SparseTable
from jaxehr.nn.likelihoods import sigma_of
from jaxehr.training.config import TrainConfig
from jaxehr.training.stages import Stages

KEY = jax.random.key(0)
MADE = schema()
FAST = {
    "hidden": 8,
    "latent": 4,
    "width": 8,
    "autoencoder_epochs": 1,
    "diffusion_steps": 5,
    "train": {"steps": 3, "batch_size": 16},
}
CONFIG = replace(LdmConfig(), FAST)
OPTIONS = GuidedSampling(solver="ddim", steps=3)


def latents(count=20_000, dim=3):
    """Correlated means of deviations 0.5 to 2, and posteriors of deviation 2."""
    rng = np.random.default_rng(0)
    mean = rng.normal(1.0, np.geomspace(0.5, 2.0, dim), (count, dim))
    mean[:, 0] += 0.5 * mean[:, 1]
    return Latents(np.zeros(count, int), mean.astype(np.float32), np.full_like(mean, 2))


@pytest.mark.parametrize("scale", ["std", "whiten"])
def test_the_scale_of_the_latents(scale):
    """Deviation 1 over all coordinates, or covariance I (of narrow posteriors)."""
    config = replace(CONFIG, {"latent": 3, "scale": scale})
    found = latents()
    if scale == "whiten":
        found = found._replace(std=np.zeros_like(found.mean))
    scaling = module.scaling_of(config, found)
    x = np.asarray(module.clean(scaling, KEY, Latents(*map(jnp.asarray, found))))
    if scale == "std":
        wanted = found.mean + 2 * np.asarray(jax.random.normal(KEY, found.mean.shape))
        np.testing.assert_allclose(x.std(), 1.0, rtol=0.01)
        ratio = x / wanted
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)
    else:
        np.testing.assert_allclose(np.cov(x.T), np.eye(3), atol=0.02)
        np.testing.assert_allclose(x.mean(0), 0.0, atol=1e-3)


def test_stages_and_their_steps():
    config = LdmConfig(autoencoder_epochs=10, train=TrainConfig(steps=7, batch_size=64))
    assert module.plan(config, 1000) == {"autoencoder": 10 * 15, "diffusion": 7}
    assert module.plan(config, 200) == {"autoencoder": 10 * 8, "diffusion": 7}
    assert module.plan(config, 5) == {"autoencoder": 10, "diffusion": 7}
    coder = module.coder_of(LdmConfig())
    assert (coder.latent, coder.kl_weight) == (256, 1e-6)
    train = module.coder_train(LdmConfig(), 4000, 800)
    assert (train.learning_rate, train.eval_every, train.batch_size) == (1e-3, 20, 128)


@functools.cache
def learned():
    """The weights of a short training, and the task."""
    people = complete(cohort(MADE, count=300))
    fitted = FLAT.fit(MADE, people, True)
    layout = FLAT.layout(MADE, fitted)
    data = FLAT.encode(fitted, layout, people)
    config = replace(CONFIG, {"autoencoder_epochs": 40, "hidden": 32, "latent": 16})
    plan = module.plan(config, len(data.label))
    task = Task(FLAT, layout, fitted, data, None, Stages(plan))
    return config, task, module.learn(KEY, config, task)


def test_latents_of_a_patient_do_not_depend_on_the_others():
    config, task, weights = learned()
    coder, part = module.coder_of(config), weights["autoencoder"]
    all_of, error = module.encode_all(coder, task, part, task.data)
    few = jax.tree.map(lambda leaf: leaf[:5], task.data)
    some, _ = module.encode_all(coder, task, part, few)
    np.testing.assert_array_equal(some.mean, all_of.mean[:5])
    assert all_of.mean.shape == all_of.std.shape == (len(task.data.label), 16)
    scaled = all_of.mean @ weights["scaling"]["forward"]
    spread = scaled.var() + np.mean((all_of.std @ weights["scaling"]["forward"]) ** 2)
    np.testing.assert_allclose(spread, 1.0, rtol=1e-4)
    np.testing.assert_allclose(sigma_of(part["sigma"]), error, rtol=1e-4)
    assert error.max() < 1.0


def test_the_divergence_hardly_counts():
    """Posteriors are far narrower than their means are spread: kl_weight is 1e-6."""
    config, task, weights = learned()
    coder = module.coder_of(config)
    found, _ = module.encode_all(coder, task, weights["autoencoder"], task.data)
    assert np.mean(found.std**2) < 0.25 * found.mean.var()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train(name):
    config = replace(replace(LdmConfig(), PRESETS[name]), FAST)
    model, people = ldm(MADE, config), cohort(MADE)
    valid = cohort(MADE, seed=3, count=9)
    params = model.fit(KEY, people, valid=valid)
    made = model.sample(jax.random.key(1), params, None, 5, options=OPTIONS)
    assert np.isfinite(made.temporal.numeric).all()
    assert set(params["weights"]) == {"autoencoder", "scaling", "network"}


def test_sums_of_a_sparse_table():
    made = sparse_schema()
    thin, _ = sparse_cohort(made)
    model = ldm(made, CONFIG)
    params = model.fit(KEY, thin)
    options = GuidedSampling(solver="ddim", steps=2, guidance=0.5, decode="mode")
    found = model.sample(KEY, params, 1, 6, options=options)
    assert isinstance(found.temporal, SparseTable)
    assert (found.label == 1).all()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"latent": 0}, "latent must be positive, got 0"),
        ({"hidden": 0}, "hidden must be positive, got 0"),
        ({"num_layers": 0}, "num_layers must be positive, got 0"),
        ({"autoencoder_epochs": 0}, "autoencoder_epochs must be positive, got 0"),
        ({"kl_weight": -1.0}, r"kl_weight must lie in \[0.0"),
        ({"scale": "max"}, "unknown scale 'max'; known: std, whiten"),
        ({"betas": "long"}, "unknown betas 'long'; known: scaled, paper, code, sqrt"),
        ({"diffusion_steps": 0}, "diffusion_steps must be positive, got 0"),
        ({"label_drop": 1.5}, r"label_drop must lie in \[0.0, 0.99\], got 1.5"),
        ({"rows": "long"}, "unknown rows 'long'"),
    ],
)
def test_refused_choices(fields, match):
    with pytest.raises(InputError, match=match):
        LdmConfig(**fields)
