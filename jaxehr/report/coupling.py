"""Figures of an alignment: who is coupled with whom, and errors of imputation."""

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
    width, height = 480, 452
    figure, (axes,) = panels(width, height, left=96, right=76, top=34, bottom=110)
    shade = np.sqrt(ratio / top)
    _cells(axes, np.ceil(shade * LEVELS - 0.25).clip(0, LEVELS).astype(int))
    axes.set_xlim(0, heat.shape[1])
    axes.set_ylim(heat.shape[0], 0)
    edges = [np.array([0.0, float(size)]) for size in heat.shape]
    if class_mass is not None:
        edges = [
            borders(heat.sum(1), class_mass.sum(1)),
            borders(heat.sum(0), class_mass.sum(0)),
        ]
    for which, found, draw in (
        ("y", edges[0], axes.axhline),
        ("x", edges[1], axes.axvline),
    ):
        for place in found[1:-1]:
            draw(place, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        _class_ticks(axes, which, found, names if class_mass is not None else [])
    axes.spines[:].set(visible=True, color=MUTED)
    axes.set_title("How often matched, against chance")
    axes.set_xlabel(f"static records, by {shorten(label, 24)}")
    axes.set_ylabel(f"temporal records, by {shorten(label, 24)}")
    place = (1 - 54 / width, 110 / height, 13 / width, 1 - 144 / height)
    _scale(figure.add_axes(place), top)
    return picture(figure, "coupling", f"Heat map. {alt}", alt, wide=True)


def _cells(axes: Axes, level: np.ndarray) -> None:
    """One path for each shade; neighbours of one shade in a row become one box."""
    boxes: dict[int, list[tuple[int, int, int]]] = {}
    for row, shades in enumerate(level):
        starts = np.flatnonzero(np.append(True, shades[1:] != shades[:-1]))
        ends = np.append(starts[1:], len(shades))
        for start, end in zip(starts.tolist(), ends.tolist()):
            boxes.setdefault(int(shades[start]), []).append((row, start, end))
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
        patch.set_antialiased(False)  # no hairlines between cells
        axes.add_patch(patch)


def _class_ticks(
    axes: Axes, which: str, edges: np.ndarray, names: Sequence[str]
) -> None:
    """The name of each class at its middle; classes too thin for a name have none."""
    sizes = np.diff(edges)
    wide = [k for k in range(len(names)) if sizes[k] >= 0.035 * edges[-1]]
    middles = (edges[:-1] + sizes / 2)[wide]
    labels = [shorten(names[k], 13) for k in wide]
    if which == "y":
        axes.set_yticks(middles, labels)
    else:
        turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
        upright = sum(map(len, labels)) * 6 < 240 and min(sizes, default=0) > 9
        axes.set_xticks(middles, labels, **({} if upright else turned))
    axes.tick_params(which, length=0)


def _scale(axes: Axes, top: float) -> None:
    """The colour scale; heights are square roots, as the shades are."""
    for level in range(LEVELS):
        axes.axhspan(
            level / LEVELS,
            (level + 1) / LEVELS,
            facecolor=REAL,
            alpha=(level + 1) / LEVELS,
            linewidth=0,
            antialiased=False,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    ticks, last = [], -1.0
    for tick in TICKS:
        place = float(np.sqrt(tick / top))
        if place <= 1 and (place - last > 0.07 or tick == 1):
            ticks.append((place, f"{tick}"))
            last = place
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
