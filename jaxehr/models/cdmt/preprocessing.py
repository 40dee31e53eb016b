"""From patients to what the network sees, and back; fitted on training patients only.

Both tables as in `data.mixed`. Everything fitted is a nested dict of arrays.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.cohort import (
    Cohort,
    Schema,
    coded_features,
    make_cohort,
    numeric_features,
    rows_of,
    to_dense,
    valid_steps,
)
from jaxehr.data import mixed
from jaxehr.data.encoding import host, small
from jaxehr.data.mixed import decode_part, encode_part
from jaxehr.diffusion import gaussian
from jaxehr.models.cdmt import latents
from jaxehr.models.cdmt.config import CdmtConfig
from jaxehr.models.cdmt.latents import Gaps
from jaxehr.models.cdmt.layout import Layout, completed, latent
from jaxehr.models.cdmt.prior import has_prior


class Batch(NamedTuple):
    """Encoded patients, one row each; what training and sampling handle."""

    numeric: Any  # float32 [N, T, numeric]
    codes: Any  # int8 or int32 [N, T, coded columns]
    static_numeric: Any  # float32 [N, numeric]
    static_codes: Any  # [N, coded columns]
    length: Any  # int32 [N]
    has_static: Any  # bool [N]
    label: Any  # int32 [N]


class Seen(NamedTuple):
    """What fitting reads off training patients; adds up over parts of a cohort."""

    temporal: mixed.Seen
    static: mixed.Seen
    frames: np.ndarray  # see `count_frames`


class Counted(NamedTuple):
    """What fitting reads off encoded patients; adds up over parts of a cohort."""

    codes: dict[str, np.ndarray]
    numeric: gaussian.Moments


def fit(
    schema: Schema, layout: Layout, config: CdmtConfig, cohort: Cohort
) -> dict[str, Any]:
    """Everything read off the training patients, as nested dicts of arrays."""
    return fit_encoded(schema, layout, config, cohort)[0]


def fit_encoded(
    schema: Schema, layout: Layout, config: CdmtConfig, cohort: Cohort
) -> tuple[dict[str, Any], Batch]:
    """`fit`, and the training patients as `encode` makes them with it."""
    cohort = to_dense(host(cohort))
    fitted = fit_seen(layout, config, see(schema, layout, cohort))
    chosen = rows_of(cohort, learners(layout, len(cohort.label)))
    fitted |= fit_latents(layout, config, fitted, chosen)
    layout = completed(layout, fitted)
    batch = encode(fitted, layout, cohort, np.arange(len(cohort.label)))
    found = count(layout, config, batch)
    return fitted | fit_counted(layout, config, found), batch


def see(schema: Schema, layout: Layout, cohort: Cohort) -> Seen:
    """What the patients of a cohort, or of a part of it, add to `Seen`."""
    cohort = to_dense(host(cohort))
    return Seen(
        mixed.see(layout.temporal, cohort.temporal, valid_steps(cohort)),
        mixed.see(layout.static, cohort.static, cohort.has_static),
        count_frames(schema, cohort),
    )


def add_seen(one: Seen, other: Seen) -> Seen:
    """Both parts together."""
    return Seen(
        mixed.add_seen(one.temporal, other.temporal),
        mixed.add_seen(one.static, other.static),
        one.frames + other.frames,
    )


def fit_seen(layout: Layout, config: CdmtConfig, seen: Seen) -> dict[str, Any]:
    """What `encode` needs, from everything seen; `fit_counted` adds the rest."""
    patients = seen.frames.sum()
    lengths = seen.frames.sum((0, 1))  # [T + 1]
    steps = (lengths * np.arange(len(lengths))).sum() / patients
    known = seen.frames[:, 1].sum() / patients
    return {
        "temporal": mixed.fit_seen(layout.temporal, seen.temporal, config.max_knots),
        "static": mixed.fit_seen(layout.static, seen.static, config.max_knots),
        "frames": seen.frames,
        "mean_length": np.float64(max(steps, 1.0)),
        "static_share": np.float64(max(known, 1e-3)),
    }


def learners(layout: Layout, count: int) -> np.ndarray:
    """Who of `count` training patients teaches the latents: all, or evenly many of
    every part of the cohort."""
    columns = len(layout.temporal.numeric) + len(layout.temporal.features)
    most = max(latents.SAMPLE // max(layout.num_steps * columns, 1), 1)
    return np.arange(count) if count <= most else np.arange(most) * count // most


def fit_latents(
    layout: Layout, config: CdmtConfig, fitted: dict[str, Any], cohort: Cohort
) -> dict[str, Any]:
    """What `encode` needs beside `fit_seen` if series follow a normal law, from
    `learners`."""
    if not (latent(config) and layout.temporal.features):
        return {}
    gaps, _ = series_of(fitted, layout, to_dense(host(cohort)))
    found = latents.fit(gaps, layout.num_classes)
    return {"latents": found} if found else {}


def latent_names(fitted: dict[str, Any], layout: Layout) -> list[str]:
    """What each latent stands for, for plots."""
    if "latents" not in fitted:
        return []
    member = np.asarray(fitted["latents"]["panels"]["member"])
    features = layout.temporal.features
    names = [f.name for f in (*numeric_features(features), *coded_features(features))]
    groups = [np.flatnonzero(member == i) for i in range(member.max(initial=-1) + 1)]
    return [f"{', '.join(names[i] for i in group)} missing" for group in groups]


def count(layout: Layout, config: CdmtConfig, batch: Batch) -> Counted:
    """What encoded patients add to `Counted`."""
    told = np.asarray(batch.length) > 0  # all of whom nothing is known are drawn alike
    series, label = np.asarray(batch.numeric)[told], np.asarray(batch.label)[told]
    if not has_prior(layout, config):
        series = series[..., :0]
    return Counted(
        count_codes(layout, batch), gaussian.moments(series, label, layout.num_classes)
    )


def add_counted(one: Counted, other: Counted) -> Counted:
    """Both parts together."""
    codes = {name: one.codes[name] + other.codes[name] for name in one.codes}
    return Counted(codes, gaussian.add(one.numeric, other.numeric))


def fit_counted(layout: Layout, config: CdmtConfig, found: Counted) -> dict[str, Any]:
    """The frequencies of categories, and the normal law of numeric series."""
    fitted: dict[str, Any] = {"frequency": shares(layout, found.codes)}
    if has_prior(layout, config):
        fitted["prior"] = gaussian.fit(found.numeric, layout.num_steps)._asdict()
    return fitted


def count_codes(layout: Layout, batch: Batch) -> dict[str, np.ndarray]:
    """Rows of each category of the encoded columns."""
    steps = np.arange(batch.codes.shape[1])[None, :] < batch.length[:, None]
    parts = {
        "temporal": (layout.temporal, batch.codes[steps]),
        "static": (layout.static, batch.static_codes[batch.has_static]),
    }
    return {
        name: mixed.code_counts(part.cardinalities, codes)
        for name, (part, codes) in parts.items()
    }


def shares(layout: Layout, counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The frequencies of categories from their counts."""
    sizes = {
        "temporal": layout.temporal.cardinalities,
        "static": layout.static.cardinalities,
    }
    return {name: mixed.shares_of(sizes[name], found) for name, found in counts.items()}


