"""Schedules, denoiser and sampler of TabDiff [tabdiff2025]; see `tabdiff`.

P + S numbers, Q codes in groups of K categories (`multinomial.Groups`); the state of a
code is one-hot with K + 1 entries, the last one "masked". t is 1 at pure noise.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxehr.baselines.forms import scores as forms
from jaxehr.baselines.forms.layout import Batch, Layout
from jaxehr.core.contracts import Params
from jaxehr.diffusion import edm, masked
from jaxehr.diffusion.multinomial import Groups
from jaxehr.diffusion.schedules import power_mean, power_mean_inverse
from jaxehr.nn.columns import ColumnDenoiser

FLOOR, START_RHO, START_K = 5.0, 7.0, -6.0  # rho = 5 + softplus(raw), raw 7 at first
FIXED_RHO, FIXED_K = 7.0, 1.0  # of schedules that are not learned
REFERENCE = (7.0, 0.002, 80.0)  # schedule whose level the network is told
CHURN = 1.0


class Model(NamedTuple):
    """The fixed parts of one model; `config` is the `TabdiffConfig`."""

    layout: Layout
    config: Any
    groups: Groups
    numbers: int  # P + S
    network: ColumnDenoiser

    def rho(self, params: Params) -> jax.Array:
        """Shape [P + S] of the schedule of each number."""
        if self.config.schedule == "fixed":
            return jnp.full((self.numbers,), FIXED_RHO)
        return FLOOR + jax.nn.softplus(params["raw_rho"])

    def exponents(self, params: Params) -> list[jax.Array]:
        """k [codes] of each K."""
        if self.config.schedule == "fixed":
            return [jnp.full(len(at), FIXED_K) for _, at in self.groups.places]
        raw = params["raw_k"]
        return [masked.k_of(raw[str(num)]) for num, _ in self.groups.places]


def make_model(layout: Layout, config: Any) -> Model:
    """What the layout and the configuration say together."""
    c, numbers = config, layout.numbers + layout.sums
    network = ColumnDenoiser(c.token, c.num_layers, c.num_heads, c.expansion, c.width)
    return Model(layout, config, Groups(layout.cardinalities), numbers, network)


class Noise(NamedTuple):
    """The noise of every column at one time."""

    t: Any  # []
    sigma: Any  # [P + S]
    masked: list[Any]  # chance of a mask [codes] of each K


def noise_at(model: Model, params: Params, t: jax.Array) -> Noise:
    """Levels at the scalar time t."""
    ends = model.config.sigma_min, model.config.sigma_max
    return Noise(
        t,
        power_mean(t, model.rho(params), *ends),
        [masked.mask_probability(t, k) for k in model.exponents(params)],
    )


def denoise(
    model: Model,
    params: Params,
    x: jax.Array,
    states: list[jax.Array],
    sigma: jax.Array,
    t: jax.Array,
) -> tuple[jax.Array, list[jax.Array]]:
    """D(x) [B, P + S] and logits [B, codes, K] of each K; t [B].

    The network is told ln(sigma) / 4 of one reference schedule, whatever that of a
    column has become.
    """
    scale = edm.precondition(sigma, 1.0)
    level = 0.25 * jnp.log(power_mean(t, *REFERENCE))
    variables = {"params": params["network"]}
    found: Any = model.network.apply(variables, scale.c_in * x, states, level)
    return scale.c_skip * x + scale.c_out * found[0], found[1]


def init(model: Model, scores: Params, key: jax.Array, batch: Batch) -> Params:
    """Random weights, schedules at their start, the clock of `tabdiff.ticking` at 0."""
    pairs = zip(model.groups.take(batch.codes), model.groups.places, strict=True)
    states = [jax.nn.one_hot(codes, num + 1) for codes, (num, _) in pairs]
    x = forms.numbers_of(scores, batch)
    network = model.network.init(key, x, states, jnp.zeros(len(x)))["params"]
    places = model.groups.places
    return {
        "network": network,
        "raw_rho": jnp.full((model.numbers,), START_RHO, jnp.float32),
        "raw_k": {
            str(num): jnp.full((len(at),), START_K, jnp.float32) for num, at in places
        },
        "clock": jnp.zeros(()),
    }


class Step(NamedTuple):
    """The noise now, a little later (nearer to pure noise), and after the step."""

    now: Noise
    later: Noise
    after: Noise


def plan(model: Model, params: Params, options: Any) -> Step:
    """The steps from t = 1 to 0 and to no noise at all, leaves [N, ...].

    sigma_later = (1 + gamma) sigma_now, gamma = min(1 / N, sqrt(2) - 1); codes are as
    masked as at the earliest time at which a number has that level. Where that is
    beyond t = 1, nothing is added.
    """
    ends = model.config.sigma_min, model.config.sigma_max
    at = jax.vmap(lambda t: noise_at(model, params, t))
    t = jnp.linspace(1.0, 0.0, options.steps)
    now = at(t)
    fade = lambda leaf: jnp.concatenate([leaf[1:], jnp.zeros_like(leaf[:1])])
    after = jax.tree.map(fade, now)
    if not (options.stochastic and model.numbers):
        return Step(now, now, after)
    gamma = min(CHURN / options.steps, math.sqrt(2.0) - 1.0)
    sigma = (1.0 + gamma) * now.sigma
    found = power_mean_inverse(sigma, model.rho(params), *ends).min(-1)
    inside = found <= 1.0
    found = jnp.where(inside, found, t)
    sigma = jnp.where(inside[:, None], sigma, now.sigma)
    return Step(now, at(found)._replace(sigma=sigma), after)


def churn(
    step: Step, key: jax.Array, x: jax.Array, states: list[jax.Array]
) -> tuple[jax.Array, list[jax.Array]]:
    """One patient at the noise `later`, from the noise `now`."""
    key_x, key_codes = jax.random.split(key)
    square = step.later.sigma**2 - step.now.sigma**2
    noise = jax.random.normal(key_x, x.shape)
    x = x + jnp.sqrt(jnp.maximum(square, 0.0)) * noise
    found = []
    for i, state in enumerate(states):
        now, later = step.now.masked[i], step.later.masked[i]
        level = jax.random.uniform(jax.random.fold_in(key_codes, i), now.shape)
        hidden = level < (later - now) / (1.0 - now)
        mask = masked.start(now.shape, state.shape[-1] - 1)
        found.append(jnp.where(hidden[:, None], mask, state))
    return x, found


def reveal(
    step: Step, key: jax.Array, logits: list[jax.Array], states: list[jax.Array]
) -> list[jax.Array]:
    """States of one patient after the step."""
    return [
        masked.reverse_step(
            jax.random.fold_in(key, i),
            logits[i],
            state,
            step.later.masked[i],
            step.after.masked[i],
        )
        for i, state in enumerate(states)
    ]


def solve(
    model: Model, params: Params, options: Any, keys: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """Numbers [B, P + S] and states of patients, each from its own key.

    Per step: churn, one Euler step of numbers and one unmasking of codes; with
    `second_order` the slope of numbers is averaged with that at the end of the step,
    where the codes are not yet unmasked. `mode` takes the likeliest code in the end.
    """
    rows, steps = len(keys), plan(model, params, options)

    def call(x: Any, states: Any, noise: Noise) -> tuple[jax.Array, list[jax.Array]]:
        t = jnp.full((rows,), noise.t)
        return denoise(model, params, x, states, noise.sigma, t)

    def start(key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, (model.numbers,))
        return steps.now.sigma[0] * noise

    def move(state: Any, ahead: Any, last: bool = False) -> tuple[Any, None]:
        step, n = ahead
        at = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, n)))(keys)
        stir = lambda key, x, states: churn(step, key, x, states)
        x, states = jax.vmap(stir)(at[:, 0], *state)
        guess, logits = call(x, states, step.later)
        slope = (x - guess) / step.later.sigma
        change = step.after.sigma - step.later.sigma
        found = x + change * slope
        if options.second_order and not last:
            guess, _ = call(found, states, step.after)
            slope = 0.5 * (slope + (found - guess) / step.after.sigma)
            found = x + change * slope
        if last and options.decode == "mode":
            best = [jnp.argmax(masked.substitute(*p), -1) for p in zip(logits, states)]
            pairs = zip(best, states, strict=True)
            return (found, [jax.nn.one_hot(b, s.shape[-1]) for b, s in pairs]), None
        show = lambda key, logits, states: reveal(step, key, logits, states)
        return (found, jax.vmap(show)(at[:, 1], logits, states)), None

    at = jax.vmap(lambda key: jax.random.fold_in(key, options.steps))(keys)
    places = model.groups.places
    state = jax.vmap(start)(at), [masked.start((rows, len(q)), k) for k, q in places]
    ahead = steps, jnp.arange(options.steps)
    cut = lambda part: jax.tree.map(lambda leaf: leaf[part], ahead)
    state = jax.lax.scan(move, state, cut(slice(0, -1)))[0]
    return move(state, cut(-1), True)[0]
