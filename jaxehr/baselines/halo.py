"""HALO: visits of bits, each visit from those before it, bit by bit [halo2023].

A patient is a sequence of visits: the label, the static columns, then every step. A
causal transformer turns the visits before visit t into a history h_t, and two masked
linear layers give each bit of visit t from h_t and the bits before it:

    log p = sum_t sum_v log p(bit_tv | visits < t, bits < v of visit t),

all of it trained at once and drawn exactly. After its columns, a bit of each step says
whether it is the last.

Bits are those of `forms.visits`: numbers in quantile bins, states of codes. The bits of
one column exclude each other: once a state is active the later ones are 0 without a
term in the sum, and so is the last one of a column that always has a value.

Notation: `layout`; V bits of a visit, in the order columns of a step, end, static.
"""

# Deviation: the public code gives every bit of every visit a term of the loss, also
# those that cannot be: bits of the label in a step, two bins of one number.
# Deviation: it draws the label as a visit too. Here it is told, beside the start.
# Deviation: it draws a visit by one pass of the network for each bit that is 1, over
# all visits so far; here by a cache of keys and values, and `autoregressive.draw_bits`.
# Both are exact.
# Deviation: positions start at N(0, 0.02^2) instead of N(0, 1), and the biases of the
# logits at the marginals of training.

# There is no most probable patient to ask for: bit by bit the likeliest value of seven
# states that are alike likely is always the last one.

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.baselines.forms.layout import Form
from jaxehr.baselines.forms.visits import Bits, VisitLayout, Visits, visits
from jaxehr.baselines.recipe import Drawing, Recipe, Task, build, one_stage
from jaxehr.core.checks import InputError, positive
from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Objective, Params
from jaxehr.nn.autoregressive import (
    MaskedLayers,
    Rules,
    draw_bits,
    open_bits,
    products,
)
from jaxehr.nn.causal import Cache, CausalTransformer
from jaxehr.nn.likelihoods import bernoulli
from jaxehr.training.config import TrainConfig

EDGE = 1e-4  # shares of training stay this far from 0 and 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class HaloConfig:
    """Model and optimisation of HALO."""

    bins: int = 10
    """Quantile bins of a number; one of its bin's values comes back."""
    width: int = 128
    """Width of the transformer, a multiple of `num_heads`."""
    num_layers: int = 4
    """Layers of the transformer."""
    num_heads: int = 4
    """Heads of each layer."""
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(chunk_rows=64, clip_norm=1.0)
    )
    """Optimisation."""

    def __post_init__(self) -> None:
        positive(
            bins=self.bins,
            width=self.width,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
        )
        if self.width % self.num_heads:
            raise InputError(
                f"width must be a multiple of num_heads {self.num_heads}, got "
                f"{self.width}."
            )


PRESETS: dict[str, dict[str, Any]] = {
    # config.py of the public code; there 50 epochs, the best on validation.
    "authors": {
        "width": 768,
        "num_layers": 12,
        "num_heads": 12,
        "train": {
            "batch_size": 48,
            "chunk_rows": 48,
            "learning_rate": 1e-4,
            "clip_norm": 0.0,
            "ema_decay": 0.0,
        },
    },
    "small": {
        "width": 64,
        "num_layers": 2,
        "train": {
            "steps": 1500,
            "batch_size": 64,
            "learning_rate": 3e-3,
            "lr_schedule": "cosine",
        },
    },
}


