"""Which columns the autoencoders see, and in which order: read off the schema alone.

A part is the static or the temporal table. Its encoded columns stand in an order that
makes every kind of likelihood one slice: numeric columns (normal ones, then counts),
binary ones, categorical ones by rising cardinality, constants. Constants are not
modelled; whether their value is missing is.
"""

import dataclasses
import functools
import itertools
from typing import NamedTuple

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Feature, Schema, coded_features, numeric_features
from jaxehr.models.flexgen.config import FlexgenConfig


@dataclasses.dataclass(frozen=True)
class Part:
    """One table: `features` in schema order and how they are modelled.

    Attributes:
      steps: T of the temporal part, 0 of the static one.
      masks: which values are missing is modelled too.
      counts: integer columns are negative binomial instead of normal.
      sparse: every column is binary and, at a valid step, observed.
    """

    features: tuple[Feature, ...]
    steps: int
    masks: bool
    counts: bool = False
    sparse: bool = False

    @functools.cached_property
    def numeric_order(self) -> tuple[int, ...]:
        """Places inside `Table.numeric`: the normal columns, then the counts."""
        numeric = numeric_features(self.features)
        is_count = lambda i: self.counts and numeric[i].kind == "integer"
        return tuple(sorted(range(len(numeric)), key=is_count))

    @functools.cached_property
    def num_counts(self) -> int:
        integers = sum(f.kind == "integer" for f in self.features)
        return integers if self.counts else 0

    @functools.cached_property
    def num_normal(self) -> int:
        return len(self.numeric_order) - self.num_counts

    @functools.cached_property
    def codes_order(self) -> tuple[int, ...]:
        """Places inside `Table.codes`, by rising cardinality; without constants."""
        widths = [f.cardinality for f in coded_features(self.features)]
        modelled = [i for i, width in enumerate(widths) if width > 1]
        return tuple(sorted(modelled, key=lambda i: widths[i]))

    @functools.cached_property
    def observed_order(self) -> tuple[int, ...]:
        """Places inside `Table.observed` of the columns in the order used here."""
        numeric, coded = len(self.numeric_order), coded_features(self.features)
        rest = [i for i in range(len(coded)) if i not in set(self.codes_order)]
        codes = (numeric + i for i in (*self.codes_order, *rest))
        return (*self.numeric_order, *codes)

    @functools.cached_property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """(cardinality, columns) of the coded columns, cardinalities rising."""
        coded = coded_features(self.features)
        widths = [coded[i].cardinality for i in self.codes_order]
        return tuple((k, len(list(same))) for k, same in itertools.groupby(widths))

    @functools.cached_property
    def num_binary(self) -> int:
        return dict(self.groups).get(2, 0)

    @functools.cached_property
    def categorical(self) -> tuple[tuple[int, int], ...]:
        """`groups` without the binary columns."""
        return tuple(group for group in self.groups if group[0] > 2)

    @property
    def num_flags(self) -> int:
        """Columns of `Block.observed`: none where everything is observed."""
        return 0 if self.sparse else len(self.features)

    @property
    def num_masks(self) -> int:
        """Bernoulli outputs that say which values are observed."""
        return self.num_flags if self.masks else 0

    @functools.cached_property
    def num_logits(self) -> int:
        """Outputs of the categorical columns."""
        return sum(width * count for width, count in self.categorical)

    @functools.cached_property
    def num_outputs(self) -> int:
        """Numbers the decoder makes for one row: see `likelihoods`."""
        numeric = len(self.numeric_order)
        return numeric + self.num_binary + self.num_masks + self.num_logits

    @functools.cached_property
    def num_inputs(self) -> int:
        """Columns the encoder sees of one row."""
        numeric = len(self.numeric_order)
        return numeric + self.num_binary + self.num_logits + self.num_flags


class Layout(NamedTuple):
    """Both parts and the number of label classes (0 without a label)."""

    static: Part
    temporal: Part
    num_classes: int


def make_layout(schema: Schema, config: FlexgenConfig, sparse: bool = False) -> Layout:
    """What a model of `schema` encodes; `sparse` if the temporal table is.

    Raises:
      InputError: a modality without features, or a sparse column that is not binary.
    """
    for name, features in (("static", schema.static), ("temporal", schema.temporal)):
        if not features:
            raise InputError(
                f"schema: no {name} feature; flexgen aligns a static with a temporal "
                "table and needs both. Use cdmt for this cohort."
            )
    other = [f.name for f in schema.temporal if f.kind != "binary"]
    if sparse and other:
        raise InputError(
            f"sparse table: temporal feature {other[0]!r} is not binary "
            f"({len(other)} of {len(schema.temporal)} are not)."
        )
    counts = config.integers == "count"
    return Layout(
        Part(schema.static, 0, config.masks, counts),
        Part(schema.temporal, schema.num_steps, config.masks, counts, sparse),
        schema.num_classes,
    )
