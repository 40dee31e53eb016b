"""Table, figure and summary of `flexgen_missing`, from the cells that are done."""

import importlib.metadata
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.cells import Found, at, fell_back, spread
from jaxehr.core.files import write_json, write_text
from jaxehr.report.json_out import plain

TITLES = {
    "fused": "FLEXGEN, labels and anchors",
    "fused-no-by-class": "the same, imputed without the label",
    "gromov": "FLEXGEN, labels only",
    "signed": "FLEXGEN, the paper's",
    "complete": "complete patients only",
    "ridge": "ridge on complete patients",
    "knn": "5 nearest neighbours",
    "class-mean": "class mean",
    "bures": "Bures map",
    "independent": "columns shuffled",
    "independent-by-class": "columns shuffled within classes",
}
# Okabe and Ito's colours; alternatives are dashed
COLOURS = {
    "fused": "#0072B2",
    "gromov": "#56B4E9",
    "signed": "#CC79A7",
    "complete": "#000000",
    "ridge": "#D55E00",
    "knn": "#009E73",
    "class-mean": "#8C8C8C",
    "bures": "#E69F00",
}
COLUMNS = {
    "R² Pearson": "metrics.dimension_r2_pearson.value",
    "R² score": "metrics.dimension_r2_score.value",
    "MMD² x 1000": "metrics.mmd_pooled_squared.value",
    "AUROC": "metrics.forest_auroc.value",
    "AUPR": "metrics.forest_aupr.value",
    "skill static": "imputation.static.brier_skill",
    "skill temporal": "imputation.temporal.brier_skill",
    "NRMSE temporal": "imputation.temporal.person_nrmse",
}
COMPARED = {"AUROC": 1, "MMD² x 1000": -1}  # 1 = more is better
REAL = {
    title: path.replace(".value", ".reference")
    for title, path in COLUMNS.items()
    if path.endswith(".value")
}
GROUPS = {
    "as many lack each part": lambda p, q: p == q,
    "static part missing": lambda p, q: q == 0,
    "temporal part missing": lambda p, q: p == 0,
}


def groups_of(done: Found) -> dict[tuple[int, int, str], Found]:
    """Cells by pattern and method, in the order of the table."""
    found: dict[tuple[int, int, str], Found] = {}
    order = {name: i for i, name in enumerate(TITLES)}
    key = lambda c: (
        "independent" not in c["method"],  # floors first
        c["static"] + c["temporal"],
        c["static"],
        order[c["method"]],
    )
    for cell in sorted(done, key=lambda c: (*key(c), c["seed"])):
        name = (cell["static"], cell["temporal"], cell["method"])
        found.setdefault(name, []).append(cell)
    return found


def write_report(out: pathlib.Path, done: Found, settings: dict[str, Any]) -> None:
    """table.md, figure.png and summary.json; nothing without a cell."""
    if not done:
        return
    grouped = groups_of(done)
    text = "\n".join(filter(None, [table(grouped, done), versus(grouped)]))
    write_text(out / "table.md", text)
    draw(grouped, done, out / "figure.png")
    write_json(out / "summary.json", plain(summary(grouped, done, settings)))


def shown(cells: Found, title: str, path: str) -> str:
    """Mean and standard deviation over seeds as text."""
    factor, digits = (1000, 2) if "1000" in title else (1, 3)
    mean, std, count = spread(cells, path)
    if not count:
        return ""
    text = f"{factor * mean:.{digits}f}"
    return text if count == 1 else f"{text} ± {factor * std:.{digits}f}"


def table(grouped: dict[tuple[int, int, str], Found], done: Found) -> str:
    """The table as Markdown: real data first, then floors, then each pattern."""
    titles = ["static missing", "temporal missing", "method", *COLUMNS, "seeds"]
    rows = [titles, ["---"] * 3 + ["---:"] * (len(COLUMNS) + 1)]
    real = [shown(done[:1], title, REAL.get(title, "")) for title in COLUMNS]
    rows.append(["", "", "real training patients", *real, ""])
    for (static, temporal, method), cells in grouped.items():
        name = TITLES[method]
        if not static and not temporal and method == "complete":
            name = "all methods"
        name += fell_back(cells)
        numbers = [shown(cells, title, path) for title, path in COLUMNS.items()]
        share = ["", ""] if "shuffled" in name else [f"{static} %", f"{temporal} %"]
        rows.append([*share, name, *numbers, str(len(cells))])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    note = (
        "Mean ± standard deviation over seeds. R², MMD² and the random forest against "
        "the real test set; skill = 1 - Brier score / that of training shares, of the "
        "modality that was hidden from training patients; NRMSE: a patient's mean over "
        "time, 1 = training means. Ridge used: the coupling was unusable, or lost to "
        "ridge on the complete patients in cross-validation, and the row is ridge's."
    )
    return "\n".join([*lines, "", note, ""])


def versus(grouped: dict[tuple[int, int, str], Found]) -> str:
    """The default less each alternative, as Markdown; "" where they share no cell."""
    titles = [text for name in COMPARED for text in (f"{name} difference", "worst")]
    rows = [["`fused` less", *titles, "pairs"], ["---"] + ["---:"] * (len(titles) + 1)]
    for method in TITLES:
        numbers, pairs = [], 0
        for name, sign in COMPARED.items():
            found = differences(grouped, method, COLUMNS[name])
            pairs = sum(map(len, found.values()))
            if not pairs or method in ("fused", "fused-no-by-class"):
                break
            (p, q), worst = min(found.items(), key=lambda item: sign * item[1].mean())
            every = np.concatenate(list(found.values()))
            numbers += [error_of(every, name), f"{error_of(worst, name)} ({p}/{q})"]
        if numbers:
            rows.append([TITLES[method], *numbers, str(pairs)])
    if len(rows) == 2:
        return ""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    note = (
        "Pairs: the same patients hidden and the same seed; all patterns in which "
        "something is. Mean ± standard error over pairs, as if they were independent, "
        "but a larger share hides the same patients and more; worst: the pattern in "
        "which `fused` stands worst, as percent without static / temporal part."
    )
    return "\n".join([*lines, "", note, ""])


def differences(
    grouped: dict[tuple[int, int, str], Found], method: str, path: str
) -> dict[tuple[int, int], np.ndarray]:
    """The default less another method: by pattern, over the seeds of both."""
    found = {}
    for (p, q, name), cells in grouped.items():
        ours = {c["seed"]: at(c, path) for c in grouped.get((p, q, "fused"), [])}
        both = [ours[c["seed"]] - at(c, path) for c in cells if c["seed"] in ours]
        if name == method and both:
            found[p, q] = np.array(both)
    return found


def error_of(values: np.ndarray, title: str) -> str:
    """Mean and standard error, in the units of a column."""
    factor, digits = (1000, 2) if "1000" in title else (1, 3)
    text = f"{factor * values.mean():+.{digits}f}"
    if len(values) == 1:
        return text
    error = factor * values.std(ddof=1) / np.sqrt(len(values))
    return f"{text} ± {error:.{digits}f}"


