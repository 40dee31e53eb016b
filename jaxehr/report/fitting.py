"""Figures of a model: its learned noise schedule and its losses."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np

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
WIDTH = 430
MAX_POINTS = 400
PARTS = {
    "numeric": "numeric series",
    "coded": "coded series",
    "categorical": "coded series",
    "static_numeric": "static numbers",
    "static_coded": "static codes",
}


class Noise(NamedTuple):
    """One part's schedule: `rho` [T, D] if it is a power mean, `sigma` [levels, D]."""

    names: list[str]
    rho: np.ndarray | None
    t: np.ndarray
    sigma: np.ndarray | None  # geometric mean over time steps


def rho_bars(part: str, rho: np.ndarray, names: Sequence[str]) -> Picture:
    """Bars of the shape parameter of features without time steps, `rho` [D]."""
    height = 66 + 22 * len(names)
    figure, (axes,) = panels(WIDTH, height, left=100, right=50, top=30)
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
    axes.set_title(f"Shape rho, {part}")
    caption = f"Shape rho, {part}, by feature, {rho.min():.2f} to {rho.max():.2f}."
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
    figure, (axes,) = panels(WIDTH, height, left=100, right=70, top=30)
    limits = _range(rho)
    # 32 colours: a longer colour bar would be embedded as a bitmap.
    mesh = axes.pcolormesh(
        np.append(starts, rho.shape[0]),
        np.arange(rho.shape[1] + 1),
        shown.T,
        cmap=matplotlib.colormaps["viridis"].resampled(32),
        edgecolors="face",
        linewidth=0.3,
        vmin=limits[0],
        vmax=limits[1],
    )
    figure.colorbar(
        mesh,
        cax=figure.add_axes((1 - 58 / WIDTH, 38 / height, 12 / WIDTH, 1 - 68 / height)),
    ).outline.set_visible(False)
    axes.set_yticks(np.arange(len(names)) + 0.5, [shorten(n, 15) for n in names])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    axes.set_title(f"Shape rho, {part}")
    caption = (
        f"Shape rho, {part}, by feature and time step, from {rho.min():.2f} "
        f"to {rho.max():.2f}. A larger rho spends more sampling steps at low noise."
    )
    return picture(figure, f"rho-{part}", f"Heat map. {caption}", caption, wide=True)


