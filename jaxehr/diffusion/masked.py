"""Mask diffusion of codes, the variant "Ours-Mask" [cdmt2026; tabdiff2025; sahoo2024].

A code is either itself or masked; alpha(t) = 1 - mask_probability(t) is the chance that
it is not. States are one-hot [..., D, K + 1], K the largest cardinality and the last
entry the mask (for every feature, also one with fewer codes). Head logits are padded
[..., D, K], -1e9 at padding (see `embeddings.pad_logits`). A head entry for the mask
would be set to -1e6 before any use, so it does not exist here. t, k and the mask
probabilities broadcast against the codes [..., D].
"""

import jax
import jax.numpy as jnp

from jaxehr.diffusion.schedules import RhoParams

EPS_MIN = 1e-5  # mask probability at t = 0
EPS_MAX = 1e-3  # unmasked probability at t = 1
_SLOPE = 1.0 - EPS_MAX - EPS_MIN
_IMPOSSIBLE = -1e6  # log-probability of what must not be drawn
_TEMPERATURE = 0.01  # of the straight-through mask


def init_k(num_features: int, num_steps: int, *, raw: float = -6.0) -> RhoParams:
    """Parameters of a learned exponent, factorised like rho; k = 1.00248 at the start.

    Use with `k_of(schedules.raw_of(params))`.
    """
    zeros = jnp.zeros
    return RhoParams(jnp.asarray(raw, float), zeros(num_features), zeros(num_steps))


def k_of(raw: jax.Array) -> jax.Array:
    """Exponent k = 1 + softplus(raw) of the mask schedule."""
    return 1.0 + jax.nn.softplus(raw)


def mask_probability(t: jax.Array | float, k: jax.Array | float) -> jax.Array:
    """1 - alpha(t) = (1 - eps_max - eps_min) t^k + eps_min [tabdiff2025]."""
    return _SLOPE * _powered(t, k) + EPS_MIN


def loss_weight(
    t: jax.Array | float, k: jax.Array | float, *, learnable: bool
) -> jax.Array:
    """Weight of the cross-entropy at time t, -alpha'(t) / (1 - alpha(t)).

    learnable: A k t^(k - 1) / (A t^k + eps_min), A = 1 - eps_max - eps_min;
    fixed: 1 / (1 - alpha(t)), the same at k = 1 up to the factor A.
    """
    if learnable:
        return _SLOPE * k * _powered(t, k - 1.0) / mask_probability(t, k)
    return 1.0 / mask_probability(t, k)


def start(shape: tuple[int, ...], num_codes: int) -> jax.Array:
    """The state [*shape, K + 1], all masked; shape = (..., D), K = num_codes."""
    return jax.nn.one_hot(jnp.full(shape, num_codes), num_codes + 1)


def corrupt(
    key: jax.Array,
    codes: jax.Array,
    t: jax.Array | float,
    k: jax.Array | float,
    *,
    num_codes: int,
    learnable: bool,
) -> jax.Array:
    """Masks each code with probability `mask_probability(t, k)`; state [..., D, K + 1].

    With `learnable`, the draw is a straight-through Gumbel-softmax at temperature 0.01:
    the value is hard, the gradient to k soft. Otherwise no gradient reaches k.

    Args:
      codes: Int [..., D]; t: broadcasts against `codes`, e.g. [B, 1, 1].
      num_codes: K, the largest cardinality.
    """
    probability = jnp.broadcast_to(mask_probability(t, k), codes.shape)
    # A logistic variable is the difference of two Gumbel ones: logit(p) + noise > 0 has
    # probability p.
    noise = jax.random.logistic(key, codes.shape, probability.dtype)
    score = jnp.log(probability) - jnp.log1p(-probability) + noise
    masked = (score > 0).astype(probability.dtype)
    if learnable:
        soft = jax.nn.sigmoid(score / _TEMPERATURE)
        masked = masked + soft - jax.lax.stop_gradient(soft)
    else:
        masked = jax.lax.stop_gradient(masked)
    masked = masked[..., None]
    kept = jax.nn.one_hot(codes, num_codes + 1, dtype=masked.dtype)
    return masked * start(codes.shape, num_codes) + (1.0 - masked) * kept


def codes_of(state: jax.Array) -> jax.Array:
    """Codes [..., D] of a state; K where masked."""
    return jnp.argmax(state, axis=-1)


def substitute(logits: jax.Array, state: jax.Array) -> jax.Array:
    """Log-probabilities [..., D, K + 1] of the clean code, given state and raw logits.

    A masked position gets log_softmax(logits) and never the mask; an unmasked one is a
    point mass on its value [sahoo2024].

    Args:
      logits: [..., D, K], without an entry for the mask; guided ones are welcome.
      state: [..., D, K + 1].

    Raises:
      ValueError: the widths of `logits` and `state` do not differ by the mask entry.
    """
    if logits.shape[-1] + 1 != state.shape[-1]:
        raise ValueError(
            f"logits have {logits.shape[-1]} entries and the state {state.shape[-1]}; "
            "the state needs exactly one more, for the mask. Drop the mask logit."
        )
    known = jax.lax.stop_gradient(state)
    logs = jax.nn.log_softmax(logits, axis=-1)
    never = jnp.full((*logs.shape[:-1], 1), _IMPOSSIBLE, logs.dtype)
    free = jnp.concatenate([logs, never], axis=-1)
    fixed = jnp.where(known > 0.5, 0.0, _IMPOSSIBLE)
    return jnp.where(known[..., -1:] > 0.5, free, fixed)


def loss(
    logits: jax.Array,
    state: jax.Array,
    codes: jax.Array,
    t: jax.Array | float,
    k: jax.Array | float,
    *,
    learnable: bool,
) -> jax.Array:
    """Weighted -log p(true code) [..., D]; 0 where the code is not masked."""
    logs = substitute(logits, state)
    true = jax.nn.one_hot(codes, logs.shape[-1], dtype=bool)
    picked = jnp.sum(jnp.where(true, logs, 0.0), axis=-1)
    return -loss_weight(t, k, learnable=learnable) * picked


def reverse_step(
    key: jax.Array,
    logits: jax.Array,
    state: jax.Array,
    p_now: jax.Array | float,
    p_next: jax.Array | float,
) -> jax.Array:
    """Draws the state at the next, lower noise level [sahoo2024].

    A masked code becomes k with weight p_k (p_now - p_next) and stays masked with
    weight p_next, by Gumbel-max; an unmasked one stays. p_next = 0 leaves no mask.

    Args:
      logits: [..., D, K]; state: [..., D, K + 1].
      p_now, p_next: mask probabilities, p_now > p_next >= 0, that
        broadcast against [..., D].
    """
    logs = substitute(logits, state)
    shape = state.shape[:-1]
    reveal = jnp.broadcast_to(jnp.log(jnp.asarray(p_now) - p_next), shape)
    stay = jnp.broadcast_to(jnp.log(jnp.asarray(p_next, logs.dtype)), shape)
    weights = jnp.concatenate(
        [logs[..., :-1] + reveal[..., None], stay[..., None]], axis=-1
    )
    drawn = jnp.argmax(weights + jax.random.gumbel(key, weights.shape), axis=-1)
    fresh = jax.nn.one_hot(drawn, state.shape[-1], dtype=state.dtype)
    return jnp.where(state[..., -1:] > 0.5, fresh, state)


def _powered(t: jax.Array | float, exponent: jax.Array | float) -> jax.Array:
    """t^exponent; the bound on t keeps log(0) out of the gradient to the exponent."""
    return jnp.exp(jnp.asarray(exponent) * jnp.log(jnp.maximum(t, 1e-12)))
