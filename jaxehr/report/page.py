"""What a section of the page is made of."""

from typing import Any, NamedTuple

from jaxehr.report.style import Picture


class Grid(NamedTuple):
    """Pictures beside each other; `size` sets their least width."""

    pictures: list[Picture]
    size: str = "normal"  # normal | medium | large | half (of the page)
    heading: str = ""
    kind: str = "grid"


class Rows(NamedTuple):
    """A table whose first column names the row; `numeric` columns align right."""

    caption: str
    head: list[str]
    rows: list[list[Any]]
    numeric: bool = True
    kind: str = "table"


class Lines(NamedTuple):
    """A bulleted list."""

    items: list[str]
    kind: str = "list"


class Section(NamedTuple):
    """One heading with its text and blocks; `legend` adds the colour key."""

    id: str
    title: str
    text: list[str]
    blocks: list[Any]
    legend: bool = False
