"""The denoiser of CDMT-EHR trained and sampled by us, and as flax's own cells do it.

One network: L layers of a bidirectional GRU, LayerNorm, modulation by the diffusion
time, a linear head. One task: x0 from x0 + sigma n, mean squared error, Adam, a moving
average of the weights. Ours goes through the loop and the sharding that `jaxehr train`
uses; the rival is the plain program that flax's documentation leads to.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.speed_work import LeftOut, Network, Ready
from jaxehr.core.blocks import block_rows
from jaxehr.core.contracts import Objective
from jaxehr.devices import configure
from jaxehr.diffusion.samplers import Level, euler
from jaxehr.models.cdmt.config import CdmtConfig
from jaxehr.nn.gru import BiGru
from jaxehr.nn.time import Film, TimeEmbedding
from jaxehr.training import loop
from jaxehr.training.config import TrainConfig
from jaxehr.training.sharding import make_mesh, replicate, split_rows
from jaxehr.training.steps import init_state

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
RATE, DECAY = 1e-3, 0.997


class FlaxLayers(nn.Module):
    """The recurrent stack by flax's own cells: [B, T, C] -> [B, T, 2H]."""

    hidden: int
    num_layers: int

    @nn.compact
    def __call__(self, h: Any, length: Any) -> Any:
        for _ in range(self.num_layers):
            ahead, back = (nn.RNN(nn.GRUCell(self.hidden)) for _ in range(2))
            h = nn.Bidirectional(ahead, back)(h, seq_lengths=length)
        return h


class Denoiser(nn.Module):
    """x [B, T, C] at diffusion times t [B] -> x0_hat [B, T, C]; lengths [B] or None."""

    channels: int
    hidden: int
    num_layers: int
    ours: bool
    products: Any  # "float32" or "bfloat16"
    gru: Any  # the form of ours

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, length: Any = None) -> jax.Array:
        sizes = {"hidden": self.hidden, "num_layers": self.num_layers, "name": "gru"}
        forms = {"form": self.gru, "products": self.products}
        gru = BiGru(**forms, **sizes) if self.ours else None
        h = (gru or FlaxLayers(**sizes))(x, length)
        h = Film(name="film")(nn.LayerNorm()(h), TimeEmbedding()(t))
        return nn.Dense(self.channels, name="head")(h)


def network_of(sizes: dict[str, Any]) -> Network:
    """The sizes that belong to the network."""
    names = {field.name for field in dataclasses.fields(Network)}
    return Network(**{name: sizes[name] for name in names & set(sizes)})


def make(net: Network, ours: bool) -> tuple[Denoiser, Any]:
    """The module, and its weights as shapes only."""
    if net.gru != "auto" and jax.default_backend() != "gpu":
        raise LeftOut(f"the form {net.gru} is `ours` where no GPU is")
    forms = net.products, net.gru
    module = Denoiser(net.channels, net.hidden, net.layers, ours, *forms)
    return module, jax.eval_shape(functools.partial(weights, module, net))


def weights(module: Denoiser, net: Network) -> Any:
    """Fresh weights; one row is enough."""
    x = jnp.zeros((1, net.steps, net.channels))
    return module.init(jax.random.key(0), x, jnp.zeros(1))


def sigma_of(t: Any) -> Any:
    """Noise level of the diffusion time, on a geometric schedule."""
    return SIGMA_MIN * (SIGMA_MAX / SIGMA_MIN) ** t


def denoise(module: Denoiser, params: Any, x: Any, t: Any, length: Any = None) -> Any:
    """The network on its scaled input."""
    scale = 1.0 / jnp.sqrt(1.0 + sigma_of(t) ** 2)
    return module.apply(params, x * scale[:, None, None], t, length)


class Records(NamedTuple):
    """Rows [B, T, C], and how many of their steps are before the end [B]."""

    x0: Any
    length: Any


def loss_of(module: Denoiser, params: Any, key: jax.Array, batch: Records) -> jax.Array:
    """Mean squared error of x0 before the end, at one random noise level a row."""
    key_t, key_noise = jax.random.split(key)
    x0, length = batch
    t = jax.random.uniform(key_t, x0.shape[:1])
    noise = jax.random.normal(key_noise, x0.shape)
    x = x0 + sigma_of(t)[:, None, None] * noise
    square = (denoise(module, params, x, t, length) - x0) ** 2
    if length is None:
        return jnp.mean(square)
    valid = jnp.arange(x0.shape[1]) < length[:, None]
    rows, steps, channels = x0.shape
    mean = (steps + 1) / 2  # length, over all records
    return jnp.sum(square * valid[..., None]) / (rows * mean * channels)


