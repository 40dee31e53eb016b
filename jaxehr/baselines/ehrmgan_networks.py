"""The recurrent networks of EHR-M-GAN, as functions of nested dicts [li2023].

LSTM cells have the gates i, f, g, o of

    c' = sigmoid(f) c + sigmoid(i) tanh(g),    h' = sigmoid(o) tanh(c').

B patients, T steps, W columns of one branch, K classes of the label told, l latent
coordinates, H units, n layers.
"""

# Deviation: the discriminators start from zero; the authors' start from variables that
# no optimiser moves.
# Deviation: dropout is off where a generator's latents are decoded; theirs cannot be.

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers

from jaxehr.nn.temporal import LstmWeights, blocked_lstm

Weights = dict[str, Any]
State = tuple[jax.Array, jax.Array]  # h, c [B, H]
BRANCHES = ("continuous", "discrete")
GLOROT = initializers.glorot_uniform()


def dense(key: jax.Array, inputs: int, outputs: int) -> Weights:
    return {"kernel": GLOROT(key, (inputs, outputs)), "bias": jnp.zeros(outputs)}


def affine(weights: Weights, x: jax.Array) -> jax.Array:
    return x @ weights["kernel"] + weights["bias"]


def lstm(key: jax.Array, inputs: int, units: int) -> Weights:
    """4 H (C + H + 1) weights; gates begin by not forgetting."""
    whole = GLOROT(key, (inputs + units, 4 * units))
    bias = jnp.zeros((4, units)).at[1].set(1.0).reshape(-1)
    return {"w_input": whole[:inputs], "w_hidden": whole[inputs:], "bias": bias}


def bilateral(key: jax.Array, inputs: int, units: int) -> Weights:
    """4 H (C + 2 H) weights N(0, 0.1^2), no bias."""
    keys, wide = jax.random.split(key, 3), 4 * units
    shapes = {"w_input": inputs, "w_hidden": units, "w_other": units}
    return {
        name: 0.1 * jax.random.normal(key, (rows, wide))
        for key, (name, rows) in zip(keys, shapes.items())
    }


