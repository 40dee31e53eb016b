"""The players of EHR-M-GAN: what each is trained on; see `ehrmgan` [li2023].

B patients, T steps, W columns of a branch, K classes, l latent coordinates. `config` is
an `EhrmganConfig`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxehr.baselines import ehrmgan_losses as losses
from jaxehr.baselines import ehrmgan_networks as nets
from jaxehr.baselines.forms import matrix
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.core.checks import InputError
from jaxehr.core.contracts import Objective, Params, Player

DISCRETE_KL = 0.1  # weight of the codes' divergence over that of the numbers
CLASSIFIER = 24  # units of what reads the label off the latents
# Labels of real and of made patients for the discriminators: uniform in these bounds.
LABELS = (((0.7, 1.2), (0.1, 0.3)), ((0.8, 0.9), (0.1, 0.1)))


class Branches(NamedTuple):
    """Places of the columns of both branches in the matrix."""

    continuous: np.ndarray  # Int [W_c]
    discrete: np.ndarray  # Int [W_d]

    @property
    def widths(self) -> tuple[int, int]:
        return len(self.continuous), len(self.discrete)


def branches_of(layout: Layout, config: Any) -> Branches:
    """Which column is in which branch.

    Raises:
      InputError: a branch has no column.
    """
    number = np.arange(layout.width) < layout.numbers
    count = lambda sizes: np.repeat(np.arange(len(sizes)), sizes) > 0
    of_number = count([len(part.numeric) for part in layout.parts])
    of_code = count([len(part.cardinalities) for part in layout.parts])
    static = columns_of(layout, of_number, of_code)
    kinds, parts = Branches(*both(number)), Branches(*both(~static))
    split = config.branches
    if split == "auto":
        split = "parts" if layout.sparse or not min(kinds.widths) else "kinds"
    found = {"kinds": kinds, "parts": parts}[split]
    if not min(found.widths):
        raise InputError(
            f"ehrmgan couples two series, but its branches by {split} have "
            f"{found.widths[0]} and {found.widths[1]} columns; use a model without "
            "branches, such as vae."
        )
    return found


def columns_of(layout: Layout, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Bool [W]: columns of the matrix by what holds of numbers [P] and codes [Q]."""
    hot = [np.repeat(codes[list(places)], k) for k, places in layout.groups]
    return np.concatenate([numbers, codes[list(layout.binary)], *hot])


def lasting(layout: Layout) -> np.ndarray:
    """Bool [Q]: codes that are the same at every step, static ones and the label."""
    count = len(layout.cardinalities)
    found = np.arange(count) >= len(layout.parts[0].cardinalities)
    found[[place for name, place in layout.extra.items() if name == "ended"]] = False
    return found


