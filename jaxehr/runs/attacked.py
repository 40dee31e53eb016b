"""Whom a run learned from, so that attacks ask about people it really saw."""

from typing import Any

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset
from jaxehr.core.contracts import Attacked, Comparison
from jaxehr.runs.identity import fingerprint
from jaxehr.runs.model import Run
from jaxehr.runs.training import to_learn_from


def attacked(run: Run, real: Dataset, compared: Comparison) -> Attacked | str:
    """The model of a run for attacks on it, or why it cannot be attacked.

    Args:
      real: the cohort that the run was trained on, whole.
      compared: what `comparison` made of it.
    """
    if run.info.get("cohort") != fingerprint(real):
        return (
            "the model was trained on another cohort than the real one, so it is not "
            "known whom it learned from"
        )
    fraction = run.info["holdout_fraction"]
    seen, judged = to_learn_from(real, fraction, {}, run.info["seed"])
    known = np.concatenate([seen.groups, judged.groups])
    common = int(np.isin(compared.holdout.groups, known).sum())
    if common:
        return f"the model was trained on {common} of the hold-out patients too"
    learned = np.isin(compared.train.ids, seen.ids)
    return Attacked(run.model, run.params, learned)


def left_out(real: Dataset, synthetic: Dataset) -> float | None:
    """The share of `real` that the model which drew `synthetic` never saw; None where
    they were not drawn by a run on `real`."""
    made: dict[str, Any] = synthetic.provenance.get("run", {})
    if "cohort" not in made or made["cohort"] != fingerprint(real):
        return None
    return made.get("holdout_fraction", 0.0)


def doubt(real: Dataset, synthetic: Dataset, holdout: Dataset | None) -> str:
    """Why it is not known, or not so, that the model which drew `synthetic` learned
    from `real` and never saw the hold-out; an empty text where nothing speaks against.

    Args:
      holdout: None = the people of `real` whom training left out.
    """
    share = left_out(real, synthetic)
    if holdout is None and share is None:
        return (
            "it is not known whom the model never saw: the synthetic patients were not "
            "drawn by a run on this cohort that left people out; give --holdout."
        )
    if holdout is None and not share:
        return (
            "the model was trained on all of these people: its hold-out is not new to "
            "it; give --holdout, people it has not seen."
        )
    if holdout is None:
        return ""
    common = np.intersect1d(real.groups, holdout.groups).size
    if common:
        return (
            f"{common} people are in the training and in the hold-out cohort; leave "
            "them out of one, or give them other ids if they are other people."
        )
    if share:
        return (
            f"training left out {share:g} of the real patients, who would count as "
            "trained on; leave --holdout away (they are the hold-out then)."
        )
    return ""


def refuse_unknown(real: Dataset, synthetic: Dataset, holdout: Dataset | None) -> None:
    """Raises unless it is known who is new to the model that drew `synthetic`.

    Raises:
      InputError: people on both sides; nobody, or other people, left out in training.
    """
    if reason := doubt(real, synthetic, holdout):
        raise InputError(reason)
