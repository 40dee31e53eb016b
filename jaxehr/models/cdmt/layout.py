"""Which columns the network sees: the static part of the encoding of a schema.

Each modality becomes numeric columns, coded columns with two or more categories, and
what is missing, when masks are modelled: latents behind the numeric columns (see
`latents`), or one binary column per feature that says "missing" (1). Constants are not
diffused: they have one value.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Schema
from jaxehr.data.mixed import Part, every_mask
from jaxehr.models.cdmt.config import CdmtConfig


class Layout(NamedTuple):
    """Static and temporal part, time steps and condition of one model."""

    static: Part
    temporal: Part
    num_steps: int
    num_classes: int  # of the condition; 0 = unconditional or no label
    label_classes: int  # > 0: the label is the last coded column of the temporal part
    gaps: tuple[int, ...] = ()  # codes of what is missing of each panel; when fitted
    masked: bool = True  # what is missing of series is modelled, not only filled
    full: bool = False  # every patient has all steps: the GRU asks for no end

    @property
    def series(self) -> int:
        """Columns of the temporal part that are noisy numbers: values, and latents."""
        return len(self.temporal.numeric) + len(self.gaps)


def make_layout(schema: Schema, config: CdmtConfig) -> Layout:
    """What a model of `schema` diffuses and what it is conditioned on."""
    diffused = config.mode == "unconditional" and schema.label is not None
    if diffused and not schema.temporal:
        raise InputError(
            "mode unconditional decides the label by a vote over time steps, but the "
            "cohort has no temporal feature; use --mode conditional."
        )
    masks = lambda features: every_mask(features) if config.masks else ()
    label = (("label", schema.num_classes),) if diffused else ()
    return Layout(
        Part(schema.static, masks(schema.static)),
        Part(schema.temporal, () if latent(config) else masks(schema.temporal), label),
        schema.num_steps if schema.temporal else 0,
        0 if diffused else schema.num_classes,
        schema.num_classes if diffused else 0,
        masked=config.masks,
    )


def latent(config: CdmtConfig) -> bool:
    """Whether gaps of series, and what is behind an end, follow their normal law; gaps
    are latents of it then instead of masks, if they are modelled at all."""
    return config.prior == "normal"


def completed(layout: Layout, fitted: dict[str, Any]) -> Layout:
    """The layout with what only fitting tells."""
    found = fitted.get("latents")
    sizes = np.asarray(found["panels"]["sizes"]).tolist() if found else ()
    return layout._replace(gaps=tuple(sizes))


def refuse_silent(layout: Layout, silent: int) -> None:
    """Raises where the label is a vote over time and `silent` patients have no step."""
    if layout.label_classes and silent:
        raise InputError(
            "mode unconditional decides the label by a vote over time steps, but "
            f"{silent} patients have none; use --mode conditional."
        )
