"""What is missing, as latents of the normal law that numeric series start from.

Deviation: [cdmt2026] fills gaps by the last value and diffuses a mask for each column.
Here what a step lacks of a panel (columns measured together, `data.panels`) is a
normal latent between two thresholds of the step, and values in gaps are drawn from the
normal law of all values and latents. So the untrained model is a Gaussian copula of
values and of gaps, and no network has to learn that a filled value repeats the last.
N patients, T steps, D numeric columns, M columns, P panels, K codes.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from jaxehr.data import panels
from jaxehr.data.panels import Panels
from jaxehr.diffusion import completion
from jaxehr.diffusion.completion import FAR, Known, Law

SAMPLE = 2**23  # values of the patients that panels and law are learned from
MIX = 0x9E3779B9  # an odd number with bits all over
STEPS = 20.0  # imagined patients of a step, who have the shares of all steps


class Gaps(NamedTuple):
    """Series as they were seen."""

    series: np.ndarray  # float32 [N, T, D], filled
    missing: np.ndarray  # Bool [N, T, M]; numeric columns first
    valid: np.ndarray  # Bool [N, T], False at padding
    label: np.ndarray  # Int [N]
    seeds: np.ndarray  # uint32 [N], see `seeds_of`


class Latents(NamedTuple):
    """What fitting finds, as arrays."""

    panels: Panels
    ends: np.ndarray  # [T, P, K + 1]: code k of a step lies between ends k and k + 1
    law: Law


def fit(gaps: Gaps, classes: int) -> dict[str, Any]:
    """`Latents` of training patients as nested dicts of arrays; nothing if there is
    neither a number nor a gap, or nobody has a step."""
    told = gaps.valid.any(1)  # of the others nothing is known that could be learned
    gaps = Gaps(*(leaf[told] for leaf in gaps))
    found = panels.fit(gaps.missing[gaps.valid])
    if not told.any() or not gaps.series.shape[-1] + len(found.sizes):
        return {}
    ends = thresholds(found, panels.codes_of(found, gaps.missing), gaps.valid)
    known = known_of(found, ends, gaps)
    # Patients of whom the same is known are still different ones.
    seeds = gaps.seeds + np.arange(len(gaps.seeds), dtype=np.uint32) * np.uint32(MIX)
    latent = known.low.shape[-1] - gaps.series.shape[-1]
    law = completion.learn(known, gaps.label, classes, seeds, latent)
    return {"panels": found._asdict(), "ends": ends, "law": law._asdict()}


def of_fitted(fitted: dict[str, Any]) -> Latents:
    """The same as tuples."""
    law, found = Law(**fitted["law"]), Panels(**fitted["panels"])
    return Latents(found, np.asarray(fitted["ends"]), law)


def thresholds(found: Panels, codes: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Normal quantiles [T, P, K + 1] of the shares of codes [N, T, P] at each step."""
    steps, count = codes.shape[1:]
    most = found.pattern.shape[1]
    ends = np.full((steps, count, most + 1), FAR, np.float32)
    ends[..., 0] = -FAR
    for panel, size in enumerate(found.sizes):
        shown = codes[..., panel, None] == np.arange(size)
        counts = (shown & valid[..., None]).sum(0)  # [T, K]
        shares = (counts.sum(0) + 1.0) / (counts.sum() + size)
        each = counts + STEPS * shares
        below = np.cumsum(each, 1)[:, :-1] / each.sum(1, keepdims=True)
        ends[:, panel, 1:size] = np.clip(ndtri(below), -FAR, FAR)
    return ends


def known_of(found: Panels, ends: np.ndarray, gaps: Gaps) -> Known:
    """Bounds of values and latents: [N, T, D + P]."""
    gap = gaps.missing[..., : gaps.series.shape[-1]] | ~gaps.valid[..., None]
    codes = panels.codes_of(found, gaps.missing)
    places = np.arange(codes.shape[1])[:, None], np.arange(codes.shape[2])
    low, high = ends[(*places, codes)], ends[(*places, codes + 1)]
    low = np.where(gaps.valid[..., None], low, -FAR)
    high = np.where(gaps.valid[..., None], high, FAR)
    join = lambda *leaves: np.concatenate(leaves, -1).astype(np.float32)
    return Known(
        join(np.where(gap, -FAR, gaps.series), low),
        join(np.where(gap, FAR, gaps.series), high),
    )


def encode(latents: Latents, gaps: Gaps) -> np.ndarray:
    """Series with drawn values in gaps and at padding, and latents: float32
    [N, T, D + P]."""
    known = known_of(latents.panels, latents.ends, gaps)
    free = known.low < known.high
    if not free.any():
        return known.low
    drawn = completion.draw(latents.law, known, gaps.label, gaps.seeds)
    # The lower end of an interval is the code before it.
    above = np.nextafter(known.low, np.float32(np.inf))
    return np.where(free, np.clip(drawn, above, known.high), known.low)


def shares(fitted: dict[str, Any]) -> np.ndarray:
    """Of the codes of every panel over all steps: [P, K], 0 at padding."""
    return np.diff(ndtr(np.asarray(fitted["ends"], float)), axis=-1).mean(0)


def decode(latents: Latents, z: np.ndarray) -> np.ndarray:
    """What is missing of sampled latents [N, T, P]: Bool [N, T, M]."""
    codes = np.zeros(z.shape, int)
    for k in range(1, latents.ends.shape[-1] - 1):
        codes += z > latents.ends[..., k]
    sizes = np.asarray(latents.panels.sizes)
    return panels.missing_of(latents.panels, np.minimum(codes, sizes - 1))


def told_apart(gaps: Gaps, numbers: np.ndarray) -> Gaps:
    """Other seeds for those of whom no value is seen: one is like the other, and one
    draw for all of them would make one point of the law where it has many.

    Args:
      numbers: Int [N], another one for each patient.
    """
    seen = (gaps.valid[..., None] & ~gaps.missing).any((1, 2))
    own = gaps.seeds + numbers.astype(np.uint32) * np.uint32(MIX)
    return gaps._replace(seeds=np.where(seen, gaps.seeds, own))


def seeds_of(*leaves: np.ndarray) -> np.ndarray:
    """uint32 [N] from all that is known of each patient, so that draws do not depend on
    other patients. Each leaf has patients in front."""
    found = [
        zlib.crc32(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in patient))
        for patient in zip(*leaves, strict=True)
    ]
    return np.array(found, np.uint32)
