"""Small objectives of known gradient for the tests of the training loop."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.contracts import Objective
from jaxehr.training.config import TrainConfig

COMPILE = "/jax/core/compile/backend_compile_duration"
compilations = [0]


def count_compilation(event, duration, **_):
    compilations[0] += event == COMPILE


jax.monitoring.register_event_duration_secs_listener(count_compilation)


def config(**fields):
    return TrainConfig(
        **{
            "steps": 12,
            "batch_size": 8,
            "chunk_rows": 4,
            "learning_rate": 0.05,
            "ema_decay": 0.5,
            "eval_every": 4,
            "valid_draws": 1,
            "checkpoint_every": 5,
        }
        | fields
    )


def linear_data(seed=0, count=20, noise=0.3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5]) + noise * rng.normal(size=count)
    return jnp.asarray(x), jnp.asarray(y, jnp.float32)


def start(key, batch):
    return {
        "w": jax.random.normal(key, batch[0].shape[-1:]),
        "empty": jnp.zeros((0, 2)),
    }


def exact_loss(params, key, batch):
    """Mean of (x w - y)^2; the key is ignored."""
    x, y = batch
    return jnp.mean((x @ params["w"] - y) ** 2), {}


def noisy_loss(params, key, batch):
    """The same with noise on the targets, so that every step's key matters."""
    x, y = batch
    y = y + 0.5 * jax.random.normal(key, y.shape)
    return jnp.mean((x @ params["w"] - y) ** 2), {"size": jnp.mean(jnp.abs(y))}


def centred_loss(params, key, batch):
    """The exact loss of inputs that are normalised over the batch."""
    x, y = batch
    return exact_loss(params, key, ((x - x.mean(0)) / (x.std(0) + 0.1), y))


EXACT = Objective(start, exact_loss)
NOISY = Objective(start, noisy_loss)
CENTRED = Objective(start, centred_loss, whole=True)


def same_bits(first, second):
    """Raises unless two trees of arrays are equal bit for bit."""
    a, b = jax.tree.leaves(first), jax.tree.leaves(second)
    assert len(a) == len(b)
    for one, two in zip(a, b, strict=True):
        one, two = np.asarray(one), np.asarray(two)
        assert one.dtype == two.dtype
        assert one.tobytes() == two.tobytes()
