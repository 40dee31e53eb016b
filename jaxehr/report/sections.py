"""The sections that compare real with synthetic data, each a function of both."""

import numpy as np

from jaxehr.core.cohort import Dataset
from jaxehr.core.contracts import Comparison
from jaxehr.report import figures, patients, summary
from jaxehr.report.page import Grid, Rows, Section
from jaxehr.report.summary import MAX_FEATURES, Part
from jaxehr.report.words import label_counts, number

MAX_CLASSES = 3


def _sides(comparison: Comparison) -> tuple[Dataset, Dataset]:
    return comparison.train, comparison.synthetic


def shown_note(shown: int, total: int, by: str) -> list[str]:
    """Says so when features were left out."""
    if shown >= total:
        return []
    return [f"Shown are the {shown} of {total} features with the largest {by}."]


def marginal_grid(comparison: Comparison, part: Part) -> tuple[Grid, list[str]]:
    """Distributions of one part; at most 12, those that differ most."""
    features = summary.features_of(comparison.train, part)
    usable = [i for i, f in enumerate(features) if f.kind != "constant"]
    drawn = {}
    for index in usable:
        samples = [summary.observed_values(d, part, index) for d in _sides(comparison)]
        edges, shares = summary.shares(features[index], samples)
        drawn[index] = (edges, shares, [s.size for s in samples])
    scores = [
        summary.distance(*drawn[i][1]) if min(drawn[i][2]) else np.nan for i in usable
    ]
    kept = [usable[k] for k in summary.largest(scores)]
    pictures = []
    for index in kept:
        edges, shares, counts = drawn[index]
        pictures.append(figures.marginal(features[index], edges, shares, counts, part))
    return Grid(pictures), shown_note(len(kept), len(usable), "difference")


def marginals(comparison: Comparison) -> Section:
    title = "Distribution of each variable over time steps"
    if not comparison.schema.temporal:
        text = ["There is no time-series part; see the static variables below."]
        return Section("marginals", title, text, [])
    grid, note = marginal_grid(comparison, "temporal")
    text = [
        "All observed values, pooled over patients and steps. Each side adds up to "
        "100 %, so the two compare whatever their numbers of patients. The lowest and "
        "highest 0.5 % count in the end bins.",
        *note,
    ]
    return Section("marginals", title, text, [grid], legend=True)


def missing_table(comparison: Comparison, part: Part, kept: list[int]) -> Rows:
    features = summary.features_of(comparison.train, part)
    rows = []
    for index in kept:
        real, synthetic = (
            summary.missing_overall(d, part, index) for d in _sides(comparison)
        )
        gap = 100 * (synthetic - real)
        points = "n/a" if np.isnan(gap) else figures.minus(f"{gap:+.1f} points")
        rows.append(
            [
                features[index].name,
                figures.percent(real),
                figures.percent(synthetic),
                points,
            ]
        )
    caption = f"Share of missing values, {part} part"
    return Rows(caption, ["Variable", "Real", "Synthetic", "Difference"], rows)


def _gaps(comparison: Comparison, part: Part) -> tuple[list[int], list[int], list[str]]:
    """Features to show, those never missing on either side, and sentences on both."""
    features = summary.features_of(comparison.train, part)
    overall = np.array(
        [
            [summary.missing_overall(d, part, i) for d in _sides(comparison)]
            for i in range(len(features))
        ]
    ).reshape(-1, 2)
    never = [i for i, row in enumerate(overall) if (row == 0).all()]
    ever = [i for i in range(len(features)) if i not in set(never)]
    kept = [
        ever[k]
        for k in summary.largest([abs(overall[i, 0] - overall[i, 1]) for i in ever])
    ]
    text = shown_note(len(kept), len(ever), "difference")
    if never:
        names = ", ".join(features[i].name for i in never[:MAX_FEATURES])
        more = f" and {len(never) - MAX_FEATURES} more" if len(never) > 12 else ""
        text.append(f"Never missing on either side: {names}{more}.")
    return kept, never, text


def missingness(comparison: Comparison) -> Section:
    schema, title = comparison.schema, "Missing values"
    if not schema.temporal:
        return Section("missing", title, ["There is no time-series part."], [])
    kept, _, note = _gaps(comparison, "temporal")
    text = [
        "When a value is measured tells a model about care. Share of patients still "
        "present at a step for whom the variable was not observed.",
        *note,
    ]
    blocks = []
    if schema.num_steps > 1 and kept:
        pictures = [
            figures.missing_over_time(
                schema.temporal[i],
                schema,
                [summary.missing_by_step(d, i) for d in _sides(comparison)],
                [summary.missing_overall(d, "temporal", i) for d in _sides(comparison)],
            )
            for i in kept
        ]
        blocks.append(Grid(pictures))
    if kept:
        blocks.append(missing_table(comparison, "temporal", kept))
    return Section("missing", title, text, blocks, legend=bool(kept))


def trajectories(comparison: Comparison) -> Section:
    title, schema = "Single patients side by side", comparison.schema
    varying = [f for f in schema.temporal if f.kind != "constant"]
    if schema.num_steps < 2 or not varying:
        text = ["The data have no series of two or more steps to draw."]
        return Section("patients", title, text, [])
    real, synthetic = patients.charts(*_sides(comparison))
    text = [
        "Patients drawn at random (fixed seed), in pairs of equal label where both "
        "sides have one; not chosen to look good. All charts share their axes. Nothing "
        "is drawn where nothing was observed: the line has a gap, and the grey bar "
        "below marks it.",
        "The charts on the real side are records of real people: handle this page "
        "under the same rules as the data.",
    ]
    blocks = [
        Grid(pictures, "half", heading)
        for pictures, heading in ((real, "Real"), (synthetic, "Synthetic"))
        if pictures
    ]
    return Section("patients", title, text, blocks, legend=True)


def _classes(comparison: Comparison) -> list[int]:
    """The most frequent classes of the real data, at most three."""
    counts = label_counts(comparison.train)
    return sorted(np.argsort(-counts, kind="stable")[:MAX_CLASSES].tolist())


def over_time(comparison: Comparison) -> Section:
    title, schema = "Course over time by label", comparison.schema
    numeric = [i for i, f in enumerate(schema.temporal) if f.is_numeric]
    if not numeric or schema.num_steps < 2:
        return Section("course", title, ["No numeric series to summarise."], [])
    scores = [
        summary.band_distance(
            *(summary.column(d, "temporal", i) for d in _sides(comparison))
        )
        for i in numeric
    ]
    kept = [numeric[k] for k in summary.largest(scores)]
    text = [
        "Mean (line; synthetic dashed) and the range that holds the middle 80 % of "
        "patients (area). Steps with fewer than "
        f"{summary.MIN_OBSERVATIONS} observations are left out.",
        *shown_note(len(kept), len(numeric), "difference"),
    ]
    classes = [None]
    if schema.label is not None:
        classes = _classes(comparison)
        if len(classes) < schema.num_classes:
            text.append(
                f"Shown are the {len(classes)} most frequent of "
                f"{schema.num_classes} classes."
            )
    pictures = [_band_picture(comparison, i, classes) for i in kept]
    return Section("course", title, text, [Grid(pictures, "large")], legend=True)


def _band_picture(
    comparison: Comparison, index: int, classes: list[int] | list[None]
) -> figures.Picture:
    schema, pairs = comparison.schema, []
    columns = [summary.column(d, "temporal", index) for d in _sides(comparison)]
    for code in classes:
        title, both = "all patients", columns
        if code is not None and schema.label is not None:
            title = figures.shorten(
                f"{schema.label.name} = {schema.label.classes[code]}"
            )
            both = [
                values[np.asarray(d.cohort.label) == code]
                for values, d in zip(columns, _sides(comparison))
            ]
        pairs.append((title, *(summary.band(values) for values in both)))
    return figures.bands(schema.temporal[index], schema, pairs)


def correlations(comparison: Comparison) -> Section:
    title, schema = "Correlations", comparison.schema
    part: Part = "temporal" if schema.temporal else "static"
    features = summary.features_of(comparison.train, part)
    numeric = [i for i, f in enumerate(features) if f.is_numeric]
    if len(numeric) < 2:
        text = ["Fewer than two numeric variables."]
        return Section("correlations", title, text, [])
    real, synthetic = (
        summary.correlations([summary.column(d, part, i) for i in numeric])
        for d in _sides(comparison)
    )
    gap = synthetic - real
    off = ~np.eye(len(numeric), dtype=bool)
    scores = np.where(np.isfinite(gap), np.abs(gap), 0).sum(1).tolist()
    kept = summary.largest(scores)
    names = [features[numeric[k]].name for k in kept]
    place = np.ix_(kept, kept)
    known = np.abs(gap[off & np.isfinite(gap)])
    text = [
        "Pearson correlation of variables observed at the same step. One colour "
        f"scale for all three: white is 0, red +1, blue {figures.minus(-1)}; n/a means "
        "too few values.",
        *shown_note(len(kept), len(numeric), "difference"),
    ]
    if known.size:
        text.append(
            f"Mean absolute difference over all pairs: {number(float(known.mean()))}; "
            f"largest: {number(float(known.max()))}."
        )
    pictures = [
        figures.correlation(names, matrix[place], heading)
        for matrix, heading in (
            (real, "Real"),
            (synthetic, "Synthetic"),
            (gap, "Synthetic minus real"),
        )
    ]
    return Section("correlations", title, text, [Grid(pictures, "medium")])


def lengths(comparison: Comparison) -> Section | None:
    """Length of the records, when it varies on either side."""
    both = [np.asarray(d.cohort.length) for d in _sides(comparison)]
    if not comparison.schema.temporal or all(len(np.unique(v)) < 2 for v in both):
        return None
    pictures = [figures.lengths(comparison.schema, both)]
    return Section("lengths", "Length of the records", [], [Grid(pictures)], True)


def labels(comparison: Comparison) -> Section:
    label, title = comparison.schema.label, "Outcome label"
    if label is None:
        return Section("label", title, ["The data have no label."], [])
    counts = [label_counts(data) for data in comparison]
    shares = [c / max(c.sum(), 1) for c in counts]
    kept = summary.largest(np.abs(shares[0] - shares[2]).tolist())
    rows = [
        [str(label.classes[k])]
        + [f"{c[k]:,} ({100 * s[k]:.1f} %)" for c, s in zip(counts, shares)]
        for k in kept
    ]
    head = [label.name, "Real, training", "Real, held out", "Synthetic"]
    picture = figures.bars(
        [str(c) for c in label.classes],
        [shares[0], shares[2]],
        label.name,
        "label",
        f"Share of patients in each class of {label.name}.",
        "% of patients",
    )
    text = shown_note(len(kept), len(label.classes), "difference")
    blocks = [Rows("Patients by class", head, rows), Grid([picture])]
    return Section("label", title, text, blocks, legend=True)


def static(comparison: Comparison) -> Section | None:
    """Distributions and missing values of the static part."""
    if not comparison.schema.static:
        return None
    grid, note = marginal_grid(comparison, "static")
    kept, _, gaps = _gaps(comparison, "static")
    blocks: list = [grid] if grid.pictures else []
    if kept:
        blocks.append(missing_table(comparison, "static", kept))
    return Section("static", "Static variables", [*note, *gaps], blocks, legend=True)
