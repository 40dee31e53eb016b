"""Figures of suites: curves over cells, and learned noise schedules."""

import pathlib
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from experiments.cells import Column, Found, at, spread
from jaxehr.core.configs import to_dict
from jaxehr.core.files import write_text
from jaxehr.registry import find, model_entry
from jaxehr.report.fitting import schedule_pictures
from jaxehr.report.style import GRID, INK, MUTED, Picture, look, panels, standalone

# Okabe and Ito's colours, the darker ones first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
PANEL, HEIGHT, LEGEND = 250, 220, 130


def draw(
    done: Found,
    spec: dict[str, Any],
    columns: tuple[Column, ...],
    folder: pathlib.Path,
    name: str,
) -> list[pathlib.Path]:
    """NAME-COHORT.png: the `panels` of a figure, a curve for each of its `lines`.

    Args:
      spec: `x`, the words below; `log`, whether that axis is logarithmic; `panels`,
        titles of `columns`; `lines`, title -> position -> variant.
    """
    places = {v for line in spec["lines"].values() for v in line.values()}
    good = [c for c in done if "failed" not in c and c["variant"] in places]
    chosen = [column for column in columns if column.title in spec["panels"]]
    paths = []
    for cohort in dict.fromkeys(cell["cohort"] for cell in good):
        cells = [cell for cell in good if cell["cohort"] == cohort]
        paths.append(folder / f"{name}-{cohort}.png")
        with look():
            figure = curves(cells, spec, chosen)
            figure.suptitle(cohort, x=0.01, ha="left", fontsize=10, color=MUTED)
            # A page of its own ground would hide the ink in its dark form.
            figure.savefig(
                paths[-1], dpi=150, facecolor="white", metadata={"Software": None}
            )
    return paths


def curves(cells: Found, spec: dict[str, Any], chosen: list[Column]) -> Figure:
    """One panel a column, with the number of real people as a horizontal line."""
    width = PANEL * len(chosen) + LEGEND
    figure, axes = panels(
        width, HEIGHT, columns=len(chosen), right=LEGEND, top=44, gap=(0.25, 0.3)
    )
    for ax, column in zip(axes, chosen, strict=True):
        if column.reference:
            real = spread(cells, column.reference)[0] * column.scale
            ax.axhline(real, color=INK, linewidth=1, label="real against real")
        for i, (title, line) in enumerate(spec["lines"].items()):
            curve(ax, cells, line, column, i, title)
        if spec.get("log"):
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            ax.minorticks_off()
        ax.set_title(column.title)
        ax.set_xlabel(spec["x"])
        ax.grid(color=GRID)
        ax.set_axisbelow(True)
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="center right",
        frameon=False,
        fontsize=9,
    )
    return figure


def curve(
    ax: Axes, cells: Found, line: dict[str, str], column: Column, i: int, title: str
) -> None:
    """Means over seeds; the band is their range."""
    points = {}
    for place, variant in line.items():
        own = [cell for cell in cells if cell["variant"] == variant]
        values = np.array([at(cell, column.path) for cell in own]) * column.scale
        if np.isfinite(values).any():
            points[float(place)] = values[np.isfinite(values)]
    x = sorted(points)
    if not x:
        return
    colour = COLOURS[i % len(COLOURS)]
    means = [points[place].mean() for place in x]
    marker = MARKERS[i % len(MARKERS)]
    ax.plot(x, means, color=colour, marker=marker, markersize=4, label=title)
    low, high = ([end(points[place]) for place in x] for end in (np.min, np.max))
    ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def draw_schedules(
    done: Found, variant: str, work: pathlib.Path, folder: pathlib.Path, name: str
) -> list[pathlib.Path]:
    """NAME-COHORT-PART.svg: the learned rho by feature and time step.

    Of the first seed of the variant on each cohort whose training is still there.
    """
    from jaxehr.runs import folder as runs

    paths, seen = [], set()
    for cell in sorted(done, key=lambda cell: cell["seed"]):
        place = work / cell.get("training", "")
        if cell["variant"] != variant or cell["cohort"] in seen or "failed" in cell:
            continue
        if not cell.get("training") or not place.is_dir():
            continue
        seen.add(cell["cohort"])
        for part, made in rho_maps(runs.load_run(place)):
            paths.append(folder / f"{name}-{cell['cohort']}-{part}.svg")
            write_text(paths[-1], standalone(made))
    return paths


def rho_maps(run: Any) -> list[tuple[str, Picture]]:
    """The learned rho of each part of a run that learns one."""
    levels = find(model_entry(run.name).schedule)(run.schema, run.config, run.params)
    steps = f"time step ({run.schema.step:g} {run.schema.time_unit} each)"
    found = []
    with look():
        for part, entry in levels.items():
            maps, _, _ = schedule_pictures(part, entry, to_dict(run.config), steps)
            found += [(part, made) for made in maps]
    return found
