"""Whom a run learned from, so that attacks ask about people it really saw."""

from typing import Any

import numpy as np

from jaxehr.core.checks import InputError
from jaxehr.core.cohort import Dataset, take
from jaxehr.core.contracts import Attacked, Comparison
from jaxehr.data.split import held_out
from jaxehr.runs.identity import fingerprint
from jaxehr.runs.model import Run
from jaxehr.runs.training import to_learn_from

MOST_SHARED = 0.05  # of the hold-out people may be training people too
NOT_KNOWN = (
    "it is not known whom the model never saw: the synthetic patients were not drawn "
    "by a run on this cohort that left people out; give --holdout."
)
NOT_NEW = (
    "the model was trained on all of these people: its hold-out is not new to it; give "
    "--holdout, people it has not seen."
)


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


def on_both_sides(real: Dataset, holdout: Dataset) -> np.ndarray:
    """Bool [hold-out stays]: of people who are in `real` too."""
    return np.isin(holdout.groups, real.groups)


def new_people(real: Dataset, holdout: Dataset) -> tuple[Dataset, str]:
    """The hold-out without people who are in `real` too, if these are few, and a
    sentence on them; many are for `doubt` to speak of."""
    common = on_both_sides(real, holdout)
    count, share = shared(holdout, common)
    if not count or share > MOST_SHARED:
        return holdout, ""
    return take(holdout, np.flatnonzero(~common)), (
        f"{count} people are in the training and in the hold-out cohort; they were "
        "taken out of the hold-out."
    )


def shared(holdout: Dataset, common: np.ndarray) -> tuple[int, float]:
    """How many people of the hold-out have stays in `common`, and which share."""
    count = np.unique(holdout.groups[common]).size
    return count, count / max(np.unique(holdout.groups).size, 1)


def doubt(
    real: Dataset, synthetic: Dataset, holdout: Dataset | None, model: Run | None = None
) -> str:
    """Why it is not known, or not so, that the model which drew `synthetic` learned
    from `real` and never saw the hold-out; an empty text where nothing speaks against.

    Args:
      holdout: None = the people of `real` whom training left out.
      model: the run that drew them, if at hand: it tells whom it learned from.
    """
    if synthetic.provenance.get("kind") == "imputed":
        return (
            "these are real patients whose missing parts were drawn, and no synthetic "
            "ones; give patients of `jaxehr sample`."
        )
    share = left_out(real, synthetic)
    if holdout is None:
        if not share:
            return NOT_KNOWN if share is None else NOT_NEW
        return among_synthetic(synthetic, real.groups[held_out(real.groups, share)])
    common = on_both_sides(real, holdout)
    count, part = shared(holdout, common)
    if part > MOST_SHARED:
        return (
            f"{count} people are in the training and in the hold-out cohort; leave "
            "them out of one, or give them other ids if they are other people."
        )
    if reason := among_synthetic(synthetic, holdout.groups[~common]):
        return reason
    if share and not drew(model, synthetic):
        return (
            f"training left out {share:g} of the real patients, who would count as "
            "trained on; leave --holdout away (they are the hold-out then), or give "
            "--run, which knows them."
        )
    return ""


def among_synthetic(synthetic: Dataset, people: np.ndarray) -> str:
    """What is wrong if hold-out people seem to be among the synthetic ones."""
    if synthetic.provenance.get("kind") == "synthetic":  # numbered from 1
        return ""
    ids = synthetic.groups.astype(str)
    count = np.unique(ids[np.isin(ids, people.astype(str))]).size
    if not count:
        return ""
    return (
        f"{count} of the synthetic patients have the id of a hold-out patient; give "
        "them other ids if they are other people."
    )


def drew(model: Run | None, synthetic: Dataset) -> bool:
    """Whether `model` learned from the people from whom the run did that drew these."""
    made: dict[str, Any] = synthetic.provenance.get("run", {})
    if model is None:
        return False
    return all(model.info.get(k) == made.get(k) for k in ("cohort", "holdout_fraction"))


def refuse_unknown(
    real: Dataset, synthetic: Dataset, holdout: Dataset | None, model: Run | None = None
) -> None:
    """Raises unless it is known who is new to the model that drew `synthetic`.

    Raises:
      InputError: people on both sides; nobody, or other people, left out in training;
        real people in the place of synthetic ones.
    """
    if reason := doubt(real, synthetic, holdout, model):
        raise InputError(reason)