def both(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the columns that are in the first branch, and of the others."""
    return np.flatnonzero(first), np.flatnonzero(~first)


def series_of(layout: Layout, places: Branches, batch: Batch) -> list[jax.Array]:
    """Both branches [B, T, W] of a batch, in [0, 1]."""
    whole = matrix.matrix_of(layout, batch, unit=True)
    return [whole[..., place] for place in places]


def told_of(layout: Layout, label: Any) -> jax.Array:
    """The label one-hot [B, K]; K = 0 where it is not told."""
    return jax.nn.one_hot(jnp.asarray(label), layout.classes)


def init_autoencoders(
    layout: Layout, config: Any, places: Branches, key: jax.Array, _: Any
) -> Params:
    """Random weights of stage 1."""
    keys = jax.random.split(key, 3)
    made = nets.init_autoencoder(keys[0], config, places.widths, layout.classes)
    if layout.classes:
        inputs = 2 * layout.steps * config.latent
        made["classifier"] = {
            "hidden": nets.dense(keys[1], inputs, CLASSIFIER),
            "out": nets.dense(keys[2], CLASSIFIER, layout.classes),
        }
    return {"autoencoder": made}


def errors(config: Any, logits: list[jax.Array], x: list) -> list[jax.Array]:
    """Mean errors of both branches, in nats a patient with `likelihood`."""
    squares = (x[0] - jax.nn.sigmoid(logits[0])) ** 2
    entropy = optax.sigmoid_binary_cross_entropy(logits[1], x[1])
    if config.reconstruction == "mean":
        return [squares.mean(), entropy.mean()]
    squares = squares / (2.0 * config.deviation**2)
    return [squares.sum((1, 2)).mean(), entropy.sum((1, 2)).mean()]


def semantics_of(weights: Params, z: list[jax.Array], told: jax.Array) -> jax.Array:
    """Mean cross entropy of the label [B, K] by the latents of both branches."""
    h = jnp.concatenate(z, -1).reshape(len(told), -1)
    h = jax.nn.relu(nets.affine(weights["hidden"], h))
    logits = jnp.tanh(nets.affine(weights["out"], h))
    return -jnp.mean((told * jax.nn.log_softmax(logits, -1)).sum(-1))


def autoencoding(
    layout: Layout,
    config: Any,
    places: Branches,
    params: Params,
    key: jax.Array,
    batch: Batch,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """L_V of the module docstring."""
    weights, told = params["autoencoder"], told_of(layout, batch.label)
    x, keys = series_of(layout, places, batch), jax.random.split(key)
    run = functools.partial(nets.autoencode, config)
    logits, mean, log_std, z = zip(
        *(
            run(weights[name], weights["shared"], key, each, told)
            for name, key, each in zip(nets.BRANCHES, keys, x)
        ),
        strict=True,
    )
    kl = [losses.divergence(config.kl, *pair).mean() for pair in zip(mean, log_std)]
    kl = kl[0] + DISCRETE_KL * kl[1]
    flat = [leaf.reshape(len(leaf), -1) for leaf in z]
    terms = dict(zip(("numbers", "codes"), errors(config, list(logits), x)))
    loss = sum(terms.values()) + config.kl_weight * kl
    terms |= {"kl": kl, "matching": losses.matching(*z)}
    terms["contrast"] = losses.contrast(*flat)
    loss += config.matching * terms["matching"] + config.contrast * terms["contrast"]
    if layout.classes:
        terms["semantics"] = semantics_of(weights["classifier"], list(z), told)
        loss += config.semantics * terms["semantics"]
    return loss, terms


def made_of(
    config: Any, params: Params, noise: Any, told: jax.Array
) -> list[jax.Array]:
    """Series [B, T, W] in [0, 1] of both branches, from noise [B, T, .] of both."""
    weights = params["autoencoder"]
    z = nets.generate(config, params["generators"], noise, told)
    decode = functools.partial(nets.decode, config)
    return [
        jax.nn.sigmoid(decode(weights[name], weights["shared"], leaf, told))
        for name, leaf in zip(nets.BRANCHES, z)
    ]


def noise_of(layout: Layout, places: Branches, key: jax.Array) -> tuple:
    """Uniform noise [T, .] of both branches of one patient."""
    sizes, keys = nets.noise_sizes(places.widths), jax.random.split(key)
    one, two = (
        jax.random.uniform(key, (layout.steps, n)) for key, n in zip(keys, sizes)
    )
    return one, two


def rows_of_noise(layout: Layout, places: Branches, keys: jax.Array) -> tuple:
    """Noise [B, T, .] of both branches, row i from keys[i]."""
    return jax.vmap(functools.partial(noise_of, layout, places))(keys)


def players(layout: Layout, config: Any, places: Branches) -> Objective:
    """Stage 2: `discriminators`, `generators` and `autoencoder` in rounds."""

    def init(key: jax.Array, batch: Any) -> Params:
        keys, widths = jax.random.split(key), places.widths
        judges = nets.init_discriminators(keys[0], config, widths, layout.steps)
        made = nets.init_generators(keys[1], config, widths, layout.classes)
        return {"discriminators": judges, "generators": made}

    bound = functools.partial
    turns = (
        ("discriminators", judging, config.discriminator_updates),
        ("generators", generating, config.generator_updates),
        ("autoencoder", autoencoding, config.autoencoder_updates),
    )
    all_players = tuple(
        Player(name, bound(loss, layout, config, places), (name,), updates)
        for name, loss, updates in turns
    )
    return Objective(init, all_players[1].loss, players=all_players, whole=True)


def judged(
    layout: Layout,
    config: Any,
    places: Branches,
    params: Params,
    key: jax.Array,
    batch: Batch,
) -> tuple[list, list, list]:
    """(logits, features, series) of both branches, each of (made, real) patients."""
    key_noise, *keys = jax.random.split(key, 3)
    told, count = told_of(layout, batch.label), len(batch.label)
    noise = rows_of_noise(layout, places, jax.random.split(key_noise, count))
    made = made_of(config, params, noise, told)
    series = list(zip(made, series_of(layout, places, batch), strict=True))
    logits, features = [], []
    for name, branch_key, pair in zip(nets.BRANCHES, keys, series):
        weights = params["discriminators"][name]
        whole = jnp.concatenate(pair)  # a discriminator sees patients one by one
        found = nets.discriminate(config, weights, branch_key, whole)
        logits.append(jnp.split(found[0], 2))
        features.append(jnp.split(found[1], 2))
    return logits, features, series


def judging(
    layout: Layout,
    config: Any,
    places: Branches,
    params: Params,
    key: jax.Array,
    batch: Batch,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Errors of both discriminators against soft, noisy labels."""
    key_run, key_label = jax.random.split(key)
    logits, _, _ = judged(layout, config, places, params, key_run, batch)
    keys, count = jax.random.split(key_label, 4), len(batch.label)
    draw = lambda i, bounds: jax.random.uniform(
        keys[i], (count,), minval=bounds[0], maxval=bounds[1]
    )
    real = [losses.soft(logits[i][1], draw(i, LABELS[i][0])) for i in (0, 1)]
    made = [losses.soft(logits[i][0], draw(2 + i, LABELS[i][1])) for i in (0, 1)]
    numbers, codes = (real[i] + made[i] for i in (0, 1))
    return numbers + codes, {"numbers": numbers, "codes": codes}


def generating(
    layout: Layout,
    config: Any,
    places: Branches,
    params: Params,
    key: jax.Array,
    batch: Batch,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """L_G of the module docstring of `ehrmgan`."""
    logits, features, series = judged(layout, config, places, params, key, batch)
    fooled = losses.soft(logits[0][0], 1.0) + losses.soft(logits[1][0], 1.0)
    gap = losses.feature_gap(*features[0]) + losses.data_gap(*series[1])
    return fooled + config.features * gap, {"fooled": fooled, "gap": gap}
