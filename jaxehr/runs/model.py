"""A trained model with what it needs to draw patients."""

from typing import Any, NamedTuple

from jaxehr.core.cohort import Schema
from jaxehr.core.contracts import GenerativeModel, Params
from jaxehr.registry import find, model_entry


class Run(NamedTuple):
    """A trained model: everything `sample` needs."""

    name: str
    config: Any
    schema: Schema
    params: Params
    info: dict[str, Any]

    @property
    def model(self) -> GenerativeModel:
        return make(self.name, self.schema, self.config)


def make(name: str, schema: Schema, config: Any = None) -> GenerativeModel:
    """The generative model `name` for cohorts of `schema`."""
    return find(model_entry(name).factory)(schema, config)
