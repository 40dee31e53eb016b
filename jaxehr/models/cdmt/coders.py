"""How codes are diffused: as embeddings (the paper), or masked (its ablation).

A coder is a NamedTuple of pure functions with one set of parameters per modality. Codes
are [.., D]; what the network sees of them is [.., D, k].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxehr.core.contracts import Params
from jaxehr.data.mixed import Part
from jaxehr.diffusion import edm, embeddings, masked
from jaxehr.diffusion.schedules import RhoParams, init_rho, power_mean, raw_of, rho_of
from jaxehr.models.cdmt.config import RHO_CAP, CdmtConfig


class Coder(NamedTuple):
    """One way to diffuse codes.

    Attributes:
      init: (key, part, num_steps) -> params.
      clean: (params, part, codes) -> x0 [.., D, k].
      level: (params, scalar t) -> noise level, broadcasting against x0.
      scale: (x, level) -> network input.
      corrupt: (key, params, x0, codes, level, t [B]) -> x.
      loss: (params, logits, x, codes, t [B]) -> loss [.., D].
    """

    init: Callable[..., Params]
    clean: Callable[..., jax.Array]
    level: Callable[..., jax.Array]
    scale: Callable[..., jax.Array]
    corrupt: Callable[..., jax.Array]
    loss: Callable[..., jax.Array]


def make_coder(config: CdmtConfig) -> Coder:
    """The coder that `config.categorical` names."""
    return embedding(config) if config.categorical == "embedding" else mask(config)


def table_of(params: Params) -> jax.Array:
    """Normalised embeddings [D, K, d] of one modality."""
    return embeddings.normalise(params["table"], params.get("bias"))


def embedding(config: CdmtConfig) -> Coder:
    """Continuous embeddings with score interpolation [cdmt2026, Eq. 5, 8-10]."""
    fixed = config.schedule == "fixed"

    def init(key: jax.Array, part: Part, num_steps: int) -> Params:
        sizes, dim = part.cardinalities, config.embedding_dim
        kind = {"kind": config.rho_kind, "floor": config.rho_floor}
        rho = init_rho(config.rho_embedding, len(sizes), num_steps, **kind)
        params = {"table": embeddings.init_table(key, sizes, dim), "rho": rho._asdict()}
        if config.embedding_bias:
            params["bias"] = jnp.zeros((len(sizes), dim))
        return params

    def clean(params: Params, part: Part, codes: jax.Array) -> jax.Array:
        if not part.cardinalities:
            return jnp.zeros((*codes.shape, config.embedding_dim))
        return embeddings.embed(table_of(params), codes)

    def level(params: Params, t: jax.Array) -> jax.Array:
        kind = {"kind": config.rho_kind, "floor": config.rho_floor, "cap": RHO_CAP}
        rho = rho_of(RhoParams(**params["rho"]), **kind)
        rho = jax.lax.stop_gradient(rho) if fixed else rho
        sigma = power_mean(t, rho, config.sigma_min, config.sigma_max_embedding)
        return sigma[..., None]

    def scale(x: jax.Array, sigma: jax.Array) -> jax.Array:
        return edm.precondition(sigma, config.sigma_data).c_in * x

    def corrupt(
        key: jax.Array, _: Params, x0: jax.Array, codes: Any, sigma: jax.Array, t: Any
    ) -> jax.Array:
        return x0 + sigma * jax.random.normal(key, x0.shape)

    def loss(_: Params, logits: jax.Array, x: Any, codes: Any, t: Any) -> jax.Array:
        if not codes.shape[-1]:
            return jnp.zeros(codes.shape)
        return embeddings.cross_entropy(logits, codes)

    return Coder(init, clean, level, scale, corrupt, loss)


def mask(config: CdmtConfig) -> Coder:
    """Mask diffusion, "Ours-Mask" [cdmt2026, Table 5; tabdiff2025]."""
    learned = config.schedule == "learned"

    def shape(params: Params) -> jax.Array:
        value = masked.k_of(raw_of(RhoParams(**params["k"])))
        return value if learned else jax.lax.stop_gradient(value)

    def init(key: jax.Array, part: Part, num_steps: int) -> Params:
        sizes = part.cardinalities
        return {"k": masked.init_k(len(sizes), num_steps)._asdict()}

    def clean(params: Params, part: Part, codes: jax.Array) -> jax.Array:
        return jax.nn.one_hot(codes, max(part.cardinalities, default=1) + 1)

    def level(params: Params, t: jax.Array) -> jax.Array:
        return masked.mask_probability(t, shape(params))[..., None]

    def scale(x: jax.Array, _: jax.Array) -> jax.Array:
        return x

    def corrupt(
        key: jax.Array, params: Params, x0: jax.Array, codes: Any, _: Any, t: jax.Array
    ) -> jax.Array:
        return masked.corrupt(
            key,
            codes,
            over_columns(t, codes),
            shape(params),
            num_codes=x0.shape[-1] - 1,
            learnable=learned,
        )

    def loss(
        params: Params, logits: jax.Array, x: jax.Array, codes: Any, t: jax.Array
    ) -> jax.Array:
        if not codes.shape[-1]:
            return jnp.zeros(codes.shape)
        t = over_columns(t, codes)
        return masked.loss(logits, x, codes, t, shape(params), learnable=learned)

    return Coder(init, clean, level, scale, corrupt, loss)


def over_columns(t: jax.Array, codes: jax.Array) -> jax.Array:
    """t [B] with axes of one behind it, to broadcast against codes [B, .., D]."""
    return t.reshape(-1, *(1,) * (codes.ndim - 1))
