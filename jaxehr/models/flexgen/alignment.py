"""The alignment of one training: pairs, clouds, imputers, what they are worth.

Source = temporal, target = static latents: the means of the encoders (README,
Deviations: alignment).
"""

import dataclasses
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxehr.core.contracts import Params
from jaxehr.models.flexgen.autoencoders import ACTIVE
from jaxehr.models.flexgen.latent import Latents
from jaxehr.models.flexgen.outcome import fit_outcome
from jaxehr.models.flexgen.records import FEWEST_PAIRS
from jaxehr.models.flexgen.within import draw_within, fit_within
from jaxehr.nn.vae import divergence
from jaxehr.ot import imputers
from jaxehr.ot.align import Clouds, align
from jaxehr.ot.config import AlignmentConfig
from jaxehr.training.sharding import computed_once

SIMPLE = ("class-mean", "knn", "ridge", "bures")
HIDDEN_SHARE = 0.2  # of the complete patients, for `hidden_errors`
FEWEST_HIDDEN = 20


class Posterior(NamedTuple):
    """What the encoders say of each patient; zeros where the modality is missing."""

    static_mean: np.ndarray  # [N, l]
    static_std: np.ndarray
    temporal_mean: np.ndarray
    temporal_std: np.ndarray
    has_static: np.ndarray  # Bool [N]
    has_temporal: np.ndarray
    label: np.ndarray  # Int [N]


def latents_told(found: Posterior) -> dict[str, dict[str, float]]:
    """How much the latents of each part hold: mean divergence from N(0, I) in nats a
    patient, and how many of the coordinates say something; none do after a collapse."""
    told = {}
    for which in ("static", "temporal"):
        has = getattr(found, f"has_{which}")
        mean, std = (getattr(found, f"{which}_{leaf}")[has] for leaf in ("mean", "std"))
        each = np.asarray(divergence(mean, std)).mean(0)
        told[which] = {
            "nats": float(each.sum()),
            "active": int((each > ACTIVE).sum()),
            "coordinates": len(each),
        }
    return told


def clouds_of(found: Posterior) -> Clouds:
    """The two clouds, and which of their rows are one patient."""
    temporal, static = (
        np.flatnonzero(found.has_temporal),
        np.flatnonzero(found.has_static),
    )
    both = np.flatnonzero(found.has_temporal & found.has_static)
    pairs = np.stack(
        [np.searchsorted(temporal, both), np.searchsorted(static, both)], 1
    )
    return Clouds(
        found.temporal_mean[temporal],
        found.label[temporal],
        found.static_mean[static],
        found.label[static],
        pairs,
        np.mean(found.temporal_std[temporal] ** 2, 0),
        np.mean(found.static_std[static] ** 2, 0),
    )


@computed_once
def fit_alignment(
    key: jax.Array,
    found: Posterior,
    num_classes: int,
    config: AlignmentConfig,
    hidden: bool = True,
) -> tuple[Params, dict[str, Any]]:
    """Imputers of both directions as nested dicts, and the diagnostics.

    Beside the imputers, `within` (see `within`) and `outcome` (see `outcome`).

    `hidden` in the diagnostics: error of each method on complete patients one of whose
    modalities was hidden from the alignment.
    """
    key_align, key_hidden = jax.random.split(key)
    aligned = align(key_align, clouds_of(found), num_classes, config)
    diagnostics = dict(aligned.diagnostics)
    diagnostics["hidden"] = {}
    if hidden:
        errors = hidden_errors(key_hidden, found, num_classes, config)
        diagnostics["hidden"] = errors
    made = {"forward": aligned.forward, "backward": aligned.backward}
    within = within_classes(found, made, diagnostics, num_classes, config)
    outcome = {
        which: fit_outcome(
            getattr(found, f"{which}_mean")[has], found.label[has], num_classes
        )
        for which, has in (
            ("static", found.has_static),
            ("temporal", found.has_temporal),
        )
    }
    return made | {"within": within, "outcome": outcome}, diagnostics


def within_classes(
    found: Posterior,
    made: Params,
    diagnostics: dict[str, Any],
    num_classes: int,
    config: AlignmentConfig,
) -> Params:
    """`within.fit_within` in both directions."""
    both = found.has_static & found.has_temporal
    has = {"temporal": found.has_temporal, "static": found.has_static}
    arrays = {}
    for name, one, other in (
        ("forward", "temporal", "static"),
        ("backward", "static", "temporal"),
    ):
        z, mean, std = (
            getattr(found, name)
            for name in (f"{one}_mean", f"{other}_mean", f"{other}_std")
        )
        known, donors = has[one], has[other]
        penalty = diagnostics["cv"].get(name, {}).get("penalty", config.ridge)
        arrays[name] = fit_within(
            (z[known], found.label[known]),
            (mean[donors], std[donors], found.label[donors]),
            (z[both], mean[both], found.label[both]),
            made[name],
            (diagnostics["used"][name], penalty),
            num_classes,
            config,
        )
    return arrays


