"""Drawing patients [cdmt2026, Alg. 2]: one program per block of patients.

Patient i takes all its randomness from fold_in(key, i), and blocks have a fixed number
of rows, padded with further patients: so patient i is the same, bit for bit, however
many are drawn, in which order, and over how many devices.
"""

import collections
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.blocks import block_rows, blocks_of
from jaxehr.core.contracts import Params
from jaxehr.core.keys import draw_cells, patient_keys
from jaxehr.diffusion import embeddings, masked
from jaxehr.diffusion.guidance import doubled, guide
from jaxehr.diffusion.samplers import SOLVERS, Level, sigma_levels
from jaxehr.models.cdmt.coders import table_of
from jaxehr.models.cdmt.config import CdmtSampling
from jaxehr.models.cdmt.network import Blocks, Frame
from jaxehr.models.cdmt.objective import (
    Model,
    Predicted,
    denoise,
    make_frame,
    noise_levels,
    predict,
    settled,
)
from jaxehr.models.cdmt.preprocessing import Batch
from jaxehr.training.sharding import compiled_rows

DRAWN_AT_ONCE = 4096  # lengths of patients


class Draws(NamedTuple):
    """The frame of each patient: label, presence of the static part, length."""

    label: jax.Array
    has_static: jax.Array
    length: jax.Array


