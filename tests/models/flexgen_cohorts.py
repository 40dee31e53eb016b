"""Small FLEXGEN configurations, and cohorts as its autoencoders see them."""

from jaxehr.core import sparse
from jaxehr.core.cohort import Cohort, Schema
from jaxehr.models.flexgen import preprocessing
from jaxehr.models.flexgen.config import FlexgenConfig
from jaxehr.models.flexgen.layout import make_layout

SMALL = {"latent": 4, "hidden": 16, "hidden_sequence": 8, "max_knots": 1000}


def config(**fields):
    return FlexgenConfig(**SMALL | fields)


def encoded(made: Schema, settings: FlexgenConfig, people: Cohort):
    """(layout, fitted, encoded) of a cohort on itself."""
    layout = make_layout(
        made, settings, isinstance(people.temporal, sparse.SparseTable)
    )
    fitted = preprocessing.fit(made, layout, settings, people)
    return layout, fitted, preprocessing.encode(fitted, layout, people)
