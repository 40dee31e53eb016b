"""Figures of an alignment: who is coupled with whom, and errors of imputation."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from jaxehr.report.style import (
    INK,
    MUTED,
    REAL,
    Picture,
    panels,
    picture,
    shorten,
)

LEVELS = 24  # shades of the heat map
LEAST_SCALE = 4.0  # end of the colour scale, in multiples of chance
LEAST_ERROR, MOST_ERROR = 1.15, 2.0  # ends of the error axis
WIDTH, SIDE = 430, 282  # of the heat map and of its square
TICKS = (0, 1, 2, 4, 10, 20, 40, 100, 200, 400, 1000, 4000)


def matrix(value: Any) -> np.ndarray | None:
    """A table of non-negative masses [n, m] of total 1, or None for anything else."""
    try:
        table = np.asarray(value, float)
    except (TypeError, ValueError):
        return None
    if table.ndim != 2 or not table.size:
        return None
    table = np.where(np.isfinite(table) & (table > 0), table, 0.0)
    return table / table.sum() if table.sum() > 0 else None


def against_chance(mass: np.ndarray) -> np.ndarray:
    """mass_ij / (row sum x column sum): 1 where the plan is a product; 0 / 0 = 0."""
    product = np.outer(mass.sum(1), mass.sum(0))
    return np.divide(mass, product, out=np.zeros_like(mass), where=product > 0)


def borders(sums: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Where the classes end, in blocks: [C + 1], from 0 to the number of blocks.

    Args:
      sums: mass of each block; the blocks are sorted by class.
      shares: mass of each class.
    """
    reached = np.append(0.0, np.cumsum(sums))
    wanted = np.append(0.0, np.cumsum(shares)) * reached[-1]
    found = np.interp(wanted, reached, np.arange(len(sums) + 1))
    found[-1] = len(sums)
    return found