def hidden_errors(
    key: jax.Array, found: Posterior, num_classes: int, config: AlignmentConfig
) -> dict[str, Any]:
    """NRMSE of imputed latents, by method and direction; 1 = the mean of the cloud.

    A fifth of the complete patients loses its static part, another fifth the temporal
    part; the truth is what the encoder says of the hidden part.
    """
    both = np.flatnonzero(found.has_static & found.has_temporal)
    count = int(HIDDEN_SHARE * len(both))
    if count < FEWEST_HIDDEN or len(both) - 2 * count < FEWEST_PAIRS:
        return {}
    key_rows, key_align = jax.random.split(key)
    order = np.asarray(jax.random.permutation(key_rows, len(both)))
    lost = {
        "static": both[order[:count]],
        "temporal": both[order[count : 2 * count]],
    }
    has_static, has_temporal = found.has_static.copy(), found.has_temporal.copy()
    has_static[lost["static"]], has_temporal[lost["temporal"]] = False, False
    seen = found._replace(has_static=has_static, has_temporal=has_temporal)
    clouds = clouds_of(seen)
    errors: dict[str, Any] = {"patients": count}
    for method in dict.fromkeys([config.method, *SIMPLE]):
        if method == "complete":
            continue
        chosen = dataclasses.replace(config, method=method, imputation="linear")
        aligned = align(key_align, clouds, num_classes, chosen)
        errors[method] = {
            "static": nrmse(aligned.forward, chosen, found, lost["static"], "static"),
            "temporal": nrmse(
                aligned.backward, chosen, found, lost["temporal"], "temporal"
            ),
        }
    return errors


def nrmse(
    arrays: Params,
    config: AlignmentConfig,
    found: Posterior,
    rows: np.ndarray,
    which: str,
) -> float:
    """RMSE of the imputed latents `which` over that of their mean."""
    known = found.temporal_mean if which == "static" else found.static_mean
    truth = found.static_mean if which == "static" else found.temporal_mean
    has = found.has_static if which == "static" else found.has_temporal
    mean = truth[has].mean(0)
    guess = imputers.predict(
        arrays, config, jnp.asarray(known[rows]), jnp.asarray(found.label[rows])
    )
    error = np.sum((np.asarray(guess) - truth[rows]) ** 2)
    return float(np.sqrt(error / max(np.sum((mean - truth[rows]) ** 2), 1e-12)))


def complete(config: AlignmentConfig, key: jax.Array, batch: Latents) -> jax.Array:
    """z [B, 2l], temporal first: posterior draws, and imputed draws of what is missing.

    `batch.common` holds the imputers of both directions.
    """
    rows = batch.label.shape[0]
    keys = jax.random.split(key, 3)
    draw = lambda key, mean, std: mean + std * jax.random.normal(key, mean.shape)
    temporal = draw(keys[0], batch.temporal_mean, batch.temporal_std)
    static = draw(keys[1], batch.static_mean, batch.static_std)
    if config.method != "complete":
        each = jax.random.split(keys[2], 2 * rows)
        common = batch.common
        # What is missing is drawn given the patient's own label, inside the class and
        # from the coupling alike: the diffusion learns p(z | y) and is told y. `impute`
        # does not come here.
        # Without arrays of either direction a run folder does not hold `within`.
        inside = common.get("within", {})
        guess_static, guess_temporal = (
            draw_within(inside[name], keys, known, batch.label)
            if inside.get(name)
            else imputers.draw(common[name], config, keys, known, batch.label)
            for name, keys, known in (
                ("forward", each[:rows], batch.temporal_mean),
                ("backward", each[rows:], batch.static_mean),
            )
        )
        static = jnp.where(batch.has_static[:, None], static, guess_static)
        temporal = jnp.where(batch.has_temporal[:, None], temporal, guess_temporal)
    return jnp.concatenate([temporal, static], -1)


def latents_in_words(told: dict[str, dict[str, float]]) -> str:
    """One line of `latents_told`; a collapse is named."""
    parts = [
        f"{which} {part['active']} of {part['coordinates']} coordinates active, "
        f"{part['nats']:.1f} nats a patient"
        for which, part in told.items()
    ]
    dead = [which for which, part in told.items() if not part["active"]]
    if dead:
        parts.append(
            f"{' and '.join(dead)} collapsed: synthetic patients will not follow from "
            "their latents; lower --kl-weight or train the autoencoders longer"
        )
    return "; ".join(parts)


def in_words(diagnostics: dict[str, Any], config: AlignmentConfig) -> str:
    """One line: what was done, and whether it can be trusted."""
    used = diagnostics["used"]
    text = f"{config.method}, {diagnostics['status']}; static parts from temporal ones "
    text += f"by {used['forward']}, the reverse by {used['backward']}"
    errors = diagnostics["hidden"].get(config.method)
    if errors:
        static, temporal = errors["static"], errors["temporal"]
        text += (
            f"; error of hidden latents {static:.2f} static, {temporal:.2f} temporal"
        )
        text += " (1 = mean)"
    if any(word == "knn" or word.startswith("coupling") for word in used.values()):
        text += "; the run holds latents of real patients: confidential as the cohort"
    return text


def to_text(diagnostics: dict[str, Any]) -> np.ndarray:
    """Diagnostics as an array that goes into params.npz beside the weights."""
    return np.array(json.dumps(diagnostics))


def from_text(array: np.ndarray) -> dict[str, Any]:
    return json.loads(str(array))
