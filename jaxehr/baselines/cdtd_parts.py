"""Columns, network and start of CDTD [mueller2025]; see `cdtd`.

P + S numbers, Q codes (by group, see `multinomial.Groups`), d coordinates of an
embedding, W categories of all codes together.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.baselines.forms import scores as forms
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.core.contracts import Params
from jaxehr.diffusion import edm, embeddings, timewarp
from jaxehr.diffusion.multinomial import Groups
from jaxehr.nn.tabular import RowDenoiser

WAVES = 512  # random frequencies of the network of the expected loss


class Model(NamedTuple):
    """The fixed parts of one model.

    Attributes:
      config: the `CdtdConfig`. numbers: P + S. place: the schedule of each number, then
        of each code by group.
    """

    layout: Layout
    config: Any
    groups: Groups
    numbers: int
    place: np.ndarray

    @property
    def codes(self) -> int:
        """Q."""
        return len(self.layout.cardinalities)


def make_model(layout: Layout, config: Any) -> Model:
    """What the layout and the configuration say together."""
    numbers, codes = layout.numbers + layout.sums, len(layout.cardinalities)
    place = np.arange(numbers + codes)
    if config.schedule == "single":
        place = np.zeros_like(place)
    elif config.schedule == "type":
        place = (place >= max(numbers, 1)).astype(int)
        place = place if numbers else np.zeros_like(place)
    return Model(layout, config, Groups(layout.cardinalities), numbers, place)


class State(NamedTuple):
    """Numbers and embeddings, clean or noisy, or their levels or losses."""

    numeric: Any  # [B, P + S]
    coded: Any  # [B, Q, d], codes by group


def network(model: Model) -> RowDenoiser:
    """Scaled numbers and embeddings -> outputs of numbers, logits of codes."""
    config = model.config
    width = model.numbers + model.groups.width
    widths = (config.hidden,) * config.num_layers
    return RowDenoiser(widths, config.embedding, width, zero_last=True)


def tables_of(model: Model, params: Params) -> list[jax.Array]:
    """Normalised embeddings [codes, K, d] of each K."""
    names = [str(k) for k, _ in model.groups.places]
    return [
        embeddings.normalise(params["tables"][name], params["biases"][name])
        for name in names
    ]


def clean(model: Model, params: Params, scores: Params, batch: Batch) -> State:
    """Numbers and embeddings of a batch."""
    pairs = zip(tables_of(model, params), model.groups.take(batch.codes), strict=True)
    found = [embeddings.embed(table, codes) for table, codes in pairs]
    none = jnp.zeros((len(batch.label), 0, model.config.embedding_dim))
    return State(
        forms.numbers_of(scores, batch), jnp.concatenate([none, *found], axis=1)
    )


def levels(model: Model, s: jax.Array) -> State:
    """Noise levels [.., numbers] and [.., Q, 1] of scaled ones s [.., schedules]."""
    each, config = s[..., model.place], model.config
    return State(
        config.sigma_max * each[..., : model.numbers],
        config.sigma_max_embedding * each[..., model.numbers :, None],
    )


def denoise(
    model: Model, params: Params, x: State, sigma: State, u: jax.Array, told: Any
) -> tuple[jax.Array, jax.Array]:
    """D(x) of the numbers and logits [B, W] of the codes.

    Args:
      u: [B]. told: one-hot labels [B, classes]. sigma: broadcasts against x.
    """
    numeric = edm.precondition(sigma.numeric, 1.0)
    scaled = edm.precondition(sigma.coded, 1.0).c_in * x.coded
    wide = scaled.reshape(len(scaled), model.codes * model.config.embedding_dim)
    row = jnp.concatenate([numeric.c_in * x.numeric, wide], -1)
    level = 250.0 * jnp.log(u + 1e-8)
    out = network(model).apply({"params": params["network"]}, row, level, told)
    raw, logits = jnp.split(jnp.asarray(out), [model.numbers], axis=-1)
    return numeric.c_skip * x.numeric + numeric.c_out * raw, logits


def init(
    model: Model, scores: Params, fitted: Params, key: jax.Array, batch: Batch
) -> Params:
    """Random weights; the first prediction is the marginal of training."""
    key_network, key_tables = jax.random.split(key)
    config, groups, frequency = model.config, model.groups, fitted["frequency"]
    sizes = {str(k): (k, len(places)) for k, places in groups.places}
    table = lambda k, count: embeddings.init_table(
        jax.random.fold_in(key_tables, k), (k,) * count, config.embedding_dim
    )
    params = {
        "tables": {name: table(*size) for name, size in sizes.items()},
        "biases": {
            name: jnp.zeros((count, config.embedding_dim))
            for name, (_, count) in sizes.items()
        },
        "warp": timewarp.init_warp(model.place.max(initial=0) + 1, config.low_noise),
        "expected": {"kernel": jnp.zeros(2 * WAVES), "bias": jnp.zeros(())},
    }
    x = clean(model, params, scores, batch)
    row = jnp.concatenate([x.numeric, x.coded.reshape(len(x.coded), -1)], -1)
    told = jax.nn.one_hot(jnp.asarray(batch.label), model.layout.classes)
    found = network(model).init(key_network, row, jnp.zeros(len(row)), told)
    weights, last = found["params"], f"layer_{config.num_layers}"
    start = [np.log(frequency[places, :k]).ravel() for k, places in groups.places]
    bias = np.concatenate([np.zeros(model.numbers), *start])
    head = {**weights["layers"][last], "bias": jnp.asarray(bias, jnp.float32)}
    weights = {**weights, "layers": {**weights["layers"], last: head}}
    return {**params, "network": weights}


def expected(params: Params, u: jax.Array) -> jax.Array:
    """log of the expected loss [B] at times u [B]: linear in random waves of ln(u)/4.

    The frequencies are standard normal, the same in every model.
    """
    frequency = jax.random.normal(jax.random.key(0), (WAVES,))
    angle = 2.0 * jnp.pi * 0.25 * jnp.log(u + 1e-8)[:, None] * frequency
    waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
    return waves @ params["kernel"] + params["bias"]


def entropies(model: Model, frequency: np.ndarray) -> np.ndarray:
    """H [Q] in nats of the frequencies [Q, K] of training, codes by group."""
    found = [np.zeros(0)]
    for k, places in model.groups.places:
        p = np.asarray(frequency)[places, :k]
        found.append(-np.sum(p * np.log(p), -1))
    return np.maximum(np.concatenate(found), 1e-3).astype(np.float32)
