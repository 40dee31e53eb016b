"""From latents to patients: both decoders, a block of patients at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxehr.core.blocks import blocks_of
from jaxehr.core.cohort import Cohort, concatenate
from jaxehr.core.contracts import Params
from jaxehr.core.keys import patient_keys
from jaxehr.models.flexgen import preprocessing
from jaxehr.models.flexgen.autoencoders import make_autoencoder
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.layout import Layout
from jaxehr.models.flexgen.likelihoods import bound_masks, mask_bounds
from jaxehr.models.flexgen.records import MODALITIES, Frames
from jaxehr.training.sharding import compiled_rows

ROWS = 128  # patients of a block; a wide temporal part is dense here


@functools.lru_cache(maxsize=16)
def program(layout: Layout, config: FlexgenConfig, mode: bool, devices: int) -> Any:
    """The compiled decoders of one block on each device."""
    models = [make_autoencoder(layout, config, which) for which in MODALITIES]
    num_classes = layout.num_classes

    def run(
        weights: Params, bounds: Params, key: jax.Array, index: Any, z: Any, label: Any
    ) -> Any:
        # z holds the temporal part first
        parts = {"temporal": z[:, : config.latent], "static": z[:, config.latent :]}
        told = jax.nn.one_hot(label, num_classes)
        drawn = []
        each = jax.vmap(jax.random.split)(patient_keys(key, index))  # [N, 2]
        for place, (which, model) in enumerate(zip(MODALITIES, models)):
            out = model.decode(weights[which], parts[which], told)
            out = bound_masks(model.part, out, bounds[which])
            drawn.append(model.mode(out) if mode else model.draw(each[:, place], out))
        return tuple(drawn)

    return compiled_rows(run, devices, copied=3)


def rows_on_host(rows: np.ndarray, leaf: jax.Array) -> np.ndarray:
    return np.asarray(leaf)[rows]


def decode_patients(
    layout: Layout,
    config: FlexgenConfig,
    params: Params,
    key: jax.Array,
    index: np.ndarray,
    z: np.ndarray,
    frames: Frames,
    *,
    mode: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Cohort:
    """Patients `index` [N] of latents z [N, 2l], temporal first; patient i from
    fold_in(key, i).

    Args:
      mode: the most probable values instead of drawn ones.
    """
    devices = jax.device_count()
    run = program(layout, config, mode, devices)
    weights = {which: params["weights"][which] for which in MODALITIES}
    bounds = {
        which: mask_bounds(getattr(layout, which), params["fitted"][which])
        for which in MODALITIES
    }
    told = jax.device_put((weights, bounds))
    blocks, done = [], 0
    for rows, kept in blocks_of(len(z), ROWS * devices):
        out = run(*told, key, index[rows], z[rows], frames.label[rows])
        static, temporal = jax.tree.map(functools.partial(rows_on_host, kept), out)
        label, has_static, has_temporal = (
            np.asarray(leaf)[rows][kept] for leaf in frames
        )
        drawn = preprocessing.Encoded(
            label,
            has_static,
            has_temporal,
            temporal.length,
            static.block,
            temporal.block,
        )
        blocks.append(preprocessing.decode(params["fitted"], layout, drawn))
        done += len(kept)
        if progress:
            progress(done)
    return concatenate(blocks)
