"""Templates of the pages and of the card, and one metric as they show it."""

import importlib.resources
from typing import Any

import jinja2

from jaxehr.core.contracts import Result
from jaxehr.report import words


def template(name: str, *, escape: bool = True) -> jinja2.Template:
    """A page of ours; the HTML ones fill the blocks of `page.html.j2`."""
    folder = importlib.resources.files("jaxehr.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: folder.joinpath(name).read_text(encoding="utf-8")
        ),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def metric_row(result: Result) -> dict[str, Any]:
    """One metric in words, for the template."""
    reading = words.read(result)
    defined = words.is_defined(result)
    return {
        "name": result.name,
        "group": result.group,
        "title": result.definition.title,
        "text": result.definition.text,
        "value": words.number(result.value.value) if defined else "not defined",
        "interval": words.interval(result) if defined else "",
        "reference": words.number(result.value.reference),
        "direction": words.direction(result),
        "ideal": ""
        if result.definition.direction == "target"
        else words.number(result.definition.ideal),
        "mark": reading.mark,
        "gap": reading.gap,
        "sentence": reading.sentence,
    }
