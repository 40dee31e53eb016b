"""How figures look, and how a Matplotlib figure becomes inline SVG.

Figures are drawn in fixed marker colours, which the page's style sheet replaces by its
own, so that one file serves light, dark and print. Sizes are in CSS pixels.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, GRID, SHADE = "#101112", "#606162", "#d8d9da", "#e8e9ea"
REAL, SYNTHETIC, PAPER = "#1b4f8b", "#d9690c", "#fdfefd"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    SHADE: "var(--shade)",
    REAL: "var(--real)",
    SYNTHETIC: "var(--synthetic)",
    PAPER: "var(--paper)",
}
_LOOK: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "text.color": INK,
    "text.parse_math": False,  # names of columns and categories may hold dollars
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text: searchable, small, in the page's font
    "svg.hashsalt": "jaxehr",  # the same input gives the same bytes
    "path.simplify": True,
}


class Picture(NamedTuple):
    """One figure of the page: inline SVG, what it shows, and its caption."""

    svg: Markup
    caption: str
    wide: bool = False


@contextlib.contextmanager
def look() -> Iterator[None]:
    """The report's drawing style, whatever the user's own Matplotlib settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        yield


def panels(
    width: float,
    height: float,
    *,
    rows: int = 1,
    columns: int = 1,
    left: float = 44,
    right: float = 10,
    top: float = 26,
    bottom: float = 38,
    gap: tuple[float, float] = (0.25, 0.12),
    **shared: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` pixels with fixed margins, and its axes by row."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel().tolist()
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        hspace=gap[0],
        wspace=gap[1],
    )
    return figure, axes


def picture(
    figure: Figure, name: str, alt: str, caption: str = "", *, wide: bool = False
) -> Picture:
    """Renders `figure` as SVG to stand inside HTML.

    Args:
      name: unique on the page; element ids start with it, so that figures do not share
        clip paths.
      alt: what a reader who does not see the figure is told.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    # Coordinates, not what is written.
    text = re.sub(r"<[^>]*>", lambda m: re.sub(r"(\d\.\d\d)\d+", r"\1", m[0]), text)
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', text))
    prefix = re.sub(r"\W+", "-", name)
    text = re.sub(
        r' id="([^"]*)"',
        lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "",
        text,
    )
    text = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", text)
    for marker, variable in _VARIABLES.items():
        text = text.replace(marker, variable)
    width = round(figure.get_figwidth() * 72)
    head = f'<svg role="img" aria-label="{escape(alt)}" style="max-width:{2 * width}px"'
    text = re.sub(
        r'<svg\b(?:(?! viewBox=)[^>])*( viewBox="[^"]*")[^>]*>',
        lambda m: f"{head}{m[1]}>",
        text,
        count=1,
    )
    text = re.sub(r"\s*\n\s*", "\n", text).strip()
    return Picture(Markup(text), caption or alt, wide)


def standalone(made: Picture) -> str:
    """The figure as an SVG file of its own, with its colours on white."""
    text = str(made.svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    for marker, variable in _VARIABLES.items():
        text = text.replace(variable, marker)
    ground = "background:#ffffff;font-family:sans-serif"
    text = text.replace('style="', f'style="{ground};', 1)
    return f"{text}\n"


def shorten(text: Any, length: int = 18) -> str:
    """`text` cut to `length` characters with an ellipsis."""
    words = str(text)
    return words if len(words) <= length else words[: length - 1] + "…"