def draw_frames(keys: jax.Array, frames: jax.Array, label: jax.Array) -> Draws:
    """Label, static presence and length from their joint training frequency.

    Args:
      keys: [N] one per patient; frames: [C, 2, T + 1] counts.
      label: Int [N], see `labels.label_codes`.
    """
    steps = frames.shape[-1]
    code, cell = draw_cells(keys, frames.reshape(len(frames), -1), label)
    return Draws(code, cell // steps == 1, cell % steps)


def start_noise(model: Model, keys: jax.Array, shapes: Blocks) -> Blocks:
    """Standard normal blocks [N, ...], each patient's from its own key."""
    sizes = [math.prod(shape) for shape in shapes]

    def one(key: jax.Array) -> Blocks:
        noise = jax.random.normal(key, (sum(sizes),))
        parts = jnp.split(noise, np.cumsum(sizes)[:-1])
        return Blocks(
            *(p.reshape(shape) for p, shape in zip(parts, shapes, strict=True))
        )

    return jax.vmap(one)(keys)


def block_shapes(model: Model, width: int) -> Blocks:
    """Shape of one patient's blocks; `width` = coordinates of a coded column."""
    layout = model.layout
    temporal, static = layout.temporal, layout.static
    return Blocks(
        (layout.num_steps, layout.series),
        (layout.num_steps, len(temporal.cardinalities), width),
        (len(static.numeric),),
        (len(static.cardinalities), width),
    )


def guided(
    model: Model, params: Params, sampling: CdmtSampling, frame: Frame
) -> Callable[[Blocks, Blocks, jax.Array], Blocks]:
    """(x, sigma, t) -> x0_hat of numeric columns and raw logits, with guidance.

    (1 + w) D(x | label) - w D(x | no label), both from one batch of twice the rows. Of
    latents of gaps it is the law that is guided, by the weight of codes: p(z | label)^
    (1 + w) / p(z | no label)^w of two normal laws of one spread, with corrections of
    logits, is another one, whose mean and corrections are guided.
    """
    rows = frame.length.shape[0]
    weight = sampling.guidance
    coded = sampling.guidance_categorical
    coded = weight if coded is None else coded
    if not model.layout.num_classes or (weight == 0.0 and coded == 0.0):
        time = lambda t: jnp.full((rows,), t)
        return lambda x, sigma, t: denoise(model, params, x, sigma, time(t), frame)
    null = frame._replace(condition=jnp.zeros_like(frame.condition))

    def call(x: Blocks, sigma: Blocks, t: jax.Array) -> Blocks:
        both = doubled(
            lambda x, frame: predict(
                model, params, x, sigma, jnp.full((2 * rows,), t), frame
            )
        )
        told, untold = both(x, frame, null)
        weights = Predicted(Blocks(weight, coded, weight, coded), coded)
        return settled(model, params, guide(told, untold, weights))

    return call


def solve_embedding(
    model: Model, params: Params, sampling: CdmtSampling, frame: Frame, noise: Blocks
) -> Blocks:
    """Numeric values and codes by the probability-flow ODE of all columns together."""
    call = guided(model, params, sampling, frame)
    layout = model.layout
    tables = (table_of(params["coded"]), table_of(params["static_coded"]))
    t, sigmas = sigma_levels(lambda t: noise_levels(model, params, t), sampling.steps)
    x = jax.tree.map(lambda eps, sigma: eps * sigma[0], noise, sigmas)

    def step(state: Any, level: Level) -> Any:
        out = call(state[0], level.sigma[0], level.t)
        x0_hat = out._replace(
            coded=interpolate(tables[0], out.coded),
            static_coded=interpolate(tables[1], out.static_coded),
        )
        return x0_hat, (out.coded, out.static_coded)

    # The logits ride along: the last step sets every leaf to its denoised value.
    rows = frame.length.shape[0]
    logits = tuple(
        jnp.zeros((rows, *shape, max(part.cardinalities, default=1)))
        for part, shape in (
            (layout.temporal, (layout.num_steps, len(layout.temporal.cardinalities))),
            (layout.static, (len(layout.static.cardinalities),)),
        )
    )
    ones = jnp.linspace(1.0, 0.0, sampling.steps + 1)
    auto = sampling.solver == "auto"
    solver = SOLVERS["dpmpp-2m" if auto else sampling.solver]
    x, logits = solver(step, (x, logits), t, (sigmas, (ones, ones)))
    decode = functools.partial(decode_codes, sampling.decode)
    return x._replace(
        coded=decode(tables[0], layout.temporal.cardinalities, x.coded, logits[0]),
        static_coded=decode(
            tables[1], layout.static.cardinalities, x.static_coded, logits[1]
        ),
    )


def interpolate(table: jax.Array, logits: jax.Array) -> jax.Array:
    if not table.shape[0]:
        return jnp.zeros((*logits.shape[:-1], table.shape[-1]))
    return embeddings.expected(table, logits)


def decode_codes(
    how: str, table: jax.Array, sizes: tuple[int, ...], z: jax.Array, logits: jax.Array
) -> jax.Array:
    """Codes [.., D] of final embeddings, or of the last probabilities."""
    if not sizes:
        return jnp.zeros(z.shape[:-1], jnp.int32)
    if how == "argmax":
        return jnp.argmax(logits, -1)
    return embeddings.nearest(table, embeddings.valid_codes(sizes), z)


def solve_mask(
    model: Model,
    params: Params,
    sampling: CdmtSampling,
    frame: Frame,
    noise: Blocks,
    keys: Blocks,
) -> Blocks:
    """Numeric values by Euler steps, codes by unmasking, one network call a level.

    Args:
      keys: one key per patient [N] in the places of the coded blocks.
    """
    call = guided(model, params, sampling, frame)
    t, sigmas = sigma_levels(lambda t: noise_levels(model, params, t), sampling.steps)
    layout = model.layout
    widths = Blocks(
        0,
        max(layout.temporal.cardinalities, default=1),
        0,
        max(layout.static.cardinalities, default=1),
    )
    state = Blocks(
        noise.numeric * sigmas.numeric[0],
        masked.start(noise.coded.shape[:-1], widths.coded),
        noise.static_numeric * sigmas.static_numeric[0],
        masked.start(noise.static_coded.shape[:-1], widths.static_coded),
    )

    def step(x: Blocks, ends: Any) -> tuple[Blocks, None]:
        n, time, now, after = ends
        out = call(x, now, time)
        codes, statics = functools.partial(reveal, n), (x, out, now, after)
        return Blocks(
            shrink(x.numeric, out.numeric, now.numeric, after.numeric),
            codes(keys.coded, out.coded, x.coded, now.coded, after.coded),
            shrink(*(blocks.static_numeric for blocks in statics)),
            codes(keys.static_coded, *(b.static_coded for b in (out, x, now, after))),
        ), None

    ahead = jax.tree.map(lambda leaf: leaf[:-1], sigmas)
    behind = jax.tree.map(lambda leaf: leaf[1:], sigmas)
    x = jax.lax.scan(step, state, (jnp.arange(sampling.steps), t, ahead, behind))[0]
    return x._replace(
        coded=masked.codes_of(x.coded), static_coded=masked.codes_of(x.static_coded)
    )


def shrink(x: Any, x0_hat: Any, sigma: Any, sigma_next: Any) -> jax.Array:
    """One Euler step of numeric values."""
    return x0_hat + (sigma_next / sigma) * (x - x0_hat)


def reveal(n: Any, keys: Any, logits: Any, x: Any, now: Any, after: Any) -> jax.Array:
    """One unmasking step of codes, each patient's from its own key."""
    if not x.shape[-2]:
        return x

    def one(key: jax.Array, logits: jax.Array, x: jax.Array) -> jax.Array:
        key = jax.random.fold_in(key, n)
        return masked.reverse_step(key, logits, x, now[..., 0], after[..., 0])

    return jax.vmap(one)(keys, logits, x)


def keys_of(key: jax.Array, index: jax.Array) -> jax.Array:
    """Keys [N, 4] of patients: frame, noise, codes, static codes."""
    split = functools.partial(jax.random.split, num=4)
    return jax.vmap(split)(patient_keys(key, index))


@jax.jit
def drawn_lengths(
    key: jax.Array, frames: jax.Array, index: jax.Array, label: jax.Array
) -> jax.Array:
    """Int [N]: the lengths that `sample_rows` draws."""
    return draw_frames(keys_of(key, index)[:, 0], frames, label).length


def by_length(
    key: jax.Array, frames: np.ndarray, index: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Int [N]: places of patients, where loops can end early the shortest first."""
    count = len(index)
    one = np.count_nonzero(frames.sum((0, 1))) < 2
    if one or not count or jax.default_backend() != "cpu":
        return np.arange(count)
    found = [
        np.asarray(drawn_lengths(key, frames, index[rows], label[rows]))[kept]
        for rows, kept in blocks_of(count, DRAWN_AT_ONCE)
    ]
    return np.argsort(np.concatenate(found), kind="stable")


def sample_rows(
    model: Model,
    sampling: CdmtSampling,
    key: jax.Array,
    params: Params,
    frames: jax.Array,
    index: jax.Array,
    label: jax.Array,
) -> Batch:
    """The patients with numbers `index` [rows], encoded."""
    keys = keys_of(key, index)
    draws = draw_frames(keys[:, 0], frames, label)
    frame = make_frame(model, draws.label, draws.length, draws.has_static)
    width = model.config.embedding_dim
    noise = start_noise(model, keys[:, 1], block_shapes(model, width))
    if model.config.categorical == "mask":
        coded_keys = Blocks(None, keys[:, 2], None, keys[:, 3])
        x = solve_mask(model, params, sampling, frame, noise, coded_keys)
    else:
        x = solve_embedding(model, params, sampling, frame, noise)
    return Batch(
        x.numeric,
        x.coded.astype(jnp.int32),
        x.static_numeric,
        x.static_coded.astype(jnp.int32),
        draws.length,
        draws.has_static,
        draws.label,
    )


@functools.lru_cache(maxsize=16)
def program(model: Model, sampling: CdmtSampling, rows: int, devices: int) -> Any:
    """The compiled sampler of one block on each device."""
    run = functools.partial(sample_rows, model, sampling)
    return compiled_rows(run, devices, copied=3)


def sample_blocks(
    model: Model,
    sampling: CdmtSampling,
    key: jax.Array,
    params: Params,
    frames: np.ndarray,
    index: np.ndarray,
    label: np.ndarray,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Batch]:
    """Patients `index` [N] with labels [N] (see `draw_frames`), as NumPy arrays, block
    after block; at least one, of no patient where N is 0.

    An accelerator has its next block before the last one is fetched, so that it works
    while the host does. The CPU would only work at two blocks at once.
    """
    devices = jax.device_count()
    rows = block_rows(model.layout.num_steps)
    run = program(model, sampling, rows, devices)
    size, count, done = rows * devices, len(index), 0
    params, frames = jax.device_put((params, jnp.asarray(frames)))
    if not count:  # one patient is drawn and dropped, for the shapes
        index = label = np.zeros(1, np.int32)
    drawn = (
        (run(key, params, frames, index[inside], label[inside]), min(len(kept), count))
        for inside, kept in blocks_of(len(index), size)
    )
    for out, num in kept_ahead(drawn, int(jax.default_backend() != "cpu")):
        done += num
        yield Batch(*(np.asarray(leaf)[:num] for leaf in out))
        if progress:
            progress(done)


def kept_ahead(items: Iterator[Any], number: int) -> Iterator[Any]:
    """The items, each when the iterator is `number` items further, or at its end."""
    waiting: collections.deque[Any] = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting
