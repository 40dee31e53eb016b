"""The training objective [cdmt2026, Eq. 7-9] and the guided denoise function.

Notation: x0 clean, x noisy, x0_hat predicted; every column has its own sigma(t); t is
one number per patient. Coded columns are what their `Coder` makes of them: continuous
embeddings, or the one-hot states of mask diffusion.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.contracts import Objective, Params
from jaxehr.diffusion import edm, embeddings, gaussian, ordinal
from jaxehr.diffusion.schedules import RhoParams, init_rho, power_mean, rho_of
from jaxehr.models.cdmt import latents
from jaxehr.models.cdmt.coders import Coder, make_coder
from jaxehr.models.cdmt.config import RHO_CAP, CdmtConfig
from jaxehr.models.cdmt.layout import Layout, completed
from jaxehr.models.cdmt.network import Blocks, Denoiser, Frame
from jaxehr.models.cdmt.preprocessing import Batch
from jaxehr.models.cdmt.prior import guess, has_prior, normal_of


class Model(NamedTuple):
    """The fixed parts of one model; everything learned is in its `Params`."""

    layout: Layout
    config: CdmtConfig
    network: Denoiser
    coder: Coder


@functools.lru_cache(maxsize=64)
def make_model(layout: Layout, config: CdmtConfig) -> Model:
    """The same object for equal arguments: compiled samplers are found again."""
    return Model(layout, config, Denoiser(layout, config), make_coder(config))


def fitted_model(model: Model, fitted: dict[str, Any]) -> Model:
    """The model with what only fitting tells of its layout."""
    return make_model(completed(model.layout, fitted), model.config)


def init_params(
    model: Model, fitted: dict[str, Any], key: jax.Array, batch: Batch
) -> Params:
    """Parameters as nested dicts: network, tables, rho.

    The last layer starts at zero weights and the log frequencies of the categories, so
    that the first prediction is the marginal [mueller2025], or that of the prior.
    """
    layout, config = model.layout, model.config
    key_network, key_temporal, key_static = jax.random.split(key, 3)
    parts = (layout.temporal, layout.static)
    # Without time steps the empty temporal blocks still have an axis for them.
    steps = (max(layout.num_steps, 1), 0)
    tables = [
        model.coder.init(k, part, num)
        for k, part, num in zip((key_temporal, key_static), parts, steps, strict=True)
    ]
    numbers = (layout.series, len(layout.static.numeric))
    outputs = len(layout.temporal.numeric) + sum(layout.gaps)
    rho = [
        init_rho(
            config.rho, count, num, kind=config.rho_kind, floor=config.rho_floor
        )._asdict()
        for count, num in zip(numbers, steps, strict=True)
    ]
    params = {"coded": tables[0], "static_coded": tables[1]}
    params |= {"rho": rho[0], "static_rho": rho[1]}
    x0 = clean(model, params, batch)
    inputs = flat(x0)
    if has_prior(layout, config):  # its guess is an input too
        inputs = inputs._replace(numeric=jnp.concatenate([inputs.numeric] * 2, -1))
    frame = make_frame(model, batch.label, batch.length, batch.has_static)
    network = model.network.init(
        key_network, inputs, jnp.zeros(len(batch.label)), frame
    )
    network = dict(network["params"])
    for name, part, where, count in (
        ("head", layout.temporal, "temporal", outputs),
        ("static_head", layout.static, "static", numbers[1]),
    ):
        if name in network:
            shares = np.asarray(fitted["frequency"][where])
            start = [np.zeros(count)]
            start += [np.log(row[:k]) for row, k in zip(shares, part.cardinalities)]
            bias = jnp.asarray(np.concatenate(start), jnp.float32)
            network[name] = {**network[name], "bias": bias}
    return params | {"network": network}


def make_frame(model: Model, label: Any, length: Any, has_static: Any) -> Frame:
    """One-hot condition [B, C] (no column without classes), length and presence."""
    condition = jax.nn.one_hot(jnp.asarray(label), model.layout.num_classes)
    return Frame(condition, jnp.asarray(length), jnp.asarray(has_static))


def clean(model: Model, params: Params, batch: Batch) -> Blocks:
    """x0: numeric columns as they are, codes as the coder represents them."""
    coder = model.coder
    return Blocks(
        jnp.asarray(batch.numeric),
        coder.clean(params["coded"], model.layout.temporal, jnp.asarray(batch.codes)),
        jnp.asarray(batch.static_numeric),
        coder.clean(
            params["static_coded"], model.layout.static, jnp.asarray(batch.static_codes)
        ),
    )


def flat(x: Blocks) -> Blocks:
    """Coded blocks [.., D, k] as columns [.., D k], for the network."""
    join = lambda leaf: leaf.reshape(*leaf.shape[:-2], leaf.shape[-2] * leaf.shape[-1])
    return x._replace(coded=join(x.coded), static_coded=join(x.static_coded))


def rho_numeric(model: Model, rho: dict[str, jax.Array]) -> jax.Array:
    """Shape parameters [T, D] or [D]; constants when the schedule is fixed."""
    config = model.config
    kind = {"kind": config.rho_kind, "floor": config.rho_floor, "cap": RHO_CAP}
    value = rho_of(RhoParams(**rho), **kind)
    return jax.lax.stop_gradient(value) if config.schedule == "fixed" else value


def noise_levels(model: Model, params: Params, t: jax.Array) -> Blocks:
    """Noise level (or mask probability) of every column at one scalar time t."""
    config, coder = model.config, model.coder
    level = lambda rho: power_mean(
        t, rho_numeric(model, rho), config.sigma_min, config.sigma_max
    )
    return Blocks(
        level(params["rho"]),
        coder.level(params["coded"], t),
        level(params["static_rho"]),
        coder.level(params["static_coded"], t),
    )


class Gaps(NamedTuple):
    """What is told of the latents of gaps, see `diffusion.ordinal`."""

    mean: jax.Array  # [B, T, P]
    spread: jax.Array  # [B, T, P]
    correction: jax.Array  # [B, T, S], of the logits


class Predicted(NamedTuple):
    """D(x; sigma) for numeric columns without latents, raw logits for coded ones."""

    blocks: Blocks
    gaps: Any  # Gaps, or None where none are latents


def denoise(
    model: Model, params: Params, x: Blocks, sigma: Blocks, t: jax.Array, frame: Frame
) -> Blocks:
    """D(x; sigma) for numbers and latents, raw logits [.., D, K] for coded columns."""
    return settled(model, params, predict(model, params, x, sigma, t, frame))


def settled(model: Model, params: Params, found: Predicted) -> Blocks:
    """The same of what the network tells, or of what guidance makes of that."""
    blocks, gaps = found
    if gaps is None:
        return blocks
    ends, cuts, logits = cut(model, params, gaps)
    law = gaps.mean, gaps.spread, cuts, logits
    latents = ordinal.expected(ends, *law, model.layout.gaps)
    return blocks._replace(numeric=jnp.concatenate([blocks.numeric, latents], -1))


def cut(model: Model, params: Params, gaps: Gaps) -> tuple[Any, Any, jax.Array]:
    """Ends, cuts and logits [B, T, S] of the codes of gaps."""
    ends = ordinal.side_by_side(params["ends"], model.layout.gaps)
    cuts = ordinal.cuts_of(ends, gaps.mean, gaps.spread, model.layout.gaps)
    return ends, cuts, ordinal.logits_of(cuts, gaps.correction)


def predict(
    model: Model, params: Params, x: Blocks, sigma: Blocks, t: jax.Array, frame: Frame
) -> Predicted:
    """What the network tells, around what is known without it."""
    config, coder, layout = model.config, model.coder, model.layout
    numeric = edm.precondition(sigma.numeric, config.sigma_data)
    static = edm.precondition(sigma.static_numeric, config.sigma_data)
    told, guessed, spread = numeric.c_in * x.numeric, numeric.c_skip * x.numeric, 1.0
    valid = jnp.arange(x.numeric.shape[1]) < frame.length[:, None]
    if has_prior(layout, config):
        # A patient's noisy values go on behind the end, by the law of all: it would be
        # wrong of those before the end if they counted as being at their mean there.
        asked = x.numeric, sigma.numeric, frame
        guessed, spread = guess(config, params["prior"], *asked)
        told = jnp.concatenate([told, guessed / config.sigma_data], -1)
    inputs = Blocks(
        told,
        coder.scale(x.coded, sigma.coded),
        static.c_in * x.static_numeric,
        coder.scale(x.static_coded, sigma.static_coded),
    )
    variables = {"params": params["network"]}
    out: Any = model.network.apply(variables, flat(inputs), t, frame)
    # Nothing but the law is known behind the end.
    out = out._replace(numeric=jnp.where(valid[..., None], out.numeric, 0.0))
    count = len(layout.temporal.numeric)
    scale = jnp.broadcast_to(spread * numeric.c_out, x.numeric.shape)[..., :count]
    blocks = out._replace(
        numeric=guessed[..., :count] + scale * out.numeric[..., :count],
        static_numeric=static.c_skip * x.static_numeric
        + static.c_out * out.static_numeric,
    )
    if not layout.gaps:
        return Predicted(blocks, None)
    mean = guessed[..., count:]
    left = gaussian.spread(normal_of(params["prior"]), sigma.numeric)[..., count:]
    left = jnp.broadcast_to(left, mean.shape)
    return Predicted(blocks, Gaps(mean, left, out.numeric[..., count:]))


def complete(params: Params, fitted: Params) -> Params:
    """The weights with what is not learned by steps: all that `denoise` needs."""
    found = {"prior": fitted["prior"]} if "prior" in fitted else {}
    if "latents" in fitted:
        found["ends"] = fitted["latents"]["ends"]
    return {**params, **found}


def make_objective(
    model: Model, fitted: dict[str, Any], *lengths: np.ndarray
) -> Objective:
    """The loss of one batch: a mean over patients, so chunks of a batch add up.

    Args:
      lengths: of all who learn or judge; where all are full the GRU need not ask.
    """
    if lengths and all((each == model.layout.num_steps).all() for each in lengths):
        model = make_model(model.layout._replace(full=True), model.config)
    weigh = row_weights(*scales_of(model, fitted))

    def loss(params: Params, key: jax.Array, batch: Batch) -> Any:
        params, rows = complete(params, fitted), batch.label.shape[0]
        key_t, key_noise, key_drop, key_coded, key_static = jax.random.split(key, 5)
        t = edm.low_discrepancy(key_t, rows)  # [B]
        frame = make_frame(model, batch.label, batch.length, batch.has_static)
        told = jax.random.uniform(key_drop, (rows, 1)) >= model.config.label_drop
        frame = frame._replace(condition=frame.condition * told)
        x0 = clean(model, params, batch)
        sigma = jax.vmap(lambda t: noise_levels(model, params, t))(t)
        x = corrupt(
            model, params, key_noise, (key_coded, key_static), batch, x0, sigma, t
        )
        out = predict(model, params, x, sigma, t, frame)
        each = losses(model, params, batch, x, x0, sigma, out, t)
        means = Blocks(*(jnp.mean(w(leaf, batch)) for w, leaf in zip(weigh, each)))
        told = {"loss_numeric": means.numeric, "loss_coded": means.coded}
        return weighted(model.config, means), told

    init = lambda key, batch: init_params(model, fitted, key, batch)
    # Schedules, and tables of embeddings, which are normalised.
    undecayed = ("rho", "static_rho", "coded", "static_coded")
    return Objective(init, loss, lengths=lambda data: data.length, undecayed=undecayed)


def weighted(config: CdmtConfig, each: Blocks) -> jax.Array:
    """The loss from that of every block of columns [cdmt2026, Eq. 9]."""
    numeric = each.numeric + config.weight_static * each.static_numeric
    coded = each.coded + config.weight_static * each.static_coded
    return config.weight_numeric * numeric + config.weight_categorical * coded


def corrupt(
    model: Model,
    params: Params,
    key: jax.Array,
    coded_keys: tuple[jax.Array, jax.Array],
    batch: Batch,
    x0: Blocks,
    sigma: Blocks,
    t: jax.Array,
) -> Blocks:
    """x = x0 + sigma eps [cdmt2026, Eq. 1]; codes by their coder."""
    key_numeric, key_static = jax.random.split(key)
    noisy = lambda key, x, s: x + s * jax.random.normal(key, x.shape)
    coder = model.coder
    return Blocks(
        noisy(key_numeric, x0.numeric, sigma.numeric),
        coder.corrupt(
            coded_keys[0], params["coded"], x0.coded, batch.codes, sigma.coded, t
        ),
        noisy(key_static, x0.static_numeric, sigma.static_numeric),
        coder.corrupt(
            coded_keys[1],
            params["static_coded"],
            x0.static_coded,
            batch.static_codes,
            sigma.static_coded,
            t,
        ),
    )


def losses(
    model: Model,
    params: Params,
    batch: Batch,
    x: Blocks,
    x0: Blocks,
    sigma: Blocks,
    found: Predicted,
    t: jax.Array,
) -> Blocks:
    """Loss of every element: [B, T, D] and [B, D]; gaps are behind coded columns."""
    s, coder = model.config.sigma_data, model.coder
    out, count = found.blocks, len(model.layout.temporal.numeric)
    coded = coder.loss(params["coded"], out.coded, x.coded, batch.codes, t)
    gaps = []
    if found.gaps is not None:
        codes = ordinal.codes_of(params["ends"], x0.numeric[..., count:])
        *_, logits = cut(model, params, found.gaps)
        logits = embeddings.pad_logits(logits, model.layout.gaps)
        gaps = [embeddings.cross_entropy(logits, codes)]
    square = lambda level, guess, true: edm.loss_weight(level, s) * (guess - true) ** 2
    return Blocks(
        square(sigma.numeric[..., :count], out.numeric, x0.numeric[..., :count]),
        jnp.concatenate([coded, *gaps], -1),
        square(sigma.static_numeric, out.static_numeric, x0.static_numeric),
        coder.loss(
            params["static_coded"],
            out.static_coded,
            x.static_coded,
            batch.static_codes,
            t,
        ),
    )


class Scales(NamedTuple):
    """What the losses are divided by: numbers, or traced ones."""

    steps: Any  # mean number of steps in training
    share: Any  # of training patients with a static part
    temporal: Any  # [D] or a number: see `column_scale`
    static: Any


def scales_of(model: Model, fitted: dict[str, Any]) -> Scales:
    """The scales that training on `fitted` uses."""
    temporal = column_scale(model.config, fitted["frequency"]["temporal"])
    if isinstance(temporal, np.ndarray) and model.layout.gaps:
        gaps = column_scale(model.config, latents.shares(fitted["latents"]))
        temporal = np.concatenate([temporal, gaps])
    return Scales(
        float(fitted["mean_length"]),
        float(fitted["static_share"]),
        temporal,
        column_scale(model.config, fitted["frequency"]["static"]),
    )


def row_weights(steps: Any, share: Any, temporal: Any, static: Any) -> Blocks:
    """Functions from the loss of every element to one loss per patient; see `Scales`.

    Means run over columns and valid steps. The divisor is the training mean of the
    number of steps, not each batch's own: so a batch's loss is the mean of its chunks.
    """

    def over_time(factor: Any) -> Callable[[jax.Array, Batch], jax.Array]:
        def weigh(leaf: jax.Array, batch: Batch) -> jax.Array:
            valid = jnp.arange(leaf.shape[1])[None, :] < batch.length[:, None]
            kept = jnp.where(valid[..., None], leaf * factor, 0.0)
            return kept.sum((1, 2)) / (steps * max(leaf.shape[2], 1))

        return weigh

    def once(factor: Any) -> Callable[[jax.Array, Batch], jax.Array]:
        def weigh(leaf: jax.Array, batch: Batch) -> jax.Array:
            kept = jnp.where(batch.has_static[:, None], leaf * factor, 0.0)
            return kept.sum(1) / (share * max(leaf.shape[1], 1))

        return weigh

    return Blocks(over_time(1.0), over_time(temporal), once(1.0), once(static))


def column_scale(config: CdmtConfig, frequency: np.ndarray) -> np.ndarray | float:
    """Factors [D] on the cross-entropy of each column: 1, 1 / entropy or 1 / log K."""
    if config.categorical_norm == "none":
        return 1.0
    p = np.asarray(frequency)
    if config.categorical_norm == "log_k":
        return (1.0 / np.log(np.maximum((p > 0).sum(-1), 2))).astype(np.float32)
    entropy = -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0), -1)
    return (1.0 / np.maximum(entropy, 1e-3)).astype(np.float32)
