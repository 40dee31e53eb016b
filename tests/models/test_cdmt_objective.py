"""The loss against NumPy, its gradients, its weights [cdmt2026, Eq. 1-10]."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cdmt_builders import config, fitted_model
from small_cohorts import cohort, schema

from jaxehr.core.cohort import valid_steps
from jaxehr.diffusion.edm import low_discrepancy
from jaxehr.diffusion.embeddings import pad_logits
from jaxehr.diffusion.schedules import power_mean
from jaxehr.models.cdmt.network import Blocks
from jaxehr.models.cdmt.objective import (
    column_scale,
    init_params,
    make_objective,
    noise_levels,
    row_weights,
    scales_of,
)
from jaxehr.training.config import TrainConfig
from jaxehr.training.turns import optimisers

KEY = jax.random.key(11)
MADE = schema()
PEOPLE = cohort(MADE, count=10)


class Known:
    """A network that is a fixed function: linear in its inputs, t and the condition."""

    def __init__(self, model):
        rng = np.random.default_rng(0)
        parts = (model.layout.temporal, model.layout.static)
        self.sizes = [part.cardinalities for part in parts]
        mask, d = model.config.categorical == "mask", model.config.embedding_dim
        width = lambda sizes: max(sizes) + 1 if mask else d
        self.matrices = [
            0.3 * rng.normal(size=(len(sizes) * width(sizes), sum(sizes)))
            for sizes in self.sizes
        ]

    def numeric(self, x, t, condition):
        """[B, .., D]."""
        along = (-1, *(1,) * (x.ndim - 1))
        told = (condition * np.arange(1, condition.shape[-1] + 1)).sum(-1)
        return 0.5 * x + 0.2 * t.reshape(along) + 0.1 * told.reshape(along)

    def apply(self, _, inputs, t, frame):
        coded = [
            pad_logits(x @ matrix, sizes)
            for x, matrix, sizes in zip(
                (inputs.coded, inputs.static_coded),
                self.matrices,
                self.sizes,
                strict=True,
            )
        ]
        return Blocks(
            self.numeric(inputs.numeric, t, frame.condition),
            coded[0],
            self.numeric(inputs.static_numeric, t, frame.condition),
            coded[1],
        )


@functools.cache
def parts(**fields):
    model, fitted, batch = fitted_model(MADE, config(**fields), PEOPLE)
    return model._replace(network=Known(model)), fitted, batch


def weights_of(model, rho=(7.0, 6.0)):
    """Tables of fixed directions, and schedules away from their start."""
    rng = np.random.default_rng(3)
    raw = lambda value: np.log(np.expm1(np.asarray(value) - 5.0))

    def schedule(start, columns, steps):
        return {
            "base": jnp.asarray(raw(start)),
            "feature": jnp.asarray(rng.normal(0, 0.5, columns)),
            "step": jnp.asarray(rng.normal(0, 0.5, steps)),
        }

    found = {"network": {}}
    for prefix, part, steps in (
        ("", model.layout.temporal, model.layout.num_steps),
        ("static_", model.layout.static, 0),
    ):
        sizes = part.cardinalities
        table = rng.normal(size=(len(sizes), max(sizes), model.config.embedding_dim))
        table *= (np.arange(max(sizes)) < np.array(sizes)[:, None])[..., None]
        found[f"{prefix}rho"] = schedule(rho[0], len(part.numeric), steps)
        rho_coded = schedule(rho[1], len(sizes), steps)
        found[f"{prefix}coded"] = {"table": jnp.asarray(table), "rho": rho_coded}
    return found


def sigma_by_formula(raw, t, low, high, ndim):
    """Eq. 3 literally, rho = 5 + softplus(base + feature + step), capped at 50."""
    total = raw["base"] + raw["feature"]
    if len(raw["step"]):
        total = total + raw["step"][:, None]
    rho = 5 + np.log1p(np.exp(np.asarray(total)))
    rho = 50 - np.log1p(np.exp(50 - rho))
    t = t.reshape(-1, *(1,) * (ndim - 1))
    ends = low ** (1 / rho), high ** (1 / rho)
    return (ends[0] + t * (ends[1] - ends[0])) ** rho


def cross_entropy(flat_logits, codes, sizes):
    found, place = np.zeros(codes.shape), 0
    for column, size in enumerate(sizes):
        logits = flat_logits[..., place : place + size]
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        picked = np.take_along_axis(logs, codes[..., column, None].astype(int), -1)
        found[..., column] = -picked[..., 0]
        place += size
    return found


def loss_by_hand(model, weights, fitted, batch):
    """The loss in NumPy, from the draws that the code makes."""
    key_t, key_noise, key_drop, *key_coded = jax.random.split(KEY, 5)
    key_numeric = jax.random.split(key_noise)
    rows, d = len(batch.label), model.config.embedding_dim
    t = np.asarray(low_discrepancy(key_t, rows))
    told = (
        np.asarray(jax.random.uniform(key_drop, (rows, 1))) >= model.config.label_drop
    )
    condition = np.eye(2)[batch.label] * told
    total = {}
    for i, (prefix, part, numeric, codes) in enumerate(
        (
            ("", model.layout.temporal, batch.numeric, batch.codes),
            ("static_", model.layout.static, batch.static_numeric, batch.static_codes),
        )
    ):
        raw, coded = weights[f"{prefix}rho"], weights[f"{prefix}coded"]
        sigma = sigma_by_formula(raw, t, 0.002, 80.0, numeric.ndim)
        x = numeric + sigma * np.asarray(
            jax.random.normal(key_numeric[i], numeric.shape)
        )
        c_in = 1 / np.sqrt(1 + sigma**2)
        guess = model.network.numeric(c_in * x, t, condition)
        guess = x / (1 + sigma**2) + sigma * c_in * guess
        total[f"{prefix}numeric"] = (1 + sigma**2) / sigma**2 * (guess - numeric) ** 2
        table = np.asarray(coded["table"])
        length = np.linalg.norm(table, axis=-1, keepdims=True)
        table = np.sqrt(d) * table / np.where(length > 0, length, 1)
        z = table[np.arange(len(part.cardinalities)), codes]
        sigma = sigma_by_formula(coded["rho"], t, 0.002, 100.0, codes.ndim)[..., None]
        noise = np.asarray(jax.random.normal(key_coded[i], z.shape))
        scaled = (z + sigma * noise) / np.sqrt(1 + sigma**2)
        logits = scaled.reshape(*scaled.shape[:-2], -1) @ model.network.matrices[i]
        total[f"{prefix}coded"] = cross_entropy(logits, codes, part.cardinalities)
    valid, known = valid_steps(PEOPLE), PEOPLE.has_static
    mean = lambda name: (
        (total[name] * valid[..., None]).sum() / (valid.sum() * total[name].shape[-1])
    )
    once = lambda name: total[name][known].mean()
    c = model.config
    return c.weight_numeric * (
        mean("numeric") + c.weight_static * once("static_numeric")
    ) + c.weight_categorical * (mean("coded") + c.weight_static * once("static_coded"))


def test_loss_in_numpy(x64):
    model, fitted, batch = parts(
        label_drop=0.4, weight_numeric=2.0, weight_categorical=0.5, weight_static=3.0
    )
    weights = weights_of(model)
    loss = jax.jit(make_objective(model, fitted).loss)
    wanted = loss_by_hand(model, weights, fitted, batch)
    # Batches hold float32 values; everything after them is float64.
    np.testing.assert_allclose(loss(weights, KEY, batch)[0], wanted, rtol=1e-6)


def shifted(weights, path, by):
    change = lambda where, leaf: (
        leaf + by
        if jax.tree_util.keystr(where, simple=True, separator="/") == path
        else leaf
    )
    return jax.tree_util.tree_map_with_path(change, weights)


def test_weight_decay_moves_the_network_only():
    """A fixed schedule stays as it is."""
    model, fitted, _ = parts()
    objective = make_objective(model, fitted)
    weights = weights_of(model) | {"network": {"head": jnp.ones(3)}}
    (tx,) = optimisers(objective, TrainConfig(weight_decay=0.1))
    still = jax.tree.map(jnp.zeros_like, weights)
    found, _ = tx.update(still, tx.init(weights), weights)
    assert (found.pop("network")["head"] < 0).all()
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))


def test_gradient_of_the_schedules(x64):
    """Central differences on the global terms: rho acts through noise and weight."""
    model, fitted, batch = parts()
    weights, step = weights_of(model), 1e-4
    objective = make_objective(model, fitted)
    run = jax.jit(jax.value_and_grad(lambda w: objective.loss(w, KEY, batch)[0]))
    grads = run(weights)[1]
    for path in ("rho", "coded/rho", "static_rho", "static_coded/rho"):
        name = f"{path}/base"
        ends = [run(shifted(weights, name, by))[0] for by in (step, -step)]
        found = functools.reduce(lambda node, part: node[part], name.split("/"), grads)
        assert abs(found) > 1e-3
        wanted = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", ["embedding", "mask"])
def test_a_fixed_schedule_has_no_gradient(kind):
    model, fitted, batch = parts(schedule="fixed", categorical=kind)
    weights, name = weights_of(model), "rho"
    if kind == "mask":
        name, layout = "k", model.layout
        start = lambda part, steps: model.coder.init(KEY, part, steps)
        weights |= {"coded": start(layout.temporal, layout.num_steps)}
        weights |= {"static_coded": start(layout.static, 0)}
    loss = lambda w: make_objective(model, fitted).loss(w, KEY, batch)[0]
    grads = jax.jit(jax.grad(loss))(weights)
    schedules = [grads["rho"], grads["static_rho"]]
    schedules += [grads[part][name] for part in ("coded", "static_coded")]
    for leaf in jax.tree.leaves(schedules):
        assert not np.asarray(leaf).any()
    if kind == "embedding":
        assert np.abs(grads["coded"]["table"]).max() > 0


def test_the_mask_schedule_learns():
    model, fitted, batch = parts(categorical="mask")
    weights, layout = weights_of(model), model.layout
    start = lambda part, steps: model.coder.init(KEY, part, steps)
    weights |= {"coded": start(layout.temporal, layout.num_steps)}
    weights |= {"static_coded": start(layout.static, 0)}
    loss = lambda w: make_objective(model, fitted).loss(w, KEY, batch)[0]
    grads = jax.jit(jax.grad(loss))(weights)
    for part in ("coded", "static_coded"):
        base = float(grads[part]["k"]["base"])
        assert np.isfinite(base)
        assert base != 0


def test_a_dropped_label_is_not_seen():
    losses = {}
    for drop in (0.0, 0.99):
        model, fitted, batch = parts(label_drop=drop)
        loss = jax.jit(make_objective(model, fitted).loss)
        other = batch._replace(label=1 - batch.label)
        weights = weights_of(model)
        losses[drop] = [float(loss(weights, KEY, b)[0]) for b in (batch, other)]
    assert losses[0.99][0] == losses[0.99][1]
    assert losses[0.0][0] != losses[0.0][1]


def test_padding_and_absence_do_not_count():
    """Other numbers where nothing is change neither the loss nor its gradient."""
    model, fitted, batch = parts()
    weights, loss = weights_of(model), make_objective(model, fitted).loss
    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    pad, absent = ~valid_steps(PEOPLE)[..., None], ~PEOPLE.has_static[:, None]
    other = batch._replace(
        numeric=np.where(pad, 5.0, batch.numeric).astype("f4"),
        codes=np.where(pad, 1, batch.codes).astype(batch.codes.dtype),
        static_numeric=np.where(absent, 5.0, batch.static_numeric).astype("f4"),
        static_codes=np.where(absent, 1, batch.static_codes).astype(
            batch.static_codes.dtype
        ),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        run(weights, KEY, other),
        run(weights, KEY, batch),
    )


def test_chunks_average_to_the_batch():
    """Row weights of a part are those of the whole: the divisor is not the batch's."""
    model, fitted, batch = parts()
    rng = np.random.default_rng(2)
    for weigh, like in zip(
        row_weights(*scales_of(model, fitted)),
        (batch.numeric, batch.codes, batch.static_numeric, batch.static_codes),
        strict=True,
    ):
        leaf = rng.random(like.shape)
        whole = weigh(leaf, batch)
        for rows in (slice(0, 5), slice(5, 10)):
            part = weigh(leaf[rows], jax.tree.map(lambda x, r=rows: x[r], batch))
            np.testing.assert_allclose(part, whole[rows], rtol=1e-6)