def heat_map(
    heat: np.ndarray,
    class_mass: np.ndarray | None,
    names: Sequence[str],
    label: str,
    alt: str,
) -> Picture:
    """The plan by blocks of temporal (rows) and static records, against chance.

    The shade is the square root of the ratio to a product plan, so that many small
    masses are seen beside a few large ones.
    """
    ratio = against_chance(heat)
    top = max(float(ratio.max()), LEAST_SCALE)
    edges = [np.array([0.0, float(size)]) for size in heat.shape]
    if class_mass is None:
        names = []
    else:
        edges = [
            borders(heat.sum(1), class_mass.sum(1)),
            borders(heat.sum(0), class_mass.sum(0)),
        ]
    ticks = [_class_ticks(found, names) for found in edges]
    turned = _crowded(ticks[1], SIDE / heat.shape[1])
    bottom = 104 if turned else 50
    figure, (axes,) = panels(
        WIDTH, SIDE + 34 + bottom, left=90, right=58, top=34, bottom=bottom
    )
    shade = np.sqrt(ratio / top)
    _cells(axes, np.ceil(shade * LEVELS - 0.25).clip(0, LEVELS).astype(int))
    for place in edges[0][1:-1]:
        axes.axhline(place, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    for place in edges[1][1:-1]:
        axes.axvline(place, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set_yticks([p for p, _ in ticks[0]], [text for _, text in ticks[0]])
    axes.set_xticks([p for p, _ in ticks[1]], [text for _, text in ticks[1]])
    if turned:
        axes.tick_params("x", rotation=35)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=MUTED)
    axes.set_title("How often matched, 1 = chance")
    axes.set_xlabel(f"static records, by {shorten(label, 24)}")
    axes.set_ylabel(f"temporal records, by {shorten(label, 24)}")
    _scale(axes.inset_axes((1.04, 0, 0.045, 1)), top)
    found = picture(figure, "coupling", f"Heat map. {alt}", alt, wide=True)
    fill = "fill: var(--real);"  # else hairlines show between cells
    crisp = found.svg.replace(fill, f"{fill} shape-rendering: crispEdges;")
    return found._replace(svg=crisp)


def _cells(axes: Axes, level: np.ndarray) -> None:
    """One path for each shade; neighbours of one shade in a row become one box."""
    boxes: dict[int, list[tuple[int, int, int]]] = {}
    for row, shades in enumerate(level):
        starts = np.flatnonzero(np.append(True, shades[1:] != shades[:-1]))
        ends = np.append(starts[1:], len(shades))
        for start, end in zip(starts.tolist(), ends.tolist()):
            boxes.setdefault(int(shades[start]), []).append((row, start, end))
    axes.set_xlim(0, level.shape[1])
    axes.set_ylim(len(level), 0)
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    for shade, found in sorted(boxes.items()):
        if not shade:
            continue
        corners = [
            point
            for row, a, b in found
            for point in ((a, row), (b, row), (b, row + 1), (a, row + 1), (a, row))
        ]
        path = Path(corners, codes * len(found))
        # Opacity rather than a colour map: the same file serves light and dark.
        patch = PathPatch(path, facecolor=REAL, linewidth=0, alpha=shade / LEVELS)
        axes.add_patch(patch)


def _class_ticks(edges: np.ndarray, names: Sequence[str]) -> list[tuple[float, str]]:
    """The middle and the name of each class that is thick enough for a name."""
    sizes = np.diff(edges)
    return [
        (float(edges[k] + sizes[k] / 2), shorten(name, 13))
        for k, name in enumerate(names)
        if sizes[k] >= 0.04 * edges[-1]
    ]


def _crowded(ticks: list[tuple[float, str]], pixels: float) -> bool:
    """Whether names beside each other would touch; `pixels` of a unit of the axis."""
    return any(
        (place - before) * pixels < 3.2 * (len(text) + len(last)) + 8
        for (before, last), (place, text) in itertools.pairwise(ticks)
    )


def _scale(axes: Axes, top: float) -> None:
    """The colour scale; heights are square roots, as the shades are."""
    _cells(axes, np.arange(LEVELS, 0, -1)[:, None])
    ticks: list[tuple[float, str]] = []
    for tick in TICKS:
        place = LEVELS * (1 - float(np.sqrt(tick / top)))
        if place >= 0 and (not ticks or ticks[-1][0] - place > 0.07 * LEVELS):
            ticks.append((place, f"{tick}"))
    axes.set_yticks([p for p, _ in ticks], [text for _, text in ticks])
    axes.yaxis.tick_right()
    axes.set_xticks([])
    axes.tick_params("y", length=2.5)
    axes.spines[:].set(visible=True, color=MUTED)


def error_bars(
    title: str, rows: Sequence[tuple[str, float]], chosen: str, name: str, alt: str
) -> Picture:
    """NRMSE by method, the chosen one in colour; a line at 1, the mean."""
    values = np.array([value for _, value in rows], float)
    end = float(np.clip(1.12 * values.max(), LEAST_ERROR, MOST_ERROR))
    left = 18 + 6 * max(len(shorten(label, 17)) for label, _ in rows)
    height = 74 + 26 * len(rows)
    right = 50
    figure, (axes,) = panels(360, height, left=left, right=right, top=40)
    places = np.arange(len(rows))
    mine = np.array([label == chosen for label, _ in rows])
    shown = np.minimum(values, end)
    for which, colour, alpha in ((mine, REAL, 1.0), (~mine, MUTED, 0.5)):
        if which.any():
            axes.barh(
                places[which], shown[which], height=0.62, color=colour, alpha=alpha
            )
    axes.axvline(1.0, color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
    for place, value in zip(places, values):
        arrow = "\N{RIGHTWARDS ARROW} " if value > end else ""
        axes.annotate(  # beside the axes, where the line at 1 does not cross it
            f"{arrow}{value:.2f}",
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(right - 6, 0),
            textcoords="offset points",
            ha="right",
            va="center_baseline",
            color=INK,
        )
    axes.set_yticks(places, [shorten(label, 17) for label, _ in rows])
    for tick, (label, _) in zip(axes.get_yticklabels(), rows):
        if label == chosen:
            tick.set(fontweight="bold", color=INK)
    axes.set_xlim(0, end)
    axes.invert_yaxis()
    axes.tick_params("y", length=0)
    axes.set_title(title, x=0)
    axes.set_xlabel("error; 1 = guessing the mean, 0 = perfect")
    return picture(figure, name, f"Bar chart. {alt}", alt)