def cell(
    weights: Weights, x: jax.Array, state: State, other: jax.Array | None = None
) -> State:
    """One step; a bilateral cell also reads the hidden state of the other branch."""
    parts = x @ weights["w_input"] + state[0] @ weights["w_hidden"]
    if other is not None:
        parts += other @ weights["w_other"]
    i, f, g, o = jnp.split(parts + weights.get("bias", 0.0), 4, -1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def dropped(dropout: float, key: jax.Array, h: jax.Array) -> jax.Array:
    """Each value 0 with the chance `dropout`, otherwise larger by as much."""
    if dropout == 0.0:
        return h
    keep = 1.0 - dropout
    return jnp.where(jax.random.bernoulli(key, keep, h.shape), h / keep, 0.0)


def sequence(weights: Weights, x: jax.Array) -> jax.Array:
    """States [T, B, H] of one LSTM over inputs [T, B, C], from zero."""
    return jnp.asarray(blocked_lstm(LstmWeights(**weights), x, None, False))


def seen(weights: Weights, x: jax.Array) -> jax.Array:
    """What an LSTM reads of columns [.., W]: these, or of many a projection."""
    return affine(weights["projection"], x) if "projection" in weights else x


def with_projection(key: jax.Array, config: Any, width: int) -> tuple[Weights, int]:
    """The projection of `width` columns, if they are too many; columns behind it."""
    if width <= config.projection:
        return {}, width
    return {"projection": dense(key, width, config.projection)}, config.projection


# ---- dual autoencoder: own layers of a branch, and layers that both share


def init_autoencoder(
    key: jax.Array, config: Any, widths: tuple[int, int], classes: int
) -> Weights:
    """`shared`, and the branches; shared are the last layer of the encoder, the first
    of the decoder, and the heads of the posterior."""
    keys, units = jax.random.split(key, 6), config.hidden
    common = {
        "encoder": lstm(keys[0], units, units),
        "decoder": lstm(keys[1], config.latent + classes, units),
        "mean": dense(keys[2], units, config.latent),
        "deviation": dense(keys[3], units, config.latent),
    }
    made = {"shared": common}
    for name, branch_key, width in zip(BRANCHES, keys[4:], widths):
        each = jax.random.split(branch_key, 2 * config.num_layers)
        own, narrow = with_projection(each[-1], config, width)
        inputs = 2 * narrow + classes
        for i in range(config.num_layers - 1):
            own[f"encoder_{i}"] = lstm(each[2 * i], inputs if i == 0 else units, units)
            own[f"decoder_{i}"] = lstm(each[2 * i + 1], units, units)
        made[name] = {**own, "out": dense(each[-2], units, width)}
    return made


def layers_of(config: Any, own: Weights, shared: Weights) -> tuple[list, list]:
    """The layers of the encoder and of the decoder, in order."""
    order = range(config.num_layers - 1)
    encoder = [*(own[f"encoder_{i}"] for i in order), shared["encoder"]]
    decoder = [shared["decoder"], *(own[f"decoder_{i}"] for i in order)]
    return encoder, decoder


def climb(
    dropout: float, keys: jax.Array, layers: list, x: jax.Array, states: tuple
) -> tuple[tuple, jax.Array]:
    """One step of a stack: new states, and the output of the last layer."""
    new = []
    for key, weights, state in zip(keys, layers, states, strict=True):
        new.append(cell(weights, x, state))
        x = dropped(dropout, key, new[-1][0])
    return tuple(new), x


def autoencode(
    config: Any,
    own: Weights,
    shared: Weights,
    key: jax.Array,
    x: jax.Array,
    told: jax.Array,
) -> tuple[jax.Array, ...]:
    """Logits [B, T, W], and mean, log deviation and draw [B, T, l] of the latents.

    The encoder reads x_t, the label and the error x_t - sigmoid(logits of step t - 1);
    one e ~ N(0, I) makes z_t = mean_t + deviation_t e at all steps.

    Args:
      x: [B, T, W] in [0, 1]. told: one-hot label [B, K].
    """
    encoder, decoder = layers_of(config, own, shared)
    key_e, key_drop = jax.random.split(key)
    e = jax.random.normal(key_e, (len(x), config.latent))
    zero = jnp.zeros((len(x), config.hidden))
    rest = tuple((zero, zero) for _ in encoder)

    def step(carry: Any, inputs: Any) -> Any:
        (coded, decoded, logits), (x_t, key_t) = carry, inputs
        keys = jax.random.split(key_t, 2 * len(encoder))
        error = seen(own, x_t - jax.nn.sigmoid(logits))
        h = jnp.concatenate([seen(own, x_t), told, error], -1)
        coded, h = climb(config.dropout, keys[: len(encoder)], encoder, h, coded)
        mean, log_std = affine(shared["mean"], h), affine(shared["deviation"], h)
        z = mean + jnp.exp(log_std) * e
        h = jnp.concatenate([z, told], -1)
        decoded, h = climb(config.dropout, keys[len(encoder) :], decoder, h, decoded)
        logits = affine(own["out"], h)
        return (coded, decoded, logits), (logits, mean, log_std, z)

    start = (rest, rest, jnp.zeros_like(x[:, 0]))
    inputs = x.swapaxes(0, 1), jax.random.split(key_drop, x.shape[1])
    made = jax.lax.scan(step, start, inputs)[1]
    return tuple(leaf.swapaxes(0, 1) for leaf in made)


def decode(
    config: Any, own: Weights, shared: Weights, z: jax.Array, told: jax.Array
) -> jax.Array:
    """Logits [B, T, W] of latents z [B, T, l], without dropout."""
    h = with_label(z, told).swapaxes(0, 1)
    for weights in layers_of(config, own, shared)[1]:
        h = sequence(weights, h)
    return affine(own["out"], h).swapaxes(0, 1)


def with_label(x: jax.Array, told: jax.Array) -> jax.Array:
    """x [B, T, C] with the label [B, K] at every step."""
    shape = (*x.shape[:2], told.shape[-1])
    return jnp.concatenate([x, jnp.broadcast_to(told[:, None], shape)], -1)


# ---- coupled generators


def noise_sizes(widths: tuple[int, int]) -> tuple[int, int]:
    """Coordinates of a step's noise: half as many as columns."""
    return max(widths[0] // 2, 1), max(widths[1] // 2, 1)


def init_generators(
    key: jax.Array, config: Any, widths: tuple[int, int], classes: int
) -> Weights:
    """Both branches: bilateral layers and a dense one."""
    made, units = {}, config.generator
    pairs = zip(jax.random.split(key), noise_sizes(widths))
    for name, (branch_key, size) in zip(BRANCHES, pairs):
        keys = jax.random.split(branch_key, config.num_layers + 1)
        sizes = [size + classes] + [units] * (config.num_layers - 1)
        layers = {
            f"layer_{i}": bilateral(keys[i], inputs, units)
            for i, inputs in enumerate(sizes)
        }
        made[name] = {**layers, "out": dense(keys[-1], units, config.latent)}
    return made


def generate(
    config: Any, weights: Weights, noise: tuple[jax.Array, jax.Array], told: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Latents [B, T, l] of both branches from their noise [B, T, .].

    At every layer each branch reads the other's hidden state of the step before.
    """
    zero = jnp.zeros((len(told), config.generator))
    rest = tuple((zero, zero) for _ in range(config.num_layers))

    def step(states: Any, inputs: Any) -> Any:
        new, outputs = [], []
        for branch, name in enumerate(BRANCHES):
            h, own = inputs[branch], []
            pairs = zip(states[branch], states[1 - branch], strict=True)
            for i, (state, other) in enumerate(pairs):
                own.append(cell(weights[name][f"layer_{i}"], h, state, other[0]))
                h = own[-1][0]
            new.append(tuple(own))
            outputs.append(affine(weights[name]["out"], h))
        return tuple(new), tuple(outputs)

    inputs = tuple(with_label(leaf, told).swapaxes(0, 1) for leaf in noise)
    found = jax.lax.scan(step, (rest, rest), inputs)[1]
    bound = jax.nn.sigmoid if config.latents == "sigmoid" else lambda z: z
    one, two = (bound(leaf).swapaxes(0, 1) for leaf in found)
    return one, two


# ---- discriminators


def init_discriminators(
    key: jax.Array, config: Any, widths: tuple[int, int], steps: int
) -> Weights:
    """Both branches: LSTM layers, and a dense one of all their outputs."""
    made, units = {}, config.discriminator
    for name, branch_key, width in zip(BRANCHES, jax.random.split(key), widths):
        keys = jax.random.split(branch_key, config.num_layers + 2)
        own, narrow = with_projection(keys[-1], config, width)
        for i in range(config.num_layers):
            own[f"layer_{i}"] = lstm(keys[i], narrow if i == 0 else units, units)
        made[name] = {**own, "out": dense(keys[-2], steps * units, 1)}
    return made


def discriminate(
    config: Any, weights: Weights, key: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Logits [B] of series [B, T, W] in [0, 1], and the LSTM's outputs [B, T, H]."""
    h = seen(weights, x).swapaxes(0, 1)
    for i, key_drop in enumerate(jax.random.split(key, config.num_layers)):
        h = dropped(config.dropout, key_drop, sequence(weights[f"layer_{i}"], h))
    h = h.swapaxes(0, 1)
    return affine(weights["out"], h.reshape(len(x), -1))[:, 0], h
