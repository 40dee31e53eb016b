"""Figures of a model: its learned noise schedule and its losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

from jaxehr.diffusion.schedules import power_mean
from jaxehr.report.style import (
    INK,
    MUTED,
    REAL,
    SYNTHETIC,
    Picture,
    panels,
    picture,
    shorten,
)
from jaxehr.report.summary import MAX_FEATURES, largest

MAX_COLUMNS = 120
MAX_POINTS = 400


def rho_bars(part: str, rho: np.ndarray, names: Sequence[str]) -> Picture:
    """Bars of the shape parameter of features without time steps, `rho` [D]."""
    height = 66 + 22 * len(names)
    figure, (axes,) = panels(560, height, left=100, right=50, top=30)
    rows = np.arange(len(names))
    axes.barh(rows, rho, height=0.6, color=MUTED)
    for row, value in zip(rows, rho):
        axes.annotate(
            f"{value:.2f}",
            (value, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center_baseline",
        )
    axes.set_yticks(rows, [shorten(name, 15) for name in names])
    axes.tick_params("y", length=0)
    axes.invert_yaxis()
    axes.set_title(f"Shape rho, {part} part")
    caption = (
        f"Shape rho of the {part} part by feature, {rho.min():.2f} to {rho.max():.2f}."
    )
    return picture(figure, f"rho-{part}", f"Bar chart. {caption}", caption, wide=True)


def rho_map(part: str, rho: np.ndarray, names: Sequence[str], xlabel: str) -> Picture:
    """Heat map of the shape parameter by feature and time step."""
    block = -(-rho.shape[0] // MAX_COLUMNS)
    starts = np.arange(0, rho.shape[0], block)
    shown = (
        np.add.reduceat(rho, starts, axis=0)
        / np.diff(np.append(starts, rho.shape[0]))[:, None]
    )
    height = 78 + 22 * rho.shape[1]
    figure, (axes,) = panels(560, height, left=100, right=70, top=30)
    # 32 colours: a longer colour bar would be embedded as a bitmap.
    mesh = axes.pcolormesh(
        np.append(starts, rho.shape[0]),
        np.arange(rho.shape[1] + 1),
        shown.T,
        cmap=matplotlib.colormaps["viridis"].resampled(32),
        edgecolors="face",
        linewidth=0.3,
        **_range(rho),
    )
    figure.colorbar(
        mesh,
        cax=figure.add_axes((1 - 58 / 560, 38 / height, 12 / 560, 1 - 68 / height)),
    ).outline.set_visible(False)
    axes.set_yticks(np.arange(len(names)) + 0.5, [shorten(n, 15) for n in names])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    axes.set_title(f"Shape rho, {part} part")
    caption = (
        f"Shape rho of the {part} part by feature and time step, from {rho.min():.2f} "
        f"to {rho.max():.2f}. A larger rho spends more sampling steps at low noise."
    )
    return picture(figure, f"rho-{part}", f"Heat map. {caption}", caption, wide=True)


def sigma_curves(
    part: str,
    rho: np.ndarray,
    names: Sequence[str],
    ends: tuple[float, float],
    start: float | None,
) -> Picture:
    """Noise level over diffusion time, one curve a feature at its mean rho."""
    t = np.linspace(0, 1, 51)
    mean = rho.mean(0)
    curves = np.asarray(power_mean(t[:, None], mean[None, :], *ends))
    figure, (axes,) = panels(360, 260, left=50, right=12)
    axes.semilogy(t, curves, color=MUTED, linewidth=0.7)
    extremes = dict.fromkeys([int(mean.argmin()), int(mean.argmax())])
    for feature, colour, place in zip(extremes, (SYNTHETIC, REAL), (0.12, 0.04)):
        axes.semilogy(t, curves[:, feature], color=colour)
        axes.text(
            0.98,
            place,
            f"{shorten(names[feature], 20)}, rho {mean[feature]:.2f}",
            transform=axes.transAxes,
            ha="right",
            color=colour,
        )
    if start is not None:
        axes.semilogy(
            t,
            np.asarray(power_mean(t, start, *ends)),
            color=INK,
            linewidth=1.1,
            linestyle=(0, (2, 2)),
        )
        axes.text(
            0.98,
            0.20,
            f"before training, rho {start:g}",
            transform=axes.transAxes,
            ha="right",
        )
    axes.set_xlabel("diffusion time t (0 clean, 1 noise)")
    axes.set_title(f"Noise level sigma(t), {part} part")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    caption = (
        f"Noise level over diffusion time, {part} part: every feature thin, the "
        "lowest and the highest rho in colour"
        + (", the start dashed." if start is not None else ".")
    )
    return picture(figure, f"sigma-{part}", caption)


def schedule_pictures(
    part: str, entry: Any, config: Mapping[str, Any], time_label: str
) -> tuple[list[Picture], list[str]]:
    """Pictures of one part's schedule, and sentences on what was left out."""
    table = entry if isinstance(entry, Mapping) else {"rho": entry}
    rho = np.atleast_2d(np.asarray(table["rho"], float))
    if not rho.size:
        return [], []
    names = list(table.get("names") or [f"feature {k}" for k in range(rho.shape[1])])
    kind = "rho" if part == "numeric" else "rho_embedding"
    start = config.get(kind) if part in ("numeric", "categorical") else None
    notes = []
    if rho.shape[1] > MAX_FEATURES:
        centre = start if start is not None else float(rho.mean())
        kept = largest(np.abs(rho - centre).mean(0).tolist())
        notes.append(
            f"{part}: the {MAX_FEATURES} of {rho.shape[1]} features whose rho moved "
            "most are shown."
        )
        rho, names = rho[:, kept], [names[k] for k in kept]
    single = rho.shape[0] == 1
    shown = part.replace("_", " ")
    pictures = [
        rho_bars(shown, rho[0], names)
        if single
        else rho_map(shown, rho, names, time_label)
    ]
    top = "sigma_max" if part.endswith("numeric") else "sigma_max_embedding"
    if "sigma_min" in config and top in config:
        ends = (float(config["sigma_min"]), float(config[top]))
        pictures.append(sigma_curves(shown, rho, names, ends, start))
    return pictures, notes


def losses(records: Sequence[Mapping[str, Any]]) -> Picture:
    """Training and validation loss over optimiser steps."""
    figure, (axes,) = panels(560, 250, left=54)
    ends = []
    for key, colour, title in (
        ("loss", MUTED, "training"),
        ("valid_loss", INK, "validation"),
    ):
        rows = [(r["step"], r[key]) for r in records if _finite(r.get(key))]
        if not rows:
            continue
        points = np.array(rows, float)[:: -(-len(rows) // MAX_POINTS)]
        width = 1.0 if key == "loss" else 2.0
        axes.plot(*points.T, color=colour, linewidth=width, label=title)
        ends.append(f"{title} loss {rows[0][1]:.4g} to {rows[-1][1]:.4g}")
    axes.legend(frameon=False, labelcolor=INK)
    axes.set_xlabel("optimiser step")
    axes.set_title("loss")
    axes.grid(axis="y")
    caption = f"Training: {', '.join(ends)}."
    return picture(figure, "losses", f"Line chart. {caption}", caption, wide=True)


def _finite(value: Any) -> bool:
    return value is not None and bool(np.isfinite(value))


def _range(rho: np.ndarray) -> dict[str, float]:
    low, high = float(rho.min()), float(rho.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    return {"vmin": low, "vmax": high}