def patients(net: Network) -> np.ndarray:
    """Standard normal rows [B, T, C]; their values do not matter."""
    shape = (net.rows, net.steps, net.channels)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def records(net: Network) -> Records:
    """`patients`, with lengths where they differ."""
    lengths = np.random.default_rng(1).permutation(net.rows) % net.steps + 1
    return Records(patients(net), lengths.astype(np.int32) if net.ragged else None)


def ours_train(sizes: dict[str, Any]) -> Ready:
    """Optimiser steps of the training loop, all of a piece in one dispatch."""
    configure()
    net = network_of(sizes)
    module, _ = make(net, ours=True)
    objective = Objective(
        lambda key, batch: weights(module, net),
        lambda params, key, batch: (loss_of(module, params, key, batch), {}),
        lengths=(lambda data: data.length) if net.ragged else None,
    )
    chunk = CdmtConfig().train.chunk_rows
    config = TrainConfig(
        steps=1,
        batch_size=net.rows,
        chunk_rows=chunk,
        learning_rate=RATE,
        ema_decay=DECAY,
    )
    mesh, cut = loop.plan(objective, config, data := records(net))
    key = jax.random.key(1)
    params = jax.jit(objective.init)(key, None)
    state = [replicate(init_state(objective, config, params), mesh)]
    data = replicate(data, mesh)
    step = loop.programs(objective, config, cut, mesh).step

    def run() -> float:
        num = jnp.int32(net.repeats)
        state[0], loss, _ = step(key, state[0], data, num)
        return float(loss)

    return Ready(run, net.flop(True), net.bytes(True), lambda loss: {"loss": loss})


def flax_train(sizes: dict[str, Any]) -> Ready:
    """A step a dispatch, the whole batch at once, on one device with XLA's threads."""
    net = network_of(sizes)
    module, _ = make(net, ours=False)
    params = jax.jit(functools.partial(weights, module, net))()
    tx = optax.adam(RATE)
    copy = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    held = [params, copy, tx.init(params), jnp.int32(0)]
    data, key = jax.tree.map(jnp.asarray, records(net)), jax.random.key(1)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2, 3))
    def step(params: Any, ema: Any, state: Any, count: Any, data: Any) -> Any:
        noise_key = jax.random.fold_in(key, count)
        value_and_grad = jax.value_and_grad(functools.partial(loss_of, module))
        loss, grads = value_and_grad(params, noise_key, data)
        change, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, change)
        ema = jax.tree.map(lambda e, p: DECAY * e + (1.0 - DECAY) * p, ema, params)
        return [params, ema, state, count + 1], loss

    def run() -> float:
        loss = jnp.nan
        for _ in range(net.repeats):
            held[:], loss = step(*held, data)
        return float(loss)

    return Ready(run, net.flop(True), net.bytes(True), lambda loss: {"loss": loss})


def solved(module: Denoiser, net: Network, params: Any, noise: Any) -> jax.Array:
    """`net.repeats` Euler steps from pure noise [B, T, C]."""
    t = jnp.linspace(1.0, 0.0, net.repeats + 1)
    sigmas = jnp.append(sigma_of(t[:-1]), 0.0)

    def call(x: jax.Array, level: Level) -> jax.Array:
        return denoise(module, params, x, jnp.full(x.shape[:1], level.t))

    return euler(call, sigmas[0] * noise, t[:-1], sigmas)


def sampling(net: Network, module: Denoiser, program: Any) -> Ready:
    """Rows from the program (params, noise) -> rows."""
    params = jax.jit(functools.partial(weights, module, net))()
    noise, program = jnp.asarray(patients(net)), jax.jit(program)
    run = lambda: jax.block_until_ready(program(params, noise))
    told = lambda rows: {"finite": bool(jnp.isfinite(rows).all())}
    return Ready(run, net.flop(), net.bytes(), told)


def ours_sample(sizes: dict[str, Any]) -> Ready:
    """Blocks of rows on every device, as the sampler of the model cuts them."""
    configure()
    net, mesh = network_of(sizes), make_mesh()
    module, _ = make(net, ours=True)
    rows = min(block_rows(net.steps), net.rows // mesh.size)
    if net.rows % (rows * mesh.size):
        raise ValueError(
            f"{net.rows} rows do not divide into blocks of {rows} on {mesh.size} "
            "devices; take a multiple."
        )

    def some(params: Any, noise: jax.Array) -> jax.Array:
        blocks = noise.reshape(-1, rows, *noise.shape[1:])
        one = functools.partial(solved, module, net, params)
        return jax.lax.map(one, blocks).reshape(noise.shape)

    return sampling(net, module, split_rows(some, mesh))


def flax_sample(sizes: dict[str, Any]) -> Ready:
    """All rows at once."""
    net = network_of(sizes)
    module, _ = make(net, ours=False)
    return sampling(net, module, functools.partial(solved, module, net))
