"""Which columns the network sees: the static part of the encoding of a schema.

Each modality becomes numeric columns, coded columns with two or more categories, and
one binary column per feature that says "missing" (1) when masks are modelled. Constants
are not diffused: they have one value.
"""

import dataclasses
from typing import NamedTuple

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature, Schema, coded_features, numeric_features
from jaxehr.models.cdmt.config import CdmtConfig


@dataclasses.dataclass(frozen=True)
class Part:
    """One modality: `features` in schema order and what the network sees of them.

    Columns of the coded block: first the coded features with K >= 2, then one mask per
    feature in the order of `Table.observed`, then the label in unconditional mode.
    """

    features: tuple[Feature, ...]
    masks: bool
    label_classes: int = 0  # > 0: the label is the last coded column

    @property
    def numeric(self) -> tuple[Feature, ...]:
        return numeric_features(self.features)

    @property
    def coded(self) -> tuple[Feature, ...]:
        return tuple(f for f in coded_features(self.features) if f.cardinality > 1)

    @property
    def coded_positions(self) -> tuple[int, ...]:
        """Places of the diffused coded features inside `Table.codes`."""
        every = coded_features(self.features)
        return tuple(i for i, f in enumerate(every) if f.cardinality > 1)

    @property
    def num_masks(self) -> int:
        return len(self.features) if self.masks else 0

    @property
    def cardinalities(self) -> tuple[int, ...]:
        label = (self.label_classes,) if self.label_classes else ()
        return (*(f.cardinality for f in self.coded), *(2,) * self.num_masks, *label)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coded block's columns, for plots."""
        observed = (*self.numeric, *coded_features(self.features))
        masks = tuple(f"{f.name} missing" for f in observed) if self.masks else ()
        label = ("label",) if self.label_classes else ()
        return (*(f.name for f in self.coded), *masks, *label)


class Layout(NamedTuple):
    """Static and temporal part, time steps and condition of one model."""

    static: Part
    temporal: Part
    num_steps: int
    num_classes: int  # of the condition; 0 = unconditional or no label


def make_layout(schema: Schema, config: CdmtConfig) -> Layout:
    """What a model of `schema` diffuses and what it is conditioned on."""
    diffused = config.mode == "unconditional" and schema.label is not None
    if diffused and not schema.temporal:
        raise InputError(
            "mode unconditional decides the label by a vote over time steps, but the "
            "cohort has no temporal feature; use --mode conditional."
        )
    return Layout(
        Part(schema.static, config.masks),
        Part(schema.temporal, config.masks, schema.num_classes if diffused else 0),
        schema.num_steps if schema.temporal else 0,
        0 if diffused else schema.num_classes,
    )
