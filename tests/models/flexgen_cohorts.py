"""Small FLEXGEN configurations, and cohorts as its autoencoders see them."""

import dataclasses

from jaxehr.core import sparse
from jaxehr.core.cohort import Cohort, Schema
from jaxehr.models.flexgen import preprocessing
from jaxehr.models.flexgen.config import FlexgenConfig, preset
from jaxehr.models.flexgen.layout import make_layout

SMALL = {"latent": 4, "hidden": 16, "hidden_sequence": 8, "max_knots": 1000}


def config(**fields):
    return FlexgenConfig(**SMALL | fields)


def small(**changes):
    """A whole model that is trained in seconds."""
    config = preset("small")
    train = dataclasses.replace(
        config.train, steps=30, batch_size=32, eval_every=10, checkpoint_every=10
    )
    sizes = {"latent": 4, "hidden": 16, "hidden_sequence": 8, "width": 32}
    fields = sizes | {"autoencoder_epochs": 3, "train": train} | changes
    return dataclasses.replace(config, **fields)


def encoded(made: Schema, settings: FlexgenConfig, people: Cohort):
    """(layout, fitted, encoded) of a cohort on itself."""
    layout = make_layout(
        made, settings, isinstance(people.temporal, sparse.SparseTable)
    )
    fitted = preprocessing.fit(made, layout, settings, people)
    return layout, fitted, preprocessing.encode(fitted, layout, people)
