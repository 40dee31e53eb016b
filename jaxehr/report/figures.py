"""Figures of distributions: marginals, missing values, courses, correlations."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxehr.core.cohort import Feature, Schema
from jaxehr.report.style import (
    GRID,
    INK,
    MUTED,
    REAL,
    SYNTHETIC,
    Picture,
    panels,
    picture,
    shorten,
)
from jaxehr.report.summary import Band, distance

MAX_BARS = 8
MAX_STEPS_DRAWN = 200


def with_unit(feature: Feature) -> str:
    """The feature's name as an axis title, e.g. "HR (bpm)"."""
    name = shorten(feature.name, 30)
    return f"{name} ({feature.unit})" if feature.unit else name


def time_label(schema: Schema) -> str:
    return f"time ({schema.time_unit})" if schema.time_unit else "time"


def times(schema: Schema) -> np.ndarray:
    return schema.start + schema.step * np.arange(schema.num_steps)


def marginal(
    feature: Feature,
    edges: np.ndarray | None,
    shares: list[np.ndarray],
    counts: list[int],
    part: str,
) -> Picture:
    """Real and synthetic share per bin (or per category), each summing to 1."""
    overlap = 100 * (1 - distance(*shares))
    if min(counts):
        caption = f"{feature.name}: {overlap:.0f} % of the two distributions overlap."
    else:
        side = "real" if not counts[0] else "synthetic"
        caption = f"{feature.name}: no value on the {side} side."
    name = f"marginal-{part}-{feature.name}"
    if edges is None:
        return bars(
            [str(c) for c in feature.categories],
            shares,
            with_unit(feature),
            name,
            caption,
        )
    whole = feature.kind == "integer"
    return histogram(edges, shares, counts, with_unit(feature), name, caption, whole)


def histogram(
    edges: np.ndarray,
    shares: list[np.ndarray],
    counts: list[int],
    title: str,
    name: str,
    caption: str,
    whole: bool = False,
) -> Picture:
    """Two filled outlines over common bins, in per cent of each side's own values."""
    figure, (axes,) = panels(300, 190)
    for values, count, colour in zip(shares, counts, (REAL, SYNTHETIC)):
        if count:
            axes.stairs(100 * values, edges, fill=True, color=colour, alpha=0.16)
            axes.stairs(100 * values, edges, color=colour, linewidth=1.6)
    axes.set_title("% of values")
    axes.title.set(color=MUTED, fontsize=9.5)
    axes.set_xlabel(title, color=INK, fontsize=11)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    _plain(axes)
    if whole:
        axes.locator_params(axis="x", integer=True)
    return picture(figure, name, f"Histogram, real and synthetic. {caption}", caption)