def count_frames(schema: Schema, cohort: Cohort) -> np.ndarray:
    """Patients by label, presence of the static part, and length: [C, 2, T + 1]."""
    classes, steps = max(schema.num_classes, 1), cohort.temporal.observed.shape[1]
    counts = np.zeros((classes, 2, steps + 1))
    np.add.at(counts, (cohort.label, cohort.has_static.astype(int), cohort.length), 1)
    return counts


def encode(
    fitted: dict[str, Any],
    layout: Layout,
    cohort: Cohort,
    numbers: np.ndarray | None = None,
) -> Batch:
    """Patients as `Batch` of NumPy arrays; padding is 0.

    But where series follow a normal law, they go on behind a patient's end: the law of
    a step is that of all patients, not of those who come so far.

    Args:
      numbers: Int [N], for training: see `latents.told_apart`. Without them a patient
        is encoded alike in any company.
    """
    cohort = to_dense(host(cohort))
    gaps, codes = series_of(fitted, layout, cohort)
    if numbers is not None:
        gaps = latents.told_apart(gaps, numbers)
    valid, numeric = gaps.valid, gaps.series
    if "latents" in fitted:
        numeric = latents.encode(latents.of_fitted(fitted["latents"]), gaps)
    else:
        numeric = np.where(valid[..., None], numeric, np.float32(0.0))
    if layout.label_classes:
        shape = (*codes.shape[:2], 1)
        label = np.broadcast_to(cohort.label[:, None, None], shape)
        codes = np.concatenate([codes, label], -1)
    static_numeric, static_codes = statics_of(fitted, layout, cohort)
    return Batch(
        numeric.astype(np.float32),
        small(np.where(valid[..., None], codes, 0), layout.temporal.cardinalities),
        static_numeric,
        small(static_codes, layout.static.cardinalities),
        cohort.length.astype(np.int32),
        cohort.has_static.astype(bool),
        cohort.label.astype(np.int32),
    )


