"""Patients from a trained model."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxehr.core.checks import check_seed, known, positive, whole
from jaxehr.core.cohort import Cohort, Dataset, Schema, num_patients
from jaxehr.core.configs import to_dict
from jaxehr.data.assemble import encode_ids
from jaxehr.data.enforce import enforce_rules as enforced
from jaxehr.runs.model import Run


def sample_run(
    run: Run,
    num: int,
    *,
    label: Any | None = None,
    seed: int = 0,
    options: Any | None = None,
    enforce_rules: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Dataset:
    """`num` synthetic people with the columns, dtypes and categories of the input.

    Args:
      label: None = training frequency, "balanced", or one of the label's classes.
      enforce_rules: whether the rules and bounds of the schema are enforced; see
        `jaxehr.enforce_rules`, which also takes other rules than those of the run.

    Raises:
      InputError: no patient asked for, or more than the dtype of ids can number, a
        seed out of range, an unknown class, options of another model.
    """
    check_seed(seed)
    code = class_code(run.schema, label)
    positive(num=whole("num", num))
    encode_ids(run.schema, ids_of(run.schema, num))  # refused before, not after drawing
    cohort = run.model.sample(
        jax.random.key(seed), run.params, code, num, options=options, progress=progress
    )
    made = {
        "kind": "synthetic",
        "model": run.name,
        "config": to_dict(run.config),
        "run": {k: v for k, v in run.info.items() if k not in ("schema", "config")},
        "sampling": {} if options is None else to_dict(options),
        "label": None if label is None else str(label),
        "seed": seed,
    }
    data = synthetic(run.schema, cohort, made)
    return enforced(data) if enforce_rules else data


def class_code(schema: Schema, label: Any | None) -> Any | None:
    """The code of a class given by value or by its text."""
    if label is None or schema.label is None or str(label) == "balanced":
        return label
    names = [str(value) for value in schema.label.classes]
    known(f"class of label {schema.label.name!r}", str(label), names)
    return names.index(str(label))


def ids_of(schema: Schema, num: int) -> np.ndarray:
    """Ids of synthetic people: numbers from 1, or texts with them."""
    numbers = np.arange(1, num + 1)
    if "string" in schema.id_dtype:
        return np.array([f"synthetic-{n:07d}" for n in numbers])
    return numbers


def synthetic(schema: Schema, cohort: Cohort, provenance: dict[str, Any]) -> Dataset:
    """Synthetic people as a dataset."""
    ids = ids_of(schema, num_patients(cohort))
    return Dataset(schema, cohort, ids, ids, provenance)
