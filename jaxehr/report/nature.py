"""What the patients beside the real ones are: drawn from a model, or real people."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxehr.core.cohort import Dataset

COPYING = ("bootstrap",)  # models that draw real people as they are


class Nature(NamedTuple):
    """How the patients of a release are called, and what is said of them."""

    rows: str
    source: str
    sensitive: str
    activity: str  # before the name of the model
    real: bool  # whether they are real people


DRAWN = Nature(
    "synthetic patients",
    "Drawn from a generative model of real patient records.",
    "Health data drawn from a model of real people.",
    "sampling from",
    False,
)
COPIED = Nature(
    "copies of real patients",
    "Drawn with replacement from real patient records.",
    "Health data of real people: every row is a copy of one.",
    "sampling from",
    True,
)
IMPUTED = Nature(
    "real patients whose missing parts were drawn",
    "Real patient records whose missing parts were drawn from a generative model.",
    "Health data of real people.",
    "imputation by",
    True,
)


def model_of(data: Dataset, run: Mapping[str, Any]) -> str:
    """The model behind the patients, as they say themselves or else the run; "" where
    neither does."""
    return data.provenance.get("model") or run.get("model") or ""


def nature(data: Dataset, run: Mapping[str, Any]) -> Nature:
    """What the patients `data` are.

    Args:
      run: the model, as in `write_report`.
    """
    if data.provenance.get("kind") == "imputed":
        return IMPUTED
    return COPIED if model_of(data, run) in COPYING else DRAWN