def sigma_curves(part: str, noise: Noise, start: float | None) -> Picture:
    """Noise level over diffusion time, one curve a feature, averaged over steps."""
    t, curves = noise.t, np.asarray(noise.sigma)
    figure, (axes,) = panels(360, 260, left=50, right=12)
    axes.semilogy(t, curves, color=MUTED, linewidth=0.7)
    middle = curves[len(t) // 2]
    extremes = dict.fromkeys([int(middle.argmax()), int(middle.argmin())])
    for feature, colour, place in zip(extremes, (SYNTHETIC, REAL), (0.12, 0.04)):
        axes.semilogy(t, curves[:, feature], color=colour)
        label = shorten(noise.names[feature], 20)
        if noise.rho is not None:
            label += f", rho {noise.rho[:, feature].mean():.2f}"
        axes.text(
            0.98, place, label, transform=axes.transAxes, ha="right", color=colour
        )
    if start is not None and noise.rho is not None:
        before = noise_level(t, start, float(curves[0].min()), float(curves[-1].max()))
        axes.semilogy(t, before, color=INK, linewidth=1.1, linestyle=(0, (2, 2)))
        text = f"before training, rho {start:g}"
        axes.text(0.98, 0.20, text, transform=axes.transAxes, ha="right")
    axes.set_xlabel("diffusion time t (0 clean, 1 noise)")
    axes.set_title(f"Noise level sigma(t), {part}")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    caption = (
        f"Noise level over diffusion time, {part}: every feature thin, the highest and "
        "the lowest in colour, the start dashed."
    )
    return picture(figure, f"sigma-{part}", caption)


def schedule_pictures(
    part: str, entry: Any, config: Mapping[str, Any], time_label: str
) -> tuple[list[Picture], list[Picture], list[str]]:
    """Maps and curves of one part's schedule, and sentences on what was left out."""
    is_numeric = part.endswith("numeric")
    start = config.get("rho" if is_numeric else "rho_embedding")
    top = "sigma_max" if is_numeric else "sigma_max_embedding"
    ends = (config.get("sigma_min"), config.get(top))
    noise = read_noise(entry, ends)
    title = PARTS.get(part, part.replace("_", " "))
    total, notes = len(noise.names), []
    if total > MAX_FEATURES:
        noise = _moved_most(noise, start)
        notes = [
            f"{title}: shown are the {MAX_FEATURES} of {total} features whose schedule "
            "moved most."
        ]
    maps = []
    if noise.rho is not None and noise.rho.shape[0] == 1:
        maps = [rho_bars(title, noise.rho[0], noise.names)]
    elif noise.rho is not None and noise.rho.size:
        maps = [rho_map(title, noise.rho, noise.names, time_label)]
    curves = [sigma_curves(title, noise, start)] if noise.sigma is not None else []
    return maps, curves, notes


def read_noise(entry: Any, ends: tuple[Any, Any]) -> Noise:
    """Reads `rho` [T, D], or `sigma` [levels, T, D] at the times `t`.

    Where only sigma is given, rho solves sigma(1/2) of the power mean; it stays unknown
    when the curve is not a power mean.
    """
    table = entry if isinstance(entry, Mapping) else {"rho": entry}
    t = np.linspace(0, 1, 51)
    if "rho" in table:
        rho = np.atleast_2d(np.asarray(table["rho"], float))
        sigma = None
        if None not in ends and rho.size:
            sigma = noise_level(t[:, None], rho.mean(0), *map(float, ends))
    else:
        t, full = np.asarray(table["t"], float), np.asarray(table["sigma"], float)
        rho = shape_of(t, full)
        sigma = np.exp(np.log(full).mean(1)) if (full > 0).all() else None
    size = (rho if rho is not None else full).shape[-1]
    names = table.get("names") or [f"feature {k}" for k in range(size)]
    return Noise([str(name) for name in names], rho, t, sigma)


def noise_level(t: Any, rho: Any, low: float, high: float) -> np.ndarray:
    """Power-mean schedule [cdmt2026, Eq. 3], in float64 on the host.

    sigma = (low^(1/rho) + t (high^(1/rho) - low^(1/rho)))^rho.
    """
    power = 1 / np.asarray(rho, float)
    first, last = low**power, high**power
    return np.exp(np.log(first + np.asarray(t) * (last - first)) / power)


def shape_of(t: np.ndarray, sigma: np.ndarray) -> np.ndarray | None:
    """Shape rho [T, D] of `sigma` [levels, T, D] by bisection at the middle level.

    None where the ends differ between features or the found curves miss `sigma` by more
    than 2 %.
    """
    low, high = float(sigma[0].min()), float(sigma[-1].max())
    if not 0 < low < high or np.ptp(sigma[[0, -1]], axis=(1, 2)).max() > 1e-3 * high:
        return None
    middle = len(t) // 2
    small, large = np.full(sigma.shape[1:], 0.2), np.full(sigma.shape[1:], 60.0)
    for _ in range(30):  # sigma(t) falls as rho grows
        guess = (small + large) / 2
        above = noise_level(t[middle], guess, low, high) > sigma[middle]
        small, large = np.where(above, guess, small), np.where(above, large, guess)
    rho = (small + large) / 2
    found = noise_level(t[:, None, None], rho, low, high)
    return rho if np.abs(found / sigma - 1).max() < 0.02 else None


def _moved_most(noise: Noise, start: float | None) -> Noise:
    """The features whose shape is farthest from the start (or from the mean)."""
    if noise.rho is None:
        spread = np.zeros(len(noise.names))
    else:
        centre = start if start is not None else float(noise.rho.mean())
        spread = np.abs(noise.rho - centre).mean(0)
    kept = largest(spread.tolist())
    return Noise(
        [noise.names[k] for k in kept],
        None if noise.rho is None else noise.rho[:, kept],
        noise.t,
        None if noise.sigma is None else noise.sigma[:, kept],
    )


def losses(records: Sequence[Mapping[str, Any]]) -> Picture:
    """Training and validation loss over optimiser steps."""
    figure, (axes,) = panels(WIDTH, 230, left=54)
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


def _range(rho: np.ndarray) -> tuple[float, float]:
    low, high = float(rho.min()), float(rho.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    return low, high