def bars(
    labels: list[str],
    shares: list[np.ndarray],
    title: str,
    name: str,
    caption: str,
    unit: str = "% of values",
) -> Picture:
    """Horizontal pairs of bars; beyond 8 categories the rest is one bar."""
    order = np.argsort(-(shares[0] + shares[1]), kind="stable")
    if len(labels) > MAX_BARS:
        kept, rest = order[: MAX_BARS - 1], order[MAX_BARS - 1 :]
        kept = np.sort(kept)
        labels = [labels[k] for k in kept] + [f"{len(rest)} others"]
        shares = [np.append(s[kept], s[rest].sum()) for s in shares]
    rows = np.arange(len(labels))
    labels = [shorten(label, 17) for label in labels]
    left = 16 + 6 * max(len(label) for label in labels)
    figure, (axes,) = panels(300, 64 + 30 * len(labels), left=left, right=40)
    for values, shift, colour in zip(shares, (-0.19, 0.19), (REAL, SYNTHETIC)):
        axes.barh(rows + shift, 100 * values, height=0.34, color=colour)
        for row, value in zip(rows, values):
            axes.annotate(
                f"{100 * value:.1f}",
                (100 * value, row + shift),
                xytext=(4, 0),
                textcoords="offset points",
                va="center_baseline",
                fontsize=9,
                color=MUTED,
            )
    axes.set_yticks(rows, labels)
    axes.tick_params("y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_title(title, x=0)
    axes.set_xlabel(unit)
    return picture(figure, name, f"Bar chart. {caption}", caption)


def losses(name: str, found: dict[str, float], title: str) -> Picture:
    """Horizontal bars of what is lost, the largest first."""
    labels = [shorten(label, 24) for label in found]
    rows, values = np.arange(len(labels)), list(found.values())
    left = 16 + 6 * max(len(label) for label in labels)
    figure, (axes,) = panels(340, 64 + 20 * len(labels), left=left, right=44)
    axes.barh(rows, values, height=0.6, color=SYNTHETIC)
    for row, value in zip(rows, values):
        axes.annotate(
            minus(f"{value:.3f}"),
            (max(value, 0.0), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=9,
            color=MUTED,
        )
    axes.set_yticks(rows, labels)
    axes.tick_params("y", length=0)
    axes.invert_yaxis()
    axes.set_title(title, x=0)
    axes.set_xlabel("AUC lost when shuffled")
    caption = f"{title}: {next(iter(found))} is used most."
    return picture(figure, name, f"Bar chart. {caption}", caption)


def missing_over_time(
    feature: Feature, schema: Schema, curves: list[np.ndarray], overall: list[float]
) -> Picture:
    """Share missing at each step, real solid, synthetic dashed."""
    figure, (axes,) = panels(300, 180)
    for values, colour, dash in zip(curves, (REAL, SYNTHETIC), ("-", (0, (4, 2)))):
        axes.plot(times(schema), 100 * values, color=colour, linestyle=dash)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_title(f"{shorten(feature.name, 24)}: % missing")
    axes.set_xlabel(time_label(schema))
    _plain(axes)
    caption = (
        f"{feature.name}: missing in {percent(overall[0])} of real and "
        f"{percent(overall[1])} of synthetic values."
    )
    return picture(figure, f"missing-{feature.name}", f"Line chart. {caption}", caption)


def bands(
    feature: Feature, schema: Schema, pairs: list[tuple[str, Band, Band]]
) -> Picture:
    """Mean (line) and 10-90 % range (area) over time, one panel per class."""
    figure, axes = panels(
        150 * len(pairs) + 70,
        190,
        columns=len(pairs),
        left=36,
        top=40,
        sharey=True,
    )
    for axis, (title, *both) in zip(axes, pairs):
        for values, colour, dash in zip(both, (REAL, SYNTHETIC), ("-", (0, (4, 2)))):
            at = times(schema)
            axis.fill_between(
                at, values.low, values.high, color=colour, alpha=0.16, linewidth=0
            )
            axis.plot(at, values.mean, color=colour, linestyle=dash)
            for edge in (values.low, values.high):
                axis.plot(at, edge, color=colour, linestyle=dash, linewidth=0.7)
        axis.set_title(title)
        axis.title.set(color=MUTED, fontsize=10)
        axis.set_xlabel(time_label(schema))
        _plain(axis)
    figure.text(4 / (figure.get_figwidth() * 72), 0.93, with_unit(feature), fontsize=11)
    caption = (
        f"{feature.name} over time: mean and 10-90 % range of real and synthetic "
        "patients" + (" by label." if len(pairs) > 1 else ".")
    )
    return picture(figure, f"band-{feature.name}", caption)


def correlation(names: list[str], matrix: np.ndarray, title: str) -> Picture:
    """One matrix on the common scale -1 .. 1, centred at 0; values written if few."""
    size = len(names)
    figure, (axes,) = panels(360, 360, left=84, right=10, top=30, bottom=74)
    axes.pcolormesh(
        np.ma.masked_invalid(matrix),
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        edgecolors="face",
        linewidth=0.3,
    )
    if size <= 9:
        for (row, col), value in np.ndenumerate(matrix):
            text = "n/a" if np.isnan(value) else minus(f"{value:.2f}")
            dark = "#ffffff" if abs(value) > 0.6 else "#222222"
            colour = MUTED if np.isnan(value) else dark
            axes.text(
                col + 0.5,
                row + 0.5,
                text,
                ha="center",
                va="center",
                fontsize=9,
                color=colour,
            )
    labels = [shorten(name, 12) for name in names]
    axes.set_yticks(np.arange(size) + 0.5, labels)
    axes.set_xticks(
        np.arange(size) + 0.5, labels, rotation=45, ha="right", rotation_mode="anchor"
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    axes.set_title(title)
    caption = (
        f"{title}: correlation of {size} features; red +1, white 0, blue {minus(-1)}."
    )
    return picture(figure, f"correlation-{title}", caption)


def lengths(schema: Schema, both: list[np.ndarray]) -> Picture:
    """Length of stay in steps, in whole-number bins."""
    width = int(np.ceil((schema.num_steps + 1) / 60))
    edges = np.arange(0, schema.num_steps + 1 + width, width) - 0.5
    shares = [np.histogram(v, edges)[0] / max(v.size, 1) for v in both]
    caption = (
        f"Length of the record in steps: mean {both[0].mean():.1f} real, "
        f"{both[1].mean():.1f} synthetic."
    )
    counts = [v.size for v in both]
    return histogram(edges, shares, counts, "length (steps)", "lengths", caption, True)


def minus(text: Any) -> str:
    """`text` with true minus signs."""
    return str(text).replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    return "n/a" if np.isnan(share) else f"{100 * share:.1f} %"


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5)
    axes.locator_params(axis="x", nbins=6)
