"""Charts of single patients: real ones and synthetic ones on the same axes."""

import numpy as np
from matplotlib.axes import Axes

from jaxehr.core.cohort import Dataset, Feature
from jaxehr.report.figures import time_label, times, with_unit
from jaxehr.report.style import (
    GRID,
    INK,
    MUTED,
    REAL,
    SHADE,
    SYNTHETIC,
    Picture,
    panels,
    picture,
    shorten,
)
from jaxehr.report.summary import column, missing_overall

PATIENTS = 4
CHANNELS = 5
MAX_MARKERS = 60


def charts(real: Dataset, synthetic: Dataset) -> tuple[list[Picture], list[Picture]]:
    """Four charts a side, drawn at random with a fixed seed, matched by label."""
    channels = chosen_channels(real)
    rows = chosen_patients(real, synthetic)
    values = [
        [column(data, "temporal", index)[picked] for index in channels]
        for data, picked in zip((real, synthetic), rows)
    ]
    limits = [_limits(*pair) for pair in zip(*values)]
    sides = []
    for side, data in enumerate((real, synthetic)):
        sides.append(
            [
                _chart(
                    data,
                    channels,
                    [v[k] for v in values[side]],
                    limits,
                    side,
                    k,
                    int(rows[side][k]),
                )
                for k in range(len(rows[side]))
            ]
        )
    return sides[0], sides[1]


def chosen_channels(real: Dataset) -> list[int]:
    """Up to 5 temporal features: numeric before coded, the best observed first."""
    features = real.schema.temporal
    usable = [i for i, f in enumerate(features) if f.kind != "constant"]
    missing = {i: missing_overall(real, "temporal", i) for i in usable}
    order = sorted(usable, key=lambda i: (not features[i].is_numeric, missing[i]))
    return sorted(order[:CHANNELS])


def chosen_patients(real: Dataset, synthetic: Dataset) -> list[np.ndarray]:
    """Row numbers of four patients a side; the k-th ones share their class if any."""
    classes: list[int | None] = [None]
    if real.schema.label is not None:
        present = [_classes(data) for data in (real, synthetic)]
        common = sorted(present[0] & present[1], reverse=True)
        classes = [*common] or [None]
    sides = []
    for data in (real, synthetic):
        generator = np.random.default_rng(0)
        order = generator.permutation(np.flatnonzero(_drawable(data)))
        taken: list[int] = []
        for k in range(min(PATIENTS, len(order))):
            wanted = classes[k % len(classes)]
            free = [row for row in order if row not in taken]
            same = [r for r in free if wanted in (None, int(data.cohort.label[r]))]
            taken.append(int((same or free)[0]))
        sides.append(np.array(taken, int))
    return sides


def _drawable(data: Dataset) -> np.ndarray:
    observed = np.asarray(data.cohort.temporal.observed)
    return np.asarray(observed.any(axis=(1, 2)))


def _classes(data: Dataset) -> set[int]:
    return {int(code) for code in np.unique(data.cohort.label[_drawable(data)])}


def _limits(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    seen = np.concatenate([v[np.isfinite(v)] for v in (first, second)])
    if not seen.size:
        return 0.0, 1.0
    low, high = float(seen.min()), float(seen.max())
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def _chart(
    data: Dataset,
    channels: list[int],
    series: list[np.ndarray],
    limits: list[tuple[float, float]],
    side: int,
    number: int,
    row: int,
) -> Picture:
    schema, colour = data.schema, (REAL, SYNTHETIC)[side]
    count = len(channels)
    figure, axes = panels(
        190,
        54 + 54 * count,
        rows=count,
        left=32,
        right=6,
        top=20,
        bottom=34,
        gap=(0.5, 0.0),
        sharex=True,
    )
    for axis, index, values, bounds in zip(axes, channels, series, limits):
        _trace(axis, schema.temporal[index], times(schema), values, bounds, colour)
    axes[-1].set_xlabel(time_label(schema))
    axes[-1].set_xlim(
        schema.start - schema.step / 2,
        schema.start + (schema.num_steps - 0.5) * schema.step,
    )
    length = int(data.cohort.length[row])
    for axis in axes:
        if length < schema.num_steps:
            end = schema.start + (length - 0.5) * schema.step
            axis.axvline(end, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    caption = f"{('Real', 'Synthetic')[side]} {number + 1}"
    if schema.label is not None:
        outcome = schema.label.classes[int(data.cohort.label[row])]
        caption += f", {schema.label.name} = {outcome}"
    names = ", ".join(schema.temporal[i].name for i in channels)
    name = f"patient-{side}-{number}"
    return picture(figure, name, f"Chart of one patient ({caption}): {names}.", caption)


def gaps(seen: np.ndarray, at: np.ndarray, step: float) -> list[tuple[float, float]]:
    """Runs of steps without an observation, as (start, width) around their times."""
    edges = np.diff(np.concatenate([[0], ~seen, [0]]).astype(int))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [
        (float(at[first] - step / 2), float((last - first) * step))
        for first, last in zip(starts, ends)
    ]


def _trace(
    axis: Axes,
    feature: Feature,
    at: np.ndarray,
    values: np.ndarray,
    bounds: tuple[float, float],
    colour: str,
) -> None:
    """A line through consecutive observations; grey below where nothing was seen."""
    seen = np.isfinite(values)
    step = float(at[1] - at[0]) if len(at) > 1 else 1.0
    axis.broken_barh(
        gaps(seen, at, step),
        (0, 0.09),
        color=SHADE,
        linewidth=0,
        transform=axis.get_xaxis_transform(),
    )
    coded = not feature.is_numeric
    marker = "." if len(at) <= MAX_MARKERS else ""
    axis.plot(
        at,
        values,
        color=colour,
        linewidth=1.3,
        marker=marker,
        markersize=3.6,
        drawstyle="steps-mid" if coded else "default",
    )
    axis.set_ylim(*bounds)
    axis.set_title(with_unit(feature), pad=2)
    axis.title.set(fontsize=9.5, color=INK)
    axis.tick_params(length=2, labelsize=9)
    axis.locator_params(axis="y", nbins=3)
    axis.grid(axis="y", color=GRID)
    axis.set_axisbelow(True)
    if coded:
        codes = range(feature.cardinality) if feature.cardinality <= 4 else []
        axis.set_ylim(-0.5, feature.cardinality - 0.5)
        axis.set_yticks(list(codes), [shorten(feature.categories[c], 6) for c in codes])