class Halo(nn.Module):
    """Both networks.

    Attributes:
      inputs: bits of a visit that the transformer sees. bits: those that are drawn, the
        first ones of the inputs. num_visits: at most.
    """

    inputs: int
    bits: int
    width: int
    num_layers: int
    num_heads: int
    num_visits: int

    def setup(self) -> None:
        self.visit = nn.Dense(self.width, use_bias=False)
        sizes = (self.width, self.num_heads, self.num_layers, self.num_visits)
        self.past = CausalTransformer(*sizes)
        self.fine = MaskedLayers()

    def __call__(self, seen: jax.Array, bits: jax.Array) -> jax.Array:
        """Visits [B, T, inputs], and the next ones [B, T, bits] -> logits of those."""
        return self.fine(self.past(self.visit(seen)), bits)

    def start(self, rows: int) -> Cache:
        """See `CausalTransformer`."""
        return self.past.start(rows)

    def step(
        self, seen: jax.Array, cache: Cache, t: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """The history [B, width] after visit t, [B, inputs]."""
        return self.past.step(self.visit(seen), cache, t)


class Places(NamedTuple):
    """Where bits stand in a visit."""

    steps: int  # bits of a step: 0 ... steps - 1
    end: int  # the bit that says "last", = steps
    bits: int  # all that are drawn; those of the static part come last
    inputs: int  # with the label and the start


def halo(schema: Schema, config: HaloConfig | None = None) -> GenerativeModel:
    """HALO for cohorts of `schema`."""
    config = config or HaloConfig()
    parts = (form_of, learn, draw, one_stage)
    return build(schema, Recipe("halo", config, *parts, sampling=Drawing))


def form_of(config: HaloConfig, is_sparse: bool) -> Form:
    """Visits with the bins of `config`; the same object for the same number."""
    del is_sparse
    return binned(config.bins)


binned = functools.cache(visits)


def places(layout: VisitLayout) -> Places:
    """Where the bits of a cohort stand."""
    end = layout.temporal.width
    bits = end + 1 + layout.static.width
    return Places(end, end, bits, bits + layout.classes + 1)


def network(layout: VisitLayout, config: HaloConfig) -> Halo:
    """Both networks for a cohort."""
    at, sizes = places(layout), (config.width, config.num_layers, config.num_heads)
    return Halo(at.inputs, at.bits, *sizes, layout.steps + 1)


def first_visit(layout: VisitLayout, label: jax.Array) -> jax.Array:
    """What is told [B, inputs]: the label [B], one-hot, and the start."""
    told = jax.nn.one_hot(label, layout.classes)
    zeros = jnp.zeros((told.shape[0], places(layout).bits))
    return jnp.concatenate([zeros, told, jnp.ones((told.shape[0], 1))], -1)


def as_input(layout: VisitLayout, bits: jax.Array) -> jax.Array:
    """Drawn bits [.., bits] as a visit [.., inputs]."""
    unused = [(0, 0)] * (bits.ndim - 1) + [(0, layout.classes + 1)]
    return jnp.pad(bits, unused)


def last_states(bits: Bits) -> np.ndarray:
    """Bool [V]: the last state of a column that always has a value."""
    sizes, optional = np.asarray(bits.states, int), np.asarray(bits.optional, bool)
    return (bits.state == sizes[bits.owner]) & ~optional[bits.owner]


def may_end(layout: VisitLayout) -> tuple[np.ndarray, np.ndarray]:
    """Bool [T] each: whether a series can end at a step, and whether it has to."""
    length = np.arange(1, layout.steps + 1)
    longest = max(layout.lengths, default=0)
    return np.isin(length, layout.lengths), length >= longest


def next_visits(layout: VisitLayout, batch: Visits) -> tuple[jax.Array, jax.Array]:
    """The visits that are drawn, and which of their bits are a choice, [B, T + 1, V].

    The first is the static one; bits beyond the last step are no choice.
    """
    static, temporal = layout.static, layout.temporal
    can, must = may_end(layout)
    step = jnp.arange(1, layout.steps + 1)
    length = jnp.asarray(batch.length)[:, None]
    end, valid = (step == length)[..., None], (step <= length)[..., None]
    codes = jnp.asarray(batch.steps), jnp.asarray(batch.static)
    after = jnp.zeros((*step.shape, static.width), bool)
    before = jnp.zeros((codes[1].shape[0], 1, temporal.width + 1), bool)
    wide = lambda x: jnp.broadcast_to(x, (codes[1].shape[0], *x.shape[-2:]))
    bits = jnp.concatenate(
        [
            jnp.concatenate([before, static.of(codes[1])[:, None]], -1),
            jnp.concatenate([temporal.of(codes[0]) & valid, end, wide(after)], -1),
        ],
        1,
    )
    choice = [
        open_bits(code, part.owner, part.state, last_states(part))
        for code, part in ((codes[1], static), (codes[0], temporal))
    ]
    ends = wide(jnp.asarray(can & ~must)[:, None])
    chosen = jnp.concatenate(
        [
            jnp.concatenate([before, choice[0][:, None]], -1),
            jnp.concatenate([choice[1] & valid, ends & valid, wide(after)], -1),
        ],
        1,
    )
    return bits.astype(jnp.float32), chosen


def logits_of(
    layout: VisitLayout, config: HaloConfig, params: Params, batch: Visits
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits [B, T + 1, V] of the visits that are drawn; then as `next_visits`."""
    bits, chosen = next_visits(layout, batch)
    told = first_visit(layout, jnp.asarray(batch.label))[:, None]
    seen = jnp.concatenate([told, as_input(layout, bits[:, :-1])], 1)
    logits = network(layout, config).apply({"params": params}, seen, bits)
    return jnp.asarray(logits), bits, chosen


def loss(
    layout: VisitLayout,
    config: HaloConfig,
    params: Params,
    key: jax.Array,
    batch: Visits,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """-log p of the module docstring in nats a patient, averaged over rows."""
    del key
    logits, bits, chosen = logits_of(layout, config, params, batch)
    log_p = jnp.where(chosen, bernoulli(logits, bits == 1.0), 0.0)
    return -log_p.sum((1, 2)).mean(), {"choices": chosen.sum((1, 2)).mean() * 1.0}


def start_bias(layout: VisitLayout, fitted: dict[str, Any]) -> np.ndarray:
    """Logits [V] of a bit given that no earlier state of its column is active."""
    shares = []
    for part, name in ((layout.temporal, "temporal"), (layout.static, "static")):
        share = np.asarray(fitted["frequency"][name], np.float64)
        ends = np.concatenate([[0.0], np.cumsum(share)])
        first = np.arange(part.width) - (part.state - 1)  # bit of the column's state 1
        left = 1.0 - (ends[:-1] - ends[first]) if part.width else share
        shares.append(share / np.maximum(left, EDGE))
    counts = np.asarray([0.5 / max(layout.steps, 1)])
    share = np.clip(np.concatenate([shares[0], counts, shares[1]]), EDGE, 1.0 - EDGE)
    return np.log(share / (1.0 - share)).astype(np.float32)


def init(
    layout: VisitLayout,
    config: HaloConfig,
    fitted: Params,
    key: jax.Array,
    batch: Visits,
) -> Params:
    """Random weights; the biases of the logits say the marginals of training."""
    at, rows = places(layout), jnp.shape(batch.label)[0]
    shape = (rows, layout.steps + 1)
    inputs = jnp.zeros((*shape, at.inputs)), jnp.zeros((*shape, at.bits))
    params = dict(network(layout, config).init(key, *inputs)["params"])
    fine, first = dict(params["fine"]), config.width - 1
    bias = jnp.asarray(start_bias(layout, fitted))
    fine["bias_2"] = jnp.asarray(fine["bias_2"]).at[first:-1].set(bias)
    return {**params, "fine": fine}


def learn(key: jax.Array, config: HaloConfig, task: Task) -> Params:
    """One training."""
    layout, bound = task.layout, functools.partial
    objective = Objective(
        bound(init, layout, config, task.fitted),
        bound(loss, layout, config),
        bound(task.form.take, layout),
    )
    run = task.stages.run
    trained = run("all", key, objective, task.data, config.train, valid=task.valid)
    return trained.params


def rules(bits: Bits, can_end: Any = None, must_end: Any = None) -> Rules:
    """Of the bits of one part, and of the end with the two flags if there is one."""
    flags = [bits.state == 1, np.ones(bits.width, bool), last_states(bits)]
    if can_end is None:
        return Rules(*flags)
    ends = (True, can_end, must_end)
    join = lambda flag, end: jnp.append(jnp.asarray(flag), jnp.asarray(end))
    return Rules(*map(join, flags, ends))


def codes_of(bits: Bits, drawn: jax.Array) -> jax.Array:
    """Codes [B, D] of bits [B, V], of which a column has one at most."""
    dtype = jnp.int8 if max(bits.states, default=0) < 128 else jnp.int32
    state = drawn.astype(dtype) * jnp.asarray(bits.state, dtype)
    zeros = jnp.zeros((drawn.shape[0], len(bits.states)), dtype)
    return zeros.at[:, bits.owner].add(state)


def draw(
    layout: VisitLayout,
    config: HaloConfig,
    options: Drawing,
    weights: Params,
    keys: jax.Array,
    label: jax.Array,
) -> Visits:
    """The static visit, then a step after the other; bits beyond the last are 0."""
    del options
    net, at, rows = network(layout, config), places(layout), keys.shape[0]
    run = functools.partial(net.apply, {"params": weights})
    after = lambda seen, cache, t: run(seen, cache, t, method="step")
    fine, width = weights["fine"], config.width
    parts = (
        products(fine, width, 0, at.end + 1),
        products(fine, width, at.end + 1, at.bits),
    )

    def level(t: jax.Array, size: int) -> jax.Array:
        one = lambda key: jax.random.uniform(jax.random.fold_in(key, t), (size,))
        return jax.vmap(one)(keys)

    seen, first = first_visit(layout, label), jnp.int32(0)
    history, cache = after(seen, run(rows, method="start"), first)
    inputs = (level(first, layout.static.width), rules(layout.static))
    static, _ = draw_bits(parts[1], history, *inputs)

    def visit(carry: Any, ahead: Any) -> tuple[Any, Any]:
        seen, cache, alive = carry
        t, *ends = ahead
        history, cache = after(seen, cache, t)
        inputs = (level(t, at.end + 1), rules(layout.temporal, *ends))
        bits, _ = draw_bits(parts[0], history, *inputs)
        codes = codes_of(layout.temporal, bits[:, : at.end]) * alive[:, None]
        seen = jnp.pad(bits, [(0, 0), (0, at.inputs - at.end - 1)])
        return (seen, cache, alive & (bits[:, at.end] == 0)), (codes, alive)

    seen = jnp.pad(static, [(0, 0), (at.end + 1, at.inputs - at.bits)])
    steps = (jnp.arange(1, layout.steps + 1), *map(jnp.asarray, may_end(layout)))
    alive = jnp.full(rows, bool(layout.lengths))
    _, (codes, alive) = jax.lax.scan(visit, (seen, cache, alive), steps)
    return Visits(
        jnp.asarray(label, jnp.int32),
        alive.sum(0).astype(jnp.int32),
        codes_of(layout.static, static),
        jnp.swapaxes(codes, 0, 1),
    )