def draw(
    grouped: dict[tuple[int, int, str], Found], done: Found, path: pathlib.Path
) -> None:
    """R² and AUROC against the share that is missing; bands are the range of seeds."""
    used = [
        (title, belongs)
        for title, belongs in GROUPS.items()
        if any(belongs(p, q) and (p or q) for p, q, _ in grouped)
    ] or list(GROUPS.items())[:1]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(4.4 * len(used) + 2.6, 6.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, len(used), squeeze=False, sharey="row", sharex="col")
        for row, title in enumerate(("R² Pearson", "AUROC")):
            for ax, (name, belongs) in zip(axes[row], used, strict=True):
                curves(ax, grouped, belongs, COLUMNS[title])
                baselines(ax, grouped, done, title)
                ax.grid(color="#e0e0e0", linewidth=0.6)
                ax.spines[["top", "right"]].set_visible(False)
                if row == 0:
                    ax.set_title(name, loc="left", fontsize=10)
                else:
                    ax.set_xlabel("share missing (of each part), %")
            axes[row][0].set_ylabel(title)
        # R² is near 1 for everyone: an axis of its range alone would exaggerate
        low = min(axes[0][0].get_ylim()[0], 0.95)
        axes[0][0].set_ylim(low, 1.0 + 0.03 * (1.0 - low))
        handles = {}
        for ax in axes.ravel():
            for line, label in zip(*ax.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, line)
        place: Any = "outside right upper"
        figure.legend(
            list(handles.values()), list(handles), loc=place, frameon=False, fontsize=9
        )
        figure.savefig(path, dpi=150, metadata={"Software": None})


def curves(
    ax: Axes,
    grouped: dict[tuple[int, int, str], Found],
    belongs: Any,
    path: str,
) -> None:
    """One line a method, from the point where nothing is missing."""
    start = grouped.get((0, 0, "complete"), [])
    for method, colour in COLOURS.items():
        points = {0: start} if start else {}
        for (p, q, name), cells in grouped.items():
            if name == method and belongs(p, q) and (p or q):
                points[max(p, q)] = cells
        if not points or max(points) == 0:
            continue
        x = sorted(points)
        values = [[at(cell, path) for cell in points[share]] for share in x]
        ours = method in ("fused", "gromov", "signed")
        ax.plot(
            x,
            [np.nanmean(v) for v in values],
            color=colour,
            marker="o",
            markersize=3.5,
            linewidth=1.8 if ours else 1.2,
            linestyle="-" if ours else "--",
            label=TITLES[method],
        )
        low, high = ([end(v) for v in values] for end in (np.nanmin, np.nanmax))
        ax.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0)


def baselines(
    ax: Axes,
    grouped: dict[tuple[int, int, str], Found],
    done: Found,
    title: str,
) -> None:
    """Horizontal lines: real training patients, and columns shuffled."""
    ax.axhline(at(done[0], REAL[title]), color="#444444", linewidth=1, label="real")
    if title != "AUROC":
        return
    for name, style in (("independent", ":"), ("independent-by-class", "-.")):
        cells = grouped.get((0, 0, name), [])
        if cells:
            level = spread(cells, COLUMNS[title])[0]
            ax.axhline(
                level, color="#444444", linewidth=1, linestyle=style, label=TITLES[name]
            )


def summary(
    grouped: dict[tuple[int, int, str], Found],
    done: Found,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Settings, seeds, time, machine, versions and every mean, JSON-able."""
    packages: Sequence[str] = ("jaxehr", "jax", "flax", "ott-jax", "scikit-learn")
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    rows = []
    for (static, temporal, method), cells in grouped.items():
        row = {"static": static, "temporal": temporal, "method": method}
        row["seeds"] = [cell["seed"] for cell in cells]
        for name in ("status", "used"):
            row[name] = [cell.get("alignment", {}).get(name) for cell in cells]
        for title, path in COLUMNS.items():
            mean, std, count = spread(cells, path)
            row[title] = mean if count else None
            row[f"{title} sd"] = std if count > 1 else None
        rows.append(row)
    # A cell that another one answered took no time.
    seconds = [sum(cell["seconds"].values()) for cell in done if cell["seconds"]]
    return {
        "settings": settings,
        "machines": sorted({json.dumps(cell["machine"]) for cell in done}),
        "versions": versions,
        "cells": len(done),
        "seconds": sum(seconds),
        "seconds_of_a_cell": float(np.median(seconds)),
        "real": {title: at(done[0], path) for title, path in REAL.items()},
        "rows": rows,
    }