def test_row_weights_give_the_mean_over_what_exists():
    model, fitted, batch = parts()
    ones = lambda like: np.ones(like.shape)
    found = [
        np.mean(weigh(ones(like), batch))
        for weigh, like in zip(
            row_weights(*scales_of(model, fitted)),
            (batch.numeric, batch.codes, batch.static_numeric, batch.static_codes),
            strict=True,
        )
    ]
    np.testing.assert_allclose(found, 1.0, rtol=1e-6)


def test_normalised_cross_entropy():
    shares = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.9, 0.1, 0.0]])
    assert column_scale(config(), shares) == 1.0
    logs = column_scale(config(categorical_norm="log_k"), shares)
    np.testing.assert_allclose(logs, 1 / np.log([2, 3, 2]), rtol=1e-6)
    entropy = [np.log(2), -(0.2 * np.log(0.2) + 0.3 * np.log(0.3) + 0.5 * np.log(0.5))]
    entropy += [-(0.9 * np.log(0.9) + 0.1 * np.log(0.1))]
    found = column_scale(config(categorical_norm="entropy"), shares)
    np.testing.assert_allclose(found, 1 / np.array(entropy), rtol=1e-6)


@pytest.mark.parametrize("norm", ["entropy", "log_k"])
def test_norm_scales_each_column(norm):
    model, fitted, batch = parts(categorical_norm=norm)
    weigh = row_weights(*scales_of(model, fitted)).coded
    plain = row_weights(*scales_of(parts()[0], fitted)).coded
    scale = column_scale(model.config, fitted["frequency"]["temporal"])
    for column, factor in enumerate(scale):
        leaf = np.zeros(batch.codes.shape)
        leaf[..., column] = 1.0
        np.testing.assert_allclose(
            weigh(leaf, batch), factor * plain(leaf, batch), rtol=1e-5
        )


@pytest.mark.parametrize("floor", [5.0, 0.1])
def test_schedules_start_at_the_shapes_of_the_configuration(floor):
    model, fitted, batch = fitted_model(
        MADE, config(rho=7.0, rho_embedding=9.0, rho_floor=floor), PEOPLE
    )
    params = jax.jit(lambda: init_params(model, fitted, KEY, batch))()
    found = noise_levels(model, params, jnp.float32(0.4))
    for level, rho, top in (
        (found.numeric, 7.0, 80.0),
        (found.coded, 9.0, 100.0),
        (found.static_coded, 9.0, 100.0),
    ):
        wanted = power_mean(jnp.float32(0.4), rho, 0.002, top)
        np.testing.assert_allclose(level, np.full(level.shape, wanted), rtol=1e-4)