def statics_of(
    fitted: dict[str, Any], layout: Layout, cohort: Cohort
) -> tuple[np.ndarray, np.ndarray]:
    """The static part as numbers, float32 [N, D], and codes [N, D]."""
    table, has = cohort.static, cohort.has_static
    numeric, codes = encode_part(fitted["static"], layout.static, table, has)
    return np.asarray(numeric, np.float32), codes


def series_of(
    fitted: dict[str, Any], layout: Layout, cohort: Cohort
) -> tuple[Gaps, np.ndarray]:
    """Series with their gaps, filled as in the paper, and codes [N, T, D]."""
    valid, table = valid_steps(cohort), cohort.temporal
    numeric, codes = encode_part(fitted["temporal"], layout.temporal, table, valid)
    missing = ~table.observed & valid[..., None] & layout.masked
    numeric, label = np.asarray(numeric, np.float32), np.asarray(cohort.label)
    static = [leaf.astype(np.float32) for leaf in statics_of(fitted, layout, cohort)]
    seen = np.packbits(missing, axis=-1), valid, codes.astype(np.int32)
    seeds = latents.seeds_of(numeric, *seen, label.astype(np.int32), *static)
    return Gaps(numeric, missing, valid, label, seeds), codes


def decode(fitted: dict[str, Any], layout: Layout, batch: Batch) -> Cohort:
    """Sampled `Batch` (NumPy) -> patients in the units, kinds and bounds of the data.

    A value under a mask of 1 becomes missing. A column that was never (always) missing
    in training stays so: the model saw no example of the other.
    """
    label = np.asarray(batch.label)
    codes = np.asarray(batch.codes, np.int32)
    if layout.label_classes:
        label = vote(codes[..., -1], np.asarray(batch.length), layout)
        codes = codes[..., :-1]
    numeric = np.asarray(batch.numeric)
    numbers = len(layout.temporal.numeric)
    temporal = decode_part(
        fitted["temporal"], layout.temporal, numeric[..., :numbers], codes
    )
    if "latents" in fitted:
        found = latents.of_fitted(fitted["latents"])
        missing = latents.decode(found, numeric[..., numbers:])
        temporal = temporal._replace(observed=temporal.observed & ~missing)
    static = decode_part(
        fitted["static"],
        layout.static,
        np.asarray(batch.static_numeric),
        np.asarray(batch.static_codes, np.int32),
    )
    known = np.asarray(batch.has_static)[:, None]
    static = static._replace(observed=static.observed & known)
    return make_cohort(static, temporal, np.asarray(batch.length), label)


def vote(codes: np.ndarray, length: np.ndarray, layout: Layout) -> np.ndarray:
    """The label that most valid steps of a patient say; the lowest code wins a tie."""
    valid = np.arange(codes.shape[1])[None, :] < length[:, None]
    options = np.arange(layout.label_classes)
    ballots = (codes[..., None] == options) & valid[..., None]
    return ballots.sum(1).argmax(-1).astype(np.int32)
